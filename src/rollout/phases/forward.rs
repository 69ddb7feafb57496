//! From the first pod that serves to the last old one that leaves: the autoscaler's handing over, draining, promotion, and what is put
//! back at the end. What a step is made of stands in [`super::stages`].

use std::sync::Arc;

use jiff::SignedDuration;

use super::keep::{copy_config, keep};
use super::place;
use super::stages::{current, first_step, stages};
use crate::api::gateway_rollout::Promotion;
use crate::api::rollout_status::{Completion, Phase, Stage};
use crate::rollout::capacity::targets;
use crate::rollout::look::{GO, Go, Look, after};
use crate::rollout::seen::Map;
use crate::rollout::step::{Step, Which};

/// Who waits for somebody else's change is reminded of it so often, because an Event is kept for an hour: what was said before something
/// else was remembered is said again.
const REMINDER: SignedDuration = SignedDuration::from_hours(1);

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
        m.needs(floor);
    })
}

pub fn draining(look: &Look) -> Go {
    keep(look)?;
    look.batch_first()?;
    stages(look, |look, targets| look.shift(targets.new, targets.old))
}

pub fn promoting(look: &Look) -> Go {
    keep(look)?;
    look.batch_first()?;
    look.hold()?;
    copy_config(look)?;
    if look.spec().standby.keep && look.deployment(Which::Standby).is_none() {
        return look.act(Step::CreateStandby);
    }
    let asked = look.asked();
    if look.baseline().is_some_and(|b| b.replicas < asked) {
        return look.remember(|m| m.needs(asked));
    }
    let Some(source) = &look.seen.source else { return GO };
    if !look.is_source_new() {
        // Until the original can take over, the second Deployment carries everything.
        look.grow(Which::Canary, look.floor())?;
        look.hand(Which::Canary)?;
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
    look.wait_as("AwaitingExternal", look.mover(look.to()), Some(again))
}

pub fn finalizing(look: &Look) -> Go {
    look.hold()?;
    if look.is_in_place() {
        place::restore(look)?
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
