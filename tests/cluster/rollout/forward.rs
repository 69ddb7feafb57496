//! The way forward, phase by phase.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;

use super::{GW, Stage, Watch, core, deployment_path, hpa_path, labels};
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(Controllers, a_gateway_moves_and_keeps_its_service)]
}

async fn a_gateway_moves_and_keeps_its_service() -> Result<()> {
    let stage = Stage::start().await?;
    let service = stage.get(&core("services", GW)).await?;
    let controller = stage.controller(&[]).await?;
    let watch = Watch::start(&stage);
    stage.rollout(json!({})).await?;
    let done = stage.phase("Completed").await?;
    let seen = watch.end();
    ensure!(
        seen.phases() == ["Pending", "Preflight", "Preparing", "Probing", "Progressing", "HandingOver", "Draining", "Finalizing", "Completed"],
        "{:?}", seen.story
    );
    ensure!(seen.fewest >= Some(2), "{seen:?}");
    ensure!(seen.hpas == 1 && seen.pdbs == 1, "{seen:?}");
    let after = stage.get(&core("services", GW)).await?;
    ensure!(after["spec"] == service["spec"] && after["metadata"]["uid"] == service["metadata"]["uid"], "{after}");
    let canary = stage.get(&deployment_path("custom-gw-1-24")).await?;
    ensure!(canary["status"]["readyReplicas"] == 2, "{canary}");
    let source = stage.get(&deployment_path(GW)).await?;
    ensure!(source["spec"]["replicas"] == 0, "the old one is the standby: {source}");
    let hpa = stage.get(&hpa_path()).await?;
    ensure!(hpa["spec"]["scaleTargetRef"]["name"] == "custom-gw-1-24" && hpa["spec"]["minReplicas"] == 1, "{hpa}");
    let copy = stage.get(&core("configmaps", "istio-1-24")).await?;
    ensure!(labels(&copy)["revguard.dev/rollout"] == done["metadata"]["uid"].as_str().unwrap_or_default(), "{copy}");
    for event in stage.env.events("move").await? {
        println!("{event}");
    }
    drop(controller);
    Ok(())
}
