//! From watch events to snapshots: any order, repetition or restart that ends in the same cluster gives the same one.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Knowledge, Snapshot, Source};
use crate::model::{Id, Kind, Labels, Meta, Object, Str};

/// What a watch says.
#[derive(Clone, Debug)]
pub enum Event {
    /// A list begins: what it does not name by its end is gone.
    Listing(Source),
    Apply(Source, Box<Object>),
    Delete(Source, Id),
    /// The list is complete.
    Listed(Source),
    /// The API server refuses this source.
    Forbidden(Source),
    /// The cluster does not have this kind (any more).
    NotInstalled(Kind),
    /// The namespace is no longer one whose objects are read whole.
    Dropped(Source),
}

/// Applies events to the next snapshot.
pub struct Builder {
    next: Snapshot,
    /// Open lists, and what they named so far where that matters.
    lists: HashMap<Source, Option<BTreeSet<Id>>>,
    interner: Interner,
}

impl Builder {
    pub fn new(start: Snapshot) -> Self {
        Builder { next: start, lists: HashMap::new(), interner: Interner::default() }
    }

    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Listing(source) => {
                // A second list does not make what is known unknown.
                if self.next.knows(source.0, source.1.as_deref()).is_err() {
                    self.next.learn(source.clone(), Knowledge::Listing);
                }
                // What begins empty has nothing to lose, and a first list is the longest.
                let names = (self.held(&source).next().is_some()).then(BTreeSet::new);
                self.lists.insert(source, names);
            }
            Event::Apply(source, mut object) => {
                if self.is_told_better(&source, &object.meta().namespace) {
                    return;
                }
                self.interner.share(&mut object);
                if let Some(Some(list)) = self.lists.get_mut(&source) {
                    list.insert(object.id());
                }
                self.next.put(*object);
            }
            Event::Delete(source, id) => {
                if self.is_told_better(&source, &id.namespace) {
                    return;
                }
                if let Some(Some(list)) = self.lists.get_mut(&source) {
                    list.remove(&id);
                }
                self.next.remove(&id);
            }
            Event::Listed(source) => {
                if let Some(Some(list)) = self.lists.remove(&source) {
                    let stays = |id: &Id| list.contains(id) || self.is_told_better(&source, &id.namespace);
                    let gone: Vec<Id> = self.held(&source).filter(|id| !stays(id)).collect();
                    self.remove_all(gone);
                }
                self.next.learn(source, Knowledge::Complete);
            }
            Event::Forbidden(source) => {
                self.lists.remove(&source);
                self.next.learn(source, Knowledge::Forbidden);
            }
            Event::NotInstalled(kind) => {
                let source = (kind, None);
                self.lists.remove(&source);
                let all = self.held(&source).collect();
                self.remove_all(all);
                self.next.learn(source, Knowledge::Complete);
            }
            Event::Dropped(source) => {
                self.lists.remove(&source);
                match &source {
                    // Pods stay: their metadata comes from every namespace.
                    (Kind::Pod, Some(namespace)) => self.next.forget_status(namespace),
                    _ => {
                        let all = self.held(&source).collect();
                        self.remove_all(all);
                    }
                }
                self.next.forget(&source);
            }
        }
        self.interner.sweep();
    }

    /// The cluster as the events so far tell it.
    pub fn snapshot(&self) -> &Snapshot {
        &self.next
    }

    /// Two watches tell of pods in namespaces of the mesh, one before the other. Once the whole ones are known, the watch
    /// that brings only metadata is not listened to there: behind the other it would undo what that has told.
    fn is_told_better(&self, source: &Source, namespace: &Str) -> bool {
        *source == (Kind::Pod, None) && self.next.reads_whole(Kind::Pod, namespace)
    }

    fn held(&self, source: &Source) -> Box<dyn Iterator<Item = Id> + '_> {
        match &source.1 {
            None => Box::new(self.next.raw(source.0).map(Object::id)),
            Some(ns) => {
                Box::new(self.next.raw_in(source.0, &ns.clone()).map(Object::id).collect::<Vec<_>>().into_iter())
            }
        }
    }

    fn remove_all(&mut self, ids: Vec<Id>) {
        for id in ids {
            self.next.remove(&id);
        }
    }
}

/// Names and label sets that are held already are shared.
#[derive(Default)]
struct Interner {
    strings: HashSet<Str>,
    labels: HashSet<Labels>,
    since_sweep: usize,
}

/// Events between two sweeps of what only the interner still holds.
const SWEEP_EVERY: usize = 100_000;

impl Interner {
    fn share(&mut self, object: &mut Object) {
        self.meta(object.meta_mut());
        match object {
            Object::Workload(_, w) => {
                w.selector.share(&mut |s| self.string(s));
                let t = &mut w.template;
                t.labels = self.set(&t.labels);
                t.annotations = self.set(&t.annotations);
                t.service_account = self.string(&t.service_account);
                for c in &mut t.containers {
                    c.name = self.string(&c.name);
                    c.image = self.string(&c.image);
                    c.env = self.set(&c.env);
                }
                for m in &mut t.config_maps {
                    m.name = self.string(&m.name);
                }
            }
            Object::Pod(p) => {
                if let Some(revision) = &mut p.revision {
                    *revision = self.string(revision);
                }
            }
            Object::Service(s) => {
                s.kind = self.string(&s.kind);
                s.selector = self.set(&s.selector);
                for port in &mut s.ports {
                    port.name = self.string(&port.name);
                }
            }
            _ => {}
        }
    }

    fn meta(&mut self, meta: &mut Meta) {
        meta.namespace = self.string(&meta.namespace);
        meta.labels = self.set(&meta.labels);
        meta.annotations = self.set(&meta.annotations);
        if let Some(owner) = &mut meta.owner {
            owner.kind = self.string(&owner.kind);
            owner.name = self.string(&owner.name);
        }
    }

    fn string(&mut self, s: &Str) -> Str {
        match self.strings.get(s) {
            Some(held) => held.clone(),
            None => {
                self.strings.insert(s.clone());
                s.clone()
            }
        }
    }

    fn set(&mut self, labels: &Labels) -> Labels {
        if labels.is_empty() {
            return Labels::default();
        }
        if let Some(held) = self.labels.get(labels) {
            return held.clone();
        }
        let shared = Labels::from_pairs(labels.iter().map(|(k, v)| (self.string(k), self.string(v))).collect());
        self.labels.insert(shared.clone());
        shared
    }

    fn sweep(&mut self) {
        self.since_sweep += 1;
        if self.since_sweep >= SWEEP_EVERY {
            self.since_sweep = 0;
            self.labels.retain(|l| l.holders() > 1);
            self.strings.retain(|s| s.holders() > 1);
        }
    }
}
