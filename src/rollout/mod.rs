//! Decisions about a gateway rollout: [`plan()`] says what is to be remembered, what is the one next step, or what is
//! waited for; [`invariants`] say what no step may break.
//!
//! A plan is made from what was read just now ([`Seen`]) and what must not be forgotten ([`Memory`], kept in the object's status). It
//! carries one step, because after a write the counts read before it are no longer true, and each step carries the version
//! of the object that it changes. What can be observed is derived and never remembered. Nothing here reads a clock, talks to a
//! cluster or builds a request: `controller` does.

mod accept;
mod apart;
mod baseline;
pub mod capacity;
pub mod digest;
mod drain;
pub mod gate;
pub mod guards;
mod hold;
pub mod invariants;
mod look;
pub mod memory;
pub mod names;
mod next;
pub mod objects;
mod outline;
pub mod owner;
mod phases;
pub mod plan;
pub mod preview;
pub mod read;
pub mod seen;
mod shift;
pub mod status;
pub mod step;
pub mod steps;
pub mod syncz;
pub mod verify;
pub mod window;

pub use look::after;
pub use memory::Memory;
pub use next::{Next, Plan, Waiting};
pub use plan::plan;
pub use seen::Seen;
pub use step::Step;
