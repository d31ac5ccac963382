//! How sessions of `sendmail -bs` end, and whose they are: clients that go away, signals, other users, the agent's socket.

use super::*;

#[test]
fn a_client_that_goes_away_in_the_middle_has_queued_nothing() {
    for (said, code, last) in [
        ("EHLO x\r\n", 0, "250"),
        ("MAIL FROM:<a@x>\r\n", 74, "421"),
        (&*format!("{MAIL}DATA\r\n"), 74, "421"),
        (&*format!("{MAIL}DATA\r\nSubject: x\r\n\r\nbody\r\n"), 74, "421"),
        (&*format!("{MAIL}DATA\r\nSubject: x\r\n\r\nbody\r\n."), 74, "421"),
        (&*format!("{MAIL}DATA\r\nSubject: x\r\n\r\nbody\r\n.\n"), 74, "421"),
        (&*format!("{MAIL}DATA\r\n{}", "line\r\n".repeat(1000)), 74, "421"),
    ] {
        let queue = Queue::new();
        let output = run(queue.command(&["-bs"]), said);
        assert_eq!(output.status.code(), Some(code), "{said:?}");
        assert!(codes(&output.stdout).ends_with(last), "{said:?}");
        assert_eq!(output.stderr.iter().filter(|&&b| b == b'\n').count(), usize::from(code != 0), "{said:?}");
        assert!(queue.is_empty(), "{said:?}");
    }
}

#[test]
fn a_signal_at_any_time_leaves_nothing_half_queued_and_is_told() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        for said in [
            "",
            "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n",
            "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nS: x\r\n\r\nbody\r\n",
        ] {
            let queue = Queue::new();
            let mut client = Client::start(queue.command(&["-bs"]));
            client.write(said);
            (0..=said.matches('\n').count().min(3)).for_each(|_| drop(client.hear()));
            if said.contains("body") {
                wait_for("the unfinished file", SOON, || (!queue.files("tmp").is_empty()).then_some(()));
            }
            kill_process(Pid::from_child(&client.child), signal).unwrap();
            assert!(client.hear().starts_with("421 4.3.2 "), "{said:?}");
            let stdin = client.stdin.take();
            let (status, ..) = client.end();
            assert_eq!(status.signal(), Some(signal.as_raw()), "{said:?}: {status}");
            assert!(queue.is_empty(), "{said:?}");
            drop(stdin);
        }
    }
}

/// A client that does not read must not keep the process for longer than it lives itself.
#[test]
fn a_signal_is_heard_while_nobody_reads_the_replies() {
    let queue = Queue::new();
    let mut client = Client::start(queue.command(&["-bs"]));
    let mut stdin = client.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        // Ends with an error when the session does.
        let _ = stdin.write_all("HELP\r\n".repeat(100_000).as_bytes());
    });
    let pipe = client.child.stdout.as_ref().unwrap();
    wait_for("a full pipe", SOON, || (rustix::io::ioctl_fionread(pipe).unwrap() >= 60 << 10).then_some(()));
    kill_process(Pid::from_child(&client.child), Signal::TERM).unwrap();
    let status = wait_for("the end of the session", SOON, || client.child.try_wait().unwrap());
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
    writer.join().unwrap();
}

#[test]
fn a_client_that_cannot_hear_ends_the_session() {
    let queue = Queue::new();
    let mut client = Client::start(queue.command(&["-bs"]));
    client.hear();
    drop(client.child.stdout.take());
    client.write(&format!("{MAIL}DATA\r\nSubject: x\r\n"));
    let (status, _, complaints) = client.end();
    assert_eq!(status.code(), Some(74), "{complaints}");
    assert!(
        complaints.starts_with("sendmail: the message was not queued: cannot write to standard output: ")
    );
    assert!(queue.is_empty());

    // It has written all of it: it may never hear that the message is queued, and somebody else is told.
    let mut client = Client::start(queue.command(&["-bs"]));
    client.hear();
    drop(client.child.stdout.take());
    client.write(&format!("{MAIL}DATA\r\n{MESSAGE}"));
    let (status, _, complaints) = client.end();
    assert_eq!(status.code(), Some(74), "{complaints}");
    let known =
        complaints.starts_with("sendmail: the message is queued as ") && queue.files("active").len() == 1;
    let none = complaints.starts_with("sendmail: the message was not queued: ") && queue.is_empty();
    assert!(known || none, "{complaints}");
}

/// Clients show what they hear instead of a greeting, so the reason stands there.
#[test]
fn without_a_configuration_or_a_queue_the_greeting_says_so() {
    let queue = Queue::new();
    for (variable, value, code, words) in [
        ("LASTMILE_WORKERS", "many", 78, "workers"),
        (
            "LASTMILE_QUEUE_DIRECTORY",
            "/nonexistent/queue",
            69,
            "there is no mail queue in /nonexistent/queue",
        ),
    ] {
        let mut command = queue.command(&["-bs"]);
        command.env(variable, value);
        let output = run(command, "EHLO x\r\n");
        let [said, complaint] =
            [output.stdout, output.stderr].map(|octets| String::from_utf8(octets).unwrap());
        assert_eq!(output.status.code(), Some(code), "{complaint}");
        assert!(said.starts_with("421 4.3.0 no mail can be queued: ") && said.ends_with("\r\n"), "{said}");
        for text in [said, complaint] {
            assert!(text.contains(words) && text.lines().count() == 1, "{text}");
        }
    }
}

#[test]
fn a_session_may_rest_between_messages() {
    let queue = Queue::new();
    let mut client = Client::start(queue.command(&["-bs"]));
    client.hear();
    for _ in 0..2 {
        client.write(&format!("{MAIL}DATA\r\n{MESSAGE}"));
        (0..3).for_each(|_| drop(client.hear()));
        assert!(client.hear().starts_with("250 2.0.0 queued"));
        let rested = Instant::now();
        while rested.elapsed() < Duration::from_millis(300) {
            assert_eq!(client.child.try_wait().unwrap(), None);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    client.ask("NOOP", "250 ");
}

#[test]
fn anybody_may_hold_a_session_and_root_is_the_owner_of_what_it_queues() {
    if !is_root() {
        eprintln!("skipped: only root can run a command as somebody else");
        return;
    }
    let queue = Queue::owned_by(Some(54_321));
    for (uid, place) in [(54_322, "incoming"), (0, "active"), (54_321, "active")] {
        let before = queue.files(place).len();
        let mut command = queue.command(&["-bs"]);
        command.uid(uid).gid(uid);
        let output = run(command, &format!("{MAIL}DATA\r\n{MESSAGE}{MAIL}DATA\r\n{MESSAGE}QUIT\r\n"));
        assert_eq!(codes(&output.stdout), "220 250 250 354 250 250 250 354 250 221", "{uid}: {output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        // What is dropped gets its ID from the agent.
        assert_eq!(said.contains("250 2.0.0 queued\r\n"), place == "incoming", "{uid}: {said}");
        assert_eq!(queue.files(place).len(), before + 2, "{uid}");
    }
    for file in queue.files("active") {
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(file).unwrap()), 54_321);
    }
    let mut command = queue.command(&["-bs", "--nexthop", "mx:24"]);
    command.uid(54_322).gid(54_322);
    let output = run(command, "");
    assert_eq!((output.status.code(), &*codes(&output.stdout)), (Some(77), "421"));
}

#[test]
fn where_the_queue_cannot_be_written_to_the_agent_takes_each_message() {
    if !is_root() {
        eprintln!("skipped: only root can run a command as somebody else");
        return;
    }
    let site = Site::new("default_transport = \"lmtp:unix:/nonexistent/lmtp\"\nmessage_size_limit = 1000\n");
    let agent = site.start_agent();
    std::fs::set_permissions(site.queue().join("incoming"), Permissions::from_mode(0o555)).unwrap();
    let session = || {
        let mut command = site.command(&["sendmail", "-bs"]);
        command.uid(54_322).gid(54_322).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let large = format!("{}.\r\n", "QUIT\r\n".repeat(50_000));
        run(command, &format!("{MAIL}DATA\r\n{MESSAGE}{MAIL}DATA\r\n{large}{MAIL}DATA\r\n{MESSAGE}QUIT\r\n"))
    };
    let output = session();
    assert_eq!(
        codes(&output.stdout),
        "220 250 250 354 250 250 250 354 552 250 250 354 250 221",
        "{output:?}"
    );
    let said = String::from_utf8(output.stdout).unwrap();
    let ids: Vec<_> = said.lines().filter(|line| line.contains("queued as ")).map(id).collect();
    let queued = site.queued();
    assert_eq!(queued.len(), 2);
    assert!(queued.iter().all(|message| ids.contains(&message["id"].as_str().unwrap())), "{queued:?}");
    agent.stop();
    let output = session();
    assert_eq!(
        codes(&output.stdout),
        "220 250 250 354 451 250 250 354 451 250 250 354 451 221",
        "{output:?}"
    );
}

#[test]
fn that_nobody_knows_is_told_also_when_a_signal_came() {
    if !is_root() {
        eprintln!("skipped: only root can run a command as somebody else");
        return;
    }
    for mode in [&["sendmail", "-f", "a@x", "b@y"][..], &["sendmail", "-bs"]] {
        let site = Site::new("default_transport = \"lmtp:unix:/nonexistent/lmtp\"\n");
        site.start_agent().stop();
        std::fs::set_permissions(site.queue().join("incoming"), Permissions::from_mode(0o555)).unwrap();
        let socket = site.queue().join("agent.sock");
        let _ = std::fs::remove_file(&socket);
        let agent = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
        let mut command = site.command(mode);
        command.uid(54_322).gid(54_322).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = Client::start(command);
        if mode.contains(&"-bs") {
            // What becomes of the message cannot be told on standard output.
            client.hear();
            drop(client.child.stdout.take());
            client.write(&format!("{MAIL}DATA\r\n{MESSAGE}"));
        } else {
            client.write(MESSAGE);
            drop(client.stdin.take());
        }
        let (mut stream, _) = agent.accept().unwrap();
        stream.write_all(b"{\"ready\":{\"version\":\"0\"}}\n").unwrap();
        let (mut taken, mut piece) = (Vec::new(), [0; 4096]);
        // All of it: after the content comes its end.
        while !taken.ends_with(b"{\"content\":{\"octets\":0}}\n") {
            let length = stream.read(&mut piece).unwrap();
            assert_ne!(length, 0, "{:?}", String::from_utf8_lossy(&taken));
            taken.extend_from_slice(&piece[..length]);
        }
        kill_process(Pid::from_child(&client.child), Signal::TERM).unwrap();
        drop(stream);
        let stdin = client.stdin.take();
        let (status, _, complaints) = client.end();
        assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{mode:?}: {status} {complaints}");
        assert!(complaints.contains("arrives twice then if it is sent again"), "{mode:?}: {complaints:?}");
        drop(stdin);
    }
}
