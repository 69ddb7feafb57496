//! Objects that a rollout creates: the second Deployment, the standby, the dark probe pod.

use serde_json::{Value, json};

use super::{Change, Impossible, Parts, Plan, baseline, body, own_labels, plan, template};
use crate::model::key;
use crate::rollout::read::json::Json;
use crate::rollout::read::{self, Raw};
use crate::rollout::seen::{Deployment, Map, Seen};

/// The second Deployment, without pods.
pub(super) fn canary(seen: &Seen, raw: &Raw) -> Result<Parts, Impossible> {
    let plan = plan(seen, raw)?;
    let template = plan.canary();
    let name = plan.names.canary.clone();
    let mut object = deployment(&plan, raw, template);
    object["metadata"]["labels"][key::REV] = json!(plan.to());
    Ok(("Deployment", name, Change::Create { object }))
}

/// The old template, kept for the way back, without pods.
pub(super) fn standby(seen: &Seen, raw: &Raw) -> Result<Parts, Impossible> {
    let plan = plan(seen, raw)?;
    let body = body(&baseline(seen, raw)?)?;
    let missing = || Impossible::Baseline("it does not say which revision the gateway comes from".into());
    let name = plan.names.standby.clone().ok_or_else(missing)?;
    let template = template::renamed(&body, &plan.going(&name, plan.names.standby_instance.as_deref()));
    let object = deployment(&plan, raw, template);
    Ok(("Deployment", name, Change::Create { object }))
}

/// A Deployment of ours: the original's manner, our labels, no pods yet, and never a pod less while it changes.
fn deployment(plan: &Plan<'_>, raw: &Raw, template: Value) -> Value {
    let original = raw
        .get(read::Listed::Deployments, &plan.seen.rollout.namespace, &plan.source.name)
        .map_or(&Value::Null, |d| &d["spec"]);
    let mut spec = json!({
        "replicas": 0,
        "selector": {"matchLabels": selector(plan.source, &template)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": template,
    });
    for field in ["minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit"] {
        if !original[field].is_null() {
            spec[field] = original[field].clone();
        }
    }
    json!({"metadata": {"labels": own_labels(plan.source, plan.uid())}, "spec": spec})
}

/// The original's selector, as the template satisfies it, and the label that tells these pods from the original's.
fn selector(source: &Deployment, template: &Value) -> Map {
    let own = template.labels();
    let keys = source.selector.keys().map(String::as_str).chain([key::INSTANCE]);
    keys.filter_map(|k| Some((k.to_owned(), own.get(k)?.clone()))).collect()
}

/// The readiness gate of the probe, which nobody ever satisfies.
pub const GATE: &str = "revguard.dev/dark";

/// A pod of the new revision that is never ready, so that no Service sends anything to it. It has the labels that Istio and network policies
/// select, because a proxy without them is another one; and none by which a ReplicaSet could adopt it.
pub(super) fn probe(seen: &Seen, raw: &Raw) -> Result<Parts, Impossible> {
    let plan = plan(seen, raw)?;
    let template = plan.canary();
    let mut labels = template.labels();
    labels.remove(key::INSTANCE);
    labels.insert(key::ROLLOUT.to_owned(), plan.uid().to_owned());
    labels.insert(key::PROBE.to_owned(), "true".to_owned());
    let mut spec = template["spec"].clone();
    let mut gates = spec.list("readinessGates").to_vec();
    gates.push(json!({"conditionType": GATE}));
    spec["readinessGates"] = Value::Array(gates);
    let object = json!({
        "metadata": {
            "labels": labels,
            "annotations": template["metadata"].map("annotations"),
            "ownerReferences": [owner(seen)],
        },
        "spec": spec,
    });
    Ok(("Pod", plan.names.probe.clone(), Change::Create { object }))
}

/// The rollout as an owner that is no controller: what it owns goes with it, and nobody looks for a scale of it.
pub(super) fn owner(seen: &Seen) -> Value {
    json!({
        "apiVersion": "revguard.dev/v1alpha1",
        "kind": "GatewayRollout",
        "name": &*seen.rollout.name,
        "uid": &*seen.rollout.held.uid,
        "controller": false,
        "blockOwnerDeletion": false,
    })
}
