//! # UP005 gateway-order
//!
//! ## What
//! A gateway, or the namespace that decides for it, moves forward to a newer control plane out of the order that the policy
//! wants (`gatewayOrder`):
//!
//! - `Last` (default): pods of workloads still run the gateway's old revision, or those that moved are not ready. Pods that follow
//!   the default injector are not waited for, because the default moves after the gateways.
//! - `First`: a workload or its namespace moves to a revision that is newer than a gateway's.
//! - `Any`: nothing is said.
//!
//! It is a warning. The way back is free, and so is what has no version to tell forward from back.
//!
//! ## Why
//! A fault of a new version shows in a workload first, where less depends on it; a gateway carries the traffic of all. Others
//! move gateways first, because they are few and quickly moved back. Istio supports either, as long as no proxy is newer than
//! its control plane (UP003, GW006).
//!
//! ## What to do
//! Move and restart the workloads first, and see them ready; or say `gatewayOrder: First` or `Any`.
//!
//! ## When to allow
//! Where the workloads that are left have a date of their own.

use crate::model::injection::asked_by_namespace;
use crate::model::object::Object;
use crate::model::{Id, Kind, Namespace, Release, RevisionName, Workload, key, workload};
use crate::rules::finding::{label, template_label};
use crate::rules::names::{few, if_known};
use crate::rules::policy::GatewayOrder;
use crate::rules::view::kubectl;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View, tags};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "UP005",
    name: "gateway-order",
    summary: "a gateway moves to a new control plane before or after the workloads, against the policy",
    reads: &[Field::Template, Field::Label(key::REV), Field::Label(key::INJECTION)],
    checks: &[Check::Workload(template), Check::Namespace(namespace)],
    source: include_str!("up005_gateway_order.rs"),
};

fn template(new: &Workload, old: Old<'_, Workload>, view: &View<'_>) -> Found {
    let (order, is_gateway) = (view.policy.gateway_order, new.is_gateway());
    // Most writes end here, before the old object is read.
    let concerned = order == GatewayOrder::Last && is_gateway || order == GatewayOrder::First && !is_gateway;
    if !concerned || new.is_istiod() || new.wanted() == 0 {
        return Ok(Vec::new());
    }
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let cluster = view.cluster();
    let Some(step) = Step::between(attached(old, cluster)?, attached(new, cluster)?, cluster) else {
        return Ok(Vec::new());
    };
    let place = format!("{}/{}", new.meta.namespace, new.meta.name);
    let field = template_label(key::REV);
    if is_gateway {
        // With the gateway itself, whose pods are a gateway's.
        let rest = Rest::of(&step, None, view.before())?;
        return Ok(rest.finding(field, &format!("gateway {place}"), &step, cluster).into_iter().collect());
    }
    let kind = crate::wire::row(view.kind()).name;
    first(field, &format!("{kind} {place}"), &step, None, cluster)
}

fn namespace(new: &Namespace, old: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let order = view.policy.gateway_order;
    if order == GatewayOrder::Any {
        return Ok(Vec::new());
    }
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    if asked_by_namespace(&old.meta.labels) == asked_by_namespace(&new.meta.labels) {
        return Ok(Vec::new());
    }
    let (name, before, field) = (&new.meta.name, view.before(), label(key::REV));
    if order == GatewayOrder::First {
        let asked = |ns: &Namespace| asked_by_namespace(&ns.meta.labels).flatten().map(str::to_owned);
        let (Some(was), Some(now)) = (asked(old), asked(new)) else { return Ok(Vec::new()) };
        let step = Step::between(before.revision_behind(&was)?, before.revision_behind(&now)?, before);
        return step
            .map_or(Ok(Vec::new()), |step| first(field, &format!("namespace {name}"), &step, Some(name), before));
    }
    let after = view.cluster().with(Object::Namespace(new.clone()));
    for (_, gateway) in before.gateways()?.filter(|(_, w)| w.meta.namespace == *name && w.wanted() > 0) {
        let Some(step) = Step::between(attached(gateway, before)?, attached(gateway, &after)?, before) else {
            continue;
        };
        let rest = Rest::of(&step, Some(name), before)?;
        let who = format!("namespace {name} with gateway {}", gateway.meta.name);
        if let Some(finding) = rest.finding(field.clone(), &who, &step, before) {
            return Ok(vec![finding]);
        }
    }
    Ok(Vec::new())
}

/// The revision that a workload's pods attach to.
fn attached(w: &Workload, cluster: &Snapshot) -> Known<Option<RevisionName>> {
    if w.is_gateway() {
        return Ok(cluster.target_of(w)?.and_then(|t| t.revision));
    }
    Ok(cluster.resolve(&w.meta.namespace, &w.template)?.revision().cloned())
}

/// A move to a newer control plane.
struct Step {
    from: RevisionName,
    to: RevisionName,
}

impl Step {
    fn between(from: Option<RevisionName>, to: Option<RevisionName>, cluster: &Snapshot) -> Option<Step> {
        let (from, to) = (from?, to?);
        (release(&to, cluster)? > release(&from, cluster)?).then_some(Step { from, to })
    }
}

/// What a revision's istiod runs, by its image.
fn release(revision: &RevisionName, cluster: &Snapshot) -> Option<Release> {
    let mut own = cluster.istiods().ok()?.filter(|w| w.istiod_revision().as_ref() == Some(revision));
    let image = &own.next()?.template.container(workload::DISCOVERY)?.image;
    Release::of_image(image)
}

/// Workloads that should have moved before a gateway does.
struct Rest {
    /// Namespace and name of those that still run the old revision, and how many pods that is.
    behind: Vec<(String, String)>,
    pods: u32,
    /// The first that moved and has no ready pod.
    unready: Option<Id>,
}

impl Rest {
    /// `with` is the namespace that moves together with the gateway.
    fn of(step: &Step, with: Option<&str>, cluster: &Snapshot) -> Known<Rest> {
        cluster.knows(Kind::Pod, None)?;
        cluster.knows_workloads()?;
        let mut rest = Rest { behind: Vec::new(), pods: 0, unready: None };
        for (namespace, name, pods) in cluster.runs(step.from.as_str()) {
            let own = owner(namespace, name, cluster);
            let follows_default = || match own {
                Some((_, w)) => cluster.resolve(namespace, &w.template).ok().and_then(|r| r.requested),
                None => asked_by_namespace(&cluster.namespace_labels(namespace)).flatten().map(str::to_owned),
            };
            let is_gateway = own.is_some_and(|(_, w)| w.is_gateway());
            if is_gateway || with == Some(namespace.as_str()) || follows_default().as_deref() == Some("default") {
                continue;
            }
            rest.behind.push((namespace.to_string(), name.to_string()));
            rest.pods += pods;
        }
        let moved = cluster.runs(step.to.as_str()).filter_map(|(ns, name, _)| owner(ns, name, cluster));
        let unready = { moved }.find(|(_, w)| !w.is_gateway() && w.ready == Some(0) && w.wanted() > 0);
        rest.unready =
            unready.map(|(kind, w)| Id { kind, namespace: w.meta.namespace.clone(), name: w.meta.name.clone() });
        Ok(rest)
    }

    fn finding(self, field: String, who: &str, step: &Step, cluster: &Snapshot) -> Option<Finding> {
        let Step { from, to } = step;
        let draft = Finding::warn(field, to.to_string());
        const WHY: &str =
            "by the policy gateways move last, when workloads have shown that the new control plane works.";
        if !self.behind.is_empty() {
            let names: Vec<String> = self.behind.iter().map(|(ns, name)| format!("{ns}/{name}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let pods = if self.pods == 1 { "1 pod runs".to_owned() } else { format!("{} pods run", self.pods) };
            let what = format!("{who} moves to {to} while {pods} {from}: {}", few(&names));
            return Some(draft.says(what, WHY, moves(&self.behind, step, cluster)));
        }
        let unready = self.unready?;
        let place = format!("{}/{}", unready.namespace, unready.name);
        let what = format!("{who} moves to {to}, where {place} has no ready pod");
        Some(draft.says(what, WHY, format!("kubectl rollout status {}", kubectl(&unready))))
    }
}

fn owner<'a>(namespace: &str, name: &str, cluster: &'a Snapshot) -> Option<(Kind, &'a Workload)> {
    let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet];
    kinds.into_iter().find_map(|kind| Some((kind, cluster.workload(kind, namespace, name)?)))
}

/// Namespaces that a fix spells out.
const SPELLED: usize = 3;

/// How the workloads that are left come to the new revision.
fn moves(behind: &[(String, String)], step: &Step, cluster: &Snapshot) -> String {
    let mut namespaces: Vec<&str> = behind.iter().map(|(ns, _)| ns.as_str()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let (mut moved, mut labels, mut restarts) = (Vec::new(), Vec::new(), Vec::new());
    for ns in namespaces.iter().take(SPELLED) {
        let around = cluster.namespace_labels(ns);
        match asked_by_namespace(&around).flatten() {
            Some(asked) if asked == step.from.as_str() => {
                labels.push(format!("kubectl label namespace {ns} {}={} --overwrite", key::REV, step.to));
            }
            Some(tag) if cluster.is_tag(tag) && leads_to(tag, &step.from, cluster) => {
                let command = tags::point(cluster, tag, step.to.as_str());
                if !moved.contains(&command) {
                    moved.push(command);
                }
            }
            _ => {}
        }
        restarts.push(format!("kubectl rollout restart deployment -n {ns}"));
    }
    let more = namespaces.len().saturating_sub(SPELLED);
    let rest = (more > 0).then(|| format!("(and {more} more namespaces)"));
    [moved, labels, restarts, rest.into_iter().collect()].concat().join("\n")
}

fn leads_to(name: &str, revision: &RevisionName, cluster: &Snapshot) -> bool {
    matches!(cluster.revision_behind(name), Ok(Some(behind)) if behind == *revision)
}

/// Something of the workloads' moves forward before a gateway; gateways of the namespace itself come along.
fn first(field: String, who: &str, step: &Step, with: Option<&str>, cluster: &Snapshot) -> Found {
    let Some(gateways) = if_known(cluster.gateways())? else { return Ok(Vec::new()) };
    for (kind, gateway) in gateways {
        let (home, name) = (&gateway.meta.namespace, &gateway.meta.name);
        if gateway.wanted() == 0 || gateway.meta.deleting || with == Some(home.as_str()) {
            continue;
        }
        let Some(at) = attached(gateway, cluster)? else { continue };
        if Step::between(Some(at.clone()), Some(step.to.clone()), cluster).is_none() {
            continue;
        }
        let id = Id { kind, namespace: home.clone(), name: name.clone() };
        return Ok(vec![Finding::warn(field, step.to.to_string()).says(
            format!("{who} moves to {} before gateway {home}/{name}, which is on {at}", step.to),
            "by the policy gateways move first: they are few and quickly moved back.",
            gateway_move(&id, gateway, &step.to, cluster),
        )]);
    }
    Ok(Vec::new())
}

/// How a gateway comes to a revision.
fn gateway_move(id: &Id, gateway: &Workload, to: &RevisionName, cluster: &Snapshot) -> String {
    let restart = format!("kubectl rollout restart {}", kubectl(id));
    if !gateway.template.is_image_auto() {
        return format!("istioctl install --revision {to} -f FILE\n(with the file that renders gateway {})", id.name);
    }
    match asked_by_namespace(&cluster.namespace_labels(&id.namespace)) {
        Some(_) => format!("kubectl label namespace {} {}={to} --overwrite\n{restart}", id.namespace, key::REV),
        None => format!(
            "kubectl patch {} -p '{{\"spec\":{{\"template\":{{\"metadata\":{{\"labels\":{{\"{}\":\"{to}\"}}}}}}}}}}'",
            kubectl(id),
            key::REV
        ),
    }
}
