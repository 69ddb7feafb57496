//! The definition of GatewayRollout: the API server accepts it, defaults show, every rule and every bound refuses, the status is kept.
//!
//! Bad input is sent as dry-runs. Whatever is let through is read back by the type that the controller reads, because an object
//! that it cannot read is a rollout that nobody carries out.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use http::Method;
use kube::Client;
use revguard::api::GatewayRollout;
use revguard::api::gateway_rollout::{Flavor, Promotion, StrategyType};
use revguard::api::mesh_state::Condition;
use revguard::api::rollout_status::{
    ApartPod, ApprovalRecord, Baseline, BatchStatus, Completion, DeploymentBaseline, DrainStatus, GatewayRolloutStatus,
    HpaBaseline, MetricMemory, MetricStatus, Pause, Phase, PodCounts, PreflightFinding, ResourceStatus, Rollback,
    ServiceBaseline, Stage, StepStatus, Weights,
};
use serde_json::{Value, json};

use crate::harness::objects::Scope;
use crate::harness::raw::{Answer, As, JSON, MERGE, send};
use crate::harness::{ControlPlane, Options};

const AT: &str = "/apis/revguard.dev/v1alpha1/namespaces/default/gatewayrollouts";

/// Every field, none of them at its default.
fn whole() -> Value {
    json!({
        "apiVersion": "revguard.dev/v1alpha1", "kind": "GatewayRollout",
        "metadata": {"name": "whole", "namespace": "default"},
        "spec": {
            "target": {"deployment": {"name": "istio-ingressgateway"}},
            "services": ["istio-ingressgateway"],
            "fromRevision": "1-23-5",
            "toRevision": "1-24-2",
            "toVersion": "1.24.2",
            "flavor": "Injected",
            "strategy": {
                "type": "ParallelDeployment",
                "promotion": "KeepRevisioned",
                "capacity": {"mode": "Constrained", "maxSurge": "30%"},
                "steps": [
                    {"name": "first-pod", "replicas": 2, "soak": "6m", "approval": "None"},
                    {"name": "half", "weight": 50, "soak": "15m30s", "approval": "Required"},
                    {"name": "all", "weight": 100, "soak": "500ms", "approval": "None"},
                ],
                "drain": {"mode": "Terminate", "batch": 2, "interval": "2m", "lbDrainDelay": "90s", "maxWait": "11m"},
            },
            "probe": {
                "mode": "DryRunOnly", "timeout": "1m",
                "http": [{"port": 8443, "scheme": "HTTPS", "host": "shop.example.com", "path": "/healthz", "expectStatus": [200, 301]}],
            },
            "verification": {"level": "Discovery", "allowDegradeTo": "Label"},
            "guardrails": {
                "source": {"prometheusRef": {"name": "default"}},
                "alerts": {
                    "matchers": ["severity=\"page\""], "exclude": ["Watchdog"], "atStart": "IgnoreExisting",
                    "onFiring": "Abort", "resumeAfter": "3m", "heartbeat": "Watchdog",
                },
                "metrics": [{
                    "name": "error-rate", "query": "sum(rate(x[{{.window}}]))", "max": 0.01, "min": 0,
                    "minSamplesQuery": "sum(y)", "minSamples": 200, "window": "3m", "interval": "45s",
                    "failureLimit": 2, "onFailure": "Abort", "onInconclusive": "Continue",
                }],
                "onUnavailable": "Continue", "maxPause": "1h", "onPauseTimeout": "Abort",
            },
            "window": {"allow": ["Mon-Thu 08:00-16:00", "Fri 22:00-24:00"]},
            "progressDeadline": "20m", "onDeadline": "Abort",
            "standby": {"keep": false, "until": "Duration", "ttl": "12h"},
            "sourceDrift": "Resync", "onDelete": "Freeze",
            "paused": true, "abort": false, "dryRun": true,
            "acknowledge": ["LocalTrafficPolicy"],
            "ttlAfterFinished": "24h",
        },
    })
}

fn least(name: &str) -> Value {
    json!({
        "apiVersion": "revguard.dev/v1alpha1", "kind": "GatewayRollout",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"target": {"deployment": {"name": "igw"}}, "toRevision": "1-24"},
    })
}

/// Merged into [`least`]: what is refused, and by which words of the definition.
fn refused() -> Vec<(Value, &'static str)> {
    let steps = |steps: Value| json!({"strategy": {"steps": steps}});
    let all = || json!({"name": "all", "weight": 100});
    let metric = |more: Value| {
        let mut metric = json!({"name": "m", "query": "x", "max": 1});
        json_patch::merge(&mut metric, &more);
        json!({"guardrails": {"source": {"url": "http://prometheus:9090"}, "metrics": [metric]}})
    };
    vec![
        (json!({"target": {"deployment": null}}), "exactly one of target.deployment and target.gateway"),
        (json!({"target": {"gateway": {"name": "public"}}}), "exactly one of target.deployment and target.gateway"),
        (json!({"fromRevision": "1-24"}), "fromRevision and toRevision are the same revision"),
        (json!({"abort": true, "paused": true}), "abort does not wait: unset paused"),
        (json!({"strategy": {"type": "PausedRolling", "promotion": "PatchOriginal"}}), "there is nothing to promote"),
        (
            json!({"strategy": {"capacity": {"mode": "Constrained"}}}),
            "capacity.mode Constrained needs capacity.maxSurge",
        ),
        (steps(json!([{"name": "a", "weight": 50}, {"name": "b", "weight": 25}, all()])), "weights must rise"),
        (steps(json!([{"name": "a", "weight": 50}, {"name": "b", "weight": 50}, all()])), "weights must rise strictly"),
        (steps(json!([{"name": "a", "weight": 50}])), "the last step has the weight 100"),
        (steps(json!([{"name": "a", "replicas": 2}])), "the last step has the weight 100"),
        (
            steps(json!([{"name": "a", "weight": 5}, {"name": "b", "replicas": 1}, all()])),
            "only the first step may name replicas instead of a weight",
        ),
        (
            steps(json!([{"name": "a", "replicas": 1}, {"name": "b", "replicas": 2}, all()])),
            "only the first step may name replicas instead of a weight",
        ),
        (
            steps(json!([{"name": "all", "weight": 5}, all()])),
            "approvals name steps: two of one name could not be told apart",
        ),
        (steps(json!([{"name": "a"}, all()])), "a step has either a weight or replicas"),
        (steps(json!([{"name": "a", "weight": 1, "replicas": 1}, all()])), "a step has either a weight or replicas"),
        (steps(json!([{"name": "resume", "weight": 5}, all()])), "resume is what ends a pause, not a step"),
        (json!({"strategy": {"drain": {"interval": "29s"}}}), "interval must be at least lbDrainDelay"),
        (json!({"strategy": {"drain": {"lbDrainDelay": "1m1s"}}}), "interval must be at least lbDrainDelay"),
        (json!({"guardrails": {"alerts": {}}}), "alerts and metrics need a source to be asked of"),
        (
            json!({"guardrails": {"metrics": [{"name": "m", "query": "x", "max": 1}]}}),
            "alerts and metrics need a source to be asked of",
        ),
        (json!({"guardrails": {"source": {}}}), "exactly one of prometheusRef and url"),
        (
            json!({"guardrails": {"source": {"url": "http://p", "prometheusRef": {"name": "p"}}}}),
            "exactly one of prometheusRef and url",
        ),
        (metric(json!({"max": null})), "a metric needs max or min, or it could never fail"),
        (metric(json!({"interval": "0s"})), "interval must be longer than 0s"),
        (metric(json!({"window": "0ms"})), "window must be longer than 0s"),
        (
            json!({"guardrails": {"source": {"url": "http://p"}, "metrics": [
                {"name": "m", "query": "x", "max": 1}, {"name": "m", "query": "y", "max": 1}]}}),
            "two metrics of one name could not be told apart",
        ),
    ]
}

/// Near misses of those: merged into [`least`] they are taken.
fn taken() -> Vec<Value> {
    let steps = |steps: Value| json!({"strategy": {"steps": steps}});
    vec![
        json!({}),
        json!({"target": {"deployment": null, "gateway": {"name": "public"}}}),
        json!({"fromRevision": "1-23"}),
        json!({"abort": true}),
        json!({"paused": true}),
        json!({"strategy": {"type": "PausedRolling", "promotion": "Auto"}}),
        json!({"strategy": {"type": "PausedRolling"}}),
        json!({"strategy": {"capacity": {"mode": "Constrained", "maxSurge": 1}}}),
        json!({"strategy": {"capacity": {"mode": "Constrained", "maxSurge": "100%"}}}),
        steps(json!([{"name": "all", "weight": 100}])),
        steps(json!([{"name": "one", "replicas": 1}, {"name": "all", "weight": 100}])),
        steps(json!([{"name": "a", "weight": 1}, {"name": "b", "weight": 2}, {"name": "all", "weight": 100}])),
        steps(json!([{"name": "resume-later", "weight": 1}, {"name": "all", "weight": 100}])),
        steps((1..=20).map(|n| json!({"name": format!("s{n}"), "weight": n * 5})).collect()),
        json!({"strategy": {"drain": {"interval": "30s"}}}),
        json!({"strategy": {"drain": {"interval": "90s", "lbDrainDelay": "1m30s"}}}),
        json!({"guardrails": {"source": {"url": "https://p.example:9090/prometheus"}}}),
        json!({"guardrails": {"source": {"prometheusRef": {"name": "p"}}, "alerts": {}}}),
        json!({"guardrails": {"source": {"url": "http://p"}, "metrics": [
            {"name": "a", "query": "x", "min": 1, "interval": "1ms"}, {"name": "b", "query": "x", "max": 0}]}}),
        json!({"guardrails": {"maxPause": "0s"}}),
    ]
}

/// From one stored object to the next: the words by which the API server refuses it, or none.
fn edits() -> Vec<(Value, Value, Option<&'static str>)> {
    let with = |more: Value| {
        let mut spec = json!({"fromRevision": "1-23"});
        json_patch::merge(&mut spec, &more);
        spec
    };
    let target = "target is immutable; create a new GatewayRollout";
    let from = "fromRevision is immutable; create a new GatewayRollout";
    let abort = "abort cannot be withdrawn; create a new GatewayRollout";
    vec![
        (with(json!({})), json!({"target": {"deployment": {"name": "other"}}}), Some(target)),
        (with(json!({})), json!({"target": {"deployment": null, "gateway": {"name": "igw"}}}), Some(target)),
        (with(json!({})), json!({"toRevision": "1-25"}), Some("toRevision is immutable; create a new GatewayRollout")),
        (with(json!({})), json!({"fromRevision": "1-22"}), Some(from)),
        (with(json!({})), json!({"fromRevision": null}), Some(from)),
        (with(json!({"fromRevision": null})), json!({"fromRevision": "1-23"}), Some(from)),
        (with(json!({"abort": true})), json!({"abort": false}), Some(abort)),
        (with(json!({"abort": true})), json!({"abort": null}), Some(abort)),
        (with(json!({})), json!({"abort": true}), None),
        (with(json!({"abort": true})), json!({"onDelete": "Freeze"}), None),
        (with(json!({"paused": true})), json!({"paused": false, "abort": true}), None),
        (with(json!({"paused": true})), json!({"abort": true}), Some("abort does not wait: unset paused")),
        (with(json!({"dryRun": true})), json!({"dryRun": false}), None),
        (with(json!({})), json!({"strategy": {"steps": [{"name": "all", "weight": 100}]}}), None),
        (with(json!({})), json!({"toVersion": "1.24.3", "acknowledge": ["DrainTooShort"]}), None),
    ]
}

/// Words of every rule in the definition.
fn rules(schema: &Value, found: &mut BTreeSet<String>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        found.insert(rule["message"].as_str().unwrap_or("a rule without a message").to_owned());
    }
    let properties = schema["properties"].as_object().into_iter().flat_map(|map| map.values());
    for below in properties.chain(schema.get("items")) {
        rules(below, found);
    }
}

/// Every bound of the schema, as a place in [`whole`] and a value beyond the bound.
fn beyond(schema: &Value, value: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    let mut add = |bad: Value| found.push((path.to_owned(), bad));
    if schema.get("enum").is_some() {
        add(json!("Nonsense"));
    }
    if schema.get("pattern").is_some() {
        add(json!("!"));
    }
    if let Some(most) = schema["maxLength"].as_u64() {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        add(json!("1".repeat(most + 1)));
    }
    if schema["minLength"].as_u64().is_some_and(|least| least > 0) {
        add(json!(""));
    }
    if let Some(most) = schema["maximum"].as_f64() {
        add(json!(most as i64 + 1));
    }
    if let Some(least) = schema["minimum"].as_f64() {
        add(json!(least as i64 - 1));
    }
    if let (Some(most), Some(first)) = (schema["maxItems"].as_u64(), value.get(0)) {
        add((0..=most).map(|_| first.clone()).collect());
    }
    if schema["minItems"].as_u64().is_some_and(|least| least > 0) {
        add(json!([]));
    }
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            beyond(below, value, &format!("{path}/{name}"), found);
        }
    }
    if let (Some(items), Some(first)) = (schema.get("items"), value.get(0)) {
        beyond(items, first, &format!("{path}/0"), found);
    }
}

/// Properties of the schema that [`whole`] does not set.
fn unset(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match value.get(name) {
            Some(value) => unset(below, value, &path, found),
            None => found.push(path),
        }
    }
    if let (Some(items), Some(first)) = (schema.get("items"), value.get(0)) {
        unset(items, first, &format!("{path}[]"), found);
    }
}

fn numbered(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty()).map(|part| match part.parse::<usize>() {
        Ok(n) => format!("[{n}]"),
        Err(_) => format!(".{part}"),
    });
    parts.collect::<String>().trim_start_matches('.').to_owned()
}

struct Table {
    client: Client,
    wrong: Vec<String>,
}

impl Table {
    async fn send(&self, method: Method, at: &str, body: (&str, &Value)) -> Result<Answer> {
        send(&self.client, method, at, Some(body), &As::default()).await
    }

    async fn created(&self, object: &Value) -> Result<Answer> {
        self.send(Method::POST, &format!("{AT}?dryRun=All&fieldValidation=Strict"), (JSON, object)).await
    }

    fn must_refuse(&mut self, what: &str, answer: &Answer, words: &str) {
        if answer.status != 422 || !answer.message().contains(words) {
            self.wrong.push(format!("{what}: wanted {words:?}, got {} {}", answer.status, answer.message()));
        }
    }

    /// It is taken, and the controller can read what comes of it.
    fn must_take(&mut self, what: &str, answer: &Answer) {
        if !answer.ok() {
            self.wrong.push(format!("{what}: {} {}", answer.status, answer.message()));
        } else if let Err(error) = serde_json::from_value::<GatewayRollout>(answer.body.clone()) {
            self.wrong.push(format!("{what}: taken and unreadable: {error}: {}", answer.body["spec"]));
        }
    }
}

pub async fn the_definition_refuses_what_cannot_be_carried_out() -> Result<()> {
    // The definition is the same for everybody: nobody else may be here.
    let plane = ControlPlane::start(Options::with_controllers(&[])).await?;
    let definitions = revguard::api::definitions();
    let (_, definition) = definitions.iter().find(|(name, _)| *name == "gatewayrollouts").context("a definition")?;
    let mut scope = Scope::new(&plane);
    // Costs of rules and bounds of lists are what it is refused for.
    scope.apply(std::slice::from_ref(definition)).await?;
    scope.leave();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut table = Table { client: plane.client(), wrong: Vec::new() };

    every_rule(&mut table, schema).await?;
    every_bound(&mut table, schema).await?;
    null_is_a_default(&mut table).await?;
    ensure!(table.wrong.is_empty(), "{}", table.wrong.join("\n"));
    defaults_show(&table).await?;
    the_status_is_kept_and_shown(&plane, &table).await
}

async fn every_rule(table: &mut Table, schema: &Value) -> Result<()> {
    let mut met = BTreeSet::new();
    for (more, words) in refused() {
        let mut object = least("bad");
        json_patch::merge(&mut object["spec"], &more);
        let answer = table.created(&object).await?;
        met.extend([words.to_owned()].into_iter().filter(|words| answer.message().contains(words)));
        table.must_refuse(&more.to_string(), &answer, words);
    }
    for more in taken() {
        let mut object = least("good");
        json_patch::merge(&mut object["spec"], &more);
        let answer = table.created(&object).await?;
        table.must_take(&more.to_string(), &answer);
    }
    for (i, (stored, more, words)) in edits().into_iter().enumerate() {
        let name = format!("edited-{i}");
        let mut object = least(&name);
        json_patch::merge(&mut object["spec"], &stored);
        table.send(Method::POST, AT, (JSON, &object)).await?.expect("the object to edit")?;
        let change = json!({"spec": more});
        let answer = table.send(Method::PATCH, &format!("{AT}/{name}?dryRun=All"), (MERGE, &change)).await?;
        match words {
            Some(words) => {
                met.extend([words.to_owned()].into_iter().filter(|words| answer.message().contains(words)));
                table.must_refuse(&format!("{stored} + {more}"), &answer, words);
            }
            None => table.must_take(&format!("{stored} + {more}"), &answer),
        }
    }
    let mut all = BTreeSet::new();
    rules(schema, &mut all);
    let unmet: Vec<&String> =
        all.iter().filter(|rule| !met.iter().any(|words| rule.contains(words.as_str()))).collect();
    println!("definition: {} rules, each refuses something", all.len());
    ensure!(all.len() >= 20, "rules: {all:?}");
    ensure!(unmet.is_empty(), "no case for {unmet:?}");
    Ok(())
}

async fn every_bound(table: &mut Table, schema: &Value) -> Result<()> {
    let whole = whole();
    let spec = &schema["properties"]["spec"];
    let mut missing = Vec::new();
    unset(spec, &whole["spec"], "spec", &mut missing);
    missing.retain(|path| !["spec.target.gateway", "spec.guardrails.source.url"].contains(&path.as_str()));
    missing.retain(|path| path != "spec.strategy.steps[].weight");
    ensure!(missing.is_empty(), "not tried: {missing:?}");
    let answer = table.created(&whole).await?;
    table.must_take("the whole example", &answer);
    for (name, value) in whole["spec"].as_object().into_iter().flatten() {
        if answer.body["spec"][name] != *value {
            table.wrong.push(format!("{name}: sent {value}, stored {}", answer.body["spec"][name]));
        }
    }
    let mut bad = Vec::new();
    beyond(spec, &whole["spec"], "", &mut bad);
    for (path, value) in &bad {
        let mut object = whole.clone();
        *object["spec"].pointer_mut(path).context("a place")? = value.clone();
        let answer = table.created(&object).await?;
        table.must_refuse(&format!("{path} = {value}"), &answer, &numbered(path));
    }
    println!("definition: {} bounds, each refuses what is beyond", bad.len());
    ensure!(bad.len() > 80, "{} bounds", bad.len());
    Ok(())
}

/// Whoever writes null means "nothing", and must not make an object that nobody can read.
async fn null_is_a_default(table: &mut Table) -> Result<()> {
    fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
        for (name, below) in value.as_object().into_iter().flatten() {
            let path = format!("{path}/{name}");
            leaves(below, &path, found);
            found.push(path);
        }
        if let Some(first) = value.get(0) {
            leaves(first, &format!("{path}/0"), found);
        }
    }
    let whole = whole();
    let mut places = Vec::new();
    leaves(&whole["spec"], "", &mut places);
    let (mut taken, mut refused) = (0, 0);
    for path in &places {
        let mut object = whole.clone();
        *object["spec"].pointer_mut(path).context("a place")? = Value::Null;
        let answer = table.created(&object).await?;
        if answer.status == 422 {
            refused += 1;
        } else {
            taken += 1;
            table.must_take(&format!("{path} = null"), &answer);
        }
    }
    println!("definition: null in {} places, taken {taken} times and refused {refused} times", places.len());
    ensure!(taken > 40 && refused > 3, "null: taken {taken}, refused {refused}");
    Ok(())
}

async fn defaults_show(table: &Table) -> Result<()> {
    let stored = table.send(Method::POST, AT, (JSON, &least("defaults"))).await?.expect("the least")?;
    let spec = &stored["spec"];
    for (pointer, value) in [
        ("/flavor", json!("Auto")),
        ("/strategy/type", json!("ParallelDeployment")),
        ("/strategy/promotion", json!("Auto")),
        ("/strategy/capacity", json!({"mode": "FullSurge"})),
        ("/strategy/steps/0", json!({"name": "first-pod", "replicas": 1, "soak": "5m", "approval": "None"})),
        ("/strategy/steps/4", json!({"name": "all", "weight": 100, "soak": "30m", "approval": "None"})),
        (
            "/strategy/drain",
            json!({"mode": "SetApart", "batch": "25%", "interval": "1m", "lbDrainDelay": "30s", "maxWait": "10m"}),
        ),
        ("/probe", json!({"mode": "DarkPod", "timeout": "2m"})),
        ("/verification", json!({"level": "XdsConnected", "allowDegradeTo": "Discovery"})),
        ("/guardrails", json!({"onUnavailable": "Pause", "maxPause": "0s", "onPauseTimeout": "Hold"})),
        ("/progressDeadline", json!("10m")),
        ("/standby", json!({"keep": true, "until": "OldRevisionRemoved", "ttl": "168h"})),
        ("/onDelete", json!("Rollback")),
        ("/paused", json!(false)),
        ("/abort", json!(false)),
        ("/dryRun", json!(false)),
        ("/ttlAfterFinished", json!("720h")),
    ] {
        ensure!(spec.pointer(pointer) == Some(&value), "{pointer}: {:?}, not {value}", spec.pointer(pointer));
    }
    // A part that somebody begins gets the rest of its defaults as well.
    let mut object = least("part");
    object["spec"]["strategy"] = json!({"steps": [{"name": "all", "weight": 100}], "drain": {"mode": "Terminate"}});
    object["spec"]["guardrails"] = json!({"source": {"url": "http://p"}, "alerts": {"onFiring": "Abort"}});
    let spec = table.created(&object).await?.expect("a part")?["spec"].clone();
    ensure!(spec["strategy"]["steps"] == json!([{"name": "all", "weight": 100, "soak": "5m", "approval": "None"}]));
    ensure!(
        spec["strategy"]["drain"]["batch"] == "25%" && spec["strategy"]["capacity"]["mode"] == "FullSurge",
        "{spec}"
    );
    ensure!(spec["guardrails"]["alerts"]["exclude"] == json!(["Watchdog", "InfoInhibitor"]), "{spec}");
    // And they are the type's own: what is left out means the same to the API server and to us.
    let typed: GatewayRollout = serde_json::from_value(least("typed"))?;
    let stored: GatewayRollout = serde_json::from_value(stored)?;
    ensure!(typed.spec == stored.spec, "the API server's defaults are not ours");
    Ok(())
}

/// Every field of it.
fn status() -> GatewayRolloutStatus {
    let at = || "2026-03-02T08:01:00Z".to_owned();
    let condition = |name: &str, status: &str, reason: &str| Condition {
        type_: name.into(),
        status: status.into(),
        reason: reason.into(),
        message: "said at length".into(),
        last_transition_time: at(),
        observed_generation: 4,
    };
    GatewayRolloutStatus {
        observed_generation: 4,
        state: "Soaking".into(),
        phase: Phase::Progressing,
        gateway: "istio-ingressgateway".into(),
        from_revision: Some("1-23-5".into()),
        flavor: Some(Flavor::Injected),
        strategy: Some(StrategyType::ParallelDeployment),
        promotion: Some(Promotion::PatchOriginal),
        drain: Some(DrainStatus { key: Some("app".into()), why: "of a reason".into(), ..DrainStatus::default() }),
        plan: vec!["surge new 1 to 4".into()],
        baseline: Some(Baseline {
            captured_at: at(),
            replicas: 4,
            deployment: DeploymentBaseline {
                name: "istio-ingressgateway".into(),
                uid: "1f".into(),
                template_hash: "9c0f".into(),
                template: "{\"metadata\":{}}".into(),
                paused: true,
                min_ready_seconds: Some(5),
                strategy: "{}".into(),
            },
            hpa: Some(HpaBaseline {
                name: "igw".into(),
                uid: "2e".into(),
                min_replicas: 2,
                max_replicas: 10,
                target: "istio-ingressgateway".into(),
                active: true,
            }),
            services: vec![ServiceBaseline {
                name: "igw".into(),
                uid: "3d".into(),
                selector: "app=igw".into(),
                ingress: vec!["34.1.2.3".into()],
            }],
        }),
        step: Some(StepStatus {
            index: 1,
            name: "quarter".into(),
            display: "2/5 quarter".into(),
            hash: "5d2e".into(),
            stage: Stage::Soaking,
            soak_until: Some(at()),
            measured: vec![MetricMemory { name: "error-rate".into(), failures: 1, last: "Passed".into(), at: at() }],
        }),
        weights: Some(Weights { desired: 25, endpoints: 28 }),
        pods: Some(PodCounts {
            new_ready: 2,
            new: 2,
            old_ready: 5,
            old: 5,
            apart: 1,
            connections: Some(7),
            verified: 2,
        }),
        apart: vec![ApartPod { name: "igw-1".into(), since: at(), connections: Some(7) }],
        resources: vec![ResourceStatus {
            kind: "Deployment".into(),
            name: "igw-1-24-2".into(),
            action: "Created".into(),
            purpose: "Canary".into(),
        }],
        pause: Some(Pause {
            reason: "AlertFiring".into(),
            since: at(),
            message: "an alert".into(),
            needs_human: true,
            generation: 4,
        }),
        approvals: vec![ApprovalRecord { step: "half".into(), by: "alice@example.com".into(), at: at() }],
        preflight: vec![PreflightFinding {
            guard: "EnvoyFilterPin".into(),
            severity: "Warn".into(),
            object: "EnvoyFilter/istio-ingress/lua".into(),
            what: "a".into(),
            why: "b".into(),
            fix: "c".into(),
        }],
        ignored_alerts: vec!["ab12".into()],
        metrics: vec![MetricStatus {
            name: "error-rate".into(),
            result: "Passed".into(),
            value: Some(0.25),
            message: "a".into(),
            at: at(),
        }],
        rollback: Some(Rollback { reason: "Aborted".into(), message: "a".into(), since: at(), from: Phase::Draining }),
        completion: Some(Completion::Aborted),
        started_at: Some(at()),
        stage_started_at: Some(at()),
        stage_paused_seconds: 12,
        finished_at: Some(at()),
        last_batch_at: Some(at()),
        batch: Some(BatchStatus { of: "Source".into(), to: 3, pods: vec!["igw-1".into()], spared: true, over: true }),
        unrouted_connections: 2,
        approval_spent: true,
        conditions: vec![
            condition("Verified", "True", "XdsConnected"),
            condition("RollbackAvailable", "False", "Gone"),
        ],
    }
}

async fn the_status_is_kept_and_shown(plane: &ControlPlane, table: &Table) -> Result<()> {
    let wanted = status();
    let written = json!({"status": wanted});
    let schema = revguard::api::definitions().into_iter().find(|(name, _)| *name == "gatewayrollouts");
    let (_, definition) = schema.context("a definition")?;
    let mut missing = Vec::new();
    let of_status = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    unset(of_status, &written["status"], "status", &mut missing);
    ensure!(missing.is_empty(), "not tried: {missing:?}");
    let at = format!("{AT}/defaults/status?fieldValidation=Strict");
    let answer = table.send(Method::PATCH, &at, (MERGE, &written)).await?.expect("the status")?;
    let stored: GatewayRolloutStatus = serde_json::from_value(answer["status"].clone())?;
    ensure!(stored == wanted, "{}", answer["status"]);
    for phase in Phase::ALL {
        let change = json!({"status": {"phase": phase.as_str()}});
        table.send(Method::PATCH, &at, (MERGE, &change)).await?.expect(phase.as_str())?;
    }
    let shown = |more: &'static [&'static str]| async move {
        let output = plane.kubectl(&[&["get", "gwr", "defaults"], more].concat()).await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let mut lines = text.lines().map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect());
        let (head, row): (Vec<&str>, Vec<&str>) = lines.next().zip(lines.next()).context("two lines")?;
        Ok::<_, anyhow::Error>((head.join("|"), row[..row.len().min(8)].join("|"), row.join("|")))
    };
    let (head, row, _) = shown(&[]).await?;
    ensure!(head == "NAME|GATEWAY|FROM|TO|STATE|STEP|WEIGHT|PAUSED|AGE", "{head}");
    ensure!(row == "defaults|istio-ingressgateway|1-23-5|1-24|Soaking|2/5 quarter|28|AlertFiring", "{row}");
    let (head, _, row) = shown(&["-o", "wide"]).await?;
    ensure!(head.ends_with("AGE|STRATEGY|FLAVOR|VERIFIED|ROLLBACK"), "{head}");
    ensure!(row.ends_with("|ParallelDeployment|Injected|True|False"), "{row}");
    let output = plane.kubectl(&["get", "istio-upgrade", "-o", "name"]).await?;
    ensure!(String::from_utf8_lossy(&output.stdout).contains("gatewayrollout.revguard.dev/defaults"), "no category");
    Ok(())
}
