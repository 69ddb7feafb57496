//! From watch events to snapshots: any order, repetition or restart that ends in the same cluster gives the same one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Knowledge, Snapshot, Source};
use crate::model::object::PodStatus;
use crate::model::{Id, Kind, Labels, Meta, Object, Pod, Str, Template, Version};

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
    /// Pods that are watched whole, too: few, because only a mesh namespace's are.
    whole: BTreeMap<Id, WholePod>,
    interner: Interner,
}

/// What the watch of whole pods says of one. The watch of all pods' metadata may be ahead of it or behind, and neither may
/// forget what only the other knows.
struct WholePod {
    status: Option<PodStatus>,
    proxy: Option<Version>,
    template: Option<Box<Template>>,
    /// The other watch holds it as well.
    by_metadata: bool,
}

impl Builder {
    pub fn new(start: Snapshot) -> Self {
        Builder { next: start, lists: HashMap::new(), whole: BTreeMap::new(), interner: Interner::default() }
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
                self.interner.share(&mut object);
                if let Some(Some(list)) = self.lists.get_mut(&source) {
                    list.insert(object.id());
                }
                match *object {
                    Object::Pod(pod) => self.put_pod(&source, pod),
                    other => self.next.put(other),
                }
            }
            Event::Delete(source, id) => {
                if let Some(Some(list)) = self.lists.get_mut(&source) {
                    list.remove(&id);
                }
                self.remove(&source, &id);
            }
            Event::Listed(source) => {
                if let Some(Some(list)) = self.lists.remove(&source) {
                    let gone: Vec<Id> = self.held(&source).filter(|id| !list.contains(id)).collect();
                    self.remove_all(&source, &gone);
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
                let all: Vec<Id> = self.held(&source).collect();
                self.remove_all(&source, &all);
                self.next.learn(source, Knowledge::Complete);
            }
            Event::Dropped(source) => {
                self.lists.remove(&source);
                // Pods stay without their status: their metadata comes from every namespace.
                let all: Vec<Id> = self.held(&source).collect();
                self.remove_all(&source, &all);
                self.next.forget(&source);
            }
        }
        self.interner.sweep();
    }

    /// The cluster as the events so far tell it.
    pub fn snapshot(&self) -> &Snapshot {
        &self.next
    }

    fn put_pod(&mut self, source: &Source, mut pod: Pod) {
        let id = Id { kind: Kind::Pod, namespace: pod.meta.namespace.clone(), name: pod.meta.name.clone() };
        if source.1.is_some() {
            let held = self.next.get(Kind::Pod, &id.namespace, &id.name).is_some();
            let by_metadata = self.whole.get(&id).map_or(held, |w| w.by_metadata);
            let whole = WholePod { status: pod.status, proxy: pod.proxy, template: pod.template.clone(), by_metadata };
            self.whole.insert(id, whole);
        } else if let Some(whole) = self.whole.get_mut(&id) {
            whole.by_metadata = true;
            pod.status = pod.status.or(whole.status);
            pod.proxy = pod.proxy.or(whole.proxy);
            pod.template = pod.template.or_else(|| whole.template.clone());
        }
        self.next.put(Object::Pod(pod));
    }

    /// One source no longer has it. A pod stays as long as the other watch does.
    fn remove(&mut self, source: &Source, id: &Id) {
        let whole = if source.1.is_some() { self.whole.remove(id) } else { None };
        match (whole, self.whole.get_mut(id)) {
            (Some(WholePod { by_metadata: true, .. }), _) => {
                if let Some(Object::Pod(pod)) = self.next.get(id.kind, &id.namespace, &id.name) {
                    let bare = Pod { status: None, proxy: None, template: None, ..pod.clone() };
                    self.next.put(Object::Pod(bare));
                }
            }
            (None, Some(whole)) if source.1.is_none() => whole.by_metadata = false,
            (None, _) if source.0 == Kind::Pod && source.1.is_some() => {}
            _ => self.next.remove(id),
        }
    }

    fn held(&self, source: &Source) -> Box<dyn Iterator<Item = Id> + '_> {
        match &source.1 {
            Some(ns) if source.0 == Kind::Pod => {
                let ns = ns.clone();
                Box::new(self.whole.keys().filter(move |id| id.namespace == ns).cloned())
            }
            None => Box::new(self.next.raw(source.0).map(Object::id)),
            Some(ns) => {
                Box::new(self.next.raw_in(source.0, &ns.clone()).map(Object::id).collect::<Vec<_>>().into_iter())
            }
        }
    }

    fn remove_all(&mut self, source: &Source, ids: &[Id]) {
        for id in ids {
            self.remove(source, id);
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
