//! Decisions about a gateway rollout: [`plan`] says what is to be remembered, what is the one next step, or what is
//! waited for; [`invariants`] say what no step may break.
//!
//! A plan is made from what was read just now ([`Seen`]) and what must not be forgotten ([`Memory`], kept in the object's status). It
//! carries one step, because after a write the counts read before it are no longer true, and each step carries the version
//! of the object that it changes. What can be observed is derived and never remembered. Nothing here reads a clock, talks to a
//! cluster or builds a request: `controller` does.

pub mod gate;
pub mod memory;
pub mod read;
pub mod seen;
pub mod step;

pub use memory::Memory;
pub use seen::Seen;
pub use step::{Next, Plan, Step};
