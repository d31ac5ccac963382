//! The parameters of Postfix's clients: those that begin with `lmtp_` or `smtp_`.
//!
//! - Owns: a row for every one that Postfix 3.5 to 3.11 has, with its fate.
//! - Leaves to others: what a fate means (`table`).
//! - Always true: there is no parameter in two rows.

use super::When::{NoneOf, Set, Yes, YesWithoutLevel};
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
        "the log has the name that was looked up, and only TLS and SASL would go by another one",
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
            parameter!("sasl_auth_cache_name"),
            parameter!("sasl_auth_cache_time"),
            parameter!("sasl_auth_soft_bounce"),
            parameter!("sasl_mechanism_filter"),
            parameter!("sasl_password_maps"),
            parameter!("sasl_password_result_delimiter"),
            parameter!("sasl_path"),
            parameter!("sasl_security_options"),
            parameter!("sasl_tls_security_options"),
            parameter!("sasl_tls_verified_security_options"),
            parameter!("sasl_type"),
            parameter!("send_dummy_mail_auth"),
            parameter!("sender_dependent_authentication"),
        ],
        "they matter only with SASL, which is refused",
    ),
    accepted(
        &[
            parameter!("starttls_timeout"),
            parameter!("tls_CAfile"),
            parameter!("tls_CApath"),
            parameter!("tls_block_early_mail_reply"),
            parameter!("tls_cert_file"),
            parameter!("tls_chain_files"),
            parameter!("tls_ciphers"),
            parameter!("tls_connection_reuse"),
            parameter!(smtp "tls_dane_insecure_mx_policy"),
            parameter!("tls_dcert_file"),
            parameter!("tls_dkey_file"),
            parameter!("tls_eccert_file"),
            parameter!("tls_eckey_file"),
            parameter!("tls_enable_rpk"),
            parameter!("tls_enforce_peername"),
            parameter!("tls_enforce_sts_mx_patterns"),
            parameter!("tls_exclude_ciphers"),
            parameter!("tls_fingerprint_cert_match"),
            parameter!("tls_fingerprint_digest"),
            parameter!("tls_force_insecure_host_tlsa_lookup"),
            parameter!("tls_key_file"),
            parameter!("tls_loglevel"),
            parameter!("tls_mandatory_ciphers"),
            parameter!("tls_mandatory_exclude_ciphers"),
            parameter!("tls_mandatory_protocols"),
            parameter!("tls_note_starttls_offer"),
            parameter!("tls_protocols"),
            parameter!("tls_scert_verifydepth"),
            parameter!("tls_secure_cert_match"),
            parameter!("tls_servername"),
            parameter!("tls_session_cache_database"),
            parameter!("tls_session_cache_timeout"),
            parameter!("tls_trust_anchor_file"),
            parameter!("tls_verify_cert_match"),
            parameter!("tlsrpt_enable"),
            parameter!("tlsrpt_skip_reused_handshakes"),
            parameter!("tlsrpt_socket_name"),
            parameter!("log_tls_feature_status"),
        ],
        "they matter only with TLS, which is refused",
    ),
    refused(
        &[parameter!("tls_security_level")],
        NoneOf(&["none"]),
        "there is no TLS yet, and mail that is meant to be encrypted must not go out in the clear",
    ),
    refused(
        &[parameter!("use_tls"), parameter!("enforce_tls")],
        YesWithoutLevel,
        "there is no TLS yet, and mail that is meant to be encrypted must not go out in the clear",
    ),
    refused(
        &[parameter!("tls_policy_maps"), parameter!("tls_per_site")],
        Set,
        "there is no TLS yet, and such a table may ask for it",
    ),
    refused(&[parameter!("tls_wrappermode")], Yes, "there is no TLS yet"),
    refused(
        &[parameter!("requiretls_policy")],
        NoneOf(&["opportunistic"]),
        "there is no TLS yet, and a message that requires it must not go out in the clear",
    ),
    refused(
        &[parameter!("sasl_auth_enable")],
        Yes,
        "there is no SASL yet, and a server that wants a login would refuse the mail",
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
