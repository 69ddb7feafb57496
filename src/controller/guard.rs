//! Keeps the parameters of the admission policy over webhook configurations: soon after the cluster changes, because who has
//! just moved the last user must not be told that there is one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::names::Names;
use super::resource::{At, CONFIG_MAPS};
use super::write::{Change, Held, Manager, Write, WriteError, Writer};
use crate::admission::webhook::{Published, Shared};
use crate::audit::guard;
use crate::rules::Policy;
use crate::telemetry::Heartbeat;
use crate::telemetry::metrics::Loop;

/// Between two looks at whether there is a new snapshot; one is published at most every 50 ms.
const LOOK: Duration = Duration::from_millis(100);
/// Deciding over a large mesh takes this many times less than what is between two decisions.
const SHARE: u32 = 10;
/// The ConfigMap is read again after so long, for what was changed by hand.
const AGAIN: Duration = Duration::from_secs(60);

/// What is in the ConfigMap as far as is known.
struct Known {
    held: Held,
    data: BTreeMap<String, String>,
    at: tokio::time::Instant,
}

/// What was looked at, and what should be in the ConfigMap because of it.
type Decided = (Arc<Published>, Arc<Policy>, BTreeMap<String, String>);

/// Runs for as long as the process lives.
pub async fn run(writer: Writer, shared: Arc<Shared>, names: Names, heartbeat: Heartbeat) {
    let at = At::of(&CONFIG_MAPS, &names.namespace, &names.guard());
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
            let Ok(Some(data)) = decided else {
                if decided.is_err() {
                    writer.metrics().reconcile_error(Loop::Guard);
                }
                pause = LOOK * SHARE;
                continue;
            };
            pause = LOOK.max(began.elapsed() * SHARE);
            last = Some((state, policy, data));
        }
        let Some((_, _, wanted)) = &last else { continue };
        match keep(&writer, &at, known.take().filter(|_| fresh), wanted).await {
            Ok(now) => known = Some(now),
            Err(error) => {
                if !error.is_benign() {
                    tracing::warn!(%error, "the parameters of the admission policy are not brought up to date");
                }
                pause = LOOK * SHARE;
            }
        }
    }
}

async fn keep(
    writer: &Writer,
    at: &At,
    known: Option<Known>,
    wanted: &BTreeMap<String, String>,
) -> Result<Known, WriteError> {
    let known = match known {
        Some(known) => known,
        None => {
            let found = writer.read(at).await.inspect_err(|_| writer.metrics().reconcile_error(Loop::Guard))?;
            let found = found.ok_or_else(|| WriteError::Missing { at: format!("{at} (`helm upgrade` makes it)") })?;
            read(&found)
        }
    };
    if known.data == *wanted {
        return Ok(known);
    }
    let change = Change::Apply {
        object: json!({"data": wanted}),
        manager: Manager::Controller,
        held: Some(known.held.any_version()),
    };
    let written = writer.write(&Write { boundary: "guard", by: Loop::Guard, at: at.clone(), change }).await?;
    Ok(read(&written))
}

fn read(object: &Value) -> Known {
    let data = serde_json::from_value(object["data"].clone()).unwrap_or_default();
    Known { held: Held::of(object), data, at: tokio::time::Instant::now() }
}
