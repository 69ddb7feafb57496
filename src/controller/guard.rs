//! Keeps the parameters of the admission policy over webhook configurations: soon after the cluster changes, because who has
//! just moved the last user must not be told that there is one.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::names::Names;
use super::resource::{At, CONFIG_MAPS, GUARD_PARAMETERS};
use super::write::{Change, Held, Manager, Write, WriteError, Writer};
use crate::admission::webhook::{Published, Shared};
use crate::api::GuardParametersSpec;
use crate::audit::guard;
use crate::rules::Policy;
use crate::telemetry::Heartbeat;
use crate::telemetry::metrics::Loop;

/// Between two looks at whether there is a new snapshot; one is published at most every 50 ms.
const LOOK: Duration = Duration::from_millis(100);
/// Deciding over a large mesh takes this many times less than what is between two decisions.
const SHARE: u32 = 10;
/// The object is read again after so long, for what was changed by hand.
const AGAIN: Duration = Duration::from_secs(20);
/// What is not installed will not be there in a moment.
const LATER: Duration = Duration::from_secs(10);

/// What is in the object as far as is known.
struct Known {
    held: Held,
    spec: GuardParametersSpec,
    at: tokio::time::Instant,
}

/// What was looked at, and what should be in the object because of it.
type Decided = (Arc<Published>, Arc<Policy>, GuardParametersSpec);

/// Runs for as long as the process lives.
pub async fn run(writer: Writer, shared: Arc<Shared>, names: Names, heartbeat: Heartbeat) {
    let mut known: Option<Known> = None;
    let mut last: Option<Decided> = None;
    let mut pause = LOOK;
    loop {
        heartbeat.beat();
        tokio::time::sleep(pause).await;
        pause = LOOK;
        if writer.leadership().remaining().is_none() {
            (known, last) = (None, None);
            continue;
        }
        let (state, policy) = (shared.state.load_full(), shared.policy.load_full());
        let same = last.as_ref().is_some_and(|(s, p, _)| Arc::ptr_eq(s, &state) && Arc::ptr_eq(p, &policy));
        let fresh = known.as_ref().is_some_and(|k| k.at.elapsed() < AGAIN);
        if same && fresh {
            continue;
        }
        if !same {
            let began = std::time::Instant::now();
            let (s, p) = (Arc::clone(&state), Arc::clone(&policy));
            let decided = tokio::task::spawn_blocking(move || guard::params(&p, &s.snapshot, Timestamp::now())).await;
            let Ok(Some(spec)) = decided else {
                if decided.is_err() {
                    writer.metrics().reconcile_error(Loop::Guard);
                }
                pause = LOOK * SHARE;
                continue;
            };
            pause = LOOK.max(began.elapsed() * SHARE);
            last = Some((state, policy, spec));
        }
        let Some((_, _, wanted)) = &last else { continue };
        match keep(&writer, &names, known.take().filter(|_| fresh), wanted).await {
            Ok(now) => known = Some(now),
            Err(error) => {
                if !error.is_benign() {
                    tracing::warn!(%error, "the parameters of the admission policy are not brought up to date");
                }
                pause = if matches!(error, WriteError::Missing { .. }) { LATER } else { LOOK * SHARE };
            }
        }
    }
}

async fn keep(
    writer: &Writer,
    names: &Names,
    known: Option<Known>,
    wanted: &GuardParametersSpec,
) -> Result<Known, WriteError> {
    let at = At::of(&GUARD_PARAMETERS, &names.namespace, &names.release);
    let known = match known {
        Some(known) => known,
        None => match found(writer, &at).await? {
            Some(object) => read(&object),
            None => read(&make(writer, &at, names).await?),
        },
    };
    if known.spec == *wanted {
        return Ok(known);
    }
    let change = Change::Apply {
        object: json!({"spec": wanted}),
        manager: Manager::Controller,
        held: Some(known.held.any_version()),
    };
    let written = writer.write(&Write { boundary: "guard", by: Loop::Guard, at, change }).await?;
    Ok(read(&written))
}

async fn found(writer: &Writer, at: &At) -> Result<Option<Value>, WriteError> {
    writer.read(at).await.inspect_err(|_| writer.metrics().reconcile_error(Loop::Guard))
}

/// Makes the object without anything in it: what it says is applied, so that no field ever has two owners.
///
/// It belongs to a ConfigMap of the release, and so goes with it: what an installation of long ago knew must not be held
/// against anybody while the next one has not spoken yet.
async fn make(writer: &Writer, at: &At, names: &Names) -> Result<Value, WriteError> {
    let release = At::of(&CONFIG_MAPS, &names.namespace, &names.report());
    let owner = found(writer, &release).await?;
    let owner = owner.ok_or_else(|| WriteError::Missing { at: format!("{release} (`helm upgrade` makes it)") })?;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": release.name, "uid": owner["metadata"]["uid"]});
    let labels = json!({"app.kubernetes.io/name": "revguard", "app.kubernetes.io/managed-by": "revguard"});
    let object = json!({"metadata": {"labels": labels, "ownerReferences": [owner]}, "spec": {}});
    let write = Write { boundary: "guard-create", by: Loop::Guard, at: at.clone(), change: Change::Create { object } };
    writer.write(&write).await.map_err(|error| match error {
        WriteError::Missing { .. } => {
            WriteError::Missing { at: format!("the definition of {at} (`helm upgrade` installs it)") }
        }
        other => other,
    })
}

fn read(object: &Value) -> Known {
    let spec = serde_json::from_value(object["spec"].clone()).unwrap_or_default();
    Known { held: Held::of(object), spec, at: tokio::time::Instant::now() }
}
