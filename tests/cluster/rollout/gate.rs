//! What a real Prometheus says holds a rollout, lets it go on, or sends it back. Its rules are rewritten while it runs, and it evaluates
//! them itself; the controller asks it as it asks any other.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{CANARY, GW, Stage};
use crate::controller::SOON;
use crate::harness::prometheus::Prometheus;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ControllersAndPrometheus, what_fires_holds_it_until_it_has_been_quiet),
        trial!(ControllersAndPrometheus, what_fires_sends_it_back_where_that_is_asked_for),
        trial!(ControllersAndPrometheus, what_fires_before_it_starts_is_waited_for_or_ignored),
        trial!(ControllersAndPrometheus, whoever_does_not_answer_lets_nothing_pass),
        trial!(ControllersAndPrometheus, a_metric_passes_fails_or_says_nothing),
    ]
}

/// How long it must be quiet. The controller looks three times as often.
const QUIET: Duration = Duration::from_secs(3);

/// Longer than a test; whoever wants it to end goes back.
const LONG: &str = "600s";

/// An alert that fires, as soon as it is evaluated.
fn firing(name: &str, labels: Value) -> Value {
    let mut all = json!({"severity": "critical"});
    super::merge(&mut all, &labels);
    json!({"alert": name, "expr": "vector(1)", "labels": all})
}

/// A series with this value.
fn value(name: &str, ns: &str, value: f64) -> Value {
    json!({"record": name, "expr": format!("vector({value})"), "labels": {"namespace": ns, "workload": CANARY}})
}

/// What every Prometheus here evaluates beside `more`: a heartbeat, an alert of ours, and a chronic one, which hold nothing.
fn rules(more: &[Value]) -> String {
    let always = [
        firing("Watchdog", json!({"severity": "none"})),
        firing("RevguardRolloutPausedLong", json!({"revguard": "true"})),
        firing("InfoInhibitor", json!({})),
        firing("OfSomebodyElse", json!({"severity": "info"})),
    ];
    grouped(&[&always, more].concat())
}

fn grouped(rules: &[Value]) -> String {
    json!({"groups": [{"name": "gate", "interval": "500ms", "rules": rules}]}).to_string()
}

async fn prometheus(stage: &Stage, more: &[Value]) -> Result<Prometheus> {
    let folder = stage.env().plane.folder().join(format!("prometheus-{}", stage.ns));
    Prometheus::start(&folder, &rules(more), json!([])).await
}

/// A rollout that is guarded by the alerts of this Prometheus, and soaks so long in its first step.
fn guarded(prometheus: &Prometheus, soak: &str, alerts: Value) -> Value {
    let mut all = json!({"resumeAfter": format!("{}s", QUIET.as_secs()), "heartbeat": "Watchdog"});
    super::merge(&mut all, &alerts);
    json!({
        "guardrails": {"source": {"url": prometheus.url()}, "alerts": all},
        "strategy": {"steps": [
            {"name": "one", "replicas": 1, "soak": soak},
            {"name": "all", "weight": 100, "soak": "1s"},
        ]},
    })
}

async fn soaks(stage: &Stage) -> Result<Value> {
    stage.until("soaking", |r| r["status"]["step"]["stage"] == "Soaking" && r["status"]["pause"].is_null()).await
}

/// Status and message of a condition.
fn condition(object: &Value, of: &str) -> (String, String) {
    let all = object["status"]["conditions"].as_array();
    let found = all.and_then(|all| all.iter().find(|c| c["type"] == of)).unwrap_or(&Value::Null);
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("message"))
}

/// For a while nothing about the gateway moves, and what holds the rollout is this still.
async fn stands_still(stage: &Stage, reason: &str) -> Result<()> {
    let generations = async || {
        let (old, new) = (stage.get(&stage.deployment(GW)).await?, stage.get(&stage.deployment(CANARY)).await?);
        anyhow::Ok([old, new].map(|d| (d["metadata"]["generation"].clone(), d["spec"]["replicas"].clone())))
    };
    let before = generations().await?;
    tokio::time::sleep(QUIET + Duration::from_secs(1)).await;
    let after = generations().await?;
    ensure!(before == after, "{before:?} became {after:?}");
    let object = stage.get(&stage.rollout()).await?;
    ensure!(object["status"]["pause"]["reason"] == reason, "{}", object["status"]["pause"]);
    Ok(())
}

async fn gate(stage: &Stage, wanted: f64) -> Result<()> {
    let labels = [("namespace", stage.ns.as_str()), ("name", stage.ns.as_str())];
    stage.controller()?.until(SOON, "revguard_alert_gate", &labels, |v| v == wanted).await.map(drop)
}

/// Asked to go back, it does, whatever Prometheus says.
async fn goes_back(stage: &Stage) -> Result<()> {
    stage.set(json!({"abort": true})).await?;
    stage.phase("RolledBack").await?;
    stage.is_as_before().await
}

async fn what_fires_holds_it_until_it_has_been_quiet() -> Result<()> {
    let stage = Stage::here("gate-holds").await?;
    let prometheus = prometheus(&stage, &[]).await?;
    stage.begin(guarded(&prometheus, "4s", json!({}))).await?;
    let soaking = soaks(&stage).await?;
    ensure!(condition(&soaking, "GuardrailsHealthy").0 == "True", "{soaking}");
    prometheus.rules(&rules(&[firing("CheckoutDown", json!({}))])).await?;
    let held = stage.paused("AlertFiring").await?;
    let message = held["status"]["pause"]["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("CheckoutDown") && message.contains("critical"), "{message}");
    ensure!(condition(&held, "GuardrailsHealthy") == ("False".into(), "alerts fire: CheckoutDown".into()), "{held}");
    gate(&stage, 1.0).await?;
    stands_still(&stage, "AlertFiring").await?;

    let since = Instant::now();
    prometheus.rules(&rules(&[])).await?;
    let on = stage.until("going on", |r| r["status"]["pause"].is_null()).await?;
    ensure!(since.elapsed() >= QUIET, "it went on after {:?}: {on}", since.elapsed());
    stage.phase("Completed").await?;
    stage.has_ready(CANARY, 2).await
}

async fn what_fires_sends_it_back_where_that_is_asked_for() -> Result<()> {
    let (asked, labelled) = (Stage::here("gate-aborts").await?, Stage::here("gate-label").await?);
    let prometheus = prometheus(&asked, &[]).await?;
    asked.begin(guarded(&prometheus, LONG, json!({"onFiring": "Abort"}))).await?;
    labelled.begin(guarded(&prometheus, LONG, json!({"matchers": ["severity=\"page\""]}))).await?;
    soaks(&asked).await?;
    soaks(&labelled).await?;
    // They fire all the way back, and nothing of that holds it.
    let alerts = [
        firing("CheckoutDown", json!({})),
        firing("GatewayBroken", json!({"severity": "page", "revguard_action": "abort"})),
    ];
    prometheus.rules(&rules(&alerts)).await?;
    for (stage, alert) in [(&asked, "CheckoutDown"), (&labelled, "GatewayBroken")] {
        let back = stage.phase("RolledBack").await?;
        let rollback = &back["status"]["rollback"];
        ensure!(rollback["reason"] == "AlertFiring", "{rollback}");
        ensure!(rollback["message"].as_str().is_some_and(|m| m.contains(alert)), "{rollback}");
        ensure!(back["status"]["completion"] == "RolledBack", "{back}");
        stage.is_as_before().await?;
    }
    Ok(())
}

async fn what_fires_before_it_starts_is_waited_for_or_ignored() -> Result<()> {
    let (waits, ignores) = (Stage::here("gate-waits").await?, Stage::here("gate-ignores").await?);
    let chronic = firing("DiskFull", json!({}));
    let prometheus = prometheus(&waits, std::slice::from_ref(&chronic)).await?;
    waits.begin(guarded(&prometheus, "1s", json!({}))).await?;
    ignores.begin(guarded(&prometheus, LONG, json!({"atStart": "IgnoreExisting"}))).await?;

    let waiting = waits.until("waiting for its alert", |r| r["status"]["state"] == "AlertFiring").await?;
    ensure!(waiting["status"]["phase"] == "Preflight", "{waiting}");
    for of in ["Ready", "GuardrailsHealthy"] {
        ensure!(condition(&waiting, of).1.contains("DiskFull"), "{of}: {waiting}");
    }
    let begun = soaks(&ignores).await?;
    ensure!(begun["status"]["ignoredAlerts"].as_array().is_some_and(|a| a.len() == 1), "{begun}");
    ensure!(waits.is_gone(&waits.deployment(CANARY)).await?, "it has begun although an alert fires");

    // Another one was not there when it began.
    prometheus.rules(&rules(&[chronic, firing("CheckoutDown", json!({}))])).await?;
    let held = ignores.paused("AlertFiring").await?;
    let message = held["status"]["pause"]["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("CheckoutDown") && !message.contains("DiskFull"), "{message}");
    goes_back(&ignores).await?;
    ensure!(waits.is_gone(&waits.deployment(CANARY)).await?, "it has begun although two alerts fire");

    prometheus.rules(&rules(&[])).await?;
    waits.phase("Completed").await?;
    waits.has_ready(CANARY, 2).await
}

async fn whoever_does_not_answer_lets_nothing_pass() -> Result<()> {
    let (stage, late) = (Stage::here("gate-blind").await?, Stage::here("gate-deaf").await?);
    let mut prometheus = prometheus(&stage, &[]).await?;
    stage.begin(guarded(&prometheus, LONG, json!({}))).await?;
    soaks(&stage).await?;
    prometheus.stop().await?;
    let held = stage.paused("PrometheusUnknown").await?;
    let (status, message) = condition(&held, "GuardrailsHealthy");
    ensure!(status == "Unknown" && message.contains(&prometheus.url()), "{status}: {message}");
    gate(&stage, 2.0).await?;
    // One that was not begun does not begin.
    late.begin(guarded(&prometheus, "1s", json!({}))).await?;
    stands_still(&stage, "PrometheusUnknown").await?;
    ensure!(late.is_gone(&late.deployment(CANARY)).await?, "it has begun although nobody answers");

    prometheus.start_again().await?;
    soaks(&stage).await?;
    gate(&stage, 0.0).await?;
    late.phase("Completed").await?;

    // It answers, and evaluates nothing: that nothing fires means nothing.
    prometheus.rules(&grouped(&[])).await?;
    let held = stage.paused("PrometheusUnknown").await?;
    let message = held["status"]["pause"]["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("heartbeat Watchdog"), "{message}");
    prometheus.stop().await?;
    goes_back(&stage).await
}

/// The errors of the new workload, which may be one in a hundred, of two hundred requests at least.
fn errors(on_failure: &str) -> Value {
    let of = |name: &str| format!(r#"{name}{{namespace="{{{{.namespace}}}}",workload="{{{{.newWorkload}}}}"}}"#);
    json!({"guardrails": {"metrics": [{
        "name": "errors", "query": of("gate_errors"), "max": 0.01, "window": "1s", "interval": "1s", "failureLimit": 1,
        "minSamplesQuery": of("gate_requests"), "minSamples": 200, "onFailure": on_failure,
    }]}})
}

async fn a_metric_passes_fails_or_says_nothing() -> Result<()> {
    let (stage, aborts) = (Stage::here("gate-metric").await?, Stage::here("gate-fails").await?);
    let measured = |requests: f64, part: f64| {
        let all =
            [&stage, &aborts].map(|s| [value("gate_requests", &s.ns, requests), value("gate_errors", &s.ns, part)]);
        rules(&all.concat())
    };
    let prometheus = prometheus(&stage, &[]).await?;
    prometheus.rules(&measured(10.0, 0.0)).await?;
    let with = |soak: &str, reaction: &str| {
        let mut spec = guarded(&prometheus, soak, json!({}));
        super::merge(&mut spec, &errors(reaction));
        spec
    };
    stage.begin(with("3s", "Pause")).await?;
    let held = stage.paused("MetricInconclusive").await?;
    let metric = &held["status"]["metrics"][0];
    ensure!(metric["result"] == "Inconclusive" && metric["message"] == "too few samples: 10 of 200", "{metric}");
    stands_still(&stage, "MetricInconclusive").await?;

    aborts.begin(with(LONG, "Abort")).await?;
    prometheus.rules(&measured(1000.0, 0.5)).await?;
    let held = stage.paused("MetricFailed").await?;
    let (metric, pause) = (&held["status"]["metrics"][0], &held["status"]["pause"]);
    ensure!(metric["result"] == "Failed" && metric["value"] == 0.5, "{metric}");
    ensure!(pause["needsHuman"] == true && pause["message"].as_str().is_some_and(|m| m.contains("errors")), "{pause}");
    let back = aborts.phase("RolledBack").await?;
    ensure!(back["status"]["rollback"]["reason"] == "MetricFailed", "{back}");
    aborts.is_as_before().await?;

    // It passes, and a person lets it go on.
    prometheus.rules(&measured(1000.0, 0.001)).await?;
    stands_still(&stage, "MetricFailed").await?;
    stage.approve("resume").await?;
    let done = stage.phase("Completed").await?;
    ensure!(done["status"]["metrics"][0]["result"] == "Passed", "{done}");
    stage.has_ready(CANARY, 2).await
}
