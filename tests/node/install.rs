//! What the README promises: one command, and a guard works.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;

use std::time::Duration;

use kube::api::{DeleteParams, ListParams};
use serde_json::Value;

use crate::harness::guard::{Guard, NAMESPACE, RELEASE, WEBHOOK, image};
use crate::harness::machine::Machine;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(Cluster, helm_install_gives_a_working_guard),
        trial!(Cluster, helm_test_tells_a_working_guard_from_a_dead_one),
        trial!(Cluster, the_static_binary_resolves_names_through_the_clusters_dns),
    ]
}

const CONFLICT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: conflicting, labels: {istio-injection: enabled, istio.io/rev: prod}}
";

const ORDINARY: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: ordinary, labels: {team: payments}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: ordinary}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: 'revguard.local/lab:1', imagePullPolicy: Never, args: [web]}]
";

async fn helm_install_gives_a_working_guard(machine: &'static Machine) -> Result<()> {
    let guard = Guard::fresh(machine, &[]).await?;
    ensure!(guard.replicas().await?.len() == 3, "three replicas");

    let refused = machine.kubectl(&["apply", "-f", "-"], CONFLICT).await?;
    let words = refused.refused(&[
        "Error from server (Forbidden): ",
        "admission webhook \"namespaces.revguard.dev\" denied the request: [NS001 ",
        "\n  why:   ",
        "\n  fix:   ",
        "revguard explain NS001",
    ])?;
    println!("refused:\n{words}");
    machine.kubectl(&["get", "namespace", "conflicting"], "").await?.refused(&["NotFound"])?;

    // Life goes on, with pods that really start.
    let passed = machine.kubectl(&["apply", "-f", "-"], ORDINARY).await?.passed()?;
    println!("passed:\n{passed}");
    machine
        .kubectl(&["rollout", "status", "deployment/web", "-n", "ordinary", "--timeout=120s"], "")
        .await?
        .passed()?;
    machine
        .kubectl(&["label", "namespace", "ordinary", "istio.io/rev=prod", "istio-injection=enabled"], "")
        .await?
        .refused(&["[NS001 ", "has both istio-injection=enabled and istio.io/rev=prod"])?;
    machine.kubectl(&["delete", "namespace", "ordinary", "--timeout=120s"], "").await?.passed()?;
    Ok(())
}

const HELM_TEST: [&str; 6] = ["test", RELEASE, "-n", NAMESPACE, "--timeout", "2m"];

/// What Helm itself says of the release: when `helm test` was run last, and what came of it.
async fn hooks(machine: &Machine) -> Result<Vec<(String, String)>> {
    let status = machine.helm(&["status", RELEASE, "-n", NAMESPACE, "-o", "json"]).await?.passed()?;
    let status: Value = serde_json::from_str(&status)?;
    let hooks = status["hooks"].as_array().context("hooks")?;
    let of = |hook: &Value| (text(&hook["kind"]), text(&hook["last_run"]["phase"]));
    Ok(hooks.iter().map(of).collect())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

async fn helm_test_tells_a_working_guard_from_a_dead_one(machine: &'static Machine) -> Result<()> {
    let guard = Guard::installed(machine, &[]).await?;
    // Twice, because the first run must leave nothing in the second one's way.
    for _ in 0..2 {
        let said = machine.helm(&HELM_TEST).await?.passed()?;
        println!("{said}");
        let mut ran = hooks(machine).await?;
        ran.sort();
        let each = |kind: &str| (kind.to_owned(), "Succeeded".to_owned());
        ensure!(ran == [each("ConfigMap"), each("Namespace"), each("Pod")], "{ran:?}");
    }
    machine.kubectl(&["get", "namespace", "revguard-test"], "").await?.refused(&["NotFound"])?;

    // Nobody answers any more, and everything else is as it was.
    let scale = |replicas: &'static str| async move {
        machine.kubectl(&["-n", NAMESPACE, "scale", "deployment", WEBHOOK, "--replicas", replicas], "").await?.passed()
    };
    scale("0").await?;
    wait_until(Duration::from_secs(90), "no pod of the webhook", || async {
        let of = ListParams::default().labels("app.kubernetes.io/component=webhook");
        let left = guard.pods().list(&of).await.map_err(|error| error.to_string())?.items.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} pods")) }
    })
    .await?;
    let dead = machine.helm(&HELM_TEST).await?;
    scale("3").await?;
    let words = dead.refused(&["failed calling webhook \"namespaces.revguard.dev\""])?;
    println!("dead:\n{words}");
    let ran = hooks(machine).await?;
    ensure!(ran.contains(&("Namespace".to_owned(), "Failed".to_owned())), "{ran:?}");
    guard.settled().await?;
    machine.helm(&HELM_TEST).await?.passed().map(drop)
}

/// A pod of our image that reaches the API server by name instead of by its environment.
const BY_NAME: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: by-name, namespace: NAMESPACE}
data:
  kubeconfig: |
    apiVersion: v1
    kind: Config
    current-context: by-name
    clusters:
    - name: by-name
      cluster:
        server: https://kubernetes.default.svc.cluster.local
        certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    users: [{name: by-name, user: {tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token}}]
    contexts: [{name: by-name, context: {cluster: by-name, user: by-name}}]
---
apiVersion: v1
kind: Pod
metadata: {name: by-name, namespace: NAMESPACE}
spec:
  restartPolicy: Never
  serviceAccountName: SERVICE_ACCOUNT
  automountServiceAccountToken: true
  containers:
  - name: resolve
    image: IMAGE
    imagePullPolicy: Never
    args: [resolve, --kubeconfig, /config/kubeconfig, --output, json]
    volumeMounts: [{name: config, mountPath: /config}]
  volumes: [{name: config, configMap: {name: by-name}}]
";

async fn the_static_binary_resolves_names_through_the_clusters_dns(machine: &'static Machine) -> Result<()> {
    let guard = Guard::installed(machine, &[]).await?;
    let manifest =
        BY_NAME.replace("NAMESPACE", NAMESPACE).replace("SERVICE_ACCOUNT", WEBHOOK).replace("IMAGE", &image());
    machine.kubectl(&["apply", "-f", "-"], &manifest).await?.passed()?;
    let phase = wait_until(Duration::from_secs(120), "the end of a pod", || async {
        let pod = guard.pods().get("by-name").await.map_err(|error| error.to_string())?;
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
        if ["Succeeded", "Failed"].contains(&phase.as_str()) { Ok(phase) } else { Err(phase) }
    })
    .await?;
    let log = machine.kubectl(&["logs", "by-name", "-n", NAMESPACE], "").await?.passed()?;
    guard.pods().delete("by-name", &DeleteParams::default()).await?;
    machine.kubectl(&["delete", "configmap", "by-name", "-n", NAMESPACE], "").await?.passed()?;
    ensure!(phase == "Succeeded" && log.contains("by-name"), "{phase}: {log}");
    Ok(())
}
