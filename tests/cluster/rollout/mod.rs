//! Gateway rollouts on the real API server, with the real controllers of Deployments, ReplicaSets, budgets and owners, and the real
//! binary with the roles that the chart gives it. What there is no kubelet, no scheduler and no traffic for is `node`'s to do.

mod forward;
mod node;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use http::Method;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::controller::{Controller, Env};
use crate::harness::Options;
use crate::harness::raw::{As, send};
use node::Node;

pub fn tests() -> Vec<Trial> {
    [forward::tests()].into_iter().flatten().collect()
}

const VALIDATORS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const GATEWAY: &str = include_str!("gateway.yaml");
const NAMESPACE: &str = "custom";
const GW: &str = "custom-gw";

/// A whole rollout: some forty looks and writes, on a loaded machine.
const WHOLE: Duration = Duration::from_secs(90);

/// A mesh with a gateway on 1-23, the pods of which run.
struct Stage {
    env: Env,
    node: Node,
}

impl Stage {
    async fn start() -> Result<Stage> {
        let controllers = [
            "deployment-controller",
            "replicaset-controller",
            "disruption-controller",
            "garbage-collector-controller",
        ];
        let env = Env::start_without("", Options::with_controllers(&controllers)).await?;
        Stage::over(env).await
    }

    async fn over(env: Env) -> Result<Stage> {
        // Nobody runs the istiods that would judge the Gateway.
        let validators = ["istiod-default-validator", "istio-validator-1-23-istio-system", "istio-validator-1-24-istio-system"];
        let policy = async |policy: &str| {
            for name in validators {
                let change = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": policy}]);
                env.patch(&format!("{VALIDATORS}/{name}"), change).await?;
            }
            anyhow::Ok(())
        };
        policy("Ignore").await?;
        env.apply(GATEWAY).await?;
        policy("Fail").await?;
        let node = Node::start(env.plane.client(), NAMESPACE);
        let stage = Stage { env, node };
        stage.ready(GW, 2).await?;
        Ok(stage)
    }

    /// A controller that leads.
    async fn controller(&self, more: &[&str]) -> Result<Controller> {
        let arguments = [&["--certificates", "external", "--rollout-pace", "200ms"], more].concat();
        let controller = self.env.controller("", &arguments).await?;
        controller.leads().await?;
        Ok(controller)
    }

    async fn ready(&self, deployment: &str, replicas: u64) -> Result<()> {
        let what = format!("{replicas} ready pods of {deployment}");
        let is = |d: &Value| d["status"]["readyReplicas"].as_u64().unwrap_or(0) == replicas;
        self.env.until(crate::controller::SOON, &deployment_path(deployment), &what, is).await.map(drop)
    }

    /// Creates a rollout `move` of the gateway, with what differs from [`spec`].
    async fn rollout(&self, change: Value) -> Result<Value> {
        let mut spec = spec();
        merge(&mut spec, &change);
        let object = json!({
            "apiVersion": "revguard.dev/v1alpha1", "kind": "GatewayRollout",
            "metadata": {"name": "move", "namespace": NAMESPACE}, "spec": spec,
        });
        self.env.create(&rollouts(), object).await
    }

    async fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = self.env.until(WHOLE, &rollout(), what, is).await;
        found.with_context(|| format!("the rollout did not come to {what}"))
    }

    async fn phase(&self, phase: &str) -> Result<Value> {
        self.until(&format!("phase {phase}"), |r| r["status"]["phase"] == phase).await
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.env.get(path).await
    }
}

/// With durations that a test can wait for.
fn spec() -> Value {
    json!({
        "target": {"deployment": {"name": GW}},
        "toRevision": "1-24",
        "strategy": {
            "promotion": "KeepRevisioned",
            "steps": [
                {"name": "one", "replicas": 1, "soak": "1s"},
                {"name": "half", "weight": 50, "soak": "1s"},
                {"name": "all", "weight": 100, "soak": "1s"},
            ],
            "drain": {"batch": 1, "interval": "1s", "lbDrainDelay": "1s", "maxWait": "20s"},
        },
        "probe": {"timeout": "60s"},
    })
}

fn merge(into: &mut Value, from: &Value) {
    match (into.as_object_mut(), from.as_object()) {
        (Some(map), Some(from)) => {
            for (key, value) in from {
                merge(map.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        _ => *into = from.clone(),
    }
}

fn rollouts() -> String {
    format!("/apis/revguard.dev/v1alpha1/namespaces/{NAMESPACE}/gatewayrollouts")
}

fn rollout() -> String {
    format!("{}/move", rollouts())
}

fn deployment_path(name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}")
}

fn core(plural: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{plural}/{name}")
}

fn hpa_path() -> String {
    format!("/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers/{GW}")
}

/// What somebody who watches the gateway sees of it, a few dozen times a second.
#[derive(Clone, Debug, Default)]
struct Watched {
    /// Each new pair of phase and state, in order.
    story: Vec<(String, String)>,
    /// The fewest ready pods behind the Service.
    fewest: Option<usize>,
    /// The most autoscalers and budgets.
    hpas: usize,
    pdbs: usize,
}

struct Watch {
    seen: Arc<Mutex<Watched>>,
    task: JoinHandle<()>,
}

impl Watch {
    fn start(stage: &Stage) -> Watch {
        let (client, seen) = (stage.env.plane.client(), Arc::<Mutex<Watched>>::default());
        let to = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let _ = watch(&client, &to).await;
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        });
        Watch { seen, task }
    }

    fn end(self) -> Watched {
        self.task.abort();
        self.seen.lock().unwrap().clone()
    }
}

async fn watch(client: &kube::Client, to: &Mutex<Watched>) -> Result<()> {
    let get = async |path: String| send(client, Method::GET, &path, None, &As::default()).await?.expect(&path);
    let object = get(rollout()).await.unwrap_or_default();
    let pods = get(format!("/api/v1/namespaces/{NAMESPACE}/pods")).await?;
    let hpas = get(format!("/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers")).await?;
    let pdbs = get(format!("/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets")).await?;
    let count = |list: &Value| list["items"].as_array().map_or(0, Vec::len);
    let serving = pods["items"].as_array().into_iter().flatten().filter(|pod| {
        let labels = &pod["metadata"]["labels"];
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        labels["app"] == GW
            && pod["metadata"]["deletionTimestamp"].is_null()
            && { conditions }.any(|c| c["type"] == "Ready" && c["status"] == "True")
    });
    let serving = serving.count();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut seen = to.lock().unwrap();
    let now = (text(&object["status"]["phase"]), text(&object["status"]["state"]));
    if seen.story.last() != Some(&now) && !now.0.is_empty() {
        seen.story.push(now);
    }
    seen.fewest = Some(seen.fewest.map_or(serving, |fewest| fewest.min(serving)));
    seen.hpas = seen.hpas.max(count(&hpas));
    seen.pdbs = seen.pdbs.max(count(&pdbs));
    Ok(())
}

impl Watched {
    /// The phases in their order, each once in a row.
    fn phases(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.story.iter().map(|(phase, _)| phase.as_str()).collect();
        all.dedup();
        all
    }
}

/// Labels of an object.
fn labels(object: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(object["metadata"]["labels"].clone()).unwrap_or_default()
}
