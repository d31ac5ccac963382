//! What an administrator can do about files that are no messages (yet).

use std::fs;
use std::os::unix::process::CommandExt;

use super::{assert_still_delivers, is_root, job, message, prepared};
use crate::common::agent::{SOON, Site, run};

fn queue(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = site.run(&[&["queue"], arguments].concat(), b"");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn a_bare_file_is_shown_and_deleted_by_its_name() {
    let (site, server) = prepared("");
    for runs in [false, true] {
        let agent = runs.then(|| site.start_agent());
        site.drop_message("one.eml", message("one").as_bytes());
        site.drop_message("two.eml", message("two").as_bytes());
        let (code, text) = queue(&site, &["show", "incoming/one.eml", "--content"]);
        assert_eq!(code, Some(0), "{text}");
        for part in ["one.eml", "incoming", "a bare message: it waits for its job line", "Subject: one\n"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        for (arguments, expected, says) in [
            (&["delete", "incoming/one.eml"][..], 0, "incoming/one.eml: removed by the administrator\n"),
            (&["delete", "incoming/one.eml"], 1, "incoming/one.eml: there is no such file (any more)\n"),
            (&["show", "incoming/one.eml"], 1, "there is no file incoming/one.eml in the queue"),
            (&["hold", "incoming/two.eml"], 64, "can be shown and deleted only"),
            (&["delete", "ALL", "incoming/two.eml"], 64, "but not both"),
            (&["delete", "incoming/../active"], 64, "no name of a finished file in incoming/"),
            (&["delete", "incoming/.two"], 64, "no name of a finished file in incoming/"),
            // Its job line may be on the way.
            (&["delete", "ALL"], 0, "nothing to delete\n"),
        ] {
            let (code, text) = queue(&site, arguments);
            assert_eq!(code, Some(expected), "{arguments:?}: {text}");
            assert!(text.contains(says), "{arguments:?}: {text}");
            assert_eq!(site.files(), ["incoming/two.eml"], "{arguments:?}");
        }
        let (code, text) = queue(&site, &["delete", "--json", "incoming/two.eml"]);
        let done: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (code, &done["name"], &done["outcome"]),
            (Some(0), &"incoming/two.eml".into(), &"done".into())
        );
        assert_eq!(site.files(), Vec::<String>::new());
        if let Some(agent) = agent {
            site.wait_for_line(&["pickup", "incoming/one.eml: removed by the administrator"], SOON);
            // A line that comes too late finds nothing.
            site.write_job(&job("two.eml", "b@example.org"));
            site.wait_for_line(&["job line for incoming/two.eml: there is no such file (any more)"], SOON);
            assert_still_delivers(&site, &server);
            agent.stop();
        }
    }
}

/// A directory of somebody whom the agent is not lies where it is: nothing of it can be renamed.
#[test]
fn a_directory_in_incoming_is_deleted_by_its_name_if_it_is_empty() {
    let (site, _server) = prepared("");
    let path = site.queue().join("incoming/directory");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("kept"), "kept").unwrap();
    let (code, text) = queue(&site, &["delete", "incoming/directory"]);
    assert!(code == Some(74) && text.contains("a directory with something in it"), "{text}");
    assert_eq!(fs::read_to_string(path.join("kept")).unwrap(), "kept");
    fs::remove_file(path.join("kept")).unwrap();
    assert_eq!(queue(&site, &["delete", "incoming/directory"]).0, Some(0));
    assert!(!path.exists());
}

#[test]
fn others_may_show_their_own_dropped_files_and_delete_none() {
    const SOMEBODY: u32 = 65534;
    if !is_root() {
        return;
    }
    let (site, _server) = prepared("");
    let agent = site.start_agent();
    for (name, uid) in [("theirs", SOMEBODY), ("roots", 0)] {
        let path = site.queue().join(site.drop_message(name, message(name).as_bytes()));
        std::os::unix::fs::chown(path, Some(uid), None).unwrap();
    }
    for (arguments, code) in [
        (["show", "incoming/theirs"], 0),
        (["show", "incoming/roots"], 1),
        (["show", "incoming/none"], 1),
        (["delete", "incoming/theirs"], 77),
        (["delete", "incoming/roots"], 77),
    ] {
        let mut command = site.command(&[&["queue"], &arguments[..]].concat());
        let output = run(command.uid(SOMEBODY).gid(SOMEBODY), b"");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    }
    assert_eq!(site.files(), ["incoming/roots", "incoming/theirs"]);
    agent.stop();
}
