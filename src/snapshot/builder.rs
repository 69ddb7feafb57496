//! From watch events to snapshots: any order, repetition or restart that ends in the same cluster gives the same one.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::pods::TwoWatches;
use super::{Knowledge, Snapshot, Source};
use crate::model::{ConfigMap, Id, Kind, Labels, Meta, Object, Selector, Str};

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
    pods: TwoWatches,
    interner: Interner,
}

impl Builder {
    pub fn new(start: Snapshot) -> Self {
        Builder { next: start, lists: HashMap::new(), pods: TwoWatches::default(), interner: Interner::default() }
    }

    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Listing(source) => {
                // A second list does not make what is known unknown.
                if self.next.knows(source.0, source.1.as_deref()).is_err() {
                    self.next.learn(source.clone(), Knowledge::Listing);
                }
                if let (Kind::Pod, Some(namespace)) = &source {
                    self.pods.enter(namespace, &self.next);
                }
                // What begins empty has nothing to lose, and the first list of a kind is the longest.
                let loses = !self.held(&source).is_empty();
                self.lists.insert(source, loses.then(BTreeSet::new));
            }
            Event::Apply(source, mut object) => {
                self.interner.share(&mut object);
                if let Some(Some(list)) = self.lists.get_mut(&source) {
                    list.insert(object.id());
                }
                match *object {
                    Object::Pod(pod) => self.pods.apply(source.1.is_some(), pod, &mut self.next),
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
                    for id in self.held(&source).into_iter().filter(|id| !list.contains(id)) {
                        self.remove(&source, &id);
                    }
                }
                if let (Kind::Pod, Some(namespace)) = &source {
                    self.pods.complete(namespace, &mut self.next);
                }
                self.next.learn(source, Knowledge::Complete);
            }
            Event::Forbidden(source) => {
                self.lists.remove(&source);
                if let (Kind::Pod, Some(namespace)) = &source {
                    self.pods.leave(namespace, &mut self.next);
                }
                self.next.learn(source, Knowledge::Forbidden);
            }
            Event::NotInstalled(kind) => {
                let source = (kind, None);
                self.empty(&source);
                self.next.learn(source, Knowledge::Complete);
            }
            Event::Dropped(source) => {
                match &source {
                    (Kind::Pod, Some(namespace)) => self.pods.leave(namespace, &mut self.next),
                    _ => self.empty(&source),
                }
                self.lists.remove(&source);
                self.next.forget(&source);
            }
        }
        self.interner.sweep();
    }

    /// The cluster as the events so far tell it.
    pub fn snapshot(&self) -> &Snapshot {
        &self.next
    }

    /// One source no longer has an object.
    fn remove(&mut self, source: &Source, id: &Id) {
        match source.0 {
            Kind::Pod => self.pods.delete(source.1.is_some(), id, &mut self.next),
            _ => self.next.remove(id),
        }
    }

    fn empty(&mut self, source: &Source) {
        self.lists.remove(source);
        for id in self.held(source) {
            self.remove(source, &id);
        }
    }

    /// What a source has told and not taken back.
    fn held(&self, source: &Source) -> Vec<Id> {
        match source {
            (Kind::Pod, namespace) => self.pods.held(namespace.as_ref(), &self.next),
            (kind, None) => self.next.raw(*kind).map(Object::id).filter(|id| is_of(source, id)).collect(),
            (kind, Some(ns)) => self.next.raw_in(*kind, ns).map(Object::id).filter(|id| is_of(source, id)).collect(),
        }
    }
}

/// The source is the one that tells of this object. ConfigMaps come on two watches, and which of the two keeps one follows
/// from its name, so that they never meet in one object.
pub fn is_of(source: &Source, id: &Id) -> bool {
    match (source, id.kind) {
        ((_, None), Kind::ConfigMap) => ConfigMap::is_mesh_config(&id.name),
        ((_, Some(_)), Kind::ConfigMap) => ConfigMap::is_local(&id.name),
        _ => true,
    }
}

/// Names and label sets that are held already are shared.
#[derive(Default)]
struct Interner {
    strings: HashSet<Str>,
    labels: HashSet<Labels>,
    selectors: HashSet<Selector>,
    since_sweep: usize,
}

/// Events between two sweeps of what only the interner still holds.
const SWEEP_EVERY: usize = 100_000;

impl Interner {
    fn share(&mut self, object: &mut Object) {
        self.meta(object.meta_mut());
        match object {
            Object::Workload(_, w) => {
                w.selector = self.selector(&w.selector);
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
            Object::Pdb(p) => p.selector = p.selector.as_ref().map(|s| self.selector(s)),
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

    fn selector(&mut self, selector: &Selector) -> Selector {
        if let Some(held) = self.selectors.get(selector) {
            return held.clone();
        }
        let mut shared = selector.clone();
        shared.share(&mut |s| self.string(s));
        self.selectors.insert(shared.clone());
        shared
    }

    fn sweep(&mut self) {
        self.since_sweep += 1;
        if self.since_sweep >= SWEEP_EVERY {
            self.since_sweep = 0;
            self.labels.retain(|l| l.holders() > 1);
            self.selectors.retain(|s| s.holders() > 1);
            self.strings.retain(|s| s.holders() > 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Pod;
    use crate::model::object::PodStatus;

    fn pod(name: &str, label: &str, whole: bool) -> Object {
        let meta = Meta {
            namespace: "edge".into(),
            name: name.into(),
            labels: Labels::from([("v", label)]),
            ..Meta::default()
        };
        let mut pod = Pod { meta, revision: Some("1-24".into()), ..Pod::default() };
        if whole {
            pod.status = Some(PodStatus { ready: label.starts_with('a'), over: false });
        } else {
            pod.outline();
        }
        Object::Pod(pod)
    }

    /// What happens to pods: a name and its new label; no label is a deletion.
    fn story() -> impl Strategy<Value = Vec<(usize, Option<String>)>> {
        prop::collection::vec((0..3usize, prop::option::weighted(0.7, "[ab]{1,2}")), 0..14)
    }

    fn told(story: &[(usize, Option<String>)], from: usize, whole: bool) -> Vec<Event> {
        let source: Source = (Kind::Pod, whole.then(|| Str::from("edge")));
        let name = |n: usize| format!("p{n}");
        let mut events = vec![Event::Listing(source.clone())];
        let mut state: std::collections::BTreeMap<usize, &str> = std::collections::BTreeMap::new();
        for (n, label) in &story[..from] {
            match label {
                Some(label) => state.insert(*n, label),
                None => state.remove(n),
            };
        }
        let apply = |n: usize, label: &str| Event::Apply(source.clone(), Box::new(pod(&name(n), label, whole)));
        events.extend(state.iter().map(|(n, label)| apply(*n, label)));
        events.push(Event::Listed(source.clone()));
        for (n, label) in &story[from..] {
            let id = Id { kind: Kind::Pod, namespace: "edge".into(), name: name(*n).into() };
            events.push(match label {
                Some(label) => apply(*n, label),
                None => Event::Delete(source.clone(), id),
            });
        }
        events
    }

    proptest! {
        /// The two watches of pods start anywhere in a story, run anyhow past each other, and the first one may list
        /// again: in the end the pods are what the story ends with, with the status that only whole pods have.
        #[test]
        fn two_watches_of_the_same_pods_agree_in_the_end(
            story in story(), a in 0..15usize, b in 0..15usize, again in 0..15usize, turns in prop::collection::vec(any::<bool>(), 60),
        ) {
            let at = |n: usize| n.min(story.len());
            let mut outline = told(&story, at(a), false);
            outline.extend(told(&story, at(again), false));
            let whole = told(&story, at(b), true);
            let mut builder = Builder::new(Snapshot::live());
            let (mut outline, mut whole) = (outline.into_iter(), whole.into_iter());
            for turn in turns {
                let next = if turn { outline.next() } else { whole.next() };
                next.into_iter().for_each(|e| builder.apply(e));
            }
            outline.chain(whole).for_each(|e| builder.apply(e));
            let mut expected = Builder::new(Snapshot::live());
            told(&story, story.len(), true).into_iter().for_each(|e| expected.apply(e));
            let all = |b: &Builder| b.snapshot().raw(Kind::Pod).cloned().collect::<Vec<_>>();
            prop_assert_eq!(all(&builder), all(&expected));
            let runs = |b: &Builder| b.snapshot().runs("1-24").map(|(_, w, n)| (w.clone(), n)).collect::<Vec<_>>();
            prop_assert_eq!(runs(&builder), runs(&expected));
        }
    }

    #[test]
    fn a_dropped_namespace_keeps_its_pods_and_forgets_their_status() {
        let mut builder = Builder::new(Snapshot::live());
        let story = [(0, Some("aa".to_owned()))];
        told(&story, 1, false).into_iter().chain(told(&story, 1, true)).for_each(|e| builder.apply(e));
        builder.apply(Event::Dropped((Kind::Pod, Some("edge".into()))));
        let expected = pod("p0", "aa", false);
        assert_eq!(builder.snapshot().raw(Kind::Pod).collect::<Vec<_>>(), [&expected]);
        assert!(builder.snapshot().knows(Kind::Pod, Some("edge")).is_err());
        // And metadata is listened to again.
        builder.apply(Event::Delete((Kind::Pod, None), expected.id()));
        assert_eq!(builder.snapshot().len(Kind::Pod), 0);
    }
}
