//! From the API server's objects, or manifests, to what a plan is made from: [`Raw`] becomes [`Seen`].
//!
//! Total: odd objects are read as far as they can be, and never panic. What decides whether a pod may go comes from
//! [`Raw`], which whoever plans a write has listed right before; the snapshot, which may be some seconds old, only says where to look and
//! which names are tags. What is not an object (statistics of Envoys, alerts, dry-runs) is left empty for whoever asks for it.

pub mod apart;
pub mod around;
pub mod fresh;
pub mod json;
pub mod plane;
pub mod pods;
pub mod raw;
mod rollout;
pub mod workload;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::api::gateway_rollout::{Flavor, GatewayRolloutSpec};
use crate::rollout::names::Names;
use crate::rollout::seen::{ControlPlane, Deployment, Gate, Of, Pod, Seen};
use crate::snapshot::Snapshot;
use json::Json;

pub use raw::{Listed, Question, Raw, Row, TABLE, When, missing};
pub use rollout::FINALIZER;

/// Why there is nothing to plan from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The API server's schema and ours differ, or it is not a GatewayRollout.
    #[error("GatewayRollout {name}: {problem}")]
    Rollout { name: String, problem: String },
    /// What every plan needs was not read.
    #[error("nothing is known of {plural} of GatewayRollout {name}: {why}")]
    Unread { name: String, plural: &'static str, why: String },
}

/// What a plan is made from. `findings`, `dry_runs`, `evidence`, `gate` and `metrics` are for the caller to fill in.
///
/// # Errors
/// A rollout whose spec cannot be read, and kinds that every plan needs and that were not read.
pub fn seen(raw: &Raw, known: &Snapshot) -> Result<Seen, Unreadable> {
    let rollout = rollout::read(raw)?;
    all_read(raw)?;
    let fresh = fresh::fresh(raw, known);
    let spec = rollout.spec.clone();
    let deployment = |name: &str| {
        let object = raw.get(Listed::Deployments, &rollout.namespace, name).filter(|_| !name.is_empty())?;
        Some(workload::deployment(object, &fresh))
    };
    let gateway = target(&spec);
    let source = deployment(gateway);
    let from = from(raw, &spec, source.as_ref(), &fresh);
    let names = Names::of(gateway, from.as_deref(), &spec.to_revision, &rollout.held.uid);
    let canary = deployment(&names.canary);
    let standby = names.standby.as_deref().and_then(deployment);
    let family = pods::Family {
        source: source.as_ref(),
        canary: canary.as_ref(),
        standby: standby.as_ref(),
        uid: &rollout.held.uid,
    };
    let pods = pods::read(raw, &family, &fresh);
    let services = around::services(raw, source.as_ref(), &named_services(raw, &spec));
    let flavor = source.as_ref().and_then(|d| flavor(d, &spec));
    let plane = |revision: &str| plane(raw, &fresh, source.as_ref(), revision, flavor);
    let to = plane(&spec.to_revision);
    let scaled: Vec<&str> =
        [Some(gateway), Some(&*names.canary), names.standby.as_deref()].into_iter().flatten().collect();
    let apart_key = match &source {
        Some(source) => apart::key(raw, known, &apart::Gateway { source, services: &services, pods: &pods }),
        None => Err("the Deployment is not there".to_owned()),
    };
    Ok(Seen {
        others: rollout::others(raw, gateway),
        hpas: around::hpas(raw, &scaled),
        pdbs: source.as_ref().map(|d| around::pdbs(raw, &d.template.labels)).unwrap_or_default(),
        config: around::config(raw, flavor, from.as_deref(), &spec.to_revision, &to.namespace),
        from: from.as_deref().map(plane).unwrap_or_default(),
        to,
        source,
        canary,
        standby,
        pods,
        services,
        apart_key,
        watched: None,
        rollout,
        findings: None,
        dry_runs: None,
        evidence: BTreeMap::new(),
        gate: Gate::Off,
        metrics: Vec::new(),
    })
}

/// The Deployment that a rollout names; empty for a Gateway of the Gateway API.
pub fn target(spec: &GatewayRolloutSpec) -> &str {
    spec.target.deployment.as_ref().map_or("", |d| d.name.as_str())
}

/// How a gateway gets its proxy: as the spec says, else as its template shows.
pub fn flavor(source: &Deployment, spec: &GatewayRolloutSpec) -> Option<Flavor> {
    match spec.flavor {
        Flavor::Auto => workload::flavor(&source.template.body),
        said => Some(said),
    }
}

/// The names of a rollout's objects.
pub fn names(seen: &Seen, from: Option<&str>) -> Names {
    let spec = &seen.rollout.spec;
    Names::of(target(spec), from, &spec.to_revision, &seen.rollout.held.uid)
}

/// The revision that a gateway comes from: as the spec says, as the status remembers, as its ready pods say with one voice, as its template
/// says.
pub fn from_revision(seen: &Seen, raw: &Raw) -> Option<String> {
    let source = seen.source.as_ref();
    told(raw, &seen.rollout.spec).or_else(|| voiced(&seen.pods, source, &seen.rollout.spec.to_revision))
}

fn told(raw: &Raw, spec: &GatewayRolloutSpec) -> Option<String> {
    let remembered = raw.rollout["status"].text("fromRevision");
    spec.from_revision.clone().or_else(|| Some(remembered.to_owned()).filter(|r| !r.is_empty()))
}

fn voiced(pods: &[Pod], source: Option<&Deployment>, to: &str) -> Option<String> {
    let serving = pods.iter().filter(|p| p.of == Of::Source && p.ready && !p.deleting);
    let voices: BTreeSet<&str> = serving.filter_map(|p| p.revision.as_deref()).filter(|r| *r != to).collect();
    let one = voices.first().copied().filter(|_| voices.len() == 1);
    one.or(source?.template.revision.as_deref()).map(str::to_owned)
}

/// Before it is known which Deployments a rollout has: its own pods' voices.
fn from(raw: &Raw, spec: &GatewayRolloutSpec, source: Option<&Deployment>, fresh: &Snapshot) -> Option<String> {
    told(raw, spec).or_else(|| {
        let family = pods::Family { source, canary: None, standby: None, uid: "" };
        voiced(&pods::read(raw, &family, fresh), source, &spec.to_revision)
    })
}

/// Services that the spec or the baseline name.
fn named_services(raw: &Raw, spec: &GatewayRolloutSpec) -> BTreeSet<String> {
    let baseline = raw.rollout["status"]["baseline"].list("services").iter().map(|s| s.text("name").to_owned());
    spec.services.iter().cloned().chain(baseline).filter(|name| !name.is_empty()).collect()
}

fn plane(
    raw: &Raw,
    fresh: &Snapshot,
    source: Option<&Deployment>,
    revision: &str,
    flavor: Option<Flavor>,
) -> ControlPlane {
    let body = source.map_or(&Value::Null, |d| &d.template.body);
    let template = workload::model(&workload::asking(body, revision));
    plane::read(raw, fresh, &plane::Asking { revision, flavor, template: &template })
}

/// Kinds that every plan needs were read.
fn all_read(raw: &Raw) -> Result<(), Unreadable> {
    if raw.is_of_manifests() {
        return Ok(());
    }
    let mut needed = TABLE.iter().filter(|r| r.when == When::Always);
    let missing = needed.find_map(|r| Some((r.plural, raw.unread(r.listed)?)));
    missing.map_or(Ok(()), |(plural, why)| {
        let name = format!("{}/{}", raw.rollout.namespace(), raw.rollout.name());
        Err(Unreadable::Unread { name, plural, why: why.to_owned() })
    })
}
