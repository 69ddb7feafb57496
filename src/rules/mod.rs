//! Decisions: `judge` applies every rule to one request over one snapshot.
//!
//! A rule is data and one function; its file is its documentation, its metadata and its check. Rules never log: what they
//! have to say is a [`Finding`]. Nothing here does I/O or reads a clock.

pub mod allow;
mod catalogue;
pub mod finding;
pub mod flaw;
pub mod judge;
pub mod names;
pub mod patch;
pub mod policy;
pub mod request;
pub mod stale;
pub mod view;

mod control_plane;
mod gateway;
mod install;
mod managed;
mod namespace;
mod rollout;
mod shift;
mod tags;
mod upgrade;
mod webhook_config;
mod workload;

use crate::model::{GatewayConfig, Hpa, Lifecycle, Namespace, Object, Operator, Pdb, Rollout, Sail, Service, Workload};
use crate::snapshot::{Known, Snapshot};

pub use catalogue::{RULES, find};
pub use finding::{Finding, Fix, Severity};
pub use flaw::{Change, Flaw, Level, Repair};
pub use judge::{Action, Judged, Verdict, judge};
pub use patch::Patch;
pub use policy::{Mode, Policy};
pub use request::{Old, Operation, Request, User};
pub use view::View;
pub use webhook_config::is_approved as is_approved_validator;

/// One rule of the catalogue.
pub struct Rule {
    /// Permanent; a retired code is never used again.
    pub code: &'static str,
    /// Kebab case, as printed behind the code.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// What it reads of the object it judges. An UPDATE that leaves all of it alone gives no finding.
    pub reads: &'static [Field],
    pub checks: &'static [Check],
    /// Its own source file, whose head is its documentation.
    pub source: &'static str,
}

/// A check's answer. `Err` means that the question cannot be answered: no finding, or 503 while a first list runs.
pub type Found = Known<Vec<Finding>>;

/// What a rule judges. Creations and updates give the object as it will be and, on demand, as it was.
#[derive(Clone, Copy)]
pub enum Check {
    Namespace(fn(&Namespace, Old<'_, Namespace>, &View<'_>) -> Found),
    /// Deployments, DaemonSets, StatefulSets, Jobs, CronJobs; a scale is an update of `spec.replicas`.
    Workload(fn(&Workload, Old<'_, Workload>, &View<'_>) -> Found),
    Service(fn(&Service, Old<'_, Service>, &View<'_>) -> Found),
    Hpa(fn(&Hpa, Old<'_, Hpa>, &View<'_>) -> Found),
    /// Disruption budgets.
    Pdb(fn(&Pdb, Old<'_, Pdb>, &View<'_>) -> Found),
    Operator(fn(&Operator, Old<'_, Operator>, &View<'_>) -> Found),
    /// `Istio`, `IstioRevision`, `IstioRevisionTag`.
    Sail(fn(&Sail, Old<'_, Sail>, &View<'_>) -> Found),
    Lifecycle(fn(&Lifecycle, Old<'_, Lifecycle>, &View<'_>) -> Found),
    /// Istio's and the Gateway API's Gateways.
    Gateway(fn(&GatewayConfig, Old<'_, GatewayConfig>, &View<'_>) -> Found),
    /// Our own GatewayRollouts.
    Rollout(fn(&Rollout, Old<'_, Rollout>, &View<'_>) -> Found),
    /// Any object, when only metadata matters.
    Any(fn(&Object, Old<'_, Object>, &View<'_>) -> Found),
    /// Deletions.
    Delete(fn(&Object, &View<'_>) -> Found),
    /// The cluster as it stands. No write is judged by it; the audit runs it over every snapshot.
    Audit(fn(&Snapshot, &Policy) -> Known<Vec<Flaw>>),
}

/// A part of an object that a rule may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Label(&'static str),
    Annotation(&'static str),
    /// Labels, annotations, containers, ConfigMaps, hostNetwork of a pod template. A restart annotation is not part of it.
    Template,
    Replicas,
    /// `spec.selector` of a workload.
    Selector,
    /// Whatever of the spec the lean type holds.
    Spec,
}

impl Field {
    /// The field differs between the two.
    pub fn changed(self, old: &Object, new: &Object) -> bool {
        match self {
            Field::Label(key) => old.meta().labels.get(key) != new.meta().labels.get(key),
            Field::Annotation(key) => old.meta().annotations.get(key) != new.meta().annotations.get(key),
            Field::Template => old.template() != new.template(),
            Field::Replicas => match (old, new) {
                (Object::Workload(_, a), Object::Workload(_, b)) => a.replicas != b.replicas,
                _ => true,
            },
            Field::Selector => match (old, new) {
                (Object::Workload(_, a), Object::Workload(_, b)) => a.selector != b.selector,
                _ => true,
            },
            Field::Spec => {
                let (mut a, mut b) = (old.clone(), new.clone());
                *a.meta_mut() = crate::model::Meta::default();
                *b.meta_mut() = crate::model::Meta::default();
                a != b
            }
        }
    }
}

impl Rule {
    /// Whether it judges writes.
    pub fn judges(&self) -> bool {
        self.checks.iter().any(|check| !matches!(check, Check::Audit(_)))
    }

    /// Whether it looks at the cluster as it stands, and may offer repairs.
    pub fn audits(&self) -> bool {
        self.checks.iter().any(|check| matches!(check, Check::Audit(_)))
    }

    /// The head of its source file: its documentation, in Markdown.
    pub fn doc(&self) -> String {
        let lines = self.source.lines().map_while(|l| l.strip_prefix("//!"));
        lines.map(|l| l.strip_prefix(' ').unwrap_or(l)).collect::<Vec<_>>().join("\n")
    }
}
