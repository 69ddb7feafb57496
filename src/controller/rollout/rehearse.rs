//! Dry-runs: everything that a rollout will write is sent to the API server as it will be sent then, only that nothing is
//! kept. Rights, quotas, schemas, other people's admission policies and the injector of the new revision all have their say before the first
//! pod is started.

use jiff::Timestamp;
use serde_json::Value;

use super::carry;
use crate::api::gateway_rollout::{Flavor, StrategyType};
use crate::cluster::Trouble;
use crate::controller::write::{WriteError, Writer};
use crate::model::workload::PROXY;
use crate::rollout::guards::wrongly_injected;
use crate::rollout::read::{Raw, flavor};
use crate::rollout::seen::{DryRun, Of};
use crate::rollout::step::Which;
use crate::rollout::verify::wrong_version;
use crate::rollout::{Seen, Step};

/// Makes the dry-runs of everything that is not there yet; `None` where the API server could not be asked about all of it, which is nothing
/// against the rollout.
pub async fn rehearse(writer: &Writer, seen: &Seen, raw: &Raw) -> Option<Vec<DryRun>> {
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
            // It has changed or gone since it was read: nothing against the write itself.
            Err(WriteError::Moved { .. } | WriteError::Missing { .. }) => continue,
            Err(WriteError::Trouble { trouble, .. }) if !is_told(&trouble) => return None,
            Err(error) => Some(error.to_string()),
        };
        all.push(DryRun { object, refused });
    }
    Some(all)
}

/// An answer about the write, and not a moment in which there was none.
fn is_told(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Refused(code, _) => !matches!(code, 502..=504),
        Trouble::Forbidden(_) | Trouble::NotFound | Trouble::Invalid(_) => true,
        Trouble::Gone
        | Trouble::Throttled(_)
        | Trouble::Unreachable(_)
        | Trouble::Silent(_)
        | Trouble::Malformed(_)
        | Trouble::Closed => false,
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::controller::lease::Leadership;
    use crate::snapshot::Snapshot;
    use crate::telemetry::Metrics;

    #[tokio::test]
    async fn an_api_server_that_cannot_be_reached_has_refused_nothing() {
        crate::cluster::install_crypto();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = kube::Config::new(format!("http://{closed}").parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let writer = Writer::new(client, Leadership::default(), Arc::new(Metrics::new()));
        let rollout = json!({
            "metadata": {"name": "gw", "namespace": "edge", "uid": "u", "resourceVersion": "1"},
            "spec": {"target": {"deployment": {"name": "gw"}}, "toRevision": "1-24"},
        });
        let raw = Raw::manifests(rollout, []);
        let seen = crate::rollout::read::seen(&raw, &Snapshot::offline()).unwrap();
        assert_eq!(rehearse(&writer, &seen, &raw).await, None);
    }

    #[test]
    fn only_an_answer_refuses() {
        let told = |trouble| is_told(&trouble);
        assert!(told(Trouble::Invalid("no".into())) && told(Trouble::Refused(500, "failed calling webhook".into())));
        for silent in [
            Trouble::Unreachable("x".into()),
            Trouble::Silent(Duration::ZERO),
            Trouble::Throttled(Duration::ZERO),
            Trouble::Closed,
            Trouble::Refused(503, "etcd".into()),
            Trouble::Refused(504, "late".into()),
        ] {
            assert!(!told(silent));
        }
    }
}
