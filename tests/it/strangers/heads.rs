//! Dropped queue files that lie.
//!
//! - Owns: what is believed of a head that a stranger has written, and what is not.
//! - Leaves to others: files that are no queue files (`incoming`).
//! - Always true: ID, arrival, origin and states are the agent's; a nexthop counts only for those who are trusted.

use std::fs;

use super::{AGENT, ANN, MALLORY, Scene, Server, message, soon};
use crate::common::agent::SOON;
use crate::common::mailbox::header;

/// A lie, and what comes of it.
struct Lie {
    situation: &'static str,
    /// Arguments of `queue_file`.
    file: &'static str,
    /// What the log says of it; without that it arrives.
    refused: Option<&'static str>,
}

const LIES: &[Lie] = &[
    Lie { situation: "another's origin", file: "origin='uid=0'", refused: None },
    Lie { situation: "the agent's own origin, no sender", file: "origin='bounce', sender=''", refused: None },
    Lie { situation: "an arrival long ago", file: "arrival='1970-01-01T00:00:00Z'", refused: None },
    Lie {
        situation: "an arrival that is no time",
        file: "arrival='\\r\\nnow', id='../../active/x', body=7",
        refused: None,
    },
    Lie { situation: "states that are final", file: "states='WS'", refused: None },
    Lie { situation: "states with a bounce owed", file: "states='-R'", refused: None },
    Lie { situation: "states in doubt", file: "states='-I'", refused: None },
    Lie { situation: "states that are none", file: "states='-X'", refused: Some("state") },
    Lie { situation: "too few states", file: "states='-'", refused: Some("state") },
    Lie {
        situation: "a size that is too large",
        file: "size=1 << 62",
        refused: Some("its head says that the content has"),
    },
    Lie {
        situation: "a size that is too small",
        file: "size=3",
        refused: Some("its head says that the content has"),
    },
    Lie { situation: "a size below zero", file: "size=-1", refused: Some("its head does not parse") },
    Lie { situation: "more recipients than there are", file: "recipients=7", refused: Some("") },
    Lie { situation: "no recipients", file: "recipients=0", refused: Some("recipients") },
    Lie {
        situation: "four thousand million recipients",
        file: "recipients=(1 << 32) - 1",
        refused: Some("recipients"),
    },
    Lie { situation: "CR and LF in a recipient", file: "'x@y>\\r\\nDATA\\r\\n'", refused: Some("recipient") },
    Lie { situation: "NUL in a recipient", file: "'x\\0@example.org'", refused: Some("recipient") },
    Lie {
        situation: "CR and LF in the sender",
        file: "sender='x@y>\\r\\nRCPT TO:<ann@example.org'",
        refused: Some("its head does not parse"),
    },
    Lie {
        situation: "LF in the nexthop",
        file: "nexthop='unix:/x\\nforged'",
        refused: Some("control characters"),
    },
    Lie {
        situation: "CR in the envelope ID",
        file: "envid='x\\r\\nRCPT'",
        refused: Some("control characters"),
    },
    Lie {
        situation: "a nexthop of five thousand octets",
        file: "nexthop='unix:/' + 'x' * 5000",
        refused: Some("4096 octets"),
    },
];

#[test]
fn nothing_is_believed_of_a_head_but_the_envelope() {
    let Some(scene) = Scene::new("") else { return };
    for (number, Lie { file, .. }) in LIES.iter().enumerate() {
        let content = format!("content='Subject: lie {number}\\r\\n\\r\\n'");
        scene.attack(&format!("drop('lie{number}', queue_file({file}, {content}))"));
    }
    for (number, Lie { situation, refused, .. }) in LIES.iter().enumerate() {
        let told = format!("incoming/lie{number} of uid {MALLORY} is not queued: ");
        match refused {
            Some(reason) => {
                let line = scene.site.wait_for_line(&["error: ", &told], SOON);
                assert!(line.contains(reason), "{situation}: {line}");
            }
            None => {
                let subject = Some(format!("lie {number}"));
                soon(situation, || {
                    let mail = scene.server.mail_of("mallory@example.org");
                    mail.iter().any(|mail| header(mail, "Subject") == subject).then_some(())
                });
                assert!(scene.site.lines_with(&[&told]).is_empty(), "{situation}");
            }
        }
    }
    scene.anns_mail_arrives("beside lies");
    // Whatever was said of the origin, the log has the file's owner; nobody's bounce came of it.
    let believed = LIES.iter().filter(|lie| lie.refused.is_none()).count();
    assert_eq!(scene.site.lines_with(&["/pickup[", &format!("uid={MALLORY} from=<")]).len(), believed);
    assert!(scene.site.lines_with(&["uid=0 "]).is_empty() && scene.site.lines_with(&["/bounce["]).is_empty());
    assert_eq!(scene.server.all_mail().len(), believed + 1);
    assert_eq!(scene.files_in("corrupt").len(), LIES.len() - believed);
    scene.ends_well();
}

#[test]
fn nobody_takes_the_name_of_anothers_message_in_the_queue() {
    let Some(scene) = Scene::without_agent("") else { return };
    scene.site.start_agent().stop();
    // Ann's message waits in hold/, where root has put it.
    scene.sends(ANN, "held", "ann@example.org");
    let agent = scene.site.start_agent();
    scene.has_arrived("held", "ann@example.org");
    agent.stop();
    let id = "1ANNSMESSAGE00000000";
    let held = scene.site.queue().join("hold").join(id);
    let text = format!(
        "lastmile/1\n{{\"id\":\"{id}\",\"sender\":\"ann@example.org\",\"arrival\":\"2026-11-21T19:30:00Z\",\
         \"recipients\":1,\"origin\":\"uid={ANN}\",\"size\":{}}}\n-P\n{{\"address\":\"ann@example.org\"}}\n\n{}",
        message("kept").len() + message("kept").iter().filter(|&&octet| octet == b'\n').count(),
        String::from_utf8(message("kept")).unwrap().replace('\n', "\r\n"),
    );
    fs::write(&held, &text).unwrap();
    std::os::unix::fs::chown(&held, Some(AGENT), Some(AGENT)).unwrap();
    let agent = scene.site.start_agent();
    for name in [id.to_owned(), format!("{id}.in"), format!("{id}.log")] {
        scene.attack(&format!(
            "drop('{name}', queue_file(id='{id}', content='Subject: as {name}\\r\\n\\r\\n'))"
        ));
    }
    let found = || (scene.server.mail_of("mallory@example.org").len() == 3).then_some(());
    soon("Mallory's three messages under names of their own", found);
    assert_eq!(fs::read_to_string(&held).unwrap(), text);
    assert!(scene.site.lines_with(&[&format!("{id}: from=")]).is_empty());
    let released = scene.site.run(&["queue", "release", id], b"");
    assert!(released.status.success(), "{released:?}");
    scene.has_arrived("kept", "ann@example.org");
    agent.stop();
    scene.ends_well();
}

#[test]
fn a_strangers_nexthop_leads_nobodys_mail_anywhere() {
    let Some(scene) = Scene::new("") else { return };
    let mallorys = Server::start(&scene.site, "mallorys", "");
    let nexthop = format!("unix:{}", mallorys.socket.display());
    // As Ann's sender, for Ann's recipient: forging is as easy as with every other mailer, diverting is not possible.
    scene.attack(&format!(
        "drop('diverted', queue_file('ann@example.org', sender='ann@example.org', nexthop='{nexthop}'))
answer = ask({{'ask': 'submit', 'sender': 'ann@example.org', 'recipients': [{{'address': 'ann@example.org'}}],
    'nexthop': '{nexthop}'}})
assert answer[-1]['refused']['code'] == 'not_permitted', answer"
    ));
    let warned = format!("uid {MALLORY} may not choose the nexthop \"{nexthop}\": the routes decide");
    scene.site.wait_for_line(&["warning: ", &warned], SOON);
    scene.site.wait_for_line(&["/pickup[", &format!("uid={MALLORY} from=<ann@example.org>")], SOON);
    let output = scene.lastmile(
        MALLORY,
        &["sendmail", "--nexthop", &nexthop, "-f", "x@y.org", "ann@example.org"],
        b"",
    );
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    scene.anns_mail_arrives("beside a nexthop");
    soon("what Mallory sent to Ann", || (scene.server.mail_of("ann@example.org").len() == 2).then_some(()));
    assert!(mallorys.all_mail().is_empty());
    scene.ends_well();
}
