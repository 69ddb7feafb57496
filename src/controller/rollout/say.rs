//! What is said of a rollout: its metrics and its Events. The status is written in `turn`, because whether it could be written decides
//! what comes next.

use jiff::{SignedDuration, Timestamp};

use crate::api::GatewayRolloutStatus;
use crate::api::mesh_state::Condition;
use crate::api::rollout_status::{Phase, Stage};
use crate::controller::events::Word;
use crate::rollout::memory::{Memory, RollbackMemory};
use crate::rollout::seen::{Gate, Of, Pod};
use crate::rollout::{Seen, after};
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
        stage_started: time(&status.stage_started_at).map(Timestamp::as_second),
        due: due(seen, status).map(Timestamp::as_second),
        apart: u32::try_from(apart(seen).count()).unwrap_or(u32::MAX),
        apart_due: apart_due(seen).map(Timestamp::as_second),
        gate: match seen.gate {
            Gate::Off => None,
            Gate::Quiet(_) => Some(0),
            Gate::Firing(_) => Some(1),
            Gate::Unknown { .. } => Some(2),
        },
    }
}

fn time(text: &Option<String>) -> Option<Timestamp> {
    text.as_deref()?.parse().ok()
}

/// Pods that finish what they have. One that was told to end is the kubelet's business.
fn apart(seen: &Seen) -> impl Iterator<Item = &Pod> {
    seen.pods.iter().filter(|pod| pod.of == Of::Apart && !pod.deleting)
}

/// When the first of the pods set apart has to go.
fn apart_due(seen: &Seen) -> Option<Timestamp> {
    let first = apart(seen).map(|pod| pod.apart_since.unwrap_or(pod.created)).min()?;
    Some(after(first, seen.rollout.spec.strategy.drain.max_wait.signed()))
}

/// When what goes on now should be over, or should hold the rollout: after that it is stuck. `None` while it holds or waits for
/// somebody. The way back knows no hold, so that nothing else would say that it does not go on.
fn due(seen: &Seen, status: &GatewayRolloutStatus) -> Option<Timestamp> {
    let waits = status.pause.is_some() || status.state == "AwaitingExternal";
    let goes = status.phase.is_forward() || status.phase == Phase::RollingBack;
    if !goes || waits {
        return None;
    }
    let soaking = status.step.as_ref().filter(|step| step.stage == Stage::Soaking);
    let soaking = soaking.filter(|_| matches!(status.phase, Phase::Progressing | Phase::Draining));
    let begun = time(&status.stage_started_at).max(time(&status.last_batch_at))?;
    let paused = SignedDuration::from_secs(status.stage_paused_seconds);
    let deadline = seen.rollout.spec.progress_deadline.signed().saturating_add(paused);
    let stage = soaking.and_then(|step| time(&step.soak_until)).unwrap_or_else(|| after(begun, deadline));
    Some(apart_due(seen).map_or(stage, |apart| stage.max(apart)))
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rollout::read::{self, Raw};
    use crate::snapshot::Snapshot;

    const BEGAN: &str = "2026-03-02T08:00:00Z";

    fn seen(pods: Vec<Value>) -> Seen {
        let rollout = json!({
            "apiVersion": "revguard.dev/v1alpha1", "kind": "GatewayRollout",
            "metadata": {"name": "gw", "namespace": "edge", "uid": "u"},
            "spec": {
                "target": {"deployment": {"name": "gw"}}, "toRevision": "1-24", "progressDeadline": "10m",
                "strategy": {"drain": {"maxWait": "20m"}},
            },
        });
        read::seen(&Raw::manifests(rollout, pods), &Snapshot::offline()).unwrap()
    }

    fn apart_pod(since: &str) -> Value {
        let annotations = json!({crate::model::key::APART_SINCE: since});
        json!({
            "apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "istio-proxy", "image": "p"}]},
            "metadata": {
                "name": format!("gw-{}", since.len()), "namespace": "edge", "uid": since, "creationTimestamp": BEGAN,
                "labels": {crate::model::key::ROLLOUT: "u", "app": "revguard-apart"}, "annotations": annotations,
            },
        })
    }

    /// Minutes from the beginning to when it should be over.
    fn minutes(seen: &Seen, status: Value) -> Option<i64> {
        let mut whole = json!({"phase": "Progressing", "stageStartedAt": BEGAN});
        let more = status.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(more);
        let status: GatewayRolloutStatus = serde_json::from_value(whole).unwrap();
        let due = figures(seen, &status).due?;
        Some((due - BEGAN.parse::<Timestamp>().unwrap().as_second()) / 60)
    }

    #[test]
    fn a_stage_is_due_at_the_end_of_what_it_waits_for() {
        let none = seen(Vec::new());
        assert_eq!(minutes(&none, json!({})), Some(10), "the deadline");
        assert_eq!(minutes(&none, json!({"stagePausedSeconds": 300})), Some(15), "pauses do not count");
        assert_eq!(minutes(&none, json!({"phase": "Draining", "lastBatchAt": "2026-03-02T08:30:00Z"})), Some(40));
        let soak = json!({"stage": "Soaking", "soakUntil": "2026-03-02T10:00:00Z"});
        assert_eq!(minutes(&none, json!({"step": soak})), Some(120), "a long soak is none that is stuck");
        assert_eq!(minutes(&none, json!({"phase": "Promoting", "step": soak})), Some(10), "a soak that is long over");
        assert_eq!(
            minutes(&none, json!({"phase": "RollingBack", "step": soak})),
            Some(10),
            "nothing holds the way back"
        );
        for waits in [
            json!({"pause": {"reason": "User"}}),
            json!({"state": "AwaitingExternal"}),
            json!({"phase": "Preflight"}),
            json!({"phase": "Completed"}),
        ] {
            assert_eq!(minutes(&none, waits.clone()), None, "{waits}");
        }
    }

    #[test]
    fn pods_set_apart_have_their_own_time() {
        let seen = seen(vec![apart_pod("2026-03-02T08:05:00Z"), apart_pod("2026-03-02T08:01:00.0Z")]);
        let figures = figures(&seen, &GatewayRolloutStatus::default());
        assert_eq!(figures.apart, 2);
        let due: Timestamp = "2026-03-02T08:21:00Z".parse().unwrap();
        assert_eq!(figures.apart_due, Some(due.as_second()), "of the first of them");
        assert_eq!(minutes(&seen, json!({"phase": "Draining"})), Some(21));
    }
}
