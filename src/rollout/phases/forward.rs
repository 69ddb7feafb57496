//! From the first pod that serves to the last old one that leaves: steps with their stages, the autoscaler's handing over, draining,
//! promotion, and what is put back at the end.

use std::sync::Arc;

use jiff::SignedDuration;

use super::prepare::{copy_config, keep};
use crate::api::gateway_rollout::{Approval, OnUnavailable, Promotion, Step as SpecStep};
use crate::api::rollout_status::{Completion, Phase, Stage};
use crate::rollout::capacity::{Targets, targets};
use crate::rollout::look::{GO, Go, Look, after};
use crate::rollout::memory::{Cause, Measured, PauseMemory, StepMemory};
use crate::rollout::seen::{Map, Outcome};
use crate::rollout::step::{Next, Step, Which};
use crate::rollout::steps;

/// Who waits for somebody else's change is reminded of it so often.
const REMINDER: SignedDuration = SignedDuration::from_hours(1);

/// How the pods come to be what a step wants.
type Arrive = fn(&Look, Targets) -> Go;

pub fn progressing(look: &Look) -> Go {
    stages(look, |look, targets| look.surge(targets.new))
}

pub fn handing_over(look: &Look) -> Go {
    look.hold()?;
    keep(look)?;
    let Some((_, step)) = current(look) else { return first_step(look) };
    let targets = targets(look.floor(), step, &look.spec().strategy);
    look.surge(targets.new)?;
    look.may_move()?;
    look.hand(Which::Canary)?;
    let floor = look.floor();
    look.remember(|m| {
        look.enter(m, Phase::Draining);
        m.batch = None;
        if let Some(step) = &mut m.step {
            step.stage = Stage::Scaling;
        }
        // From here on nobody else can say how many are needed, unless an autoscaler does.
        if let Some(baseline) = &mut m.baseline
            && baseline.replicas < floor
        {
            Arc::make_mut(baseline).replicas = floor;
        }
    })
}

pub fn draining(look: &Look) -> Go {
    keep(look)?;
    look.batch_first()?;
    stages(look, |look, targets| look.shift(targets.new, targets.old))
}

/// Where a step is, and what the spec says of it.
fn current<'a>(look: &Look<'a>) -> Option<(&'a StepMemory, &'a SpecStep)> {
    let step = look.memory.step.as_ref()?;
    Some((step, look.spec().strategy.steps.get(step.index)?))
}

fn first_step(look: &Look) -> Go {
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
    let message = format!(
        "step {} waits for approval; `revguard rollout approve {} {}`",
        step.name, look.seen.rollout.name, step.name
    );
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

pub fn promoting(look: &Look) -> Go {
    keep(look)?;
    look.batch_first()?;
    look.hold()?;
    copy_config(look)?;
    if look.spec().standby.keep && look.deployment(Which::Standby).is_none() {
        return look.act(Step::CreateStandby);
    }
    let Some(source) = &look.seen.source else { return GO };
    if !look.is_source_new() {
        // Until the original can take over, the second Deployment carries everything.
        look.grow(Which::Canary, look.floor())?;
        look.shrink(Which::Source, 0)?;
        look.await_still()?;
        look.may_move()?;
        if look.promotion() == Promotion::AwaitExternal {
            return await_external(look);
        }
        return look.act(Step::Retemplate { held: source.held.clone(), revision: Arc::from(look.to()) });
    }
    if source.observed < source.generation {
        return look.slow(format!("Deployment {} to be noticed by its controller", source.name));
    }
    look.turn(Which::Source)?;
    match look.deployment(Which::Canary) {
        Some(canary) if canary.deleting => look.slow(format!("the end of Deployment {}", canary.name)),
        Some(canary) => look.act(Step::DropDeployment { which: Which::Canary, held: canary.held.clone() }),
        None => look.remember(|m| look.enter(m, Phase::Finalizing)),
    }
}

fn await_external(look: &Look) -> Go {
    let again = after(look.memory.since.unwrap_or(look.now), REMINDER);
    if look.now >= again {
        return look.remember(|m| look.begin(m));
    }
    let name = look.seen.source.as_ref().map_or("", |s| &*s.name);
    let on = format!("whoever owns Deployment {name} to move its template to {}", look.to());
    look.wait_as("AwaitingExternal", on, Some(again))
}

pub fn finalizing(look: &Look) -> Go {
    look.hold()?;
    if look.is_in_place() {
        super::place::restore(look)?
    } else {
        look.restore_autoscaler(look.active())?
    }
    relabel(look)?;
    look.remember(|m| {
        look.enter(m, Phase::Completed);
        (m.completion, m.finished) = (Some(Completion::Completed), Some(look.now));
    })
}

/// What an uninstallation of the old revision would take along, and is still needed, gets the new revision's label.
fn relabel(look: &Look) -> Go {
    let old = look.memory.from.as_deref();
    let seen = look.seen;
    let services = seen.services.iter().map(|s| ("Service", &s.name, &s.held, &s.pruned_with));
    let hpas =
        seen.hpas.iter().filter(|h| !h.owned).map(|h| ("HorizontalPodAutoscaler", &h.name, &h.held, &h.pruned_with));
    let pdbs = seen.pdbs.iter().map(|p| ("PodDisruptionBudget", &p.name, &p.held, &p.pruned_with));
    let pruned = services.chain(hpas).chain(pdbs).find(|(.., with)| with.is_some() && with.as_deref() == old);
    let Some((kind, name, held, _)) = pruned else { return GO };
    let labels = Map::from([(crate::model::key::REV.to_owned(), look.to().to_owned())]);
    look.act(Step::Relabel { kind, name: Arc::clone(name), held: held.clone(), labels })
}
