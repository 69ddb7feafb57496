//! The way back: from every phase, by itself and because somebody wants it, and never past the pods that finish what they have.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::watch::Watch;
use super::{CANARY, GW, Stage, WHOLE};
use crate::controller::SOON;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(Controllers, a_probe_that_is_never_ready_turns_it_back),
        trial!(Controllers, a_probe_whose_listeners_are_rejected_turns_it_back),
        trial!(Controllers, ports_that_nobody_answers_turn_it_back),
        trial!(Controllers, a_request_that_fails_turns_it_back),
        trial!(Controllers, aborted_while_it_drains),
        trial!(Controllers, deleted_while_it_drains_it_goes_back_first),
        trial!(Controllers, deleted_to_freeze_it_waits_for_the_pods_set_apart),
        trial!(Controllers, connections_that_never_end_are_cut_in_the_end),
    ]
}

async fn turned_back(stage: &Stage, reason: &str) -> Result<Value> {
    let back = stage.phase("RolledBack").await?;
    ensure!(back["status"]["rollback"]["reason"] == reason, "{back}");
    ensure!(back["status"]["completion"] == "RolledBack", "{back}");
    stage.is_as_before().await?;
    Ok(back)
}

async fn a_probe_that_is_never_ready_turns_it_back() -> Result<()> {
    let stage = Stage::here("unready").await?;
    stage.node.set(|m| {
        m.unready.insert("1-24".to_owned());
    });
    stage.begin(json!({"probe": {"timeout": "3s"}})).await?;
    turned_back(&stage, "ProbeFailed").await.map(drop)
}

async fn a_probe_whose_listeners_are_rejected_turns_it_back() -> Result<()> {
    let stage = Stage::here("nack").await?;
    stage.node.set(|m| {
        m.rejecting.insert("1-24".to_owned());
    });
    stage.begin(json!({})).await?;
    let back = turned_back(&stage, "ProbeFailed").await?;
    let message = back["status"]["rollback"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("reject"), "{message}");
    Ok(())
}

async fn ports_that_nobody_answers_turn_it_back() -> Result<()> {
    let stage = Stage::here("deaf").await?;
    stage.node.set(|m| {
        m.deaf.insert("1-24".to_owned());
    });
    stage.begin(json!({"probe": {"timeout": "4s"}})).await?;
    let back = turned_back(&stage, "ProbeFailed").await?;
    let message = back["status"]["rollback"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("8080") || message.contains("8443"), "{message}");
    Ok(())
}

async fn a_request_that_fails_turns_it_back() -> Result<()> {
    let stage = Stage::here("wrong-answer").await?;
    let probe =
        |status: u16| json!([{"port": 8080, "host": "shop.example.com", "path": "/healthz", "expectStatus": [status]}]);
    stage.begin(json!({"probe": {"timeout": "4s", "http": probe(404)}})).await?;
    let back = turned_back(&stage, "ProbeFailed").await?;
    let message = back["status"]["rollback"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("http://shop.example.com/healthz at port 8080: HTTP 200"), "{message}");
    stage.env().delete(&stage.rollout()).await?;
    stage.env().until_gone(WHOLE, &stage.rollout()).await?;
    stage.begin(json!({"probe": {"http": probe(200)}})).await?;
    stage.phase("Completed").await.map(drop)
}

/// Pods that are set apart and have work left.
async fn apart(stage: &Stage) -> Result<Vec<Value>> {
    let pods = stage.get(&stage.core("pods", "")).await?;
    let all = pods["items"].as_array().context("items")?.iter();
    Ok(all.filter(|p| !p["metadata"]["annotations"]["revguard.dev/apart-since"].is_null()).cloned().collect())
}

/// Up to the moment when a pod is apart and does not end by itself.
async fn draining(stage: &Stage, change: Value) -> Result<Value> {
    stage.node.set(|m| m.busy.push("1-23".to_owned()));
    stage.begin(change).await?;
    stage
        .until("a pod set apart", |r| {
            r["status"]["phase"] == "Draining" && r["status"]["apart"][0]["connections"].as_u64().is_some_and(|c| c > 0)
        })
        .await
}

async fn aborted_while_it_drains() -> Result<()> {
    let stage = Stage::here("aborted").await?;
    let watch = Watch::start(&stage);
    draining(&stage, json!({})).await?;
    let before = apart(&stage).await?;
    ensure!(!before.is_empty(), "nobody is apart");
    stage.set(json!({"abort": true})).await?;
    stage.until("the way back", |r| r["status"]["phase"] == "RollingBack").await?;
    for pod in &before {
        let name = pod["metadata"]["name"].as_str().context("a name")?;
        ensure!(!stage.is_gone(&stage.core("pods", name)).await?, "{name} was cut");
    }
    stage.node.set(|m| m.busy.clear());
    let back = stage.phase("RolledBack").await?;
    ensure!(back["status"]["completion"] == "Aborted", "{back}");
    watch.end().await?.kept_its_promises()?;
    // Those that finish what they have may outlast the way back, but not for long.
    stage.until("the last pod set apart", |r| r["status"]["apart"].is_null()).await?;
    stage.is_as_before().await
}

async fn deleted_while_it_drains_it_goes_back_first() -> Result<()> {
    let stage = Stage::here("deleted").await?;
    let watch = Watch::start(&stage);
    draining(&stage, json!({})).await?;
    stage.env().delete(&stage.rollout()).await?;
    stage.until("the way back", |r| r["status"]["phase"] == "RollingBack").await?;
    stage.node.set(|m| m.busy.clear());
    stage.env().until_gone(WHOLE, &stage.rollout()).await?;
    watch.end().await?.kept_its_promises()?;
    stage.is_as_before().await
}

async fn deleted_to_freeze_it_waits_for_the_pods_set_apart() -> Result<()> {
    let stage = Stage::here("frozen").await?;
    draining(&stage, json!({"onDelete": "Freeze"})).await?;
    let before = apart(&stage).await?;
    stage.env().delete(&stage.rollout()).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for pod in &before {
        let name = pod["metadata"]["name"].as_str().context("a name")?;
        ensure!(!stage.is_gone(&stage.core("pods", name)).await?, "{name} was cut by the end of its owner");
    }
    stage.node.set(|m| m.busy.clear());
    stage.env().until_gone(WHOLE, &stage.rollout()).await?;
    ensure!(apart(&stage).await?.is_empty(), "a pod set apart was forgotten");
    // Everything else is where it was.
    stage.has_ready(CANARY, 2).await?;
    ensure!(
        stage.get(&stage.deployment(GW)).await?["metadata"]["annotations"]["revguard.dev/active-rollout"].is_null()
    );
    Ok(())
}

async fn connections_that_never_end_are_cut_in_the_end() -> Result<()> {
    let stage = Stage::here("endless").await?;
    draining(&stage, json!({"strategy": {"drain": {"maxWait": "4s"}}})).await?;
    stage.phase("Completed").await?;
    // Nothing waits for them, the rollout's end neither.
    wait_until(SOON, "somebody to say what was cut", || async {
        let events = stage.env().events("endless").await.map_err(|e| format!("{e:#}"))?;
        if events.iter().any(|e| e.starts_with("ConnectionsCut")) { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await
}
