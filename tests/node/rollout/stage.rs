//! The meshes that rollouts are tried on: two revisions, a backend, and two gateways on the first of them.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
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

/// Runs a test on the stage, and clears it whatever came of that: who comes next depends on nothing that was left.
pub async fn on(machine: &Machine, test: impl Future<Output = Result<()>>) -> Result<()> {
    let came = match set(machine).await {
        Ok(()) => test.await,
        Err(error) => Err(error.context("the stage")),
    };
    let cleared = clear(machine).await.context("clear the stage");
    match (came, cleared) {
        (Err(error), Err(left)) => Err(error.context(format!("and then: {left:#}"))),
        (came, cleared) => came.and(cleared),
    }
}

/// Leaves nothing behind but definitions, in the order in which nobody has to be asked twice: first what makes a gateway one that is used,
/// then gateways, then control planes. A guard that is installed judges all of it, by what it has heard so far; so each is tried again.
pub async fn clear(machine: &Machine) -> Result<()> {
    // Without its server, an API makes every deletion of a namespace wait.
    let objects = "apiservice/v1beta1.metrics.k8s.io clusterrole/revguard-test-metrics \
                   clusterrolebinding/revguard-test-metrics";
    for object in objects.split_whitespace() {
        delete(machine, &[object]).await?;
    }
    for kind in ["virtualservices", "gateways"] {
        let kind = format!("{kind}.networking.istio.io");
        if is_defined(machine, &kind).await? {
            delete(machine, &[&kind, "--all", "-A"]).await?;
        }
    }
    rollouts(machine).await?;
    uninstall(machine, HELM.name, HELM.namespace).await?;
    delete(machine, &["deployments,pods,configmaps", "-l", "revguard.dev/rollout", "-n", CUSTOM.namespace]).await?;
    let custom = "deployment/custom-gw service/custom-gw serviceaccount/custom-gw-service-account configmap/istio-1-23 \
                  configmap/istio-1-24 configmap/istio-ca-root-cert";
    let custom: Vec<&str> = custom.split_whitespace().chain(["-n", CUSTOM.namespace]).collect();
    delete(machine, &custom).await?;
    // Of pods set apart nobody is the owner.
    delete(machine, &["pods", "-l", "istio=custom-gw", "-n", CUSTOM.namespace]).await?;
    for (revision, _) in REVISIONS {
        uninstall(machine, &format!("istiod-{revision}"), SYSTEM).await?;
    }
    delete(machine, &["namespace", HELM.namespace, BACKEND]).await
}

/// Rollouts that a test has left half-way: nobody goes on with them.
async fn rollouts(machine: &Machine) -> Result<()> {
    let kind = "gatewayrollouts.revguard.dev";
    if !is_defined(machine, kind).await? {
        return Ok(());
    }
    let path = "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}";
    let left = machine.kubectl(&["get", kind, "-A", "-o", path], "").await?.passed()?;
    for (namespace, name) in left.lines().filter_map(|line| line.split_once(' ')) {
        println!("left behind: GatewayRollout {name} in {namespace}");
        wait_until(SOON, &format!("the end of {name}"), || async {
            let end = async || -> Result<()> {
                let of = [name, "-n", namespace];
                machine
                    .kubectl(&[&["delete", kind, "--ignore-not-found", "--wait=false"], &of[..]].concat(), "")
                    .await?
                    .passed()?;
                let free = r#"{"metadata":{"finalizers":null}}"#;
                let freed =
                    machine.kubectl(&[&["patch", kind, "--type=merge", "-p", free], &of[..]].concat(), "").await?;
                ensure!(freed.code == Some(0) || freed.err.contains("NotFound"), "{}", freed.err);
                Ok(())
            };
            again(end().await).await
        })
        .await?;
    }
    Ok(())
}

async fn is_defined(machine: &Machine, kind: &str) -> Result<bool> {
    let said = machine.kubectl(&["get", "crd", kind, "--ignore-not-found", "-o", "name"], "").await?;
    Ok(!said.passed()?.is_empty())
}

/// Deletes what there is of these objects, and waits until they are gone.
async fn delete(machine: &Machine, what: &[&str]) -> Result<()> {
    wait_until(SOON, &format!("the end of {}", what.join(" ")), || async {
        let arguments = [&["delete", "--ignore-not-found", "--timeout=30s"], what].concat();
        let said = async { machine.kubectl(&arguments, "").await?.passed() };
        again(said.await.map(drop)).await
    })
    .await
}

/// Uninstalls a release. Helm says what was refused only to those who ask for everything.
async fn uninstall(machine: &Machine, release: &str, namespace: &str) -> Result<()> {
    wait_until(SOON, &format!("the uninstallation of {release}"), || async {
        let arguments =
            ["uninstall", release, "-n", namespace, "--ignore-not-found", "--wait", "--timeout", "60s", "--debug"];
        let said = async { machine.helm(&arguments).await?.passed() };
        again(said.await.map(drop)).await
    })
    .await
}

/// What was not done is tried again in a moment.
async fn again(done: Result<()>) -> Result<(), String> {
    let Err(error) = done else { return Ok(()) };
    tokio::time::sleep(Duration::from_millis(500)).await;
    Err(format!("{error:#}"))
}
