//! Connections that prove who is at both ends: TLS and SASL with real servers.
//!
//! - Owns: Dovecot's LMTP over TLS, Cyrus's lmtpd with logins, Postfix's smtpd with Dovecot's logins; what each of them
//!   says about the connection, and what arrives.
//! - Leaves to others: each fault of a certificate and each hostile turn (`it`, with our own sink).
//! - Always true: no password and no token is in a file that we have written, but for the one it was given in.

mod carrier;
mod cyrus;
mod cyrus_lmtp;
mod dovecot_lmtp;
mod harness;
mod relay;
mod submission;
mod tokens;
