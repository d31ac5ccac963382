//! Queue files: marks, windows, damage.

use std::io::Read;
use std::os::unix::fs::{FileExt, symlink};

use proptest::prelude::*;

use super::*;

fn addresses(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("r{at}@y")).collect()
}

fn submit_to(queue: &TestQueue, count: usize) -> QueueId {
    let addresses = addresses(count);
    queue.submit(&addresses.iter().map(String::as_str).collect::<Vec<_>>(), "Subject: x\n\nhi\n")
}

fn states_line(queue: &TestQueue, id: QueueId) -> String {
    let text = fs::read_to_string(queue.at(Place::Active, id.as_str())).unwrap();
    text.lines().nth(2).unwrap().to_owned()
}

#[test]
fn marks_change_their_recipients_and_nothing_else() {
    let queue = TestQueue::new();
    let id = submit_to(&queue, 10);
    let before = fs::read(queue.at(Place::Active, id.as_str())).unwrap();
    let file = queue.spool.open_active(id).unwrap().unwrap();
    for (positions, state, line) in [
        (&[0, 1, 2, 5, 9][..], State::InDoubt, "-IIIPPIPPPI"),
        (&[1], State::Sent, "-ISIPPIPPPI"),
        (&[2, 5], State::Refused, "-ISRPPRPPPI"),
        (&[0, 9], State::Pending, "-PSRPPRPPPP"),
        (&[2, 5], State::Bounced, "-PSBPPBPPPP"),
        (&[], State::Sent, "-PSBPPBPPPP"),
    ] {
        file.mark(positions, state).unwrap();
        assert_eq!(states_line(&queue, id), line);
    }
    assert!(file.mark(&[10], State::Sent).is_err(), "there is no such recipient");
    file.mark_delay_notice_sent().unwrap();
    assert_eq!(states_line(&queue, id), "WPSBPPBPPPP");
    let after = fs::read(queue.at(Place::Active, id.as_str())).unwrap();
    let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert_eq!((before.len(), changed), (after.len(), 4), "W, S and two B");
    use State::{Bounced as B, Pending as P, Sent as S};
    assert_eq!(file.states().unwrap(), [P, S, B, P, P, B, P, P, P, P]);
}

#[test]
fn large_messages_are_loaded_in_windows_of_what_is_unsettled() {
    let queue = TestQueue::new();
    let id = submit_to(&queue, 25);
    let file = queue.spool.open_active(id).unwrap().unwrap();
    file.mark(&[0, 1, 4, 11, 24], State::Sent).unwrap();
    file.mark(&[2], State::InDoubt).unwrap();
    file.mark(&[3], State::Refused).unwrap();
    let mut cursor = Some(Cursor::default());
    let (mut windows, mut found) = (Vec::new(), Vec::new());
    while let Some(from) = cursor {
        let loaded = queue.spool.load(id, from, 6).unwrap();
        windows.push((loaded.recipients.len(), loaded.rest, loaded.unsettled));
        for (recipient, state) in &loaded.recipients {
            assert_eq!(recipient.address.to_string(), format!("r{}@y", recipient.position));
            found.push((recipient.position, *state));
        }
        cursor = loaded.next;
    }
    assert_eq!(windows, [(6, 14, 20), (6, 8, 20), (6, 2, 20), (2, 0, 20)]);
    let mut expected: Vec<(u32, State)> =
        (2..24).filter(|at| ![4, 11].contains(at)).map(|at| (at, State::Pending)).collect();
    expected[0].1 = State::InDoubt;
    expected[1].1 = State::Refused;
    assert_eq!(found, expected);

    let all: Vec<_> = file.recipients().unwrap().map(|item| item.unwrap().1).collect();
    assert_eq!(all, file.states().unwrap());
}

#[test]
fn a_leftover_shows_as_settled() {
    let queue = TestQueue::new();
    let id = submit_to(&queue, 3);
    let file = queue.spool.open_active(id).unwrap().unwrap();
    file.mark(&[0, 1], State::Sent).unwrap();
    file.mark(&[2], State::Bounced).unwrap();
    let loaded = queue.spool.load(id, Cursor::default(), 10).unwrap();
    assert_eq!((loaded.unsettled, loaded.recipients.len(), loaded.next), (0, 0, None));
}

#[test]
fn content_is_read_from_anywhere_and_never_short() {
    let queue = TestQueue::new();
    let id = submit_to(&queue, 2);
    let file = queue.spool.open_active(id).unwrap().unwrap();
    let mut buffer = [0; 100];
    assert_eq!(file.read_content_at(&mut buffer, 9).unwrap(), 9);
    assert_eq!(buffer[..9], *b"x\r\n\r\nhi\r\n");
    assert_eq!(file.read_content_at(&mut buffer, 18).unwrap(), 0);
    assert_eq!(file.read_content_at(&mut buffer, u64::MAX).unwrap(), 0);
    let (at, size) = file.content_range();
    let raw = fs::read(queue.at(Place::Active, id.as_str())).unwrap();
    assert_eq!(raw[at as usize..].len() as u64, size);
    fs::File::options()
        .write(true)
        .open(queue.at(Place::Active, id.as_str()))
        .unwrap()
        .set_len(at + 3)
        .unwrap();
    assert!(file.content().read_to_end(&mut Vec::new()).is_err(), "a file cut under our hands is an error");
}

#[test]
fn a_file_that_is_gone_ends_the_batch_quietly() {
    let queue = TestQueue::new();
    let id = submit_to(&queue, 1);
    let file = queue.spool.open_active(id).unwrap().unwrap();
    queue.spool.move_to(id, Place::Active, Place::Hold).unwrap();
    file.mark(&[0], State::Sent).unwrap();
    assert!(queue.spool.open_active(id).unwrap().is_none());
    assert!(matches!(queue.spool.load(id, Cursor::default(), 1), Err(LoadError::Gone)));
    let held = queue.spool.open_message(id, Place::Hold).unwrap();
    assert_eq!(held.states().unwrap(), [State::Sent], "a mark follows the file");
}

#[test]
fn each_kind_of_damage_goes_where_it_belongs() {
    type Damage = fn(&mut Vec<u8>);
    let replace = |text: &mut Vec<u8>, from: &str, to: &str| {
        let changed = String::from_utf8(text.clone()).unwrap().replacen(from, to, 1);
        assert_ne!(changed.as_bytes(), *text, "{from}");
        *text = changed.into_bytes();
    };
    let edits = [
        ("lastmile/1\n", "lastmile/2\n", Place::Hold, "lastmile/2"),
        ("lastmile/1\n", "Received: x\n", Place::Corrupt, "does not begin"),
        ("\"recipients\":3", "\"recipients\":4", Place::Corrupt, "its states line"),
        ("\"recipients\":3", "\"recipients\":0", Place::Corrupt, "0 recipients"),
        ("\"recipients\":3", "\"recipients\":99999999", Place::Corrupt, "recipients"),
        ("-PPP", "-PXP", Place::Corrupt, "recipient 1 is unknown"),
        ("-PPP", "PPPP", Place::Corrupt, "begins with neither"),
        ("{\"address\":\"r1@y\"}", "{\"address\":\"r1 y\"}", Place::Corrupt, "recipient 1 does not parse"),
        ("{\"address\":\"r1@y\"}\n", "\n", Place::Corrupt, "recipient 1 does not parse"),
        ("{\"address\":\"r1@y\"}\n", "", Place::Corrupt, "recipient 2"),
        ("\"arrival\":\"2", "\"arrival\":\"x", Place::Corrupt, "arrival"),
        ("\"sender\":\"a@x\"", "\"sender\":\"a x\"", Place::Corrupt, "its head does not parse"),
        ("hi\r\n", "hi", Place::Corrupt, "never acknowledged"),
        ("hi\r\n", "hi\r\nmore\r\n", Place::Corrupt, "never acknowledged"),
        ("\"size\":18", "\"size\":null", Place::Corrupt, "size is missing"),
        ("\"size\":18", "\"size\":17", Place::Corrupt, "never acknowledged"),
        ("\"size\":18", "\"size\":9999999", Place::Corrupt, "never acknowledged"),
    ];
    let check = |damage: &dyn Fn(&mut Vec<u8>), place: Place, says: &str| {
        let queue = TestQueue::new();
        let id = submit_to(&queue, 3);
        let path = queue.at(Place::Active, id.as_str());
        let mut text = fs::read(&path).unwrap();
        damage(&mut text);
        fs::write(&path, text).unwrap();
        let error = queue.spool.load(id, Cursor::default(), 10).unwrap_err();
        assert_eq!(error.place(), Some(place), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    for (from, to, place, says) in edits {
        check(&|text| replace(text, from, to), place, says);
    }
    let others: [(Damage, &str); 4] = [
        (Vec::clear, "does not begin"),
        (|text| text.iter_mut().for_each(|octet| *octet = 0), "does not begin"),
        (|text| text.truncate(30), "its head ends nowhere"),
        (|text| *text = [b"lastmile/1\n", &vec![b'{'; 2 << 20][..]].concat(), "ends nowhere in 1048576"),
    ];
    for (damage, says) in others {
        check(&damage, Place::Corrupt, says);
    }
}

#[test]
fn no_beginning_of_a_file_passes_for_a_message() {
    let queue = TestQueue::new();
    let id = submit_to(&queue, 3);
    let path = queue.at(Place::Active, id.as_str());
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).rev() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = queue.spool.load(id, Cursor::default(), 10).unwrap_err();
        assert!(matches!(error, LoadError::Corrupt(_)), "{length}: {error}");
    }
    fs::write(&path, whole).unwrap();
    assert_eq!(queue.spool.load(id, Cursor::default(), 10).unwrap().unsettled, 3);
}

#[test]
fn what_is_no_file_of_ours_is_not_believed() {
    let queue = TestQueue::new();
    let (one, two) = (submit_to(&queue, 1), submit_to(&queue, 1));
    fs::remove_file(queue.at(Place::Active, one.as_str())).unwrap();
    symlink(queue.at(Place::Active, two.as_str()), queue.at(Place::Active, one.as_str())).unwrap();
    let error = queue.spool.load(one, Cursor::default(), 1).unwrap_err();
    assert_eq!(error.place(), Some(Place::Corrupt), "{error}");

    fs::remove_file(queue.at(Place::Active, one.as_str())).unwrap();
    fs::copy(queue.at(Place::Active, two.as_str()), queue.at(Place::Active, one.as_str())).unwrap();
    let error = queue.spool.load(one, Cursor::default(), 1).unwrap_err().to_string();
    assert!(error.contains(&format!("says that it is {two}")), "{error}");

    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(queue.at(Place::Active, two.as_str()), Some(1000), None).unwrap();
        let error = queue.spool.load(two, Cursor::default(), 1).unwrap_err();
        assert!(matches!(error, LoadError::Foreign(1000)), "{error}");
    }
}

#[test]
fn members_that_we_do_not_know_are_kept_and_ignored() {
    let queue = TestQueue::new();
    let id = submit_to(&queue, 2);
    let path = queue.at(Place::Active, id.as_str());
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace("\"smtputf8\"", "\"later\":{\"deep\":[1,{}]},\"smtputf8\"");
    let text = text.replace("\"address\":\"r0@y\"", "\"new\":null,\"address\":\"r0@y\"");
    fs::write(&path, &text).unwrap();
    let file = queue.spool.open_active(id).unwrap().unwrap();
    assert_eq!(file.load(Cursor::default(), 9).unwrap().unsettled, 2);
    file.mark(&[0, 1], State::Sent).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text.replace("-PP", "-SS"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_flipped_byte_and_no_cut_panics_or_reads_too_much(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let queue = TestQueue::new();
        let id = submit_to(&queue, 5);
        let path = queue.at(Place::Active, id.as_str());
        let whole = fs::read(&path).unwrap();
        let mut text = whole.clone();
        for (at, octet) in &flips {
            let at = at.index(text.len());
            text[at] = *octet;
        }
        text.truncate(if cuts { cut.index(text.len()) } else { text.len() });
        fs::File::options().write(true).open(&path).unwrap().write_all_at(&text, 0).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(text.len() as u64).unwrap();
        match queue.spool.load(id, Cursor::default(), 100) {
            Ok(loaded) => {
                prop_assert_eq!(text.len(), whole.len(), "a cut file is never loaded");
                prop_assert!(loaded.recipients.len() <= 5);
                let file = queue.spool.open_active(id).unwrap().unwrap();
                prop_assert_eq!(file.recipients().unwrap().filter_map(Result::ok).count(), 5);
            }
            Err(error) => prop_assert!(error.place().is_some(), "{}", error),
        }
    }
}

#[test]
fn a_file_that_somebody_has_replaced_is_not_the_one_in_memory() {
    let queue = TestQueue::new();
    let id = submit_to(&queue, 3);
    let path = queue.at(Place::Active, id.as_str());
    let loaded = queue.spool.load(id, Cursor::default(), 10).unwrap();
    let again = || queue.spool.open_again(&loaded.envelope, &loaded.layout);
    let file = again().unwrap().unwrap();
    assert_eq!(file.states().unwrap(), [State::Pending; 3]);
    assert!(queue.spool.is_active(&file).unwrap());
    // As an editor does it; here even with the same octets.
    let copy = queue.at(Place::Tmp, "copy");
    fs::copy(&path, &copy).unwrap();
    fs::rename(copy, &path).unwrap();
    assert!(again().unwrap().is_none());
    assert!(!queue.spool.is_active(&file).unwrap());
    assert_ne!(queue.spool.load(id, Cursor::default(), 10).unwrap().layout, loaded.layout);
}
