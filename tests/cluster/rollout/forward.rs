//! The way forward, phase by phase, and what is left at its end.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::watch::Watch;
use super::{CANARY, GW, OLD, Stage, WHOLE};
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(Controllers, a_gateway_moves_and_keeps_its_service),
        trial!(Controllers, promoted_it_has_its_name_again_and_the_way_back_stays_open),
        trial!(Controllers, who_owns_the_original_moves_it),
        trial!(Controllers, a_step_waits_for_whoever_may_approve_it),
        trial!(Controllers, in_place_nothing_is_made_beside_it),
        trial!(Controllers, with_little_room_it_moves_pod_by_pod),
        trial!(Controllers, its_time_over_the_object_goes),
        trial!(Controllers, the_next_one_takes_what_this_one_leaves_behind),
    ]
}

async fn a_gateway_moves_and_keeps_its_service() -> Result<()> {
    let stage = Stage::here("keeps").await?;
    let service = stage.get(&stage.core("services", GW)).await?;
    let watch = Watch::start(&stage);
    stage.begin(json!({})).await?;
    let done = stage.phase("Completed").await?;
    let seen = watch.end().await?;
    let phases =
        ["Preflight", "Preparing", "Probing", "Progressing", "HandingOver", "Draining", "Finalizing", "Completed"];
    let told: Vec<&str> = seen.phases().into_iter().filter(|p| *p != "Pending").collect();
    ensure!(told == phases, "{:?}", seen.story);
    seen.kept_its_promises()?;

    let after = stage.get(&stage.core("services", GW)).await?;
    ensure!(after["spec"] == service["spec"] && after["metadata"]["uid"] == service["metadata"]["uid"], "{after}");
    ensure!(after["metadata"]["labels"]["istio.io/rev"] == "1-24", "an uninstallation of 1-23 would take it along");
    stage.has_ready(CANARY, 2).await?;
    stage.has_ready(GW, 0).await?;
    let source = stage.is_given_back().await?;
    ensure!(
        source["spec"]["replicas"] == 0 && source["spec"]["template"]["metadata"]["labels"]["istio.io/rev"] == "1-23"
    );
    let hpa = stage.get(&stage.hpa()).await?;
    ensure!(hpa["spec"]["scaleTargetRef"]["name"] == CANARY && hpa["spec"]["minReplicas"] == 1, "{hpa}");

    // The copy of the mesh configuration follows its original for as long as pods mount it.
    let copy = stage.core("configmaps", "istio-1-24");
    let uid = done["metadata"]["uid"].as_str().unwrap_or_default();
    ensure!(stage.get(&copy).await?["metadata"]["labels"]["revguard.dev/rollout"] == uid);

    // Every phase is an Event, and the metrics tell the same.
    let reasons = stage.reasons().await?;
    for phase in phases {
        ensure!(reasons.iter().any(|r| r == phase), "no Event {phase}: {reasons:?}");
    }
    let controller = stage.controller()?;
    let labels = |phase: &'static str| vec![("namespace", "keeps"), ("name", "keeps"), ("phase", phase)];
    ensure!(controller.metric("revguard_rollout_phase", &labels("Completed")).await? == 1.0);
    ensure!(controller.metric("revguard_rollout_phase", &labels("Draining")).await? == 0.0);
    ensure!(controller.metric("revguard_rollout_weight_endpoints", &labels("Completed")[..2]).await? == 1.0);
    let moved = [("phase_from", "Progressing"), ("phase_to", "HandingOver")];
    ensure!(controller.metric("revguard_rollout_transitions_total", &moved).await? >= 1.0);
    ensure!(controller.metric("revguard_rollouts_total", &[("completion", "Completed")]).await? >= 1.0);
    // They go with it.
    stage.env().delete(&stage.rollout()).await?;
    stage.env().until_gone(WHOLE, &stage.rollout()).await?;
    wait_until(WHOLE, "the end of its series", || async {
        let (_, text) = controller.get("/metrics").await.map_err(|e| e.to_string())?;
        let left = text.lines().find(|l| l.contains("name=\"keeps\""));
        left.map_or(Ok(()), |line| Err(line.to_owned()))
    })
    .await?;
    // What serves is nobody's to take along.
    stage.has_ready(CANARY, 2).await
}

async fn promoted_it_has_its_name_again_and_the_way_back_stays_open() -> Result<()> {
    let stage = Stage::here("promoted").await?;
    let watch = Watch::start(&stage);
    stage.begin(json!({"strategy": {"promotion": "PatchOriginal"}})).await?;
    let done = stage.phase("Completed").await?;
    let source = stage.get(&stage.deployment(GW)).await?;
    ensure!(source["spec"]["template"]["metadata"]["labels"]["istio.io/rev"] == "1-24", "{source}");
    stage.has_ready(GW, 2).await?;
    ensure!(stage.is_gone(&stage.deployment(CANARY)).await?, "the second Deployment is still there");
    let standby = stage.get(&stage.deployment(OLD)).await?;
    ensure!(standby["spec"]["replicas"] == 0, "{standby}");
    ensure!(standby["spec"]["template"]["metadata"]["labels"]["istio.io/rev"] == "1-23", "{standby}");
    let hpa = stage.get(&stage.hpa()).await?;
    ensure!(hpa["spec"]["scaleTargetRef"]["name"] == GW && hpa["spec"]["minReplicas"] == 1, "{hpa}");
    ensure!(condition(&done, "RollbackAvailable") == "True" && condition(&done, "Ready") == "True", "{done}");

    // After completion, back again.
    stage.set(json!({"abort": true})).await?;
    let back = stage.phase("RolledBack").await?;
    watch.end().await?.kept_its_promises()?;
    ensure!(back["status"]["completion"] == "Aborted", "{back}");
    stage.is_as_before().await
}

pub fn condition(object: &Value, of: &str) -> String {
    let all = object["status"]["conditions"].as_array().into_iter().flatten();
    let found = all.into_iter().find(|c| c["type"] == of);
    found.and_then(|c| c["status"].as_str()).unwrap_or_default().to_owned()
}

async fn who_owns_the_original_moves_it() -> Result<()> {
    let stage = Stage::here("external").await?;
    stage.begin(json!({"strategy": {"promotion": "AwaitExternal"}})).await?;
    stage.until("a wait for the owner", |r| r["status"]["state"] == "AwaitingExternal").await?;
    ensure!(stage.get(&stage.deployment(GW)).await?["spec"]["replicas"] == 0, "it is held without pods");
    stage.until_told("AwaitingExternal: waiting for ", "to move").await?;
    // What `helm upgrade` does.
    let template = json!({"metadata": {"labels": {"istio.io/rev": "1-24"}, "annotations": {"istio.io/rev": "1-24"}}});
    stage.env().merge(&stage.deployment(GW), json!({"spec": {"template": template}})).await?;
    let mount = json!([
        {"op": "replace", "path": "/spec/template/spec/volumes/1/configMap/name", "value": "istio-1-24"},
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "docker.io/istio/proxyv2:1.24.1"},
        {"op": "replace", "path": "/spec/template/spec/containers/0/env/1/value", "value": "istiod-1-24.istio-system.svc:15012"},
    ]);
    stage.env().patch(&stage.deployment(GW), mount).await?;
    stage.phase("Completed").await?;
    stage.has_ready(GW, 2).await?;
    ensure!(stage.is_gone(&stage.deployment(CANARY)).await?);
    Ok(())
}

async fn a_step_waits_for_whoever_may_approve_it() -> Result<()> {
    let stage = Stage::here("approval").await?;
    let steps = json!([
        {"name": "one", "replicas": 1, "soak": "1s", "approval": "Required"},
        {"name": "all", "weight": 100, "soak": "1s"},
    ]);
    stage.begin(json!({"strategy": {"steps": steps}})).await?;
    let paused = stage.paused("Approval").await?;
    ensure!(paused["status"]["step"]["stage"] == "AwaitingApproval", "{paused}");
    let uid = paused["metadata"]["uid"].as_str().unwrap_or_default();
    // Without a name beside it, and for another object, it is none.
    let forged = json!({"metadata": {"annotations": {"revguard.dev/approve": format!("{uid}/one")}}});
    stage.env().merge(&stage.rollout(), forged).await?;
    let copied = json!({"revguard.dev/approve": "0f0f/one", "revguard.dev/approved-by": "jane"});
    stage.env().merge(&stage.rollout(), json!({"metadata": {"annotations": copied}})).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(stage.get(&stage.rollout()).await?["status"]["pause"]["reason"] == "Approval", "a forged approval counts");
    stage.approve("one").await?;
    let done = stage.phase("Completed").await?;
    ensure!(
        done["status"]["approvals"][0]["by"] == "jane" && done["status"]["approvals"][0]["step"] == "one",
        "{done}"
    );
    ensure!(done["metadata"]["annotations"]["revguard.dev/approve"].is_null(), "it is consumed: {done}");
    Ok(())
}

async fn in_place_nothing_is_made_beside_it() -> Result<()> {
    let stage = Stage::here("in-place").await?;
    let watch = Watch::start(&stage);
    stage.begin(json!({"strategy": {"type": "PausedRolling", "promotion": "Auto"}})).await?;
    stage.phase("Completed").await?;
    let seen = watch.end().await?;
    seen.kept_its_promises()?;
    let source = stage.get(&stage.deployment(GW)).await?;
    ensure!(source["spec"]["template"]["metadata"]["labels"]["istio.io/rev"] == "1-24", "{source}");
    ensure!(
        source["spec"]["paused"] != true && source["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == "25%",
        "{source}"
    );
    stage.has_ready(GW, 2).await?;
    ensure!(stage.is_gone(&stage.deployment(CANARY)).await?);
    Ok(())
}

async fn with_little_room_it_moves_pod_by_pod() -> Result<()> {
    let stage = Stage::here("constrained").await?;
    let watch = Watch::start(&stage);
    stage.begin(json!({"strategy": {"capacity": {"mode": "Constrained", "maxSurge": 1}}})).await?;
    stage.phase("Completed").await?;
    watch.end().await?.kept_its_promises()?;
    stage.has_ready(CANARY, 2).await?;
    stage.has_ready(GW, 0).await
}

async fn its_time_over_the_object_goes() -> Result<()> {
    let stage = Stage::here("expires").await?;
    stage
        .begin(json!({"ttlAfterFinished": "2s", "strategy": {"steps": [{"name": "all", "weight": 100, "soak": "0s"}]}}))
        .await?;
    stage.env().until_gone(WHOLE, &stage.rollout()).await?;
    stage.has_ready(CANARY, 2).await
}

async fn the_next_one_takes_what_this_one_leaves_behind() -> Result<()> {
    let stage = Stage::here("onward").await?;
    let change = json!({"strategy": {"promotion": "PatchOriginal"}, "standby": {"keep": false}});
    stage.begin(change.clone()).await?;
    stage.phase("Completed").await?;
    stage.is_given_back().await?;
    let (copy, by_hand) = (stage.core("configmaps", "istio-1-24"), stage.core("configmaps", "istio-1-23"));
    ensure!(!stage.is_gone(&copy).await?, "pods mount it");

    let mut back = change;
    back["toRevision"] = json!("1-23");
    stage.begin_as("back", back).await?;
    let completed = |r: &Value| r["status"]["phase"] == "Completed";
    stage.env().until(WHOLE, &stage.rollout_named("back"), "phase Completed", completed).await?;
    stage.env().until_gone(WHOLE, &copy).await?;
    // The object of the first is there still, and does not make it anew when its original changes.
    let original = "/api/v1/namespaces/istio-system/configmaps/istio-1-24";
    stage.env().merge(original, json!({"metadata": {"labels": {"touched": "yes"}}})).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(stage.is_gone(&copy).await?, "nothing mounts it");
    ensure!(!stage.is_gone(&by_hand).await?, "somebody else has made it");
    Ok(())
}
