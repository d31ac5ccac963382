//! Tests of the whole program.

// A test that unwraps says where it fails; clippy allows that in unit tests only.
#![allow(clippy::unwrap_used)]

mod notice;
