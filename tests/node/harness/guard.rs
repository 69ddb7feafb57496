//! revguard in the cluster: its chart, installed by Helm as the README prints it, with the image that `make image` makes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, ObjectMeta};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::OnceCell;

use super::machine::Machine;
use super::metrics;
use super::programs::{Said, command, repository, said, target};
use super::raw::{As, JSON, send};
use super::wait::wait_until;

pub const NAMESPACE: &str = "revguard-system";
pub const RELEASE: &str = "revguard";
pub const WEBHOOK: &str = "revguard-webhook";
pub const CONTROLLER: &str = "revguard-controller";

/// Pods of a debug build start in seconds, also when both cores are busy with calls.
const ROLLOUT: Duration = Duration::from_secs(240);

/// kube-proxy writes the rules of Services at most once a second.
const RULES: Duration = Duration::from_millis(1500);

/// Tags of the images that the nodes have: the version of this tree, and the same binary under the name of a later one.
pub const LATER: &str = "later";

pub struct Guard {
    pub machine: &'static Machine,
    pub client: Client,
}

pub fn chart() -> PathBuf {
    std::env::var_os("REVGUARD_TEST_CHART").map_or_else(|| repository().join("charts/revguard"), PathBuf::from)
}

/// The image of this tree.
pub fn image() -> String {
    format!("revguard.local/revguard:{}", env!("CARGO_PKG_VERSION"))
}

/// Builds the image, if it is not built, and gives it to the nodes under both tags.
async fn images(machine: &Machine) -> Result<()> {
    static LOADED: OnceCell<()> = OnceCell::const_new();
    let load = || async {
        for tag in [env!("CARGO_PKG_VERSION"), LATER] {
            let folder = target().join("image").join(tag);
            let mut make = command(repository().join("image/image.sh"));
            make.env("REVGUARD_IMAGE", format!("revguard.local/revguard:{tag}")).env("OUT", &folder);
            said(make, "").await?.passed().context("image/image.sh")?;
            machine.load(&folder.join("revguard.tar")).await?;
        }
        Ok(())
    };
    LOADED.get_or_try_init(load).await.copied()
}

impl Guard {
    /// The guard with these values and the chart's own for all others, whatever was there before.
    pub async fn installed(machine: &'static Machine, values: &[&str]) -> Result<Guard> {
        images(machine).await?;
        let there = machine.helm(&["status", RELEASE, "-n", NAMESPACE]).await?;
        let verb: &[&str] =
            if there.code == Some(0) { &["upgrade", "--reset-values"] } else { &["install", "--create-namespace"] };
        helm(machine, verb, values).await?.passed().context("helm")?;
        let guard = Guard { machine, client: machine.client().await? };
        guard.settled().await?;
        Ok(guard)
    }

    /// The guard as if it had never been there before.
    pub async fn fresh(machine: &'static Machine, values: &[&str]) -> Result<Guard> {
        let gone = machine.helm(&["uninstall", RELEASE, "-n", NAMESPACE, "--ignore-not-found", "--wait"]).await?;
        gone.passed().context("helm uninstall")?;
        Guard::installed(machine, values).await
    }

    /// `helm upgrade` to these values and the chart's own for all others.
    pub async fn upgrade(&self, values: &[&str]) -> Result<()> {
        helm(self.machine, &["upgrade", "--reset-values"], values).await?.passed().map(drop)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Pods of the webhook that are not ending, oldest first.
    pub async fn replicas(&self) -> Result<Vec<Pod>> {
        let of = ListParams::default().labels("app.kubernetes.io/component=webhook");
        let mut pods: Vec<Pod> = self.pods().list(&of).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.sort_by_key(|pod| (pod.creation_timestamp(), pod.name_any()));
        Ok(pods)
    }

    /// Waits until both Deployments are as they are wanted, nobody of their former pods is left, and the Service knows.
    pub async fn settled(&self) -> Result<()> {
        for deployment in [WEBHOOK, CONTROLLER] {
            self.rolled_out(deployment).await?;
        }
        // Nobody can be asked whether the kernel has the rules.
        tokio::time::sleep(RULES).await;
        wait_until(ROLLOUT, "a refusal", || async { self.refuses().await.map_err(|error| format!("{error:#}")) }).await
    }

    /// The API server reaches us, believes our certificate, and hears what it must hear.
    pub async fn refuses(&self) -> Result<()> {
        let labels = json!({"istio-injection": "enabled", "istio.io/rev": "x"});
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "refused", "labels": labels}});
        let path = "/api/v1/namespaces?dryRun=All";
        let answer = send(&self.client, Method::POST, path, Some((JSON, &object)), &As::default()).await?;
        ensure!(answer.message().contains("denied the request: [NS001 "), "{} {}", answer.status, answer.message());
        Ok(())
    }

    /// As `kubectl scale` does; then waits until there are as many pods, and no others.
    pub async fn scale(&self, deployment: &str, replicas: u32) -> Result<()> {
        let (name, replicas) = (format!("deployment/{deployment}"), format!("--replicas={replicas}"));
        self.machine.kubectl(&["scale", &name, "-n", NAMESPACE, &replicas], "").await?.passed()?;
        self.rolled_out(deployment).await
    }

    async fn rolled_out(&self, deployment: &str) -> Result<()> {
        wait_until(ROLLOUT, &format!("the pods of {deployment}"), || async {
            self.as_wanted(deployment).await.map_err(|error| format!("{error:#}"))
        })
        .await
    }

    async fn as_wanted(&self, name: &str) -> Result<()> {
        let deployment = self.deployments().get(name).await?;
        let spec = deployment.spec.context("a specification")?;
        let (wanted, status) = (spec.replicas.context("replicas")?, deployment.status.context("a status")?);
        ensure!(status.observed_generation == deployment.metadata.generation, "the Deployment was not looked at yet");
        // What is 0 is left out.
        let counts = [status.updated_replicas, status.available_replicas].map(Option::unwrap_or_default);
        ensure!(counts == [wanted; 2], "{status:?}");
        let labels = spec.selector.match_labels.context("a selector")?;
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pods = self.pods().list(&ListParams::default().labels(&labels.join(","))).await?.items;
        ensure!(i32::try_from(pods.len()) == Ok(wanted), "{} pods", pods.len());
        Ok(())
    }

    /// Waits until every replica judges by these objects as they are now, or later. The kind is called as the API server calls it in paths.
    pub async fn seen(&self, kind: &str, objects: &[ObjectMeta]) -> Result<()> {
        let versions = objects.iter().filter_map(|object| object.resource_version.as_ref()?.parse::<u64>().ok());
        let version = versions.max().with_context(|| format!("no {kind}"))?;
        wait_until(ROLLOUT, &format!("{kind} of version {version} in every snapshot"), || async {
            let seen = self.metric_of_each("revguard_snapshot_resource_version", &[("kind", kind)]).await;
            let seen = seen.map_err(|error| format!("{error:#}"))?;
            // Versions of a test's etcd are far below what a float holds exactly.
            if seen.values().all(|at| *at >= version as f64) { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await
    }

    /// What each replica says of a metric.
    pub async fn metric_of_each(&self, name: &str, labels: &[(&str, &str)]) -> Result<BTreeMap<String, f64>> {
        let mut found = BTreeMap::new();
        for pod in self.replicas().await? {
            let pod = pod.name_any();
            let text = self.text(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics")).await?;
            found.insert(pod, metrics::sum(&text, name, labels)?);
        }
        Ok(found)
    }

    /// How often each replica has answered.
    pub async fn answers(&self) -> Result<BTreeMap<String, f64>> {
        self.metric_of_each("revguard_admission_requests_total", &[("endpoint", "validate")]).await
    }

    /// What the API server counts about all of our webhooks: calls that failed and were let through, and calls that failed
    /// and were held against the user.
    pub async fn failed_calls(&self) -> Result<(f64, f64)> {
        let text = self.text("/metrics").await?;
        let mut failed = (0.0, 0.0);
        for group in ["namespaces", "workloads", "gateways", "control-plane", "config", "own", "mutations"] {
            let name = format!("{group}.revguard.dev");
            failed.0 += metrics::sum(&text, "apiserver_admission_webhook_fail_open_count", &[("name", &name)])?;
            for kind in ["calling_webhook_error", "apiserver_internal_error"] {
                let labels = [("name", name.as_str()), ("error_type", kind)];
                failed.1 += metrics::sum(&text, "apiserver_admission_webhook_rejection_count", &labels)?;
            }
        }
        Ok(failed)
    }

    async fn text(&self, path: &str) -> Result<String> {
        let answer = send(&self.client, Method::GET, path, None, &As::default()).await?;
        ensure!(answer.ok(), "{path}: {} {}", answer.status, answer.message());
        // What is not JSON comes back as a message.
        Ok(answer.message().to_owned())
    }
}

async fn helm(machine: &Machine, verb: &[&str], values: &[&str]) -> Result<Said> {
    helm_of(&chart(), machine, verb, values).await
}

/// The same with another chart than this tree's.
pub async fn helm_of(chart: &Path, machine: &Machine, verb: &[&str], values: &[&str]) -> Result<Said> {
    let chart = chart.to_str().context("a path in UTF-8")?;
    let image = format!("image.registry=revguard.local,image.tag={}", env!("CARGO_PKG_VERSION"));
    let mut arguments = vec![verb[0], RELEASE, chart, "-n", NAMESPACE, "--wait", "--timeout", "4m", "--set", &image];
    arguments.extend(&verb[1..]);
    arguments.extend(values);
    machine.helm(&arguments).await
}
