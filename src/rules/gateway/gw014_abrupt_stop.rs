//! # GW014 abrupt-stop
//!
//! ## What
//! A gateway's Deployment behind a Service stops its pods more abruptly than it needs to. The audit tells four things apart:
//!
//! - `maxUnavailable`: with this number of replicas an update may take away every pod before the next one is ready (a warning).
//! - `pdb`: two pods or more and no PodDisruptionBudget: draining nodes may end all of them at once (a warning).
//! - `preStop`: the proxy has no `preStop`, so that it begins to end before the endpoints have followed (for information).
//! - `drain`: the proxy lets connections end for a few seconds (`terminationDrainDuration`, 5 s by default) of the many that its pod
//!   is given (`terminationGracePeriodSeconds`, 30 s by default) (for information; the mesh configuration may say more).
//!
//! What istiod deploys for Gateway API Gateways is istiod's business.
//!
//! ## Why
//! Short requests survive a rolling update; what takes longer than the drain is cut off: uploads, streams, long polls.
//!
//! ## What to do
//! Each finding gives the command. A drain as long as the longest request that matters, and a grace a little longer than that.
//!
//! ## Mutation
//! `mutations.GW014: true` gives a new gateway Deployment a `preStop` that sleeps 5 s, where its proxy stands in the template
//! without one and the pod is given at least 15 s to end. While it is on, a Deployment that comes without is warned of.
//!
//! ## When to allow
//! A gateway whose clients repeat whatever fails.

use jiff::SignedDuration;
use serde_json::json;

use super::if_known;
use crate::model::workload::{Hooks, PROXY};
use crate::model::{Container, Id, Kind, Workload, key};
use crate::rules::view::kubectl;
use crate::rules::{Check, Field, Finding, Fix, Flaw, Found, Level, Old, Operation, Patch, Policy, Rule, View};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "GW014",
    name: "abrupt-stop",
    summary: "a gateway stops its pods more abruptly than it needs to",
    reads: &[Field::Template],
    checks: &[Check::Audit(audit), Check::Workload(born)],
    source: include_str!("gw014_abrupt_stop.rs"),
};

/// Seconds that endpoints and load balancers are given to follow; kube-proxy follows at most once a second.
const SLEEP: u32 = 5;
/// The sleep, the proxy's own 5 s, and as much to spare.
const LEAST_GRACE: u32 = 3 * SLEEP;
/// A drain that leaves less of the grace unused is long enough.
const TO_SPARE: u32 = 2 * SLEEP;
/// Of a proxy whose template says nothing.
const USUAL_DRAIN: u32 = 5;

/// An installation writes its objects one after the other.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// A gateway that somebody installs, and not istiod.
fn is_ours(kind: Kind, gateway: &Workload) -> bool {
    kind == Kind::Deployment
        && gateway.is_gateway()
        && gateway.wanted() > 0
        && !gateway.meta.labels.has(key::GATEWAY_MANAGED)
        && !gateway.template.labels.has(key::GATEWAY_MANAGED)
}

/// Its proxy has nothing to do before it stops, and time enough to do something.
fn unprepared(gateway: &Workload) -> Option<&Container> {
    let proxy = gateway.template.container(PROXY)?;
    (proxy.hooks != Hooks::PreStop && gateway.template.grace() >= LEAST_GRACE).then_some(proxy)
}

fn born(gateway: &Workload, _: Old<'_, Workload>, view: &View<'_>) -> Found {
    if !view.policy.mutations.gw014 || view.operation != Operation::Create || !is_ours(view.kind(), gateway) {
        return Ok(Vec::new());
    }
    let Some(proxy) = unprepared(gateway) else { return Ok(Vec::new()) };
    let list = if proxy.init { "initContainers" } else { "containers" };
    let at = format!("/spec/template/spec/{list}/{}/lifecycle", proxy.index);
    let sleep = json!({"sleep": {"seconds": SLEEP}});
    let patch = match proxy.hooks {
        Hooks::None => Patch::Add { path: at, value: json!({"preStop": sleep}) },
        _ => Patch::Add { path: format!("{at}/preStop"), value: sleep },
    };
    let text = format!(
        "set lifecycle: {{preStop: {{sleep: {{seconds: {SLEEP}}}}}}} for the container {PROXY} of the template"
    );
    let field = format!("spec.template.spec.{list}[{PROXY}].lifecycle");
    Ok(vec![Finding::warn(field, "preStop").says(
        format!("gateway {}/{} has no preStop.", gateway.meta.namespace, gateway.meta.name),
        "its proxy begins to end before the endpoints have followed, and refuses who still dials it.",
        Fix::Patch(vec![patch], text),
    )])
}

fn audit(cluster: &Snapshot, policy: &Policy) -> Known<Vec<Flaw>> {
    let mut found = Vec::new();
    for (kind, gateway) in cluster.gateways()? {
        if !is_ours(kind, gateway) || gateway.meta.deleting {
            continue;
        }
        // Nobody dials what no Service leads to.
        if if_known(cluster.services_of(gateway))?.is_none_or(|services| services.is_empty()) {
            continue;
        }
        let one = Gateway::of(gateway);
        found.extend(one.all_at_once());
        found.extend(one.without_budget(cluster)?);
        // With the mutation on, it is a finding of the Deployment as it is written.
        if !policy.mutations.gw014 {
            found.extend(one.without_hook());
        }
        found.extend(one.short_drain());
    }
    Ok(found)
}

struct Gateway<'a> {
    id: Id,
    workload: &'a Workload,
    /// `gateway gw/igw`
    named: String,
    kubectl: String,
}

impl<'a> Gateway<'a> {
    fn of(workload: &'a Workload) -> Self {
        let (namespace, name) = (workload.meta.namespace.clone(), workload.meta.name.clone());
        let named = format!("gateway {namespace}/{name}");
        let id = Id { kind: Kind::Deployment, namespace, name };
        Gateway { kubectl: kubectl(&id), id, workload, named }
    }

    fn flaw(&self, level: Level, value: &str, what: String, why: &'static str, fix: String) -> Flaw {
        let (object, value) = (self.id.clone(), value.to_owned());
        Flaw { level, object, value, what, why: why.into(), fix, grace: GRACE, repair: None }
    }

    fn all_at_once(&self) -> Option<Flaw> {
        let pods = self.workload.wanted();
        let gone = self.workload.max_unavailable?.of(pods);
        (gone >= pods).then(|| {
            let of_all = if pods == 1 { "its only pod".to_owned() } else { format!("all of its {pods} pods") };
            self.flaw(
                Level::Warning,
                "maxUnavailable",
                format!("an update of {} may take away {of_all} before the next is ready.", self.named),
                "until then whoever dials it is refused.",
                format!(
                    "kubectl patch {} -p '{{\"spec\":{{\"strategy\":{{\"type\":\"RollingUpdate\",\"rollingUpdate\":{{\"maxUnavailable\":0,\"maxSurge\":1}}}}}}}}'",
                    self.kubectl
                ),
            )
        })
    }

    fn without_budget(&self, cluster: &Snapshot) -> Known<Option<Flaw>> {
        let pods = self.workload.wanted();
        if pods < 2 {
            return Ok(None);
        }
        let labels = &self.workload.template.labels;
        let Some(mut budgets) = if_known(cluster.pdbs_in(&self.id.namespace))? else { return Ok(None) };
        if budgets.any(|b| b.selector.as_ref().is_some_and(|s| s.matches(labels))) {
            return Ok(None);
        }
        let selector = self.pods();
        Ok(Some(self.flaw(
            Level::Warning,
            "pdb",
            format!("{} has {pods} pods and no PodDisruptionBudget.", self.named),
            "draining nodes may end all of them at once.",
            format!(
                "kubectl create poddisruptionbudget {} -n {} --selector={selector} --min-available=1",
                self.id.name, self.id.namespace
            ),
        )))
    }

    /// What tells its pods: its own selector's labels, as far as the template has them.
    fn pods(&self) -> String {
        let selected = |k: &str| self.workload.selector.keys().any(|s| s == k);
        self.workload.template.labels.filtered(selected).to_string()
    }

    fn without_hook(&self) -> Option<Flaw> {
        unprepared(self.workload)?;
        let container =
            format!("{{\"name\":\"{PROXY}\",\"lifecycle\":{{\"preStop\":{{\"sleep\":{{\"seconds\":{SLEEP}}}}}}}}}");
        Some(self.flaw(
            Level::Info,
            "preStop",
            format!("the proxy of {} has no preStop.", self.named),
            "it begins to end before the endpoints have followed, and refuses who still dials it.",
            format!(
                "kubectl patch {} -p '{{\"spec\":{{\"template\":{{\"spec\":{{\"containers\":[{container}]}}}}}}}}'\n(this restarts its pods)",
                self.kubectl
            ),
        ))
    }

    fn short_drain(&self) -> Option<Flaw> {
        let template = &self.workload.template;
        let (drain, grace) = (template.drain(), template.grace());
        let seconds = drain.unwrap_or(USUAL_DRAIN);
        if seconds.saturating_add(TO_SPARE) >= grace {
            return None;
        }
        let better = grace - TO_SPARE;
        let what = match drain {
            Some(_) => {
                format!("{} lets connections end for {seconds} s of the {grace} s that its pods are given.", self.named)
            }
            None => format!(
                "{} lets connections end for the usual {seconds} s of the {grace} s that its pods are given.",
                self.named
            ),
        };
        let fix = if drain.is_some() || template.annotations.has(key::PROXY_CONFIG) {
            format!(
                "kubectl edit {}\n(in the template's proxy configuration: terminationDrainDuration: {better}s; this restarts its pods)",
                self.kubectl
            )
        } else {
            let config = format!("{{\\\"terminationDrainDuration\\\":\\\"{better}s\\\"}}");
            format!(
                "kubectl patch {} -p '{{\"spec\":{{\"template\":{{\"metadata\":{{\"annotations\":{{\"{}\":\"{config}\"}}}}}}}}}}'\n(this restarts its pods)",
                self.kubectl,
                key::PROXY_CONFIG
            )
        };
        let why = "requests that take longer are cut off whenever a pod ends.";
        Some(self.flaw(Level::Info, "drain", what, why, fix))
    }
}

#[cfg(test)]
mod tests {
    use super::super::worlds::{audited, world};
    use super::*;

    const GATEWAY: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: igw, namespace: gw}
spec:
  replicas: 2
  strategy: {rollingUpdate: {maxUnavailable: 25%}}
  selector: {matchLabels: {app: igw}}
  template:
    metadata: {labels: {app: igw, v: a}, annotations: {inject.istio.io/templates: gateway, proxy.istio.io/config: 'terminationDrainDuration: 25s'}}
    spec:
      containers:
      - {name: other, image: a}
      - {name: istio-proxy, image: auto, lifecycle: {preStop: {sleep: {seconds: 5}}}}
";
    const SERVICE: &str =
        "{apiVersion: v1, kind: Service, metadata: {name: igw, namespace: gw}, spec: {selector: {app: igw}}}";
    const BUDGET: &str = "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: igw, namespace: gw}, spec: \
        {minAvailable: 1, selector: {matchLabels: {app: igw}}}}";

    fn values(texts: &[&str]) -> Vec<String> {
        audited(&RULE, &world(texts), "").into_iter().map(|f| format!("{} {}", f.level.as_str(), f.value)).collect()
    }

    #[test]
    fn what_ends_its_pods_with_care_is_left_alone() {
        assert_eq!(values(&[GATEWAY, SERVICE, BUDGET]), [""; 0]);
    }

    #[test]
    fn each_of_the_four_is_told_by_itself() {
        let without = |from: &str, to: &str| values(&[&GATEWAY.replace(from, to), SERVICE, BUDGET]);
        assert_eq!(values(&[GATEWAY, SERVICE]), ["warning pdb"]);
        assert_eq!(without("maxUnavailable: 25%", "maxUnavailable: 2"), ["warning maxUnavailable"]);
        assert_eq!(without("rollingUpdate: {maxUnavailable: 25%}", "type: Recreate"), ["warning maxUnavailable"]);
        assert_eq!(without(", lifecycle: {preStop: {sleep: {seconds: 5}}}", ""), ["info preStop"]);
        assert_eq!(without("Duration: 25s", "Duration: 10s"), ["info drain"]);
        assert_eq!(without(", proxy.istio.io/config: 'terminationDrainDuration: 25s'", ""), ["info drain"]);
    }

    #[test]
    fn one_replica_needs_no_budget_and_a_quarter_of_it_is_nothing() {
        assert_eq!(values(&[&GATEWAY.replace("replicas: 2", "replicas: 1"), SERVICE]), [""; 0]);
    }

    #[test]
    fn what_nobody_dials_or_istiod_deploys_or_waits_for_the_last_connection_is_left_alone() {
        assert_eq!(values(&[GATEWAY]), [""; 0]);
        let managed = "labels: {app: igw, gateway.istio.io/managed: istio.io-gateway-controller";
        assert_eq!(values(&[&GATEWAY.replace("labels: {app: igw", managed), SERVICE]), [""; 0]);
        let waits = "proxyMetadata: {EXIT_ON_ZERO_ACTIVE_CONNECTIONS: \"true\"}";
        let patient = GATEWAY.replace("terminationDrainDuration: 25s", waits);
        assert_eq!(values(&[&patient, SERVICE, BUDGET]), [""; 0]);
    }

    #[test]
    fn commands_are_whole() {
        let bare = GATEWAY
            .replace(", lifecycle: {preStop: {sleep: {seconds: 5}}}", "")
            .replace(", proxy.istio.io/config: 'terminationDrainDuration: 25s'", "");
        let found = audited(&RULE, &world(&[&bare, SERVICE]), "");
        let fixes: Vec<&str> = found.iter().map(|f| f.fix.lines().next().unwrap_or("")).collect();
        assert_eq!(
            fixes,
            [
                "kubectl create poddisruptionbudget igw -n gw --selector=app=igw --min-available=1",
                r#"kubectl patch deployment -n gw igw -p '{"spec":{"template":{"spec":{"containers":[{"name":"istio-proxy","lifecycle":{"preStop":{"sleep":{"seconds":5}}}}]}}}}'"#,
                r#"kubectl patch deployment -n gw igw -p '{"spec":{"template":{"metadata":{"annotations":{"proxy.istio.io/config":"{\"terminationDrainDuration\":\"20s\"}"}}}}}'"#,
            ]
        );
        let on = audited(&RULE, &world(&[&bare, SERVICE]), "mutations: {GW014: true}");
        assert!(on.iter().all(|f| f.value != "preStop"), "the Deployment itself is found then");
    }
}
