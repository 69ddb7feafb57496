//! A live cluster's state: watched, counted, and part of readiness and liveness.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::admission::webhook::Shared;
use crate::cluster::{self, Readiness, Telemetry, Timing, Trouble, Verb, source_name};
use crate::model::Kind;
use crate::snapshot::Source;
use crate::telemetry::{Condition, Health, Heartbeat, Metrics};
use crate::wire::kinds::{KINDS, label};

/// Pods are read twice: metadata everywhere, whole objects in the namespaces of the mesh.
const PODS_IN_MESH: &str = "pods-in-mesh";

/// The store and the list of sources go round at least every few seconds; a look at the API server's groups may wait for
/// several answers of 30 s each, one after the other.
const SILENCE: [(&str, Duration); 2] =
    [(cluster::telemetry::STORE, Duration::from_secs(60)), (cluster::telemetry::SOURCES, Duration::from_secs(300))];

struct Counted {
    metrics: Arc<Metrics>,
    beats: Vec<(&'static str, Heartbeat)>,
}

impl Telemetry for Counted {
    fn alive(&self, task: &'static str) {
        self.beats.iter().filter(|(name, _)| *name == task).for_each(|(_, heartbeat)| heartbeat.beat());
    }

    fn trouble(&self, source: &Source, verb: Verb, trouble: &Trouble) {
        self.metrics.watch_error(label(source.0));
        tracing::warn!(source = source_name(source), verb = verb.word(), error = %trouble, "the API server was not understood");
    }

    fn listing(&self, source: &Source) {
        tracing::debug!(source = source_name(source), "listing");
    }

    fn unreadable(&self, kind: Kind, name: &str, error: &str) {
        self.metrics.watch_error(label(kind));
        tracing::warn!(kind = label(kind), name, error, "an object cannot be read and is left out");
    }

    fn seen(&self, kind: Kind, in_mesh: bool, version: u64) {
        self.metrics.snapshot_version(source_label(kind, in_mesh), i64::try_from(version).unwrap_or(i64::MAX));
    }

    fn too_many_mesh_namespaces(&self, found: usize, read: usize) {
        tracing::error!(
            found,
            read,
            "more namespaces hold gateways than are read whole; what serves in the rest is unknown"
        );
    }

    fn unread_versions(&self, kind: Kind, served: &[String]) {
        tracing::error!(
            kind = label(kind),
            served = served.join(","),
            "served only in versions that this build cannot read"
        );
    }
}

fn source_label(kind: Kind, in_mesh: bool) -> &'static str {
    if in_mesh && kind == Kind::Pod { PODS_IN_MESH } else { label(kind) }
}

/// Starts the watches; readiness follows them, and liveness ends with them.
pub fn start(client: kube::Client, shared: &Arc<Shared>, metrics: &Arc<Metrics>, health: &Arc<Health>) {
    metrics.expect_watches(KINDS.iter().map(|row| label(row.kind)));
    let beats = SILENCE.map(|(task, silence)| (task, health.task(task, Some(silence)))).into();
    let telemetry = Arc::new(Counted { metrics: Arc::clone(metrics), beats });
    let handle = cluster::start(client, Arc::clone(shared), telemetry, Timing::default());
    let state = Arc::clone(shared);
    metrics.before_scrape(move |m| {
        let (now, limit) = (Timestamp::now(), state.policy.load().stale.age.0);
        for ((kind, in_mesh), at) in &state.state.load().heard {
            let (name, age) = (source_label(*kind, *in_mesh), now.duration_since(*at));
            m.snapshot_age(name, Duration::try_from(age).unwrap_or_default());
            m.snapshot_stale(name, age > limit);
        }
    });
    let mut readiness = handle.readiness();
    let (ready, alive) = (Arc::clone(health), health.task("live state", None));
    tokio::spawn(async move {
        loop {
            let now = readiness.borrow_and_update().clone();
            let state = if now == Readiness::Ready { Ok(()) } else { Err(now.to_string()) };
            ready.set(Condition::State, state);
            tokio::select! {
                died = handle.join() => {
                    tracing::error!(error = %died, "the live state has ended; the process must be restarted");
                    // /healthz names it, and the supervisor ends the process.
                    ready.died(&died.task, &died.why);
                    break;
                }
                changed = readiness.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
            }
        }
        drop(alive);
    });
}
