//! The conditions of a status, in the way of Kubernetes: each says one thing, since when, and of which generation.

use crate::api::mesh_state::Condition;
use crate::api::rollout_status::Phase;
use crate::rollout::look::Look;
use crate::rollout::memory::Cause;
use crate::rollout::outline;
use crate::rollout::phases::before::blocked;
use crate::rollout::phases::over::way_back;
use crate::rollout::seen::{Gate, Verified};
use crate::rollout::{Next, Plan};

use super::Before;

/// `True`, `False` or `Unknown`, a word, a sentence.
type Said = (&'static str, String, String);

pub fn all(look: &Look, plan: &Plan, before: Before) -> Vec<Condition> {
    let said = [
        ("Ready", ready(look, plan)),
        ("Reconciling", reconciling(look, plan)),
        ("Stalled", stalled(look, plan)),
        ("PreflightPassed", preflight(look, plan)),
        ("GuardrailsHealthy", guardrails(look)),
        ("Verified", verified(look)),
        ("RollbackAvailable", rollback(look)),
    ];
    let conditions = said.into_iter().map(|(type_, (status, reason, message))| {
        let was = before.status.conditions.iter().find(|c| c.type_ == type_ && c.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            observed_generation: look.seen.rollout.generation,
            last_transition_time: was.map_or_else(|| super::whole(before.now), |c| c.last_transition_time.clone()),
            reason,
            message,
        }
    });
    conditions.collect()
}

fn say(status: &'static str, reason: &str, message: &str) -> Said {
    (status, reason.to_owned(), message.to_owned())
}

/// What is waited for or done, in a sentence.
fn now(look: &Look, plan: &Plan) -> String {
    if look.memory.phase == Phase::Failed {
        let rollout = &look.seen.rollout;
        return format!(
            "it has given up going back; `revguard rollout resume {} -n {}` lets it try again",
            rollout.name, rollout.namespace
        );
    }
    if let Some(pause) = &look.memory.pause {
        return outline::held(pause, &look.seen.rollout);
    }
    match &plan.next {
        Next::Wait(waiting) => format!("waiting for {}", waiting.on),
        Next::Do(step) => format!("next: {}", step.doing()),
        Next::Remember(_) | Next::Done => String::new(),
    }
}

fn ready(look: &Look, plan: &Plan) -> Said {
    let done = look.memory.phase == Phase::Completed;
    say(if done { "True" } else { "False" }, &plan.state, &if done { String::new() } else { now(look, plan) })
}

fn is_stalled(look: &Look, plan: &Plan) -> bool {
    let waits = look.memory.pause.as_ref().is_some_and(|p| p.cause.needs_human());
    let lost = look.memory.phase == Phase::RollingBack
        && look.memory.pause.as_ref().is_some_and(|p| p.cause == Cause::ControlPlaneNotReady);
    let words = ["PreflightFailed", "UnsupportedTarget", "SourceMissing", "OldControlPlaneNotReady"];
    waits || lost || look.memory.phase == Phase::Failed || words.contains(&plan.state.as_str())
}

fn reconciling(look: &Look, plan: &Plan) -> Said {
    let phase = look.memory.phase;
    let goes_on = !phase.is_over() && phase != Phase::Planned && !is_stalled(look, plan);
    let message = if goes_on { now(look, plan) } else { String::new() };
    say(if goes_on { "True" } else { "False" }, &plan.state, &message)
}

fn stalled(look: &Look, plan: &Plan) -> Said {
    if !is_stalled(look, plan) {
        return say("False", "NotStalled", "");
    }
    let message = match &look.memory.rollback {
        Some(rollback) if look.memory.phase == Phase::Failed => rollback.message.clone(),
        _ => now(look, plan),
    };
    let reason = if look.memory.phase == Phase::Failed { "RollbackStuck" } else { &plan.state };
    say("True", reason, &message)
}

fn preflight(look: &Look, plan: &Plan) -> Said {
    let phase = look.memory.phase;
    if look.memory.baseline.is_some() {
        return say("True", "NoBlockingFindings", "");
    }
    match &plan.next {
        Next::Wait(_) if phase == Phase::Preflight || plan.state == "UnsupportedTarget" => {
            say("False", &plan.state, &now(look, plan))
        }
        // Nothing is begun, and whoever asked for a plan wants to know whether it could be.
        _ if phase == Phase::Planned && look.seen.findings.is_some() && look.seen.dry_runs.is_some() => {
            match blocked(look) {
                Some(why) => say("False", "PreflightFailed", &why),
                None => say("True", "NoBlockingFindings", ""),
            }
        }
        _ => say("Unknown", "NotAsked", "preflight has not begun"),
    }
}

fn guardrails(look: &Look) -> Said {
    let failed =
        look.memory.pause.as_ref().filter(|p| matches!(p.cause, Cause::MetricFailed | Cause::MetricInconclusive));
    if let Some(pause) = failed {
        return say("False", pause.cause.as_str(), &pause.message);
    }
    match &look.seen.gate {
        Gate::Off => say("True", "NoGuardrails", "spec.guardrails names no alerts to ask for"),
        Gate::Quiet(_) => say("True", "NoAlertsFiring", ""),
        Gate::Firing(alerts) => {
            let names: Vec<&str> = alerts.iter().take(10).map(|a| a.name.as_str()).collect();
            say("False", "AlertFiring", &format!("alerts fire: {}", names.join(", ")))
        }
        Gate::Unknown { why, .. } => say("Unknown", "PrometheusUnknown", why),
    }
}

fn verified(look: &Look) -> Said {
    let mut lowest = None;
    for pod in look.new_pods() {
        match look.verify(pod) {
            Verified::Yes(level) => lowest = Some(lowest.map_or(level, |l| level.min(l))),
            Verified::NotYet(why) => return say("False", "NotYet", &why),
            Verified::No(why) => return say("False", "ListenersRejected", &why),
        }
    }
    match lowest {
        Some(level) => say("True", &format!("{level:?}"), ""),
        None => say("Unknown", "NoNewPods", "no pod of the new revision serves yet"),
    }
}

fn rollback(look: &Look) -> Said {
    let phase = look.memory.phase;
    if phase == Phase::Completed {
        return match way_back(look) {
            Ok(()) => say("True", "OldRevisionKept", "spec.abort goes back"),
            Err((reason, message)) => say("False", reason, &message),
        };
    }
    if !phase.is_forward() {
        return say("False", if phase == Phase::RollingBack { "RollingBack" } else { "NothingToTakeBack" }, "");
    }
    if look.seen.from.ready {
        say("True", "OldControlPlaneReady", "")
    } else {
        say("False", "OldControlPlaneNotReady", &look.seen.from.why)
    }
}
