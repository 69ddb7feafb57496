//! `revguard plan` against a real API server, and everything that a rollout would write, as that API server takes it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use http::Method;
use jiff::Timestamp;
use libtest_mimic::Trial;
use revguard::api::rollout_status::Baseline;
use revguard::cluster::{GatewayReader, Pods, read_once};
use revguard::model::Kind;
use revguard::rollout::objects::{self, Change, Written};
use revguard::rollout::read::{Raw, seen};
use revguard::rollout::seen::{Of, Seen, Version};
use revguard::rollout::step::{Step, Which};
use revguard::snapshot::Snapshot;
use revguard::wire::row;
use serde_json::{Value, json};

use super::{Env, Said};
use crate::harness::binary::PROGRAM;
use crate::harness::objects::{Scope, documents};
use crate::harness::raw::{As, JSON, JSON_PATCH, MERGE, send};
use crate::harness::{Options, crds};
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(ApiServer, what_a_rollout_would_do_is_told_and_taken)]
}

const PLANES: &str = include_str!("../../rollout_guards/planes.yaml");
const INJECTED: &str = include_str!("../../rollout_guards/injected.yaml");
const MOUNTED: &str = include_str!("../../rollout_guards/mounted.yaml");

async fn what_a_rollout_would_do_is_told_and_taken() -> Result<()> {
    let env = Env::start(Options::with_controllers(&[]), &["Gateway"]).await?;
    let mut scope = Scope::new(&env.plane);
    let definitions: Vec<Value> = revguard::api::definitions().into_iter().map(|(_, d)| d).collect();
    scope.apply(&definitions).await?;
    scope.apply(&[crds::permissive(row(Kind::IstioGateway))]).await?;
    for world in [PLANES, INJECTED, MOUNTED] {
        stage(&env, &mut scope, world).await?;
    }
    for (namespace, name) in [("gw", "igw-1-24"), ("default", "custom-gw-1-24")] {
        told(&env, namespace, name).await?;
        Gateway::look(&env, namespace, name).await?.writes(&env).await?;
    }
    scope.leave();
    Ok(())
}

/// Puts a world there. Nobody answers its webhooks, so that conditions keep them from being called.
async fn stage(env: &Env, scope: &mut Scope, text: &str) -> Result<()> {
    let mut all = documents(text)?;
    let mut accounts = Vec::new();
    for object in &mut all {
        for webhook in object.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
            webhook["matchConditions"] = json!([{"name": "nobody", "expression": "false"}]);
            webhook["sideEffects"] = json!("None");
            webhook["admissionReviewVersions"] = json!(["v1"]);
        }
        let spec = &object["spec"];
        let account = spec.pointer("/template/spec/serviceAccountName").or(spec.get("serviceAccountName"));
        if let Some(name) = account.and_then(Value::as_str) {
            let namespace = &object["metadata"]["namespace"];
            accounts.push(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}));
        }
    }
    all.splice(0..0, accounts);
    scope.apply(&all).await?;
    // Endpoints know pods by the uid that the API server gave them.
    for slice in all.iter().filter(|o| o["kind"] == "EndpointSlice") {
        let mut slice = slice.clone();
        let namespace = slice["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        for endpoint in slice["endpoints"].as_array_mut().into_iter().flatten() {
            let Some(pod) = endpoint.pointer("/targetRef/name").and_then(Value::as_str) else { continue };
            let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
            let found = send(&env.plane.client(), Method::GET, &path, None, &As::default()).await?;
            if found.ok() {
                endpoint["targetRef"]["uid"] = found.body["metadata"]["uid"].clone();
            }
        }
        scope.apply(&[slice]).await?;
    }
    Ok(())
}

/// The program says of the live cluster what it says of its manifests.
async fn told(env: &Env, namespace: &str, name: &str) -> Result<()> {
    let file = env.plane.folder().join(format!("{name}.yaml"));
    let text = env.plane.kubectl(&["get", "gatewayrollout", name, "-n", namespace, "-o", "yaml"]).await?;
    ensure!(text.status.success(), "{}", String::from_utf8_lossy(&text.stderr));
    std::fs::write(&file, &text.stdout)?;
    let path = file.to_str().context("a path in UTF-8")?.to_owned();
    let reader = env.reader.clone();
    let run = move || {
        let mut command = Command::new(PROGRAM);
        command.env_clear().args(["plan", "-f", &path, "-o", "json", "--kubeconfig"]).arg(reader).output()
    };
    let said = Said::from(tokio::task::spawn_blocking(run).await??);
    ensure!(said.code == Some(0), "{}{}", said.out, said.err);
    let answer: Value = serde_json::from_str(&said.out)?;
    assert_eq!(answer["preflight"], json!([]), "{name}");
    assert_eq!((&answer["from"], &answer["to"]), (&json!("1-23"), &json!("1-24")));
    assert_eq!(answer["apartKey"], "app");
    Ok(())
}

struct Gateway {
    raw: Raw,
    seen: Seen,
    known: Snapshot,
}

impl Gateway {
    async fn look(env: &Env, namespace: &str, name: &str) -> Result<Gateway> {
        let client = env.plane.client();
        let path = format!("/apis/revguard.dev/v1alpha1/namespaces/{namespace}/gatewayrollouts/{name}");
        let rollout = send(&client, Method::GET, &path, None, &As::default()).await?.expect("the rollout")?;
        let known = read_once(&client, Pods::Metadata).await?.snapshot;
        let raw = GatewayReader::new(client).fill(Raw::of(rollout), &known, true).await?;
        let seen = seen(&raw, &known)?;
        Ok(Gateway { raw, seen, known })
    }

    /// Every step is taken as it would be sent, first as a dry-run, then for good where the next ones need it.
    async fn writes(mut self, env: &Env) -> Result<()> {
        let (namespace, name) = (self.seen.rollout.namespace.to_string(), self.seen.rollout.name.to_string());
        let source = self.seen.source.clone().context("the gateway")?;
        let endpoints: usize = self.seen.services.iter().map(|s| s.endpoints.len()).sum();
        ensure!(endpoints > 0, "{:?}", self.seen.services);
        let baseline = Baseline {
            deployment: revguard::api::rollout_status::DeploymentBaseline {
                template: source.template.body.to_string(),
                strategy: source.strategy.to_string(),
                min_ready_seconds: source.min_ready_seconds,
                ..Default::default()
            },
            ..Default::default()
        };
        let status = json!({"status": {"fromRevision": "1-23", "baseline": baseline, "state": "", "phase": "Preparing",
            "observedGeneration": 1, "conditions": []}});
        let at = format!("/apis/revguard.dev/v1alpha1/namespaces/{namespace}/gatewayrollouts/{name}/status");
        send(&env.plane.client(), Method::PATCH, &at, Some((MERGE, &status)), &As::default())
            .await?
            .expect("a status")?;
        self = Gateway::look(env, &namespace, &name).await?;

        self.take(env, &Step::Hold { held: self.seen.rollout.held.clone() }, true).await?;
        self.take(env, &Step::Lock { held: source.held.clone(), baseline: baseline.into() }, true).await?;
        self = Gateway::look(env, &namespace, &name).await?;
        if self.seen.config.needed {
            let config = &self.seen.config;
            let hash = config.original.clone().context("the mesh configuration")?;
            self.take(env, &Step::CopyConfig { name: config.name.clone(), held: None, hash }, true).await?;
            self = Gateway::look(env, &namespace, &name).await?;
            let config = &self.seen.config;
            let copy = config.copy.clone().context("the copy")?;
            ensure!(copy.ours && Some(&copy.hash) == config.original.as_ref(), "{config:?}");
            self.take(env, &Step::DropConfig { name: config.name.clone(), held: copy.held }, false).await?;
        }
        self.take(env, &Step::CreateCanary, true).await?;
        self.take(env, &Step::CreateStandby, true).await?;
        self.take(env, &Step::CreateProbe, true).await?;
        self = Gateway::look(env, &namespace, &name).await?;
        self.made().await?;
        self.changes(env).await
    }

    /// What the API server made of it is what was meant, its defaults included.
    async fn made(&self) -> Result<()> {
        let canary = self.seen.canary.as_ref().context("the second Deployment")?;
        let plan = objects::Plan::of(&self.seen, Some("1-23")).context("a plan")?;
        assert_eq!(*canary.template.hash, *revguard::rollout::read::workload::hash(&plan.canary()));
        assert_eq!((canary.replicas, canary.template.revision.as_deref()), (0, Some("1-24")));
        let standby = self.seen.standby.as_ref().context("the standby")?;
        assert_eq!((standby.replicas, standby.template.revision.as_deref()), (0, Some("1-23")));
        let probe = self.seen.pods.iter().find(|p| p.of == Of::Probe).context("the probe")?;
        assert!(!probe.ready);
        let again = seen(&self.raw, &self.known)?;
        assert_eq!(again, self.seen, "the same twice");
        Ok(())
    }

    async fn changes(mut self, env: &Env) -> Result<()> {
        let (namespace, name) = (self.seen.rollout.namespace.to_string(), self.seen.rollout.name.to_string());
        let source = self.seen.source.clone().context("the gateway")?;
        let held = source.held.clone();
        for step in [
            Step::Retemplate { held: held.clone(), revision: "1-24".into() },
            Step::Retemplate { held: held.clone(), revision: "1-23".into() },
            Step::Pace { held: held.clone(), paused: Some(true) },
            Step::Pace { held: held.clone(), paused: None },
            Step::Scale { which: Which::Source, held: held.clone(), to: 0 },
            Step::Unlock { held },
            Step::DropDeployment { which: Which::Canary, held: self.seen.canary.clone().context("it")?.held },
        ] {
            self.take(env, &step, false).await?;
        }
        for hpa in &self.seen.hpas {
            let (name, held, target) = (hpa.name.clone(), hpa.held.clone(), "another".into());
            self.take(env, &Step::Autoscale { name, held, target, min: 2 }, false).await?;
        }
        for service in &self.seen.services {
            let labels = [("istio.io/rev".to_owned(), "1-24".to_owned())].into();
            let (name, held) = (service.name.clone(), service.held.clone());
            self.take(env, &Step::Relabel { kind: "Service", name, held, labels }, false).await?;
        }
        let pod = self.seen.pods.iter().find(|p| p.of == Of::Source).context("a pod")?.clone();
        self.take(env, &Step::Pin { pod: pod.name.clone(), held: pod.held.clone() }, false).await?;
        let key = self.seen.apart_key.clone().map_err(anyhow::Error::msg)?;
        let since: Timestamp = "2026-03-02T10:00:00Z".parse()?;
        let apart = Step::SetApart { pod: pod.name.clone(), held: pod.held.clone(), key, since };
        self.take(env, &apart, true).await?;
        // Once more with the old version: whoever believes to be first is told.
        let refused = send_step(env, &self, &apart, false).await?;
        ensure!(refused.0 == 409, "{refused:?}");
        self = Gateway::look(env, &namespace, &name).await?;
        let left = self.seen.pods.iter().find(|p| p.name == pod.name).context("it is still seen")?;
        assert_eq!((left.of, left.apart_since), (Of::Apart, Some(since)));
        self.take(env, &Step::DropApart { pod: left.name.clone(), held: left.held.clone(), cut: 0 }, false).await?;
        self.take(env, &Step::Release { held: self.seen.rollout.held.clone() }, true).await
    }

    async fn take(&self, env: &Env, step: &Step, really: bool) -> Result<()> {
        let (status, said) = send_step(env, self, step, true).await?;
        ensure!(status < 300, "dry-run of {}: {status} {said}", step.boundary());
        if really {
            let (status, said) = send_step(env, self, step, false).await?;
            ensure!(status < 300, "{}: {status} {said}", step.boundary());
        }
        Ok(())
    }
}

/// Sends a step as the controller does: the body as it is written, the address and the precondition added.
async fn send_step(env: &Env, on: &Gateway, step: &Step, dry: bool) -> Result<(u16, String)> {
    let Written { kind, name, change } = objects::step(step, &on.seen, &on.raw)?;
    let (base, plural) = match kind {
        "Deployment" => ("/apis/apps/v1", "deployments"),
        "HorizontalPodAutoscaler" => ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
        "GatewayRollout" => ("/apis/revguard.dev/v1alpha1", "gatewayrollouts"),
        "Pod" => ("/api/v1", "pods"),
        "Service" => ("/api/v1", "services"),
        "ConfigMap" => ("/api/v1", "configmaps"),
        other => anyhow::bail!("nothing writes a {other}"),
    };
    let collection = format!("{base}/namespaces/{}/{plural}", on.seen.rollout.namespace);
    let query = if dry { "?dryRun=All" } else { "" };
    let version =
        |held: &Version| json!({"op": "replace", "path": "/metadata/resourceVersion", "value": &*held.version});
    let (method, path, content, body) = match change {
        Change::Create { mut object } => {
            object["apiVersion"] = json!(base.trim_start_matches("/apis/").trim_start_matches("/api/"));
            object["kind"] = json!(kind);
            object["metadata"]["name"] = json!(name);
            (Method::POST, collection, JSON, object)
        }
        Change::Patch { operations, held } => {
            let all: Vec<Value> = std::iter::once(version(&held)).chain(operations).collect();
            (Method::PATCH, format!("{collection}/{name}"), JSON_PATCH, Value::Array(all))
        }
        Change::Delete { held, foreground } => {
            let policy = if foreground { "Foreground" } else { "Background" };
            let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": &*held.uid}, "propagationPolicy": policy});
            (Method::DELETE, format!("{collection}/{name}"), JSON, body)
        }
    };
    let answer =
        send(&env.plane.client(), method, &format!("{path}{query}"), Some((content, &body)), &As::default()).await?;
    Ok((answer.status, answer.message().to_owned()))
}
