//! What the audit finds is told once and mended where policy says so, and the mending can be taken back.

use anyhow::{Context, Result, ensure};
use http::Method;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{Env, LATER, PARAMETERS, SOON, STATE, VALIDATORS};
use crate::harness::raw::APPLY;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ApiServer, a_broken_validator_is_mended_and_its_annotation_undoes_it),
        trial!(ApiServer, reports_are_written_once_and_only_on_change),
        trial!(ApiServer, what_we_do_not_own_is_left_alone),
    ]
}

fn service(validator: &Value) -> String {
    let service = &validator["webhooks"][0]["clientConfig"]["service"];
    format!("{}/{}", service["namespace"].as_str().unwrap_or(""), service["name"].as_str().unwrap_or(""))
}

fn condition<'a>(state: &'a Value, name: &str) -> &'a Value {
    let all = state["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|c| c["type"] == name).unwrap_or(&Value::Null)
}

/// As written by us.
fn is_recorded(object: &Value) -> bool {
    object["metadata"]["managedFields"].as_array().into_iter().flatten().any(|w| w["manager"] == "revguard")
}

async fn a_broken_validator_is_mended_and_its_annotation_undoes_it() -> Result<()> {
    let env = Env::start().await?;
    let at = format!("{VALIDATORS}/istiod-default-validator");
    let before = service(&env.get(&at).await?);
    // An interval far longer than this test: what changes, and graces that end, are seen all the same.
    let more = ["--certificates", "external", "--audit-interval", "15m"];
    let controller = env.controller("repair: all\n", &more).await?;
    controller.leads().await?;
    env.until(SOON, STATE, "a single validator", |s| condition(s, "ValidatorSingle")["status"] == "True").await?;

    let path = "/webhooks/0/clientConfig/service/name";
    env.patch(&at, json!([{"op": "replace", "path": path, "value": "istiod-gone"}])).await?;
    let state = env
        .until(SOON, STATE, "a dangling validator", |s| condition(s, "ValidatorSingle")["reason"] == "Dangling")
        .await?;
    ensure!(condition(&state, "ValidatorSingle")["observedGeneration"] == 1, "{state}");
    controller
        .until(SOON, "revguard_validator_dangling", &[("name", "istiod-default-validator")], |v| v == 1.0)
        .await?;

    let mended = env.until(LATER, &at, "a mended validator", |v| service(v) == before && !is_recorded(v)).await?;
    // Whoever owns it may write something else, without force, as Helm does.
    let mut other =
        json!({"name": mended["webhooks"][0]["name"], "sideEffects": "None", "admissionReviewVersions": ["v1"]});
    other["clientConfig"]["service"] = json!({"namespace": "istio-system", "name": "istiod-another"});
    let applied = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "istiod-default-validator"}, "webhooks": [other]});
    let as_helm = format!("{at}?fieldManager=helm&dryRun=All");
    env.ask(Method::PATCH, &as_helm, Some((APPLY, applied))).await?.expect(&as_helm)?;
    let record = mended["metadata"]["annotations"]["revguard.dev/repaired"].as_str().context("a record")?;
    let record: Value = serde_json::from_str(record)?;
    ensure!(record["undo"].is_array() && record["rule"].as_str().is_some_and(|r| r.starts_with("VW")), "{record}");
    let word = wait_until(SOON, "an Event", || async {
        let all = env.events("istiod-default-validator").await.map_err(|e| format!("{e:#}"))?;
        all.iter().find(|e| e.starts_with("Repaired: ")).cloned().ok_or(format!("{all:?}"))
    })
    .await?;
    ensure!(
        word.contains("To undo: kubectl annotate validatingwebhookconfiguration istiod-default-validator"),
        "{word}"
    );
    let rule = record["rule"].as_str().unwrap_or("").to_owned();
    ensure!(
        controller.metric("revguard_repairs_total", &[("code", &rule), ("result", "done")]).await? == 1.0,
        "one repair"
    );
    env.until(SOON, STATE, "a single validator again", |s| condition(s, "ValidatorSingle")["status"] == "True").await?;

    env.merge(&at, json!({"metadata": {"annotations": {"revguard.dev/repair": "undo"}}})).await?;
    let undone = env
        .until(SOON, &at, "an undone repair", |v| service(v) == "istio-system/istiod-gone" && !is_recorded(v))
        .await?;
    let annotations = &undone["metadata"]["annotations"];
    ensure!(annotations["revguard.dev/repair"] == "off" && annotations["revguard.dev/repaired"].is_null(), "{undone}");
    let version = undone["metadata"]["resourceVersion"].clone();
    env.until(SOON, STATE, "a dangling validator", |s| condition(s, "ValidatorSingle")["reason"] == "Dangling").await?;
    // Longer than the grace of what is wrong with it again.
    let quiet = std::time::Duration::from_secs(25);
    tokio::time::sleep(quiet).await;
    let left = env.get(&at).await?;
    ensure!(left["metadata"]["resourceVersion"] == version, "it was touched although repair is off: {left}");
    println!("mending: {rule} mended a validator that was led astray, and its annotation undid it");
    Ok(())
}

const WRONG: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled, istio.io/rev: prod}}
";

async fn reports_are_written_once_and_only_on_change() -> Result<()> {
    let env = Env::start().await?;
    env.apply(WRONG).await?;
    let controller = env.controller("", &["--certificates", "external"]).await?;
    let at = "/apis/wgpolicyk8s.io/v1alpha2/namespaces/shop/policyreports/revguard";
    let report = env.until(LATER, at, "a report", |r| r["results"][0]["policy"] == "NS001").await?;
    ensure!(report["summary"]["fail"] == 1, "{report}");
    let event = wait_until(SOON, "an Event", || async {
        let all = env.events("shop").await.map_err(|e| format!("{e:#}"))?;
        all.iter().find(|e| e.starts_with("NS001: [NS001 ")).cloned().ok_or(format!("{all:?}"))
    })
    .await?;
    let state = env.get(STATE).await?;
    let quiet = [env.writes("policyreports")?, env.writes("meshstates")?, env.writes("events")?];
    controller.audits(5).await?;
    let after = [env.writes("policyreports")?, env.writes("meshstates")?, env.writes("events")?];
    ensure!(quiet == after, "nothing changed, and yet: {quiet:?} {after:?}");
    ensure!(quiet[0] == ["create 201"], "{quiet:?}");
    ensure!(
        env.get(at).await?["metadata"]["resourceVersion"] == report["metadata"]["resourceVersion"],
        "written again"
    );
    ensure!(
        env.get(STATE).await?["metadata"]["resourceVersion"] == state["metadata"]["resourceVersion"],
        "written again"
    );
    let findings = controller.metric("revguard_audit_findings", &[("code", "NS001"), ("level", "error")]).await?;
    ensure!(findings == 1.0, "{findings}");

    // Another finding is another report; none is none.
    env.merge(
        "/api/v1/namespaces/shop",
        json!({"metadata": {"labels": {"istio-injection": "yes", "istio.io/rev": null}}}),
    )
    .await?;
    env.until(LATER, at, "another report", |r| r["results"][0]["policy"] == "NS003").await?;
    env.merge("/api/v1/namespaces/shop", json!({"metadata": {"labels": {"istio-injection": null}}})).await?;
    env.until_gone(SOON, at).await?;
    let all = env.writes("policyreports")?;
    ensure!(all.len() <= 5 && all.last().is_some_and(|w| w == "delete 200"), "{all:?}");
    println!("reports: {} writes for two findings that came and went; {event}", all.len());
    Ok(())
}

async fn what_we_do_not_own_is_left_alone() -> Result<()> {
    let env = Env::start().await?;
    let own = format!("{VALIDATORS}/revguard");
    let controller = env.controller("repair: all\n", &["--certificates", "external"]).await?;
    controller.leads().await?;
    let labels = [("name", "ValidatingWebhookConfiguration/revguard")];
    controller.until(SOON, "revguard_webhook_configuration_present", &labels, |v| v == 1.0).await?;
    // Deleted by hand: never made again by us.
    env.delete(&own).await?;
    wait_until(SOON, "a word about it", || async {
        let log = controller.log().map_err(|e| e.to_string())?;
        log.contains("our own webhook configuration is not there").then_some(()).ok_or_else(|| "none yet".to_owned())
    })
    .await?;
    let value = controller.metric("revguard_webhook_configuration_present", &labels).await?;
    ensure!(value == 0.0, "{value}");
    controller.audits(4).await?;
    ensure!(env.ask(http::Method::GET, &own, None).await?.status == 404, "it was made again");
    // Parameters that were changed by hand are put back, with nothing of others among them.
    env.until(SOON, PARAMETERS, "parameters", |m| m["spec"]["validators"][0] == "istiod-default-validator").await?;
    env.merge(PARAMETERS, json!({"spec": {"validators": ["nonsense"], "kept": {"mutating": {"nonsense": "no"}}}}))
        .await?;
    env.merge("/api/v1/namespaces/istio-system", json!({"metadata": {"labels": {"touched": "yes"}}})).await?;
    let restored = |m: &Value| {
        m["spec"]["validators"][0] == "istiod-default-validator" && m["spec"]["kept"]["mutating"]["nonsense"].is_null()
    };
    env.until(LATER, PARAMETERS, "parameters", restored).await.map(drop)
}
