//! The one next step of a rollout, or what it waits for.

use jiff::Timestamp;

use super::memory::Memory;
use super::seen::Seen;
use super::step::{Next, Plan, Waiting};

/// What comes next. A function of its arguments: the same twice for the same, and nothing left to do where it has been done.
pub fn plan(seen: &Seen, memory: &Memory, now: Timestamp) -> Plan {
    let _ = (seen, now);
    let on = "the plan".to_owned();
    Plan {
        next: Next::Wait(Waiting { on, until: None }),
        state: memory.phase.as_str().to_owned(),
        outline: Vec::new(),
        events: Vec::new(),
    }
}
