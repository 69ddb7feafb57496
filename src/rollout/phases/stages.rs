//! A step of a rollout: pods arrive, are verified, soak, and wait for an approval. The same for a second Deployment and in place, which
//! differ only in how pods arrive.

use std::sync::Arc;

use super::keep::{copy_config, keep};
use crate::api::gateway_rollout::{Approval, OnUnavailable, Promotion, Step as SpecStep};
use crate::api::rollout_status::{Phase, Stage};
use crate::rollout::Next;
use crate::rollout::capacity::{Targets, targets};
use crate::rollout::look::{GO, Go, Look, after};
use crate::rollout::memory::{Cause, Measured, PauseMemory, StepMemory};
use crate::rollout::seen::Outcome;
use crate::rollout::steps;

/// How the pods come to be what a step wants.
pub type Arrive = fn(&Look, Targets) -> Go;

/// Where a step is, and what the spec says of it.
pub fn current<'a>(look: &Look<'a>) -> Option<(&'a StepMemory, &'a SpecStep)> {
    let step = look.memory.step.as_ref()?;
    Some((step, look.spec().strategy.steps.get(step.index)?))
}

pub fn first_step(look: &Look) -> Go {
    look.remember(|m| {
        m.step = Some(steps::begin(&look.spec().strategy.steps, 0));
        look.begin(m);
    })
}

/// Scaling, verifying, soaking, approval: of whatever step it is at.
pub fn stages(look: &Look, arrive: Arrive) -> Go {
    measure(look)?;
    look.hold()?;
    keep(look)?;
    copy_config(look)?;
    let Some((memory, step)) = current(look) else { return first_step(look) };
    let targets = targets(look.floor(), step, &look.spec().strategy);
    let stage = |stage: Stage| {
        look.remember(|m| {
            look.begin(m);
            if let Some(step) = &mut m.step {
                (step.stage, step.soak_until) = (stage, None);
            }
        })
    };
    match memory.stage {
        Stage::Scaling => {
            arrive(look, targets)?;
            stage(Stage::Verifying)
        }
        Stage::Verifying => {
            arrive(look, targets)?;
            look.await_verified()?;
            if look.memory.phase == Phase::Progressing && !look.is_in_place() && targets.old < look.floor() {
                return look.remember(|m| {
                    look.enter(m, Phase::HandingOver);
                    if let Some(step) = &mut m.step {
                        step.stage = Stage::Scaling;
                    }
                });
            }
            look.remember(|m| {
                look.begin(m);
                if let Some(memory) = &mut m.step {
                    (memory.stage, memory.soak_until) = (Stage::Soaking, Some(after(look.now, step.soak.signed())));
                    memory.measured.clear();
                }
            })
        }
        Stage::Soaking => soaking(look, arrive(look, targets)),
        Stage::AwaitingApproval if look.is_approved(&step.name) => next(look),
        Stage::AwaitingApproval => await_approval(look, step),
    }
}

fn soaking(look: &Look, arrived: Go) -> Go {
    // Pods may come and go while it is watched; what they need is done at once, and waited for at the end.
    if let Go::Break(now) = &arrived
        && !matches!(now.next, Next::Wait(_))
    {
        return arrived;
    }
    let Some((memory, step)) = current(look) else { return GO };
    let until = memory.soak_until.unwrap_or(look.now);
    if look.now < until {
        return look.wait(format!("the soak of step {}", step.name), Some(until));
    }
    if arrived.is_break() || look.await_verified().is_break() {
        return look.remember(|m| {
            look.begin(m);
            if let Some(step) = &mut m.step {
                (step.stage, step.soak_until) = (Stage::Scaling, None);
            }
        });
    }
    measured(look, memory)?;
    look.may_move()?;
    if step.approval == Approval::Required && !look.is_approved(&step.name) {
        return await_approval(look, step);
    }
    next(look)
}

fn await_approval(look: &Look, step: &SpecStep) -> Go {
    let message = format!("step {} waits for approval", step.name);
    look.remember(|m| {
        if m.step.as_ref().is_some_and(|s| s.stage != Stage::AwaitingApproval) {
            look.begin(m);
        }
        if let Some(step) = &mut m.step {
            step.stage = Stage::AwaitingApproval;
        }
        let generation = look.seen.rollout.generation;
        m.pause = Some(PauseMemory { cause: Cause::Approval, since: look.now, message, generation });
    })
}

/// The next step, or what follows the last.
fn next(look: &Look) -> Go {
    let Some((memory, _)) = current(look) else { return GO };
    let index = memory.index + 1;
    if index < look.spec().strategy.steps.len() {
        return look.remember(|m| {
            m.step = Some(steps::begin(&look.spec().strategy.steps, index));
            look.begin(m);
        });
    }
    let phase = if look.is_in_place() || look.promotion() == Promotion::KeepRevisioned {
        Phase::Finalizing
    } else {
        Phase::Promoting
    };
    look.remember(|m| look.enter(m, phase))
}

/// Takes down what metrics came to, each evaluation once.
fn measure(look: &Look) -> Go {
    let Some(step) = &look.memory.step else { return GO };
    if !matches!(step.stage, Stage::Soaking | Stage::AwaitingApproval) {
        return GO;
    }
    let begun = look.memory.since.unwrap_or(look.now);
    let mut all = step.measured.clone();
    for result in &look.seen.metrics {
        let Some(metric) = look.spec().guardrails.metrics.iter().find(|m| m.name == result.name) else { continue };
        // A window that reaches back into the step before would judge that one.
        if result.at < after(begun, metric.window.signed()) {
            continue;
        }
        let failed = u32::from(result.outcome == Outcome::Failed);
        match all.iter_mut().find(|m| *m.name == *result.name) {
            Some(known) if known.at >= result.at => {}
            Some(known) => {
                (known.last, known.at, known.failures) =
                    (result.outcome, result.at, known.failures.saturating_add(failed))
            }
            None => {
                let name = Arc::from(result.name.as_str());
                all.push(Measured { name, failures: failed, last: result.outcome, at: result.at });
            }
        }
    }
    if all == step.measured {
        return GO;
    }
    look.remember(|m| {
        if let Some(step) = &mut m.step {
            step.measured = all;
        }
    })
}

/// A step ends only when every metric passes.
fn measured(look: &Look, step: &StepMemory) -> Go {
    for metric in &look.spec().guardrails.metrics {
        let known = step.measured.iter().find(|m| *m.name == *metric.name);
        let again = Some(after(look.now, metric.interval.signed()));
        match known.map(|m| m.last) {
            Some(Outcome::Passed) => {}
            None => return look.wait(format!("the first evaluation of metric {}", metric.name), again),
            Some(Outcome::Failed) => return look.wait(format!("metric {} to pass", metric.name), again),
            Some(Outcome::Inconclusive) if metric.on_inconclusive == OnUnavailable::Continue => {}
            Some(Outcome::Inconclusive) => {
                let message = format!("metric {} says nothing: too few samples, or no single number", metric.name);
                return look.pause(Cause::MetricInconclusive, message);
            }
        }
    }
    GO
}
