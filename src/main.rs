//! The program: finds its role and turns the result into an exit code.

fn main() {}
