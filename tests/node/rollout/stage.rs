//! The meshes that rollouts are tried on: two revisions, a backend, and two gateways on the first of them.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::harness::machine::Machine;
use crate::harness::programs::{command, repository, said, target};
use crate::harness::wait::wait_until;

const SYSTEM: &str = "istio-system";
pub const BACKEND: &str = "backend";

/// The revisions, and the versions that their images are called by.
const REVISIONS: [(&str, &str); 2] = [("1-23", "1.23.0"), ("1-24", "1.24.0")];

pub const OLD: &str = "1-23";
pub const NEW: &str = "1-24";

/// A pod with a debug build and two busy cores around it is still ready within this.
pub const SOON: Duration = Duration::from_secs(120);

/// kube-proxy writes the rules of Services at most once a second.
const RULES: Duration = Duration::from_millis(1500);

/// One of the gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    pub namespace: &'static str,
    /// Of its Deployment and its Service, and the value of its label `istio`.
    pub name: &'static str,
    /// Ports that its listeners have.
    port: u16,
    pub replicas: usize,
}

/// `ConfigMapMount`: seed 004's.
pub const CUSTOM: Gateway = Gateway { namespace: "default", name: "custom-gw", port: 8080, replicas: 1 };

/// `Injected`: the Helm chart's.
pub const HELM: Gateway = Gateway { namespace: "gw", name: "igw", port: 80, replicas: 2 };

pub const BOTH: [Gateway; 2] = [CUSTOM, HELM];

/// What a revision's istiod tells a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listeners {
    Good,
    /// Envoy does not accept them.
    Rejected,
    /// It tells nothing at all.
    Silent,
}

impl Listeners {
    pub fn as_str(self) -> &'static str {
        match self {
            Listeners::Good => "good",
            Listeners::Rejected => "rejected",
            Listeners::Silent => "silent",
        }
    }
}

/// Gives the nodes the images, once.
async fn images(machine: &Machine) -> Result<()> {
    static LOADED: OnceCell<()> = OnceCell::const_new();
    let load = || async {
        let folder = target().join("image/rollout");
        let mut make = command(repository().join("tests/node/rollout/images.sh"));
        make.arg(&folder);
        said(make, "").await?.passed().context("images.sh")?;
        for archive in ["proxyv2.tar", "pilot.tar", "lab.tar"] {
            machine.load(&folder.join(archive)).await?;
        }
        Ok(())
    };
    LOADED.get_or_try_init(load).await.copied()
}

/// Everything, with both gateways on [`OLD`], whatever was there before.
pub async fn set(machine: &Machine) -> Result<()> {
    images(machine).await?;
    clear(machine).await?;
    machine.kubectl(&["apply", "-f", "-"], include_str!("stage.yaml")).await?.passed()?;
    for definition in ["gateways", "virtualservices"] {
        let name = format!("crd/{definition}.networking.istio.io");
        let wait = ["wait", "--for=condition=Established", &name, "--timeout=30s"];
        machine.kubectl(&wait, "").await?.passed()?;
    }
    machine.kubectl(&["apply", "-f", "-"], include_str!("routes.yaml")).await?.passed()?;
    for (revision, _) in REVISIONS {
        istiod(machine, revision, &[]).await?;
    }
    for gateway in BOTH {
        root(machine, gateway.namespace).await?;
        deploy(machine, gateway).await?;
    }
    for gateway in BOTH {
        settled(machine, gateway).await?;
    }
    machine
        .kubectl(&["wait", "-n", BACKEND, "deployment", "--all", "--for=condition=Available"], "")
        .await?
        .passed()?;
    let api = ["wait", "apiservice", "v1beta1.metrics.k8s.io", "--for=condition=Available", "--timeout=60s"];
    machine.kubectl(&api, "").await?.passed().map(drop)
}

/// What a control plane tells its gateways from now on; nothing in the list: all is good.
pub async fn istiod(machine: &Machine, revision: &str, tells: &[(Gateway, Listeners)]) -> Result<()> {
    let (_, version) = REVISIONS.iter().find(|(name, _)| *name == revision).context("a revision")?;
    let gateways = BOTH.map(|gateway| {
        let told = tells.iter().find(|(of, _)| *of == gateway).map_or(Listeners::Good, |(_, told)| *told);
        (gateway.name.to_owned(), json!({"ports": [gateway.port], "listeners": told.as_str()}))
    });
    let gateways = format!("gateways={}", Value::Object(gateways.into_iter().collect()));
    let chart = repository().join("tests/node/istiod");
    let chart = chart.to_str().context("a path in UTF-8")?;
    let name = format!("istiod-{revision}");
    let values =
        format!("revision={revision},image=revguard.local/pilot:{version},proxyImage=revguard.local/proxyv2:{version}");
    let arguments = ["upgrade", "--install", "--create-namespace", "--wait", &name, chart, "-n", SYSTEM];
    let arguments = [&arguments[..], &["--set", &values, "--set-json", &gateways]].concat();
    machine.helm(&arguments).await?.passed().with_context(|| name).map(drop)
}

/// The root of trust, which an istiod puts into every namespace. Nobody here signs anything.
async fn root(machine: &Machine, namespace: &str) -> Result<()> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-ca-root-cert", "namespace": namespace},
        "data": {"root-cert.pem": "none"},
    });
    machine.kubectl(&["apply", "-f", "-"], &map.to_string()).await?.passed().map(drop)
}

/// The gateway as its owner deploys it, on [`OLD`].
async fn deploy(machine: &Machine, gateway: Gateway) -> Result<()> {
    if gateway == HELM {
        return helm_upgrade(machine, OLD, &["--install"]).await;
    }
    copy_config(machine, OLD).await?;
    machine.kubectl(&["apply", "-f", "-"], include_str!("custom-gw.yaml")).await?.passed()?;
    // The seed's load balancer has one; nobody gives it here.
    let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "34.69.221.142", "ipMode": "Proxy"}]}}});
    let patch = ["patch", "service", CUSTOM.name, "-n", CUSTOM.namespace, "--subresource=status", "--type=merge", "-p"];
    machine.kubectl(&[&patch[..], &[&address.to_string()]].concat(), "").await?.passed().map(drop)
}

/// As whoever owns the Helm release does.
pub async fn helm_upgrade(machine: &Machine, revision: &str, more: &[&str]) -> Result<()> {
    let chart = repository().join("tests/node/gateway");
    let chart = chart.to_str().context("a path in UTF-8")?;
    let revision = format!("revision={revision}");
    let arguments = ["upgrade", HELM.name, chart, "-n", HELM.namespace, "--set-string", &revision];
    machine.helm(&[&arguments[..], more].concat()).await?.passed().map(drop)
}

/// As seed 004 does by hand: the mesh configuration of a revision beside a gateway of another namespace.
pub async fn copy_config(machine: &Machine, revision: &str) -> Result<()> {
    let name = format!("istio-{revision}");
    let original = get(machine, SYSTEM, "configmap", &name).await?;
    let copy = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": CUSTOM.namespace},
        "data": original["data"],
    });
    machine.kubectl(&["apply", "-f", "-"], &copy.to_string()).await?.passed().map(drop)
}

/// Waits until the gateway has the pods that it should have, and the Service knows them.
pub async fn settled(machine: &Machine, gateway: Gateway) -> Result<()> {
    wait_until(SOON, &format!("pods of {}", gateway.name), || async {
        let deployment = get(machine, gateway.namespace, "deployment", gateway.name).await;
        let deployment = deployment.map_err(|error| format!("{error:#}"))?;
        let status = &deployment["status"];
        let all = |key: &str| status[key].as_u64() == Some(gateway.replicas as u64);
        let seen = status["observedGeneration"] == deployment["metadata"]["generation"];
        if seen && all("replicas") && all("updatedReplicas") && all("readyReplicas") {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await?;
    // Nobody can be asked whether the kernel has the rules.
    tokio::time::sleep(RULES).await;
    Ok(())
}

pub async fn get(machine: &Machine, namespace: &str, kind: &str, name: &str) -> Result<Value> {
    let said = machine.kubectl(&["get", kind, name, "-n", namespace, "-o", "json"], "").await?;
    Ok(serde_json::from_str(&said.passed()?)?)
}

/// The pods that a label selector selects and that are not ending.
pub async fn pods(machine: &Machine, namespace: &str, selector: &str) -> Result<Vec<Value>> {
    let said = machine.kubectl(&["get", "pods", "-n", namespace, "-l", selector, "-o", "json"], "").await?.passed()?;
    let list: Value = serde_json::from_str(&said)?;
    let pods = list["items"].as_array().context("items")?.iter();
    Ok(pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).cloned().collect())
}

/// Leaves nothing behind but definitions.
pub async fn clear(machine: &Machine) -> Result<()> {
    // Without its server, an API makes every deletion of a namespace wait.
    let objects = "apiservice/v1beta1.metrics.k8s.io clusterrole/revguard-test-metrics \
                   clusterrolebinding/revguard-test-metrics";
    for object in objects.split_whitespace() {
        machine.kubectl(&["delete", object, "--ignore-not-found"], "").await?.passed()?;
    }
    for (release, namespace) in [(HELM.name, HELM.namespace), ("istiod-1-24", SYSTEM), ("istiod-1-23", SYSTEM)] {
        let uninstall = ["uninstall", release, "-n", namespace, "--ignore-not-found", "--wait"];
        machine.helm(&uninstall).await?.passed()?;
    }
    let delete = ["delete", "--ignore-not-found", "--timeout=90s"];
    let custom =
        ["deployment/custom-gw", "service/custom-gw", "serviceaccount/custom-gw-service-account", "-n", "default"];
    machine.kubectl(&[&delete[..], &custom].concat(), "").await?.passed()?;
    let maps = ["configmap", "istio-1-23", "istio-1-24", "istio-ca-root-cert", "-n", "default"];
    machine.kubectl(&[&delete[..], &maps].concat(), "").await?.passed()?;
    machine.kubectl(&[&delete[..], &["namespace", "gw", BACKEND]].concat(), "").await?.passed().map(drop)
}
