//! One step as one write: the value comes from below the line, the address and the sending are ours.

use serde_json::{Value, json};

use crate::controller::resource::{At, CONFIG_MAPS, DEPLOYMENTS, HPAS, PDBS, PODS, ROLLOUTS, Resource, SERVICES};
use crate::controller::write::{Change, Held, Write};
use crate::model::key;
use crate::model::text::pointed;
use crate::rollout::objects::{self, Impossible, Written};
use crate::rollout::read::Raw;
use crate::rollout::seen::Version;
use crate::rollout::{Seen, Step};
use crate::telemetry::metrics::Loop;

/// The write that carries out a step on what was just read.
///
/// # Errors
/// What the step is about is not there any more.
pub fn write(step: &Step, seen: &Seen, raw: &Raw) -> Result<Write, Impossible> {
    let Written { kind, name, change } = objects::step(step, seen, raw)?;
    let resource = resource(kind).ok_or_else(|| Impossible::Missing(format!("kind {kind}")))?;
    let change = match change {
        objects::Change::Patch { operations, held } if matches!(step, Step::Scale { .. }) => {
            scale(operations, &held, seen)
        }
        objects::Change::Create { object } => Change::Create { object },
        objects::Change::Patch { operations, held } => Change::Patch { operations, held: precondition(&held) },
        objects::Change::Delete { held, foreground } => Change::Delete { held: precondition(&held), foreground },
    };
    let at = At::of(resource, &seen.rollout.namespace, &name);
    Ok(Write { boundary: step.boundary(), by: Loop::Rollout, at, change })
}

/// Replicas are changed while nobody else has changed the Deployment and the gateway is in this rollout's hands. How many pods it reports
/// is no precondition: the plan has counted the pods themselves, and the count changes with every pod that is set apart.
fn scale(operations: Vec<Value>, held: &Version, seen: &Seen) -> Change {
    let all = [&seen.source, &seen.canary, &seen.standby];
    let Some(deployment) = all.into_iter().flatten().find(|d| d.held == *held) else {
        return Change::Patch { operations, held: precondition(held) };
    };
    let annotations = &deployment.annotations;
    let lock = annotations.get(key::ACTIVE_ROLLOUT).map(|holder| {
        let path = format!("/metadata/annotations/{}", pointed(key::ACTIVE_ROLLOUT));
        json!({"op": "test", "path": path, "value": holder})
    });
    let operations = lock.into_iter().chain(operations).collect();
    Change::PatchSpec { operations, held: precondition(held), generation: deployment.generation }
}

pub fn precondition(held: &Version) -> Held {
    Held { uid: held.uid.to_string(), version: held.version.to_string() }
}

/// Everything that a rollout may write, and nothing else.
fn resource(kind: &str) -> Option<&'static Resource> {
    [&ROLLOUTS, &DEPLOYMENTS, &PODS, &CONFIG_MAPS, &HPAS, &SERVICES, &PDBS].into_iter().find(|r| r.kind == kind)
}
