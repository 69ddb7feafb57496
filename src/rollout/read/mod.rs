//! From the API server's objects, or manifests, to what a plan is made from: [`Raw`] becomes [`Seen`].
//!
//! Total: odd objects are read as far as they can be, and never panic. What decides whether a pod may go comes from
//! [`Raw`], which whoever plans a write has listed right before; the snapshot, which may be some seconds old, only says where to look and
//! which names are tags. What is not an object (statistics of Envoys, alerts, dry-runs) is left empty for whoever asks for it.

pub mod json;
pub mod raw;
mod rollout;

use std::collections::BTreeMap;

use crate::rollout::seen::{Config, ControlPlane, Gate, Seen};
use crate::snapshot::Snapshot;

pub use raw::{Listed, Question, Raw, Row, TABLE, missing};

/// Why there is nothing to plan from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The API server's schema and ours differ, or it is not a GatewayRollout.
    #[error("GatewayRollout {name}: {problem}")]
    Rollout { name: String, problem: String },
}

/// What a plan is made from. `findings`, `dry_runs`, `evidence`, `gate` and `metrics` are for the caller to fill in.
///
/// # Errors
/// A rollout whose spec cannot be read.
pub fn seen(raw: &Raw, known: &Snapshot) -> Result<Seen, Unreadable> {
    let _ = known;
    let rollout = rollout::read(raw)?;
    Ok(Seen {
        rollout,
        source: None,
        canary: None,
        standby: None,
        pods: Vec::new(),
        services: Vec::new(),
        hpas: Vec::new(),
        pdbs: Vec::new(),
        config: Config::default(),
        from: ControlPlane::default(),
        to: ControlPlane::default(),
        findings: None,
        dry_runs: None,
        evidence: BTreeMap::new(),
        gate: Gate::Off,
        metrics: Vec::new(),
        apart_key: Err("no Service was read".into()),
        others: Vec::new(),
    })
}
