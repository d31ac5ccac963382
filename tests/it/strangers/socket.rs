//! The control socket, which everybody may connect to.
//!
//! - Owns: what a stranger learns and changes there, and what hundreds of bad connections do to a good one.
//! - Leaves to others: the protocol (`agent::queue_control`), administrators (`queue`).
//! - Always true: a stranger's answer about somebody else's message is the one about a message that does not exist.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{ANN, MALLORY, Scene, soon};
use crate::common::agent::SOON;
use crate::common::mailbox::header;
use crate::common::process::wait_for;

/// Where no server is: what is sent stays in the queue.
const NOWHERE: &str = "minimal_backoff_time = 3600\nmaximal_backoff_time = 3600\n\
    [routes]\n\"ann.example.org\" = \"lmtp:unix:/nowhere\"";

/// Ann's message, which waits in the queue.
fn anns_deferred_message(scene: &Scene) -> String {
    scene.sends(ANN, "private", "ann@ann.example.org");
    soon("Ann's message in deferred/", || {
        let files = scene.files_in("deferred");
        files.iter().find(|file| !file.ends_with(".log")).map(|file| file["deferred/".len()..].to_owned())
    })
}

#[test]
fn a_stranger_sees_and_moves_nothing_of_anothers() {
    let Some(scene) = Scene::new(NOWHERE) else { return };
    let id = anns_deferred_message(&scene);
    let none = "0NOSUCHMESSAGE000000";
    let said = scene.attack(&format!(
        "def told(id, question):
    return json.dumps(ask(question)).replace(id, 'ID')
for content in (False, True):
    theirs, nobodys = [told(id, {{'ask': 'show', 'id': id, 'content': content}}) for id in ('{id}', '{none}')]
    assert theirs == nobodys, (theirs, nobodys)
for action in ('hold', 'release', 'delete', 'requeue', 'flush'):
    theirs, nobodys = [told(id, {{'ask': 'act', 'action': action, 'messages': [id]}}) for id in ('{id}', '{none}')]
    assert theirs == nobodys and 'not_permitted' in theirs, (theirs, nobodys)
    assert 'not_permitted' in json.dumps(ask({{'ask': 'act', 'action': action, 'messages': 'ALL'}}))
assert ask({{'ask': 'list'}}) == [{{'end': {{}}}}], 'the list shows what is not ours'
say(json.dumps(ask({{'ask': 'show', 'id': '{id}'}})))"
    ));
    assert!(said.contains("of yours in the queue") && !said.contains("private"), "{said}");
    for arguments in [&["queue", "show", &id][..], &["queue", "delete", &id], &["queue", "list", "--json"]] {
        let output = scene.lastmile(MALLORY, arguments, b"");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    // Ann herself sees it, and so does root; it is still there.
    for uid in [ANN, 0] {
        let output = scene.lastmile(uid, &["queue", "list", "--json"], b"");
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(listed["id"], id.as_str());
        let shown = scene.lastmile(uid, &["queue", "show", "--content", &id], b"");
        assert!(String::from_utf8_lossy(&shown.stdout).contains("text of private"), "{shown:?}");
    }
    assert!(scene.files_in("deferred").contains(&format!("deferred/{id}")));
    scene.ends_well();
}

#[test]
fn the_kernel_says_who_submits() {
    let Some(scene) = Scene::new("message_size_limit = \"100K\"") else { return };
    scene.attack(
        "def submit(pieces, **more):
    connection, lines, _ = connect()
    request = {'ask': 'submit', 'sender': 'ann@example.org', 'recipients': [{'address': 'mallory@example.org'}]}
    request.update(more)
    try:
        connection.sendall(json.dumps(request).encode() + b'\\n')
        for piece in pieces:
            connection.sendall(b'{\"content\":{\"octets\":%d}}\\n' % len(piece) + piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return connection, lines
end = [b'']
_, lines = submit([b'Subject: submitted\\r\\n\\r\\n'] + end)
assert 'queued' in json.loads(lines.readline())
_, lines = submit([b'x' * (100 * 1024 + 1)] + end)
assert json.loads(lines.readline())['refused']['code'] == 'too_large'
_, lines = submit([b'Subject: origin\\r\\n\\r\\n'] + end, origin='uid=0')
assert json.loads(lines.readline())['refused']['code'] == 'bad_request'
_, lines = submit([], recipients=[{'address': 'x@y>\\r\\nDATA'}])
assert json.loads(lines.readline())['refused']['code'] == 'bad_request'
# Given up half-way, in a piece and between two.
connection, lines = submit([b'Subject: half\\r\\n\\r\\n'])
connection.shutdown(socket.SHUT_RDWR); connection.close(); lines.close()
connection, lines = submit([b'Subject: half\\r\\n\\r\\n'])
connection.sendall(b'{\"content\":{\"octets\":500}}\\nhalf'); connection.close(); lines.close()
# A header, and a question, without end.
_, lines = submit([b'X-' + b'x' * 60000, b'y' * 60000] + end)
assert json.loads(lines.readline())['refused']['code'] == 'too_large'
connection, lines, _ = connect()
try: connection.sendall(b' ' * (2 << 20))
except (BrokenPipeError, ConnectionResetError): pass
assert json.loads(lines.readline())['refused']['code'] == 'bad_request'",
    );
    scene.anns_mail_arrives("beside submissions");
    let mail = soon("Mallory's submission", || {
        Some(scene.server.mail_of("mallory@example.org")).filter(|mail| !mail.is_empty())
    });
    assert_eq!(mail.iter().filter_map(|mail| header(mail, "Subject")).collect::<Vec<_>>(), ["submitted"]);
    scene.site.wait_for_line(&["/pickup[", &format!("uid={MALLORY} from=<ann@example.org>")], SOON);
    scene.site.wait_until_empty(SOON);
    scene.ends_well();
}

/// Hundreds of connections, each bad in its way; those that are closed are made again.
const CROWD: &str = "
count = 500
def silent(): return socket.socket(socket.AF_UNIX)
sockets = []
for number in range(count):
    one = silent(); one.setblocking(False)
    try: one.connect(QUEUE + '/agent.sock')
    except BlockingIOError: pass
    try:
        if number % 4 == 1: one.send(b'{\"ask\":')
        if number % 4 == 2: one.send(b'{\"ask\":\"status\"}\\n' * 500)
    except OSError: pass
    sockets.append(one)
say('ready')
until = time.time() + 600
while time.time() < until:
    for number, one in enumerate(sockets):
        try:
            if number % 4 == 3: one.send(b' ')
        except BlockingIOError: pass
        except OSError:
            one.close(); one = sockets[number] = silent(); one.setblocking(False)
            try: one.connect(QUEUE + '/agent.sock')
            except OSError: pass
    time.sleep(0.2)
";

#[test]
fn a_crowd_of_bad_connections_leaves_room_for_good_ones() {
    let Some(scene) = Scene::new("") else { return };
    let before = scene.descriptors();
    let siege = scene.siege(CROWD);
    for uid in [ANN, 0] {
        let began = Instant::now();
        let output = scene.lastmile(uid, &["status", "--json"], b"");
        assert!(output.status.success(), "uid {uid}: {output:?}");
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    }
    scene.anns_mail_arrives("through the crowd");
    let (during, threads) = (scene.descriptors(), threads(&scene));
    // 32 connections at most, 8 of them Mallory's, and a few files under way.
    assert!(during <= before + 40, "{during} descriptors, {before} before");
    assert!(threads < 32 + 32 + 20, "{threads} threads");
    drop(siege);
    wait_for("the descriptors of a crowd that has gone", SOON, || {
        (scene.descriptors() <= before + 4).then_some(())
    });
    scene.ends_well();
}

fn threads(scene: &Scene) -> usize {
    fs::read_dir(format!("/proc/{}/task", scene.pid())).unwrap().count()
}

#[test]
fn descriptors_sent_over_the_socket_are_not_taken() {
    let Some(scene) = Scene::new("") else { return };
    let before = scene.descriptors();
    let _siege = scene.siege(
        "one, lines, _ = connect()
fds = [os.open('/etc/hostname', os.O_RDONLY) for _ in range(100)]
for _ in range(20):
    socket.send_fds(one, [b'{\"ask\":\"status\"}\\n'], fds)
    assert 'status' in json.loads(lines.readline()); assert 'end' in json.loads(lines.readline())
socket.send_fds(one, [b'{\"ask\":'], fds)
say('ready'); time.sleep(600)",
    );
    let during = scene.descriptors();
    assert!(during <= before + 4, "{during} descriptors, {before} before");
    scene.anns_mail_arrives("beside descriptors");
    scene.ends_well();
}

/// To find what is theirs among everybody's mail costs a user nothing and the agent an open file for each message.
#[test]
fn lists_for_strangers_come_after_everybodys_mail() {
    let Some(scene) = Scene::new(NOWHERE) else { return };
    anns_deferred_message(&scene);
    let _siege = scene.siege(
        "kept = []
for _ in range(4):
    one, lines, _ = connect()
    one.sendall(b'{\"ask\":\"list\"}\\n'); assert 'end' in json.loads(lines.readline())
    kept.append((one, lines))
say('ready'); time.sleep(600)",
    );
    let mut niceness: Vec<(String, i32)> = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", scene.pid())).unwrap().flatten() {
        // It may have ended since.
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        let (name, rest) = stat.rsplit_once(')').unwrap();
        let nice = rest.split_whitespace().nth(16).unwrap().parse().unwrap();
        niceness.push((name.split_once('(').unwrap().1.to_owned(), nice));
    }
    let (lists, others): (Vec<_>, Vec<_>) =
        niceness.iter().partition(|(name, _)| name.starts_with("control uid 54"));
    assert_eq!(lists.iter().map(|(_, nice)| *nice).collect::<Vec<_>>(), [19; 4]);
    let normal = others.iter().map(|(_, nice)| *nice).max();
    assert!(normal < Some(19), "{niceness:?}");
    scene.anns_mail_arrives("beside lists");
    scene.ends_well();
}
