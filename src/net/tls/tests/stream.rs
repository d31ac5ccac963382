//! Reading, writing and resting over TLS.

use std::io::ErrorKind;

use rustls::version::{TLS12, TLS13};

use super::*;

/// A connection by either version to a server that does what `serve` does.
fn each_version(serve: fn(Served), ours: fn(TlsStream)) {
    for version in [&TLS12, &TLS13] {
        let (stream, server) = one(version, serve);
        ours(stream);
        server.join().unwrap();
    }
}

fn one<T: Send + 'static>(
    version: &'static SupportedProtocolVersion,
    serve: impl FnOnce(Served) -> T + Send + 'static,
) -> (TlsStream, JoinHandle<T>) {
    let config = Arc::new(issued(&params("mx", &[HOST]), &authority("root")).server(&[version]));
    let (socket, server) = served(&config, serve);
    (start_first(socket, &trusting(RootCertStore::empty()), &policy(TlsLevel::May)).unwrap(), server)
}

/// Waits until there is something to read, for TLS or for us.
fn wait_for_input(stream: &TlsStream) {
    let mut poll = [rustix::event::PollFd::new(stream.socket(), rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut poll, None), Ok(1));
}

fn until_news(stream: &mut TlsStream) {
    while !stream.has_news() {
        wait_for_input(stream);
    }
}

#[test]
fn the_summary_reads_as_in_postfix_logs() {
    let of = |version| {
        let (stream, server) = one(version, |mut stream| stream.read(&mut [0]).is_ok());
        let summary = stream.summary();
        drop(stream);
        server.join().unwrap();
        summary
    };
    assert_eq!(of(&TLS13), "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)");
    assert_eq!(of(&TLS12), "TLSv1.2 with cipher ECDHE-ECDSA-AES256-GCM-SHA384 (256/256 bits)");
}

#[test]
fn a_login_is_tied_to_what_both_sides_know() {
    let exported = |mut stream: Served| {
        stream.write_all(b"x").unwrap();
        stream.conn.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", None).unwrap()
    };
    let (stream, server) = one(&TLS13, exported);
    assert_eq!(stream.channel_binding(), Some(server.join().unwrap()));
    let (stream, server) = one(&TLS12, exported);
    assert_eq!(stream.channel_binding(), None);
    server.join().unwrap();
}

#[test]
fn tickets_on_an_idle_connection_are_no_news() {
    let (go, wait) = std::sync::mpsc::channel();
    let (mut stream, server) = one(&TLS13, move |mut stream| {
        stream.conn.complete_io(&mut stream.sock).unwrap();
        wait.recv().unwrap();
        stream.write_all(b"421 bye\r\n").unwrap();
        // Until the other side has gone.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    wait_for_input(&stream);
    assert!(!stream.has_news() && !stream.has_news());
    go.send(()).unwrap();
    until_news(&mut stream);
    assert!(stream.has_news());
    assert_eq!(read_exactly(&mut stream, 9), b"421 bye\r\n");
    assert!(!stream.has_news());
    drop(stream);
    server.join().unwrap();
}

#[test]
fn a_key_update_is_no_news_and_changes_nothing_else() {
    let (go, wait) = std::sync::mpsc::channel();
    let (mut stream, server) = one(&TLS13, move |mut stream| {
        stream.write_all(b"1").unwrap();
        wait.recv().unwrap();
        stream.conn.refresh_traffic_keys().unwrap();
        stream.conn.complete_io(&mut stream.sock).unwrap();
        let mut line = [0; 3];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(&line).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    assert_eq!(read_exactly(&mut stream, 1), b"1");
    assert!(!stream.has_news());
    go.send(()).unwrap();
    wait_for_input(&stream);
    assert!(!stream.has_news());
    write_all(&mut stream, b"abc");
    assert_eq!(read_exactly(&mut stream, 3), b"abc");
    drop(stream);
    server.join().unwrap();
}

#[test]
fn a_goodbye_and_an_end_without_one_are_the_end() {
    let goodbye = |mut stream: Served| {
        stream.write_all(b"ab").unwrap();
        stream.conn.send_close_notify();
        stream.conn.complete_io(&mut stream.sock).unwrap();
        // Unread octets of ours would reset the connection.
        let _ = stream.sock.read(&mut [0; 1000]);
    };
    let end_of_file = |mut stream: Served| {
        stream.write_all(b"ab").unwrap();
        stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.sock.read(&mut [0; 1000]);
    };
    for serve in [goodbye as fn(Served), end_of_file] {
        each_version(serve, |mut stream| {
            assert_eq!(read_exactly(&mut stream, 2), b"ab");
            until_news(&mut stream);
            for _ in 0..2 {
                match stream.read(&mut [0; 10]) {
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
                    Ok(read) => assert_eq!(read, 0),
                }
            }
            assert!(stream.has_news());
        });
    }
}

#[test]
fn what_came_before_the_server_broke_tls_is_heard() {
    let garbage = |mut stream: Served| {
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(b"250 stored\r\n").unwrap();
        stream.sock.write_all(b"550 nobody is here, in clear\r\n").unwrap();
        let _ = stream.sock.read(&mut [0; 1000]);
    };
    each_version(garbage, |mut stream| {
        write_all(&mut stream, b"x");
        // Both in one read.
        thread::sleep(Duration::from_millis(50));
        until_news(&mut stream);
        assert_eq!(read_exactly(&mut stream, 12), b"250 stored\r\n");
        until_news(&mut stream);
        let error = loop {
            match stream.read(&mut [0; 10]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other.unwrap_err(),
            }
        };
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().starts_with("what the server sent is no TLS ("), "{error}");
        assert!(stream.has_news());
    });
}

#[test]
fn our_goodbye_is_heard() {
    // An end of file without goodbye would be an error to this server.
    let hears = |mut stream: Served| {
        stream.write_all(b"x").unwrap();
        assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    };
    each_version(hears, |mut stream| assert_eq!(read_exactly(&mut stream, 1), b"x"));
}

#[test]
fn ten_megabytes_get_through_to_a_slow_reader() {
    let content: Vec<u8> = (0..10_u32 << 20).map(|at| (at / 7) as u8).collect();
    let wanted = content.clone();
    let (mut stream, server) = one(&TLS13, move |mut stream| {
        let mut got = Vec::new();
        let mut piece = vec![0; 70_000];
        while got.len() < wanted.len() {
            let read = stream.read(&mut piece).unwrap();
            got.extend_from_slice(&piece[..read]);
            if got.len() % 5 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(got == wanted);
        stream.write_all(b"250 ok\r\n").unwrap();
        stream.read(&mut [0]).unwrap()
    });
    for piece in content.chunks(100_000) {
        write_all(&mut stream, piece);
    }
    assert_eq!(read_exactly(&mut stream, 8), b"250 ok\r\n");
    drop(stream);
    assert_eq!(server.join().unwrap(), 0);
}

#[test]
fn what_a_failed_write_has_left_behind_never_leaves() {
    let (mut stream, server) = one(&TLS13, |mut stream| {
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.sock
    });
    let mut raw = server.join().unwrap();
    stream.socket().set_write_timeout(Some(Duration::from_millis(20))).unwrap();
    let error = loop {
        if let Err(error) = stream.write(&[b'x'; 100_000]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    // Now there would be room for it.
    raw.set_nonblocking(true).unwrap();
    let mut octets = vec![0; 1 << 20];
    while raw.read(&mut octets).is_ok() {}
    stream.has_news();
    stream.say_goodbye();
    drop(stream);
    assert_eq!(raw.read(&mut octets).unwrap(), 0);
}

#[test]
fn a_goodbye_waits_for_nobody() {
    let (mut stream, server) = one(&TLS13, |mut stream| {
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.sock
    });
    let raw = server.join().unwrap();
    // As full as it can be, behind the back of TLS.
    stream.socket().set_nonblocking(true).unwrap();
    while Write::write(&mut stream.socket(), &[0; 4096]).is_ok() {}
    stream.socket().set_nonblocking(false).unwrap();
    stream.say_goodbye();
    drop(stream);
    drop(raw);
}

#[test]
fn chatter_without_end_is_news_in_the_end() {
    let (mut stream, server) = one(&TLS13, |mut stream| {
        stream.conn.complete_io(&mut stream.sock).unwrap();
        let mut told = 0;
        loop {
            // Each lets one key update leave, and nothing else.
            let refreshed = stream.conn.refresh_traffic_keys().is_ok();
            if !refreshed || stream.conn.complete_io(&mut stream.sock).is_err() {
                return told;
            }
            told += 1;
        }
    });
    while !stream.has_news() {
        wait_for_input(&stream);
    }
    drop(stream);
    assert!(server.join().unwrap() > 0);
}
