//! # CP007 node-agent-in-use
//!
//! ## What
//! The DaemonSet of the CNI node agent (`istio-cni-node`) is deleted while pods run that it set up, or that of `ztunnel`
//! while pods run whose traffic it takes. Pods tell by their annotations: `sidecar.istio.io/status` names the container
//! `istio-validation` where the CNI agent had redirected the traffic, `ambient.istio.io/redirection` says who takes it.
//!
//! Pods and namespaces that are being deleted do not count. A namespace that is ambient but has no such pod yet gives a
//! warning; so does everything once the last control plane is gone.
//!
//! ## Why
//! Both are shared by all revisions, and `istioctl uninstall --revision` takes them along. Without the CNI agent a pod that
//! was made for it does not start again: its check finds no redirection. Without ztunnel the traffic of ambient pods stops at
//! once.
//!
//! ## What to do
//! To remove a revision: `istioctl uninstall -f` with a file that has no `cni` and `ztunnel`, or the Helm release of istiod
//! alone. To leave the CNI agent, install the control plane with `pilot.cni.enabled=false` and restart the workloads first.
//! To leave ambient mode, take the label `istio.io/dataplane-mode` off first.
//!
//! In namespaces for which the webhook is not registered (`kube-system` by default) nobody asks.
//!
//! ## When to allow
//! For the moment in which it is replaced by another installation.

use std::collections::BTreeMap;

use crate::model::{Kind, Object, Redirection, Workload, key};
use crate::rules::names::few;
use crate::rules::{Check, Finding, Found, Rule, Severity, View};
use crate::snapshot::{Snapshot, WhyUnknown};

pub static RULE: Rule = Rule {
    code: "CP007",
    name: "node-agent-in-use",
    summary: "the CNI node agent or ztunnel is deleted under pods that need it",
    reads: &[],
    checks: &[Check::Delete(check)],
    source: include_str!("cp007_node_agent_in_use.rs"),
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Agent {
    Cni,
    Ztunnel,
}

impl Agent {
    fn of(daemon: &Workload) -> Option<Agent> {
        let (meta, pods) = (&daemon.meta, &daemon.template.labels);
        let is = |component: &str, name: &str| meta.labels.is(key::COMPONENT, component) || meta.name == name;
        if is("Cni", "istio-cni-node") || pods.is("k8s-app", "istio-cni-node") {
            Some(Agent::Cni)
        } else if is("Ztunnel", "ztunnel") || pods.is("app", "ztunnel") {
            Some(Agent::Ztunnel)
        } else {
            None
        }
    }

    fn serves(self, redirection: Redirection) -> bool {
        match self {
            Agent::Cni => redirection.cni,
            Agent::Ztunnel => redirection.ztunnel,
        }
    }

    fn why(self, users: &Users<'_>) -> &'static str {
        match self {
            Agent::Ztunnel => "their traffic stops at once: it is redirected to a ztunnel that is not there.",
            Agent::Cni if users.is_ambient() => "nothing leads the traffic of new pods into the mesh any more.",
            Agent::Cni => {
                "pods that were made for it do not start again: nothing redirects their traffic, which they check first."
            }
        }
    }

    fn fix(self, users: &Users<'_>) -> String {
        let namespaces = users.namespaces();
        let namespace = namespaces.first().copied().unwrap_or("NAMESPACE");
        let only = "to remove a revision alone: the Helm release of its istiod, or istioctl uninstall -f with its file";
        if self == Agent::Ztunnel || users.is_ambient() {
            return format!("kubectl label namespace {namespace} {}-\n(and so on; {only})", key::DATAPLANE_MODE);
        }
        format!(
            "install the control plane with pilot.cni.enabled=false, then in each namespace\n\
             kubectl rollout restart deployment -n {namespace}\n({only})"
        )
    }
}

/// Who needs an agent: namespaces, how many pods, and whether they are ambient.
#[derive(Default)]
struct Users<'a>(BTreeMap<&'a str, (usize, bool)>);

impl Users<'_> {
    fn namespaces(&self) -> Vec<&str> {
        self.0.keys().copied().collect()
    }

    fn pods(&self) -> usize {
        self.0.values().map(|(pods, _)| pods).sum()
    }

    fn is_ambient(&self) -> bool {
        self.0.values().all(|(_, ambient)| *ambient)
    }
}

fn check(object: &Object, view: &View<'_>) -> Found {
    let Object::Workload(Kind::DaemonSet, daemon) = object else { return Ok(Vec::new()) };
    let Some(agent) = Agent::of(daemon) else { return Ok(Vec::new()) };
    let cluster = view.before();
    let at = format!("{}/{}", daemon.meta.namespace, daemon.meta.name);
    let finding = |severity, what: String, users: &Users<'_>| {
        let draft = Finding::deny("metadata.name", at.clone()).severity(severity);
        Ok(vec![draft.says(what, agent.why(users), agent.fix(users))])
    };
    let is_last = !cluster.istiods()?.any(|w| !w.meta.deleting);
    let users = users(agent, cluster);
    let count = users.pods();
    if count == 0 {
        return match cluster.knows(Kind::Pod, None) {
            Err(unknown) if unknown.why == WhyUnknown::Listing => Err(unknown),
            Err(unknown) if !is_last => finding(Severity::Warn, format!("whether pods need {at}: {unknown}"), &users),
            _ => {
                let users = ambient(agent, cluster);
                if users.0.is_empty() {
                    return Ok(Vec::new());
                }
                let what = format!("ambient namespaces have no {at} then: {}", few(&users.namespaces()));
                finding(Severity::Warn, what, &users)
            }
        };
    }
    let pods = if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") };
    let need = if count == 1 { "needs" } else { "need" };
    let places = few(&users.namespaces());
    if is_last || has_another(agent, daemon, cluster) {
        return finding(Severity::Warn, format!("{pods} in {places} {need} {at}"), &users);
    }
    finding(Severity::Deny, format!("{pods} in {places} {need} DaemonSet {at}."), &users)
}

/// Pods that were set up by it.
fn users(agent: Agent, cluster: &Snapshot) -> Users<'_> {
    let mut users = Users::default();
    for object in cluster.raw(Kind::Pod) {
        if let Object::Pod(pod) = object
            && agent.serves(pod.redirection)
            && !pod.meta.deleting
            && !pod.status.is_some_and(|s| s.over)
            && !cluster.is_ending(&pod.meta.namespace)
        {
            let (pods, ambient) = users.0.entry(pod.meta.namespace.as_str()).or_insert((0, true));
            *pods += 1;
            *ambient &= pod.redirection.ztunnel;
        }
    }
    users
}

/// Namespaces whose next pods need ztunnel.
fn ambient(agent: Agent, cluster: &Snapshot) -> Users<'_> {
    let all = cluster.raw(Kind::Namespace).map(Object::meta);
    let asks = all.filter(|m| m.labels.is(key::DATAPLANE_MODE, "ambient") && !m.deleting && agent == Agent::Ztunnel);
    Users(asks.map(|m| (m.name.as_str(), (0, true))).collect())
}

/// A second one does the same on its nodes.
fn has_another(agent: Agent, daemon: &Workload, cluster: &Snapshot) -> bool {
    cluster.workloads().any(|(kind, w)| {
        let same = w.meta.namespace == daemon.meta.namespace && w.meta.name == daemon.meta.name;
        kind == Kind::DaemonSet && !same && !w.meta.deleting && Agent::of(w) == Some(agent)
    })
}
