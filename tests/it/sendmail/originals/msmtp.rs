//! msmtp(1): a configuration of its own; what it submits a recorder on the loopback interface has heard.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::case::{Trouble, World};
use super::program::{Mail, Site, envelope, mailbox, text};
use super::recorder::{Heard, Recorder};

/// A configuration, and the server that it names.
pub struct Msmtp {
    home: PathBuf,
    caller: Option<u32>,
    recorder: Option<Recorder>,
}

impl Msmtp {
    pub fn new(directory: &Path, world: &World) -> Self {
        let recorder = Recorder::start(world.trouble);
        let port = recorder.port();
        let recorder = (world.trouble != Trouble::Missing).then_some(recorder);
        let more = if world.trouble == Trouble::Configuration { "timeout many\n" } else { "" };
        let aliases = directory.join("aliases");
        std::fs::write(&aliases, "root: ann@alias.example\n").unwrap();
        let text = format!(
            "account default\nhost 127.0.0.1\nport {port}\ndomain mx.example\nfrom %U@example\nallow_from_override on\n\
             tls off\nauth off\naliases {}\n{more}",
            aliases.display()
        );
        std::fs::write(directory.join(".msmtprc"), text).unwrap();
        Self { home: directory.to_owned(), caller: world.caller, recorder }
    }
}

impl Site for Msmtp {
    fn prepare(&self, command: &mut Command) {
        command.env("HOME", &self.home).env_remove("XDG_CONFIG_HOME").env("LANG", "C").env_remove("LC_ALL");
        // It believes these before it looks the caller up.
        let caller = self.caller.map_or_else(nix::unistd::getuid, nix::unistd::Uid::from_raw);
        match nix::unistd::User::from_uid(caller) {
            Ok(Some(user)) => command.env("USER", &user.name).env("LOGNAME", &user.name),
            _ => command.env_remove("USER").env_remove("LOGNAME"),
        };
    }

    fn mail(&self) -> Vec<Mail> {
        self.recorder.iter().flat_map(Recorder::heard).map(|heard| mail(&heard)).collect()
    }
}

fn mail(heard: &Heard) -> Mail {
    let (sender, parameters) = path(&heard.mail);
    let recipients: Vec<String> = heard
        .recipients
        .iter()
        .map(|recipient| {
            let (address, parameters) = path(recipient);
            [vec![mailbox(&address)], parameters].concat().join(" ")
        })
        .collect();
    Mail { envelope: envelope(&sender, &parameters, &recipients), content: text(&heard.content) }
}

/// `<a@x> SIZE=5` is `a@x` and its parameters.
fn path(text: &str) -> (String, Vec<String>) {
    let (address, parameters) = text.rsplit_once('>').unwrap();
    let parameters = parameters.split_whitespace().filter(|word| !word.starts_with("SIZE="));
    (address.trim_start_matches('<').to_owned(), parameters.map(ToOwned::to_owned).collect())
}
