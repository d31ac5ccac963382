//! Other users of the machine, who have no rights but those that everybody has.
//!
//! - Owns: what two of them try at the FIFO, `incoming/` and the control socket.
//! - Leaves to others: the agent's own user (`engine::privileges`).
//! - Always true: nobody diverts, reads, changes or holds up another's mail.
