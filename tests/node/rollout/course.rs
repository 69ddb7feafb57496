//! One GatewayRollout, as a person makes it and looks at it: with kubectl, and by its status alone.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::stage::{self, CUSTOM, Gateway, NEW, SOON};
use super::traffic::LONG;
use crate::harness::machine::Machine;
use crate::harness::wait::wait_until;

/// The longest that a whole rollout may take here, with a controller that is killed again and again.
pub const WHOLE: Duration = Duration::from_secs(600);

/// From one look at the status to the next.
const LOOK: Duration = Duration::from_millis(200);

pub struct Course {
    machine: &'static Machine,
    pub gateway: Gateway,
    pub name: String,
    began: Instant,
    /// Phases, stages and pauses in the order in which they were seen.
    seen: Mutex<Vec<String>>,
}

/// What a rollout of a gateway asks for here: the defaults of a person, with all durations as short as the long requests allow.
pub fn spec(gateway: Gateway, to: &str) -> Value {
    json!({
        "target": {"deployment": {"name": gateway.name}},
        "toRevision": to,
        "strategy": {
            // One of each: the original takes over again, and the new name stays.
            "promotion": if gateway == CUSTOM { "PatchOriginal" } else { "KeepRevisioned" },
            "steps": [
                {"name": "first-pod", "replicas": 1, "soak": "2s"},
                {"name": "half", "weight": 50, "soak": "2s"},
                {"name": "all", "weight": 100, "soak": "2s"},
            ],
            "drain": {
                "batch": "50%", "interval": "2s", "lbDrainDelay": "2s",
                // Connections that are kept alive are never gone by themselves; a long request is.
                "maxWait": format!("{}s", LONG.as_secs() + 5),
            },
        },
        "probe": {"timeout": "60s"},
        "progressDeadline": "5m",
    })
}

impl Course {
    pub async fn begin(machine: &'static Machine, gateway: Gateway, name: &str, spec: &Value) -> Result<Course> {
        let object = json!({
            "apiVersion": "revguard.dev/v1alpha1", "kind": "GatewayRollout",
            "metadata": {"name": name, "namespace": gateway.namespace}, "spec": spec,
        });
        machine.kubectl(&["create", "-f", "-"], &object.to_string()).await?.passed()?;
        Ok(Course { machine, gateway, name: name.to_owned(), began: Instant::now(), seen: Mutex::default() })
    }

    /// To the new revision, named as people do.
    pub async fn to_new(machine: &'static Machine, gateway: Gateway) -> Result<Course> {
        Course::begin(machine, gateway, &format!("{}-{NEW}", gateway.name), &spec(gateway, NEW)).await
    }

    pub async fn object(&self) -> Result<Value> {
        stage::get(self.machine, self.gateway.namespace, "gatewayrollout", &self.name).await
    }

    /// Waits until its object is as `is` wants it; an `Err` of that says why not yet.
    pub async fn until<T>(&self, what: &str, limit: Duration, is: impl Fn(&Value) -> Result<T, String>) -> Result<T> {
        let what = format!("{}: {what}", self.name);
        let found = wait_until(limit, &what, || async {
            let object = match self.object().await {
                Ok(object) => object,
                Err(error) => {
                    tokio::time::sleep(LOOK).await;
                    return Err(format!("{error:#}"));
                }
            };
            self.note(&object);
            match is(&object) {
                Ok(found) => Ok(found),
                Err(why) => {
                    tokio::time::sleep(LOOK).await;
                    Err(why)
                }
            }
        });
        match found.await {
            Ok(found) => Ok(found),
            Err(error) => Err(error.context(self.story().await)),
        }
    }

    /// Waits for this phase. It is an error if the rollout ends in another.
    pub async fn phase(&self, phase: &str) -> Result<Value> {
        let object = self
            .until(phase, WHOLE, |object| {
                let now = text(object, "/status/phase");
                // Where it had ended before somebody changed its spec does not count.
                let noticed = object["status"]["observedGeneration"] == object["metadata"]["generation"];
                let over = ["Completed", "RolledBack", "Failed"].contains(&now) && noticed;
                if now == phase || over { Ok(object.clone()) } else { Err(line(object)) }
            })
            .await?;
        let now = text(&object, "/status/phase");
        if now != phase {
            return Err(anyhow::anyhow!("{} ended as {now} instead of {phase}", self.name).context(self.story().await));
        }
        Ok(object)
    }

    /// Changes its spec.
    pub async fn change(&self, spec: Value) -> Result<()> {
        let patch = json!({"spec": spec}).to_string();
        let arguments =
            ["patch", "gatewayrollout", &self.name, "-n", self.gateway.namespace, "--type=merge", "-p", &patch];
        self.machine.kubectl(&arguments, "").await?.passed().map(drop)
    }

    pub async fn abort(&self) -> Result<()> {
        self.change(json!({"abort": true})).await
    }

    /// Deletes it, and waits until it is gone.
    pub async fn delete(&self) -> Result<()> {
        let delete = ["delete", "gatewayrollout", &self.name, "-n", self.gateway.namespace, "--timeout=300s"];
        let said = self.machine.kubectl(&delete, "").await?;
        if said.code != Some(0) {
            return Err(anyhow::anyhow!("{} is not deleted: {}", self.name, said.err).context(self.story().await));
        }
        Ok(())
    }

    /// Phases, stages and pauses so far, one line.
    pub fn seen(&self) -> String {
        self.seen.lock().expect("seen").join(" → ")
    }

    fn note(&self, object: &Value) {
        let now = line(object);
        let mut seen = self.seen.lock().expect("seen");
        if seen.last().is_none_or(|last| last.split_once(' ').is_none_or(|(_, last)| last != now)) {
            seen.push(format!("{:.1}s {now}", self.began.elapsed().as_secs_f64()));
        }
    }

    /// Everything that explains where it stands.
    async fn story(&self) -> String {
        let namespace = self.gateway.namespace;
        let mut story = format!("{}\nseen: {}", self.name, self.seen());
        let tells: [&[&str]; 4] = [
            &["get", "gatewayrollout", &self.name, "-n", namespace, "-o", "jsonpath={.status}"],
            &["get", "events", "-n", namespace, "--field-selector=involvedObject.kind=GatewayRollout", "-o", "wide"],
            &["get", "pods,deployments,hpa", "-n", namespace, "--show-labels"],
            &["logs", "-n", "revguard-system", "-l", "app.kubernetes.io/component=controller", "--tail=40"],
        ];
        for tell in tells {
            if let Ok(said) = self.machine.kubectl(tell, "").await {
                story.push_str(&format!("\n--- kubectl {}\n{}{}", tell.join(" "), said.out, said.err));
            }
        }
        story
    }
}

/// Where it stands, in a few words.
fn line(object: &Value) -> String {
    let parts = ["/status/phase", "/status/step/name", "/status/step/stage", "/status/state", "/status/pause/reason"];
    let mut words: Vec<&str> = parts.iter().map(|part| text(object, part)).filter(|word| !word.is_empty()).collect();
    words.dedup();
    words.join(" ")
}

pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Nothing of a rollout is left on the gateway: no label, annotation or object of ours. What is the last to go may take its time.
pub async fn clean(machine: &Machine, gateway: Gateway) -> Result<()> {
    wait_until(LONG + SOON, &format!("nothing of a rollout on {}", gateway.name), || async {
        let found = left(machine, gateway).await;
        tokio::time::sleep(LOOK).await;
        match found {
            Ok(left) if left.is_empty() => Ok(()),
            Ok(left) => Err(format!("left behind: {left:?}")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

async fn left(machine: &Machine, gateway: Gateway) -> Result<Vec<String>> {
    let kinds = "deployments,pods,configmaps,services,horizontalpodautoscalers,poddisruptionbudgets";
    let of_ours = ["get", kinds, "-n", gateway.namespace, "-l", "revguard.dev/rollout", "-o", "name"];
    let mut left: Vec<String> = machine.kubectl(&of_ours, "").await?.passed()?.lines().map(str::to_owned).collect();
    let deployment = stage::get(machine, gateway.namespace, "deployment", gateway.name).await?;
    // The mesh configuration of the revision that it is on.
    let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().into_iter().flatten();
    let mounted: Vec<String> = volumes.map(|volume| format!("configmap/{}", text(volume, "/configMap/name"))).collect();
    left.retain(|object| !mounted.contains(object));
    let annotations = deployment["metadata"]["annotations"].as_object().context("annotations")?;
    left.extend(annotations.keys().filter(|key| key.starts_with("revguard.dev/")).cloned());
    Ok(left)
}
