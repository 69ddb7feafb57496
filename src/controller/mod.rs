//! The controller: thin loops around pure decisions. One replica leads, and only the leader writes; every write has a
//! precondition, so that a leader that has lost its lease without knowing it changes nothing that moved on.

pub mod access;
mod ask;
pub mod audit;
pub mod certificates;
pub mod events;
pub mod guard;
pub mod in_force;
pub mod lease;
pub mod mesh_state;
pub mod names;
pub mod prometheus;
pub mod repair;
pub mod reports;
pub mod resource;
pub mod rollout;
pub mod send;
pub mod undo;
pub mod week;
pub mod write;

pub use lease::{Candidate, Leadership, Terms};
pub use names::Names;
pub use resource::{At, Resource};
pub use write::{Change, Held, Manager, Write, WriteError, Writer};
