//! The store: one task that turns reports into published snapshots.
//!
//! It alone owns the builder, so events of all sources have one order. It asks the API server nothing; which sources
//! there should be is `sources`' business, which learns from here what only the snapshot knows: the namespaces
//! of the mesh and the CRDs that changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::discovery::{group_of_crd, is_everywhere, is_in_mesh, watched};
use super::request::source_name;
use super::telemetry::{BEAT, STORE, Telemetry, Timing};
use super::watch::Report;
use crate::admission::webhook::{Published, Shared};
use crate::model::{Kind, Str};
use crate::snapshot::{Builder, Event, Snapshot, Source, WhyUnknown};

/// What the snapshot says about which sources there should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Namespaces whose pods, endpoints and ConfigMaps are read whole.
    pub mesh: Vec<Str>,
    /// How often a CRD of a group of ours came, changed or went.
    pub crds: BTreeMap<&'static str, u64>,
}

/// Whether reviews can be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// First lists that are still missing, as an operator calls them.
    Waiting(Vec<String>),
    /// It was complete once, and stays so: what is renewed later keeps its last state meanwhile.
    Ready,
}

/// Names of sources in a readiness message; the rest is counted.
const NAMED: usize = 5;

impl std::fmt::Display for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Readiness::Ready => f.write_str("ready"),
            Readiness::Waiting(missing) => {
                write!(f, "waiting for the first list of {}", missing[..missing.len().min(NAMED)].join(", "))?;
                let more = missing.len().saturating_sub(NAMED);
                if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
        }
    }
}

/// See the module's documentation.
pub struct Store {
    builder: Builder,
    shared: Arc<Shared>,
    telemetry: Arc<dyn Telemetry>,
    timing: Timing,
    /// When each source was last heard of; what is refused or not installed has no age.
    heard: HashMap<Source, Timestamp>,
    /// Versions applied and not yet published, by kind and whether they are of a namespace of the mesh.
    unpublished: BTreeMap<(Kind, bool), u64>,
    wants: watch::Sender<Wants>,
    readiness: watch::Sender<Readiness>,
    /// The namespaces of the mesh may have changed.
    mesh_touched: bool,
    /// Something was heard since the last publication.
    dirty: bool,
    next_publication: Instant,
}

/// Reports taken from the queue at once: enough to make its lock cheap, few enough that publication is not late.
const BATCH: usize = 128;

impl Store {
    pub fn new(
        shared: Arc<Shared>,
        telemetry: Arc<dyn Telemetry>,
        timing: Timing,
    ) -> (Self, watch::Receiver<Wants>, watch::Receiver<Readiness>) {
        let (wants, wanted) = watch::channel(Wants::default());
        let start = Snapshot::live();
        let (readiness, ready) = watch::channel(Readiness::Waiting(missing(&start)));
        let store = Store {
            builder: Builder::new(start),
            shared,
            telemetry,
            timing,
            heard: HashMap::new(),
            unpublished: BTreeMap::new(),
            wants,
            readiness,
            mesh_touched: false,
            dirty: false,
            next_publication: Instant::now(),
        };
        (store, wanted, ready)
    }

    /// Applies reports until nobody sends any more.
    pub async fn run(mut self, mut reports: mpsc::Receiver<Report>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.telemetry.alive(STORE);
            tokio::select! {
                taken = reports.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    let now = Timestamp::now();
                    let mut completes = false;
                    for report in batch.drain(..) {
                        completes |= self.apply(report, now);
                    }
                    self.want();
                    if completes {
                        self.consider_readiness();
                    }
                }
                () = tokio::time::sleep_until(self.next_publication), if self.dirty && self.is_ready() => {}
                () = tokio::time::sleep(BEAT) => {}
            }
            if self.dirty && self.is_ready() && Instant::now() >= self.next_publication {
                self.publish();
            }
        }
    }

    fn is_ready(&self) -> bool {
        *self.readiness.borrow() == Readiness::Ready
    }

    /// Whether the report may complete something.
    fn apply(&mut self, report: Report, now: Timestamp) -> bool {
        let Report { source, version, event } = report;
        self.dirty = true;
        self.heard.insert(source.clone(), now);
        if let Some(version) = version {
            let seen = self.unpublished.entry((source.0, source.1.is_some())).or_default();
            *seen = version.max(*seen);
        }
        let Some(event) = event else { return false };
        let completes = match &event {
            Event::Listed(_) => true,
            Event::Forbidden(source) | Event::Dropped(source) => {
                self.heard.remove(source);
                true
            }
            Event::NotInstalled(kind) => {
                self.heard.retain(|(k, _), _| k != kind);
                true
            }
            Event::Listing(_) | Event::Apply(..) | Event::Delete(..) => false,
        };
        self.mesh_touched |= completes || says_where_the_mesh_is(source.0);
        self.note_crd(&event);
        self.builder.apply(event);
        completes
    }

    fn note_crd(&mut self, event: &Event) {
        let name = match event {
            Event::Apply((Kind::Crd, _), object) => &object.meta().name,
            Event::Delete((Kind::Crd, _), id) => &id.name,
            _ => return,
        };
        if let Some(group) = group_of_crd(name) {
            self.wants.send_modify(|w| *w.crds.entry(group).or_default() += 1);
        }
    }

    /// Tells which namespaces are to be read whole.
    fn want(&mut self) {
        if !std::mem::take(&mut self.mesh_touched) {
            return;
        }
        let mesh = self.builder.snapshot().mesh_namespaces();
        self.wants.send_if_modified(|w| {
            let changed = w.mesh != mesh;
            w.mesh = mesh;
            changed
        });
    }

    fn consider_readiness(&mut self) {
        if self.is_ready() {
            return;
        }
        let missing = missing(self.builder.snapshot());
        if missing.is_empty() {
            self.publish();
            tracing::info!("every first list is complete");
            self.readiness.send_replace(Readiness::Ready);
        } else {
            self.readiness.send_replace(Readiness::Waiting(missing));
        }
    }

    fn publish(&mut self) {
        let snapshot = self.builder.snapshot().clone();
        let objects = watched().map(|r| snapshot.len(r.kind)).sum();
        let (mut heard, mut sources) = (BTreeMap::new(), BTreeMap::new());
        for ((kind, namespace), at) in &self.heard {
            oldest(heard.entry(*kind), *at);
            oldest(sources.entry((*kind, namespace.is_some())), *at);
        }
        let snapshot = snapshot.heard_at(Arc::new(heard));
        self.shared.state.store(Arc::new(Published { snapshot, heard: sources }));
        self.dirty = false;
        self.next_publication = Instant::now() + self.timing.publish;
        for ((kind, in_mesh), version) in std::mem::take(&mut self.unpublished) {
            self.telemetry.seen(kind, in_mesh, version);
        }
        self.telemetry.published(objects);
    }
}

/// A kind is as old as the source of it that was silent longest.
fn oldest<K: Ord>(entry: std::collections::btree_map::Entry<'_, K, Timestamp>, at: Timestamp) {
    entry.and_modify(|oldest| *oldest = at.min(*oldest)).or_insert(at);
}

/// Kinds whose objects make a namespace one of the mesh.
fn says_where_the_mesh_is(kind: Kind) -> bool {
    Kind::WORKLOADS.contains(&kind) || matches!(kind, Kind::MutatingWebhook | Kind::ValidatingWebhook)
}

/// Sources whose first list is not complete, as an operator calls them. What is refused is not waited for.
fn missing(snapshot: &Snapshot) -> Vec<String> {
    let waits = |source: &Source| {
        snapshot.knows(source.0, source.1.as_deref()).is_err_and(|unknown| unknown.why != WhyUnknown::Forbidden)
    };
    let everywhere = watched().filter(|r| is_everywhere(r.kind)).map(|r| (r.kind, None));
    // Where the cluster does not have the kind at all, that is known everywhere.
    let installed = watched().filter(|r| is_in_mesh(r.kind) && (is_everywhere(r.kind) || waits(&(r.kind, None))));
    let mesh = snapshot.mesh_namespaces();
    let whole = installed.flat_map(|r| mesh.iter().map(|ns| (r.kind, Some(ns.clone()))));
    everywhere.chain(whole).filter(|s| waits(s)).map(|s| source_name(&s)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_is_missing() {
        let nothing = missing(&Snapshot::live());
        assert!(
            nothing.contains(&"pods".to_owned()) && nothing.contains(&"istiooperators.install.istio.io".to_owned())
        );
        assert!(!nothing.iter().any(|s| s.starts_with("endpointslices")), "no namespace of the mesh is known yet");
        let text = Readiness::Waiting(nothing).to_string();
        assert!(text.starts_with("waiting for the first list of namespaces, ") && text.ends_with(" more"), "{text}");
    }
}
