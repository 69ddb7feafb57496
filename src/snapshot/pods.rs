//! Pods come on two watches: metadata of all of them, and whole ones of namespaces of the mesh. Each runs ahead of the other
//! or behind it, as it likes.
//!
//! So each keeps its own half, and what the snapshot shows follows from the two: whole pods alone where all of them are
//! known, whole pods before metadata until then, metadata elsewhere. Neither watch can undo what the other has told.

use std::collections::{BTreeMap, BTreeSet};

use super::Snapshot;
use crate::model::{Id, Kind, Object, Pod, Str};

/// The namespaces that are read whole, and what is not shown of them.
#[derive(Default)]
pub(super) struct TwoWatches(BTreeMap<Str, Space>);

#[derive(Default)]
struct Space {
    /// The first list of whole pods is complete.
    complete: bool,
    /// Names of pods that were read whole. They are what is shown.
    whole: BTreeSet<Str>,
    /// What the watch of metadata says, shown or not: few, because few namespaces hold gateways.
    outlines: BTreeMap<Str, Pod>,
}

impl TwoWatches {
    /// Whole pods of a namespace are about to come.
    pub fn enter(&mut self, namespace: &Str, shown: &Snapshot) {
        self.0.entry(namespace.clone()).or_insert_with(|| {
            let pods = shown.raw_in(Kind::Pod, namespace).filter_map(super::as_pod);
            Space { outlines: pods.map(|p| (p.meta.name.clone(), p.clone())).collect(), ..Space::default() }
        });
    }

    /// One watch has a pod.
    pub fn apply(&mut self, by_whole: bool, pod: Pod, shown: &mut Snapshot) {
        let (namespace, name) = (&pod.meta.namespace, &pod.meta.name);
        if by_whole {
            self.enter(namespace, shown);
        }
        if let Some(space) = self.0.get_mut(namespace) {
            if by_whole {
                space.whole.insert(name.clone());
            } else {
                space.outlines.insert(name.clone(), pod.clone());
                if space.complete || space.whole.contains(name) {
                    return;
                }
            }
        }
        shown.put(Object::Pod(pod));
    }

    /// One watch no longer has a pod.
    pub fn delete(&mut self, by_whole: bool, id: &Id, shown: &mut Snapshot) {
        let Some(space) = self.0.get_mut(&id.namespace) else {
            if !by_whole {
                shown.remove(id);
            }
            return;
        };
        if by_whole {
            space.whole.remove(&id.name);
            match space.outlines.get(&id.name).filter(|_| !space.complete) {
                Some(outline) => shown.put(Object::Pod(outline.clone())),
                None => shown.remove(id),
            }
        } else {
            space.outlines.remove(&id.name);
            if !space.whole.contains(&id.name) {
                shown.remove(id);
            }
        }
    }

    /// All whole pods of a namespace are known; what only the other watch has left or has not come yet.
    pub fn complete(&mut self, namespace: &Str, shown: &mut Snapshot) {
        let Some(space) = self.0.get_mut(namespace) else { return };
        space.complete = true;
        for name in space.outlines.keys().filter(|name| !space.whole.contains(*name)) {
            shown.remove(&id(namespace, name));
        }
    }

    /// The namespace is no longer read whole: its pods are again what the other watch says.
    pub fn leave(&mut self, namespace: &Str, shown: &mut Snapshot) {
        let Some(space) = self.0.remove(namespace) else { return };
        for name in &space.whole {
            shown.remove(&id(namespace, name));
        }
        for outline in space.outlines.into_values() {
            shown.put(Object::Pod(outline));
        }
    }

    /// What one watch has told: of a namespace read whole, or of all pods.
    pub fn held(&self, namespace: Option<&Str>, shown: &Snapshot) -> Vec<Id> {
        match namespace {
            Some(ns) => self.0.get(ns).into_iter().flat_map(|s| &s.whole).map(|name| id(ns, name)).collect(),
            None => {
                let apart = self.0.iter().flat_map(|(ns, s)| s.outlines.keys().map(|name| id(ns, name)));
                let others = shown.raw(Kind::Pod).map(Object::id).filter(|id| !self.0.contains_key(&id.namespace));
                apart.chain(others).collect()
            }
        }
    }
}

fn id(namespace: &Str, name: &Str) -> Id {
    Id { kind: Kind::Pod, namespace: namespace.clone(), name: name.clone() }
}
