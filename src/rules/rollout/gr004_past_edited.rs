//! # GR004 past-edited
//!
//! ## What
//! An edit of a GatewayRollout that is under way, of what has been decided or done:
//!
//! - a step at or before the one that it is at;
//! - `strategy.type`, `strategy.capacity`, `flavor`, `services`; `strategy.promotion` once it promotes;
//! - `dryRun`, set while the gateway is in its hands.
//!
//! Steps to come, pauses, drains, guardrails, deadlines and the standby can be changed at any time.
//!
//! ## Why
//! What was done was done by what the object said then: pods were verified and watched for as long as the step wanted, and somebody
//! may have approved it. Changed afterwards, nobody could tell any more what has been proven.
//!
//! ## What to do
//! Put the edited part back and change what is to come. To begin anew, have it go back (`abort: true`) and create another one.
//!
//! ## When to allow
//! Never needed.

use super::{named, object, set};
use crate::model::{Rollout, RolloutState, RolloutStep};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "GR004",
    name: "past-edited",
    summary: "steps that a GatewayRollout has taken, or what was decided when it started, are changed",
    reads: &[Field::Spec],
    checks: &[Check::Rollout(check)],
    source: include_str!("gr004_past_edited.rs"),
};

const WHY: &str =
    "what was done was done and proven by what the object said then; changed afterwards, its record would be wrong.";

fn check(new: &Rollout, old: Old<'_, Rollout>, _: &View<'_>) -> Found {
    let Some(old) = old.get().filter(|o| o.state != RolloutState::Waiting && !o.is_over()) else {
        return Ok(Vec::new());
    };
    let mut found: Vec<Finding> = old.step.and_then(|at| step(new, old, at as usize)).into_iter().collect();
    for ((part, was), (_, is)) in old.fixed.iter().zip(&new.fixed) {
        // What the gateway is called in the end is open until it is given the name.
        if was == is || *part == "strategy.promotion" && old.state != RolloutState::Promoting {
            continue;
        }
        let said = if was.is_empty() { "unset" } else { was.as_str() };
        found.push(Finding::deny(format!("spec.{part}"), is.as_str()).says(
            format!("{part} of {} was {said} when it started, and cannot change any more.", named(old)),
            WHY,
            format!("put spec.{part} back; to begin anew: {}\n(and create another GatewayRollout)", set(old, "abort")),
        ));
    }
    if new.dry_run && !old.dry_run && old.is_active() {
        found.push(Finding::deny("spec.dryRun", "true").says(
            format!("{} is under way: it is no dry run any more.", named(old)),
            "the gateway is in its hands; it can be held or taken back.",
            format!("{}\n(holds it; to go back: {})", set(old, "paused"), set(old, "abort")),
        ));
    }
    Ok(found)
}

/// The first of the steps up to the present one that is another now.
fn step(new: &Rollout, old: &Rollout, at: usize) -> Option<Finding> {
    let (i, was) = old.steps.iter().enumerate().take(at + 1).find(|(i, was)| new.steps.get(*i) != Some(*was))?;
    let now = new.steps.get(i).map_or_else(|| "gone".to_owned(), words);
    let present = old.steps.get(at).map_or("", |s| s.name.as_str());
    Some(Finding::deny(format!("spec.strategy.steps[{i}]"), now.as_str()).says(
        format!(
            "step {} of {} is past or present (it is at {present}): it was {}, and would be {now}.",
            i + 1,
            named(old),
            words(was)
        ),
        WHY,
        format!("kubectl get {} -o jsonpath='{{.spec.strategy.steps}}'\n(leave steps 1 to {} as they are; later ones can be changed)", object(old), at + 1),
    ))
}

fn words(step: &RolloutStep) -> String {
    let approval = if step.approval { ", to be approved" } else { "" };
    format!("{} ({}{approval})", step.name, step.what)
}
