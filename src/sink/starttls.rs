//! TLS begins: STARTTLS (RFC 3207), or at once in wrapper mode (RFC 8314 section 3).
//!
//! - Owns: the command, the handshake, how rules break either.
//! - Leaves to others: certificate and versions (`tls`), what is encrypted later (`channel`).
//! - Always true: nothing that came in clear counts after the handshake, neither what was said nor what was read
//!   along with it; a handshake takes no longer than any other wait.

use std::sync::Arc;
use std::time::Instant;

use rustls::{ServerConfig, ServerConnection};

use super::Extension;
use super::counts::add;
use super::reply::Reply;
use super::script::{Action, Stage, What};
use super::session::Session;
use super::wire::{Ended, Wire};

impl Session<'_> {
    /// STARTTLS, and the handshake that follows it.
    pub(super) fn starttls(&mut self, rest: &str) -> Result<(), Ended> {
        if !self.wire.available().is_empty() {
            self.say(&Reply::new(501, "5.5.4", "nothing may follow STARTTLS before TLS has begun"))?;
            return self.part();
        }
        if self.answer(Stage::StartTls, "", |session| session.may_start_tls(rest))? {
            self.wire.held = false;
            self.begin_tls()?;
            self.forget_client();
        }
        Ok(())
    }

    fn may_start_tls(&mut self, rest: &str) -> Reply {
        match () {
            () if self.wire.channel.is_encrypted() => Reply::new(503, "5.5.1", "TLS has begun already"),
            () if !rest.is_empty() => Reply::new(501, "5.5.4", "STARTTLS takes no parameters"),
            () if self.is_new() => Reply::new(503, "5.5.1", format!("say {} first", self.hello_word())),
            () if self.transaction.is_some() => Reply::new(503, "5.5.1", "not within a transaction"),
            () => Reply::new(220, "2.0.0", "ready to start TLS"),
        }
    }

    /// Makes the handshake, unless a rule breaks it.
    pub(super) fn begin_tls(&mut self) -> Result<(), Ended> {
        let Some(config) = &self.shared.tls else { return Ok(()) };
        self.wire.forget_input();
        self.wire.flush()?;
        let action = self.shared.config.script.action(Stage::Handshake, "");
        if let Some(action) = action {
            match &action.what {
                // Only once the client has begun: closing with that unread would be a reset.
                What::Close => self.wire.pause(action.delay)?,
                What::Silence => {
                    self.wire.play_dead();
                    return Err(Ended::Abruptly);
                }
                _ => self.before(action)?,
            }
        }
        let tls = shake_hands(&mut self.wire, Arc::clone(config), action)?;
        self.wire.channel.encrypt(Box::new(tls));
        add(&self.shared.counters.handshakes, 1);
        add(&self.shared.counters.resumed, u64::from(self.wire.channel.is_resumed()));
        if action.is_some_and(|action| action.close_after) { self.part() } else { Ok(()) }
    }

    /// Whether STARTTLS is a command here, if not at this moment.
    pub(super) fn knows_starttls(&self) -> bool {
        self.shared.tls.is_some() && !self.shared.config.without.contains(&Extension::StartTls)
    }

    /// Whether it is offered now.
    pub(super) fn may_offer_tls(&self) -> bool {
        self.knows_starttls() && !self.wire.channel.is_encrypted()
    }
}

/// The server's side of a handshake, from the first octet to the last.
fn shake_hands(
    wire: &mut Wire,
    config: Arc<ServerConfig>,
    action: Option<&Action>,
) -> Result<ServerConnection, Ended> {
    let until = Instant::now() + wire.limit();
    let mut tls = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut left = match action.map(|action| &action.what) {
        Some(What::FirstOctets(octets)) => *octets,
        Some(What::Close) => 0,
        _ => usize::MAX,
    };
    while tls.is_handshaking() {
        if Instant::now() >= until || tls.read_tls(&mut wire.channel.socket())? == 0 {
            return Err(Ended::Abruptly);
        }
        let processed = tls.process_new_packets();
        answer(wire, &mut tls, action, &mut left)?;
        if let Err(error) = processed {
            log::debug!("sink: a handshake failed: {error}");
            // The client is to hear why.
            return Err(Ended::AfterReply);
        }
    }
    Ok(tls)
}

/// Sends what the handshake wants to say, as slowly or as little of it as a rule allows.
fn answer(
    wire: &mut Wire,
    tls: &mut ServerConnection,
    action: Option<&Action>,
    left: &mut usize,
) -> Result<(), Ended> {
    let mut octets = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut octets)?;
    }
    let is_over = match action.map(|action| &action.what) {
        Some(What::Garbage(garbage)) => {
            octets.clone_from(garbage);
            true
        }
        _ => octets.len() > *left,
    };
    octets.truncate(*left);
    *left -= octets.len();
    match action.and_then(|action| action.drip) {
        Some(drip) => wire.drip(&octets, drip.octets, drip.interval)?,
        None => wire.output().extend_from_slice(&octets),
    }
    wire.flush()?;
    if !is_over {
        return Ok(());
    }
    // Without `close-after` a rule that cuts off leaves the client to wait.
    if action.is_some_and(|action| !action.close_after && matches!(action.what, What::FirstOctets(_))) {
        wire.play_dead();
    }
    Err(Ended::AfterReply)
}
