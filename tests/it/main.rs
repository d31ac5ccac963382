//! Tests of the whole program.

mod config;
