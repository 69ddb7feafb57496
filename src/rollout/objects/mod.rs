//! What a rollout writes, as values: the JSON of the objects that it makes, and the operations of the patches that it sends.
//!
//! [`step`] turns one [`Step`] into one [`Written`]; whoever sends it adds nothing but the address. The Service's spec is in none of
//! them. Deployments get no owner: when the rollout's object goes, garbage collection must not take a gateway along that serves.

mod made;
mod patch;
pub mod template;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::api::gateway_rollout::Flavor;
use crate::api::rollout_status::Baseline;
use crate::model::version::bare;
use crate::rollout::names::Names;
use crate::rollout::read::{self, Raw};
use crate::rollout::seen::{Deployment, Map, Seen, Version};
use crate::rollout::step::{Step, Which};

/// One write, without its address.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    pub kind: &'static str,
    /// In the gateway's namespace.
    pub name: Arc<str>,
    pub change: Change,
}

/// What is done. The controller's own `Change` says the same of any object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A new object, refused if there is one. `apiVersion`, `kind`, `metadata.name` and `.namespace` are filled in by who sends it.
    Create { object: Value },
    /// Operations of a JSON patch on the object of this version.
    Patch { operations: Vec<Value>, held: Version },
    /// Its end. With `foreground` it stays until everything that it owns is gone, so that nobody can adopt what is left over. An empty
    /// version: whatever has become of it since.
    Delete { held: Version, foreground: bool },
}

/// Why a step cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    #[error("{0} is not there any more")]
    Missing(String),
    #[error("the baseline of the rollout cannot be read: {0}")]
    Baseline(String),
}

/// A gateway and where it goes, as far as its objects are made from it.
pub struct Plan<'a> {
    pub seen: &'a Seen,
    pub source: &'a Deployment,
    pub flavor: Flavor,
    pub from: Option<String>,
    pub names: Names,
    kept: BTreeSet<String>,
}

impl<'a> Plan<'a> {
    /// `None` where the gateway's Deployment is not there or is no gateway's.
    pub fn of(seen: &'a Seen, from: Option<&str>) -> Option<Plan<'a>> {
        let source = seen.source.as_ref()?;
        let flavor = read::flavor(source, &seen.rollout.spec)?;
        let from = from.map(str::to_owned);
        let names = read::names(seen, from.as_deref());
        let selectors = seen.services.iter().map(|s| &s.selector).chain([&source.selector]);
        let kept = template::kept(selectors);
        Some(Plan { seen, source, flavor, from, names, kept })
    }

    fn to(&self) -> &'a str {
        &self.seen.rollout.spec.to_revision
    }

    /// The uid of the rollout, as its label says it.
    fn uid(&self) -> &'a str {
        &self.seen.rollout.held.uid
    }

    fn going<'m>(&'m self, deployment: &'m str, instance: Option<&'m str>) -> template::Move<'m> {
        let spec = &self.seen.rollout.spec;
        template::Move {
            flavor: self.flavor,
            from: self.from.as_deref(),
            to: &spec.to_revision,
            plane: &self.seen.to.namespace,
            version: spec.to_version.as_deref().map(bare).or(self.seen.to.version.as_deref()),
            deployment,
            namespace: &self.seen.rollout.namespace,
            instance,
            kept: &self.kept,
        }
    }

    /// Where the second Deployment's pods go.
    pub fn going_to_canary(&self) -> template::Move<'_> {
        self.going(&self.names.canary, Some(&self.names.instance))
    }

    /// The template of the second Deployment.
    pub fn canary(&self) -> Value {
        template::moved(&self.source.template.body, &self.going_to_canary())
    }

    /// The original's template with the new revision; `body` is what it was before.
    pub fn promoted(&self, body: &Value) -> Value {
        template::moved(body, &self.going(&self.source.name, None))
    }
}

/// The write behind a step.
///
/// # Errors
/// What the step is about is not there, or the baseline cannot be read.
pub fn step(step: &Step, seen: &Seen, raw: &Raw) -> Result<Written, Impossible> {
    let writer = patch::Writer { seen, raw };
    let (kind, name, change) = match step {
        Step::Hold { held } => writer.finalizer(held, true),
        Step::Release { held } => writer.finalizer(held, false),
        Step::Lock { held, baseline } => writer.lock(held, baseline)?,
        Step::Unlock { held } => writer.unlock(held)?,
        Step::CopyConfig { name, held, hash } => writer.copy(name, held.as_ref(), hash)?,
        Step::DropConfig { name, held } => ("ConfigMap", name.clone(), gone(held, false)),
        Step::CreateCanary => made::canary(seen, raw)?,
        Step::CreateStandby => made::standby(seen, raw)?,
        Step::DropDeployment { which, held } => ("Deployment", writer.name(*which)?, gone(held, true)),
        Step::Scale { which, held, to } => writer.scale(*which, held, *to)?,
        Step::Retemplate { held, revision } => writer.retemplate(held, revision)?,
        Step::Pace { held, paused } => writer.pace(held, *paused)?,
        Step::CreateProbe => made::probe(seen, raw)?,
        Step::DropProbe { pod, held } | Step::DropApart { pod, held, .. } => {
            ("Pod", pod.clone(), gone(&any_version(held), false))
        }
        Step::Pin { pod, held } => writer.pin(pod, held)?,
        Step::SetApart { pod, held, key, since } => writer.set_apart(pod, held, (key, *since))?,
        Step::Autoscale { name, held, target, min } => writer.autoscale(name, held, (target, *min)),
        Step::Relabel { kind, name, held, labels } => writer.relabel((*kind, name), held, labels)?,
        Step::LetGo { kind, name, held } => writer.let_go((*kind, name), held)?,
        Step::Consume { held } => writer.consume(held),
        Step::DropRollout { held } => ("GatewayRollout", seen.rollout.name.clone(), gone(held, false)),
    };
    Ok(Written { kind, name, change })
}

type Parts = (&'static str, Arc<str>, Change);

fn gone(held: &Version, foreground: bool) -> Change {
    Change::Delete { held: held.clone(), foreground }
}

/// A pod's status changes all the time, and none of that brings it back.
fn any_version(held: &Version) -> Version {
    Version { uid: held.uid.clone(), version: Arc::default() }
}

/// The plan of a gateway that is there.
fn plan<'a>(seen: &'a Seen, raw: &Raw) -> Result<Plan<'a>, Impossible> {
    source(seen)?;
    let missing = || Impossible::Missing(format!("the gateway {}", read::target(&seen.rollout.spec)));
    Plan::of(seen, read::from_revision(seen, raw).as_deref()).ok_or_else(missing)
}

/// The pod template of the baseline.
fn body(baseline: &Baseline) -> Result<Value, Impossible> {
    serde_json::from_str(&baseline.deployment.template).map_err(|e| Impossible::Baseline(e.to_string()))
}

/// The baseline: of the status, else of the annotation on the gateway's Deployment.
fn baseline(seen: &Seen, raw: &Raw) -> Result<Baseline, Impossible> {
    let unreadable = |e: serde_json::Error| Impossible::Baseline(e.to_string());
    let stored = &raw.rollout["status"]["baseline"];
    if !stored.is_null() {
        return serde_json::from_value(stored.clone()).map_err(unreadable);
    }
    let source = source(seen)?;
    let annotated = source.annotations.get(crate::model::key::BASELINE);
    let text = annotated.ok_or_else(|| Impossible::Baseline("neither the status nor the Deployment has it".into()))?;
    serde_json::from_str(text).map_err(unreadable)
}

fn source(seen: &Seen) -> Result<&Deployment, Impossible> {
    let name = read::target(&seen.rollout.spec);
    seen.source.as_ref().ok_or_else(|| Impossible::Missing(format!("Deployment {}/{name}", seen.rollout.namespace)))
}

fn deployment(seen: &Seen, which: Which) -> Option<&Deployment> {
    match which {
        Which::Source => seen.source.as_ref(),
        Which::Canary => seen.canary.as_ref(),
        Which::Standby => seen.standby.as_ref(),
    }
}

/// Labels of a Deployment of ours: those of the original, without what makes it somebody's.
fn own_labels(source: &Deployment, uid: &str) -> Map {
    let mut labels = source.labels.clone();
    // By this one Argo CD tracks what it may prune.
    labels.retain(|k, _| !template::is_dropped(k) && k != "app.kubernetes.io/instance");
    labels.insert(crate::model::key::ROLLOUT.to_owned(), uid.to_owned());
    labels
}
