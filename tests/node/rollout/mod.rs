//! Gateways move to another revision, under load, and nothing is lost.
//!
//! Their pods run a real Envoy; istiod, its injector and metrics-server are stand-ins, and `lab` says of each what it stands for and where it
//! differs. revguard knows nothing of that: it is the image that is released, and only durations in the spec are shorter.
//!
//! Every count of losses stands beside one of the same load over an update in place, which loses what takes longer than a gateway drains.

mod by_hand;
mod course;
mod hands;
mod kill;
mod moves;
pub mod stage;
pub mod traffic;
mod watch;

use libtest_mimic::Trial;

/// Every hand in every phase and every place of death take the better part of an hour, so that they belong to the full length.
pub fn tests() -> Vec<Trial> {
    [by_hand::tests(), moves::tests(), hands::tests()].into_iter().flatten().collect()
}
