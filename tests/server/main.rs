//! The HTTPS server over loopback: real TLS, real sockets, a scripted reviewer.
//!
//! No test asserts how long something took. What must end is awaited under a generous watchdog,
//! and why it ended is read from the metrics.

mod bad_input;
mod certificates;
mod connections;
mod drain;
mod kit;
mod overload;
