//! A cluster that does by itself what controllers do: pods, readiness, endpoints.

use std::collections::BTreeMap;

use revguard::model::{Id, Kind, Object, Pod, Selector, Str};
use revguard::rules::request::LazyObject;
use revguard::rules::{Operation, Policy, Request, User, judge};
use revguard::snapshot::Snapshot;
use revguard::wire::manifest;

/// What was said of one write: `D CP001`, `W NS004`.
pub type Said = Vec<String>;

#[derive(Clone, Default)]
pub struct World {
    pub objects: BTreeMap<Id, Object>,
    /// Pods of what is gone or replaced stay, as they do while they drain.
    pub drains: bool,
    pub judged: usize,
    /// Everything that was said so far, with the write that it was said of.
    pub said: Said,
}

pub fn read(yaml: &str) -> Vec<Object> {
    let read = manifest::read("life", yaml, "default");
    assert!(read.problems.is_empty(), "{:?}\n{yaml}", read.problems);
    read.documents.into_iter().map(|d| d.object).collect()
}

impl World {
    pub fn snapshot(&self) -> Snapshot {
        self.objects.values().fold(Snapshot::whole(), |s, o| s.with(o.clone()))
    }

    /// Writes an object as `user`, if nothing denies it.
    pub fn write(&mut self, user: &str, object: Object) {
        let old = self.objects.get(&object.id()).cloned();
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        if self.ask(user, operation, object.clone(), old) {
            self.objects.insert(object.id(), object);
        }
    }

    pub fn delete(&mut self, user: &str, object: &Object) {
        let Some(stored) = self.objects.get(&object.id()).cloned() else { return };
        if self.ask(user, Operation::Delete, stored, None) {
            self.objects.remove(&object.id());
        }
    }

    /// Whether the write is let through. Webhook configurations never reach a webhook.
    fn ask(&mut self, user: &str, operation: Operation, object: Object, old: Option<Object>) -> bool {
        if matches!(object.kind(), Kind::MutatingWebhook | Kind::ValidatingWebhook) {
            return true;
        }
        self.judged += 1;
        let id = object.id();
        let old = old.map_or_else(LazyObject::none, LazyObject::ready);
        let user = User { name: user.to_owned(), groups: Vec::new() };
        let request = Request { user, operation, sub_resource: String::new(), object, old };
        let verdict = judge(&Policy::default(), &request, &self.snapshot(), jiff::Timestamp::UNIX_EPOCH);
        let about = format!("{operation:?} {} {}/{}", revguard::wire::row(id.kind).name, id.namespace, id.name);
        for (letter, judged) in
            verdict.denied().map(|j| ("D", j)).chain(verdict.warnings().map(|j| ("W", j))).collect::<Vec<_>>()
        {
            self.said.push(format!("{letter} {}: {about}", judged.rule.code));
        }
        verdict.is_allowed()
    }

    /// Restarts every workload of a namespace: new pods, injected by whoever answers now.
    pub fn restart(&mut self, namespace: &str) {
        self.objects.retain(|id, _| id.kind != Kind::Pod || id.namespace != namespace);
        self.settle();
    }

    /// Time passes: pods start, endpoints follow, and what was deleted ends or drains.
    pub fn settle(&mut self) {
        let snapshot = self.snapshot();
        let mut pods = Vec::new();
        for object in self.objects.values_mut() {
            let (id, Object::Workload(kind, w)) = (object.id(), object) else { continue };
            if !matches!(*kind, Kind::Deployment | Kind::DaemonSet | Kind::StatefulSet) {
                continue;
            }
            w.ready = Some(w.wanted());
            let revision = snapshot.resolve(&id.namespace, &w.template).expect("known").revision().cloned();
            let asked = w.template.labels.value("istio.io/rev").unwrap_or("").to_owned();
            let annotation = revision.map_or_else(String::new, |r| format!("istio.io/rev: {r:?}", r = r.as_str()));
            let labels: Vec<String> = w.template.labels.iter().map(|(k, v)| format!("{k}: {v:?}")).collect();
            for n in 0..w.wanted() {
                // Another revision in the template makes other pods.
                let name = format!("{}-x{asked}-{n}", id.name);
                pods.extend(read(&format!(
                    "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {ns}, labels: {{{labels}, pod-template-hash: x{asked}}}, \
                     annotations: {{{annotation}}}, ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, \
                     name: {owner}-x{asked}, uid: u, controller: true}}]}}, spec: {{containers: [{{name: app, image: a}}]}}, \
                     status: {{phase: Running, conditions: [{{type: Ready, status: 'True'}}]}}}}",
                    ns = id.namespace,
                    owner = id.name,
                    labels = labels.join(", "),
                )));
            }
        }
        self.replace_pods(pods);
        self.replace_endpoints();
    }

    fn replace_pods(&mut self, pods: Vec<Object>) {
        let wanted: Vec<Id> = pods.iter().map(Object::id).collect();
        let drains = self.drains;
        self.objects.retain(|id, object| {
            let Object::Pod(Pod { meta, .. }) = object else { return true };
            meta.deleting |= !wanted.contains(id);
            drains || !meta.deleting
        });
        for pod in pods {
            // A running pod keeps the proxy that it was started with.
            self.objects.entry(pod.id()).or_insert(pod);
        }
    }

    fn replace_endpoints(&mut self) {
        self.objects.retain(|id, _| id.kind != Kind::EndpointSlice);
        let services: Vec<(Str, Str, Selector)> = { self.objects.values() }
            .filter_map(|o| match o {
                Object::Service(s) if !s.selector.is_empty() => {
                    Some((s.meta.namespace.clone(), s.meta.name.clone(), Selector::exact(&s.selector)))
                }
                _ => None,
            })
            .collect();
        for (namespace, name, selector) in services {
            let ready = self.objects.values().filter(|o| {
                matches!(o, Object::Pod(p) if p.meta.namespace == namespace && !p.meta.deleting
                    && selector.matches(&p.meta.labels))
            });
            let endpoints = vec!["{addresses: [10.0.0.1], conditions: {ready: true}}"; ready.count()].join(", ");
            for slice in read(&format!(
                "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {{name: {name}-s, \
                 namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}, endpoints: [{endpoints}]}}"
            )) {
                self.objects.insert(slice.id(), slice);
            }
        }
    }
}
