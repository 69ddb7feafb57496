//! The way back: old pods are raised first, then the autoscaler follows, then the new ones leave; at the end nothing is left of it.
//!
//! Neither alerts nor windows nor approvals hold it. It waits for the old revision's istiod alone, without which old pods would start
//! with nothing; meanwhile traffic stays where it is.

use std::sync::Arc;

use jiff::SignedDuration;

use super::keep::{keep, remove};
use super::place;
use crate::api::gateway_rollout::Promotion;
use crate::api::rollout_status::{Completion, Phase};
use crate::rollout::hold::resume;
use crate::rollout::look::{GO, Go, Look, after};
use crate::rollout::memory::{Cause, Memory, PauseMemory, Reason};
use crate::rollout::step::{Step, Which};

/// The longest that going back may take, what it waits for not counted.
const DEADLINE: SignedDuration = SignedDuration::from_mins(30);

/// Between why it goes back and why it does not get there.
const NOT_BACK: &str = "; it does not get back: ";

impl Look<'_> {
    pub fn is_back(&self) -> bool {
        self.memory.phase == Phase::RollingBack
    }

    /// It turns back from where no old pod had left.
    pub fn is_untouched(&self) -> bool {
        let from = self.memory.rollback.as_ref().map(|r| r.from);
        matches!(from, Some(Phase::Preparing | Phase::Probing | Phase::Progressing))
    }

    /// The batch that was begun, before anything else that only holds. A pause that was noted holds it as well.
    pub fn batch_first(&self) -> Go {
        if self.spec().abort || self.memory.pause.is_some() || self.contested().is_some() {
            return GO;
        }
        self.finish_batch()
    }

    /// Waits for something that going back needs.
    pub fn slow_back<T>(&self, on: String) -> Go<T> {
        let deadline = after(after(self.begun(), self.memory.paused_for), DEADLINE);
        if self.now < deadline {
            return self.wait(on, Some(deadline));
        }
        self.remember(|m| {
            self.enter(m, Phase::Failed);
            m.finished = Some(self.now);
            if let Some(rollback) = &mut m.rollback {
                // Said once, however often it was tried.
                let why = rollback.message.split(NOT_BACK).next().unwrap_or_default();
                rollback.message = format!("{why}{NOT_BACK}{on}");
            }
        })
    }
}

pub fn rolling_back(look: &Look) -> Go {
    keep(look)?;
    old_istiod(look)?;
    if look.is_in_place() {
        place::back(look)?;
    } else {
        look.finish_batch()?;
        parallel(look)?;
    }
    remove(look)?;
    if !look.is_in_place() {
        look.restore_autoscaler(Which::Source)?;
    }
    look.remember(|m| end(look, m))
}

fn end(look: &Look, m: &mut Memory) {
    let reason = m.rollback.as_ref().map(|r| r.reason);
    if reason == Some(Reason::SourceDrift) && !look.seen.rollout.deleting && !look.spec().abort {
        // From the beginning, with what the Deployment says now.
        *m = Memory { started: m.started, spent: m.spent, ..Memory::default() };
        look.enter(m, Phase::Preflight);
        return;
    }
    look.enter(m, Phase::RolledBack);
    let asked = matches!(reason, Some(Reason::Aborted | Reason::Deleted)) || look.spec().abort;
    m.completion = Some(if asked { Completion::Aborted } else { Completion::RolledBack });
    m.finished = Some(look.now);
}

/// Pods are still where they should not be.
fn is_moved(look: &Look) -> bool {
    if look.is_in_place() {
        return look.new_pods().next().is_some();
    }
    let others = [Which::Canary, Which::Standby];
    others.into_iter().any(|w| look.count(w).alive > 0 || look.replicas(w) > 0) || !look.is_source_old()
}

fn old_istiod(look: &Look) -> Go {
    let missing = is_moved(look) && !look.seen.from.ready;
    let held = look.memory.pause.is_some();
    if missing && !held {
        let message =
            format!("the old revision's istiod is not ready: {}; traffic stays where it is", look.seen.from.why);
        let generation = look.seen.rollout.generation;
        let pause = PauseMemory { cause: Cause::ControlPlaneNotReady, since: look.now, message, generation };
        return look.remember(|m| m.pause = Some(pause));
    }
    if held && !missing {
        return look.remember(|m| resume(m, look.now));
    }
    if missing {
        return look.wait_as("OldControlPlaneNotReady", "the old revision's istiod".to_owned(), None);
    }
    GO
}

/// The second Deployment is gone, and whoever scales the source has what was asked for: from here on that is not ours.
fn is_settled(look: &Look, replicas: u32) -> bool {
    let gone = [Which::Canary, Which::Standby].into_iter().all(|w| look.deployment(w).is_none());
    let source = look.seen.source.as_ref();
    gone && match look.hpa() {
        Some(hpa) if source.is_some_and(|s| s.name == hpa.target) => replicas >= hpa.min.max(1),
        Some(_) => false,
        None => replicas >= look.floor(),
    }
}

fn parallel(look: &Look) -> Go {
    let Some(source) = &look.seen.source else {
        return look.slow("the gateway's Deployment, which is gone".to_owned());
    };
    if !is_moved(look) && (look.is_untouched() || is_settled(look, source.replicas)) {
        return GO;
    }
    if look.is_source_old() {
        return look.turn(Which::Source);
    }
    let ours_to_patch = look.promotion() != Promotion::AwaitExternal;
    if source.replicas == 0 && ours_to_patch {
        look.await_still()?;
        let Some(from) = &look.memory.from else {
            return look.slow("the old revision's name, which was lost".to_owned());
        };
        return look.act(Step::Retemplate { held: source.held.clone(), revision: Arc::clone(from) });
    }
    // Old pods where the old template is kept; else the new ones stay where they are until the original is back.
    if look.deployment(Which::Standby).is_some() {
        look.turn(Which::Standby)?;
    } else if look.foreign(Which::Standby).is_none() {
        return look.act(Step::CreateStandby);
    } else if ours_to_patch && look.deployment(Which::Canary).is_some() {
        look.turn(Which::Canary)?;
    } else {
        return look.slow(
            "a Deployment for old pods: one of its name is there that is not of this rollout (NameTaken)".to_owned(),
        );
    }
    if ours_to_patch {
        return look.slow(format!("Deployment {} to be without pods", source.name));
    }
    let from = look.memory.from.as_deref().unwrap_or("the old revision");
    look.wait_as("AwaitingExternal", look.mover(from), None)
}
