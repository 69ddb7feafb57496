//! Before the first change: waiting for its turn, planning only, and preflight.

use std::sync::Arc;

use jiff::SignedDuration;

use super::keep::unlock;
use super::place;
use crate::api::gateway_rollout::{AtStart, DrainMode, Promotion};
use crate::api::rollout_status::{Baseline, Completion, Phase};
use crate::model::key;
use crate::rollout::look::{GO, Go, Look};
use crate::rollout::memory::{Cause, Memory, PauseMemory};
use crate::rollout::seen::{Gate, Severity};
use crate::rollout::step::Which;
use crate::rollout::{baseline, read, steps};

/// How long until guards are asked again; a change that is watched is noticed at once.
const UNTIL_ASKED: SignedDuration = SignedDuration::from_secs(60);

pub fn pending(look: &Look) -> Go {
    if look.memory.started.is_none() {
        recover(look)?;
        forgotten(look)?;
    }
    withdrawn(look)?;
    turn_taken(look)?;
    if look.spec().dry_run {
        return look.remember(|m| look.enter(m, Phase::Planned));
    }
    look.hold()?;
    look.may_move()?;
    look.remember(|m| {
        m.started = Some(look.now);
        look.enter(m, Phase::Preflight);
    })
}

pub fn planned(look: &Look) -> Go {
    withdrawn(look)?;
    if !look.spec().dry_run {
        return look.remember(|m| look.enter(m, Phase::Pending));
    }
    look.wait("spec.dryRun to be unset".to_owned(), Some(look.now + UNTIL_ASKED))
}

pub fn preflight(look: &Look) -> Go {
    withdrawn(look)?;
    // Begun again: what is written down beside the lock is of the time before.
    unlock(look)?;
    if look.spec().dry_run {
        return look.remember(|m| look.enter(m, Phase::Planned));
    }
    look.hold()?;
    turn_taken(look)?;
    let again = Some(look.now + UNTIL_ASKED);
    if look.seen.findings.is_none() || look.seen.dry_runs.is_none() {
        return look.wait("the guards to be asked".to_owned(), again);
    }
    if let Some(why) = blocked(look) {
        return look.wait_as("PreflightFailed", format!("preflight to pass: {why}"), again);
    }
    let mut ignored = Vec::new();
    if let Gate::Firing(alerts) = &look.seen.gate {
        let at_start = look.spec().guardrails.alerts.as_ref().map_or(AtStart::Block, |a| a.at_start);
        if at_start == AtStart::Block {
            let names: Vec<&str> = alerts.iter().map(|a| a.name.as_str()).collect();
            let on = format!(
                "alerts to end that fire already: {}; narrow guardrails.alerts.matchers if they are chronic",
                names.join(", ")
            );
            return look.wait_as("AlertFiring", on, again);
        }
        ignored = alerts.iter().map(|a| a.fingerprint.clone()).collect();
    }
    look.may_move()?;
    let Some(from) = observed(look) else {
        let on = "spec.fromRevision: the ready pods do not say which one revision they are of".to_owned();
        return look.wait_as("PreflightFailed", on, again);
    };
    let Some(baseline) = baseline::capture(look) else { return GO };
    look.remember(|m| {
        m.from = Some(from);
        m.baseline = Some(Arc::new(baseline));
        m.ignored_alerts = ignored;
        decide(look, m);
        look.enter(m, Phase::Preparing);
    })
}

/// Nothing was changed yet: it is simply over.
fn withdrawn(look: &Look) -> Go {
    if !look.spec().abort {
        return GO;
    }
    look.remember(|m| {
        look.enter(m, Phase::RolledBack);
        (m.completion, m.finished) = (Some(Completion::Aborted), Some(look.now));
    })
}

/// There is a gateway, and nobody else has it in their hands.
fn turn_taken(look: &Look) -> Go {
    let again = Some(look.now + UNTIL_ASKED);
    let Some(source) = &look.seen.source else {
        let name = look.spec().target.deployment.as_ref().map_or("", |d| d.name.as_str());
        let on = format!("Deployment {name}, which is not in namespace {}", look.seen.rollout.namespace);
        return look.wait_as("SourceMissing", on, again);
    };
    if !look.seen.others.is_empty() {
        return look.wait_as("LockHeld", format!("GatewayRollout {} to end", look.seen.others.join(", ")), again);
    }
    if let Some(holder) = look.locked_by() {
        let on = format!(
            "the rollout with uid {holder} to give Deployment {} back; if there is none any more: kubectl annotate deployment {} -n {} {}-",
            source.name,
            source.name,
            look.seen.rollout.namespace,
            key::ACTIVE_ROLLOUT
        );
        return look.wait_as("LockHeld", on, again);
    }
    GO
}

/// The first thing that stands against it.
pub fn blocked(look: &Look) -> Option<String> {
    // What dry-runs have refused is among the findings.
    let (Some(findings), Some(_)) = (&look.seen.findings, &look.seen.dry_runs) else {
        return Some("the guards were not asked yet".to_owned());
    };
    // What a person may accept, and has, is a warning by now.
    let mut blocking = findings.iter().filter(|f| f.severity == Severity::Block);
    if let Some(first) = blocking.next() {
        let more = blocking.count();
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        return Some(format!("{} at {}: {}{more}", first.guard, first.object, first.what));
    }
    let (from, to) = (&look.seen.from, &look.seen.to);
    if !to.ready {
        return Some(format!("istiod of {} is not ready: {}", look.to(), to.why));
    }
    (!from.ready).then(|| format!("the old revision's istiod is not ready: {}", from.why))
}

/// The revision that the gateway is on.
fn observed(look: &Look) -> Option<Arc<str>> {
    if let Some(from) = &look.spec().from_revision {
        return Some(Arc::from(from.as_str()));
    }
    let mut all: Vec<&Arc<str>> =
        look.pods(Which::Source).filter(|p| p.ready).filter_map(|p| p.revision.as_ref()).collect();
    all.sort();
    all.dedup();
    match all[..] {
        [one] => Some(Arc::clone(one)),
        _ => None,
    }
}

/// What is decided before it starts, and not again.
pub fn decide(look: &Look, m: &mut Memory) {
    let Some(source) = &look.seen.source else { return };
    let strategy = &look.spec().strategy;
    m.flavor = read::flavor(source, look.spec());
    if look.is_in_place() {
        return;
    }
    m.promotion = Some(match strategy.promotion {
        Promotion::Auto if source.owner.is_some() => Promotion::AwaitExternal,
        Promotion::Auto => Promotion::PatchOriginal,
        said => said,
    });
    m.drain = Some(match (strategy.drain.mode, &look.seen.apart_key) {
        (DrainMode::SetApart, Ok(key)) => (DrainMode::SetApart, Some(Arc::clone(key))),
        _ => (DrainMode::Terminate, None),
    });
}

/// The lock is ours and the status knows nothing of it: it was lost, and the baseline on the Deployment was not. A person has to
/// look at it before it goes on; going back is possible at once.
pub fn recover(look: &Look) -> Go {
    if !look.is_locked() || look.baseline().is_some() {
        return GO;
    }
    let Some(source) = &look.seen.source else { return GO };
    let kept = source.annotations.get(key::BASELINE).and_then(|text| serde_json::from_str::<Baseline>(text).ok());
    // What is there now may be half-way; that it stands still is surely ours.
    let now = || {
        let mut baseline = baseline::capture(look)?;
        baseline.deployment.paused &= !look.is_in_place();
        Some(baseline)
    };
    let Some(baseline) = kept.or_else(now) else { return GO };
    let from = observed_of(look, &baseline);
    let phase = derived(look, &baseline);
    let message = format!(
        "the status of this rollout was lost; it goes on from {} once it is resumed, or back with spec.abort",
        phase.as_str()
    );
    look.remember(|m| {
        m.from = from;
        decide(look, m);
        look.enter(m, phase);
        m.started = m.started.or(Some(look.now));
        m.step = Some(steps::begin(&look.spec().strategy.steps, 0));
        m.baseline = Some(Arc::new(baseline));
        let generation = look.seen.rollout.generation;
        m.pause = Some(PauseMemory { cause: Cause::StatusLost, since: look.now, message, generation });
    })
}

/// It has made the Deployment that serves, and neither status nor lock knows of it: after its end both are gone. Whoever says that it has not
/// begun, or that it is over, would be wrong.
fn forgotten(look: &Look) -> Go {
    let made = [Which::Canary, Which::Standby].into_iter().find_map(|which| look.deployment(which));
    let Some(made) = made.filter(|_| !look.is_locked() && look.replicas(Which::Source) == 0) else { return GO };
    let on = format!(
        "a person: the status of this rollout was lost after its end, and Deployment {} of it is there. Put the status back from a copy, or \
         delete the rollout, which leaves that Deployment as it is",
        made.name
    );
    look.wait_as("StatusLost", on, None)
}

fn observed_of(look: &Look, baseline: &Baseline) -> Option<Arc<str>> {
    let said = look.spec().from_revision.as_deref().map(Arc::from);
    let source = look.seen.source.as_ref();
    let same = source.filter(|s| *s.template.hash == *baseline.deployment.template_hash);
    said.or_else(|| same?.template.revision.clone()).or_else(|| {
        look.pods(Which::Standby)
            .chain(look.pods(Which::Source))
            .find_map(|p| p.revision.clone())
            .filter(|r| **r != *look.to())
    })
}

/// Where it must have been, from what there is.
fn derived(look: &Look, baseline: &Baseline) -> Phase {
    if look.is_in_place() {
        let begun = look.seen.source.as_ref().is_some_and(place::is_paced);
        return if begun { Phase::Progressing } else { Phase::Preparing };
    }
    let Some(canary) = look.deployment(Which::Canary) else {
        return if look.is_source_new() { Phase::Promoting } else { Phase::Preparing };
    };
    if look.is_source_new() || look.deployment(Which::Standby).is_some() {
        return Phase::Promoting;
    }
    let handed = look.hpa().is_some_and(|h| h.target == canary.name);
    if handed || look.replicas(Which::Source) < baseline.replicas { Phase::Draining } else { Phase::Progressing }
}
