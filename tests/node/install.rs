//! What the README promises: one command, and a guard works.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;

use crate::harness::guard::{Guard, NAMESPACE, RELEASE};
use crate::harness::machine::Machine;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(Cluster, helm_install_gives_a_working_guard)]
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
    // Not on what an earlier run has left.
    let _ = machine.helm(&["uninstall", RELEASE, "-n", NAMESPACE, "--wait"]).await?;
    let guard = Guard::installed(machine, &[]).await?;
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
    machine.kubectl(&["rollout", "status", "deployment/web", "-n", "ordinary", "--timeout=60s"], "").await?.passed()?;
    machine
        .kubectl(&["label", "namespace", "ordinary", "istio.io/rev=prod", "istio-injection=enabled"], "")
        .await?
        .refused(&["[NS001 ", "has both istio-injection=enabled and istio.io/rev=prod"])?;
    machine.kubectl(&["delete", "namespace", "ordinary", "--timeout=60s"], "").await?.passed()?;
    Ok(())
}
