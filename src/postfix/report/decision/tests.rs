//! The table of outcomes, row by row, each with everything that can fail in it.

use super::*;
use crate::postfix::attribute::List;

const NORMAL: u32 = 3;
const PROBE: u32 = NORMAL | 256;
const USER_PROBE: u32 = NORMAL | 512;
const VERBOSE: u32 = NORMAL | 1024;
const LATE: u32 = NORMAL | 8192;

const RELAY: &str = "mx.example[192.0.2.1]:24";

fn policy() -> Policy {
    Policy {
        names: ServiceNames::default(),
        soft_bounce: false,
        negative_cache: true,
        protocol: Protocol::Lmtp,
        final_delivery: false,
    }
}

fn recipient() -> Recipient {
    Recipient {
        original: b"o@x".to_vec(),
        address: b"r@y".to_vec(),
        offset: Some(242),
        ..Recipient::default()
    }
}

fn said(status: &str, text: &str) -> Reason {
    Reason { status: status.parse().unwrap(), text: text.into(), reply: Some(text.into()) }
}

fn sent() -> Outcome {
    Outcome::Delivered(said("2.1.5", "250 2.1.5 ok"))
}

fn bounced() -> Outcome {
    Outcome::Bounced(said("5.1.1", "550 5.1.1 no"))
}

fn deferred() -> Outcome {
    Outcome::Deferred(said("4.2.1", "450 4.2.1 busy"))
}

/// A situation: an attempt, and who fails.
struct Situation<'a> {
    policy: Policy,
    recipient: Recipient,
    flags: u32,
    outcome: Outcome,
    relay: &'a str,
    reports_success: bool,
    filter: Option<Filter<'a>>,
    /// Which calls fail, counted from 0.
    failing: &'a [usize],
}

impl<'a> Situation<'a> {
    fn new(outcome: Outcome, flags: u32) -> Self {
        Self {
            policy: policy(),
            recipient: recipient(),
            flags,
            outcome,
            relay: RELAY,
            reports_success: false,
            filter: None,
            failing: &[],
        }
    }

    fn failing(self, failing: &'a [usize]) -> Self {
        Self { failing, ..self }
    }

    fn notify(mut self, notify: u32) -> Self {
        self.recipient.notify = notify;
        self
    }

    /// Everything that is done, in order, and the verdict.
    fn story(&self) -> Vec<String> {
        let attempted = Attempted {
            queue_id: "QID",
            flags: RequestFlags(self.flags),
            recipient: &self.recipient,
            outcome: &self.outcome,
            relay: self.relay,
            host: "mx.example",
            reports_success: self.reports_success,
        };
        let (plan, problem) = decide(&self.policy, &attempted, self.filter);
        let mut story: Vec<_> = problem.into_iter().map(|problem| format!("problem: {problem}")).collect();
        let mut calls = 0;
        let verdict = plan.carry_out(&mut |act| {
            let mut works = true;
            story.push(match act {
                Act::Tell(call) => {
                    works = !self.failing.contains(&calls);
                    calls += 1;
                    told(call)
                }
                Act::WaitsFor(domain) => {
                    works = !self.failing.contains(&calls);
                    calls += 1;
                    format!("waits for {}", String::from_utf8_lossy(domain))
                }
                Act::Log(line) => format!("{} {} ({})", line.word, line.status, line.text),
                Act::Warn(service) => format!("warning about {service:?}"),
            });
            works
        });
        story.push(match (verdict.mark, verdict.is_done) {
            (Some(offset), true) => format!("done, marked at {offset}"),
            (None, true) => "done".to_owned(),
            (None, false) => "stays".to_owned(),
            (Some(_), false) => panic!("marked, but not done: {verdict:?}"),
        });
        let line = story.iter().any(|told| told.ends_with(')') && !told.starts_with("warning"));
        assert_eq!(verdict.line.is_some(), line, "{story:?}");
        story
    }
}

/// A call in short.
fn told(call: &Call) -> String {
    let (list, length) = List::parse(&call.octets).unwrap().unwrap();
    assert_eq!(length, call.octets.len());
    let text = |name| list.text(name).unwrap();
    match call.service {
        Service::Verify => {
            format!("verify {} {}: {}", text("address"), text("recipient_status"), text("reason"))
        }
        Service::Flush | Service::Cleanup => panic!("no plan calls {:?}", call.service),
        service => {
            let name = format!("{service:?}").to_lowercase();
            let extra = match (text("flags"), text("notify_flags")) {
                (flags, notify) if flags == "0" && notify == "0" => String::new(),
                (flags, notify) => format!(" [{flags} {notify}]"),
            };
            format!("{name}{extra} {} {}: {}", text("status"), text("action"), text("reason"))
        }
    }
}

#[track_caller]
fn check(situation: &Situation<'_>, expected: &[&str]) {
    assert_eq!(situation.story(), expected);
}

#[test]
fn sent_mail_is_logged_and_marked_and_nobody_is_told() {
    check(&Situation::new(sent(), NORMAL), &["sent 2.1.5 (250 2.1.5 ok)", "done, marked at 242"]);
    check(&Situation::new(sent(), 0), &["sent 2.1.5 (250 2.1.5 ok)", "done"]);
}

#[test]
fn recipients_without_a_record_are_not_marked() {
    for offset in [None, Some(0)] {
        for (outcome, flags) in [(sent(), NORMAL), (bounced(), NORMAL), (deferred(), PROBE)] {
            let mut situation = Situation::new(outcome, flags);
            situation.recipient.offset = offset;
            assert_eq!(situation.story().last().unwrap(), "done");
        }
    }
}

#[test]
fn a_success_is_reported_where_the_sender_asked_for_it() {
    let wanted = || Situation::new(sent(), NORMAL).notify(NOTIFY_SUCCESS);
    let trace = "trace [0 2] 2.1.5 relayed: delivery via mx.example[192.0.2.1]:24: 250 2.1.5 ok";
    check(&wanted(), &[trace, "sent 2.1.5 (250 2.1.5 ok)", "done, marked at 242"]);
    check(
        &wanted().failing(&[0]),
        &[
            trace,
            "warning about Trace",
            "defer [0 2] 4.3.0 delayed: QID: trace service failed",
            "deferred 4.3.0 (QID: trace service failed)",
            "waits for y",
            "stays",
        ],
    );
    // A server that knows DSN does it.
    let mut situation = wanted();
    situation.reports_success = true;
    check(&situation, &["sent 2.1.5 (250 2.1.5 ok)", "done, marked at 242"]);
}

#[test]
fn a_server_that_reports_successes_takes_over_nothing_else() {
    for (outcome, append) in [
        (bounced(), "bounce [0 2] 5.1.1 failed: 550 5.1.1 no"),
        (deferred(), "defer [0 2] 4.2.1 delayed: 450 4.2.1 busy"),
    ] {
        let mut situation = Situation::new(outcome, NORMAL).notify(NOTIFY_SUCCESS);
        situation.reports_success = true;
        assert_eq!(situation.story()[0], append);
    }
}

#[test]
fn mail_is_delivered_where_the_mailboxes_are_and_relayed_elsewhere() {
    for (protocol, final_delivery, reports_success, action) in [
        (Protocol::Lmtp, true, false, "delivered"),
        (Protocol::Lmtp, true, true, "relayed"),
        (Protocol::Lmtp, false, false, "relayed"),
        (Protocol::Smtp, true, false, "relayed"),
    ] {
        let mut situation = Situation::new(sent(), VERBOSE);
        situation.policy = Policy { protocol, final_delivery, ..policy() };
        situation.reports_success = reports_success;
        let trace =
            format!("trace [1024 0] 2.1.5 {action}: delivery via mx.example[192.0.2.1]:24: 250 2.1.5 ok");
        assert_eq!(situation.story()[0], trace);
    }
}

#[test]
fn results_are_recorded_for_a_sender_who_wants_all_or_was_told_of_a_delay() {
    for (flags, notify, reports_success, traces) in [
        (NORMAL, 0, false, 0),
        (VERBOSE, 0, false, 1),
        (VERBOSE, NOTIFY_SUCCESS, false, 2),
        (VERBOSE, NOTIFY_SUCCESS, true, 1),
        (LATE, 0, false, 1),
        (LATE, NOTIFY_DELAY, false, 1),
        (LATE, 4, false, 0),
        (LATE, NOTIFY_SUCCESS | NOTIFY_DELAY, false, 2),
        // What the server does is no longer wanted of us, and what is left is no wish at all.
        (LATE, NOTIFY_SUCCESS, true, 1),
        (LATE, NOTIFY_SUCCESS, false, 1),
    ] {
        let mut situation = Situation::new(sent(), flags).notify(notify);
        situation.reports_success = reports_success;
        let story = situation.story();
        assert_eq!(story.len(), traces + 2, "{flags} {notify} {reports_success}: {story:?}");
        assert!(story[..traces].iter().all(|told| told.starts_with("trace ")), "{story:?}");
        for failing in 0..traces {
            situation.failing = match failing {
                0 => &[0],
                _ => &[1],
            };
            let story = situation.story();
            assert!(story.contains(&"deferred 4.3.0 (QID: trace service failed)".to_owned()), "{story:?}");
            assert_eq!(story.last().unwrap(), "stays");
        }
    }
}

#[test]
fn a_refusal_is_told_to_bounce_before_anything_else() {
    let refused = || Situation::new(bounced(), NORMAL);
    let append = "bounce 5.1.1 failed: 550 5.1.1 no";
    check(&refused(), &[append, "bounced 5.1.1 (550 5.1.1 no)", "done, marked at 242"]);
    // Also where successes are not to be marked.
    check(&Situation::new(bounced(), 0), &[append, "bounced 5.1.1 (550 5.1.1 no)", "done, marked at 242"]);
    check(
        &refused().failing(&[0]),
        &[
            append,
            "defer 4.3.0 delayed: bounce or trace service failure",
            "deferred 4.3.0 (bounce or trace service failure)",
            "waits for y",
            "stays",
        ],
    );
    check(
        &refused().failing(&[0, 1]),
        &[
            append,
            "defer 4.3.0 delayed: bounce or trace service failure",
            "warning about Defer",
            "deferred 4.3.0 (bounce or trace service failure)",
            "waits for y",
            "stays",
        ],
    );
}

#[test]
fn a_refusal_is_recorded_for_a_sender_who_wants_all() {
    let refused = || Situation::new(bounced(), VERBOSE).notify(NOTIFY_SUCCESS);
    let append = "bounce [1024 2] 5.1.1 failed: 550 5.1.1 no";
    let trace = "trace [1024 2] 5.1.1 failed: delivery via mx.example[192.0.2.1]:24: 550 5.1.1 no";
    check(&refused(), &[append, trace, "bounced 5.1.1 (550 5.1.1 no)", "done, marked at 242"]);
    let instead = [
        "defer [1024 2] 4.3.0 delayed: bounce or trace service failure",
        "deferred 4.3.0 (bounce or trace service failure)",
        "trace [1024 2] 4.3.0 delayed: delivery via mx.example[192.0.2.1]:24: bounce or trace service failure",
        "waits for y",
        "stays",
    ];
    check(&refused().failing(&[0]), &[&[append], &instead[..]].concat());
    check(&refused().failing(&[1]), &[&[append, trace, "warning about Trace"], &instead[..]].concat());
}

#[test]
fn soft_bounces_put_refusals_off() {
    let soft = |flags| {
        let mut situation = Situation::new(bounced(), flags);
        situation.policy.soft_bounce = true;
        situation
    };
    let append = "defer 4.1.1 delayed: 550 5.1.1 no";
    check(&soft(NORMAL), &[append, "SOFTBOUNCE 4.1.1 (550 5.1.1 no)", "stays"]);
    check(
        &soft(NORMAL).failing(&[0]),
        &[
            append,
            "defer 4.3.0 delayed: bounce or trace service failure",
            "deferred 4.3.0 (bounce or trace service failure)",
            "waits for y",
            "stays",
        ],
    );
    check(
        &soft(VERBOSE),
        &[
            "defer [1024 0] 4.1.1 delayed: 550 5.1.1 no",
            "trace [1024 0] 4.1.1 delayed: delivery via mx.example[192.0.2.1]:24: 550 5.1.1 no",
            "SOFTBOUNCE 4.1.1 (550 5.1.1 no)",
            "stays",
        ],
    );
    // Probes are about the address, not about mail.
    check(
        &soft(PROBE),
        &[
            "verify o@x 2: 550 5.1.1 no",
            "verify r@y 2: 550 5.1.1 no",
            "undeliverable 5.1.1 (550 5.1.1 no)",
            "done, marked at 242",
        ],
    );
}

#[test]
fn a_deferral_stays_whoever_hears_of_it() {
    let late = |flags| Situation::new(deferred(), flags);
    let (append, line) = ("defer 4.2.1 delayed: 450 4.2.1 busy", "deferred 4.2.1 (450 4.2.1 busy)");
    check(&late(NORMAL), &[append, line, "waits for y", "stays"]);
    check(&late(NORMAL).failing(&[0]), &[append, "warning about Defer", line, "waits for y", "stays"]);
    check(&late(NORMAL).failing(&[1]), &[append, line, "waits for y", "warning about Flush", "stays"]);
    let append = "defer [1024 0] 4.2.1 delayed: 450 4.2.1 busy";
    let trace = "trace [1024 0] 4.2.1 delayed: delivery via mx.example[192.0.2.1]:24: 450 4.2.1 busy";
    check(&late(VERBOSE), &[append, line, trace, "waits for y", "stays"]);
    check(
        &late(VERBOSE).failing(&[0, 1, 2]),
        &[
            append,
            "warning about Defer",
            line,
            trace,
            "warning about Trace",
            "waits for y",
            "warning about Flush",
            "stays",
        ],
    );
}

#[test]
fn addresses_without_a_domain_wait_for_none() {
    for address in [&b"r"[..], b"r@"] {
        let mut situation = Situation::new(deferred(), NORMAL);
        situation.recipient.address = address.to_vec();
        assert_eq!(situation.story().len(), 3, "{:?}", situation.story());
    }
    let mut situation = Situation::new(deferred(), NORMAL);
    situation.recipient.address = b"a@b@c.example".to_vec();
    assert_eq!(situation.story()[2], "waits for c.example");
}

#[test]
fn probes_of_postfix_are_told_to_verify() {
    let (good, busy, bad) = ("250 2.1.5 ok", "450 4.2.1 busy", "550 5.1.1 no");
    for (outcome, number, text, line) in [
        (sent(), 0, good, format!("deliverable 2.1.5 ({good})")),
        (deferred(), 1, busy, format!("undeliverable 4.2.1 ({busy})")),
        (bounced(), 2, bad, format!("undeliverable 5.1.1 ({bad})")),
    ] {
        let probe = Situation::new(outcome, PROBE).notify(NOTIFY_SUCCESS);
        let (first, second) =
            (format!("verify o@x {number}: {text}"), format!("verify r@y {number}: {text}"));
        check(&probe, &[&first, &second, &line, "done, marked at 242"]);
        let warning = "warning about Verify";
        let probe = probe.failing(&[0]);
        check(&probe, &[&first, warning, "stays"]);
        check(&probe.failing(&[1]), &[&first, &second, warning, "stays"]);
    }
}

#[test]
fn verify_hears_of_an_address_once() {
    for original in ["", "r@y"] {
        let mut probe = Situation::new(sent(), PROBE);
        probe.recipient.original = original.into();
        check(
            &probe,
            &["verify r@y 0: 250 2.1.5 ok", "deliverable 2.1.5 (250 2.1.5 ok)", "done, marked at 242"],
        );
    }
}

#[test]
fn bad_addresses_are_not_cached_where_the_administrator_says_so() {
    for (outcome, line) in [
        (deferred(), "undeliverable-but-not-cached 4.2.1 (450 4.2.1 busy)"),
        (bounced(), "undeliverable-but-not-cached 5.1.1 (550 5.1.1 no)"),
    ] {
        let mut probe = Situation::new(outcome, PROBE).failing(&[0, 1]);
        probe.policy.negative_cache = false;
        check(&probe, &[line, "done, marked at 242"]);
    }
    let mut probe = Situation::new(sent(), PROBE);
    probe.policy.negative_cache = false;
    assert_eq!(probe.story().len(), 4);
}

#[test]
fn probes_of_users_are_told_to_trace() {
    for (outcome, status, text, word) in [
        (sent(), "2.1.5", "250 2.1.5 ok", "deliverable"),
        (deferred(), "4.2.1", "450 4.2.1 busy", "undeliverable"),
        (bounced(), "5.1.1", "550 5.1.1 no", "undeliverable"),
    ] {
        let probe = Situation::new(outcome, USER_PROBE).notify(NOTIFY_SUCCESS);
        let trace = format!("trace [512 2] {status} {word}: delivery via mx.example[192.0.2.1]:24: {text}");
        let line = format!("{word} {status} ({text})");
        check(&probe, &[&trace, &line, "done, marked at 242"]);
        check(&probe.failing(&[0]), &[&trace, "warning about Trace", "stays"]);
    }
}

#[test]
fn a_probe_without_a_server_is_done_too() {
    let reason = Reason::local(EnhancedStatus::new(4, 4, 1), "connect to mx.example[192.0.2.1]:24: no");
    let outcome = Outcome::Deferred(reason);
    let mut probe = Situation::new(outcome.clone(), USER_PROBE);
    probe.relay = NO_RELAY;
    check(
        &probe,
        &[
            "trace [512 0] 4.4.1 undeliverable: connect to mx.example[192.0.2.1]:24: no",
            "undeliverable 4.4.1 (connect to mx.example[192.0.2.1]:24: no)",
            "done, marked at 242",
        ],
    );
    let mut probe = Situation::new(outcome, PROBE);
    probe.relay = NO_RELAY;
    assert_eq!(probe.story()[0], "verify o@x 1: connect to mx.example[192.0.2.1]:24: no");
    assert_eq!(probe.story().last().unwrap(), "done, marked at 242");
}

#[test]
fn a_status_that_contradicts_the_outcome_is_not_passed_on() {
    for (outcome, line) in [
        (Outcome::Delivered(said("5.1.1", "x")), "sent 2.0.0 (x)"),
        (Outcome::Bounced(said("4.1.1", "x")), "bounced 5.0.0 (x)"),
        (Outcome::Deferred(said("5.1.1", "x")), "deferred 4.0.0 (x)"),
    ] {
        let story = Situation::new(outcome, NORMAL).story();
        assert!(story.contains(&line.to_owned()), "{story:?}");
    }
}

#[test]
fn only_answers_of_servers_name_the_server() {
    for (reply, said) in [(Some("550-no\n550 5.1.1 no".to_owned()), "mx.example"), (None, "")] {
        let mut outcome = said_by_us();
        if let Outcome::Bounced(reason) = &mut outcome {
            reason.reply = reply.clone();
        }
        let situation = Situation::new(outcome, NORMAL);
        let attempted = Attempted {
            queue_id: "QID",
            flags: RequestFlags(NORMAL),
            recipient: &situation.recipient,
            outcome: &situation.outcome,
            relay: RELAY,
            host: "mx.example",
            reports_success: false,
        };
        let (plan, _) = decide(&policy(), &attempted, None);
        let (list, _) = List::parse(&plan.calls[0].octets).unwrap().unwrap();
        assert_eq!(list.text("mta_mname").unwrap(), said);
        assert_eq!(list.text("diag_text").unwrap(), reply.unwrap_or_default().replace('\n', " "));
    }
}

fn said_by_us() -> Outcome {
    Outcome::Bounced(Reason::local(EnhancedStatus::new(5, 3, 0), "unreadable mail queue entry"))
}

#[test]
fn the_filter_has_the_last_word_within_its_limits() {
    let lines = |outcome: Outcome, flags, filter: Filter<'_>| {
        let mut situation = Situation::new(outcome, flags);
        situation.filter = Some(filter);
        situation.story()
    };
    // A refusal becomes a deferral, and the other way round.
    let softer = |key: &str| Ok((key == "5.1.1 550 5.1.1 no").then(|| "4.1.0  later\tperhaps ".to_owned()));
    assert_eq!(
        lines(bounced(), NORMAL, &softer),
        ["defer 4.1.0 delayed: later\tperhaps", "deferred 4.1.0 (later\tperhaps)", "waits for y", "stays"]
    );
    let harder = |key: &str| Ok((key == "4.2.1 450 4.2.1 busy").then(|| "5.2.1 never".to_owned()));
    assert_eq!(
        lines(deferred(), NORMAL, &harder),
        ["bounce 5.2.1 failed: never", "bounced 5.2.1 (never)", "done, marked at 242"]
    );
    assert_eq!(lines(deferred(), PROBE, &harder)[0], "verify o@x 2: never");
    // A success stays one; a status alone keeps the text.
    assert_eq!(lines(sent(), NORMAL, &|_| Ok(Some("2.9.9".into())))[0], "sent 2.9.9 (250 2.1.5 ok)");
    // What does not fit changes nothing, and is told.
    for (outcome, found, line) in [
        (sent(), "4.0.0 no", "sent 2.1.5 (250 2.1.5 ok)"),
        (sent(), "5.0.0 no", "sent 2.1.5 (250 2.1.5 ok)"),
        (deferred(), "2.0.0 yes", "deferred 4.2.1 (450 4.2.1 busy)"),
        (deferred(), "no status", "deferred 4.2.1 (450 4.2.1 busy)"),
        (deferred(), "", "deferred 4.2.1 (450 4.2.1 busy)"),
    ] {
        let story = lines(outcome, NORMAL, &|_| Ok(Some(found.into())));
        let problem = format!("problem: bad status code in the delivery status filter: {found}");
        assert!(story.contains(&problem) && story.contains(&line.to_owned()), "{story:?}");
    }
    let story = lines(sent(), NORMAL, &|_| Err("table is gone".into()));
    assert_eq!(story, ["problem: table is gone", "sent 2.1.5 (250 2.1.5 ok)", "done, marked at 242"]);
    let story = lines(sent(), NORMAL, &|_| Ok(None));
    assert_eq!(story, ["sent 2.1.5 (250 2.1.5 ok)", "done, marked at 242"]);
}

#[test]
fn names_of_the_daemons_stand_in_the_reasons() {
    let mut situation = Situation::new(bounced(), NORMAL).failing(&[0]);
    situation.policy.names.bounce = "my-bounce".into();
    situation.policy.names.trace = "my-trace".into();
    assert!(situation.story().contains(&"deferred 4.3.0 (my-bounce or my-trace service failure)".to_owned()));
    let mut situation = Situation::new(sent(), VERBOSE).failing(&[0]);
    situation.policy.names.trace = "my-trace".into();
    assert!(situation.story().contains(&"deferred 4.3.0 (QID: my-trace service failed)".to_owned()));
}

#[test]
fn whatever_fails_nobody_is_done_who_was_neither_delivered_nor_reported() {
    for flags in [0, NORMAL, PROBE, USER_PROBE, VERBOSE, LATE, PROBE | USER_PROBE | VERBOSE] {
        for outcome in [sent(), bounced(), deferred()] {
            for notify in 0..16 {
                for failing in [&[][..], &[0], &[1], &[0, 1], &[0, 1, 2, 3]] {
                    for (soft_bounce, negative_cache) in
                        [(false, true), (true, true), (false, false), (true, false)]
                    {
                        let mut situation =
                            Situation::new(outcome.clone(), flags).notify(notify).failing(failing);
                        situation.policy = Policy { soft_bounce, negative_cache, ..policy() };
                        let story = situation.story();
                        let is_probe = flags & (256 | 512) != 0;
                        let has_line = |word: &str| story.iter().any(|told| told.starts_with(word));
                        let is_done = has_line("sent ")
                            || has_line("bounced ")
                            || (is_probe && (has_line("deliverable ") || has_line("undeliverable")));
                        assert_eq!(story.last().unwrap().starts_with("done"), is_done, "{story:?}");
                    }
                }
            }
        }
    }
}
