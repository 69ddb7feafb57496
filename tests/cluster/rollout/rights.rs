//! What a rollout asks the API server for is what its role grants: no right is missing, and none is there for nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use revguard::controller::access::{Role, grants};
use serde_json::json;

use super::{Stage, WHOLE, World};
use crate::controller::{HOME, SOON};
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(Controllers, what_rollouts_are_granted_is_what_they_use)]
}

async fn what_rollouts_are_granted_is_what_they_use() -> Result<()> {
    let stage = Stage::of(Arc::new(World::start().await?), "used").await?;
    let controller = stage.world.controller(&[]).await?;
    stage
        .begin(json!({"ttlAfterFinished": "2s", "strategy": {"promotion": "PatchOriginal", "steps": [
            {"name": "one", "replicas": 1, "soak": "1s", "approval": "Required"},
            {"name": "all", "weight": 100, "soak": "0s"},
        ]}}))
        .await?;
    stage.paused("Approval").await?;
    // The mesh configuration changes meanwhile, not where it leads to.
    const MESH: &str =
        "accessLogFile: /dev/stdout\ndefaultConfig:\n  discoveryAddress: istiod-1-24.istio-system.svc:15012\n";
    let original = "/api/v1/namespaces/istio-system/configmaps/istio-1-24";
    stage.env().merge(original, json!({"data": {"mesh": MESH}})).await?;
    let copy = stage.core("configmaps", "istio-1-24");
    stage.approve("one").await?;
    stage.phase("Completed").await?;
    stage.env().until(WHOLE, &copy, "a copy that followed", |c| c["data"]["mesh"] == MESH).await?;
    stage.set(json!({"abort": true})).await?;
    // Its time over, the object goes.
    stage.env().until_gone(WHOLE, &stage.rollout()).await?;
    stage.is_as_before().await?;

    let granted: BTreeSet<(String, String)> = grants()
        .into_iter()
        .filter(|g| g.role == Role::Rollouts)
        .flat_map(|g| g.verbs.iter().map(move |verb| ((*verb).to_owned(), g.resource.clone())).collect::<Vec<_>>())
        .collect();
    let by = format!("system:serviceaccount:{HOME}:revguard-controller");
    let entries = || -> Result<Vec<_>> {
        Ok(stage.env().plane.audit()?.into_iter().filter(|e| e.user().username == by).collect::<Vec<_>>())
    };
    wait_until(SOON, "every right of a rollout to be used", || async {
        let used: BTreeSet<(String, String)> = entries()
            .map_err(|e| format!("{e:#}"))?
            .into_iter()
            .filter(|e| e.object_ref.subresource.is_empty() && e.response_status.code < 300)
            .map(|e| (e.verb, e.object_ref.resource))
            .collect();
        let spare: Vec<_> = granted.difference(&used).collect();
        if spare.is_empty() { Ok(()) } else { Err(format!("granted and not used: {spare:?}")) }
    })
    .await?;
    let refused: Vec<String> = entries()?
        .into_iter()
        .filter(|e| e.response_status.code == 403)
        .map(|e| format!("{} {} {}", e.verb, e.object_ref.resource, e.object_ref.name))
        .collect();
    ensure!(refused.is_empty(), "asked for and not granted: {refused:?}");
    println!("rollouts: all of their {} rights are used, and no other", granted.len());
    drop(controller);
    Ok(())
}
