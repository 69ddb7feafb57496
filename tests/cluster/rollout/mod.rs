//! Gateway rollouts on the real API server, with the real controllers of Deployments, ReplicaSets, budgets and owners, and the real
//! binary with the roles that the chart gives it. What there is no kubelet, no scheduler and no traffic for is `node`'s to do.
//!
//! Most tests share one control plane and one `revguard controller`, each with a gateway in a namespace of its own: rollouts go on
//! beside each other, as they do in a cluster. A test that ends something has its own.

mod approvals;
mod back;
mod crash;
mod crd;
mod forward;
mod gate;
mod held;
mod injected;
mod node;
mod refused;
mod rights;
mod syncz;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::controller::{Controller, Env, SOON};
use crate::harness::Options;
use crate::harness::binary::PROGRAM;
use crate::harness::wait::wait_until;
use crate::trial::trial;
use node::Node;

pub fn tests() -> Vec<Trial> {
    let admission = vec![
        trial!(ApiServer, crd::the_definition_refuses_what_cannot_be_carried_out),
        trial!(Helm, approvals::only_who_may_approves_and_nobody_in_anothers_name),
    ];
    let controller = [
        forward::tests(),
        held::tests(),
        gate::tests(),
        back::tests(),
        refused::tests(),
        crash::tests(),
        rights::tests(),
        injected::tests(),
        syncz::tests(),
    ];
    controller.into_iter().flatten().chain(admission).collect()
}

const VALIDATORS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
pub(crate) const GATEWAY: &str = include_str!("gateway.yaml");
const GW: &str = "custom-gw";
const CANARY: &str = "custom-gw-1-24";
const OLD: &str = "custom-gw-1-23";

/// A whole rollout is some forty looks and writes, and the machine may be busy with others.
const WHOLE: Duration = Duration::from_secs(240);

/// A mesh, and what the chart installs.
struct World {
    /// The one that most tests share has a controller. It ends before its API server does.
    controller: Option<Controller>,
    env: Env,
}

static SHARED: Mutex<Option<Result<Arc<World>, String>>> = Mutex::const_new(None);

/// Ends the shared world. No test runs any more.
pub fn end_shared() {
    drop(SHARED.blocking_lock().take());
}

impl World {
    async fn shared() -> Result<Arc<World>> {
        let mut shared = SHARED.lock().await;
        if shared.is_none() {
            let started = async {
                let mut world = World::start().await?;
                world.controller = Some(world.controller(&[]).await?);
                anyhow::Ok(Arc::new(world))
            };
            *shared = Some(started.await.map_err(|error| format!("{error:#}")));
        }
        match shared.as_ref() {
            Some(Ok(world)) => Ok(Arc::clone(world)),
            Some(Err(error)) => Err(anyhow!("the shared world did not start: {error}")),
            None => unreachable!("it was set above"),
        }
    }

    /// One of its own, with nobody who acts.
    async fn start() -> Result<World> {
        let controllers =
            ["deployment-controller", "replicaset-controller", "disruption-controller", "garbage-collector-controller"];
        let env = Env::start_without("", Options::with_controllers(&controllers)).await?;
        // Nobody runs the istiods that would judge Gateways.
        for name in
            ["istiod-default-validator", "istio-validator-1-23-istio-system", "istio-validator-1-24-istio-system"]
        {
            let change = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
            env.patch(&format!("{VALIDATORS}/{name}"), change).await?;
        }
        Ok(World { env, controller: None })
    }

    /// A controller that leads, five times as fast as it is otherwise.
    async fn controller(&self, more: &[&str]) -> Result<Controller> {
        let controller = self.candidate(more).await?;
        controller.leads().await?;
        Ok(controller)
    }

    /// One that may have to wait.
    async fn candidate(&self, more: &[&str]) -> Result<Controller> {
        let arguments = [&["--certificates", "external", "--rollout-pace", "200ms"], more].concat();
        self.env.controller("", &arguments).await
    }
}

/// A gateway on 1-23 with two pods, in a namespace of its own.
struct Stage {
    world: Arc<World>,
    node: Node,
    /// The namespace, and the name of its rollout.
    ns: String,
}

impl Stage {
    /// In the shared world.
    async fn here(ns: &str) -> Result<Stage> {
        Stage::of(World::shared().await?, ns).await
    }

    async fn of(world: Arc<World>, ns: &str) -> Result<Stage> {
        Stage::with(world, ns, GATEWAY).await
    }

    /// With another gateway.
    async fn with(world: Arc<World>, ns: &str, gateway: &str) -> Result<Stage> {
        world.env.apply(&gateway.replace("HERE", ns)).await?;
        let node = Node::start(world.env.plane.client(), ns);
        let stage = Stage { world, node, ns: ns.to_owned() };
        stage.has_ready(GW, 2).await?;
        Ok(stage)
    }

    fn env(&self) -> &Env {
        &self.world.env
    }

    fn controller(&self) -> Result<&Controller> {
        self.world.controller.as_ref().context("a controller")
    }

    fn path(&self, group: &str, plural: &str, name: &str) -> String {
        format!("{group}/namespaces/{}/{plural}/{name}", self.ns)
    }

    fn rollout(&self) -> String {
        self.rollout_named(&self.ns)
    }

    fn rollout_named(&self, name: &str) -> String {
        self.path("/apis/revguard.dev/v1alpha1", "gatewayrollouts", name)
    }

    fn deployment(&self, name: &str) -> String {
        self.path("/apis/apps/v1", "deployments", name)
    }

    fn core(&self, plural: &str, name: &str) -> String {
        self.path("/api/v1", plural, name)
    }

    fn hpa(&self) -> String {
        self.path("/apis/autoscaling/v2", "horizontalpodautoscalers", GW)
    }

    async fn has_ready(&self, deployment: &str, replicas: u64) -> Result<()> {
        let what = format!("{replicas} ready pods of {deployment}");
        let is = |d: &Value| {
            d["status"]["readyReplicas"].as_u64().unwrap_or(0) == replicas
                && d["status"]["replicas"].as_u64().unwrap_or(0) == replicas
        };
        self.env().until(SOON, &self.deployment(deployment), &what, is).await.map(drop)
    }

    /// Creates the rollout of the gateway, with what differs from [`spec`].
    async fn begin(&self, change: Value) -> Result<Value> {
        self.begin_as(&self.ns, change).await
    }

    async fn begin_as(&self, name: &str, change: Value) -> Result<Value> {
        let mut spec = spec();
        merge(&mut spec, &change);
        let object = json!({
            "apiVersion": "revguard.dev/v1alpha1", "kind": "GatewayRollout",
            "metadata": {"name": name, "namespace": self.ns}, "spec": spec,
        });
        self.env().create(self.rollout_named("").trim_end_matches('/'), object).await
    }

    /// Waits until the rollout is as `is` says; the error is its status.
    async fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = wait_until(WHOLE, what, || async {
            let answer =
                self.env().ask(http::Method::GET, &self.rollout(), None).await.map_err(|e| format!("{e:#}"))?;
            if answer.ok() && is(&answer.body) { Ok(answer.body) } else { Err(brief(&answer.body)) }
        });
        found.await.with_context(|| format!("{}: the rollout did not come to {what}", self.ns))
    }

    async fn phase(&self, phase: &str) -> Result<Value> {
        self.until(&format!("phase {phase}"), |r| r["status"]["phase"] == phase).await
    }

    /// Waits for a pause of this reason.
    async fn paused(&self, reason: &str) -> Result<Value> {
        self.until(&format!("a pause: {reason}"), |r| r["status"]["pause"]["reason"] == reason).await
    }

    async fn set(&self, spec: Value) -> Result<Value> {
        self.env().merge(&self.rollout(), json!({"spec": spec})).await
    }

    /// What a person types behind `revguard rollout`, which has to be taken.
    async fn types(&self, line: &str) -> Result<String> {
        let (taken, said) = typed(&self.env().plane.kubeconfig(), &self.ns, line).await?;
        anyhow::ensure!(taken, "revguard rollout {line}: {said}");
        Ok(said)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.env().get(path).await
    }

    async fn is_gone(&self, path: &str) -> Result<bool> {
        Ok(self.env().ask(http::Method::GET, path, None).await?.status == 404)
    }

    /// Events of the rollout, without their notes.
    async fn reasons(&self) -> Result<Vec<String>> {
        let events = self.env().events(&self.ns).await?;
        Ok(events.iter().map(|e| e.split(':').next().unwrap_or_default().to_owned()).collect())
    }

    /// Waits for an Event of the rollout that begins and goes on like this.
    async fn until_told(&self, begins: &str, with: &str) -> Result<()> {
        wait_until(WHOLE, "an Event", || async {
            let said = self.env().events(&self.ns).await.map_err(|error| format!("{error:#}"))?;
            if said.iter().any(|e| e.starts_with(begins) && e.contains(with)) {
                Ok(())
            } else {
                Err(format!("{said:?}"))
            }
        })
        .await
    }

    /// Says that somebody approves: what the webhook lets through and signs.
    async fn approve(&self, step: &str) -> Result<()> {
        let uid = self.get(&self.rollout()).await?["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let annotations = json!({"revguard.dev/approve": format!("{uid}/{step}"), "revguard.dev/approved-by": "jane"});
        self.env().merge(&self.rollout(), json!({"metadata": {"annotations": annotations}})).await.map(drop)
    }

    /// Waits until the gateway is in nobody's hands: the lock is given back after the end, so that nobody takes it in between.
    async fn is_given_back(&self) -> Result<Value> {
        let free = |d: &Value| d["metadata"]["annotations"]["revguard.dev/active-rollout"].is_null();
        self.env().until(SOON, &self.deployment(GW), "a lock that is given back", free).await
    }

    /// The gateway is as it was before its rollout.
    async fn is_as_before(&self) -> Result<()> {
        self.has_ready(GW, 2).await?;
        let source = self.is_given_back().await?;
        let template = &source["spec"]["template"];
        anyhow::ensure!(template["metadata"]["labels"]["istio.io/rev"] == "1-23", "{template}");
        for key in ["revguard.dev/active-rollout", "revguard.dev/baseline"] {
            anyhow::ensure!(source["metadata"]["annotations"][key].is_null(), "{source}");
        }
        let hpa = self.get(&self.hpa()).await?;
        anyhow::ensure!(hpa["spec"]["scaleTargetRef"]["name"] == GW && hpa["spec"]["minReplicas"] == 1, "{hpa}");
        // Whoever applies without force next, as Helm does, is not refused a change.
        for object in [&source, &hpa] {
            let writers = object["metadata"]["managedFields"].as_array().into_iter().flatten();
            let ours = |w: &&Value| w["manager"] == "revguard" && !w["fieldsV1"]["f:spec"].is_null();
            let left: Vec<&Value> = writers.filter(ours).collect();
            anyhow::ensure!(left.is_empty(), "fields are still recorded as ours: {left:?}");
        }
        for path in [self.deployment(CANARY), self.deployment(OLD), self.core("configmaps", "istio-1-24")] {
            anyhow::ensure!(self.is_gone(&path).await?, "{path} was left behind");
        }
        // Those set apart finish what they have, and nobody waits for them.
        wait_until(WHOLE, "the end of the last pod", || async {
            let pods = self.get(&self.core("pods", "")).await.map_err(|e| e.to_string())?;
            let ours = |pod: &&Value| !pod["metadata"]["labels"]["revguard.dev/rollout"].is_null();
            let left: Vec<&Value> = pods["items"].as_array().into_iter().flatten().filter(ours).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("pods that nobody ends: {left:?}")) }
        })
        .await
    }
}

/// What a person types behind `revguard rollout`: whether it was taken, and what came back.
async fn typed(kubeconfig: &Path, namespace: &str, line: &str) -> Result<(bool, String)> {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.arg("rollout").args(line.split_whitespace()).args(["-n", namespace, "--kubeconfig"]).arg(kubeconfig);
    let output = command.output().await?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// What a person needs to see of a status.
fn brief(object: &Value) -> String {
    let status = &object["status"];
    let conditions: Vec<String> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| format!("{}={} {} {}", c["type"], c["status"], c["reason"], c["message"]))
        .collect();
    let keys = ["phase", "state", "step", "pods", "pause", "rollback", "batch", "apart", "preflight"];
    let shown: Vec<String> = keys.iter().map(|key| format!("{key}: {}", status[*key])).collect();
    format!("{}\n{}", shown.join("\n"), conditions.join("\n"))
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
