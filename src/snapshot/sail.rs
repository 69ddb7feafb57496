//! In use as the Sail operator itself computes it: the condition `InUse` of its revisions and tags, by which it prunes.
//!
//! It goes by labels and annotations alone, knows no webhook's selectors, and counts a namespace that is switched off and names
//! a revision as well. Two things are not to be seen here: pods that failed (Sail counts them until they are deleted), and
//! the labels of pods outside the namespaces of the mesh, for which the templates that they are made from stand in.

use super::usage::{Usage, Use};
use super::{Snapshot, as_pod};
use crate::model::{Kind, Labels, Object, Sail, key};

/// The name that a namespace's labels refer to.
fn of_namespace(labels: &Labels) -> Option<&str> {
    if labels.is(key::INJECTION, "enabled") {
        return Some("default");
    }
    labels.value(key::REV).filter(|rev| !rev.is_empty())
}

/// The name that a pod's labels refer to, where its namespace refers to none.
fn of_pod(labels: &Labels) -> Option<&str> {
    if labels.is(key::INJECT, "false") {
        return None;
    }
    let named = labels.value(key::REV).filter(|rev| !rev.is_empty());
    named.or_else(|| labels.is(key::INJECT, "true").then_some("default"))
}

impl Snapshot {
    /// What keeps an `IstioRevision` from being pruned.
    pub fn sail_usage_of_revision(&self, name: &str, by_default: bool) -> Usage {
        let mut usage = Usage::default();
        usage.unknown.extend(self.knows(Kind::SailTag, None).err());
        let tags = self.sails(Kind::SailTag).filter(|t| t.active.as_deref() == Some(name) && !t.meta.deleting);
        usage.uses.extend(tags.map(|t| Use::Tag { name: t.meta.name.to_string() }));
        self.sail_references(name, &mut usage);
        usage.unknown.extend(self.knows(Kind::Pod, None).err());
        for (namespace, workload, count) in self.runs(name) {
            usage.uses.push(Use::Pods { namespace: namespace.clone(), workload: workload.clone(), count });
        }
        self.sail_default(name, by_default, &mut usage);
        usage
    }

    /// What keeps an `IstioRevisionTag` in use. Running pods do not: their annotation names the revision.
    pub fn sail_usage_of_tag(&self, tag: &Sail) -> Usage {
        let mut usage = Usage::default();
        self.sail_references(&tag.meta.name, &mut usage);
        let behind = tag.active.as_deref().or(tag.target.as_ref().map(|(_, name)| name.as_str()));
        let by_default = self.sails(Kind::SailRevision).any(|r| Some(r.meta.name.as_str()) == behind && r.by_default);
        self.sail_default(&tag.meta.name, by_default, &mut usage);
        usage
    }

    /// Namespaces, and pods of namespaces that refer to nothing.
    fn sail_references(&self, name: &str, usage: &mut Usage) {
        usage.unknown.extend(self.knows(Kind::Namespace, None).err());
        for ns in self.raw(Kind::Namespace).map(Object::meta).filter(|m| !m.deleting) {
            if of_namespace(&ns.labels) == Some(name) {
                usage.uses.push(Use::Namespace { name: ns.name.clone(), asks: name.to_owned() });
            }
        }
        usage.unknown.extend(self.knows_workloads().err());
        let silent = |namespace: &str| match self.get(Kind::Namespace, "", namespace) {
            Some(ns) => of_namespace(&ns.meta().labels).is_none() && !ns.meta().deleting,
            None => true,
        };
        for (kind, w) in self.workloads().filter(|(_, w)| of_pod(&w.template.labels) == Some(name)) {
            if w.meta.deleting || w.is_istiod() || !silent(&w.meta.namespace) {
                continue;
            }
            let (namespace, own) = (w.meta.namespace.clone(), w.meta.name.clone());
            let found = Use::Template { kind, namespace, name: own, asks: name.to_owned() };
            if w.replicas == Some(0) { usage.idle.push(found) } else { usage.uses.push(found) }
        }
        // Pods that no template stands for.
        let alone = self.raw(Kind::Pod).filter_map(as_pod).filter(|p| p.meta.owner.is_none() && !p.meta.deleting);
        for pod in alone.filter(|p| !p.status.is_some_and(|s| s.over)) {
            if of_pod(&pod.meta.labels) == Some(name) && silent(&pod.meta.namespace) {
                let (namespace, workload) = (pod.meta.namespace.clone(), pod.meta.name.clone());
                usage.uses.push(Use::Pods { namespace, workload, count: 1 });
            }
        }
    }

    /// `default` that injects wherever nothing is said is in use whatever is there.
    fn sail_default(&self, name: &str, by_default: bool, usage: &mut Usage) {
        if name == "default" && by_default {
            usage.uses.push(Use::ByDefault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::manifest;

    fn world(texts: &[&str]) -> Snapshot {
        texts.iter().fold(Snapshot::whole(), |s, text| {
            manifest::read("t", text, "default").documents.into_iter().fold(s, |s, d| s.with(d.object))
        })
    }

    fn namespace(labels: &str) -> String {
        format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: {{{labels}}}}}}}")
    }

    fn pod(labels: &str, annotations: &str, phase: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: shop, labels: {{{labels}}}, annotations: \
             {{{annotations}}}}}, spec: {{containers: [{{name: a, image: a}}]}}, status: {{phase: {phase}}}}}"
        )
    }

    fn is_used(name: &str, texts: &[&str]) -> bool {
        world(texts).sail_usage_of_revision(name, false).is_used()
    }

    /// The operator's own table of who refers to what.
    #[test]
    fn references_are_those_of_the_operator() {
        let (rev, enabled) = ("istio.io/rev: r", "istio-injection: enabled");
        for (labels, of_r, of_default) in [
            ("", false, false),
            (rev, true, false),
            (enabled, false, true),
            ("istio-injection: enabled, istio.io/rev: r", false, true),
            // No selector would take its pods, and Sail counts it.
            ("istio-injection: disabled, istio.io/rev: r", true, false),
            ("istio-injection: disabled", false, false),
        ] {
            let ns = namespace(labels);
            assert_eq!((is_used("r", &[&ns]), is_used("default", &[&ns])), (of_r, of_default), "{labels}");
        }
        for (around, labels, of_r, of_default) in [
            ("", rev, true, false),
            ("", "sidecar.istio.io/inject: 'true'", false, true),
            ("", "sidecar.istio.io/inject: 'true', istio.io/rev: r", true, false),
            ("", "sidecar.istio.io/inject: 'false', istio.io/rev: r", false, false),
            ("istio.io/rev: other", rev, false, false),
            ("istio-injection: disabled", rev, true, false),
        ] {
            let (ns, pod) = (namespace(around), pod(labels, "", "Running"));
            let used = |name| is_used(name, &[&ns, &pod]);
            assert_eq!((used("r"), used("default")), (of_r, of_default), "{around} / {labels}");
        }
    }

    #[test]
    fn a_running_pod_keeps_the_revision_that_injected_it_and_no_tag() {
        let ns = namespace("istio.io/rev: other");
        let tag = Sail { meta: crate::model::Meta { name: "r".into(), ..Default::default() }, ..Sail::default() };
        for (phase, used) in [("Running", true), ("Pending", true), ("Succeeded", false)] {
            let world = world(&[&ns, &pod("", "istio.io/rev: r", phase)]);
            assert_eq!(world.sail_usage_of_revision("r", false).is_used(), used, "{phase}");
            assert!(!world.sail_usage_of_tag(&tag).is_used());
        }
    }

    #[test]
    fn a_tag_keeps_the_revision_that_its_status_names() {
        let tag = "{apiVersion: sailoperator.io/v1, kind: IstioRevisionTag, metadata: {name: prod}, spec: {targetRef: {kind: Istio, \
                   name: default}}, status: {istioRevision: default-v1-30-1}}";
        assert!(is_used("default-v1-30-1", &[tag]));
        assert!(!is_used("default-v1-30-2", &[tag]));
        assert!(!is_used("default", &[tag]));
    }

    #[test]
    fn default_that_injects_by_default_is_always_in_use() {
        let empty = world(&[]);
        assert!(empty.sail_usage_of_revision("default", true).is_used());
        assert!(!empty.sail_usage_of_revision("default", false).is_used());
        assert!(!empty.sail_usage_of_revision("other", true).is_used());
    }
}
