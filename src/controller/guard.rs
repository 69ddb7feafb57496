//! Keeps the parameters of the admission policy over webhook configurations: soon after the cluster changes, because who has
//! just moved the last user must not be told that there is one.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
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
/// … and no more than this is between them, or a slow one would look like a task that is stuck.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The object is read again after so long, for what was changed by hand.
const AGAIN: Duration = Duration::from_secs(20);
/// What it says is said again after so long, if nothing else changed: people read from it whether anybody still looks. Some
/// 300 writes of a few kilobytes a day.
const RENEWED: SignedDuration = SignedDuration::from_mins(5);
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
            let decided = tokio::task::spawn_blocking(move || decide(&p, &s, Timestamp::now())).await;
            let Ok(Some(spec)) = decided else {
                if decided.is_err() {
                    writer.metrics().reconcile_error(Loop::Guard);
                }
                pause = LOOK * SHARE;
                continue;
            };
            pause = pause_after(began.elapsed());
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

/// What should be in the object; `None` while what it rests on is not known, or is old: what was true long ago is in there
/// already, with its time.
fn decide(policy: &Policy, state: &Published, now: Timestamp) -> Option<GuardParametersSpec> {
    let (snapshot, reads) = state.snapshot.traced();
    let spec = guard::params(policy, &snapshot, now)?;
    if let Some((kind, heard)) = snapshot.oldest(reads.take())
        && now.duration_since(heard) > policy.stale.age.0
    {
        let kind = crate::wire::row(kind).plural;
        tracing::debug!(kind, %heard, "the parameters of the admission policy stay as they are: the view is old");
        return None;
    }
    Some(GuardParametersSpec { as_of: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), ..spec })
}

fn pause_after(deciding: Duration) -> Duration {
    (deciding * SHARE).clamp(LOOK, LONGEST_PAUSE)
}

/// Whether somebody who reads what is there learns as much from it.
fn will_do(there: &GuardParametersSpec, wanted: &GuardParametersSpec) -> bool {
    let time = |spec: &GuardParametersSpec| spec.as_of.parse::<Timestamp>().ok();
    let is_recent = match (time(there), time(wanted)) {
        (Some(there), Some(wanted)) => wanted.duration_since(there) < RENEWED,
        _ => there.as_of == wanted.as_of,
    };
    is_recent && *there == GuardParametersSpec { as_of: there.as_of.clone(), ..wanted.clone() }
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
    if will_do(&known.spec, wanted) {
        return Ok(known);
    }
    let change = Change::Apply {
        object: json!({"spec": wanted}),
        manager: Manager::Controller,
        held: Some(known.held.any_version()),
    };
    let written = writer.write(&Write { boundary: "guard", by: Loop::Guard, at, change }).await?;
    let mut known = read(&written);
    // A definition of an older release has no place for it: no reason to write the same again with every change of the view.
    known.spec.as_of.clone_from(&wanted.as_of);
    Ok(known)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use crate::snapshot::Snapshot;

    #[test]
    fn a_slow_decision_is_no_task_that_is_stuck() {
        assert_eq!(pause_after(Duration::from_millis(1)), LOOK);
        assert_eq!(pause_after(Duration::from_millis(200)), Duration::from_secs(2));
        assert_eq!(pause_after(Duration::from_secs(12)), LONGEST_PAUSE);
    }

    #[test]
    fn only_time_that_passes_is_written_every_few_minutes() {
        let at = |as_of: &str| GuardParametersSpec { as_of: as_of.to_owned(), ..GuardParametersSpec::default() };
        let there = at("2026-01-01T10:00:00Z");
        assert!(will_do(&there, &at("2026-01-01T10:04:59Z")));
        assert!(!will_do(&there, &at("2026-01-01T10:05:00Z")));
        assert!(!will_do(&at(""), &there), "of a version that said no time, or changed by hand");
        let other = GuardParametersSpec { backends: Some(Vec::new()), ..at("2026-01-01T10:00:01Z") };
        assert!(!will_do(&there, &other));
    }

    #[test]
    fn an_old_view_decides_nothing() {
        let now: Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
        let state = |age| {
            let kinds = [Kind::MutatingWebhook, Kind::ValidatingWebhook, Kind::Service, Kind::Crd];
            let heard = kinds.map(|kind| (kind, now - SignedDuration::from_secs(if kind == age { 301 } else { 10 })));
            let snapshot = Snapshot::whole().heard_at(Arc::new(heard.into_iter().collect()));
            Published { snapshot, heard: std::collections::BTreeMap::new() }
        };
        let decided = |age| decide(&Policy::default(), &state(age), now);
        assert_eq!(decided(Kind::Service), None);
        assert_eq!(decided(Kind::MutatingWebhook), None);
        // What is not looked at may be as old as it likes.
        assert_eq!(decided(Kind::Crd).unwrap().as_of, "2026-01-01T10:00:00Z");
    }
}
