//! An API server that answers 429 and 500, that goes and returns, and one that lets us not see a kind.

use anyhow::{Result, ensure};
use kube::Client;
use libtest_mimic::Trial;
use serde_json::json;

use super::{Controller, Env, LATER, PARAMETERS, SOON, STATE};
use crate::harness::Options;
use crate::harness::credentials;
use crate::harness::front::Front;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ApiServer, refusals_of_an_overloaded_api_server_are_survived),
        trial!(ApiServer, a_right_that_is_missing_is_named),
    ]
}

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
    let account = Client::try_from(credentials::config_of(&env.account).await?)?;
    let front = Front::start(account).await?;
    let kubeconfig = front.kubeconfig(env.plane.folder())?;
    let mut controller =
        Controller::start(env.plane.folder(), &kubeconfig, "", &["--certificates", "external"]).await?;
    controller.leads().await?;
    // 500 for one kind: counted, everything else goes on.
    controller.until(LATER, "revguard_reconcile_errors_total", &[("loop", "reports")], |v| v >= 1.0).await?;
    env.until(SOON, STATE, "the MeshState all the same", |s| s["status"]["findings"]["error"] == 1).await?;
    env.delete(&format!("{}/nobody", super::VALIDATORS)).await?;
    let report = "/apis/wgpolicyk8s.io/v1alpha2/namespaces/shop/policyreports/revguard";
    env.until(SOON, report, "a report", |r| r["results"][0]["policy"] == "NS001").await?;

    // 429 and 500 for everything: the lease cannot be renewed, so nothing is written; the process lives and goes on
    // afterwards.
    for status in [429, 500] {
        front.refuse(status);
        controller.until(SOON, "revguard_leader", &[], |v| v == 0.0).await?;
        let (alive, said) = controller.get("/healthz").await?;
        ensure!(alive == 200, "{status}: {said}");
        let refused = front.refused();
        ensure!(refused > 0, "nobody was refused");
        front.pass();
        controller.leads().await?;
        controller.audits(1).await?;
    }

    // Every watch is dropped, and what changed meanwhile is seen.
    front.cut();
    env.plane.restart_apiserver().await?;
    env.merge("/api/v1/namespaces/shop", json!({"metadata": {"labels": {"istio-injection": null}}})).await?;
    env.until_gone(LATER, report).await?;
    controller.process.check()
}

async fn a_right_that_is_missing_is_named() -> Result<()> {
    let env = Env::start_without("cronjobs", Options::with_controllers(&[])).await?;
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
    env.until(SOON, PARAMETERS, "parameters", |m| m["spec"]["backends"].is_array()).await.map(drop)
}
