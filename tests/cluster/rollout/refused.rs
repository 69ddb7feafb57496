//! What stands against a rollout before it begins, and what the API server refuses while it goes on.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::forward::condition;
use super::{CANARY, GW, Stage, World};
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(Controllers, somebody_elses_deployment_is_never_touched),
        trial!(Controllers, planned_only_nothing_is_written),
        trial!(Controllers, one_at_a_time),
        trial!(Controllers, what_is_refused_is_said_and_goes_on_when_it_is_allowed),
        trial!(Controllers, an_istiod_that_is_gone_holds_it_and_ends_the_standby),
    ]
}

async fn somebody_elses_deployment_is_never_touched() -> Result<()> {
    let stage = Stage::here("taken").await?;
    let mut foreign = stage.get(&stage.deployment(GW)).await?;
    foreign["metadata"] = json!({"name": CANARY, "namespace": stage.ns, "labels": {"app": "mine"}});
    foreign["spec"]["replicas"] = json!(0);
    foreign["status"] = Value::Null;
    foreign["spec"]["selector"]["matchLabels"] = json!({"app": "mine"});
    foreign["spec"]["template"]["metadata"]["labels"] = json!({"app": "mine"});
    let path = stage.deployment(CANARY);
    let made = stage.env().create(path.trim_end_matches(&format!("/{CANARY}")), foreign).await?;
    stage.begin(json!({})).await?;
    let held = stage
        .until("a finding", |r| {
            let findings = r["status"]["preflight"].as_array().into_iter().flatten();
            let found = { findings }.any(|f| f["guard"] == "NameTaken");
            r["status"]["state"] == "PreflightFailed" && found && condition(r, "PreflightPassed") == "False"
        })
        .await?;
    ensure!(condition(&held, "Stalled") == "True", "{held}");
    stage.until_told("PreflightFailed: ", "NameTaken").await?;
    let now = stage.get(&path).await?;
    ensure!(now["metadata"]["generation"] == made["metadata"]["generation"], "{now}");
    // It goes on by itself.
    stage.env().delete(&path).await?;
    stage.phase("Completed").await.map(drop)
}

async fn planned_only_nothing_is_written() -> Result<()> {
    let stage = Stage::here("planned").await?;
    let began = stage.env().plane.audit()?.len();
    stage.begin(json!({"dryRun": true})).await?;
    let planned = stage
        .until("a plan", |r| r["status"]["phase"] == "Planned" && condition(r, "PreflightPassed") == "True")
        .await?;
    ensure!(planned["status"]["plan"].as_array().is_some_and(|p| p.len() > 8), "{planned}");
    println!("the plan: {}", planned["status"]["plan"]);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let writes: Vec<String> = stage
        .env()
        .plane
        .audit()?
        .into_iter()
        .skip(began)
        .filter(|e| e.user().username.ends_with(":revguard-controller") && e.object_ref.namespace == stage.ns)
        .filter(|e| !["get", "list", "watch"].contains(&e.verb.as_str()) && !e.request_uri.contains("dryRun=All"))
        .map(|e| format!("{} {}/{}", e.verb, e.object_ref.resource, e.object_ref.subresource))
        .filter(|w| w != "patch gatewayrollouts/status" && w != "create events/")
        .collect();
    ensure!(writes.is_empty(), "{writes:?}");
    stage.set(json!({"dryRun": false})).await?;
    stage.phase("Completed").await.map(drop)
}

async fn one_at_a_time() -> Result<()> {
    let stage = Stage::here("pair").await?;
    stage
        .begin(json!({"strategy": {"steps": [
            {"name": "one", "replicas": 1, "soak": "1s", "approval": "Required"},
            {"name": "all", "weight": 100, "soak": "0s"},
        ]}}))
        .await?;
    stage.paused("Approval").await?;
    let mut second = stage.get(&stage.rollout()).await?;
    second["metadata"] = json!({"name": "second", "namespace": stage.ns});
    second["status"] = Value::Null;
    second["spec"]["strategy"]["steps"] = json!([{"name": "all", "weight": 100, "soak": "0s"}]);
    let at = stage.rollout().replace("/gatewayrollouts/pair", "/gatewayrollouts/second");
    stage.env().create(at.trim_end_matches("/second"), second).await?;
    let held =
        stage.env().until(super::WHOLE, &at, "a wait for the first", |r| r["status"]["state"] == "LockHeld").await?;
    ensure!(held["status"]["phase"] == "Pending" && held["metadata"]["finalizers"].is_null(), "{held}");
    stage.approve("one").await?;
    stage.phase("Completed").await?;
    // What is done already cannot be done again, which it says instead of beginning.
    let after = stage
        .env()
        .until(super::WHOLE, &at, "its turn", |r| r["status"]["state"] != "LockHeld" && r["status"]["state"] != "")
        .await?;
    ensure!(after["status"]["phase"] != "Progressing", "{after}");
    Ok(())
}

async fn what_is_refused_is_said_and_goes_on_when_it_is_allowed() -> Result<()> {
    let stage = Stage::of(std::sync::Arc::new(World::start().await?), "rights").await?;
    let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/controller-rollout-rules";
    let mut rights = stage.get(binding).await?;
    rights["metadata"] = json!({"name": "controller-rollout-rules"});
    let grant =
        async || stage.env().create(binding.trim_end_matches("/controller-rollout-rules"), rights.clone()).await;
    let controller = stage.world.controller(&[]).await?;

    // Before it begins: the dry-runs ask for the same rights.
    stage.env().delete(binding).await?;
    stage
        .begin(json!({"strategy": {"steps": [
            {"name": "one", "replicas": 1, "soak": "1s", "approval": "Required"},
            {"name": "all", "weight": 100, "soak": "1s"},
        ]}}))
        .await?;
    let held = stage.until("a refusal", |r| r.to_string().contains("docs/access.md lists what is needed")).await?;
    ensure!(held["status"]["phase"] == "Preflight" && held["metadata"]["finalizers"].is_null(), "{held}");
    grant().await?;
    stage.paused("Approval").await?;

    // In the middle.
    stage.env().delete(binding).await?;
    stage.approve("one").await?;
    let held = stage.until("Hindered", |r| r["status"]["state"] == "Hindered").await?;
    ensure!(condition(&held, "Stalled") == "True" && held.to_string().contains("is forbidden"), "{held}");
    ensure!(stage.reasons().await?.contains(&"Hindered".to_owned()));
    grant().await?;
    let done = stage.phase("Completed").await?;
    ensure!(condition(&done, "Stalled") == "False", "{done}");

    // Somebody's admission policy.
    drop(controller);
    Ok(())
}

async fn an_istiod_that_is_gone_holds_it_and_ends_the_standby() -> Result<()> {
    let stage = Stage::of(std::sync::Arc::new(World::start().await?), "istiods").await?;
    let controller = stage.world.controller(&[]).await?;
    let slice = |rev: &str| format!("/apis/discovery.k8s.io/v1/namespaces/istio-system/endpointslices/istiod-{rev}-x1");
    let ready = async |rev: &str, ready: bool| {
        let change = json!([{"op": "replace", "path": "/endpoints/0/conditions/ready", "value": ready}]);
        stage.env().patch(&slice(rev), change).await.map(drop)
    };
    ready("1-24", false).await?;
    stage
        .begin(json!({"strategy": {"promotion": "PatchOriginal", "steps": [
            {"name": "one", "replicas": 1, "soak": "2s"},
            {"name": "all", "weight": 100, "soak": "1s"},
        ]}}))
        .await?;
    stage.until("a wait for istiod", |r| condition(r, "PreflightPassed") == "False").await?;
    ready("1-24", true).await?;
    stage.until("soaking", |r| r["status"]["step"]["stage"] == "Soaking").await?;
    ready("1-24", false).await?;
    stage.paused("ControlPlaneNotReady").await?;
    ready("1-24", true).await?;
    stage.phase("Completed").await?;

    // The old revision is uninstalled: there is no way back, and nothing to keep for it.
    let system = "/api/v1/namespaces/istio-system";
    for path in [
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-sidecar-injector-1-23".to_owned(),
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-revision-tag-prod".to_owned(),
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-revision-tag-default".to_owned(),
        "/apis/apps/v1/namespaces/istio-system/deployments/istiod-1-23".to_owned(),
        format!("{system}/services/istiod-revision-tag-prod"),
        format!("{system}/services/istiod-revision-tag-default"),
        format!("{system}/services/istiod-1-23"),
        format!("{system}/configmaps/istio-1-23"),
        format!("{system}/configmaps/istio-sidecar-injector-1-23"),
        slice("1-23"),
    ] {
        stage.env().delete(&path).await?;
    }
    stage.env().until_gone(super::WHOLE, &stage.deployment(super::OLD)).await?;
    let done = stage.until("no way back", |r| condition(r, "RollbackAvailable") == "False").await?;
    ensure!(done["status"]["phase"] == "Completed", "{done}");
    stage.has_ready(GW, 2).await?;
    drop(controller);
    Ok(())
}
