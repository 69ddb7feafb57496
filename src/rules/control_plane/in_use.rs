//! What the rules about parts of a control plane share: may a control plane lose this part, and the words when it may not.
//!
//! Knows neither which object is judged nor which write it is; that is the rules' part.

use serde_json::json;

use crate::model::{Id, Kind, Meta, Object, RevisionName, Str, Version, key};
use crate::rules::names::{few, is_sound, newest};
use crate::rules::view::kubectl;
use crate::rules::workload::merge;
use crate::rules::{Finding, Operation, Severity, View, install, tags};
use crate::snapshot::mesh::ControlPlane;
use crate::snapshot::usage::{Usage, Use};
use crate::snapshot::{Known, Snapshot, WhyUnknown};

/// A part of a control plane that a write takes away.
pub struct Loss<'a> {
    pub revision: &'a RevisionName,
    /// What the write does: `deleting Service istio-system/istiod-1-23`.
    pub doing: String,
    pub field: &'static str,
    pub value: String,
    /// Metadata of what is lost.
    pub meta: &'a Meta,
    /// The most that comes of it.
    pub most: Severity,
    /// Users that refer to the part itself, whatever their own labels say.
    pub besides: Vec<Use>,
}

/// How a part is missed.
pub struct Words {
    /// Between what is done and the control plane.
    pub does: &'static str,
    /// Behind the control plane.
    pub then: &'static str,
    /// What happens to the users, where it is not what happens without an istiod.
    pub why: Option<&'static str>,
}

pub const CUT_OFF: Words = Words { does: "would cut off what uses", then: "", why: None };

/// Users that a sentence names before it counts the rest.
const NAMED: usize = 5;
/// What ends a use that no label shows.
const BY_DEFAULT: &str =
    "(in use while spec.values.sidecarInjectorWebhook.enableNamespacesByDefault of its Istio or IstioRevision is true)";
/// What most people want who remove the only control plane that can serve its users is its successor.
const NEXT: &str =
    "(no other control plane can take over yet; once that one runs, this same command says how to move there)";
/// The same, where its version is not known.
const NEXT_FIRST: &str = "install the next revision first: no other control plane \
    can take over; then this same command says how to move there";
/// The rest of the fix, for who wants no mesh any more.
const OUT_OF_THE_MESH: &str = "(to take the users out of the mesh instead:)";
/// Commands that a fix spells out.
const SPELLED: usize = 8;

impl Loss<'_> {
    /// A finding if something uses the revision, or if that cannot be excluded.
    pub fn finding(&self, view: &View<'_>) -> Known<Option<Finding>> {
        self.finding_in(view.before(), &CUT_OFF, view)
    }

    /// The same over another cluster than the one that stands, in the words of the part that is lost.
    pub fn finding_in(&self, cluster: &Snapshot, words: &Words, view: &View<'_>) -> Known<Option<Finding>> {
        let mut usage = cluster.usage(self.revision);
        for user in &self.besides {
            if !usage.uses.contains(user) {
                usage.uses.push(user.clone());
            }
        }
        usage.uses.retain(|user| !matches!(user, Use::Tag { name } if goes_along(cluster, name, self.meta)));
        if let Some(unknown) = usage.unknown.iter().find(|u| u.why == WhyUnknown::Listing)
            && usage.only_names()
        {
            // In a moment it will be known whether there are other users.
            return Err(unknown.clone());
        }
        if usage.is_used() {
            return self.used(cluster, (&usage, words), view).map(Some);
        }
        let what = if let Some(idle) = usage.idle.first() {
            let more = if usage.idle.len() > 1 { format!(" and {} more", usage.idle.len() - 1) } else { String::new() };
            format!("{} is asked for by what is at 0 replicas: {idle}{more}", self.revision)
        } else if let Some(last) = usage.leaving.first() {
            let more =
                if usage.leaving.len() > 1 { format!(" and {} more", usage.leaving.len() - 1) } else { String::new() };
            format!("{} is still run by pods whose owner is gone: {last}{more}", self.revision)
        } else if !usage.unknown.is_empty() {
            format!("nothing seen uses {}, but {}", self.revision, usage.gaps())
        } else {
            return Ok(None);
        };
        Ok(Some(Finding::warn(self.field, self.value.clone()).says(
            what,
            words.why.unwrap_or(
                "what uses it would start without a sidecar, and what runs would get no configuration or certificates.",
            ),
            self.way_out(cluster, &usage, view),
        )))
    }

    fn used(&self, cluster: &Snapshot, (usage, words): (&Usage, &Words), view: &View<'_>) -> Known<Finding> {
        let revision = self.revision;
        let goes = |user: &Use| user.is_name() || is_own_gateway(cluster, user, self.meta);
        if usage.uses.iter().all(goes) && self.is_last(cluster)? {
            let names = usage.names();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            return Ok(Finding::warn(self.field, self.value.clone()).says(
                format!("{revision} is the last control plane; left behind: {}", few(&names)),
                "a default validator refuses every write of Istio configuration once its Service is gone, and a tag or \
                 a default injector keeps pods that ask for it from starting.",
                removals(cluster, usage).join("\n"),
            ));
        }
        let users = usage.sentence(NAMED);
        let what = match self.most {
            Severity::Deny => format!("{} {} control plane {revision}{}: {users}.", self.doing, words.does, words.then),
            Severity::Warn => format!("control plane {revision} is in use: {users}"),
        };
        Ok(Finding::warn(self.field, self.value.clone()).severity(self.most).says(
            what,
            words.why.map_or_else(|| why(usage), str::to_owned),
            self.way_out(cluster, usage, view),
        ))
    }

    /// No other control plane is left. Where that may not be looked at, it could be: then nothing is denied for it.
    fn is_last(&self, cluster: &Snapshot) -> Known<bool> {
        match cluster.control_planes() {
            Ok(planes) => Ok(!planes.iter().any(|(r, plane)| r != self.revision && stays(plane, cluster))),
            Err(unknown) if unknown.why == WhyUnknown::Listing => Err(unknown),
            Err(_) => Ok(true),
        }
    }

    /// How to move the users away, and what to do about an uninstall that has begun.
    fn way_out(&self, cluster: &Snapshot, usage: &Usage, view: &View<'_>) -> String {
        let (deletes, kind) = (view.operation == Operation::Delete, view.kind());
        let target = newest_besides(cluster, self.revision);
        let mut lines = match &target {
            Some(to) => moves(cluster, self.revision, usage, to),
            None => removals(cluster, usage),
        };
        if lines.len() > SPELLED {
            let more = lines.len() - SPELLED;
            lines.truncate(SPELLED);
            lines.push(format!("(and {more} more of the same kind)"));
        }
        if target.is_none() {
            let first = match version(cluster, self.revision) {
                Some(version) => vec![install::beside(self.revision, version.plus(1), view), NEXT.to_owned()],
                None => vec![NEXT_FIRST.to_owned()],
            };
            let without = (!lines.is_empty()).then(|| OUT_OF_THE_MESH.to_owned());
            lines.splice(0..0, first.into_iter().chain(without));
        }
        // With a namespace everything stays that would have gone.
        if deletes && kind != Kind::Namespace {
            lines.push(self.after_a_denial(cluster, kind));
        }
        lines.join("\n")
    }

    /// A denied DELETE does not stop `helm uninstall` or `istioctl uninstall`.
    fn after_a_denial(&self, cluster: &Snapshot, kind: Kind) -> String {
        let gone = gone(cluster, self.revision);
        // What was deleted a moment ago may still look as if it were there: that nothing is gone cannot be said.
        let (gone, took) = if gone.is_empty() {
            (String::new(), "takes")
        } else {
            (format!(" Already missing: {}.", gone.join(", ")), "took")
        };
        let operated = matches!(kind, Kind::SailIstio | Kind::SailRevision | Kind::IstioLifecycle);
        let again = match self.meta.helm_release() {
            _ if install::is_of_sail(self.meta) => "nothing to do, Sail's operator writes it again".to_owned(),
            _ if operated => "nothing to do, the operator does it while this object stays".to_owned(),
            // Applied by hand, objects would lack the marks by which Helm removes them the next time. A rollback also takes the
            // release out of its state of being uninstalled, and has to be told the revision where there is only one.
            Some((release, namespace)) => {
                format!(
                    "helm rollback {release} N -n {namespace}, N being the last of helm history {release} -n {namespace}"
                )
            }
            None => "install the same revision again with the file that it was installed with".to_owned(),
        };
        format!("(an uninstall does not stop at this denial.{gone} To put back what it {took}: {again})")
    }
}

/// What happens to the users.
fn why(usage: &Usage) -> String {
    let mut parts = Vec::new();
    let any = |f: fn(&Use) -> bool| usage.uses.iter().any(f);
    if any(|u| {
        matches!(u, Use::Namespace { .. } | Use::Template { .. } | Use::Pods { .. } | Use::Tag { .. } | Use::ByDefault)
    }) {
        parts.push(
            "pods that ask for it would not start or start without a sidecar, and running proxies would get no new \
             configuration and no new certificates",
        );
    }
    if any(|u| matches!(u, Use::Validator { .. })) {
        parts.push("every write of Istio configuration in the cluster would be refused");
    }
    if any(|u| matches!(u, Use::Rollout { back: false, .. })) {
        parts.push("a gateway on its way could go neither on nor back");
    }
    if any(|u| matches!(u, Use::Rollout { back: true, .. })) {
        parts.push("a gateway could no longer be taken back");
    }
    if any(|u| matches!(u, Use::Config { .. })) {
        parts.push("no istiod would read the configuration that is pinned to it");
    }
    format!("{}.", parts.join("; "))
}

/// A tag that belongs to the Helm release of what is lost, and so goes together with it.
fn goes_along(cluster: &Snapshot, tag: &str, lost: &Meta) -> bool {
    let Some(own) = lost.helm_release() else { return false };
    let evidence = cluster.raw(Kind::MutatingWebhook).chain(cluster.raw(Kind::Service)).map(Object::meta);
    let mut evidence = evidence.filter(|m| m.labels.is(key::TAG, tag)).peekable();
    evidence.peek().is_some() && evidence.all(|m| m.helm_release() == Some(own))
}

/// A gateway of the same istioctl installation: `istioctl uninstall --purge` takes it a moment before its istiod.
fn is_own_gateway(cluster: &Snapshot, user: &Use, lost: &Meta) -> bool {
    let (namespace, name) = match user {
        Use::Template { namespace, name, .. } => (namespace, name),
        Use::Pods { namespace, workload, .. } => (namespace, workload),
        _ => return false,
    };
    cluster.workload(Kind::Deployment, namespace, name).is_some_and(|w| {
        let of_istioctl = |m: &Meta| m.labels.is(MANAGED, "Reconcile") && m.labels.has(key::COMPONENT);
        let same = |k: &str| w.meta.labels.get(k) == lost.labels.get(k);
        w.is_gateway() && of_istioctl(&w.meta) && of_istioctl(lost) && same(key::OWNER) && same(key::OWNER_NAMESPACE)
    })
}

/// What istioctl and the operator label whatever they write.
const MANAGED: &str = "operator.istio.io/managed";

/// Parts of an installed revision that are not in the cluster: an uninstall may have taken them already.
fn gone(cluster: &Snapshot, revision: &RevisionName) -> Vec<String> {
    let mut gone = Vec::new();
    let injects = |o: &Object| {
        let labels = &o.meta().labels;
        labels.is(key::REV, revision.as_str()) && !labels.has(key::TAG)
    };
    if cluster.injectors().is_ok() && !cluster.raw(Kind::MutatingWebhook).any(injects) {
        gone.push(format!("MutatingWebhookConfiguration istio-sidecar-injector{}", revision.suffix()));
    }
    let name = revision.istiod();
    if cluster.services().is_ok_and(|mut all| !all.any(|s| s.meta.name == name.as_str())) {
        gone.push(format!("Service {name}"));
    }
    if cluster.istiods().is_ok_and(|mut all| !all.any(|w| w.istiod_revision().as_ref() == Some(revision))) {
        gone.push(format!("Deployment {name}"));
    }
    gone
}

/// It is installed, and not going with its namespace.
fn stays(plane: &ControlPlane, cluster: &Snapshot) -> bool {
    plane.installed && !plane.namespaces.iter().all(|ns| cluster.is_ending(ns))
}

/// Of a control plane, as its image or its custom resource tells it.
fn version(cluster: &Snapshot, revision: &RevisionName) -> Option<Version> {
    cluster.control_planes().ok()?.get(revision)?.version
}

/// Where users can move: the newest other control plane whose istiod answers; where none does, the newest that is there.
fn newest_besides(cluster: &Snapshot, revision: &RevisionName) -> Option<RevisionName> {
    let planes = cluster.control_planes().ok()?;
    let live = cluster.injectors().map(crate::model::Injectors::revisions).unwrap_or_default();
    let others = planes.into_iter().filter(|(r, p)| r != revision && stays(p, cluster) && live.contains(r));
    let (sound, silent): (Vec<_>, Vec<_>) = others.map(|(r, _)| r).partition(|r| is_sound(cluster, r.as_str()));
    newest(cluster, if sound.is_empty() { &silent } else { &sound }).cloned()
}

/// Commands that move every user to another revision, in the order in which they are safe.
fn moves(cluster: &Snapshot, revision: &RevisionName, usage: &Usage, to: &RevisionName) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut restarts = Vec::new();
    // `tag set default` also repoints the default validator.
    let default = usage.uses.iter().any(|u| match u {
        Use::Validator { .. } => true,
        Use::Namespace { asks, .. } | Use::Template { asks, .. } => asks == "default",
        _ => false,
    });
    let mut tags: Vec<&str> =
        usage.uses.iter().filter_map(|u| if let Use::Tag { name } = u { Some(&**name) } else { None }).collect();
    if default && !tags.contains(&"default") {
        tags.push("default");
    }
    for user in usage.uses.iter().chain(&usage.idle) {
        match user {
            Use::Namespace { name, asks } => {
                if asks == revision.as_str() && asks != "default" {
                    lines.push(format!("kubectl label namespace {name} {}={to} --overwrite", key::REV));
                }
                restarts.push(format!("kubectl rollout restart deployment -n {name}"));
            }
            Use::Template { kind, namespace, name, asks } => {
                let object = object(*kind, namespace, name);
                if *kind == Kind::Job {
                    lines.push(until_over(&object));
                } else if dials(cluster, (*kind, namespace, name)) {
                    lines.push(format!(
                        "kubectl edit {object}\n(it names its istiod itself: point it to {})",
                        to.istiod()
                    ));
                } else if asks == revision.as_str() && asks != "default" {
                    lines.push(merge(&object, *kind, json!({ "labels": { key::REV: to.as_str() } })));
                } else if matches!(kind, Kind::Deployment | Kind::DaemonSet | Kind::StatefulSet) {
                    restarts.push(format!("kubectl rollout restart {object}"));
                }
            }
            // A template that changes restarts them.
            Use::Pods { namespace, workload, .. } if !usage.asks(namespace, workload) => {
                restarts.push(restart(cluster, namespace, workload));
            }
            Use::Pods { .. } => {}
            Use::Config { kind, namespace, name } => {
                let object = object(*kind, namespace, name);
                lines.push(format!("kubectl label {object} {}={to} --overwrite", key::REV));
            }
            Use::Rollout { namespace, name, back } => lines.push(rollout(namespace, name, *back)),
            Use::ByDefault => lines.push(BY_DEFAULT.to_owned()),
            Use::Tag { .. } | Use::Validator { .. } => {}
        }
    }
    let mut all: Vec<String> = tags.into_iter().map(|tag| tags::point(cluster, tag, to.as_str())).collect();
    all.extend(lines);
    all.extend(without_covered(restarts));
    all
}

/// How a rollout stops needing a revision.
fn rollout(namespace: &Str, name: &Str, back: bool) -> String {
    let it = object(Kind::GatewayRollout, namespace, name);
    if back { format!("kubectl delete {it}\n(gives the way back up)") } else { until_over(&it) }
}

/// What cannot be changed any more ends by itself.
fn until_over(object: &str) -> String {
    format!("kubectl get {object} -w\n(wait until it has ended)")
}

/// Its proxy is told by its own template which istiod to dial.
fn dials(cluster: &Snapshot, (kind, namespace, name): (Kind, &str, &str)) -> bool {
    cluster.workload(kind, namespace, name).is_some_and(|w| w.template.discovery_host().is_some())
}

fn object(kind: Kind, namespace: &Str, name: &Str) -> String {
    kubectl(&Id { kind, namespace: namespace.clone(), name: name.clone() })
}

/// Restarts what owns running pods.
fn restart(cluster: &Snapshot, namespace: &str, workload: &str) -> String {
    let kinds = [(Kind::Deployment, "deployment"), (Kind::StatefulSet, "statefulset"), (Kind::DaemonSet, "daemonset")];
    let kind = kinds.into_iter().find(|(kind, _)| cluster.workload(*kind, namespace, workload).is_some());
    match kind {
        Some((_, kind)) => format!("kubectl rollout restart {kind} -n {namespace} {workload}"),
        None => format!("kubectl get pods -n {namespace}\n(end or restart those of {workload})"),
    }
}

/// There is no other control plane: commands that take the users out of the mesh.
fn removals(cluster: &Snapshot, usage: &Usage) -> Vec<String> {
    let mut all = Vec::new();
    let mut restarts = Vec::new();
    let gateways = gateways(cluster, usage);
    for user in &usage.uses {
        match user {
            Use::Template { namespace, name, .. } | Use::Pods { namespace, workload: name, .. }
                if gateways.contains(&format!("{namespace}/{name}")) =>
            {
                let names: Vec<&str> = gateways.iter().map(String::as_str).collect();
                let line =
                    format!("(gateways go with the mesh, once their clients have another way in: {})", few(&names));
                if !all.contains(&line) {
                    all.push(line);
                }
            }
            Use::Namespace { name, asks } => {
                let labels = cluster.namespace_labels(name);
                let by_rev = labels.is(key::REV, asks) && !labels.has(key::INJECTION);
                let label = if by_rev { key::REV } else { key::INJECTION };
                all.push(format!("kubectl label namespace {name} {label}-"));
                restarts.push(format!("kubectl rollout restart deployment -n {name}"));
            }
            Use::Template { kind, namespace, name, .. } => all.push(leave(cluster, *kind, namespace, name)),
            // A template that changes restarts them.
            Use::Pods { namespace, workload, .. } if !usage.asks(namespace, workload) => {
                restarts.push(restart(cluster, namespace, workload));
            }
            Use::Pods { .. } => {}
            Use::Tag { name } => all.push(tags::remove(cluster, name)),
            Use::Validator { name } => all.push(format!("kubectl delete validatingwebhookconfiguration {name}")),
            Use::Config { kind, namespace, name } => {
                all.push(format!("kubectl label {} {}-", object(*kind, namespace, name), key::REV));
            }
            Use::Rollout { namespace, name, back } => all.push(rollout(namespace, name, *back)),
            Use::ByDefault => all.push(BY_DEFAULT.to_owned()),
        }
    }
    all.extend(without_covered(restarts));
    all
}

/// Gateways among the users, by their own templates or by the pods that run.
fn gateways(cluster: &Snapshot, usage: &Usage) -> Vec<String> {
    let mut found = Vec::new();
    for user in &usage.uses {
        let (Use::Template { namespace, name, .. } | Use::Pods { namespace, workload: name, .. }) = user else {
            continue;
        };
        let kinds = [Kind::Deployment, Kind::DaemonSet, Kind::StatefulSet];
        let mut own = kinds.into_iter().filter_map(|kind| cluster.workload(kind, namespace, name));
        let place = format!("{namespace}/{name}");
        if own.any(crate::model::Workload::is_gateway) && !found.contains(&place) {
            found.push(place);
        }
    }
    found
}

/// Takes the sidecar off the pods of a workload that asks for it by itself, and stops nothing.
fn leave(cluster: &Snapshot, kind: Kind, namespace: &Str, name: &Str) -> String {
    let object = object(kind, namespace, name);
    if kind == Kind::Job {
        until_over(&object)
    } else if dials(cluster, (kind, namespace, name)) {
        format!("kubectl edit {object}\n(it brings its proxy itself: take that container out)")
    } else {
        merge(&object, kind, json!({ "labels": { key::REV: null, key::INJECT: null } }))
    }
}

/// A restart of a whole namespace covers its Deployments.
fn without_covered(restarts: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for line in &restarts {
        let pods = line.strip_prefix("kubectl get pods -n ").and_then(|l| l.split('\n').next());
        let covered = pods.is_some_and(|ns| restarts.contains(&format!("kubectl rollout restart deployment -n {ns}")))
            || restarts.iter().any(|other| line.strip_prefix(other.as_str()).is_some_and(|r| r.starts_with(' ')));
        if !covered && !kept.contains(line) {
            kept.push(line.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::rules::request::LazyObject;
    use crate::rules::{Policy, Request, User, Verdict, judge};
    use crate::snapshot::{Builder, builder::Event};
    use crate::wire::{KINDS, manifest};

    const ISTIOD: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: istiod-1-24, namespace: istio-system}, \
        spec: {selector: {matchLabels: {app: istiod}}, template: {metadata: {labels: {app: istiod, istio.io/rev: 1-24}}, \
        spec: {containers: [{name: discovery, image: 'istio/pilot:1.24.1'}]}}}}";

    /// Deletes an istiod that nothing is seen to use, in a live cluster whose pods are in `state`.
    fn deleted(state: fn(crate::snapshot::Source) -> Option<Event>) -> Verdict {
        without(ISTIOD, Kind::Pod, state)
    }

    /// Deletes an object in a live cluster that has one istiod and nothing else, and whose objects of a kind are in `state`.
    fn without(yaml: &str, unread: Kind, state: fn(crate::snapshot::Source) -> Option<Event>) -> Verdict {
        let read = |yaml| manifest::read("object", yaml, "default").documents.remove(0).object;
        let object = read(yaml);
        let mut builder = Builder::new(Snapshot::live());
        builder.apply(Event::Apply((Kind::Deployment, None), Box::new(read(ISTIOD))));
        for row in &KINDS {
            let source = (row.kind, None);
            let event = if row.kind == unread { state(source) } else { Some(Event::Listed(source)) };
            event.into_iter().for_each(|e| builder.apply(e));
        }
        let (user, operation, old) = (User::default(), Operation::Delete, LazyObject::none());
        let request = Request { user, operation, sub_resource: String::new(), object, old };
        judge(&Policy::default(), &request, builder.snapshot(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_may_not_be_looked_at_is_named_in_a_warning() {
        let verdict = deleted(|pods| Some(Event::Forbidden(pods)));
        let words: Vec<&str> = verdict.warnings().map(|j| j.finding.what.as_str()).collect();
        assert!(verdict.is_allowed());
        assert_eq!(words, ["nothing seen uses 1-24, but listing pods is forbidden"]);
    }

    #[test]
    fn what_is_still_being_listed_is_waited_for() {
        assert!(deleted(|_| None).not_ready.is_some());
        assert!(deleted(|pods| Some(Event::Listed(pods))).judged.is_empty());
    }

    /// Jobs are not watched, but manifests may bring them.
    #[test]
    fn a_job_is_waited_for() {
        let job =
            Use::Template { kind: Kind::Job, namespace: "apps".into(), name: "load".into(), asks: "1-24".to_owned() };
        let usage = Usage { uses: vec![job], ..Usage::default() };
        let cluster = Snapshot::whole();
        let wait = ["kubectl get job -n apps load -w\n(wait until it has ended)"];
        assert_eq!(removals(&cluster, &usage), wait);
        assert_eq!(moves(&cluster, &RevisionName::new("1-24"), &usage, &RevisionName::new("1-25")), wait);
    }

    const AGENT: &str = "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: istio-cni-node, namespace: istio-system}, spec: \
        {selector: {matchLabels: {k8s-app: istio-cni-node}}, template: {metadata: {labels: {k8s-app: istio-cni-node}}}}}";
    const DEFINITION: &str = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: \
        virtualservices.networking.istio.io}}";

    #[test]
    fn what_a_node_agent_or_a_definition_takes_along_is_asked_the_same_way() {
        for (yaml, kind, code) in [(AGENT, Kind::Pod, "CP007"), (DEFINITION, Kind::VirtualService, "CP005")] {
            let refused = without(yaml, kind, |source| Some(Event::Forbidden(source)));
            assert!(refused.is_allowed() && refused.warnings().any(|j| j.rule.code == code), "{code}");
            assert!(without(yaml, kind, |_| None).not_ready.is_some(), "{code}");
            assert!(without(yaml, kind, |source| Some(Event::Listed(source))).judged.is_empty(), "{code}");
        }
    }
}
