//! One stranger who does very much, and two who do it to each other.
//!
//! - Owns: turns in `incoming/`, floods of events, the exact set of messages at the end.
//! - Leaves to others: many connections (`socket`), many destinations (`engine::concurrency`).
//! - Always true: whoever drops thousands of files waits for them alone.

use std::collections::BTreeMap;

use super::{ANN, MALLORY, Scene, soon};
use crate::common::agent::SOON;
use crate::common::long::short_or_long;
use crate::common::mailbox::header;
use crate::common::process::wait_for;

#[test]
fn thousands_of_files_of_one_user_wait_for_each_other_and_not_for_anothers() {
    let Some(mut scene) = Scene::without_agent("") else { return };
    scene.site.start_agent().stop();
    let (count, anns) = (short_or_long(300, 20_000), 16);
    // While nobody looks, so that all of them are there at once; in which order a directory lists them nobody knows.
    let script = "for number in range(int(sys.stdin.read())):
    with open(INCOMING + f'{os.getuid()}-{number}', 'wb') as file:
        file.write(queue_file(f'u{os.getuid()}@example.org')); os.fchmod(file.fileno(), 0o640)";
    for (uid, count) in [(MALLORY, count), (ANN, anns)] {
        let output =
            crate::common::agent::run(&mut scene.python(uid, uid, script), count.to_string().as_bytes());
        scene.accomplished(&output, script);
    }
    scene.agent = Some(scene.site.start_agent());
    let arrived = |uid: u32| scene.server.mail_of(&format!("u{uid}@example.org")).len();
    wait_for("Ann's mail", SOON, || (arrived(ANN) == anns).then_some(()));
    wait_for("all of the crowd", short_or_long(3, 30) * SOON, || (arrived(MALLORY) == count).then_some(()));
    let taken = scene.site.lines_with(&["/pickup[", " from=<"]);
    assert_eq!(taken.len(), count + anns);
    let last = taken.iter().rposition(|line| line.contains(&format!("uid={ANN} "))).unwrap();
    assert!(last < count / 2, "Ann's last file was taken after {last} others");
    scene.ends_well();
}

#[test]
fn a_flood_of_events_keeps_nobody_waiting() {
    let Some(scene) = Scene::new("") else { return };
    // Bare files that wait for a job line for ever are looked at with every listing.
    let _siege = scene.siege(
        "for number in range(500): open(INCOMING + f'bare{number}', 'wb').write(b'Subject: bare\\n\\n')
def flood(name):
    while True: os.close(os.open(INCOMING + name, os.O_CREAT | os.O_WRONLY, 0o640))
for number in range(2): threading.Thread(target=flood, args=(f'event{number}',), daemon=True).start()
say('ready'); time.sleep(600)",
    );
    for number in 0..3 {
        scene.anns_mail_arrives(&format!("through the flood {number}"));
    }
    let status = scene.lastmile(ANN, &["status"], b"");
    assert!(status.status.success(), "{status:?}");
    scene.ends_well();
}

/// Each of the two sends and attacks in turns; what arrives is what was sent, octet by octet.
#[test]
fn two_who_attack_each_other_get_all_of_their_own_mail_and_nothing_else() {
    let Some(scene) = Scene::new("") else { return };
    let rounds = short_or_long(6, 60);
    let attacks = [
        "drop(f'x{os.getpid()}', queue_file(recipient=OTHER, sender=OTHER, id='0SAME', origin='uid=0'))",
        "os.symlink(QUEUE + '/active', INCOMING + f'x{os.getpid()}')",
        "os.mkfifo(INCOMING + f'x{os.getpid()}')",
        "drop('same', queue_file(recipient=OTHER)) if not os.path.exists(INCOMING + 'same') else None",
        "drop(f'x{os.getpid()}', b'lastmile/1\\n{' + os.urandom(5000))",
        "one, _, _ = connect()
    one.sendall(b'{\"ask\":\"submit\",\"sender\":\"\",\"recipients\":[{\"address\":\"' + OTHER.encode() + b'\"}]}\\n')",
    ];
    let mut sent = BTreeMap::new();
    for round in 0..rounds {
        for (me, my, other) in [
            (ANN, "ann@example.org", "mallory@example.org"),
            (MALLORY, "mallory@example.org", "ann@example.org"),
        ] {
            let subject = format!("{round} of {me}");
            scene.sends(me, &subject, my);
            sent.insert(subject, my);
            let script = format!(
                "OTHER = '{other}'\ntry:\n    {}\nexcept PermissionError: pass",
                attacks[round % attacks.len()]
            );
            let output = crate::common::agent::run(&mut scene.python(me, me, &script), b"");
            scene.accomplished(&output, &script);
        }
    }
    for (subject, recipient) in &sent {
        scene.has_arrived(subject, recipient);
    }
    // The forged ones have come too, as anybody may write to anybody; each is logged with its real owner.
    let forged = || {
        let is_forged = |mail: &Vec<u8>| header(mail, "Subject").as_deref() == Some("mallory");
        scene.server.all_mail().into_iter().filter(is_forged).count()
    };
    let taken = || scene.site.lines_with(&["/pickup[", "from=<"]).len();
    soon("all mail in the log", || {
        (forged() + sent.len() == taken() && scene.files_in("incoming").is_empty()).then_some(())
    });
    assert_eq!(scene.server.all_mail().len(), forged() + sent.len());
    for uid in [ANN, MALLORY] {
        let own = format!("uid={uid} from=<u{uid}@example.org>");
        assert_eq!(scene.site.lines_with(&["/pickup[", &own]).len(), rounds);
    }
    // What was submitted half goes when the agent has seen that nobody is there any more.
    soon("nothing under way", || {
        (scene.files_in("tmp").is_empty() && scene.files_in("active").is_empty()).then_some(())
    });
    scene.ends_well();
}

/// With hardly a limit on messages, whatever finds no room waits for it. A hole takes none where it lies, and too much in a
/// copy.
#[test]
fn files_that_find_no_room_keep_none_from_anothers() {
    let Some(scene) = Scene::new("message_size_limit = \"900000G\"") else { return };
    let count = short_or_long(80, 12_000);
    let script = "for number in range(int(sys.stdin.read())):
    with open(INCOMING + '.hole', 'wb') as file:
        file.write(queue_file()); file.truncate(8 << 40); os.fchmod(file.fileno(), 0o640)
    os.rename(INCOMING + '.hole', INCOMING + f'hole{number}')";
    let output =
        crate::common::agent::run(&mut scene.python(MALLORY, MALLORY, script), count.to_string().as_bytes());
    scene.accomplished(&output, script);
    scene.site.wait_for_line(&["incoming/hole", "cannot be queued now", "it is kept and tried again"], SOON);
    for number in 0..3 {
        scene.anns_mail_arrives(&format!("beside holes {number}"));
    }
    // The log and the postmaster hear of it, and not without end.
    let said = scene.site.lines_with(&["cannot be queued now"]).len();
    assert!((1..=10).contains(&said), "{said} lines");
    let to_postmaster = || scene.server.mail_of("postmaster@mx.example.org").len();
    soon("the postmaster's notice", || (to_postmaster() == 1).then_some(()));
    assert_eq!(scene.server.all_mail().len(), 4);
    assert_eq!(scene.files_in("incoming").len(), count);
    scene.ends_well();
}
