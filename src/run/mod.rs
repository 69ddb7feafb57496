//! Wiring and supervision: the only place that spawns.
//!
//! Each part is built elsewhere and knows little of the others; here they are connected, watched and ended in order. No
//! decision about the mesh is made here.

pub mod controller;
pub mod demo;
mod files;
pub mod kill;
mod live;
mod observe;
pub mod policy;
mod secret;
pub mod serve;
pub mod supervise;

pub use observe::observer;
