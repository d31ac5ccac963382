//! lastmile carries mail over its last mile: from a queue to the server that keeps the mailboxes.
//!
//! # A message's way through the modules
//!
//! ```text
//!  sendmail (cli) ──► spool: incoming/ or active/ ◄── any software, with a job line in the FIFO
//!                                 │
//!                  agent: pickup claims, loads ──► agent: master, one poll, no disk, no network
//!                                                            │ asks
//!                                                    queue: Scheduler, what may start now
//!                                                            │ a batch
//!                        agent: worker ── net: one cached connection ── smtp: what is said ──► server
//!                              │ an outcome for each recipient
//!                        agent: recorder ──► spool: marks      ──► log line
//!                              │ the last batch has ended
//!                        agent: finish ──► sweeper: removed │ deferred/, back at its next attempt │ notice: a bounce
//! ```
//!
//! `sendmail --lmtp` takes a shorter way: from the command straight to `net`, with the caller waiting for the outcomes.
//! (`cli::sendmail::direct`) `sendmail -bs` speaks SMTP with its caller, and queues as `sendmail` does.
//! (`cli::sendmail::smtp_server`)
//!
//! Under Postfix's master(8) there is another door, and the same engine behind it (`agent::source`):
//!
//! ```text
//!  qmgr(8) ──► postfix: request ──► agent::postfix: master, one poll ──► queue: Scheduler ──► agent: worker ──► server
//!                                                                                                 │ an outcome
//!                     qmgr(8) ◄── one answer ◄── marks, log line ◄── postfix: report to bounce(8), defer(8) ◄──┘
//! ```
//!
//! [`mail`] has the nouns that all of them use, [`config`] what an administrator may choose, [`sink`] a server to
//! try it with, and [`cli`] the commands. A module imports only what stands below it; `tests/it/tidy.rs` holds the
//! table. [`mail`], [`smtp`], [`queue`] and [`notice`] are pure: no file, socket, thread or clock, so that their
//! tests are tables. They decide; [`net`], [`spool`] and [`agent`] act.
//!
//! # What is always true
//!
//! - **Nothing is lost.** A message that was acknowledged is on disk, whole, until each of its recipients is
//!   delivered, or refused and the bounce is on disk too. ([`spool`] has the order of writes, renames and syncs;
//!   `agent::finish` that of bounces and marks.)
//! - **One outcome for each recipient of each attempt**: delivered, deferred or bounced. With LMTP the replies after
//!   the content belong to the accepted recipients in their order; none is ever guessed. (`smtp::transaction`)
//! - **At least once, and honest about it.** Before the end of the content leaves, its recipients are marked as in
//!   doubt; a reply settles its recipient at once. Who is left without one is tried again, and the log says that
//!   the mail may come twice. (`agent::recorder`; `smtp::failure` for the words)
//! - **A refusal bounces, trouble defers.** Mail is returned for what a server says to it or to its recipient, or
//!   lacks for it; what goes wrong before the transaction keeps it. (`smtp::failure`)
//! - **Try again at once only where that cannot duplicate.** A reused connection that proves dead costs nothing,
//!   as long as the server cannot have the message. (`net::cached`)
//! - **Nobody hurts us.** Every buffer, line, loop and wait has a bound; no input panics; no address and no content
//!   can put a command on the wire. ([`smtp`] for servers, [`queue`] for job lines, [`spool`] for files)
//! - **Nobody diverts another's mail.** Of a dropped file, its owner decides what is believed. (`spool::pickup`)
//! - **Slow mail delays only itself.** Destinations take turns, and a busy one leaves workers to others.
//!   (`queue::scheduler`)
//! - **The master waits for nothing but its poll**, and no backlog waits in a channel: what is not in the scheduler
//!   is on disk, so memory does not grow with the queue. (`agent::master`, `agent::intake`)
//! - **No wake-up is lost**: whoever reports to a sleeping master rings. (`agent::doorbell`)
//! - **What must be secret stays so.** Where TLS or a login is asked for, no mail goes without it, and none is returned
//!   for the lack of it; passwords, tokens and keys are in no line that anybody reads. (`smtp::session`, `net::tls`,
//!   `config::secrets`)
//! - **Content is not altered**, but for line ends, transparency dots, and header fields that were asked for.
//!   (`smtp::body`, `spool::wire`)
//! - **A wrong configuration starts nothing**, and everything wrong with it is told at once. ([`config`])
//!
//! # Lints
//!
//! They stand in `Cargo.toml`, for all targets. `unsafe` is denied. `unwrap` is a warning that CI turns into an
//! error: what comes from a peer, a file or a user is an error value; only tests may panic. All public items have a
//! comment that says units, errors, or the section of the RFC.

pub mod agent;
pub mod cli;
pub mod config;
pub mod mail;
pub mod net;
pub mod notice;
pub mod postfix;
pub mod queue;
pub mod sink;
pub mod smtp;
pub mod spool;
pub mod system;
