//! The first changes, before any traffic: finalizer, lock, mesh configuration, second Deployment; then the proof on a pod that
//! nothing is routed to. What fails here cleans up by itself.

use super::keep::{copy_config, keep};
use super::place;
use crate::api::gateway_rollout::ProbeMode;
use crate::api::rollout_status::Phase;
use crate::rollout::look::{Go, Look, after};
use crate::rollout::memory::Reason;
use crate::rollout::seen::{Of, Pod, Verified};
use crate::rollout::step::{Step, Which};
use crate::rollout::steps;

pub fn preparing(look: &Look) -> Go {
    if look.locked_by().is_some() {
        // Somebody was faster, and nothing of ours is there yet but a finalizer.
        return look.remember(|m| {
            look.enter(m, Phase::Pending);
            m.baseline = None;
        });
    }
    let baseline = look.baseline().map(|b| b.deployment.template_hash.as_str());
    let changed = look.seen.source.as_ref().is_some_and(|s| baseline != Some(&*s.template.hash));
    if !look.is_locked() && changed && look.deployment(Which::Canary).is_none() {
        return look.remember(|m| {
            look.enter(m, Phase::Preflight);
            m.baseline = None;
        });
    }
    look.hold()?;
    keep(look)?;
    copy_config(look)?;
    if look.is_in_place() {
        place::prepare(look)?
    } else {
        second(look)?
    }
    look.remember(|m| {
        look.enter(m, if look.spec().probe.mode == ProbeMode::None { Phase::Progressing } else { Phase::Probing });
        m.step = Some(steps::begin(&look.spec().strategy.steps, 0));
    })
}

/// The second Deployment stands, without pods, and the autoscaler takes no old pod away.
fn second(look: &Look) -> Go {
    if let Some(foreign) = look.foreign(Which::Canary) {
        let message = format!("Deployment {} is there that is not of this rollout (NameTaken)", foreign.name);
        return look.back(Reason::ProbeFailed, message);
    }
    match look.deployment(Which::Canary) {
        None => {
            look.may_move()?;
            look.act(Step::CreateCanary)
        }
        Some(canary) if canary.deleting => look.slow(format!("the end of an earlier Deployment {}", canary.name)),
        Some(canary) if canary.observed < canary.generation => {
            look.slow(format!("Deployment {} to be noticed by its controller", canary.name))
        }
        Some(_) => look.hand(Which::Source),
    }
}

pub fn probing(look: &Look) -> Go {
    look.hold()?;
    keep(look)?;
    let mode = look.spec().probe.mode;
    let failed = |why: String| look.back(Reason::ProbeFailed, why);
    let began = after(look.begun(), look.memory.paused_for);
    let end = after(began, look.spec().probe.timeout.signed());
    if mode != ProbeMode::None {
        let Some(dry_runs) = &look.seen.dry_runs else {
            return look.wait("the dry-runs".to_owned(), Some(look.now));
        };
        if let Some((object, why)) = dry_runs.iter().find_map(|d| Some((&d.object, d.refused.as_ref()?))) {
            return failed(format!("{object} would be refused: {why}"));
        }
    }
    if mode != ProbeMode::DarkPod {
        return passed(look, None);
    }
    let Some(pod) = look.seen.pods.iter().find(|p| p.of == Of::Probe) else {
        if look.now >= end {
            return failed(format!("no probe pod stayed for {}", look.spec().probe.timeout));
        }
        return look.act(Step::CreateProbe);
    };
    if let Some(why) = unfit(look, pod) {
        return failed(why);
    }
    match proven(look, pod) {
        Ok(()) => passed(look, Some(pod)),
        Err(why) if look.now >= end => {
            failed(format!("the probe was not verified within {}: {why}", look.spec().probe.timeout))
        }
        Err(why) => look.wait(format!("the probe: {why}"), Some(end)),
    }
}

/// What waiting does not mend.
fn unfit(look: &Look, pod: &Pod) -> Option<String> {
    if let Some(service) = look.seen.services.iter().find(|s| s.endpoints.contains(&pod.held.uid)) {
        return Some(format!("probe pod {} is an endpoint of Service {}, which must not be", pod.name, service.name));
    }
    // A node may come; an image that is not there does not.
    let trouble = pod.trouble.as_deref().filter(|t| *t != "Unschedulable");
    if let Some(trouble) = trouble {
        return Some(format!("probe pod {} does not start: {trouble}", pod.name));
    }
    match look.verify(pod) {
        Verified::No(why) => Some(why),
        Verified::Yes(_) | Verified::NotYet(_) => None,
    }
}

fn proven(look: &Look, pod: &Pod) -> Result<(), String> {
    if pod.deleting {
        return Err(format!("pod {} is being deleted", pod.name));
    }
    if !pod.containers_ready {
        return Err(match &pod.trouble {
            Some(trouble) => format!("pod {}: {trouble}", pod.name),
            None => format!("the containers of pod {} are not ready", pod.name),
        });
    }
    if let Verified::NotYet(why) | Verified::No(why) = look.verify(pod) {
        return Err(why);
    }
    if look.spec().probe.http.is_empty() {
        return Ok(());
    }
    match look.evidence(pod).and_then(|e| e.failed_probes.as_ref()) {
        Some(failed) => failed.first().map_or(Ok(()), |first| Err(first.clone())),
        None => Err("nobody has sent its requests yet".to_owned()),
    }
}

fn passed(look: &Look, pod: Option<&Pod>) -> Go {
    // Whoever measures and probes it holds connections of his own; the fewer of two readings are surely those.
    let evidence = pod.and_then(|p| look.evidence(p));
    let readings = evidence.into_iter().flat_map(|e| [&e.stats, &e.earlier]).flatten();
    let unrouted = readings.map(|s| s.connections).min().unwrap_or(0);
    look.remember(|m| {
        look.enter(m, Phase::Progressing);
        m.unrouted = unrouted;
        m.step = Some(steps::begin(&look.spec().strategy.steps, 0));
    })
}
