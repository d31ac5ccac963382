//! The two programs, and playing a scenario with both.
//!
//! - Owns: which program stands for which side, running both, comparing what was observed.
//! - Leaves to others: what is played, and what is observed (`observation`).
//! - Always true: a difference that nobody declared fails a test, and so does a declared one that is not there.

use std::collections::BTreeSet;
use std::thread;

use rustix::process::getuid;

use super::observation::Observation;

/// Whose delivery agent a Postfix has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Postfix's own lmtp(8).
    Stock,
    /// lastmile-lmtp.
    Ours,
}

/// Whether lastmile-lmtp takes part where the environment does not say.
const OURS_TAKES_PART: bool = true;

/// Whether lastmile-lmtp takes part. Without it the stock program plays both sides.
pub fn ours_takes_part() -> bool {
    std::env::var_os("TESTS_POSTFIX_OURS").map_or(OURS_TAKES_PART, |value| value == "yes")
}

/// Whether Postfix can be started at all; says so where it cannot.
pub fn can_run() -> bool {
    let is_root = getuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can start a Postfix");
    }
    is_root && {
        let is_there = std::path::Path::new("/usr/sbin/postdrop").exists();
        if !is_there {
            eprintln!("skipped: Postfix is not installed");
        }
        is_there
    }
}

/// What was observed with each program.
pub struct Pair {
    pub stock: Observation,
    pub ours: Observation,
}

/// Plays a scenario with both programs at a time. `None`, and a word about it, where no Postfix can run.
pub fn both(play: impl Fn(Client) -> Observation + Sync) -> Option<Pair> {
    if !can_run() {
        return None;
    }
    let second = if ours_takes_part() { Client::Ours } else { Client::Stock };
    let (stock, ours) = thread::scope(|scope| {
        let stock = scope.spawn(|| play(Client::Stock));
        let ours = scope.spawn(|| play(second));
        (stock.join(), ours.join())
    });
    let panicked = |side: &str| panic!("the scenario failed with {side}; see above");
    let pair = Pair {
        stock: stock.unwrap_or_else(|_| panicked("the stock program")),
        ours: ours.unwrap_or_else(|_| panicked("ours")),
    };
    if std::env::var_os("TESTS_POSTFIX_SHOW").is_some() {
        eprintln!("the stock program: {:#?}\nours: {:#?}", pair.stock.topics, pair.ours.topics);
    }
    Some(pair)
}

/// A difference that is wanted: in these topics ours has other words. A line that becomes empty is gone; one with LF
/// in it becomes several.
#[derive(Clone, Copy)]
pub struct Difference<'a> {
    /// A topic; with `*` at its end, all that start so.
    pub topic: &'a str,
    pub stock: &'a str,
    pub ours: &'a str,
    /// Why it is better so.
    pub why: &'a str,
}

/// In the place of the stock program's words: ours has further lines.
pub const NOTHING: &str = "";

/// In the place of the stock program's words: all that it says under the topic.
pub const EVERYTHING: &str = "*";

impl Difference<'_> {
    fn is_about(&self, topic: &str) -> bool {
        match self.topic.strip_suffix('*') {
            Some(start) => topic.starts_with(start),
            None => topic == self.topic,
        }
    }

    /// What ours should have said in the place of the stock program's lines. Whether it is another thing.
    fn apply(&self, topic: &str, lines: &[String]) -> (Vec<String>, bool) {
        let whole = |text: &str| -> Vec<String> {
            text.split('\n').filter(|line| !line.is_empty()).map(str::to_owned).collect()
        };
        if self.stock == EVERYTHING {
            return (whole(self.ours), true);
        }
        if self.stock == NOTHING {
            let mut lines = [lines, &whole(self.ours)].concat();
            lines.sort();
            return (lines, true);
        }
        let replace = |line: &String| match line.contains(self.stock) {
            true => whole(&line.replace(self.stock, self.ours)),
            false => vec![line.clone()],
        };
        let mut replaced: Vec<_> = lines.iter().flat_map(replace).collect();
        let is_other = replaced != lines;
        // Other topics have an order of their own, which no difference changes.
        if is_other && (topic.ends_with(" log") || topic == "warnings") {
            replaced.sort();
        }
        (replaced, is_other)
    }
}

impl Pair {
    /// Fails unless both agree.
    #[track_caller]
    pub fn agree(&self) {
        self.agree_but(&[]);
    }

    /// Fails unless both agree but for these differences, each of which has to be there.
    #[track_caller]
    pub fn agree_but(&self, differences: &[Difference<'_>]) {
        let mut complaints = Vec::new();
        let mut unseen: BTreeSet<usize> = (0..differences.len()).collect();
        let topics: BTreeSet<&String> = self.stock.topics.keys().chain(self.ours.topics.keys()).collect();
        for topic in topics {
            let stock = self.stock.topics.get(topic).cloned().unwrap_or_default();
            let ours = self.ours.topics.get(topic).cloned().unwrap_or_default();
            let mut wanted = stock.clone();
            if ours_takes_part() {
                for (at, difference) in differences.iter().enumerate().filter(|(_, it)| it.is_about(topic)) {
                    let (lines, is_other) = difference.apply(topic, &wanted);
                    wanted = lines;
                    if is_other {
                        unseen.remove(&at);
                    }
                }
            }
            if wanted != ours {
                complaints.push(difference_of(topic, &wanted, &ours));
            }
        }
        if ours_takes_part() {
            for at in unseen {
                let Difference { topic, stock, why, .. } = &differences[at];
                complaints.push(format!("{topic}: the stock program no longer says {stock:?} ({why})"));
            }
        }
        assert!(complaints.is_empty(), "the programs differ:\n{}", complaints.join("\n"));
    }

    /// Fails unless both have a line with all `parts` under this topic: a fact, whoever delivers.
    #[track_caller]
    pub fn show(&self, topic: &str, parts: &[&str]) {
        self.stock.shows(topic, parts);
        self.ours.shows(topic, parts);
    }
}

/// What stands in one and not in the other, for people.
fn difference_of(topic: &str, wanted: &[String], ours: &[String]) -> String {
    let mut text = format!("{topic}:");
    for line in wanted.iter().filter(|line| !ours.contains(line)) {
        text.push_str(&format!("\n  - {line}"));
    }
    for line in ours.iter().filter(|line| !wanted.contains(line)) {
        text.push_str(&format!("\n  + {line}"));
    }
    if !text.contains('\n') {
        text.push_str(&format!("\n  the same lines in another order or number: {wanted:#?} {ours:#?}"));
    }
    text
}
