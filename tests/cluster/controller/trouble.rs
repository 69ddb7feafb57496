//! An API server that answers 429 and 500, that goes and returns, and one that lets us not see a kind.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;

use super::{Env, HOME, LATER, SOON, STATE};
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ApiServer, refusals_of_an_overloaded_api_server_are_survived),
        trial!(ApiServer, a_right_that_is_missing_is_named),
    ]
}

/// The API server gives our account no seat at all: every request is answered 429.
const NO_SEAT: &str = "
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: no-seat}
spec:
  type: Limited
  limited: {nominalConcurrencyShares: 0, lendablePercent: 0, borrowingLimitPercent: 0, limitResponse: {type: Reject}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: no-seat}
spec:
  priorityLevelConfiguration: {name: no-seat}
  matchingPrecedence: 2
  rules:
  - subjects: [{kind: ServiceAccount, serviceAccount: {name: revguard-controller, namespace: revguard-system}}]
    resourceRules: [{verbs: ['*'], apiGroups: ['*'], resources: ['*'], namespaces: ['*'], clusterScope: true}]
";

/// A webhook that nobody serves: every write of a report ends in 500.
const BROKEN_HOOK: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: nobody}
webhooks:
- name: nobody.revguard.test
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 1
  clientConfig: {url: 'https://127.0.0.1:1/'}
  rules: [{apiGroups: [wgpolicyk8s.io], apiVersions: ['*'], operations: ['*'], resources: ['*']}]
";

const WRONG: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled, istio.io/rev: prod}}
";

async fn refusals_of_an_overloaded_api_server_are_survived() -> Result<()> {
    let env = Env::start().await?;
    env.apply(BROKEN_HOOK).await?;
    env.apply(WRONG).await?;
    let mut controller = env.controller("", &["--certificates", "external"]).await?;
    controller.leads().await?;
    // 500: counted, everything else goes on.
    controller.until(LATER, "revguard_reconcile_errors_total", &[("loop", "reports")], |v| v >= 1.0).await?;
    env.until(SOON, STATE, "the MeshState all the same", |s| s["status"]["findings"]["error"] == 1).await?;
    env.delete(&format!("{}/nobody", super::VALIDATORS)).await?;
    let report = "/apis/wgpolicyk8s.io/v1alpha2/namespaces/shop/policyreports/revguard";
    env.until(SOON, report, "a report", |r| r["results"][0]["policy"] == "NS001").await?;

    // 429: the lease cannot be renewed, so nothing is written; the process lives and goes on afterwards.
    env.apply(NO_SEAT).await?;
    controller.until(SOON, "revguard_leader", &[], |v| v == 0.0).await?;
    let (status, said) = controller.get("/healthz").await?;
    ensure!(status == 200, "{said}");
    env.delete("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/no-seat").await?;
    controller.leads().await?;

    // Every watch is dropped, and what changed meanwhile is seen.
    env.plane.restart_apiserver().await?;
    env.merge("/api/v1/namespaces/shop", json!({"metadata": {"labels": {"istio-injection": null}}})).await?;
    env.until_gone(LATER, report).await?;
    controller.process.check()
}

async fn a_right_that_is_missing_is_named() -> Result<()> {
    let env = Env::start_without("cronjobs").await?;
    env.apply(WRONG).await?;
    let controller = env.controller("", &["--certificates", "external"]).await?;
    controller.leads().await?;
    wait_until(LATER, "the verb and the resource in the log", || async {
        let log = controller.log().map_err(|e| e.to_string())?;
        let line = log.lines().find(|l| l.contains("RBAC refuses") && l.contains(r#""resource":"cronjobs.batch""#));
        line.map(|_| ()).ok_or_else(|| "nothing about it".to_owned())
    })
    .await?;
    controller.until(LATER, "revguard_ready", &[], |v| v == 1.0).await?;
    // What needs it is unknown, the rest works.
    let state = env.until(LATER, STATE, "what is unknown", |s| s["status"]["unknown"][0].is_string()).await?;
    ensure!(state["status"]["unknown"].to_string().contains("listing cronjobs is forbidden"), "{state}");
    env.until(LATER, STATE, "a finding", |s| s["status"]["findings"]["error"] == 1).await?;
    let map = format!("/api/v1/namespaces/{HOME}/configmaps/revguard-guard");
    env.until(SOON, &map, "parameters", |m| m["data"]["backends"].is_string()).await.map(drop)
}
