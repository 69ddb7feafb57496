//! What holds a rollout, and what lets it go on.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;

use super::forward::condition;
use super::{CANARY, GW, Stage};
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(Controllers, paused_it_stands_exactly_where_it_is),
        trial!(Controllers, listeners_that_are_rejected_hold_it),
        trial!(Controllers, pods_that_never_start_hold_it_at_the_deadline),
        trial!(Controllers, somebody_elses_changes_hold_it),
        trial!(Controllers, a_closed_window_holds_it),
        trial!(Controllers, a_lost_status_is_asked_about),
        trial!(Controllers, what_has_given_up_going_back_tries_again_when_told),
    ]
}

const LONG: &str = "60s";

/// Stops in the first step, for as long as it soaks.
fn long_first_step() -> serde_json::Value {
    json!({"strategy": {"steps": [
        {"name": "one", "replicas": 1, "soak": LONG},
        {"name": "all", "weight": 100, "soak": "1s"},
    ]}})
}

async fn paused_it_stands_exactly_where_it_is() -> Result<()> {
    let stage = Stage::here("paused").await?;
    stage.begin(long_first_step()).await?;
    stage.until("soaking", |r| r["status"]["step"]["stage"] == "Soaking").await?;
    stage.types("pause paused").await?;
    let paused = stage.paused("User").await?;
    let shown = stage.types("get paused").await?;
    ensure!(shown.contains("held by User"), "{shown}");
    ensure!(!condition(&paused, "Reconciling").is_empty(), "{paused}");
    let before = (stage.get(&stage.deployment(GW)).await?, stage.get(&stage.deployment(CANARY)).await?);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = (stage.get(&stage.deployment(GW)).await?, stage.get(&stage.deployment(CANARY)).await?);
    for (before, after) in [(&before.0, &after.0), (&before.1, &after.1)] {
        ensure!(before["metadata"]["generation"] == after["metadata"]["generation"], "{after}");
    }
    // A shorter soak is an edit of the step that it is at, and no past.
    let controller = stage.controller()?;
    let reason = [("namespace", "paused"), ("name", "paused"), ("reason", "User")];
    ensure!(controller.metric("revguard_rollout_paused", &reason).await? == 1.0);
    stage.types("resume paused").await?;
    stage.until("going on", |r| r["status"]["pause"].is_null()).await?;
    controller.until(crate::controller::SOON, "revguard_rollout_paused", &reason, |v| v == 0.0).await?;
    stage.types("abort paused").await?;
    // It is watched to its end.
    let watched = stage.types("get paused --watch").await?;
    ensure!(watched.contains("RolledBack"), "{watched}");
    stage.phase("RolledBack").await?;
    stage.is_as_before().await
}

async fn listeners_that_are_rejected_hold_it() -> Result<()> {
    let stage = Stage::here("rejected").await?;
    stage.begin(long_first_step()).await?;
    stage.until("soaking", |r| r["status"]["step"]["stage"] == "Soaking").await?;
    // Ready, and its Envoy rejects what it is sent: no probe of the kubelet notices.
    stage.node.set(|m| {
        m.rejecting.insert("1-24".to_owned());
    });
    let held = stage.paused("ListenersRejected").await?;
    ensure!(condition(&held, "Verified") != "True", "{held}");
    let replicas = stage.get(&stage.deployment(GW)).await?["spec"]["replicas"].clone();
    ensure!(replicas == 2, "{replicas} old pods");
    stage.set(json!({"abort": true})).await?;
    stage.phase("RolledBack").await?;
    stage.is_as_before().await
}

async fn pods_that_never_start_hold_it_at_the_deadline() -> Result<()> {
    let stage = Stage::here("deadline").await?;
    stage
        .begin(json!({"progressDeadline": "4s", "strategy": {"steps": [
            {"name": "one", "replicas": 1, "soak": "3s"},
            {"name": "all", "weight": 100, "soak": "1s"},
        ]}}))
        .await?;
    stage.until("soaking", |r| r["status"]["step"]["stage"] == "Soaking").await?;
    stage.node.set(|m| m.starting_unready = true);
    let held = stage.paused("DeadlineExceeded").await?;
    ensure!(held["status"]["pause"]["needsHuman"] == true, "{held}");
    stage.has_ready(GW, 2).await?;
    // A person lets it go on, and what was slow is there by then.
    stage.node.set(|m| m.starting_unready = false);
    stage.approve("resume").await?;
    stage.phase("Completed").await?;
    stage.has_ready(CANARY, 2).await
}

async fn somebody_elses_changes_hold_it() -> Result<()> {
    let stage = Stage::here("drift").await?;
    stage.begin(long_first_step()).await?;
    stage.until("soaking", |r| r["status"]["step"]["stage"] == "Soaking").await?;
    // The Service.
    let service = stage.core("services", GW);
    stage.env().merge(&service, json!({"spec": {"selector": {"istio.io/rev": "1-23"}}})).await?;
    stage.paused("ServiceChanged").await?;
    stage.env().merge(&service, json!({"spec": {"selector": {"istio.io/rev": null}}})).await?;
    stage.until("going on", |r| r["status"]["pause"].is_null()).await?;
    // One that old and new pods bear may stay, if a person says so.
    stage.env().merge(&service, json!({"spec": {"selector": {"service.istio.io/canonical-name": GW}}})).await?;
    stage.paused("ServiceChanged").await?;
    stage.approve("resume").await?;
    stage.until("going on", |r| r["status"]["pause"].is_null()).await?;
    // Its own Deployment.
    let env =
        json!({"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "NEW", "value": "1"}});
    stage.env().patch(&stage.deployment(GW), json!([env])).await?;
    let held = stage.paused("SourceDrift").await?;
    ensure!(held["status"]["pause"]["needsHuman"] == true, "{held}");
    // Whoever deletes it asks for the way back.
    stage.env().delete(&stage.rollout()).await?;
    stage.env().until_gone(super::WHOLE, &stage.rollout()).await?;
    ensure!(stage.is_gone(&stage.deployment(CANARY)).await?, "the second Deployment was left behind");
    stage.has_ready(GW, 2).await
}

async fn a_closed_window_holds_it() -> Result<()> {
    let stage = Stage::here("window").await?;
    // Whatever day it is: the minute in which one day ends is the only one.
    stage.begin(json!({"window": {"allow": ["Mon-Sun 23:59-24:00"]}})).await?;
    let held = stage.until("a closed window", |r| r["status"]["pause"]["reason"] == "WindowClosed").await?;
    ensure!(stage.is_gone(&stage.deployment(CANARY)).await?, "{held}");
    stage.set(json!({"window": {"allow": ["Mon-Sun 00:00-24:00"]}})).await?;
    stage.phase("Completed").await.map(drop)
}

async fn a_lost_status_is_asked_about() -> Result<()> {
    let stage = Stage::here("forgotten").await?;
    let steps = json!([{"name": "one", "replicas": 1, "soak": "6s"}, {"name": "all", "weight": 100, "soak": "1s"}]);
    stage.begin(json!({"strategy": {"steps": steps}})).await?;
    stage.until("soaking", |r| r["status"]["step"]["stage"] == "Soaking").await?;
    let lost = json!([{"op": "replace", "path": "/status", "value": {"conditions": []}}]);
    stage.env().patch(&format!("{}/status", stage.rollout()), lost).await?;
    let held = stage.paused("StatusLost").await?;
    ensure!(held["status"]["baseline"]["replicas"] == 2, "read back from the Deployment: {held}");
    stage.approve("resume").await?;
    stage.phase("Completed").await?;
    stage.has_ready(CANARY, 2).await?;
    stage.has_ready(GW, 0).await
}

async fn what_has_given_up_going_back_tries_again_when_told() -> Result<()> {
    let stage = Stage::here("stuck").await?;
    stage.begin(long_first_step()).await?;
    stage.until("soaking", |r| r["status"]["step"]["stage"] == "Soaking").await?;
    // Old pods are to take over again, and do not become ready.
    stage.node.set(|m| m.starting_unready = true);
    let pods = stage.core("pods", "");
    for pod in stage.get(&pods).await?["items"].as_array().into_iter().flatten() {
        let (name, labels) = (pod["metadata"]["name"].as_str().unwrap_or_default(), &pod["metadata"]["labels"]);
        if labels["istio.io/rev"] == "1-23" {
            stage.env().delete(&stage.core("pods", name)).await?;
        }
    }
    stage.set(json!({"abort": true})).await?;
    stage.until("the way back", |r| r["status"]["phase"] == "RollingBack").await?;
    // Stands for the half hour after which it gives up (tests/rollout, `RollingBack>Failed`): what it remembers is its status.
    let given_up = json!([
        {"op": "replace", "path": "/status/phase", "value": "Failed"},
        {"op": "add", "path": "/status/finishedAt", "value": "2026-01-01T00:00:00Z"},
    ]);
    stage.env().patch(&format!("{}/status", stage.rollout()), given_up).await?;
    stage.until("it to say so", |r| r["status"]["phase"] == "Failed" && condition(r, "Stalled") == "True").await?;
    stage.node.set(|m| m.starting_unready = false);
    stage.approve("resume").await?;
    let back = stage.phase("RolledBack").await?;
    ensure!(back["status"]["completion"] == "Aborted", "{back}");
    stage.is_as_before().await
}
