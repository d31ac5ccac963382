//! `lastmile queue` and `lastmile status`: with an agent and without one, as root and as somebody else.
//!
//! - Owns: what these commands show and do, their exit codes, the control socket under odd clients.
//! - Leaves to others: delivery (`agent`), the columns (unit tests).
//! - Always true: what needs another user than root is left out where the test does not run as root, and says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use lastmile::spool::{Draft, Place, Spool, SubmitLimits};
use rustix::fs::{Gid, Uid};
use serde_json::{Value, json};

use crate::common::agent::{SOON, Site, run};
use crate::common::process::{Process, wait_for};

/// A user who is neither root nor the agent's.
const SOMEBODY: u32 = 65534;

/// A server that follows a script and stores nothing.
struct Sink {
    _process: Process,
    socket: PathBuf,
}

impl Sink {
    fn start(site: &Site, script: &str) -> Self {
        let (socket, file) = (site.path().join("sink.sock"), site.path().join("script"));
        std::fs::write(&file, script).unwrap();
        let listen = format!("unix:{}", socket.display());
        let mut command = site.command(&["sink", "--discard", "--listen", &listen, "--script"]);
        command.arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process::start("the sink", &mut command);
        wait_for("the sink's socket", SOON, || UnixStream::connect(&socket).ok());
        Self { _process: process, socket }
    }
}

/// A site whose mail goes to a server that follows `script`.
fn site(script: &str, config: &str) -> (Site, Sink) {
    let site = Site::new("");
    let sink = Sink::start(&site, script);
    site.configure(&format!("default_transport = \"lmtp:unix:{}\"\n{config}", sink.socket.display()));
    (site, sink)
}

fn message(subject: &str) -> Vec<u8> {
    format!("From: a@example.org\nSubject: {subject}\n\ntext of {subject}\n").into_bytes()
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("left out: only root can act as uid {SOMEBODY}");
    }
    is_root
}

fn run_as(site: &Site, uid: u32, arguments: &[&str], input: &[u8]) -> Output {
    run(site.command(arguments).uid(uid).gid(uid), input)
}

#[track_caller]
fn assert_code(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn queue(site: &Site, arguments: &[&str], code: i32) -> String {
    assert_code(&site.run(&[&["queue"], arguments].concat(), b""), code)
}

/// Output with one JSON value a line.
#[track_caller]
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// The ID of the only message.
#[track_caller]
fn only_id(site: &Site) -> String {
    let queued = site.queued();
    assert_eq!(queued.len(), 1, "{queued:?}");
    queued[0]["id"].as_str().unwrap().to_owned()
}

#[track_caller]
fn wait_for_place(site: &Site, id: &str, place: &str) {
    let path = site.queue().join(place).join(id);
    wait_for(&format!("{id} in {place}/"), SOON, || path.exists().then_some(()));
}

#[test]
fn a_deferred_message_is_listed_and_shown_with_its_reasons_with_and_without_an_agent() {
    let script = "rcpt b@* 450 4.2.0 mailbox is locked\nrcpt c@* 250 2.1.5 welcome\n";
    let (site, _sink) = site(script, "");
    let agent = site.start_agent();
    assert_eq!(queue(&site, &["list"], 0), "Queue is empty\n");
    let arguments = ["-i", "-f", "a@example.org", "b@example.org", "c@example.org"];
    site.sendmail(&arguments, &message("stays"));
    site.wait_for_line(&["to=<b@example.org>", "status=deferred"], SOON);
    let id = only_id(&site);
    wait_for_place(&site, &id, "deferred");
    let with_agent = site.queued();
    let listed = &with_agent[0];
    assert_eq!((&listed["place"], &listed["sender"]), (&json!("deferred"), &json!("a@example.org")));
    assert_eq!(listed["origin"], json!(format!("uid={}", rustix::process::getuid().as_raw())));
    assert!(listed["size"].as_u64().unwrap() > 60 && listed["recipient_count"] == json!(2), "{listed}");
    for time in ["arrival", "next_attempt"] {
        assert!(listed[time].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{listed}");
    }
    let open = &listed["recipients"];
    assert_eq!(open.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(open[0]["address"], "b@example.org");
    assert_eq!((&open[0]["state"], &open[0]["dsn"]), (&json!("pending"), &json!("4.2.0")));
    assert!(open[0]["reason"].as_str().unwrap().contains("mailbox is locked"), "{listed}");

    let shown_with_agent = queue(&site, &["show", &id, "--content"], 0);
    for part in [
        "Sender:",
        "pending   b@example.org",
        "sent      c@example.org",
        "450 4.2.0 mailbox is locked",
        "Subject: stays\r\n",
        "text of stays\r\n",
        &format!("id {id};"),
    ] {
        assert!(shown_with_agent.contains(part), "{part:?} in:\n{shown_with_agent}");
    }
    let shown_json = lines(&queue(&site, &["show", &id, "--json"], 0));
    let count = |kind: &str| shown_json.iter().filter(|line| line.get(kind).is_some()).count();
    assert_eq!((count("message"), count("recipient"), count("attempt")), (1, 2, 1), "{shown_json:?}");
    let list = queue(&site, &["list"], 0);
    assert!(
        list.contains(&id) && list.contains("mailbox is locked") && list.contains("1 deferred"),
        "{list}"
    );
    agent.stop();

    assert!(!site.queue().join("agent.sock").exists());
    assert_eq!(site.queued(), with_agent);
    assert_eq!(queue(&site, &["show", &id, "--content"], 0), shown_with_agent);
}

#[test]
fn messages_are_held_released_flushed_and_deleted_while_an_agent_runs() {
    let (site, _sink) = site("rcpt * times 3 450 4.2.0 not now\n", "");
    let agent = site.start_agent();
    let deferred = |count| site.wait_for_lines(count, &["status=deferred"], SOON);
    site.sendmail(&["-i", "-f", "a@example.org", "b@example.org"], &message("moves about"));
    deferred(1);
    let id = only_id(&site);
    wait_for_place(&site, &id, "deferred");

    assert!(queue(&site, &["hold", &id], 0).contains("placed on hold"));
    assert!(site.queue().join("hold").join(&id).exists());
    let again = lines(&queue(&site, &["hold", &id, "--json"], 0));
    assert_eq!((&again[0]["id"], &again[0]["outcome"]), (&json!(id), &json!("unchanged")), "{again:?}");
    assert!(queue(&site, &["flush", &id], 0).contains("on hold"));

    assert!(queue(&site, &["release", &id], 0).contains("released"));
    deferred(2);
    wait_for_place(&site, &id, "deferred");
    assert!(queue(&site, &["flush"], 0).contains("everything deferred is tried now"));
    deferred(3);
    wait_for_place(&site, &id, "deferred");
    assert!(queue(&site, &["requeue", &id], 0).contains("tried now"));
    site.wait_for_line(&[&id, "status=sent"], SOON);
    site.wait_until_empty(SOON);

    let gone = lines(&queue(&site, &["delete", &id, "--json"], 1));
    assert_eq!(
        (&gone[0]["outcome"], &gone[0]["action"]),
        (&json!("not_found"), &json!("delete")),
        "{gone:?}"
    );
    assert_eq!(queue(&site, &["release", "ALL"], 0), "nothing to release\n");
    queue(&site, &["show", &id], 1);
    agent.stop();
}

#[test]
fn everything_can_be_deleted_at_once_but_only_by_saying_so() {
    let (site, _sink) = site("rcpt * 450 4.2.0 not now\n", "");
    let agent = site.start_agent();
    for number in 0..5 {
        let recipient = format!("r{number}@example.org");
        site.sendmail(&["-i", "-f", "a@example.org", &recipient], &message("many"));
    }
    site.wait_for_lines(5, &["status=deferred"], SOON);
    wait_for("all of them deferred", SOON, || {
        site.queued().iter().all(|listed| listed["place"] == "deferred").then_some(())
    });
    let id = site.queued()[0]["id"].as_str().unwrap().to_owned();
    queue(&site, &["delete"], 64);
    queue(&site, &["delete", "ALL", &id], 64);
    assert_eq!(site.queued().len(), 5);
    queue(&site, &["hold", &id], 0);
    let deleted = lines(&queue(&site, &["delete", "ALL", "--json"], 0));
    assert_eq!(deleted.iter().filter(|line| line["outcome"] == "done").count(), 5, "{deleted:?}");
    assert_eq!(site.files(), Vec::<String>::new());
    agent.stop();
}

#[test]
fn a_message_that_is_being_delivered_is_deleted_when_its_batch_ends() {
    let script = "rcpt * delay 4s 450 4.2.0 not now\n";
    let (site, _sink) = site(script, "");
    let agent = site.start_agent();
    site.sendmail(&["-i", "-f", "a@example.org", "b@example.org"], &message("on its way"));
    site.wait_for_line(&["(queue active)"], SOON);
    wait_for("a batch under way", SOON, || {
        let status: Value = serde_json::from_str(&status(&site)).unwrap();
        (status["workers_busy"] == 1).then_some(())
    });
    let id = only_id(&site);
    let asked = Instant::now();
    let answer = lines(&queue(&site, &["delete", &id, "--json"], 0));
    assert!(asked.elapsed() < Duration::from_secs(3), "the command waits for the delivery");
    assert_eq!(answer[0]["outcome"], "waits", "{answer:?}");
    assert!(answer[0]["text"].as_str().unwrap().contains("when that ends"), "{answer:?}");
    site.wait_for_line(&[&id, "status=deferred"], SOON);
    site.wait_for_line(&[&id, "removed by the administrator"], SOON);
    site.wait_until_empty(SOON);
    agent.stop();
}

#[test]
fn what_was_promised_is_done_before_the_agent_ends() {
    let (site, _sink) = site("rcpt * delay 3s 450 4.2.0 not now\n", "");
    let mut agent = site.start_agent();
    site.sendmail(&["-i", "-f", "a@example.org", "b@example.org"], &message("on its way"));
    wait_for("a batch under way", SOON, || {
        let status: Value = serde_json::from_str(&status(&site)).unwrap();
        (status["workers_busy"] == 1).then_some(())
    });
    let id = only_id(&site);
    assert!(queue(&site, &["hold", &id], 0).contains("when that ends"));
    agent.signal(rustix::process::Signal::TERM);
    site.wait_for_line(&["stopping"], SOON);
    let late = lines(&queue(&site, &["delete", &id, "--json"], 74));
    assert!(late[0]["text"].as_str().unwrap().contains("is stopping"), "{late:?}");
    assert!(agent.wait(SOON).success());
    assert!(site.queue().join("hold").join(&id).exists(), "{:?}", site.files());
}

fn status(site: &Site) -> String {
    assert_code(&site.run(&["status", "--json"], b""), 0)
}

#[test]
fn the_status_tells_what_the_agent_does() {
    let (site, sink) = site("", "workers = 4");
    let output = site.run(&["status"], b"");
    assert_code(&output, 69);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no agent is running"), "{output:?}");
    let agent = site.start_agent();
    site.sendmail(&["-i", "-f", "a@example.org", "b@example.org"], &message("counted"));
    site.wait_for_line(&["status=sent"], SOON);
    site.wait_until_empty(SOON);
    let numbers = wait_for("the count", SOON, || {
        let numbers: Value = serde_json::from_str(&status(&site)).unwrap();
        (numbers["sent"] == 1 && numbers["workers_idle"] == 4).then_some(numbers)
    });
    // The worker keeps its connection for the next message.
    assert_eq!((&numbers["connections"], &numbers["deferred"]), (&json!(1), &json!(0)), "{numbers}");
    let text = assert_code(&site.run(&["status"], b""), 0);
    assert!(text.contains("0 busy, 4 idle") && text.contains("1 open"), "{text}");
    drop(sink);
    agent.stop();
}

#[test]
fn without_an_agent_the_command_moves_messages_itself() {
    let site = Site::new("");
    let output = site.run(&["queue", "list"], b"");
    assert_code(&output, 69);
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no mail queue"), "{output:?}");
    site.start_agent().stop();
    site.sendmail(&["-i", "-f", "a@example.org", "b@example.org"], &message("alone"));
    let id = only_id(&site);
    for (arguments, word, place) in [
        (["hold", id.as_str()], "placed on hold", "hold"),
        (["release", id.as_str()], "released", "active"),
        (["flush", id.as_str()], "active already", "active"),
        (["hold", "ALL"], "placed on hold", "hold"),
        (["requeue", "ALL"], "tried now", "active"),
    ] {
        let text = queue(&site, &arguments, 0);
        assert!(text.contains(word), "{arguments:?}: {text}");
        assert!(site.queue().join(place).join(&id).exists(), "{arguments:?}: {:?}", site.files());
    }
    queue(&site, &["delete", "NOSUCHMESSAGE"], 1);
    assert!(queue(&site, &["delete", &id], 0).contains("removed"));
    assert_eq!(site.files(), Vec::<String>::new());
    queue(&site, &["show", "../etc"], 64);
}

#[test]
fn a_queue_that_is_locked_by_somebody_who_does_not_listen_is_left_alone() {
    let site = Site::new("");
    site.start_agent().stop();
    let spool = Spool::open(&site.queue()).unwrap();
    let _lock = spool.lock().unwrap().unwrap();
    let output = site.run(&["queue", "delete", "ALL"], b"");
    assert_code(&output, 69);
    assert!(String::from_utf8_lossy(&output.stderr).contains("agent.lock"), "{output:?}");
}

#[test]
fn bare_and_damaged_files_are_listed_too() {
    let site = Site::new("");
    site.start_agent().stop();
    site.drop_message("waits-for-its-job", &message("bare"));
    std::fs::write(site.queue().join("incoming/.unfinished"), "x").unwrap();
    std::fs::write(site.queue().join("corrupt/DAMAGED1"), "lastmile/1\nrubbish").unwrap();
    let listed = site.queued();
    let find =
        |id: &str| listed.iter().find(|listed| listed["id"] == id).unwrap_or_else(|| panic!("{listed:?}"));
    assert_eq!(listed.len(), 2, "{listed:?}");
    let bare = find("waits-for-its-job");
    assert_eq!((&bare["place"], &bare["size"]), (&json!("incoming"), &json!(message("bare").len())));
    assert!(bare["problem"].as_str().unwrap().contains("waits for its job line"), "{bare}");
    assert!(find("DAMAGED1")["problem"].as_str().unwrap().contains("damaged"), "{listed:?}");
    let shown = queue(&site, &["show", "DAMAGED1", "--content"], 0);
    assert!(shown.contains("damaged") && shown.contains("lastmile/1\nrubbish"), "{shown}");
    let list = queue(&site, &["list"], 0);
    assert!(list.contains("1 corrupt, 1 incoming"), "{list}");
}

#[test]
fn others_see_their_own_mail_and_change_nothing() {
    if !is_root() {
        return;
    }
    let (site, _sink) = site("rcpt * 450 4.2.0 not now\n", "");
    let agent = site.start_agent();
    site.sendmail(&["-i", "-f", "a@example.org", "b@example.org"], &message("of root"));
    site.wait_for_line(&["status=deferred"], SOON);
    let of_root = only_id(&site);
    let arguments = ["sendmail", "-i", "-f", "n@example.org", "b@example.org"];
    assert_code(&run_as(&site, SOMEBODY, &arguments, &message("of somebody")), 0);
    site.wait_for_lines(2, &["status=deferred"], SOON);

    let theirs = lines(&assert_code(&run_as(&site, SOMEBODY, &["queue", "list", "--json"], b""), 0));
    assert_eq!(theirs.len(), 1, "{theirs:?}");
    assert_eq!(theirs[0]["origin"], json!(format!("uid={SOMEBODY}")));
    let id = theirs[0]["id"].as_str().unwrap();
    let shown = assert_code(&run_as(&site, SOMEBODY, &["queue", "show", id, "--content"], b""), 0);
    assert!(shown.contains("Subject: of somebody"), "{shown}");
    assert_code(&run_as(&site, SOMEBODY, &["queue", "show", &of_root], b""), 1);
    assert_code(&run_as(&site, SOMEBODY, &["status", "--json"], b""), 0);
    for action in ["hold", "release", "delete", "requeue", "flush"] {
        for which in [id, of_root.as_str(), "ALL"] {
            let output = run_as(&site, SOMEBODY, &["queue", action, which], b"");
            assert_code(&output, 77);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(text.contains("root and the agent's user may"), "{text}");
        }
    }
    assert_eq!(site.queued().len(), 2);
    agent.stop();
    let output = run_as(&site, SOMEBODY, &["queue", "list"], b"");
    assert_code(&output, 77);
    assert!(String::from_utf8_lossy(&output.stderr).contains("start the agent"), "{output:?}");
}

#[test]
fn root_works_on_a_queue_as_its_owner() {
    if !is_root() {
        return;
    }
    let site = Site::new("");
    let owner = (Uid::from_raw(SOMEBODY), Gid::from_raw(SOMEBODY));
    drop(Spool::prepare(&site.queue(), Some(owner)).unwrap());
    site.sendmail(&["-i", "-f", "a@example.org", "b@example.org"], &message("owned"));
    let id = only_id(&site);
    queue(&site, &["hold", &id], 0);
    let held = std::fs::metadata(site.queue().join("hold").join(&id)).unwrap();
    assert_eq!(held.uid(), SOMEBODY);
    assert_eq!(std::fs::metadata(site.queue().join("agent.lock")).unwrap().uid(), SOMEBODY);
}

#[test]
fn who_cannot_write_to_the_queue_submits_through_the_socket() {
    if !is_root() {
        return;
    }
    let (site, _sink) = site("rcpt * 450 4.2.0 not now\n", "message_size_limit = \"100K\"");
    let agent = site.start_agent();
    let incoming = site.queue().join("incoming");
    std::fs::set_permissions(&incoming, PermissionsExt::from_mode(0o3700)).unwrap();
    let arguments = ["sendmail", "-i", "-f", "n@example.org", "b@example.org", "c@example.org"];
    let large = "0123456789\n".repeat(5_000);
    let text = [message("by socket"), large.clone().into_bytes()].concat();
    assert_code(&run_as(&site, SOMEBODY, &arguments, &text), 0);
    let id = only_id(&site);
    site.wait_for_line(&[&id, &format!("uid={SOMEBODY}"), "from=<n@example.org>"], SOON);
    site.wait_for_line(&[&id, "to=<c@example.org>", "status=deferred"], SOON);
    let shown = queue(&site, &["show", &id, "--content"], 0);
    assert!(
        shown.contains(&format!("uid={SOMEBODY}")) && shown.contains(&large.replace('\n', "\r\n")),
        "{shown}"
    );

    let too_large = run_as(&site, SOMEBODY, &arguments, large.repeat(10).as_bytes());
    assert_code(&too_large, 69);
    assert!(String::from_utf8_lossy(&too_large.stderr).contains("message_size_limit"), "{too_large:?}");
    let diverted =
        json!({"ask": "submit", "sender": "", "recipients": [{"address": "b@y"}], "nexthop": "unix:/x"});
    let answer = run_as_raw(&site, SOMEBODY, format!("{diverted}\n").as_bytes());
    assert!(answer.contains("not_permitted") && answer.contains("nexthop"), "{answer}");
    assert_eq!(only_id(&site), id);
    agent.stop();

    let alone = run_as(&site, SOMEBODY, &arguments, &text);
    assert_code(&alone, 73);
    assert!(String::from_utf8_lossy(&alone.stderr).contains("no agent is running"), "{alone:?}");
    std::fs::set_permissions(&incoming, PermissionsExt::from_mode(0o3733)).unwrap();
}

/// Connects to the control socket in a thread that is another user, writes `octets`, and reads to the end.
fn run_as_raw(site: &Site, uid: u32, octets: &[u8]) -> String {
    let path = site.queue().join("agent.sock");
    let ask = || {
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_gid(Gid::from_raw(uid)).unwrap();
        rustix::thread::set_thread_uid(Uid::from_raw(uid)).unwrap();
        raw(UnixStream::connect(&path).unwrap(), octets)
    };
    std::thread::scope(|scope| scope.spawn(ask).join().unwrap())
}

fn raw(mut stream: UnixStream, octets: &[u8]) -> String {
    stream.set_read_timeout(Some(SOON)).unwrap();
    // It may have closed the connection on us already.
    let _ = stream.write_all(octets).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn odd_clients_are_refused_or_forgotten_and_disturb_nobody() {
    let site = Site::new("");
    let agent = site.start_agent();
    let socket = || UnixStream::connect(site.queue().join("agent.sock")).unwrap();
    // Clients that never say a word, and one that begins a submission and dies.
    let silent: Vec<_> = (0..5).map(|_| socket()).collect();
    let submit = json!({"ask": "submit", "sender": "a@x", "recipients": [{"address": "b@y"}]});
    let half = format!("{submit}\n{{\"content\":{{\"octets\":100}}}}\nonly this");
    let answer = raw(socket(), half.as_bytes());
    assert!(answer.contains("\"refused\"") && answer.contains("not queued"), "{answer}");
    let endless = vec![b'x'; (1 << 20) + 4096];
    for (octets, code) in [
        (&b"\n"[..], "bad_request"),
        (b"GET / HTTP/1.0\r\n\r\n", "bad_request"),
        (b"{\"ask\":\"stop\"}\n", "bad_request"),
        (b"{\"ask\":\"show\",\"id\":\"NONE\"}\n", "not_found"),
        (&endless, "bad_request"),
    ] {
        let answer = raw(socket(), octets);
        assert!(answer.contains(code), "{code}: {answer}");
    }
    // Several questions on one connection.
    let whole = format!(
        "{submit}\n{{\"content\":{{\"octets\":2}}}}\nx\n{{\"content\":{{\"octets\":0}}}}\n{{\"ask\":\"list\"}}\n"
    );
    let answer = lines(&raw(socket(), whole.as_bytes()));
    let id = answer[1]["queued"]["id"].as_str().unwrap();
    assert_eq!(answer[2], json!({"end": {}}), "{answer:?}");
    assert!(answer.iter().any(|line| line["message"]["id"] == id), "{answer:?}");
    assert_eq!(answer.last(), Some(&json!({"end": {}})));
    assert_eq!(site.files().iter().filter(|file| file.contains("tmp/")).count(), 0);

    // One client more than there are connections is told so at once.
    let many: Vec<_> = (0..27).map(|_| socket()).collect();
    let mut greeting = String::new();
    let refused = wait_for("a refusal", SOON, || {
        greeting.clear();
        let stream = socket();
        stream.set_read_timeout(Some(SOON)).unwrap();
        BufReader::new(stream).read_line(&mut greeting).unwrap();
        greeting.contains("busy").then(|| greeting.clone())
    });
    assert!(refused.contains("too many"), "{refused}");
    drop((many, silent));
    status(&site);
    agent.stop();
}

#[test]
fn names_without_a_domain_are_completed_by_the_agent_too() {
    let site = Site::new("myorigin = \"origin.example\"\n");
    let agent = site.start_agent();
    let submit = json!({"ask": "submit", "sender": "ann", "recipients": [{"address": "by-socket"}]});
    let whole = format!("{submit}\n{{\"content\":{{\"octets\":2}}}}\nx\n{{\"content\":{{\"octets\":0}}}}\n");
    let answer = raw(UnixStream::connect(site.queue().join("agent.sock")).unwrap(), whole.as_bytes());
    assert!(answer.contains("\"queued\""), "{answer}");
    let file = b"lastmile/1\n{\"sender\":\"ann\",\"recipients\":1}\n-P\n{\"address\":\"by-file\"}\n\nx\n";
    site.drop_message("one", file);
    for name in ["by-socket", "by-file"] {
        site.wait_for_line(&[&format!("to=<{name}@origin.example>")], SOON);
    }
    let senders = site.lines_with(&["/pickup", "from=<ann@origin.example>"]).len();
    assert_eq!(senders, 2, "{}", site.log());
    agent.stop();
}

#[test]
fn a_long_list_is_streamed_whole() {
    const MESSAGES: usize = 300;
    let site = Site::new("");
    site.start_agent().stop();
    let spool = Spool::open(&site.queue()).unwrap();
    for number in 0..MESSAGES {
        let recipient = format!("r{number}@example.org").parse().unwrap();
        let draft = Draft {
            sender: "a@example.org".parse().unwrap(),
            recipients: vec![lastmile::mail::Recipient::new(0, recipient)],
            origin: "uid=0".into(),
            ..Draft::default()
        };
        let id = spool.submit(draft, &mut &b"x\n"[..], &SubmitLimits::default()).unwrap();
        assert!(spool.move_to(id, Place::Active, Place::Hold).unwrap());
    }
    let without_agent = site.queued();
    let agent = site.start_agent();
    let with_agent = site.queued();
    assert_eq!((with_agent.len(), without_agent.len()), (MESSAGES, MESSAGES));
    let ids: std::collections::BTreeSet<_> =
        with_agent.iter().map(|listed| listed["id"].to_string()).collect();
    assert_eq!(ids.len(), MESSAGES);
    agent.stop();
}
