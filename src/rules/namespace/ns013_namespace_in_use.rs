//! # NS013 namespace-in-use
//!
//! ## What
//! A namespace is deleted that holds
//!
//! - the istiod of a revision that is in use by others, or the Service through which its webhooks are called (what "in use"
//!   means stands on the page of CP001; what is in the namespace itself goes with it and does not count);
//! - a serving gateway that an Istio Gateway of another namespace selects, and that no other gateway stands in for;
//! - a GatewayRollout that has a gateway in its hands.
//!
//! A gateway that only its own namespace uses gives a warning.
//!
//! ## Why
//! Nobody asks again: what the namespace controller deletes one by one is not judged any more. Webhook configurations are not
//! in a namespace and stay, so that pods of the whole cluster and writes of Istio configuration are refused.
//!
//! ## What to do
//! Move the users first; the denial names them and gives the commands. After `helm uninstall` or `istioctl uninstall` of what
//! is in it the namespace goes without a word.
//!
//! ## When to allow
//! When the whole mesh is torn down with its users still in it.

use crate::model::{Backend, Id, Kind, Namespace, Object, RevisionName, Workload};
use crate::rules::control_plane::in_use::{CUT_OFF, Loss};
use crate::rules::gateway::traffic::{Count, gateways_for, names, pods, ready_pods, server};
use crate::rules::names::if_known;
use crate::rules::rollout::{hands_off, named};
use crate::rules::view::kubectl;
use crate::rules::{Check, Finding, Found, Rule, Severity, View};
use crate::snapshot::usage::Use;
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "NS013",
    name: "namespace-in-use",
    summary: "a namespace is deleted with a control plane or a gateway in it that others use",
    reads: &[],
    checks: &[Check::Delete(check)],
    source: include_str!("ns013_namespace_in_use.rs"),
};

fn check(object: &Object, view: &View<'_>) -> Found {
    let Object::Namespace(namespace) = object else { return Ok(Vec::new()) };
    let mut findings = control_planes(namespace, view)?;
    findings.extend(gateways(namespace, view)?);
    findings.extend(rollouts(namespace, view)?);
    Ok(findings)
}

/// Whose end nobody would wait for: the gateway goes, with what the rollout has made.
fn rollouts(namespace: &Namespace, view: &View<'_>) -> Found {
    let name = namespace.meta.name.as_str();
    let Some(all) = if_known(view.before().rollouts_in(name))? else { return Ok(Vec::new()) };
    let findings = { all }.filter(|r| r.is_active()).map(|r| {
        Finding::deny("metadata.name", r.meta.name.as_str()).says(
            format!("{} is moving a gateway of namespace {name} to {}.", named(r), r.to),
            "the gateway would go with everything that was made for it, in the middle of a step.",
            hands_off(r),
        )
    });
    Ok(findings.collect())
}

/// A revision that loses its istiod or the Service of its webhooks, and the validators behind that.
struct Lost {
    revision: RevisionName,
    /// Its istiod is in the namespace, not only that Service.
    istiod: bool,
    validators: Vec<Use>,
}

fn control_planes(namespace: &Namespace, view: &View<'_>) -> Found {
    let name = &namespace.meta.name;
    let lost = lost(name, view.before())?;
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    let mut ending = namespace.clone();
    ending.meta.deleting = true;
    // What is in it goes with it, and uses nothing any more.
    let after = view.before().with(Object::Namespace(ending));
    let mut findings = Vec::new();
    for lost in lost {
        let part = if lost.istiod { "istiod" } else { "Service for webhooks" };
        let doing = format!("deleting namespace {name}, with the {part} of {},", lost.revision);
        let (value, besides) = (lost.revision.to_string(), lost.validators);
        let (meta, most) = (&namespace.meta, Severity::Deny);
        let loss = Loss { revision: &lost.revision, doing, field: "metadata.name", value, meta, most, besides };
        findings.extend(loss.finding_in(&after, &CUT_OFF, view)?);
    }
    Ok(findings)
}

fn lost(namespace: &str, cluster: &Snapshot) -> Known<Vec<Lost>> {
    let mut found: Vec<Lost> = Vec::new();
    let mut add = |revision: RevisionName, istiod: bool, validator: Option<Use>| match found
        .iter_mut()
        .find(|l| l.revision == revision)
    {
        Some(known) => known.validators.extend(validator),
        None => found.push(Lost { revision, istiod, validators: validator.into_iter().collect() }),
    };
    for istiod in cluster.istiods()?.filter(|w| w.meta.namespace == namespace && !w.meta.deleting) {
        if let Some(revision) = istiod.istiod_revision()
            && !is_elsewhere(cluster, &revision, namespace)?
        {
            add(revision, true, None);
        }
    }
    // Without its Service a webhook dangles already.
    let is_here = |backend: &Backend| match backend {
        Backend::Service { namespace: home, name, .. } => {
            *home == namespace && cluster.get(Kind::Service, home, name).is_some_and(|s| !s.meta().deleting)
        }
        _ => false,
    };
    for hook in cluster.injectors()?.hooks().filter(|h| h.istio && is_here(&h.backend)) {
        if let Some(revision) = &hook.revision {
            add(revision.clone(), false, None);
        }
    }
    for config in cluster.validators()?.filter(|c| c.holds_back_without(is_here)) {
        let behind =
            config.webhooks.iter().filter(|w| w.is_catch_all()).find_map(|w| cluster.backend_revision(&w.backend));
        if let Some(revision) = behind.or_else(|| config.revision()) {
            add(revision, false, Some(Use::Validator { name: config.meta.name.clone() }));
        }
    }
    Ok(found)
}

/// Another istiod of the revision is ready, and its webhooks are called elsewhere.
fn is_elsewhere(cluster: &Snapshot, revision: &RevisionName, namespace: &str) -> Known<bool> {
    let mut others = cluster.istiods()?.filter(|w| w.meta.namespace != namespace && w.ready.unwrap_or(0) > 0);
    Ok(others.any(|w| w.istiod_revision().as_ref() == Some(revision)))
}

fn gateways(namespace: &Namespace, view: &View<'_>) -> Found {
    let cluster = view.before();
    let name = namespace.meta.name.as_str();
    let Some(all) = if_known(cluster.gateways())? else { return Ok(Vec::new()) };
    let own = { all }.filter(|(_, w)| w.meta.namespace == name && w.wanted() > 0 && !w.meta.deleting);
    let mut findings = Vec::new();
    for (kind, gateway) in own {
        let id = Id { kind, namespace: gateway.meta.namespace.clone(), name: gateway.meta.name.clone() };
        let Some(now) = ready_pods(cluster, &id, gateway)?.filter(|now| now.pods > 0) else { continue };
        let Some(users) = if_known(gateways_for(cluster, name, &gateway.template.labels))? else { continue };
        let others: Vec<Id> = users.iter().filter(|user| user.namespace != name).cloned().collect();
        let mut stranded = Vec::new();
        for user in &others {
            if server(cluster, user, |w| Ok(w.meta.namespace != name))?.is_none() {
                stranded.push(user.clone());
            }
        }
        if let Some(first) = stranded.first() {
            findings.push(denied(gateway, now, (first, &stranded), view));
        } else if others.is_empty() && !users.is_empty() {
            let what = format!("gateway {name}/{} goes with it ({})", gateway.meta.name, pods(now.pods));
            let fix = format!("kubectl get services -n {name}\n(load balancers there give their addresses back)");
            findings.push(Finding::warn("metadata.name", gateway.meta.name.as_str()).says(what, REFUSED, fix));
        }
    }
    Ok(findings)
}

const REFUSED: &str = "whoever dials that gateway would be refused, and its address is given back.";

fn denied(gateway: &Workload, now: Count, (first, stranded): (&Id, &[Id]), view: &View<'_>) -> Finding {
    let at = format!("{}/{}", gateway.meta.namespace, gateway.meta.name);
    let go = if now.pods == 1 { "goes" } else { "go" };
    Finding::deny("metadata.name", gateway.meta.name.as_str()).severity(now.severity()).says(
        format!("{} of {at} {go} with it, and {} of another namespace has no other gateway.", pods(now.pods), names(stranded)),
        REFUSED,
        format!(
            "kubectl get {} -o jsonpath='{{.spec.selector}}'\n(first have ready pods with these labels in another namespace; to retire it for good:\n kubectl delete {} && {})",
            kubectl(first),
            kubectl(first),
            format_args!("kubectl delete {}", view.kubectl())
        ),
    )
}
