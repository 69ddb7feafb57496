//! Which sources run: the table's kinds that the cluster has, and whole objects in namespaces of the mesh.
//!
//! It starts and ends watches and reads nothing of them itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Died;
use super::discovery::{self, Served, groups, is_everywhere, is_in_mesh, watched};
use super::request::{Collection, Trouble, source_name};
use super::state::Wants;
use super::telemetry::{BEAT, SOURCES, Verb, essential};
use super::watch::{Context, Feed, Report};
use crate::model::{Kind, Str};
use crate::snapshot::{Event, Source};

/// When a group is looked at again.
struct Due {
    at: Instant,
    /// How many of the looks after a change are done; past the last one the group is left alone.
    step: usize,
}

/// See the module's documentation.
pub struct Sources {
    context: Arc<Context>,
    wants: watch::Receiver<Wants>,
    lost: mpsc::Receiver<Kind>,
    died: mpsc::Sender<Died>,
    running: BTreeMap<Source, JoinHandle<()>>,
    /// The version in which each kind is read; `None` for what the cluster does not have.
    versions: BTreeMap<Kind, Option<String>>,
    due: BTreeMap<&'static str, Due>,
    /// Looks at a group that failed in a row.
    failures: BTreeMap<&'static str, u32>,
    seen_crds: BTreeMap<&'static str, u64>,
    mesh: BTreeSet<Str>,
    /// Namespaces of the mesh beyond the limit; their whole objects count as refused.
    beyond: BTreeSet<Str>,
    /// Namespaces that left the mesh, and when they are let go.
    leaving: BTreeMap<Str, Instant>,
    next_round: Instant,
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.running.values().for_each(JoinHandle::abort);
    }
}

impl Sources {
    pub fn new(
        context: Arc<Context>,
        wants: watch::Receiver<Wants>,
        lost: mpsc::Receiver<Kind>,
        died: mpsc::Sender<Died>,
    ) -> Self {
        let now = Instant::now();
        Sources {
            next_round: now + context.timing.rediscover,
            context,
            wants,
            lost,
            died,
            running: BTreeMap::new(),
            versions: BTreeMap::new(),
            due: groups().into_iter().map(|g| (g, Due { at: now, step: usize::MAX })).collect(),
            failures: BTreeMap::new(),
            seen_crds: BTreeMap::new(),
            mesh: BTreeSet::new(),
            beyond: BTreeSet::new(),
            leaving: BTreeMap::new(),
        }
    }

    /// Keeps the right sources running until the store is gone.
    pub async fn run(mut self) {
        loop {
            self.context.telemetry.alive(SOURCES);
            let due = self.due.values().map(|d| d.at);
            let next = due.chain(self.leaving.values().copied()).chain([self.next_round]).min();
            tokio::select! {
                changed = self.wants.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wants = self.wants.borrow_and_update().clone();
                    self.note_crds(&wants);
                    self.follow(&wants.mesh).await;
                }
                Some(kind) = self.lost.recv() => self.suspect(crate::wire::row(kind).group, Instant::now()),
                () = tokio::time::sleep_until(next.unwrap_or(self.next_round)) => self.on_time().await,
                () = tokio::time::sleep(BEAT) => {}
            }
        }
    }

    async fn on_time(&mut self) {
        let now = Instant::now();
        if now >= self.next_round {
            self.next_round = now + self.context.timing.rediscover;
            for group in groups() {
                self.due.entry(group).or_insert(Due { at: now, step: usize::MAX });
            }
        }
        self.look(now).await;
        let over: Vec<Str> = self.leaving.iter().filter(|(_, at)| **at <= now).map(|(ns, _)| ns.clone()).collect();
        for namespace in over {
            self.leaving.remove(&namespace);
            self.let_go(&namespace).await;
        }
    }

    /// Groups of which a CRD changed are looked at soon, and again until the API server has caught up with itself.
    fn note_crds(&mut self, wants: &Wants) {
        for (group, count) in &wants.crds {
            if self.seen_crds.insert(group, *count) != Some(*count) {
                self.suspect(group, Instant::now());
            }
        }
    }

    fn suspect(&mut self, group: &'static str, now: Instant) {
        let at = now + self.context.timing.settle[0];
        // A watch that keeps failing must not put the look off for ever.
        let at = self.due.get(group).map_or(at, |d| d.at.min(at));
        self.due.insert(group, Due { at, step: 0 });
    }

    /// Looks at every group that is due.
    async fn look(&mut self, now: Instant) {
        let due: Vec<&'static str> = self.due.iter().filter(|(_, d)| d.at <= now).map(|(g, _)| *g).collect();
        // At most every group of the table at one time, which is when we start.
        let looks = due.into_iter().map(|group| {
            let context = Arc::clone(&self.context);
            async move { (group, discovery::look(&context.client, group, context.timing.answer).await) }.boxed()
        });
        let looks: Vec<_> = looks.collect();
        for (group, found) in join_all(looks).await {
            match found {
                Ok(found) => {
                    self.failures.remove(group);
                    for (row, served) in found {
                        self.settle(row.kind, served).await;
                    }
                    self.after_look(group);
                }
                Err(trouble) => self.not_told(group, &trouble).await,
            }
        }
    }

    fn after_look(&mut self, group: &'static str) {
        let Some(due) = self.due.get_mut(group) else { return };
        due.step = due.step.saturating_add(1);
        match self.context.timing.settle.get(due.step) {
            Some(wait) => due.at = Instant::now() + *wait,
            None => {
                self.due.remove(group);
            }
        }
    }

    async fn not_told(&mut self, group: &'static str, trouble: &Trouble) {
        let of_group: Vec<Kind> = watched().filter(|r| r.group == group).map(|r| r.kind).collect();
        for kind in &of_group {
            self.context.telemetry.trouble(&(*kind, None), Verb::Discover, trouble);
            // What runs keeps running: it is no less true than before.
            if matches!(trouble, Trouble::Forbidden(_)) && !self.versions.contains_key(kind) {
                self.tell((*kind, None), Event::Forbidden((*kind, None))).await;
            }
        }
        tracing::warn!(group, error = %trouble, "cannot ask which kinds this API group has; asking again");
        // Until the group is known nothing of it is watched, so a refusal is no reason to wait longer than another trouble.
        let failures = self.failures.entry(group).or_default();
        let wait = essential(&self.context.timing, *failures, trouble);
        *failures += 1;
        self.due.insert(group, Due { at: Instant::now() + wait, step: 0 });
    }

    /// Brings the sources of a kind in line with how it is served.
    async fn settle(&mut self, kind: Kind, served: Served) {
        let known = self.versions.get(&kind).cloned();
        match served {
            Served::Versions(all) => {
                if known.as_ref().is_some_and(|v| v.as_ref().is_some_and(|v| all.contains(v))) {
                    return;
                }
                self.stop_kind(kind).await;
                let version = all[0].clone();
                tracing::debug!(resource = source_name(&(kind, None)), version, "reading");
                self.versions.insert(kind, Some(version.clone()));
                if is_everywhere(kind) {
                    self.start(kind, &version, None);
                }
                if is_in_mesh(kind) {
                    let namespaces: Vec<Str> = self.mesh.iter().chain(self.leaving.keys()).cloned().collect();
                    namespaces.iter().for_each(|ns| self.start(kind, &version, Some(ns)));
                }
            }
            Served::No if known != Some(None) => {
                self.stop_kind(kind).await;
                self.versions.insert(kind, None);
                self.tell((kind, None), Event::NotInstalled(kind)).await;
            }
            Served::No => {}
            Served::Unread(versions) => {
                self.stop_kind(kind).await;
                self.versions.remove(&kind);
                self.context.telemetry.unread_versions(kind, &versions);
                let resource = source_name(&(kind, None));
                tracing::error!(resource, ?versions, "served only in versions that this build cannot read; unknown");
                self.tell((kind, None), Event::Forbidden((kind, None))).await;
            }
        }
    }

    /// Follows the namespaces of the mesh.
    async fn follow(&mut self, found: &[Str]) {
        for event in self.choose(found) {
            let (Event::Forbidden(source) | Event::Dropped(source)) = &event else { continue };
            self.tell(source.clone(), event).await;
        }
    }

    /// Starts and counts down what changed; the events for what is beyond the limit.
    fn choose(&mut self, found: &[Str]) -> Vec<Event> {
        let limit = self.context.timing.mesh_namespaces;
        // What is read already is not given up for what sorts before it.
        let (held, new): (Vec<&Str>, Vec<&Str>) = found.iter().partition(|ns| self.mesh.contains(*ns));
        let wanted: BTreeSet<Str> = held.into_iter().chain(new).take(limit).cloned().collect();
        let beyond: BTreeSet<Str> = found.iter().filter(|ns| !wanted.contains(*ns)).cloned().collect();
        let until = Instant::now() + self.context.timing.hold;
        for left in self.mesh.difference(&wanted) {
            self.leaving.insert(left.clone(), until);
        }
        let kinds: Vec<_> = self.versions.iter().filter_map(|(k, v)| Some((*k, v.clone()?))).collect();
        let new: Vec<Str> = wanted.difference(&self.mesh).cloned().collect();
        for namespace in new {
            if self.leaving.remove(&namespace).is_none() {
                for (kind, version) in kinds.iter().filter(|(k, _)| is_in_mesh(*k)) {
                    self.start(*kind, version, Some(&namespace));
                }
            }
        }
        if !beyond.is_empty() && beyond != self.beyond {
            tracing::warn!(found = found.len(), read = limit, "too many namespaces hold gateways; the rest is unknown");
            self.context.telemetry.too_many_mesh_namespaces(found.len(), limit);
        }
        let each = |ns: &Str| in_mesh_kinds().into_iter().map(|kind| (kind, Some(ns.clone()))).collect::<Vec<Source>>();
        let refused = beyond.difference(&self.beyond).flat_map(each).map(Event::Forbidden);
        let gone = self.beyond.iter().filter(|ns| !found.contains(ns)).flat_map(each).map(Event::Dropped);
        let events = refused.chain(gone).collect();
        self.mesh = wanted;
        self.beyond = beyond;
        events
    }

    async fn let_go(&mut self, namespace: &Str) {
        for kind in in_mesh_kinds() {
            let source = (kind, Some(namespace.clone()));
            self.stop(&source).await;
            self.tell(source.clone(), Event::Dropped(source)).await;
        }
    }

    async fn stop_kind(&mut self, kind: Kind) {
        let all: Vec<Source> = self.running.keys().filter(|(k, _)| *k == kind).cloned().collect();
        for source in all {
            self.stop(&source).await;
            if source.1.is_some() {
                self.tell(source.clone(), Event::Dropped(source)).await;
            }
        }
    }

    /// Ends a source and waits until it says nothing more.
    async fn stop(&mut self, source: &Source) {
        if let Some(task) = self.running.remove(source) {
            task.abort();
            let _ = task.await;
        }
    }

    fn start(&mut self, kind: Kind, version: &str, namespace: Option<&Str>) {
        let source = (kind, namespace.cloned());
        if self.running.contains_key(&source) {
            return;
        }
        let feed = Feed::new(Arc::clone(&self.context), Collection::of(kind, version, namespace));
        let (died, task) = (self.died.clone(), format!("watch of {}", source_name(&source)));
        let task = tokio::spawn(async move {
            // A source ends only with the store; anything else is a fault that somebody must hear of.
            let why = match std::panic::AssertUnwindSafe(feed.run().boxed()).catch_unwind().await {
                Ok(()) => "it ended".to_owned(),
                Err(panic) => super::panic_text(&*panic),
            };
            let _ = died.send(Died { task, why }).await;
        });
        self.running.insert(source, task);
    }

    async fn tell(&self, source: Source, event: Event) {
        // Without a store there is nobody to tell; the loop ends by itself.
        let _ = self.context.reports.send(Report { source, version: None, event: Some(event) }).await;
    }
}

fn in_mesh_kinds() -> Vec<Kind> {
    watched().map(|r| r.kind).filter(|k| is_in_mesh(*k)).collect()
}
