//! Submission: what is on disk after it, after a failure, and in which order it came there.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use rustix::io::Errno;

use super::*;
use crate::mail::{BodyType, Notify, Return, Sender};

#[test]
fn what_is_submitted_is_loaded_as_it_was() {
    let queue = TestQueue::new();
    let mut message = draft(&["b@y", "\"q q\"@y", "é@y"]);
    message.recipients[1].notify = Notify::FAILURE;
    message.recipients[1].orcpt = Some("rfc822;c@y".parse().unwrap());
    message.recipients[2].sender = Some(Sender::NULL);
    message.nexthop = Some("lmtp:unix:/run/lmtp".into());
    message.envid = Some("QQ 314159".into());
    message.ret = Some(Return::Headers);
    message.smtputf8 = true;
    let content = "Subject: \u{e9}\n\nbody";
    let id = queue.spool.submit(message.clone(), &mut content.as_bytes(), &SubmitLimits::default()).unwrap();

    let loaded = queue.spool.load(id, Cursor::default(), 100).unwrap();
    let envelope = &loaded.envelope;
    assert_eq!((envelope.id, &envelope.sender), (id, &message.sender));
    assert_eq!((&envelope.nexthop, &envelope.envid), (&message.nexthop, &message.envid));
    assert_eq!((envelope.ret, envelope.smtputf8), (message.ret, true));
    assert_eq!((envelope.origin.as_str(), envelope.body), ("uid=1000", BodyType::EightBitMime));
    assert_eq!(envelope.size, content.len() as u64 + 4);
    for (position, (sent, (found, state))) in message.recipients.iter().zip(&loaded.recipients).enumerate() {
        assert_eq!(*found, Recipient { position: position as u32, ..sent.clone() });
        assert_eq!(*state, State::Pending);
    }
    assert_eq!((loaded.unsettled, loaded.rest, loaded.count, loaded.next), (3, 0, 3, None));
    assert!(!loaded.delay_notice_sent);
    assert_eq!(queue.content(id), "Subject: \u{e9}\r\n\r\nbody\r\n");
    assert_eq!(queue.listing(), [format!("active/{id}")]);
    assert_eq!(mode_of(&queue.at(Place::Active, id.as_str())), 0o600);
}

#[test]
fn the_file_is_text_as_documented() {
    let queue = TestQueue::new();
    let id = queue.submit(&["b@y"], "Subject: x\n\nhi\n");
    let text = fs::read_to_string(queue.at(Place::Active, id.as_str())).unwrap();
    let mut lines = text.split('\n');
    assert_eq!(lines.next(), Some("lastmile/1"));
    let head = lines.next().unwrap();
    assert!(head.starts_with(&format!("{{\"id\":\"{id}\",\"sender\":\"a@x\",\"arrival\":\"2")), "{head}");
    let size = head.split_once(",\"size\":").unwrap().1;
    assert_eq!(size.trim_end_matches('}').trim_end(), "18");
    assert_eq!(
        lines.collect::<Vec<_>>(),
        ["-P", "{\"address\":\"b@y\"}", "", "Subject: x\r", "\r", "hi\r", ""]
    );
}

#[test]
fn an_empty_message_is_a_message() {
    let queue = TestQueue::new();
    let id = queue.submit(&["b@y"], "");
    assert_eq!(queue.content(id), "");
}

/// Looks at the queue while the content is read, then goes on, fails, or ends.
struct Probe<'a> {
    queue: &'a TestQueue,
    seen: Vec<String>,
    head: String,
    ends: Option<io::Error>,
}

impl Read for Probe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let first = self.seen.is_empty();
        self.seen = self.queue.listing();
        let name = self.seen.first().unwrap().clone();
        self.head = fs::read_to_string(self.queue.path.join(name)).unwrap().lines().nth(1).unwrap().into();
        match self.ends.take() {
            Some(error) if !first => Err(error),
            keep => {
                self.ends = keep;
                let content = if first { &b"line\n"[..] } else { b"" };
                buffer[..content.len()].copy_from_slice(content);
                Ok(content.len())
            }
        }
    }
}

#[test]
fn while_it_is_written_a_message_has_no_final_name_and_no_size() {
    let queue = TestQueue::new();
    let mut probe = Probe { queue: &queue, seen: vec![], head: String::new(), ends: None };
    let id = queue.spool.submit(draft(&["b@y"]), &mut probe, &SubmitLimits::default()).unwrap();
    assert_eq!(probe.seen, [format!("tmp/{id}")]);
    assert!(probe.head.trim_end_matches(['}', ' ']).ends_with("\"size\":null"), "{}", probe.head);

    let queue = TestQueue::new();
    let mut probe = Probe { queue: &queue, seen: vec![], head: String::new(), ends: None };
    let name = queue.spool.drop_incoming(draft(&["b@y"]), &mut probe, &SubmitLimits::default()).unwrap();
    assert_eq!(probe.seen, [format!("incoming/.{name}")]);
    assert_eq!(queue.listing(), [format!("incoming/{name}")]);
    assert_eq!(mode_of(&queue.at(Place::Incoming, &name)), 0o640);
    assert_eq!(name.len(), 32);
}

#[test]
fn after_a_failure_nothing_half_queued_stays() {
    let queue = TestQueue::new();
    let none = SubmitLimits::default();
    let small = SubmitLimits { message_size_limit: 10, ..none };
    let full = SubmitLimits { minfree: u64::MAX, ..none };
    let failing = || Probe {
        queue: &queue,
        seen: vec![],
        head: String::new(),
        ends: Some(io::Error::other("the pipe broke")),
    };
    let bad_nexthop = Draft { nexthop: Some("a\nb".into()), ..draft(&["b@y"]) };
    let check = |result: Result<String, SubmitError>, permanent: bool, says: &str| {
        let error = result.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.to_string().starts_with("the message was not queued: "), "{error}");
        assert_eq!(error.is_permanent(), permanent, "{error}");
        assert_eq!(queue.listing(), Vec::<String>::new(), "{error}");
    };
    type Submit = fn(&Spool, Draft, &mut dyn Read, &SubmitLimits) -> Result<String, SubmitError>;
    let doors: [Submit; 2] =
        [|s, d, c, l| s.submit(d, c, l).map(|id| id.to_string()), |s, d, c, l| s.drop_incoming(d, c, l)];
    for door in doors {
        let door = |d, c: &mut dyn Read, l: &SubmitLimits| door(&queue.spool, d, c, l);
        check(door(draft(&["b@y"]), &mut &b"12345678\nx"[..], &small), true, "larger than the 10 octets");
        check(door(draft(&["b@y"]), &mut &b"x"[..], &full), false, "octets free, less than");
        check(door(draft(&[]), &mut &b"x"[..], &none), true, "it has 0 recipients");
        check(door(draft(&["b@y"]), &mut failing(), &none), false, "the pipe broke");
        check(door(bad_nexthop.clone(), &mut &b"x"[..], &none), true, "nexthop");
    }
    let exact = queue.spool.submit(draft(&["b@y"]), &mut &b"12345678"[..], &small);
    exact.expect("a message of exactly the limit fits");
}

#[test]
fn what_cannot_be_synced_is_taken_back_or_in_doubt() {
    let queue = TestQueue::new();
    let (draft_name, name) = ((Place::Incoming, ".d".as_ref()), (Place::Incoming, "d".as_ref()));
    let take_back = || queue.spool.take_back(io::Error::from(Errno::IO), draft_name, name);

    queue.drop_file("d", "x");
    let error = take_back();
    assert!(!error.is_in_doubt() && error.to_string().starts_with("the message was not queued: "), "{error}");
    assert_eq!(queue.listing(), ["incoming/.d"]);

    queue.drop_file("d", "x");
    assert!(!take_back().is_in_doubt(), "its old name is taken");
    assert_eq!(queue.listing(), ["incoming/.d"]);

    // An agent was faster.
    let error = take_back();
    assert!(error.is_in_doubt() && !error.is_permanent());
    assert!(error.to_string().starts_with("the message may be queued: "), "{error}");
    assert!(error.to_string().contains("/incoming/d "), "{error}");
}

#[test]
fn what_is_published_and_fails_its_sync_says_what_became_of_it() {
    let queue = TestQueue::new();
    let (from, to) = ((Place::Tmp, "a".as_ref()), (Place::Active, "a".as_ref()));
    fs::write(queue.at(Place::Tmp, "a"), "x").unwrap();
    // A pipe cannot be synced.
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    let error = queue.spool.publish(&pipe.into(), from, to).unwrap_err();
    assert!(!error.is_in_doubt(), "{error}");
    assert_eq!(queue.listing(), ["tmp/a"]);
}

#[test]
fn a_file_size_limit_is_a_sentence_and_not_the_end_of_the_process() {
    const CHILD: &str = "LASTMILE_TEST_FILE_SIZE_LIMIT";
    if std::env::var_os(CHILD).is_none() {
        let status = Command::new("sh")
            .args(["-c", "ulimit -f 64 && exec \"$0\" --exact \"$1\" --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .arg("spool::tests::submission::a_file_size_limit_is_a_sentence_and_not_the_end_of_the_process")
            .env(CHILD, "yes")
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&status.stdout);
        assert!(status.status.success() && output.contains("1 passed"), "{output}");
        return;
    }
    survive_file_size_limit().unwrap();
    let queue = TestQueue::new();
    let mut content = io::repeat(b'x').take(1 << 20);
    let error = queue.spool.submit(draft(&["b@y"]), &mut content, &SubmitLimits::default()).unwrap_err();
    assert!(error.to_string().contains("File too large"), "{error}");
    assert!(!error.is_permanent());
    assert_eq!(queue.listing(), Vec::<String>::new());
}

#[test]
fn anybody_may_drop_and_nobody_may_look() {
    let (agent, group) = (4711, 4712);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let queue = TestQueue::owned_by(Some((Uid::from_raw(agent), Gid::from_raw(group))));
    let drop_one = || {
        let spool = Spool::open(&queue.path).unwrap();
        assert!(spool.names(Place::Incoming).is_err(), "nobody may list");
        assert!(spool.submit(draft(&["b@y"]), &mut &b"x"[..], &SubmitLimits::default()).is_err());
        // A umask like this must not keep the agent out.
        let umask = rustix::process::umask(rustix::fs::Mode::from(0o077));
        let name = spool.drop_incoming(draft(&["b@y"]), &mut &b"hi\n"[..], &SubmitLimits::default());
        rustix::process::umask(umask);
        name.unwrap()
    };
    let name = as_user(1000, 1000, drop_one).unwrap();
    let metadata = fs::metadata(queue.at(Place::Incoming, &name)).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1000, group), "the group is inherited");

    let another = || {
        let spool = Spool::open(&queue.path).unwrap();
        (
            fs::read(queue.at(Place::Incoming, &name)).is_err(),
            spool.unlink(Place::Incoming, name.as_ref()).is_err(),
        )
    };
    assert_eq!(as_user(1001, 1001, another), Some((true, true)), "the sticky bit keeps others off");

    // The agent, which is not root any more, can claim, read and remove it.
    let taken =
        as_user(agent, group, || queue.pickup().take_queue_file(name.as_ref(), &nobody_trusted)).unwrap();
    let PickedUp::Queued(taken) = taken else { panic!("{taken:?}") };
    assert_eq!((taken.uid, taken.recipients, taken.size), (1000, 1, 4));
    assert_eq!(queue.listing(), [format!("active/{}", taken.id)]);
}
