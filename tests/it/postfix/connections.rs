//! To which servers mail goes, and over which connections.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};

use lastmile::sink::{Handle, Listen};
use rustix::net::{SocketFlags, SocketType};

use super::queue::{Caller, DONE, Site, Wish};

/// Use what is there; keep it; neither.
const LOAD: u32 = 3 + 2048;
const STORE: u32 = 3 + 4096;
const NEITHER: u32 = 3;

#[test]
fn connections_are_kept_as_far_as_the_administrator_wants() {
    for (main_cf, flags, uses) in [
        // However many wait for each other: one worker has one connection.
        ("", [NEITHER; 4], [1, 2, 3, 4]),
        ("max_use = 2", [NEITHER; 4], [1, 2, 1, 2]),
        ("lmtp_connection_reuse_count_limit = 2", [NEITHER; 4], [1, 2, 3, 1]),
        ("lastmile_connection_cache = postfix", [NEITHER; 4], [1, 1, 1, 1]),
        ("lastmile_connection_cache = postfix", [STORE, LOAD | STORE, LOAD, LOAD], [1, 2, 3, 1]),
        ("lastmile_connection_cache = postfix", [STORE, STORE, LOAD, NEITHER], [1, 1, 2, 1]),
        (
            "lastmile_connection_cache = postfix\nlmtp_connection_cache_on_demand = no",
            [LOAD | STORE; 4],
            [1, 1, 1, 1],
        ),
        (
            "lastmile_connection_cache = postfix\nlmtp_connection_cache_destinations = unix:private/lmtp",
            [NEITHER; 4],
            [1, 2, 3, 4],
        ),
    ] {
        let mut site = Site::start(&format!("{main_cf}\nlastmile_workers = 1"));
        let server = site.serve("");
        for (at, (flags, uses)) in flags.into_iter().zip(uses).enumerate() {
            let message = site.queue(&format!("3C0A{at}"), &["a@example.org"]);
            assert_eq!(site.ask(&message, &Wish { flags, ..Wish::default() }), DONE);
            let line = site.line_of(&message, "a@example.org");
            let used = line.split_once("conn_use=").map_or("1", |(_, rest)| rest.split(',').next().unwrap());
            assert_eq!(used, uses.to_string(), "{main_cf}, message {at}: {line}");
        }
        let connections = uses.iter().filter(|uses| **uses == 1).count();
        assert_eq!(server.counts().connections, connections as u64, "{main_cf}");
    }
}

#[test]
fn a_connection_is_not_kept_for_longer_than_wanted() {
    for main_cf in [
        "lmtp_connection_reuse_time_limit = 1s",
        "lastmile_connection_cache = postfix\nlmtp_connection_cache_time_limit = 1s",
    ] {
        let mut site = Site::start(&format!("{main_cf}\nlastmile_workers = 1"));
        let server = site.serve("");
        let mut ask = |id: &str| {
            let message = site.queue(id, &["a@example.org"]);
            assert_eq!(site.ask(&message, &Wish { flags: LOAD | STORE, ..Wish::default() }), DONE);
            site.line_of(&message, "a@example.org").contains("conn_use=")
        };
        assert!(!ask("3C0A1"));
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(!ask("3C0A2"), "{main_cf}");
        assert_eq!(server.counts().connections, 2, "{main_cf}");
    }
}

/// A socket whose backlog is full, and who is in it.
fn full_socket(path: &std::path::Path) -> (UnixListener, Vec<UnixStream>) {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    (UnixListener::from(socket), vec![UnixStream::connect(path).unwrap()])
}

#[test]
fn a_server_that_has_no_room_yet_gets_the_mail_when_it_has() {
    let mut site = Site::start("lmtp_connect_timeout = 1s");
    let path = site.master.queue().join("private/lmtp");
    let (listener, clients) = full_socket(&path);
    let message = site.queue("3C0A1", &["a@example.org"]);
    let mut caller = Caller::connect(&site.master);
    caller.say(&message.request(&Wish::default()));
    // Longer than it takes to find that out.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert!(!caller.is_answered());
    assert!(!site.has_line(&["3C0A1: to="]), "it is worth waiting for");
    // A server with room takes its place: at no moment is there none.
    let beside = path.with_extension("new");
    let _server = site.serve_with("", |config| config.listen = vec![Listen::Unix(beside.clone())]);
    std::fs::rename(&beside, &path).unwrap();
    assert_eq!(caller.answer(), DONE);
    assert!(site.line_of(&message, "a@example.org").contains("status=sent"));
    assert!(site.defer.heard().is_empty());
    drop((listener, clients));
}

/// A TCP port that refuses connections.
fn refusing() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn tcp_server(site: &Site) -> (Handle, u16) {
    let anywhere = Listen::Tcp((Ipv4Addr::LOCALHOST, 0).into());
    let server = site.serve_with("", |config| config.listen = vec![anywhere]);
    let Listen::Tcp(address) = server.addresses()[0] else { panic!("{:?}", server.addresses()) };
    (server, address.port())
}

#[test]
fn the_next_server_of_a_list_or_the_fallback_relay_takes_what_the_first_does_not() {
    let refused = refusing();
    let mut site = Site::start("");
    let (server, port) = tcp_server(&site);
    let message = site.queue("3C0A1", &["a@example.org"]);
    let nexthop = format!("[127.0.0.1]:{refused}, inet:127.0.0.1:{port}");
    assert_eq!(site.ask(&message, &Wish { nexthop: &nexthop, ..Wish::default() }), DONE);
    let line = site.line_of(&message, "a@example.org");
    assert!(line.contains(&format!(" relay=127.0.0.1[127.0.0.1]:{port}, ")), "{line}");
    site.master.wait_for_line(&[&format!("connect to 127.0.0.1[127.0.0.1]:{refused}: Connection refused")]);
    drop(server);
    // The relay is known only now that it has a port.
    let relay_site = Site::start(&format!("lmtp_fallback_relay = [127.0.0.1]:{port}"));
    let listen = Listen::Tcp((Ipv4Addr::LOCALHOST, port).into());
    let _server = relay_site.serve_with("", |config| config.listen = vec![listen]);
    let nexthop = format!("[127.0.0.1]:{refused}");
    let message = relay_site.queue("3C0A1", &["a@example.org"]);
    assert_eq!(relay_site.ask(&message, &Wish { nexthop: &nexthop, ..Wish::default() }), DONE);
    // A socket has no relay behind it.
    let message = relay_site.queue("3C0A2", &["a@example.org"]);
    let answer = relay_site.ask(&message, &Wish { nexthop: "unix:private/nobody", ..Wish::default() });
    assert!(answer.starts_with("status~4.4.1~"), "{answer}");
}

#[test]
fn a_next_hop_may_name_its_port() {
    let refused = refusing();
    // The port is known only once the server listens; the queue directory of another service does as well.
    let (_server, port) = tcp_server(&Site::start(""));
    let mut site = Site::start(&format!("known_tcp_ports = smtp={refused}, mine=lmtp={port}"));
    for (id, nexthop) in [("3C0A1", "inet:127.0.0.1:mine"), ("3C0A2", "[127.0.0.1]:lmtp")] {
        let message = site.queue(id, &["a@example.org"]);
        assert_eq!(site.ask(&message, &Wish { nexthop, ..Wish::default() }), DONE);
        let line = site.line_of(&message, "a@example.org");
        assert!(line.contains(&format!(" relay=127.0.0.1[127.0.0.1]:{port}, ")), "{line}");
    }
    // What main.cf says comes before services(5).
    let message = site.queue("3C0A3", &["a@example.org"]);
    site.ask(&message, &Wish { nexthop: "[127.0.0.1]:smtp", ..Wish::default() });
    let line = site.line_of(&message, "a@example.org");
    assert!(line.contains(&format!("connect to 127.0.0.1[127.0.0.1]:{refused}: ")), "{line}");
}

#[test]
fn a_keyword_is_overlooked_by_the_address_of_the_server() {
    for (address, reports) in [("127.0.0.1", 1), ("127.0.0.2", 0)] {
        let site =
            Site::start(&format!("lmtp_discard_lhlo_keyword_address_maps = inline:{{ {address}=dsn }}"));
        let (_server, port) = tcp_server(&site);
        let message = site.queue("3C0A1", &["a@example.org"]);
        let nexthop = format!("inet:127.0.0.1:{port}");
        // Who knows DSN reports a success; where it does not, Postfix has to.
        let wish = Wish { nexthop: &nexthop, notify: 2, ..Wish::default() };
        assert_eq!(site.ask(&message, &wish), DONE);
        assert_eq!(site.trace.heard().len(), reports, "{address}");
    }
}
