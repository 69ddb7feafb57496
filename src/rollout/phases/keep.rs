//! What a rollout has in its hands from its first change on, and how it lets go: the finalizer, the lock with the baseline beside it, the copy
//! of the mesh configuration, and the Deployments that it made.

use std::sync::Arc;

use jiff::SignedDuration;

use crate::api::rollout_status::Phase;
use crate::rollout::look::{GO, Go, Look, after};
use crate::rollout::memory::Reason;
use crate::rollout::step::{Step, Which};

/// Whatever happens next, the object stays until its pods are gone, and the gateway is locked.
pub fn keep(look: &Look) -> Go {
    let rollout = &look.seen.rollout;
    if !rollout.finalizer && !rollout.deleting {
        return look.act(Step::Hold { held: rollout.held.clone() });
    }
    let (Some(source), Some(baseline)) = (&look.seen.source, &look.memory.baseline) else { return GO };
    if look.is_locked() || look.locked_by().is_some() {
        return GO;
    }
    look.act(Step::Lock { held: source.held.clone(), baseline: Arc::clone(baseline) })
}

/// The mesh configuration beside the gateway is what it is in the control plane's namespace.
pub fn copy_config(look: &Look) -> Go {
    let config = &look.seen.config;
    if !config.needed {
        return GO;
    }
    let Some(original) = &config.original else {
        if look.memory.phase == Phase::Preparing {
            return look.slow(format!("ConfigMap {} in the namespace of istiod of {}", config.name, look.to()));
        }
        return GO;
    };
    let held = match &config.copy {
        Some(copy) if copy.hash == *original => return GO,
        Some(copy) if copy.ours => Some(copy.held.clone()),
        Some(_) if look.memory.phase == Phase::Preparing => {
            let message =
                format!("ConfigMap {} is there that is not of this rollout, and it differs (NameTaken)", config.name);
            return look.back(Reason::ProbeFailed, message);
        }
        // Whoever made it keeps it.
        Some(_) => return GO,
        None => None,
    };
    look.act(Step::CopyConfig { name: Arc::clone(&config.name), held, hash: Arc::clone(original) })
}

/// The gateway is in nobody's hands any more. After the end and not before it, so that nobody takes it in between.
pub fn unlock(look: &Look) -> Go {
    let Some(source) = look.seen.source.as_ref().filter(|_| look.is_locked()) else { return GO };
    look.act(Step::Unlock { held: source.held.clone() })
}

/// How long after the end, or after somebody leads again, it is tried, so that an API server which keeps its own record is not asked for ever.
const LETTING_GO: SignedDuration = SignedDuration::from_secs(60);

/// What was written belongs to whoever owns the object, from now on.
pub fn let_go(look: &Look) -> Go {
    let ended = look.memory.finished.map(|finished| look.seen.watched.map_or(finished, |w| w.max(finished)));
    let late = ended.is_none_or(|ended| look.now >= after(ended, LETTING_GO));
    if late || look.locked_by().is_some() {
        return GO;
    }
    if let Some(source) = look.seen.source.as_ref().filter(|source| source.written) {
        return look.act(Step::LetGo { kind: "Deployment", name: source.name.clone(), held: source.held.clone() });
    }
    match look.seen.hpas.iter().find(|hpa| hpa.written && !hpa.owned) {
        Some(hpa) => {
            look.act(Step::LetGo { kind: "HorizontalPodAutoscaler", name: hpa.name.clone(), held: hpa.held.clone() })
        }
        None => GO,
    }
}

/// What was made is removed.
pub fn remove(look: &Look) -> Go {
    for which in [Which::Canary, Which::Standby] {
        match look.deployment(which) {
            Some(deployment) if deployment.deleting => {
                return look.wait(format!("the end of Deployment {}", deployment.name), None);
            }
            Some(deployment) => return look.act(Step::DropDeployment { which, held: deployment.held.clone() }),
            None => {}
        }
    }
    let config = &look.seen.config;
    match &config.copy {
        Some(copy) if copy.ours && !copy.shared => {
            look.act(Step::DropConfig { name: Arc::clone(&config.name), held: copy.held.clone() })
        }
        _ => GO,
    }
}
