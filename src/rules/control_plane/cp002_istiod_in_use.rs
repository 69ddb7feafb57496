//! # CP002 istiod-in-use
//!
//! ## What
//! The Deployment of an istiod is deleted, scaled to zero, or given a HorizontalPodAutoscaler that may scale it to zero,
//! while its revision is in use. What "in use" means stands on the page of CP001.
//!
//! ## Why
//! Without istiod the injector does not answer, so that pods of its namespaces do not start (`failurePolicy: Fail`), and
//! running proxies get neither configuration nor certificates.
//!
//! ## What to do
//! Move the users first; the denial names them and gives the commands. Where no other control plane could take over, install the
//! next revision before.
//!
//! ## When to allow
//! When the whole mesh is torn down with its users still in it, or for a short stop on purpose.

use super::in_use::Loss;
use crate::model::{Hpa, Kind, Object, Workload};
use crate::rules::{Check, Field, Found, Old, Rule, Severity, View};

pub static RULE: Rule = Rule {
    code: "CP002",
    name: "istiod-in-use",
    summary: "an istiod that is in use is deleted, or scaled to zero",
    reads: &[Field::Replicas, Field::Spec],
    checks: &[Check::Delete(deleted), Check::Workload(scaled), Check::Hpa(autoscaled)],
    source: include_str!("cp002_istiod_in_use.rs"),
};

fn deleted(object: &Object, view: &View<'_>) -> Found {
    let Object::Workload(Kind::Deployment, istiod) = object else { return Ok(Vec::new()) };
    let doing = format!("deleting Deployment {}/{}", istiod.meta.namespace, istiod.meta.name);
    lost(istiod, doing, "metadata.name", istiod.meta.name.as_str(), view)
}

fn scaled(istiod: &Workload, old: Old<'_, Workload>, view: &View<'_>) -> Found {
    if istiod.replicas != Some(0) || !istiod.is_istiod() || old.get().is_none_or(|o| o.wanted() == 0) {
        return Ok(Vec::new());
    }
    let doing = format!("scaling Deployment {}/{} to 0", istiod.meta.namespace, istiod.meta.name);
    lost(istiod, doing, "spec.replicas", "0", view)
}

fn autoscaled(hpa: &Hpa, _: Old<'_, Hpa>, view: &View<'_>) -> Found {
    if hpa.min_replicas != Some(0) || hpa.target_kind != "Deployment" {
        return Ok(Vec::new());
    }
    let target = view.before().workload(Kind::Deployment, &hpa.meta.namespace, &hpa.target_name);
    let Some(istiod) = target else { return Ok(Vec::new()) };
    let doing = format!("minReplicas 0 for Deployment {}/{}", istiod.meta.namespace, istiod.meta.name);
    lost(istiod, doing, "spec.minReplicas", "0", view)
}

fn lost(istiod: &Workload, doing: String, field: &'static str, value: &str, view: &View<'_>) -> Found {
    let Some(revision) = istiod.istiod_revision() else { return Ok(Vec::new()) };
    // Another Deployment of the same revision goes on serving, if the same Services select it.
    let mut others = view.before().istiods()?.filter(|w| w.meta.name != istiod.meta.name);
    let served = others.any(|w| {
        w.meta.namespace == istiod.meta.namespace
            && w.istiod_revision().as_ref() == Some(&revision)
            && w.ready.unwrap_or(0) > 0
    });
    let most = if served { Severity::Warn } else { Severity::Deny };
    let (value, besides) = (value.to_owned(), Vec::new());
    let loss = Loss { revision: &revision, doing, field, value, meta: &istiod.meta, most, besides };
    Ok(loss.finding(view)?.into_iter().collect())
}
