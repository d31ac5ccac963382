//! The parameters of the service itself: Postfix's general ones, and ours.
//!
//! - Owns: a row for each, with its fate.
//! - Leaves to others: what a fate means (`table`).
//! - Always true: there is no parameter in two rows.

use super::{Row, accepted, honoured, parameter};

/// Postfix's, in the order of the manual.
pub(super) const ROWS: &[Row] = &[
    honoured(&[parameter!(any "mail_version")], "3.5.27", "tells which of its protocols Postfix speaks"),
    honoured(
        &[parameter!(any "queue_directory")],
        "/other",
        "where the queue and the sockets of other services are",
    ),
    honoured(
        &[parameter!(any "mail_owner")],
        "other",
        "who a service becomes that master.cf calls unprivileged",
    ),
    honoured(
        &[parameter!(any "syslog_name"), parameter!(any "syslog_facility")],
        "other",
        "the name in front of the program's in the log, and the facility",
    ),
    honoured(
        &[parameter!(any "maillog_file")],
        "/var/log/other",
        "whether the log goes to postlogd(8) in the place of syslog",
    ),
    honoured(
        &[
            parameter!(any "bounce_service_name"),
            parameter!(any "defer_service_name"),
            parameter!(any "trace_service_name"),
            parameter!(any "address_verify_service_name"),
            parameter!(any "flush_service_name"),
            parameter!(any "cleanup_service_name"),
            parameter!(any "proxymap_service_name"),
            parameter!(any "postlog_service_name"),
        ],
        "other",
        "the sockets of the other services",
    ),
    honoured(
        &[parameter!(any "myhostname")],
        "other.example",
        "the name in LHLO by default, and that of servers behind UNIX sockets in the log",
    ),
    honoured(
        &[parameter!(any "myorigin"), parameter!(any "mail_name")],
        "other",
        "the domain of notices, and the mail system's name in them",
    ),
    honoured(
        &[parameter!(any "max_idle")],
        "17s",
        "how long the service waits for mail before it ends, and how long a kept connection may rest",
    ),
    honoured(
        &[parameter!(any "max_use")],
        "17",
        "messages over one connection, at most; 0 for no limit. The process itself serves any number",
    ),
    honoured(
        &[parameter!(any "ipc_timeout")],
        "17s",
        "how long another service may take to hear and to answer",
    ),
    honoured(&[parameter!(any "default_process_limit")], "17", "the default of lastmile_workers"),
    honoured(
        &[parameter!(any "hash_queue_names")],
        "active",
        "queues whose files are spread over directories",
    ),
    honoured(&[parameter!(any "hash_queue_depth")], "2", "how deep these directories are"),
    honoured(
        &[parameter!(any "soft_bounce")],
        "yes",
        "whether mail stays in the queue that would be returned",
    ),
    honoured(
        &[parameter!(any "address_verify_negative_cache")],
        "no",
        "whether verify(8) hears of addresses that cannot be delivered to",
    ),
    honoured(
        &[parameter!(any "notify_classes")],
        "protocol",
        "whether the postmaster gets transcripts of sessions: those of the classes protocol and data",
    ),
    honoured(
        &[parameter!(any "error_notice_recipient"), parameter!(any "double_bounce_sender")],
        "other",
        "who gets and who sends them",
    ),
    honoured(
        &[parameter!(any "info_log_address_format")],
        "internal",
        "whether addresses in the log have quotes",
    ),
    honoured(&[parameter!(any "delay_logging_resolution_limit")], "3", "decimals of delays in the log"),
    honoured(
        &[parameter!(any "fast_flush_domains")],
        "other.example",
        "domains of which flush(8) hears when mail for them is deferred",
    ),
    honoured(
        &[parameter!(any "parent_domain_matches_subdomains")],
        "fast_flush_domains",
        "whether these mean the domains below them too",
    ),
    honoured(
        &[parameter!(any "disable_mime_output_conversion")],
        "yes",
        "whether 8-bit mail goes unchanged to a server without 8BITMIME",
    ),
    honoured(&[parameter!(any "inet_protocols")], "ipv4", "which families of addresses are used"),
    honoured(
        &[parameter!(any "inet_interfaces")],
        "192.0.2.17",
        "the address to connect from where no other is set, if it is only one of its family and none of the loopback",
    ),
    honoured(
        &[parameter!(any "known_tcp_ports")],
        "lmtp=2424, smtp=2525",
        "names of ports, which come before those in /etc/services",
    ),
    honoured(
        &[parameter!(any "tls_append_default_CA")],
        "yes",
        "whether the system's authorities are trusted, too",
    ),
    honoured(
        &[parameter!(any "debug_peer_list")],
        "mx.example",
        "servers whose conversations are logged: names, addresses and socket paths; patterns are passed over with a \
         warning",
    ),
    honoured(&[parameter!(any "debug_peer_level")], "3", "how much of them is logged"),
    accepted(
        &[parameter!(any "daemon_timeout")],
        "each step of a delivery has a limit of its own: one that is stuck does not end all others",
    ),
    accepted(&[parameter!(any "line_length_limit")], "records of queue files are read at any length"),
    accepted(
        &[
            parameter!(any "ipc_idle"),
            parameter!(any "ipc_ttl"),
            parameter!(any "connection_cache_service_name"),
        ],
        "other services have no part in how long connections are kept",
    ),
    accepted(
        &[
            parameter!(any "disable_dns_lookups"),
            parameter!(any "ignore_mx_lookup_error"),
            parameter!(any "proxy_interfaces"),
            parameter!(any "best_mx_transport"),
        ],
        "no MX record is looked up",
    ),
    accepted(
        &[
            parameter!(any "header_size_limit"),
            parameter!(any "mime_boundary_length_limit"),
            parameter!(any "mime_nesting_limit"),
        ],
        "the conversion of 8-bit mail for a server without 8BITMIME has limits of its own",
    ),
    accepted(
        &[
            parameter!(any "service_throttle_time"),
            parameter!(any "transport_retry_time"),
            parameter!(any "minimal_backoff_time"),
            parameter!(any "maximal_backoff_time"),
            parameter!(any "maximal_queue_lifetime"),
            parameter!(any "bounce_queue_lifetime"),
            parameter!(any "delay_warning_time"),
        ],
        "the queue manager, master(8) and bounce(8) go by them",
    ),
];

/// Ours, which may stand in main.cf, or behind -o in master.cf.
pub(super) const OWN_ROWS: &[Row] = &[
    honoured(
        &[parameter!(any "lastmile_workers")],
        "17",
        "worker threads, each with one connection: from 1 to 4096. The default is $default_process_limit",
    ),
    honoured(
        &[parameter!(any "lastmile_connection_cache")],
        "postfix",
        "whether each worker keeps its connection for the next message (keep, the default), or connections are kept \
         only when Postfix's own client would keep them (postfix)",
    ),
    honoured(
        &[parameter!(any "lastmile_destination_concurrency_limit")],
        "17",
        "deliveries in parallel to one destination, beside the limit of the queue manager; 0 for no limit. For a service \
         that is called lastmile the queue manager goes by it too. There is none by default",
    ),
    honoured(
        &[parameter!(any "lastmile_shutdown_timeout")],
        "17s",
        "how long deliveries that are under way may go on after postfix stop; 30s by default",
    ),
    honoured(
        &[parameter!(any "lastmile_pipelining")],
        "no",
        "whether commands go out together where PIPELINING is offered; yes by default",
    ),
    honoured(
        &[parameter!(any "lastmile_chunking")],
        "no",
        "whether content goes out with BDAT where CHUNKING is offered; yes by default",
    ),
];
