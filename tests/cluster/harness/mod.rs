//! A real control plane on loopback, and what tests need to work with it.
//!
//! It is for tests that want to know what a real API server does: which webhook it calls, what it
//! makes of our answer, what it does while we are away. It refuses to fake anything: there is no
//! in-memory API server here, and no test of this target passes against one.
//!
//! Nothing here waits by sleeping a guessed time. Whatever takes time is polled by
//! [`wait::wait_until`] with a deadline, and the error names what was seen last.

pub mod audit;
pub mod balancer;
pub mod binary;
pub mod crds;
pub mod credentials;
pub mod flags;
pub mod front;
pub mod guard;
pub mod metrics;
pub mod objects;
pub mod pki;
pub mod plane;
pub mod process;
pub mod prometheus;
pub mod raw;
pub mod recorder;
pub mod registration;
pub mod rundir;
pub mod runtime;
pub mod tools;
pub mod wait;

pub use plane::{ControlPlane, Options};
