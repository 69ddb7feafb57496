//! # NS011 injector-not-answering
//!
//! ## What
//! The labels lead to an injector behind which nobody answers: its Service is missing, or has no ready endpoint while
//! workloads run in the namespace. Or they lead to a control plane that is being retired: its istiod Deployment is annotated
//! `revguard.dev/retiring`. Control planes outside the cluster (`url`, ExternalName) are left alone.
//!
//! ## Why
//! An injector's webhook fails closed: while nobody answers, the API server refuses every new pod of the namespace. What runs
//! goes on; what restarts stays away.
//!
//! ## What to do
//! Follow a name whose control plane answers, or bring this one back first. A new namespace is only warned of, because
//! everything may be installed at once.
//!
//! ## When to allow
//! When the control plane is known to come back within the minute.

use super::{asked, called, follow};
use crate::model::{Backend, FailurePolicy, Hook, Labels, Namespace, key, resolve};
use crate::rules::finding::label;
use crate::rules::names::{if_known, is_sound, offer, plain, retiring};
use crate::rules::{Check, Field, Finding, Found, Old, Operation, Rule, Severity, View};
use crate::snapshot::Known;
use crate::snapshot::mesh::Answers;

pub static RULE: Rule = Rule {
    code: "NS011",
    name: "injector-not-answering",
    summary: "a namespace follows a control plane that does not answer or is to go",
    reads: &[Field::Label(key::INJECTION), Field::Label(key::REV)],
    checks: &[Check::Namespace(check)],
    source: include_str!("ns011_injector_not_answering.rs"),
};

fn check(namespace: &Namespace, _: Old<'_, Namespace>, view: &View<'_>) -> Found {
    let labels = namespace.seen_labels();
    let Some(asked) = asked(&labels) else { return Ok(Vec::new()) };
    let cluster = view.cluster();
    // Of several the last one's sidecar stays.
    let called = called(cluster.injectors()?, &labels);
    let Some(hook) = called.last() else { return Ok(Vec::new()) };
    let key = if labels.has(key::INJECTION) { key::INJECTION } else { key::REV };
    let draft = Finding::deny(label(key), labels.value(key).unwrap_or_default());
    let name = &namespace.meta.name;
    let wanted = format!("{key}={}", labels.value(key).unwrap_or_default());
    if let Some(revision) = &hook.revision
        && let Some(istiod) = retiring(cluster, revision)
    {
        return Ok(vec![draft.says(
            format!("{wanted} leads {name:?} to revision {revision}, which is being retired."),
            format!("Deployment {istiod} is annotated {}; nothing new may move to it.", key::RETIRING),
            fix(namespace, plain(asked), &hook.backend, view),
        )]);
    }
    let Backend::Service { namespace: home, name: service, .. } = &hook.backend else { return Ok(Vec::new()) };
    let state = match if_known(cluster.answers(&hook.backend))? {
        Some(Answers::Missing) => "does not exist",
        Some(Answers::Nobody) if has_workloads(namespace, &labels, view)? => "has no ready endpoint",
        _ => return Ok(Vec::new()),
    };
    let severity = if view.operation == Operation::Create { Severity::Warn } else { Severity::Deny };
    Ok(vec![draft.severity(severity).says(
        format!("Service {home}/{service} {state}; {wanted} leads {name:?} to it."),
        consequence(hook, name),
        fix(namespace, plain(asked), &hook.backend, view),
    )])
}

fn consequence(hook: &Hook, name: &str) -> String {
    if hook.failure_policy == FailurePolicy::Fail {
        format!("the API server would refuse every new pod in {name:?} until an istiod answers.")
    } else {
        format!("new pods in {name:?} would start without a sidecar until an istiod answers.")
    }
}

fn has_workloads(namespace: &Namespace, labels: &Labels, view: &View<'_>) -> Known<bool> {
    let cluster = view.cluster();
    if_known(cluster.knows_workloads())?;
    let injectors = cluster.injectors()?;
    let name = &namespace.meta.name;
    let mut running = cluster.workloads_in(name).filter(|(_, w)| w.wanted() > 0 && !w.is_istiod());
    Ok(running.any(|(_, w)| resolve(injectors, name, labels, &w.template).is_injected()))
}

/// Another name whose control plane answers, else how to look at this one.
fn fix(namespace: &Namespace, asked: &str, backend: &Backend, view: &View<'_>) -> String {
    let cluster = view.cluster();
    if let Some(other) = offer(cluster, asked).filter(|n| is_sound(cluster, n)) {
        return format!("{}\n{}", follow(namespace, &other), cluster.name_list());
    }
    match backend {
        Backend::Service { namespace: home, .. } => {
            format!(
                "kubectl get deployments,services -n {home} -l app=istiod\n(no other control plane answers; bring this one back first)"
            )
        }
        _ => "kubectl get mutatingwebhookconfigurations -l app=sidecar-injector".to_owned(),
    }
}
