//! The parameters of Postfix's clients: those that begin with `lmtp_` or `smtp_`.
//!
//! - Owns: a row for every one that Postfix 3.5 to 3.11 has, with its fate.
//! - Leaves to others: what a fate means (`table`).
//! - Always true: there is no parameter in two rows.

use super::When::{NoneOf, Set, Yes};
use super::{Names, Row, accepted, honoured, honoured_with, parameter, refused};

/// What qmgr(8) goes by.
pub(super) const QUEUE_MANAGER: &[Names] = &[
    parameter!("destination_concurrency_limit"),
    parameter!("destination_concurrency_failed_cohort_limit"),
    parameter!("destination_concurrency_negative_feedback"),
    parameter!("destination_concurrency_positive_feedback"),
    parameter!("destination_rate_delay"),
    parameter!("destination_recipient_limit"),
    parameter!("initial_destination_concurrency"),
    parameter!("transport_rate_delay"),
    parameter!("recipient_limit"),
    parameter!("extra_recipient_limit"),
    parameter!("recipient_refill_limit"),
    parameter!("recipient_refill_delay"),
    parameter!("delivery_slot_cost"),
    parameter!("delivery_slot_discount"),
    parameter!("delivery_slot_loan"),
    parameter!("minimum_delivery_slots"),
];

/// All rows, in the order of the manual: obeyed, accepted, refused.
pub(super) const ROWS: &[Row] = &[
    honoured(
        &[parameter!("connect_timeout")],
        "17s",
        "how long one address may take to accept a connection; 0 leaves that to the system, for 5 minutes at most",
    ),
    honoured(
        &[parameter!("lhlo_timeout", "helo_timeout")],
        "17s",
        "how long the greeting and the reply to LHLO may take, each",
    ),
    honoured(
        &[
            parameter!("mail_timeout"),
            parameter!("rcpt_timeout"),
            parameter!("data_init_timeout"),
            parameter!("rset_timeout"),
            parameter!("quit_timeout"),
        ],
        "17s",
        "how long the reply to MAIL, RCPT, DATA, RSET and QUIT may take; as with all times here, 0 is no limit, and \
         the time is that of the whole reply and not of each read",
    ),
    honoured(&[parameter!("data_xfer_timeout")], "17s", "how long content may make no progress"),
    honoured(&[parameter!("data_done_timeout")], "17s", "how long each reply after the end of data may take"),
    honoured_with(
        &[parameter!("xforward_timeout")],
        "17s",
        &[(parameter!("send_xforward_command"), "yes")],
        "how long the reply to XFORWARD may take",
    ),
    honoured(
        &[parameter!("per_request_deadline")],
        "yes",
        "whether the minimal data rate holds; times are those of whole replies either way",
    ),
    honoured_with(
        &[parameter!("min_data_rate")],
        "17",
        &[(parameter!("per_request_deadline"), "yes")],
        "bytes that a server must take in a second, while times are those of whole requests",
    ),
    honoured(&[parameter!("lhlo_name", "helo_name")], "other.example", "the name in LHLO"),
    honoured(
        &[parameter!("skip_quit_response")],
        // The default of lmtp(8) is "no" and that of smtp(8) is "yes".
        "!",
        "whether a connection is closed without waiting for the reply to QUIT",
    ),
    honoured(
        &[parameter!("skip_5xx_greeting")],
        "no",
        "whether mail waits when a server greets with 5yz, or is returned",
    ),
    honoured(
        &[parameter!("tcp_port")],
        "2424",
        "the port of a next hop that names none: a number, or a name in known_tcp_ports or \
         /etc/services",
    ),
    honoured(&[parameter!("address_preference")], "ipv6", "which family of addresses is tried first"),
    honoured(
        &[parameter!("balance_inet_protocols"), parameter!("randomize_addresses")],
        "no",
        "the order of a host's addresses",
    ),
    honoured(
        &[parameter!("mx_address_limit")],
        "17",
        "addresses that are tried for one message, at most; 0 for a limit of our own",
    ),
    honoured(
        &[parameter!("mx_session_limit")],
        "17",
        "servers that are spoken to for one message, at most; 0 for all",
    ),
    honoured(&[parameter!("bind_address")], "192.0.2.17", "the IPv4 address to connect from"),
    honoured(&[parameter!("bind_address6")], "2001:db8::17", "the IPv6 address to connect from"),
    honoured(
        &[parameter!("bind_address_enforce")],
        "yes",
        "whether mail waits if an address cannot be bound, or goes out from another one",
    ),
    honoured(
        &[parameter!("fallback_relay")],
        "[192.0.2.17]:2424",
        "servers that are tried behind those of a TCP next hop; no MX record is looked up",
    ),
    honoured(
        &[parameter!("address_verify_target")],
        "data",
        "how far a probe of an address goes: to RCPT, or to DATA",
    ),
    honoured(&[parameter!(lmtp "assume_final")], "yes", "the same as flags=X on the service's command line"),
    honoured(
        &[parameter!("line_length_limit")],
        "512",
        "bytes of a line, beyond which it is broken: 16 or more, or 0 for no limit",
    ),
    honoured(
        &[parameter!("quote_rfc821_envelope")],
        "no",
        "whether addresses in MAIL and RCPT are quoted where SMTP wants it",
    ),
    honoured(
        &[parameter!("send_xforward_command")],
        "yes",
        "whether a server that offers XFORWARD is told where the message came from",
    ),
    honoured(
        &[parameter!("discard_lhlo_keywords", "discard_ehlo_keywords")],
        "chunking",
        "keywords of the reply to LHLO that are overlooked; CHUNKING is one more",
    ),
    honoured(
        &[parameter!("discard_lhlo_keyword_address_maps", "discard_ehlo_keyword_address_maps")],
        "inline:{{192.0.2.1 = chunking}}",
        "tables with the same by a server's address",
    ),
    honoured(
        &[parameter!("connection_reuse_time_limit")],
        "17s",
        "how old a connection may become; 0 for no limit",
    ),
    honoured(
        &[parameter!("connection_reuse_count_limit")],
        "17",
        "how often a connection is used again after its first message; 0 leaves it to max_use",
    ),
    honoured_with(
        &[parameter!("connection_cache_time_limit")],
        "17s",
        &[(parameter!(any "lastmile_connection_cache"), "postfix")],
        "how long a kept connection may rest, with lastmile_connection_cache = postfix; else that is max_idle",
    ),
    honoured_with(
        &[parameter!("connection_cache_on_demand")],
        "no",
        &[(parameter!(any "lastmile_connection_cache"), "postfix")],
        "whether connections are kept when the queue manager asks for it, with lastmile_connection_cache = postfix; \
         else they always are",
    ),
    honoured_with(
        &[parameter!("connection_cache_destinations")],
        "static:all",
        &[(parameter!(any "lastmile_connection_cache"), "postfix")],
        "next hops to which connections are always kept, with lastmile_connection_cache = postfix; else all are",
    ),
    honoured(
        &[parameter!("starttls_timeout")],
        "17s",
        "how long STARTTLS and the TLS handshake may take, each",
    ),
    honoured(
        &[parameter!("tls_security_level")],
        "encrypt",
        "what is asked of a server: none, may, encrypt, fingerprint, verify or secure. The levels of DANE are refused. To a \
         socket, may is none",
    ),
    honoured(
        &[parameter!("use_tls"), parameter!("enforce_tls")],
        "yes",
        "the level where none is set: may, or verify",
    ),
    honoured_with(
        &[parameter!("tls_enforce_peername")],
        "no",
        &[(parameter!("enforce_tls"), "yes")],
        "whether enforce_tls means verify, or encrypt",
    ),
    honoured_with(
        &[parameter!("tls_wrappermode")],
        "yes",
        &[(parameter!("tls_security_level"), "encrypt")],
        "whether TLS begins with the connection, which needs the level encrypt or a higher one",
    ),
    honoured(
        &[parameter!("tls_policy_maps")],
        "inline:{mx.example=encrypt}",
        "tables with levels for single next hops, and with the attributes match, servername and protocols. A policy that \
         asks for what is not known here defers mail",
    ),
    honoured(
        &[parameter!("tls_protocols")],
        "!TLSv1.2",
        "versions at the level may; 1.2 and 1.3 are spoken here",
    ),
    honoured_with(
        &[parameter!("tls_mandatory_protocols")],
        "!TLSv1.2",
        &[(parameter!("tls_security_level"), "encrypt")],
        "versions at the levels above it",
    ),
    honoured(
        &[parameter!("tls_CAfile"), parameter!("tls_CApath")],
        "/etc/ssl/other.pem",
        "the authorities that are trusted. Without them, nobody is, as long as tls_append_default_CA is no",
    ),
    honoured(
        &[parameter!("tls_cert_file"), parameter!("tls_eccert_file")],
        "/etc/ssl/other.pem",
        "the certificate that servers get to see. There can be one of the two",
    ),
    honoured_with(
        &[parameter!("tls_key_file")],
        "/etc/ssl/other.key",
        &[(parameter!("tls_cert_file"), "/etc/ssl/other.pem")],
        "its key, where that has a file of its own, which not everybody may read",
    ),
    honoured_with(
        &[parameter!("tls_eckey_file")],
        "/etc/ssl/other.key",
        &[(parameter!("tls_eccert_file"), "/etc/ssl/other.pem")],
        "the same for the other one",
    ),
    honoured(
        &[parameter!("tls_chain_files")],
        "/etc/ssl/other.pem",
        "one file with a key and its certificates, in the place of these",
    ),
    honoured(
        &[parameter!("tls_servername")],
        "hostname",
        "the name that the handshake asks for: hostname, nexthop or a name; none by default",
    ),
    honoured(
        &[parameter!("tls_verify_cert_match"), parameter!("tls_secure_cert_match")],
        "other.example",
        "the names that a certificate may be for, at these levels",
    ),
    honoured(
        &[parameter!("tls_fingerprint_cert_match")],
        "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff",
        "the certificates and public keys that a server may have at the level fingerprint",
    ),
    honoured(
        &[parameter!("tls_fingerprint_digest")],
        "md5",
        "how these fingerprints are made. Only those of sha256 can be compared: where there are others, the service does \
         not start",
    ),
    honoured(
        &[parameter!("tls_loglevel")],
        "1",
        "whether each TLS connection has a line in the log; 0 for none",
    ),
    honoured_with(
        &[parameter!("sasl_auth_enable")],
        "yes",
        &[(parameter!("sasl_password_maps"), "texthash:/etc/postfix/sasl_passwd")],
        "whether we log in to servers that the table of passwords names",
    ),
    honoured_with(
        &[parameter!("sasl_password_maps")],
        "static:other:secret",
        &[
            (parameter!("sasl_auth_enable"), "yes"),
            (parameter!("sasl_password_maps"), "texthash:/etc/postfix/sasl_passwd"),
        ],
        "tables with names and passwords, by a server's name and by next hop: texthash, inline or static. Other types are \
         refused; texthash reads the file that postmap(1) makes them of. Not everybody may read it",
    ),
    honoured(
        &[parameter!("sasl_password_result_delimiter")],
        "|",
        "the character between a name and its password",
    ),
    honoured(
        &[parameter!("sasl_mechanism_filter")],
        "plain, login",
        "the mechanisms that may be used: names, with ! in front of those that may not, and static:rest. With no other \
         than oauthbearer and xoauth2, passwords are access tokens",
    ),
    honoured(
        &[
            parameter!("sasl_security_options"),
            parameter!("sasl_tls_security_options"),
            parameter!("sasl_tls_verified_security_options"),
        ],
        "nodictionary",
        "what a mechanism must not do in clear, over TLS, and over TLS with a server that has proved who it is",
    ),
    honoured(
        &[parameter!("send_dummy_mail_auth")],
        "yes",
        "whether MAIL says AUTH=<> where the server offers AUTH",
    ),
    honoured(
        &[parameter!("delivery_status_filter")],
        "inline:{{2.1.5 x = 2.0.0 y}}",
        "tables that replace the status and the text of a result",
    ),
    accepted(
        QUEUE_MANAGER,
        "the queue manager goes by them; for another service than lmtp the name of the service stands in the place of \
         lmtp",
    ),
    accepted(
        &[parameter!("host_lookup"), parameter!("dns_resolver_options")],
        "host names are looked up by the system's own resolver, which has its own configuration",
    ),
    accepted(
        &[parameter!("cname_overrides_servername")],
        "names in certificates and the names of logins are those of the next hop, as in the log",
    ),
    accepted(&[parameter!("defer_if_no_mx_address_found")], "no MX record is looked up"),
    accepted(
        &[parameter!(smtp "always_send_ehlo")],
        "EHLO is always said first, and HELO where it is refused",
    ),
    accepted(
        &[
            parameter!("pix_workarounds"),
            parameter!("pix_workaround_maps"),
            parameter!("pix_workaround_delay_time"),
            parameter!("pix_workaround_threshold_time"),
        ],
        "firewalls that mangle SMTP, which these are about, get no special treatment",
    ),
    accepted(
        &[parameter!("per_record_deadline")],
        "times are those of whole replies; Postfix 3.7 and later take it as the default of the deadline per request",
    ),
    accepted(
        &[
            parameter!("tls_ciphers"),
            parameter!("tls_mandatory_ciphers"),
            parameter!("tls_exclude_ciphers"),
            parameter!("tls_mandatory_exclude_ciphers"),
        ],
        "the TLS library has only ciphers of the grade high, all with forward secrecy",
    ),
    accepted(&[parameter!("tls_scert_verifydepth")], "the TLS library limits the length of chains itself"),
    accepted(
        &[parameter!("tls_session_cache_database"), parameter!("tls_session_cache_timeout")],
        "each thread remembers the sessions of its servers in memory, as long as these allow",
    ),
    accepted(
        &[parameter!("tls_connection_reuse")],
        "connections are kept with their TLS, by the thread that has them",
    ),
    accepted(
        &[parameter!("tls_note_starttls_offer"), parameter!("log_tls_feature_status")],
        "they only add to the log",
    ),
    accepted(
        &[parameter!("tls_block_early_mail_reply")],
        "what it detects needs TLS renegotiation, which the TLS library does not have",
    ),
    accepted(&[parameter!("tls_dkey_file")], "it belongs to a certificate that is refused"),
    accepted(
        &[parameter!(smtp "tls_dane_insecure_mx_policy"), parameter!("tls_force_insecure_host_tlsa_lookup")],
        "they matter only with DANE, which is refused",
    ),
    accepted(
        &[parameter!("tls_enforce_sts_mx_patterns")],
        "no MX record is looked up; what a policy says in match= is obeyed",
    ),
    accepted(
        &[parameter!("tlsrpt_socket_name"), parameter!("tlsrpt_skip_reused_handshakes")],
        "they matter only with TLSRPT, which is refused",
    ),
    accepted(
        &[parameter!("sasl_type"), parameter!("sasl_path")],
        "mechanisms are built in: EXTERNAL, SCRAM, CRAM-MD5, PLAIN, LOGIN, OAUTHBEARER and XOAUTH2",
    ),
    accepted(
        &[parameter!("sasl_auth_cache_name"), parameter!("sasl_auth_cache_time")],
        "a login that was refused is tried again with the next mail",
    ),
    accepted(
        &[parameter!("sasl_auth_soft_bounce")],
        "mail is deferred where a server refuses our login; no gets a warning",
    ),
    accepted(
        &[parameter!(lmtp "sender_dependent_authentication")],
        "Postfix's own client for LMTP looks up no senders either",
    ),
    refused(
        &[parameter!("tls_dcert_file")],
        Set,
        "there are no certificates of DSA in today's TLS, and the server would not learn who we are",
    ),
    refused(
        &[parameter!("tls_trust_anchor_file")],
        Set,
        "who is trusted stands in tls_CAfile and tls_CApath here, and a server could prove itself by more than is meant",
    ),
    refused(
        &[parameter!("tls_per_site")],
        Set,
        "it was replaced by tls_policy_maps, and may ask for TLS where nothing else does",
    ),
    refused(
        &[parameter!("tls_enable_rpk")],
        Yes,
        "servers are known by certificates here, not by raw public keys",
    ),
    refused(&[parameter!("tlsrpt_enable")], Yes, "no reports are made here about TLS that failed"),
    refused(
        &[parameter!("requiretls_policy")],
        NoneOf(&["opportunistic"]),
        "REQUIRETLS is not said here, and a message that needs it must not go out without",
    ),
    refused(
        &[parameter!(smtp "sender_dependent_authentication")],
        Yes,
        "logins go by the server here, and mail would go out by the login of somebody else",
    ),
    refused(&[parameter!(smtp "never_send_ehlo")], Yes, "EHLO is always said first"),
    refused(
        &[parameter!("dns_support_level")],
        NoneOf(&["enabled", "disabled"]),
        "host names are looked up by the system's resolver, which does not tell whether DNSSEC vouches for an answer",
    ),
    refused(
        &[parameter!("dns_reply_filter")],
        Set,
        "host names are looked up by the system's resolver, whose answers are not filtered",
    ),
    refused(&[parameter!("generic_maps")], Set, "addresses are not rewritten here"),
    refused(
        &[
            parameter!("header_checks"),
            parameter!("mime_header_checks"),
            parameter!("nested_header_checks"),
            parameter!("body_checks"),
        ],
        Set,
        "content is not changed here",
    ),
    refused(&[parameter!("reply_filter")], Set, "replies of servers are not changed here"),
];
