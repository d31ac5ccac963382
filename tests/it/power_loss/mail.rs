//! Who was promised what, and who has got it.
//!
//! - Owns: a server that takes some recipients and refuses others; the account of what is owed; the agent that is
//!   started on what survived.
//! - Leaves to others: when the power fails.
//! - Always true: a refused recipient counts as served when its bounce has reached the sender.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lastmile::mail::{Address, Recipient};
use lastmile::sink::{Handle, Listen, Script, Sink, SinkConfig, Store, maildir_name};
use lastmile::spool::Draft;

use super::disk::{FileSystem, Machine};
use crate::common::agent::SOON;
use crate::common::mailbox;
use crate::common::process::look_for;

/// Whom bounces go to.
pub const SENDER: &str = "a@example.org";
/// Whom the servers take mail for.
pub const GOOD: [&str; 2] = ["b@example.org", "c@example.org"];
/// Put off by the first server, welcome at the one that is there after the power loss.
pub const BUSY: &str = "busy@example.org";
/// Refused by both.
pub const REFUSED: [&str; 2] = ["no@example.org", "nobody@example.org"];

/// Retries within seconds, a pool that leaves work to be done.
const KEYS: &str = "minimal_backoff_time = 1\nmaximal_backoff_time = 1\nqueue_run_delay = 1\n\
                    workers = 3\nworkers_reserved = 0\n";

/// Subjects and recipients.
pub type Promises = BTreeSet<(String, String)>;

/// A server for all mail, in this process: the power does not fail here.
pub struct Server {
    _handle: Handle,
    socket: PathBuf,
    maildirs: PathBuf,
}

impl Server {
    pub fn start(machine: &Machine, script: &str) -> Self {
        let directory = machine.site.path();
        let (socket, maildirs) = (directory.join("mail.sock"), directory.join("mail"));
        let refusals = "rcpt no*@example.org 550 5.1.1 no such user\n";
        let config = SinkConfig {
            store: Store::Maildir(maildirs.clone()),
            script: Script::parse(&format!("{refusals}{script}")).unwrap(),
            ..SinkConfig::new(Listen::Unix(socket.clone()))
        };
        let server = Self { _handle: Sink::start(config).unwrap(), socket, maildirs };
        machine.site.configure(&to_socket(&server.socket));
        server
    }

    /// Who has got what: the message, or for a refused recipient the bounce.
    pub fn served(&self) -> Promises {
        let mut served = Promises::new();
        for address in GOOD.into_iter().chain([BUSY]) {
            let subject = |message: &Vec<u8>| mailbox::header(message, "Subject").unwrap();
            served.extend(self.mail_of(address).iter().map(|message| (subject(message), address.to_owned())));
        }
        for bounce in self.mail_of(SENDER) {
            let text = String::from_utf8_lossy(&bounce).replace("\r\n", "\n");
            // The original's header follows the bounce's own.
            let subject = text.lines().filter_map(|line| line.strip_prefix("Subject: ")).next_back().unwrap();
            let refused = text.lines().filter_map(|line| line.strip_prefix("Final-Recipient: rfc822; "));
            served.extend(refused.map(|address| (subject.to_owned(), address.to_owned())));
        }
        served
    }

    /// The messages that have come for an address.
    pub fn mail_of(&self, address: &str) -> Vec<Vec<u8>> {
        let address: Address = address.parse().unwrap();
        mailbox::messages(&self.maildirs.join(maildir_name(&address)))
    }
}

fn to_socket(socket: &Path) -> String {
    format!("default_transport = \"lmtp:unix:{}\"\n{KEYS}", socket.display())
}

/// A machine with a server and a queue that an agent has made; `None` where there can be none.
pub fn machine_and_server(kind: FileSystem, script: &str) -> Option<(Machine, Server)> {
    let machine = Machine::new(kind)?;
    let server = Server::start(&machine, script);
    Some((machine, server))
}

/// A message of about `size` octets.
pub fn message(subject: &str, size: usize) -> Vec<u8> {
    let head = format!("From: {SENDER}\nSubject: {subject}\n\n");
    let lines = (0_usize..).map(|number| format!("{number:08} of the text of {subject}\n"));
    let mut octets = head.into_bytes();
    for line in lines {
        if octets.len() >= size {
            break;
        }
        octets.extend_from_slice(line.as_bytes());
    }
    octets
}

/// The envelope of a message to these.
pub fn draft(recipients: &[&str]) -> Draft {
    let recipient = |text: &&str| Recipient::new(0, text.parse().unwrap());
    let recipients = recipients.iter().map(recipient).collect();
    Draft { sender: SENDER.parse().unwrap(), recipients, origin: "uid=0".to_owned(), ..Draft::default() }
}

/// Each of these recipients is promised the message of that subject.
pub fn promise(promises: &mut Promises, subject: &str, recipients: &[&str]) {
    promises.extend(recipients.iter().map(|&recipient| (subject.to_owned(), recipient.to_owned())));
}

/// Starts an agent on what has survived. Fails unless everybody is served by it who was promised something and not
/// served `before` the power failed.
#[track_caller]
pub fn assert_everybody_is_served(survived: &Machine, promises: &Promises, before: &Promises, when: &str) {
    let found = survived.site.files();
    let server = Server::start(survived, "");
    let agent = survived.site.start_agent();
    let missing = || -> Promises {
        let served = server.served();
        promises
            .iter()
            .filter(|promise| !served.contains(promise) && !before.contains(promise))
            .cloned()
            .collect()
    };
    if look_for(SOON, || missing().is_empty().then_some(())).is_none() {
        panic!(
            "{when}: lost by the power loss: {:?}\nfound: {found:#?}\nnow: {:#?}\n{}",
            missing(),
            survived.site.files(),
            survived.site.log()
        );
    }
    agent.stop();
}

/// A moment that is different each time.
pub fn some_time(milliseconds: u64) {
    std::thread::sleep(Duration::from_micros(fastrand::u64(0..=milliseconds * 1000)));
}
