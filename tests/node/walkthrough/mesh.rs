//! The cluster before the story: a mesh as Helm and istioctl leave it, with old mistakes in it.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::terminal::Terminal;
use crate::harness::guard::{NAMESPACE, RELEASE};
use crate::harness::machine::Machine;
use crate::harness::programs::{built, command, repository, said, target};
use crate::rollout::stage::{self, CUSTOM, OLD};

/// Namespaces with a Deployment `web` in each.
const WORKLOADS: [&str; 3] = ["shop", "payments", "legacy"];

/// Everything, whatever was there before.
pub async fn set(machine: &'static Machine, terminal: &Terminal) -> Result<()> {
    image(machine).await?;
    clear(machine).await?;
    stage::set(machine).await?;
    // The new revision comes in the story.
    machine.helm(&["uninstall", "istiod-1-24", "-n", "istio-system", "--wait"]).await?.passed()?;
    machine.kubectl(&["apply", "-f", "-"], include_str!("mesh.yaml")).await?.passed()?;
    let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    machine.kubectl(&established, "").await?.passed()?;
    terminal.quietly(&format!("istioctl tag set prod --revision {OLD}")).await?.passed()?;
    machine.kubectl(&["apply", "-f", "-"], include_str!("mistakes.yaml")).await?.passed()?;
    for namespace in WORKLOADS {
        machine.kubectl(&["apply", "-n", namespace, "-f", "-"], include_str!("web.yaml")).await?.passed()?;
    }
    for namespace in WORKLOADS {
        let ready = ["rollout", "status", "deployment/web", "-n", namespace, "--timeout=120s"];
        machine.kubectl(&ready, "").await?.passed()?;
    }
    prometheus(machine).await?;
    // What its gateway was deployed with, and somebody has tidied away.
    machine.kubectl(&["delete", "configmap", "istio-1-23", "-n", CUSTOM.namespace], "").await?.passed()?;
    validator(machine).await
}

/// The validator of what names no revision, as an istiod without one has left it: it leads to a Service that is gone.
async fn validator(machine: &Machine) -> Result<()> {
    let name = format!("istio-validator-{OLD}-istio-system");
    let said = machine.kubectl(&["get", "validatingwebhookconfiguration", &name, "-o", "json"], "").await?.passed()?;
    let of_revision: Value = serde_json::from_str(&said)?;
    let mut webhook = of_revision["webhooks"][0].clone();
    webhook["name"] = json!("validation.istio.io");
    webhook["objectSelector"] = json!({});
    webhook["clientConfig"]["service"]["name"] = json!("istiod");
    let base = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "istiod-default-validator", "labels": {"app": "istiod", "istio": "istiod", "istio.io/rev": "default"}},
        "webhooks": [webhook],
    });
    machine.kubectl(&["apply", "-f", "-"], &base.to_string()).await?.passed().map(drop)
}

/// Prometheus, with the alerts that come with the chart.
async fn prometheus(machine: &Machine) -> Result<()> {
    let folder = built("prometheus", "prometheus")?;
    let folder = folder.parent().context("a folder")?;
    let archive = target().join("image/walkthrough/prometheus.tar");
    let mut pack = command(repository().join("image/archive.py"));
    pack.args(["--name", "revguard.local/prometheus:1", "--user", "65532:65532", "--out"]).arg(&archive);
    pack.arg(folder.join("prometheus")).arg(folder.join("promtool")).args(["--", "/prometheus"]);
    said(pack, "").await?.passed().context("image/archive.py")?;
    machine.load(&archive).await?;
    machine.kubectl(&["apply", "-f", "-"], include_str!("prometheus.yaml")).await?.passed()?;
    let alerts = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "alerts", "namespace": "monitoring"},
        "data": {"revguard.yaml": include_str!("../../../charts/revguard/files/alerts.yaml")},
    });
    machine.kubectl(&["apply", "-f", "-"], &alerts.to_string()).await?.passed()?;
    let ready = ["rollout", "status", "deployment/prometheus", "-n", "monitoring", "--timeout=120s"];
    machine.kubectl(&ready, "").await?.passed().map(drop)
}

/// The image as `make image` makes it, by the name that the chart's own values ask for.
async fn image(machine: &Machine) -> Result<()> {
    let folder = target().join("image/walkthrough");
    let mut make = command(repository().join("image/image.sh"));
    make.env_remove("REVGUARD_IMAGE").env("OUT", &folder);
    said(make, "").await?.passed().context("image/image.sh")?;
    machine.load(&folder.join("revguard.tar")).await
}

/// Leaves definitions behind, and nothing else.
pub async fn clear(machine: &'static Machine) -> Result<()> {
    let gone = ["uninstall", RELEASE, "-n", NAMESPACE, "--ignore-not-found", "--wait"];
    machine.helm(&gone).await?.passed()?;
    let configurations = "validatingwebhookconfiguration/istiod-default-validator \
                          mutatingwebhookconfiguration/istio-revision-tag-prod mutatingwebhookconfiguration/istio-revision-tag-default";
    for name in configurations.split_whitespace() {
        machine.kubectl(&["delete", name, "--ignore-not-found"], "").await?.passed()?;
    }
    let delete = ["delete", "namespace", "--ignore-not-found", "--timeout=90s", "gloo-mesh", "orders", "monitoring"];
    machine.kubectl(&[&delete[..], &WORKLOADS].concat(), "").await?.passed()?;
    stage::clear(machine).await
}
