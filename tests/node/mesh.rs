//! A mesh of stand-ins for istiod: what its uninstall may take, and a validator that somebody breaks.
//!
//! The chart in istiod/ renders the kinds, names, labels and selectors of Istio's own, with a program in the pod that serves its webhooks.
//! Writes are made by `jane`, who may do everything but is not in the break-glass group; where that group is meant, it is named.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::ListParams;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::figures;
use crate::harness::guard::{Guard, NAMESPACE, RELEASE};
use crate::harness::machine::Machine;
use crate::harness::programs::{Said, repository};
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(Cluster, helm_uninstall_of_an_istiod_in_use_leaves_what_runs_running),
        trial!(Cluster, a_validator_broken_with_kubectl_is_mended_within_a_minute),
        trial!(Cluster, what_is_in_use_is_refused_again_after_a_reinstallation),
    ]
}

const SYSTEM: &str = "istio-system";

/// What Istio's base chart makes: the validator of what names no revision.
const VALIDATOR: &str = "istiod-default-validator";

/// One of the kinds of Istio configuration, so that there is something to validate. Its schema is permissive.
const STAGE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: people}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: Group, apiGroup: rbac.authorization.k8s.io, name: people}]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: sidecars.networking.istio.io}
spec:
  group: networking.istio.io
  scope: Namespaced
  names: {kind: Sidecar, plural: sidecars, singular: sidecar}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

const USER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/rev: 1-23}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: 'revguard.local/lab:1', imagePullPolicy: IfNotPresent, args: [web]}]
";

const CONFIG: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: default}
spec: {egress: [{hosts: ['./*']}]}
";

/// The verb, as jane.
async fn jane(machine: &Machine, arguments: &[&str], input: &str) -> Result<Said> {
    machine
        .kubectl(&[&["--as=jane", "--as-group=people", "--as-group=system:authenticated"], arguments].concat(), input)
        .await
}

async fn helm(machine: &Machine, arguments: &[&str]) -> Result<Said> {
    let who = ["--kube-as-user=jane", "--kube-as-group=people", "--kube-as-group=system:authenticated", "-n", SYSTEM];
    machine.helm(&[arguments, &who].concat()).await
}

async fn istiod(machine: &Machine, revision: &str, more: &[&str]) -> Result<()> {
    let chart = repository().join("tests/node/istiod");
    let chart = chart.to_str().context("a path in UTF-8")?;
    let (name, value) = (format!("istiod-{revision}"), format!("revision={revision}"));
    let arguments =
        [&["upgrade", "--install", "--create-namespace", "--wait", &name, chart, "--set", &value], more].concat();
    helm(machine, &arguments).await?.passed().with_context(|| name).map(drop)
}

/// A mesh with the revision 1-23, which also validates what names no revision, and a namespace that uses it.
async fn stage(machine: &Machine) -> Result<()> {
    clear(machine).await?;
    machine.kubectl(&["apply", "-f", "-"], STAGE).await?.passed()?;
    machine
        .kubectl(&["wait", "--for=condition=Established", "crd/sidecars.networking.istio.io", "--timeout=30s"], "")
        .await?
        .passed()?;
    istiod(machine, "1-23", &[]).await?;
    let of_revision = machine
        .kubectl(&["get", "validatingwebhookconfiguration", "istio-validator-1-23-istio-system", "-o", "json"], "");
    let of_revision: Value = serde_json::from_str(&of_revision.await?.passed()?)?;
    let mut of_all = of_revision["webhooks"][0].clone();
    of_all["name"] = json!("validation.istio.io");
    of_all["objectSelector"] = json!({});
    let base = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": VALIDATOR, "labels": {"app": "istiod", "istio": "istiod", "istio.io/rev": "1-23", "release": "base"}},
        "webhooks": [of_all],
    });
    jane(machine, &["apply", "-f", "-"], &base.to_string()).await?.passed()?;
    // What was installed a moment ago may not be known yet to those who judge.
    wait_until(Duration::from_secs(30), "a namespace that uses 1-23", || async {
        let said = jane(machine, &["apply", "-f", "-"], USER).await.and_then(Said::passed);
        said.map_err(|error| format!("{error:#}"))
    })
    .await?;
    jane(machine, &["rollout", "status", "-n", "shop", "deployment/web", "--timeout=120s"], "").await?.passed()?;
    in_force(machine).await
}

/// Tries to delete the injector that is in use.
const DELETE: [&str; 4] = ["delete", "mutatingwebhookconfiguration", "istio-sidecar-injector-1-23", "--dry-run=server"];

/// The admission policy knows what is in use. An API server looks every 30 seconds which kinds there are, that of its parameters
/// among them.
async fn in_force(machine: &Machine) -> Result<()> {
    wait_until(Duration::from_secs(90), "the admission policy", || async {
        let said = jane(machine, &DELETE, "").await.and_then(|said| said.refused(&["[VW011 "]));
        said.map_err(|error| format!("{error:#}"))
    })
    .await
    .map(drop)
}

/// Waits until everybody who has a say knows who uses the revision: each replica, and the admission policy over webhook configurations,
/// whose parameters the controller writes.
async fn known(guard: &Guard, machine: &Machine, revision: &str) -> Result<()> {
    let client = || guard.client.clone();
    let shop = Api::<Namespace>::all(client()).get("shop").await?;
    guard.seen("namespaces", &[shop.metadata]).await?;
    let pods = Api::<Pod>::namespaced(client(), "shop").list(&ListParams::default()).await?;
    guard.seen("pods", &pods.into_iter().map(|pod| pod.metadata).collect::<Vec<_>>()).await?;
    for (kind, name) in [
        ("validatingwebhookconfiguration", format!("istio-validator-{revision}-{SYSTEM}")),
        ("mutatingwebhookconfiguration", format!("istio-sidecar-injector-{revision}")),
    ] {
        wait_until(Duration::from_secs(90), "a policy that knows of the revision's users", || async {
            let said = jane(machine, &["delete", kind, &name, "--dry-run=server"], "").await;
            said.and_then(|said| said.refused(&["[VW011 "])).map_err(|error| format!("{error:#}"))
        })
        .await?;
    }
    Ok(())
}

async fn clear(machine: &Machine) -> Result<()> {
    let forever = ["--as=root", "--as-group=system:masters"];
    machine
        .kubectl(&[&forever[..], &["delete", "namespace", "shop", "--ignore-not-found", "--timeout=60s"]].concat(), "")
        .await?
        .passed()?;
    let validator = ["delete", "validatingwebhookconfiguration", VALIDATOR, "--ignore-not-found"];
    machine.kubectl(&[&forever[..], &validator].concat(), "").await?.passed()?;
    for release in ["istiod-1-24", "istiod-1-23"] {
        let who = ["--kube-as-user=root", "--kube-as-group=system:masters", "-n", SYSTEM];
        machine.helm(&[&["uninstall", release, "--ignore-not-found"], &who[..]].concat()).await?.passed()?;
    }
    Ok(())
}

/// Names of what a release of the stand-in consists of, as far as it is there.
async fn there(machine: &Machine, release: &str) -> Result<Vec<String>> {
    let kinds = "deployments,services,configmaps,secrets,serviceaccounts,roles,rolebindings,poddisruptionbudgets,horizontalpodautoscalers,\
                 clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations";
    let label = format!("release={release}");
    let said = machine.kubectl(&["get", kinds, "-n", SYSTEM, "-l", &label, "-o", "name"], "").await?.passed()?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// Pods of the namespace really start, with the injector asked.
async fn restarts(machine: &Machine) -> Result<()> {
    jane(machine, &["rollout", "restart", "-n", "shop", "deployment/web"], "").await?.passed()?;
    jane(machine, &["rollout", "status", "-n", "shop", "deployment/web", "--timeout=120s"], "")
        .await?
        .passed()
        .map(drop)
}

async fn helm_uninstall_of_an_istiod_in_use_leaves_what_runs_running(machine: &'static Machine) -> Result<()> {
    let guard = Guard::installed(machine, &[]).await?;
    stage(machine).await?;
    known(&guard, machine, "1-23").await?;
    let before = there(machine, "istiod-1-23").await?;
    ensure!(before.len() >= 13, "the stand-in is not whole: {before:?}");

    // Helm goes on at a denial, says at its end that it failed, and why only with --debug.
    let refused = helm(machine, &["uninstall", "istiod-1-23", "--debug"]).await?;
    let back = "helm rollback istiod-1-23 N -n istio-system";
    refused.refused(&["[VW011 ", "[CP001 ", "[CP002 ", "namespace shop asks for 1-23", back])?;
    let after = there(machine, "istiod-1-23").await?;
    let gone: Vec<&String> = before.iter().filter(|name| !after.contains(name)).collect();
    println!("helm uninstall of what is in use: of {} objects {} went: {gone:?}", before.len(), gone.len());
    let spare =
        |name: &&&String| !name.starts_with("poddisruptionbudget") && !name.starts_with("horizontalpodautoscaler");
    ensure!(gone.iter().find(spare).is_none(), "went: {gone:?}");
    restarts(machine).await?;
    // The way back that the denial names, as it stands there.
    helm(machine, &["rollback", "istiod-1-23", "1"]).await?.passed()?;
    ensure!(there(machine, "istiod-1-23").await? == before, "the way back does not bring everything back");
    restarts(machine).await?;

    // The move.
    istiod(machine, "1-24", &[]).await?;
    wait_until(Duration::from_secs(30), "the move", || async {
        let said = jane(machine, &["label", "namespace", "shop", "istio.io/rev=1-24", "--overwrite"], "")
            .await
            .and_then(Said::passed);
        said.map_err(|error| format!("{error:#}"))
    })
    .await?;
    restarts(machine).await?;
    // The validator of what names no revision follows.
    let service = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/service/name", "value": "istiod-1-24"},
        {"op": "replace", "path": "/metadata/labels/istio.io~1rev", "value": "1-24"}])
    .to_string();
    let validator = ["patch", "validatingwebhookconfiguration", VALIDATOR, "--type=json", "-p", &service];
    jane(machine, &validator, "").await?.passed()?;
    // The same command, once the last user is known to be gone.
    wait_until(Duration::from_secs(90), "helm uninstall after the move", || async {
        let said = helm(machine, &["uninstall", "istiod-1-23"]).await.and_then(Said::passed);
        said.map_err(|error| format!("{error:#}"))
    })
    .await?;
    let left = there(machine, "istiod-1-23").await?;
    ensure!(left.is_empty(), "{left:?}");
    restarts(machine).await?;
    figures::write("istiod-uninstall", &json!({"objects": before.len(), "gone_when_refused": gone.len()}))?;
    clear(machine).await
}

async fn validator(machine: &Machine) -> Result<Value> {
    let said = machine.kubectl(&["get", "validatingwebhookconfiguration", VALIDATOR, "-o", "json"], "");
    Ok(serde_json::from_str(&said.await?.passed()?)?)
}

fn leads_to(validator: &Value) -> &str {
    validator["webhooks"][0]["clientConfig"]["service"]["name"].as_str().unwrap_or_default()
}

async fn a_validator_broken_with_kubectl_is_mended_within_a_minute(machine: &'static Machine) -> Result<()> {
    let values = ["--set", "policy.repair=all,controller.auditInterval=2s"];
    Guard::installed(machine, &values).await?;
    stage(machine).await?;
    jane(machine, &["apply", "-f", "-"], CONFIG).await?.passed()?;

    let broken =
        json!([{"op": "replace", "path": "/webhooks/0/clientConfig/service/name", "value": "istiod-gone"}]).to_string();
    let patch = ["patch", "validatingwebhookconfiguration", VALIDATOR, "--type=json", "-p", &broken];
    let refused = jane(machine, &patch, "").await?;
    refused.refused(&["[VW010 "])?;
    let mut glass = vec!["--as=root", "--as-group=system:masters"];
    glass.extend(patch);
    machine.kubectl(&glass, "").await?.passed()?;
    let began = Instant::now();
    // It is really broken: the API server cannot ask, and refuses, as soon as it has heard. A repair comes after a grace of 20 s.
    let change = ["annotate", "sidecar", "default", "--overwrite"];
    wait_until(Duration::from_secs(18), "a write that cannot be validated", || async {
        let said = jane(machine, &[&change[..], &["round=1"]].concat(), "").await;
        said.and_then(|said| said.refused(&["failed calling webhook", "istiod-gone"]))
            .map_err(|error| format!("{error:#}"))
    })
    .await?;
    let mended = wait_until(Duration::from_secs(60), "a mended validator", || async {
        let found = validator(machine).await.map_err(|error| format!("{error:#}"))?;
        if leads_to(&found) == "istiod-1-23" { Ok(found) } else { Err(leads_to(&found).to_owned()) }
    })
    .await?;
    let took = began.elapsed();
    ensure!(mended["metadata"]["annotations"]["revguard.dev/repaired"].is_string(), "{mended}");
    wait_until(Duration::from_secs(30), "a write that is validated", || async {
        let said = jane(machine, &[&change[..], &["round=2"]].concat(), "").await.and_then(Said::passed);
        said.map_err(|error| format!("{error:#}"))
    })
    .await?;

    let mut undo = vec!["--as=root", "--as-group=system:masters"];
    undo.extend(["annotate", "validatingwebhookconfiguration", VALIDATOR, "revguard.dev/repair=undo", "--overwrite"]);
    machine.kubectl(&undo, "").await?.passed()?;
    let undone = wait_until(Duration::from_secs(60), "an undone repair", || async {
        let found = validator(machine).await.map_err(|error| format!("{error:#}"))?;
        if leads_to(&found) == "istiod-gone" { Ok(found) } else { Err(leads_to(&found).to_owned()) }
    })
    .await?;
    ensure!(undone["metadata"]["annotations"]["revguard.dev/repair"] == "off", "{undone}");
    figures::write("repair", &json!({"mended_seconds": took.as_secs_f64()}))?;
    clear(machine).await
}

/// kubernetes/kubernetes#130887: with a ConfigMap for parameters the policy would refuse nothing from here on.
async fn what_is_in_use_is_refused_again_after_a_reinstallation(machine: &'static Machine) -> Result<()> {
    Guard::installed(machine, &[]).await?;
    stage(machine).await?;
    for _ in 0..2 {
        machine.helm(&["uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "2m"]).await?.passed()?;
        jane(machine, &DELETE, "").await?.passed().context("there is nobody to refuse it")?;
        // What the policy was told goes with the release, although Helm has not made it.
        wait_until(Duration::from_secs(60), "no parameters", || async {
            let left = machine.kubectl(&["get", "guardparameters", "-A", "-o", "name"], "").await;
            let left = left.and_then(Said::passed).map_err(|error| format!("{error:#}"))?;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await?;
        Guard::installed(machine, &[]).await?;
        in_force(machine).await?;
    }
    clear(machine).await
}
