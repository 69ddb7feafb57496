//! Dry-runs: everything that a rollout will write is sent to the API server as it will be sent then, only that nothing is
//! kept. Rights, quotas, schemas, other people's admission policies and the injector of the new revision all have their say before the first
//! pod is started.

use jiff::Timestamp;
use serde_json::Value;

use super::carry;
use crate::controller::write::{WriteError, Writer};
use crate::model::key;
use crate::rollout::read::{Raw, flavor};
use crate::rollout::seen::{DryRun, Of};
use crate::rollout::{Seen, Step};
use crate::api::gateway_rollout::{Flavor, StrategyType};

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
            Ok(pod) if step == Step::CreateProbe => not_injected(&pod, seen),
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
        let which = crate::rollout::step::Which::Source;
        all.push(Step::Scale { which, held: source.held.clone(), to: source.replicas });
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
fn not_injected(pod: &Value, seen: &Seen) -> Option<String> {
    let injected = seen.source.as_ref().and_then(|s| flavor(s, &seen.rollout.spec)) == Some(Flavor::Injected);
    if !injected {
        return None;
    }
    let to = &seen.rollout.spec.to_revision;
    let mut containers = ["containers", "initContainers"].iter().filter_map(|c| pod["spec"][*c].as_array()).flatten();
    let image = containers.find(|c| c["name"] == "istio-proxy").and_then(|c| c["image"].as_str());
    let image = match image {
        None => return Some("the pod has no container istio-proxy: no injector has touched it".to_owned()),
        Some("auto") => {
            return Some(format!(
                "its image is still `auto`: no injector has touched it; does an injector of {to} select pods of this namespace with the label istio.io/rev={to}?"
            ));
        }
        Some(image) => image,
    };
    let status = pod["metadata"]["annotations"][key::STATUS].as_str().unwrap_or_default();
    let by: Value = serde_json::from_str(status).unwrap_or_default();
    match by["revision"].as_str() {
        Some(revision) if revision == to => {}
        Some(other) => return Some(format!("it was injected by {other:?} and not by {to:?}; which injectors answer: revguard resolve")),
        None => return Some(format!("its annotation {} names no revision", key::STATUS)),
    }
    let wanted = seen.rollout.spec.to_version.as_deref()?;
    let tag = image.split('@').next().and_then(|i| i.rsplit_once(':')).map_or("", |(_, tag)| tag);
    let fits = tag == wanted || tag.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('-'));
    (!fits).then(|| format!("its proxy is {image}, and spec.toVersion asks for {wanted}"))
}
