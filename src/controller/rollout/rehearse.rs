//! Dry-runs: everything that a rollout will write is sent to the API server as it will be sent then, only that nothing is
//! kept. Rights, quotas, schemas, other people's admission policies and the injector of the new revision all have their say before the first
//! pod is started.

use jiff::Timestamp;
use serde_json::Value;

use super::carry;
use crate::api::gateway_rollout::{Flavor, StrategyType};
use crate::controller::write::{WriteError, Writer};
use crate::model::workload::PROXY;
use crate::rollout::guards::wrongly_injected;
use crate::rollout::read::{Raw, flavor};
use crate::rollout::seen::{DryRun, Of};
use crate::rollout::step::Which;
use crate::rollout::verify::wrong_version;
use crate::rollout::{Seen, Step};

/// Makes the dry-runs of everything that is not there yet.
pub async fn rehearse(writer: &Writer, seen: &Seen, raw: &Raw) -> Vec<DryRun> {
    let mut all = Vec::new();
    for step in steps(seen) {
        let write = match carry::write(&step, seen, raw) {
            Ok(write) => write,
            // The guards say what is missing.
            Err(_) => continue,
        };
        let object = format!("{}/{}", write.at.resource.kind, write.at.name);
        let refused = match writer.dry_run(&write).await {
            Ok(pod) if step == Step::CreateProbe => wrong(&pod, seen),
            Ok(_) => None,
            // It has changed since it was read: nothing against the write itself.
            Err(WriteError::Moved { .. }) => continue,
            Err(error) => Some(error.to_string()),
        };
        all.push(DryRun { object, refused });
    }
    all
}

/// One of each sort of write, on what is there.
fn steps(seen: &Seen) -> Vec<Step> {
    let mut all = Vec::new();
    let own = seen.rollout.held.clone();
    if !seen.rollout.finalizer {
        all.push(Step::Hold { held: own });
    }
    let parallel = seen.rollout.spec.strategy.type_ == StrategyType::ParallelDeployment;
    if parallel && seen.config.needed && seen.config.copy.is_none() {
        let hash = seen.config.original.clone().unwrap_or_default();
        all.push(Step::CopyConfig { name: seen.config.name.clone(), held: None, hash });
    }
    if parallel && seen.canary.is_none() {
        all.push(Step::CreateCanary);
    }
    if !seen.pods.iter().any(|p| p.of == Of::Probe) {
        all.push(Step::CreateProbe);
    }
    if let Some(source) = &seen.source {
        all.push(Step::Scale { which: Which::Source, held: source.held.clone(), to: source.replicas });
    }
    for hpa in &seen.hpas {
        let (name, held, target) = (hpa.name.clone(), hpa.held.clone(), hpa.target.clone());
        all.push(Step::Autoscale { name, held, target, min: hpa.min });
    }
    if let (Ok(key), Some(pod)) = (&seen.apart_key, seen.pods.iter().find(|p| p.of == Of::Source && !p.deleting)) {
        let (pod, held, key) = (pod.name.clone(), pod.held.clone(), key.clone());
        all.push(Step::SetApart { pod, held, key, since: Timestamp::now() });
    }
    all
}

/// What the injector made of a pod that asked for the new revision, if that is not what was asked for.
fn wrong(pod: &Value, seen: &Seen) -> Option<String> {
    let spec = &seen.rollout.spec;
    if seen.source.as_ref().and_then(|s| flavor(s, spec)) != Some(Flavor::Injected) {
        return None;
    }
    if let Some(why) = wrongly_injected(pod, &spec.to_revision) {
        let label = format!("istio.io/rev={}", spec.to_revision);
        return Some(format!("{why}; which injector answers for {label} here: revguard resolve"));
    }
    let containers = ["containers", "initContainers"].into_iter().filter_map(|of| pod["spec"][of].as_array()).flatten();
    let image = { containers }.find(|c| c["name"] == PROXY).and_then(|c| c["image"].as_str());
    wrong_version(image.unwrap_or_default(), spec)
}
