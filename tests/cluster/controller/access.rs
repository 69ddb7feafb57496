//! What the two processes really ask the API server for is what the chart's roles grant them: no right is missing, and none
//! is there for nothing.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use revguard::controller::access::{Role, grants};
use revguard::rules::RULES;
use serde_json::{Value, json};

use super::{Env, HOME, INJECTORS, LATER, SOON, VALIDATORS};
use crate::harness::Options;
use crate::harness::binary::Binary;
use crate::harness::objects::Scope;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(ApiServer, what_is_granted_is_what_is_used)]
}

/// What the chart passes.
const MORE: [&str; 4] = ["--certificates", "own", "--admission-policy-interval", "5s"];

/// Half-made tags, a leftover, a tag that leads nowhere: one for every write that a repair may make.
const BROKEN: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: asks-blue, labels: {istio.io/rev: blue}}
---
apiVersion: v1
kind: Namespace
metadata: {name: asks-prod, labels: {istio.io/rev: prod}}
---
apiVersion: v1
kind: Namespace
metadata: {name: wrong, labels: {istio-injection: enabled, istio.io/rev: prod}}
---
apiVersion: v1
kind: Namespace
metadata: {name: wrong-too, labels: {istio-injection: maybe}}
---
apiVersion: v1
kind: Service
metadata: {name: istiod-revision-tag-blue, namespace: istio-system, labels: {app: istiod, istio.io/rev: '1-23', istio.io/tag: blue}}
spec: {selector: {app: istiod, istio.io/rev: '1-23'}, ports: [{name: https-webhook, port: 443, targetPort: 15017}]}
---
apiVersion: v1
kind: Service
metadata: {name: istiod-revision-tag-grey, namespace: istio-system, labels: {app: istiod, istio.io/rev: '1-23', istio.io/tag: grey}}
spec: {selector: {app: istiod, istio.io/rev: '1-23'}, ports: [{name: https-webhook, port: 443, targetPort: 15017}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: istio-galley}
webhooks:
- name: pilot.validation.istio.io
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {name: istio-galley, namespace: istio-system, path: /admitpilot}}
  failurePolicy: Fail
  rules: [{apiGroups: [networking.istio.io], apiVersions: ['*'], operations: [CREATE, UPDATE], resources: ['*']}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: revguard}
webhooks:
- name: mutations.revguard.dev
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  clientConfig: {service: {name: revguard-webhook, namespace: revguard-system, path: /mutate}}
  objectSelector: {matchLabels: {nobody: has-this}}
  rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [namespaces]}]
";

/// A rollout that is only looked at, and what guards it. Nobody answers there.
const ROLLOUT: &str = "
apiVersion: revguard.dev/v1alpha1
kind: PrometheusSource
metadata: {name: here}
spec: {url: 'https://127.0.0.1:9', bearerTokenKey: token}
---
apiVersion: revguard.dev/v1alpha1
kind: GatewayRollout
metadata: {name: edge, namespace: edge}
spec:
  target: {deployment: {name: custom-gw}}
  toRevision: 1-24
  dryRun: true
  guardrails: {source: {prometheusRef: {name: here}}, alerts: {}}
";

fn path(service: &str) -> String {
    format!("/api/v1/namespaces/istio-system/services/{service}")
}

/// Copies a tag's webhooks to another tag, revision and Service.
async fn tag(env: &Env, name: &str, revision: &str) -> Result<()> {
    let text = env.get(&format!("{INJECTORS}/istio-revision-tag-prod")).await?.to_string();
    let mut copy: Value = serde_json::from_str(&text.replace("\"prod\"", &format!("\"{name}\"")))?;
    copy["metadata"] = json!({
        "name": format!("istio-revision-tag-{name}"),
        "labels": {"app": "sidecar-injector", "istio.io/rev": revision, "istio.io/tag": name},
    });
    for hook in copy["webhooks"].as_array_mut().context("webhooks")? {
        hook["clientConfig"]["service"]["name"] = json!(format!("istiod-{revision}"));
    }
    env.create(INJECTORS, copy).await.map(drop)
}

async fn what_is_granted_is_what_is_used() -> Result<()> {
    // An API server that streams its first lists needs no right to list; older ones do.
    let mut options = Options::with_controllers(&[]);
    options.apiserver.push("--feature-gates=WatchList=false".to_owned());
    let env = Env::start_without("", options).await?;
    // Versions from 1.28 on make a Service with every tag.
    let image =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "istio/pilot:1.24.1"}]);
    env.patch("/apis/apps/v1/namespaces/istio-system/deployments/istiod-1-24", image).await?;
    env.apply(BROKEN).await?;
    // But for what an istiod would have to judge.
    let gateway = crate::rollout::GATEWAY.replace("HERE", "edge");
    let parts: Vec<&str> = gateway.split("\n---\n").filter(|part| !part.contains("networking.istio.io")).collect();
    env.apply(&parts.join("\n---\n")).await?;
    env.apply(ROLLOUT).await?;
    tag(&env, "nowhere", "1-77").await?;
    // The webhooks of prod carry a label that no istiod knows, and lead to 1-23 as its Service does.
    let prod = format!("{INJECTORS}/istio-revision-tag-prod");
    env.merge(&prod, json!({"metadata": {"labels": {"istio.io/rev": "1-22"}}})).await?;
    let astray = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/service/name", "value": "istiod-gone"}]);
    env.patch(&format!("{VALIDATORS}/istio-validator-1-24-istio-system"), astray).await?;
    env.delete(&format!("{VALIDATORS}/istiod-default-validator")).await?;
    // The Service of the default tag lags behind its webhooks.
    let old = json!({"metadata": {"labels": {"istio.io/rev": "old"}}, "spec": {"selector": {"istio.io/rev": "old"}}});
    env.merge(&path("istiod-revision-tag-default"), old).await?;

    let controller = env.controller("repair: all\n", &MORE).await?;
    controller.leads().await?;
    let webhook = webhook(&env).await?;
    webhook.ready().await?;

    env.until(LATER, &format!("{INJECTORS}/istio-revision-tag-blue"), "a tag that is completed", |_| true).await?;
    env.until(LATER, &prod, "a label that is put right", |m| m["metadata"]["labels"]["istio.io/rev"] == "1-23").await?;
    env.until_gone(LATER, &path("istiod-revision-tag-grey")).await?;
    env.until_gone(LATER, &format!("{INJECTORS}/istio-revision-tag-nowhere")).await?;
    env.until(LATER, &format!("{VALIDATORS}/istiod-default-validator"), "the default validator", |_| true).await?;
    env.until_gone(LATER, &format!("{VALIDATORS}/istio-galley")).await?;
    let undo = env.get(&format!("/api/v1/namespaces/{HOME}/configmaps/revguard-undo")).await?;
    let copy = undo["data"]["validatingwebhookconfigurations.istio-galley"].as_str().context("a copy")?;
    ensure!(
        copy.contains("# kubectl get configmap revguard-undo -n revguard-system") && copy.contains("VW006"),
        "{copy}"
    );
    // Put back by the command that stands there, it stays.
    let put_back = env.plane.kubectl_as(&env.plane.kubeconfig(), &["create", "-f", "-"], copy).await?;
    ensure!(put_back.status.success(), "{}", String::from_utf8_lossy(&put_back.stderr));
    reports(&env, &controller, "wgpolicyk8s.io/v1alpha2", ["policyreports", "clusterpolicyreports"]).await?;
    ensure!(
        env.get(&format!("{VALIDATORS}/istio-galley")).await?["kind"].is_string(),
        "what was put back is gone again"
    );

    // The newer versions' way, and the newer API of reports, which a new leader finds.
    let image =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "istio/pilot:1.28.1"}]);
    env.patch("/apis/apps/v1/namespaces/istio-system/deployments/istiod-1-24", image).await?;
    tag(&env, "green", "1-24").await?;
    let mut scope = Scope::new(&env.plane);
    let (group, version) = ("openreports.io", "v1alpha1");
    scope
        .apply(&[
            super::reports(group, version, "Report", "reports", true),
            super::reports(group, version, "ClusterReport", "clusterreports", false),
        ])
        .await?;
    scope.leave();
    drop(controller);
    let controller = env.controller("repair: all\n", &MORE).await?;
    controller.leads().await?;
    env.until(LATER, &path("istiod-revision-tag-green"), "a tag's Service", |_| true).await?;
    reports(&env, &controller, "openreports.io/v1alpha1", ["reports", "clusterreports"]).await?;

    // Compared once everything has been done, because a watch begins when its CRD is found.
    let granted_to = |roles: &[Role]| -> BTreeSet<(String, String)> {
        let all = grants().into_iter().filter(|g| roles.contains(&g.role));
        all.flat_map(|g| {
            let name = if g.group.is_empty() { g.resource.clone() } else { format!("{}.{}", g.resource, g.group) };
            g.verbs.iter().map(move |verb| ((*verb).to_owned(), name.clone()))
        })
        .collect()
    };
    for (account, roles) in [
        ("revguard-webhook", &[Role::Webhook, Role::WebhookNamespace][..]),
        ("revguard-controller", &[Role::Controller, Role::ControllerNamespace, Role::Repairs][..]),
    ] {
        let granted = granted_to(roles);
        wait_until(SOON, &format!("every right of {account} to be used"), || async {
            let used = used(&env, account).map_err(|e| format!("{e:#}"))?;
            let spare: Vec<_> = granted.difference(&used).collect();
            if spare.is_empty() { Ok(()) } else { Err(format!("granted and not used: {spare:?}")) }
        })
        .await?;
        let mut used = used(&env, account)?;
        if account == "revguard-controller" {
            // Whether these are all used is asked where a rollout goes its whole way (`rollout::rights`).
            let of_rollouts = granted_to(&[Role::Rollouts]);
            used.retain(|right| !of_rollouts.contains(right));
        }
        let missing: Vec<_> = used.difference(&granted).collect();
        ensure!(missing.is_empty(), "{account} asks for more than is granted: {missing:?}");
        println!("access: {account} uses all of its {} rights and no other", granted.len());
    }
    let refused: Vec<String> = env
        .plane
        .audit()?
        .into_iter()
        .filter(|e| {
            e.user().username.starts_with(&format!("system:serviceaccount:{HOME}:")) && e.response_status.code == 403
        })
        .map(|e| format!("{} {} {}", e.verb, e.object_ref.resource, e.object_ref.name))
        .collect();
    ensure!(refused.is_empty(), "refused: {refused:?}");
    Ok(())
}

/// The webhook, with the Secret that the controller fills.
async fn webhook(env: &Env) -> Result<Binary> {
    let account = env.plane.kubeconfig_of_service_account(HOME, "revguard-webhook").await?;
    Binary::bare(env.plane.folder(), &account, &["--tls-secret", "revguard-webhook-tls", "--namespace", HOME]).await
}

/// Reports are made, change and go when rules are switched off.
async fn reports(env: &Env, controller: &super::Controller, api: &str, plurals: [&str; 2]) -> Result<()> {
    let namespaced = |ns: &str| format!("/apis/{api}/namespaces/{ns}/{}/revguard", plurals[0]);
    let cluster = format!("/apis/{api}/{}/revguard", plurals[1]);
    env.until(LATER, &namespaced("wrong"), "a report", |r| r["results"][0]["policy"] == "NS001").await?;
    env.until(LATER, &cluster, "a report of the cluster", |r| r["results"][0].is_object()).await?;
    let before = env.get(&namespaced("wrong")).await?["metadata"]["resourceVersion"].clone();
    let whole = env.get(&cluster).await?["metadata"]["resourceVersion"].clone();
    // A rule that is only recorded is another result; one about validators changes the cluster's report.
    std::fs::write(&controller.policy, "repair: all\nrules: {NS001: Warn, VW009: Warn, MW007: Audit}\n")?;
    env.until(SOON, &namespaced("wrong"), "a changed report", |r| r["metadata"]["resourceVersion"] != before).await?;
    env.until(SOON, &cluster, "a changed report", |r| r["metadata"]["resourceVersion"] != whole).await?;
    let off: Vec<String> = RULES.iter().map(|r| format!("{}: Off", r.code)).collect();
    std::fs::write(&controller.policy, format!("rules: {{{}}}\n", off.join(", ")))?;
    env.until_gone(SOON, &namespaced("wrong")).await?;
    env.until_gone(SOON, &cluster).await
}

/// What an account asked for, with or without success.
fn used(env: &Env, account: &str) -> Result<BTreeSet<(String, String)>> {
    let by = format!("system:serviceaccount:{HOME}:{account}");
    let ours = env.plane.audit()?.into_iter().filter(|e| e.user().username == by && !e.object_ref.resource.is_empty());
    Ok(ours
        .map(|e| {
            let at = e.object_ref;
            let resource =
                if at.subresource.is_empty() { at.resource } else { format!("{}/{}", at.resource, at.subresource) };
            (e.verb, if at.api_group.is_empty() { resource } else { format!("{resource}.{}", at.api_group) })
        })
        .collect())
}
