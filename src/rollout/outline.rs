//! What a person reads of a plan: what is still to be done, what has just changed, and what is to be typed.

use super::capacity::{surge, targets};
use super::look::{Event, Look, pods};
use super::memory::{Memory, PauseMemory};
use super::seen::Rollout;
use crate::api::gateway_rollout::{Approval, DrainMode, ProbeMode, Promotion};
use crate::api::rollout_status::Phase;

/// Why a Gateway API Gateway is refused.
pub const UNSUPPORTED: &str = "target.gateway is not supported yet: istiod re-renders the Deployment of a Gateway by itself, and old pods \
    of most versions lose their configuration when it does; move such a Gateway by its label istio.io/rev";

/// What is still to be done, one line each.
pub fn outline(look: &Look) -> Vec<String> {
    let phase = look.memory.phase;
    let mut lines = Vec::new();
    if phase.is_over() || look.spec().target.deployment.is_none() {
        return lines;
    }
    if phase == Phase::RollingBack {
        lines.push(format!(
            "raise the old revision to {}, hand it the autoscaler, drain the new one",
            pods(look.floor())
        ));
        lines.push("remove what was made, put back what was changed".to_owned());
        return lines;
    }
    if phase < Phase::Probing {
        prepare(look, &mut lines);
    }
    if phase < Phase::Progressing {
        match look.spec().probe.mode {
            ProbeMode::DarkPod => lines.push("prove a pod of the new revision that nothing is routed to".to_owned()),
            ProbeMode::DryRunOnly => lines.push("ask the API server and the injector for a dry-run".to_owned()),
            ProbeMode::None => {}
        }
    }
    if phase < Phase::Promoting {
        steps(look, &mut lines);
    }
    finish(look, &mut lines);
    lines
}

fn prepare(look: &Look, lines: &mut Vec<String>) {
    if look.seen.config.needed {
        lines.push(format!("copy ConfigMap {} beside the gateway", look.seen.config.name));
    }
    if look.is_in_place() {
        lines.push(
            "pause the Deployment; its pods leave as they drain by themselves, longer requests are cut".to_owned(),
        );
        return;
    }
    lines.push(format!("create a second Deployment of revision {} behind the same Services", look.to()));
    if let Some(hpa) = look.hpa() {
        lines.push(format!("hold autoscaler {} at {} or more", hpa.name, pods(look.floor())));
    }
    let drain = look.memory.drain.as_ref();
    let apart = drain.map_or(look.spec().strategy.drain.mode == DrainMode::SetApart, |d| d.0 == DrainMode::SetApart);
    match &look.seen.apart_key {
        Err(why) if look.spec().strategy.drain.mode == DrainMode::SetApart => {
            lines.push(format!("old pods will be terminated, not set apart: {why}"));
        }
        Ok(key) if apart => lines.push(format!("old pods will be set apart by label {key} before they are deleted")),
        _ => lines.push("old pods will be terminated, and drain as long as they do by themselves".to_owned()),
    }
}

fn steps(look: &Look, lines: &mut Vec<String>) {
    let strategy = &look.spec().strategy;
    let (floor, from) = (look.floor(), look.memory.step.as_ref().map_or(0, |s| s.index));
    if let Some(surge) = surge(floor, strategy) {
        lines.push(format!("run at most {} more than {floor}", pods(surge)));
    }
    for (i, step) in strategy.steps.iter().enumerate().skip(from) {
        let t = targets(floor, step, strategy);
        let approval = if step.approval == Approval::Required { ", then wait for approval" } else { "" };
        let (of, name) = (strategy.steps.len(), &step.name);
        lines.push(format!(
            "step {}/{of} {name}: {} new, {} old, watched for {}{approval}",
            i + 1,
            t.new,
            t.old,
            step.soak
        ));
    }
}

fn finish(look: &Look, lines: &mut Vec<String>) {
    if look.is_in_place() {
        lines.push("put pause and strategy of the Deployment back".to_owned());
        return;
    }
    let promotion = look.memory.promotion.unwrap_or(look.spec().strategy.promotion);
    if look.memory.phase < Phase::Finalizing {
        match promotion {
            Promotion::KeepRevisioned => {
                lines.push("the second Deployment keeps its name, the original stays without pods".to_owned())
            }
            Promotion::AwaitExternal => {
                let owner = look.seen.source.as_ref().and_then(|source| source.owner.as_ref());
                lines.push(format!(
                    "wait until {} moves the original to {}, then let it take over",
                    owner.map_or("whoever owns it", |owner| owner.tool),
                    look.to()
                ));
            }
            Promotion::PatchOriginal | Promotion::Auto => {
                lines.push(format!(
                    "move the original to {}, let it take over, remove the second Deployment",
                    look.to()
                ));
            }
        }
    }
    if look.hpa().is_some() {
        lines.push("give the autoscaler its bounds back".to_owned());
    }
}

/// What holds it, and what to type where it does not end by itself.
pub fn held(pause: &PauseMemory, rollout: &Rollout) -> String {
    match pause.cause.way_on() {
        Some(verb) => {
            let Rollout { name, namespace, .. } = rollout;
            format!("{}; `revguard rollout {verb} {name} -n {namespace}` lets it go on", pause.message)
        }
        None => pause.message.clone(),
    }
}

/// What has just changed, said once.
pub fn events(before: &Memory, after: &Memory, rollout: &Rollout, out: &mut Vec<Event>) {
    let mut say = |reason: &str, note: String, warning: bool| out.push((reason.to_owned(), note, warning));
    if before.phase != after.phase {
        let warning = matches!(after.phase, Phase::RollingBack | Phase::Failed);
        let note = match (&after.rollback, warning) {
            (Some(back), true) => format!("from {}: {}: {}", before.phase.as_str(), back.reason.as_str(), back.message),
            _ => format!("from {}", before.phase.as_str()),
        };
        say(after.phase.as_str(), note, warning);
    }
    match (&before.pause, &after.pause) {
        (None, Some(pause)) => say("Paused", format!("{}: {}", pause.cause.as_str(), held(pause, rollout)), true),
        (Some(pause), None) if before.phase == after.phase => {
            say("Resumed", format!("{} holds it no more", pause.cause.as_str()), false);
        }
        _ => {}
    }
    let at = |m: &Memory| m.step.as_ref().map(|s| (s.index, s.stage));
    if let (true, Some((index, stage))) = (before.phase == after.phase && at(before) != at(after), at(after)) {
        say(stage.as_str(), format!("step {}", index + 1), false);
    }
    let batch = |m: &Memory| m.batch.as_ref().map(|b| (b.which, b.to));
    if let (true, Some(batch)) = (batch(before) != batch(after), &after.batch) {
        let named = if batch.pods.is_empty() { String::new() } else { format!(": {}", batch.pods.join(", ")) };
        say("Batch", format!("pods of {} leave, {} stay{named}", batch.which.named(), batch.to), false);
    }
}
