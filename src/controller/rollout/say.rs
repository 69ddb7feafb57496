//! What is said of a rollout: its metrics and its Events. The status is written in `turn`, because whether it could be written decides
//! what comes next.

use jiff::Timestamp;

use crate::api::GatewayRolloutStatus;
use crate::api::mesh_state::Condition;
use crate::controller::events::Word;
use crate::rollout::Seen;
use crate::rollout::memory::{Memory, RollbackMemory};
use crate::rollout::seen::Gate;
use crate::telemetry::Metrics;
use crate::telemetry::rollouts::RolloutFigures;

/// What a rollout is called whose writes are refused.
pub const HINDERED: &str = "Hindered";
const STALLED: &str = "Stalled";

/// A rollout's series, from its status.
pub fn figures(seen: &Seen, status: &GatewayRolloutStatus) -> RolloutFigures {
    let debug = |o: Option<String>| o.unwrap_or_default();
    let weights = status.weights.clone().unwrap_or_default();
    RolloutFigures {
        namespace: seen.rollout.namespace.to_string(),
        name: seen.rollout.name.to_string(),
        gateway: status.gateway.clone(),
        from: debug(status.from_revision.clone()),
        to: seen.rollout.spec.to_revision.clone(),
        strategy: debug(status.strategy.map(|s| format!("{s:?}"))),
        flavor: debug(status.flavor.map(|f| format!("{f:?}"))),
        phase: status.phase,
        step: status.step.as_ref().map_or(0, |s| s.index + 1),
        weight_desired: weights.desired,
        weight_endpoints: weights.endpoints,
        paused: status.pause.as_ref().map(|p| p.reason.clone()),
        stage_started: status
            .stage_started_at
            .as_deref()
            .and_then(|at| at.parse::<Timestamp>().ok())
            .map(Timestamp::as_second),
        gate: match seen.gate {
            Gate::Off => None,
            Gate::Quiet(_) => Some(0),
            Gate::Firing(_) => Some(1),
            Gate::Unknown { .. } => Some(2),
        },
    }
}

/// Counts what a remembered change means.
pub fn transition(metrics: &Metrics, before: &Memory, after: &Memory) {
    if before.phase != after.phase {
        let begun = before.rollback.is_none();
        let reason = after.rollback.as_ref().filter(|_| begun).map_or("", |r: &RollbackMemory| r.reason.as_str());
        metrics.rollouts.transition(before.phase, after.phase, reason);
    }
    if let (None, Some(how)) = (before.completion, after.completion)
        && let (Some(began), Some(ended)) = (after.started, after.finished)
    {
        metrics.rollouts.ended(how, std::time::Duration::try_from(ended.duration_since(began)).unwrap_or_default());
    }
}

/// An Event of a plan.
pub fn word((reason, note, warning): &(String, String, bool)) -> Word {
    Word { warning: *warning, reason: reason.clone(), action: "Rollout", note: note.clone() }
}

/// The status of a rollout whose next write is refused: nothing else would say why it stands still.
pub fn hindered(mut status: GatewayRolloutStatus, why: &str, now: Timestamp) -> GatewayRolloutStatus {
    let (generation, now) = (status.observed_generation, now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let at = status.conditions.iter().position(|c| c.type_ == STALLED);
    let before = at.map(|at| status.conditions.remove(at)).filter(|c| c.status == "True");
    let condition = Condition {
        type_: STALLED.to_owned(),
        status: "True".to_owned(),
        observed_generation: generation,
        last_transition_time: before.map_or(now, |c| c.last_transition_time),
        reason: HINDERED.to_owned(),
        message: why.chars().take(1024).collect(),
    };
    status.conditions.insert(at.unwrap_or(status.conditions.len()), condition);
    status.state = HINDERED.to_owned();
    status
}
