//! After the end, and when the object itself is to go: what is kept for the way back, what is still waited for, what is left to remove.

use std::sync::Arc;

use super::before::recover;
use super::keep::{copy_config, let_go, remove, unlock};
use crate::api::gateway_rollout::{OnDelete, Until};
use crate::api::rollout_status::Phase;
use crate::rollout::look::{GO, Go, Look, after, pods};
use crate::rollout::memory::Reason;
use crate::rollout::step::{Step, Which};

pub fn completed(look: &Look) -> Go {
    if look.spec().abort && way_back(look).is_ok() {
        return look.back(Reason::Aborted, "spec.abort is set".to_owned());
    }
    let_go(look)?;
    unlock(look)?;
    if is_still_on(look) {
        copy_config(look)?;
    }
    leftover(look)?;
    if let Some(standby) = look.deployment(Which::Standby).filter(|_| is_standby_over(look)) {
        return drop_idle(look, Which::Standby, standby.replicas);
    }
    if look.deployment(Which::Standby).is_none() {
        drop_former(look)?;
        // In place nothing else is kept for the way back. Whoever deletes the object gives it up.
        if look.seen.config.former.is_none() {
            release(look)?;
        }
        expire(look)?;
    }
    let ends = look.memory.finished.filter(|_| look.spec().standby.until == Until::Duration);
    let until =
        ends.map(|f| after(f, look.spec().standby.ttl.signed())).filter(|_| look.deployment(Which::Standby).is_some());
    rest(look, until)
}

/// No later rollout has moved the gateway on: what it mounts is this one's to keep.
fn is_still_on(look: &Look) -> bool {
    look.deployment(look.active()).is_some_and(|d| d.template.revision.as_deref() == Some(look.to()))
}

/// The mesh configuration of a revision that nothing leads back to.
fn drop_former(look: &Look) -> Go {
    let Some(former) = &look.seen.config.former else { return GO };
    let held = !look.seen.others.is_empty() || look.locked_by().is_some();
    if held || !look.seen.rollout.deleting && way_back(look).is_ok() {
        return GO;
    }
    if former.ending {
        return look.wait(format!("the end of the last pods that mount ConfigMap {}", former.name), None);
    }
    look.act(Step::DropConfig { name: Arc::clone(&former.name), held: former.held.clone() })
}

/// Of a Deployment that only a late write can have left.
fn leftover(look: &Look) -> Go {
    if look.active() == Which::Canary || look.is_in_place() {
        return GO;
    }
    let Some(canary) = look.deployment(Which::Canary) else { return GO };
    drop_idle(look, Which::Canary, canary.replicas)
}

fn drop_idle(look: &Look, which: Which, replicas: u32) -> Go {
    let Some(deployment) = look.deployment(which) else { return GO };
    if replicas > 0 || look.count(which).alive > 0 {
        return look
            .wait(format!("Deployment {} to be without pods: somebody has scaled it up", deployment.name), None);
    }
    if deployment.deleting {
        return look.wait(format!("the end of Deployment {}", deployment.name), None);
    }
    look.act(Step::DropDeployment { which, held: deployment.held.clone() })
}

fn is_standby_over(look: &Look) -> bool {
    let standby = &look.spec().standby;
    let expired = look.memory.finished.is_some_and(|f| look.now >= after(f, standby.ttl.signed()));
    !look.seen.from.installed || standby.until == Until::Duration && expired
}

/// Whether it can still go back after the end, or why not.
///
/// # Errors
/// One word, and a sentence.
pub fn way_back(look: &Look) -> Result<(), (&'static str, String)> {
    let from = look.memory.from.as_deref().unwrap_or("the old revision");
    if !look.seen.from.installed {
        return Err(("OldRevisionRemoved", format!("{from} is not installed any more")));
    }
    if look.baseline().is_none() {
        return Err(("BaselineLost", "what the gateway was before is not known any more".to_owned()));
    }
    if !look.seen.others.is_empty() || look.locked_by().is_some() {
        return Err(("LockHeld", "another rollout has this gateway in its hands".to_owned()));
    }
    let Some(source) = &look.seen.source else {
        return Err(("SourceMissing", "the gateway's Deployment is gone".to_owned()));
    };
    let kept = look.is_in_place() || look.is_source_old() || look.deployment(Which::Standby).is_some();
    if kept {
        return Ok(());
    }
    Err(("StandbyRemoved", format!("Deployment {} has the new template, and no standby was kept", source.name)))
}

pub fn rolled_back(look: &Look) -> Go {
    let_go(look)?;
    unlock(look)?;
    // A late write may have made it anew.
    if look.memory.baseline.is_some() && look.deployment(Which::Canary).is_none_or(|d| d.replicas == 0) {
        remove(look)?;
    }
    release(look)?;
    expire(look)?;
    rest(look, None)
}

pub fn failed(look: &Look) -> Go {
    let resumed = look.seen.rollout.approval.as_ref().filter(|a| &*a.step == "resume" && !look.memory.spent);
    if let Some(resumed) = resumed {
        return look.remember(|m| {
            m.approvals.push((resumed.step.clone(), resumed.by.clone(), look.now));
            m.spent = true;
            look.enter(m, Phase::RollingBack);
            (m.completion, m.finished) = (None, None);
        });
    }
    rest(look, None)
}

/// Nothing follows by itself, but for pods set apart and times that come.
fn rest(look: &Look, until: Option<jiff::Timestamp>) -> Go {
    let apart = look.apart_until();
    if look.apart > 0 {
        let until = [until, apart].into_iter().flatten().min();
        return look.wait(format!("{} set apart to finish what they have", pods(look.apart)), until);
    }
    let expires = look.memory.finished.filter(|_| !look.spec().ttl_after_finished.is_zero());
    let expires = expires
        .filter(|_| look.memory.phase != Phase::Failed)
        .map(|f| after(f, look.spec().ttl_after_finished.signed()));
    let standby = look.deployment(Which::Standby).is_some();
    match [until, expires.filter(|_| !standby)].into_iter().flatten().min() {
        Some(until) => look.wait("its time after the end to be over (spec.ttlAfterFinished)".to_owned(), Some(until)),
        None if standby => look.wait("the old revision to be removed".to_owned(), None),
        None => GO,
    }
}

/// The object may go whenever somebody wants it to.
fn release(look: &Look) -> Go {
    if look.seen.rollout.finalizer && look.apart == 0 {
        return look.act(Step::Release { held: look.seen.rollout.held.clone() });
    }
    GO
}

/// Its time is over.
fn expire(look: &Look) -> Go {
    let ttl = look.spec().ttl_after_finished;
    let over = look.memory.finished.is_some_and(|f| !ttl.is_zero() && look.now >= after(f, ttl.signed()));
    if over && look.apart == 0 && !look.seen.rollout.deleting {
        return look.act(Step::DropRollout { held: look.seen.rollout.held.clone() });
    }
    GO
}

/// Somebody has deleted the object, and it stays until this is done.
pub fn deleting(look: &Look) -> Go {
    if !look.seen.rollout.finalizer {
        // Nothing of it is left to be waited for, and nothing could be.
        return look.stop(crate::rollout::Next::Done, Some("Deleting"));
    }
    if look.memory.started.is_none() {
        // Of a status that was lost nothing says that there is nothing to take back.
        recover(look)?;
    }
    let phase = look.memory.phase;
    if phase == Phase::RollingBack {
        return GO;
    }
    if phase.is_forward() && look.spec().on_delete == OnDelete::Rollback {
        return look.back(Reason::Deleted, "the rollout was deleted before its end".to_owned());
    }
    if phase == Phase::Completed
        && let Some(standby) = look.deployment(Which::Standby)
    {
        drop_idle(look, Which::Standby, standby.replicas)?;
    }
    if phase == Phase::Completed {
        drop_former(look)?;
    }
    if look.apart > 0 {
        let on = format!("{} set apart to finish what they have", pods(look.apart));
        return look.wait_as("Deleting", on, look.apart_until());
    }
    let_go(look)?;
    unlock(look)?;
    look.act(Step::Release { held: look.seen.rollout.held.clone() })
}
