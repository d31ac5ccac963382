//! Delivery at once where something stands in the way: nobody listens, nobody reads, a signal comes.
//!
//! - Owns: slow servers, closed outputs, signals at each moment, and that waiting costs nothing.
//! - Leaves to others: what servers say (`direct`).
//! - Always true: no test depends on how fast the machine is; each process ends with its test.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lastmile::sink::Extension;
use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};

use super::served::{Heard, Place, Served};
use super::{MESSAGE, NAMES};
use crate::common::agent::{LASTMILE, SOON, run};
use crate::common::process::{Process, wait_for};
use crate::support::dotted;

/// Somebody without an account.
const STRANGER: u32 = 54321;

#[test]
fn where_nobody_listens_the_mail_may_be_tried_again() {
    let place = Place::new("");
    let socket = place.socket();
    let nothing = |_: &Place| {};
    let left_behind = |place: &Place| drop(UnixListener::bind(place.socket()).unwrap());
    let no_socket = |place: &Place| {
        fs::remove_file(place.socket()).unwrap();
        fs::write(place.socket(), "").unwrap();
    };
    let prepare: [fn(&Place); 3] = [nothing, left_behind, no_socket];
    for (prepare, why) in
        prepare.into_iter().zip(["No such file or directory", "Connection refused", "Connection refused"])
    {
        prepare(&place);
        for (name, code) in [("smtpc", 255), ("sendmail", 75)] {
            let heard = place.call(name, &["--lmtp", &socket, "-f", "a@x", "b@y", "c@y"], MESSAGE);
            assert_eq!((heard.code, heard.stderr.lines().count()), (Some(code), 2), "{}", heard.stderr);
            let end = format!("dsn=4.4.1, status=deferred (connect to localhost[{socket}]: {why})");
            for address in ["b@y", "c@y"] {
                let line = heard.of(address);
                assert!(line.contains(" relay=none, ") && line.ends_with(&end), "{line}");
            }
        }
    }
}

#[test]
fn once_no_server_is_ready_nobody_else_is_tried() {
    let server = Served::with(
        "[transport.lmtp]\ndestination_recipient_limit = 1\ncache_connection = \"no\"\n",
        "greeting after 1 421 4.3.2 closing",
        |_| {},
    );
    let heard = server.lmtp("smtpc", &["ann@y", "bob@y", "carol@y"], MESSAGE);
    assert_eq!(heard.code, Some(253), "{}", heard.stderr);
    assert!(heard.of("ann@y").contains("status=sent"), "{}", heard.stderr);
    assert!(heard.of("bob@y").contains("status=deferred (host "), "{}", heard.stderr);
    assert!(
        heard.of("carol@y").contains("status=deferred (delivery temporarily suspended: host "),
        "{}",
        heard.stderr
    );
    assert_eq!(server.sink.counts().connections, 2);
}

#[test]
fn a_server_that_falls_silent_twice_in_a_row_keeps_nobody_else_waiting() {
    let server = Served::with(
        "[transport.lmtp]\ndestination_recipient_limit = 1\ndata_done_timeout = \"1s\"\n",
        "data-done bob@* silence\ndata-done dora@* silence\ndata-done eve@* silence\ndata-done fay@* silence",
        |_| {},
    );
    let to = ["ann@y", "bob@y", "carol@y", "dora@y", "eve@y", "fay@y", "guy@y"];
    let heard = server.lmtp("sendmail", &to, MESSAGE);
    assert_eq!(heard.code, Some(75), "{}", heard.stderr);
    for to in ["bob@y", "dora@y", "eve@y"] {
        assert!(heard.of(to).contains("message may be sent more than once"), "{}", heard.stderr);
    }
    for to in ["fay@y", "guy@y"] {
        let why = "status=deferred (not tried, because the server fell silent or away twice before)";
        assert!(heard.of(to).ends_with(why), "{}", heard.stderr);
    }
    assert_eq!((server.mail_of("carol@y").len(), server.mail_of("guy@y").len()), (1, 0));

    // Nor do refusals in between hide the silence.
    let server = Served::with(
        "[transport.lmtp]\ndestination_recipient_limit = 2\ndata_done_timeout = \"1s\"\n",
        "rcpt no*@* 550 5.1.1 no such user\ndata-done * silence",
        |_| {},
    );
    let heard = server.lmtp("sendmail", &["ann@y", "no1@y", "bob@y", "no2@y", "carol@y", "no3@y"], MESSAGE);
    assert_eq!(
        heard.stderr.matches("not tried, because the server fell silent").count(),
        2,
        "{}",
        heard.stderr
    );
}

#[test]
fn a_server_without_room_for_a_connection_may_be_tried_again() {
    let place = Place::new("[transport.lmtp]\nconnect_timeout = \"1s\"\n");
    let address = SockAddr::unix(place.socket()).unwrap();
    let new = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let listener = new();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    let waiting: Vec<_> = std::iter::repeat_with(|| {
        let socket = new();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&address).map(|()| socket)
    })
    .map_while(Result::ok)
    .take(100)
    .collect();
    assert!(waiting.len() < 100, "the backlog has no end");
    let heard = place.call("smtpc", &["--lmtp", &place.socket(), "-f", "a@x", "b@y"], MESSAGE);
    assert_eq!(heard.code, Some(255), "{}", heard.stderr);
    let line = heard.of("b@y");
    assert!(line.contains("dsn=4.4.1, status=deferred (connect to localhost["), "{line}");
}

#[test]
fn a_socket_may_be_closed_to_the_caller() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can run a command as somebody else");
        return;
    }
    let server = Served::by("");
    let (place, socket) = (&server.place, server.place.socket());
    for path in [place.directory.path().to_owned(), place.path("lastmile.toml")] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&socket, Permissions::from_mode(0o600)).unwrap();
    // The build directory may be closed to others.
    fs::remove_file(place.path("smtpc")).unwrap();
    fs::copy(LASTMILE, place.path("smtpc")).unwrap();
    let call = |temporary: &str| {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={STRANGER}")).arg(format!("--regid={STRANGER}"));
        command.args(["--clear-groups", "--"]).arg(place.path("smtpc"));
        place.prepare(&mut command, &["--lmtp", &socket, "-f", "a@x", "b@y"]);
        command.env("TMPDIR", temporary);
        Heard::from(run(&mut command, MESSAGE))
    };
    let heard = call("/tmp");
    assert_eq!(heard.code, Some(255), "{}", heard.stderr);
    let end = format!("status=deferred (connect to localhost[{socket}]: Permission denied)");
    assert!(heard.of("b@y").ends_with(&end), "{}", heard.stderr);
    let directory = place.directory.path().display().to_string();
    let heard = call(&directory);
    assert_eq!(heard.code, Some(75), "{}", heard.stderr);
    let said = format!("smtpc: the message was not sent: cannot make a temporary file in {directory}: ");
    assert!(heard.stderr.starts_with(&said), "{}", heard.stderr);
}

/// Reads a line of the client's; the reader holds nothing back behind it.
fn line(input: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    input.read_line(&mut line).unwrap();
    line
}

/// Takes one message over LMTP, a little at a time and with rests, and gives back what came after DATA.
fn read_slowly(listener: &UnixListener) -> Vec<u8> {
    let (content, mut input) = store_slowly(listener);
    assert_eq!(line(&mut input), "QUIT\r\n");
    input.get_mut().write_all(b"221 bye\r\n").unwrap();
    content
}

/// The same up to the answer to the message.
fn store_slowly(listener: &UnixListener) -> (Vec<u8>, BufReader<UnixStream>) {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut output = stream.try_clone().unwrap();
    let mut input = BufReader::with_capacity(16 << 10, stream);
    let mut content = Vec::new();
    output.write_all(b"220 slow\r\n").unwrap();
    for (verb, reply) in
        [("LHLO", "250 slow\r\n"), ("MAIL", "250 ok\r\n"), ("RCPT", "250 ok\r\n"), ("DATA", "354 go on\r\n")]
    {
        let said = line(&mut input);
        assert!(said.starts_with(verb), "{said:?} is not {verb}");
        output.write_all(reply.as_bytes()).unwrap();
    }
    let mut piece = vec![0; 16 << 10];
    while !content.ends_with(b"\r\n.\r\n") {
        std::thread::sleep(Duration::from_millis(1));
        let length = input.read(&mut piece).unwrap();
        assert_ne!(length, 0, "the client closed after {} octets", content.len());
        content.extend_from_slice(&piece[..length]);
    }
    output.write_all(b"250 2.0.0 stored\r\n").unwrap();
    (content, input)
}

#[test]
fn five_megabytes_go_through_a_socket_that_is_read_slowly() {
    let place = Place::new("");
    let listener = UnixListener::bind(place.socket()).unwrap();
    let server = std::thread::spawn(move || read_slowly(&listener));
    let message = format!("Subject: large\r\n\r\n{}", ".234567890123456789012345678901\r\n".repeat(5 << 15));
    assert!(message.len() > 5 << 20);
    let heard = place.call("smtpc", &["--lmtp", &place.socket(), "-f", "a@x", "b@y"], message.as_bytes());
    assert_eq!(heard.code, Some(0), "{}", heard.stderr);
    assert!(server.join().unwrap() == dotted(message.as_bytes()), "the content has changed on its way");
}

/// A delivery that goes on while the test looks.
struct Running {
    process: Process,
    stderr: std::path::PathBuf,
}

impl Running {
    fn start(server: &Served, name: &str, args: &[&str], input: impl Into<Stdio>) -> Self {
        let stderr = server.place.path("stderr");
        let socket = server.place.socket();
        let mut command =
            server.place.command(name, &[&["--dump", "--lmtp", &socket, "-f", "a@x"], args].concat());
        command.stdin(input).stdout(Stdio::null()).stderr(fs::File::create(&stderr).unwrap());
        Self { process: Process::start(name, &mut command), stderr }
    }

    /// With the message on its standard input.
    fn with_message(server: &Served, name: &str, args: &[&str]) -> Self {
        let path = server.place.path("message");
        fs::write(&path, MESSAGE).unwrap();
        Self::start(server, name, args, fs::File::open(path).unwrap())
    }

    #[track_caller]
    fn wait_for(&self, words: &str) {
        wait_for(words, SOON, || fs::read_to_string(&self.stderr).unwrap().contains(words).then_some(()));
    }

    #[track_caller]
    fn end(mut self) -> Heard {
        let status = self.process.wait(SOON);
        let stderr = fs::read(&self.stderr).unwrap();
        Heard::from(std::process::Output { status, stdout: Vec::new(), stderr })
    }
}

#[test]
fn a_signal_while_the_message_is_read_sends_nothing() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        for name in NAMES {
            let server = Served::by("");
            let (reader, mut writer) = std::io::pipe().unwrap();
            let running = Running::start(&server, name, &["b@y"], reader);
            // Once that is through, the command has begun to read: the pipe holds less.
            writer.write_all(&[b'x'; 200 << 10]).unwrap();
            running.process.signal(signal);
            let heard = running.end();
            assert_eq!((heard.signal, heard.stderr.as_str()), (Some(signal.as_raw()), ""));
            assert_eq!(server.sink.counts().connections, 0);
        }
    }
}

#[test]
fn a_signal_before_the_mail_has_left_ends_it_at_once() {
    let server = Served::with("", "mail delay 1h", |sink| sink.without = vec![Extension::Pipelining]);
    let running = Running::with_message(&server, "smtpc", &["b@y"]);
    running.wait_for("C: MAIL FROM");
    running.process.signal(Signal::TERM);
    let heard = running.end();
    assert_eq!(heard.signal, Some(Signal::TERM.as_raw()), "{}", heard.stderr);
    assert!(!heard.stderr.contains("to=<"), "{}", heard.stderr);
    assert!(server.mail_of("b@y").is_empty());
}

#[test]
fn a_signal_when_the_mail_has_left_waits_for_the_truth() {
    // The second transaction is not begun then.
    for (name, recipients, code) in [("smtpc", &["ann@y"][..], 0), ("sendmail", &["ann@y", "bob@y"], 75)] {
        let config = "[transport.lmtp]\ndestination_recipient_limit = 1\n";
        let server = Served::with(config, "data-done ann@y delay 3s", |_| {});
        let running = Running::with_message(&server, name, recipients);
        running.wait_for("C: (message of");
        running.process.signal(Signal::TERM);
        let heard = running.end();
        assert_eq!(heard.code, Some(code), "{}", heard.stderr);
        let notice = format!("{name}: a signal came when the mail had left");
        assert!(heard.stderr.contains(&notice), "{}", heard.stderr);
        assert!(heard.of("ann@y").contains("status=sent"), "{}", heard.stderr);
        assert_eq!(server.mail_of("ann@y").len(), 1);
        if recipients.len() > 1 {
            let line = heard.of("bob@y");
            assert!(line.ends_with("status=deferred (not tried, because a signal came)"), "{line}");
            assert!(server.mail_of("bob@y").is_empty());
        }
    }
}

#[test]
fn a_signal_before_the_mail_leaves_for_the_next_holds_it_back() {
    let config = "[transport.lmtp]\ndestination_recipient_limit = 1\n";
    let server = Served::with(config, "mail after 1 delay 3s", |sink| {
        sink.without = vec![Extension::Pipelining];
    });
    let running = Running::with_message(&server, "sendmail", &["ann@y", "bob@y"]);
    wait_for("the second MAIL", SOON, || {
        let said = fs::read_to_string(&running.stderr).unwrap();
        (said.matches("C: MAIL").count() == 2).then_some(())
    });
    running.process.signal(Signal::TERM);
    let heard = running.end();
    assert_eq!(heard.code, Some(75), "{}", heard.stderr);
    assert!(heard.of("ann@y").contains("status=sent"), "{}", heard.stderr);
    assert!(heard.of("bob@y").contains("status=deferred (local data error"), "{}", heard.stderr);
    assert!(heard.of("bob@y").ends_with(": a signal came)"), "{}", heard.stderr);
    assert_eq!((server.mail_of("ann@y").len(), server.mail_of("bob@y").len()), (1, 0));
}

#[test]
fn a_second_signal_ends_it_and_says_that_nobody_knows() {
    let server = Served::by("data-done delay 1h");
    let mut running = Running::with_message(&server, "sendmail", &["b@y"]);
    running.wait_for("C: (message of");
    running.process.signal(Signal::TERM);
    running.wait_for("a signal came when the mail had left");
    // timeout(1) sends its signal twice: that is one.
    running.process.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(100));
    assert!(running.process.ended().is_none(), "two of a kind ended it");
    running.process.signal(Signal::INT);
    let heard = running.end();
    assert_eq!(heard.signal, Some(Signal::INT.as_raw()), "{}", heard.stderr);
    assert!(heard.stderr.contains("sendmail: ended by a second signal; recipients who"), "{}", heard.stderr);
}

#[test]
fn signals_are_heard_while_nobody_reads_the_results() {
    let place = Place::new("");
    let listener = UnixListener::bind(place.socket()).unwrap();
    let mut command = place.command("smtpc", &["--lmtp", &place.socket(), "-f", "a@x", "b@y"]);
    fs::write(place.path("message"), MESSAGE).unwrap();
    // A pipe that is full, so that the first line written to it waits.
    let (_reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(b"nobody takes this\n").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    command.stdin(fs::File::open(place.path("message")).unwrap()).stdout(Stdio::null()).stderr(writer);
    let mut process = Process::start("smtpc", &mut command);
    // The content is stored, and its line waits for a reader.
    let _open = store_slowly(&listener);
    process.signal(Signal::TERM);
    // Two that come together are one.
    std::thread::sleep(Duration::from_millis(700));
    process.signal(Signal::INT);
    let status = process.wait(SOON);
    assert!(status.signal().is_some(), "{status}");
}

#[test]
fn output_that_nobody_takes_changes_nothing() {
    for closed in ["2>&-", ">&-", ">&- 2>&-", "2>&1 >/dev/full", ">/dev/full 2>/dev/full"] {
        for (script, code) in [("", 0), ("rcpt bob@y 550 5.1.1 no", 253)] {
            let server = Served::by(script);
            let shell = format!("exec \"$0\" \"$@\" {closed}");
            let mut command = Command::new("sh");
            command.args(["-c", &shell]).arg(server.place.path("smtpc"));
            let socket = server.place.socket();
            let args = ["--dump", "--verbose", "--lmtp", &socket, "-f", "a@x", "ann@y", "bob@y"];
            server.place.prepare(&mut command, &args);
            let output = run(&mut command, MESSAGE);
            assert_eq!(output.status.code(), Some(code), "{closed}: {output:?}");
            assert_eq!(server.mail_of("ann@y").len(), 1, "{closed}");
        }
    }
    // A pipe whose reader has gone.
    let server = Served::by("");
    let socket = server.place.socket();
    let args = ["--dump", "--verbose", "--lmtp", &socket, "-f", "a@x", "ann@y"];
    let mut command = server.place.command("smtpc", &args);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut process = Process::start("smtpc", &mut command);
    assert_eq!(process.wait(SOON).code(), Some(0));
    assert_eq!(server.mail_of("ann@y").len(), 1);
}

/// The time that a process has computed so far.
fn cpu_time(process: &Process) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).ok()?;
    let words: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
    // utime and stime (proc(5)), in hundredths of a second.
    let ticks: u64 = words.get(11..13)?.iter().filter_map(|word| word.parse::<u64>().ok()).sum();
    Some(Duration::from_millis(10 * ticks))
}

#[test]
fn waiting_for_a_server_costs_no_time() {
    let server = Served::by("data-done delay 2s");
    let started = Instant::now();
    let mut running = Running::with_message(&server, "smtpc", &["b@y"]);
    let mut used = Duration::ZERO;
    let status = wait_for("the end", SOON, || {
        used = cpu_time(&running.process).unwrap_or(used);
        running.process.ended()
    });
    assert_eq!(status.code(), Some(0));
    assert!(started.elapsed() >= Duration::from_secs(2));
    // A process that spins gets a good part of these two seconds, on the busiest machine too.
    assert!(used < Duration::from_millis(200), "{used:?}");
}

#[test]
fn a_server_that_is_slow_to_say_goodbye_keeps_nobody_waiting() {
    let server = Served::by("quit delay 1h");
    let started = Instant::now();
    let heard = server.lmtp("smtpc", &["b@y"], MESSAGE);
    assert_eq!(heard.code, Some(0), "{}", heard.stderr);
    // quit_timeout is 300 s.
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[test]
fn a_temporary_file_that_cannot_grow_sends_nothing_and_says_so() {
    let server = Served::by("");
    for name in NAMES {
        let (program, socket) = (server.place.path(name).display().to_string(), server.place.socket());
        let mut command = Command::new("sh");
        let limited =
            ["-c", "ulimit -f 8; exec \"$@\"", "sh", &program, "--lmtp", &socket, "-f", "a@x", "b@y"];
        server.place.prepare(&mut command, &limited);
        let heard = Heard::from(run(&mut command, &[b'x'; 100_000]));
        assert_eq!(heard.code, Some(75), "{heard:?}");
        let words = format!("{name}: the message was not sent: cannot write a temporary file in ");
        assert!(heard.stderr.starts_with(&words) && heard.stderr.lines().count() == 1, "{heard:?}");
    }
    assert_eq!(server.sink.counts().connections, 0);
}

#[test]
fn nothing_of_the_message_stays_on_disk() {
    let server = Served::by("rcpt bob@y 550 5.1.1 no");
    let names = || {
        let entries = fs::read_dir(server.place.directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    server.lmtp("smtpc", &["ann@y"], MESSAGE);
    let before = names();
    for address in ["ann@y", "bob@y"] {
        server.lmtp("smtpc", &[address], MESSAGE);
    }
    let stopped = Served::by("data-done delay 1h");
    let running = Running::with_message(&stopped, "smtpc", &["ann@y"]);
    running.wait_for("C: (message of");
    let entries = fs::read_dir(stopped.place.directory.path()).unwrap().count();
    running.process.kill();
    assert_eq!(fs::read_dir(stopped.place.directory.path()).unwrap().count(), entries);
    assert_eq!(names(), before);
}
