//! Every way to write, as people do it, and what they read.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use http::Method;
use libtest_mimic::Trial;
use revguard::model::Kind;
use revguard::wire::{KINDS, row};
use serde_json::{Value, json};

use super::{Env, HOOK, SOON, Said, case, namespace, prefix};
use crate::harness::binary::{Binary, PROGRAM};
use crate::harness::objects::Scope;
use crate::harness::raw::{As, JSON, send};
use crate::harness::wait::wait_until;
use crate::harness::{Options, crds};
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(ApiServer, every_verb_says_what_the_golden_text_says)]
}

const CREATING: &str = "error when creating \"STDIN\": ";

async fn every_verb_says_what_the_golden_text_says() -> Result<()> {
    let mut env = Env::start(Options::with_controllers(&[]), &[]).await?;
    let mut binary = env.replica(&[]).await?;
    env.balancer.set(&[binary.address]);
    let registration = env.register("Fail").await?;

    create(&mut env, &binary).await?;
    apply_by_another(&env).await?;
    scale_and_delete(&mut env, &binary).await?;
    offline_tools_live(&env).await?;
    definition_installed_later(&mut env, &binary).await?;
    // All of that was one process.
    binary.process.check()?;
    registration.remove().await
}

async fn create(env: &mut Env, binary: &Binary) -> Result<()> {
    let (both, golden) = case("ns001/both.yaml")?;
    env.stage(&both, binary).await?;
    let text = both.request.raw.to_string();
    env.jane(&["create", "-f", "-"], &text).await?.denied(CREATING, &golden)?;
    env.jane(&["create", "--dry-run=server", "-f", "-"], &text).await?.denied(CREATING, &golden)?;
    let fine = namespace("fine", json!({"istio.io/rev": "prod"})).to_string();
    let said = env.jane(&["create", "--dry-run=server", "-f", "-"], &fine).await?.passed()?;
    assert_eq!(said, "namespace/fine created (server dry run)");
    let left = env.jane(&["get", "namespace", "fine", "shop", "--ignore-not-found", "-o", "name"], "").await?;
    assert_eq!(left.passed()?, "");

    // What programs read: the code, the reason, and one cause a finding.
    let jane = env.plane.user("jane", &["people"]).await?;
    let answer =
        send(&jane, Method::POST, "/api/v1/namespaces", Some((JSON, &both.request.raw)), &As::default()).await?;
    assert_eq!((answer.status, answer.body["reason"].as_str()), (403, Some("Forbidden")));
    assert_eq!(answer.message(), format!("{}{golden}", prefix()));
    let causes = answer.body["details"]["causes"].as_array().context("causes")?;
    ensure!(causes.len() == 1 && causes[0]["reason"] == "NS001", "{causes:?}");
    let field = causes[0]["field"].as_str().unwrap_or_default();
    ensure!(field.starts_with("metadata.labels"), "{causes:?}");

    audited(env).await?;

    // A warning is printed, and the write goes through.
    let (warned, golden) = case("tag001/helm-applies-services-first.yaml")?;
    env.stage(&warned, binary).await?;
    let said = env.jane(&["create", "-f", "-"], &warned.request.raw.to_string()).await?;
    assert_eq!(format!("allowed\n{}", said.err), golden);
    said.passed().map(drop)
}

/// The API server's audit log holds the codes and how old the view was.
async fn audited(env: &Env) -> Result<()> {
    wait_until(SOON, "the audit entry of a denial", || async {
        let entries = env.plane.audit().map_err(|error| format!("{error:#}"))?;
        let found = entries.into_iter().find(|entry| {
            let note = |key: &str| entry.annotations.get(&format!("{HOOK}/{key}"));
            entry.verb == "create"
                && entry.object_ref.resource == "namespaces"
                && entry.response_status.code == 403
                && entry.user().username == "jane"
                && note("denied").is_some_and(|codes| codes == "NS001")
                && note("snapshot-age").is_some_and(|age| age.ends_with('s') && age.contains(' '))
        });
        found.map(drop).ok_or_else(|| "no such entry".to_owned())
    })
    .await
}

/// One manager sets one label, another adds the other: the second is denied, and nothing changes.
async fn apply_by_another(env: &Env) -> Result<()> {
    let apply = |manager: &'static str| ["apply", "--server-side", "--field-manager", manager, "-f", "-"];
    let one = namespace("shared", json!({"istio.io/rev": "prod"})).to_string();
    let other = namespace("shared", json!({"istio-injection": "enabled"})).to_string();
    env.jane(&apply("flux"), &one).await?.passed()?;
    let denied = env.jane(&apply("argocd"), &other).await?;
    let words = format!("Error from server (Forbidden): {}[NS001 ", prefix());
    ensure!(denied.code == Some(1) && denied.err.starts_with(&words), "{}", denied.err);
    let labels = env.jane(&["get", "namespace", "shared", "-o", "jsonpath={.metadata.labels}"], "").await?.passed()?;
    let labels: Value = serde_json::from_str(&labels)?;
    assert_eq!(labels, json!({"istio.io/rev": "prod", "kubernetes.io/metadata.name": "shared"}));
    env.jane(&["delete", "namespace", "shared", "--wait=false"], "").await?.passed().map(drop)
}

async fn scale_and_delete(env: &mut Env, binary: &Binary) -> Result<()> {
    let (scaled, golden) = case("cp002/scaled.yaml")?;
    env.stage(&scaled, binary).await?;
    let to = |replicas: &'static str| ["scale", "deployment/istiod-1-23", "-n", "istio-system", replicas];
    env.jane(&to("--replicas=0"), "").await?.denied("", &golden)?;
    env.jane(&to("--replicas=3"), "").await?.passed()?;

    let (deleted, golden) = case("cp002/deleted.yaml")?;
    env.stage(&deleted, binary).await?;
    let delete = ["delete", "deployment/istiod-1-23", "-n", "istio-system"];
    env.jane(&delete, "").await?.denied("", &golden)?;
    env.jane(&[&delete[..], &["--dry-run=server"]].concat(), "").await?.denied("", &golden)?;
    let jane = env.plane.user("jane", &["people"]).await?;
    let all = "/apis/apps/v1/namespaces/istio-system/deployments?labelSelector=istio.io%2Frev%3D1-23";
    let answer = send(&jane, Method::DELETE, all, None, &As::default()).await?;
    assert_eq!((answer.status, answer.message()), (403, format!("{}{golden}", prefix()).as_str()));
    let left = env.jane(&["get", "deployment", "istiod-1-23", "-n", "istio-system", "-o", "name"], "").await?;
    assert_eq!(left.passed()?, "deployment.apps/istiod-1-23");
    Ok(())
}

/// `check` and `resolve` against the same API server, with the same permissions to read.
async fn offline_tools_live(env: &Env) -> Result<()> {
    let file = env.plane.folder().join("checked.yaml");
    std::fs::write(
        &file,
        namespace("shop", json!({"istio-injection": "enabled", "istio.io/rev": "1-24"})).to_string(),
    )?;
    let path = file.to_str().context("a path in UTF-8")?;
    let said = run(env, &["check", path, "-o", "json"]).await?;
    let report: Value = serde_json::from_str(&said.out).with_context(|| said.err.clone())?;
    ensure!(said.code == Some(1), "{report}");
    let codes: Vec<&str> =
        report["results"].as_array().into_iter().flatten().filter_map(|r| r["code"].as_str()).collect();
    ensure!(codes.contains(&"NS001"), "{report}");
    // It is there, so it is an update.
    ensure!(report["results"][0]["operation"] == "UPDATE", "{report}");

    let said = run(env, &["resolve", "-o", "json"]).await?;
    let all: Value = serde_json::from_str(&said.out).with_context(|| said.err.clone())?;
    ensure!(said.code == Some(0), "{}", said.err);
    let pod =
        all["workloads"].as_array().into_iter().flatten().find(|w| w["name"] == "web-5d8f-a").context("the pod")?;
    assert_eq!(pod["revision"], "1-23");
    assert_eq!(pod["hooks"], json!(["istio-sidecar-injector-1-23/rev.namespace.sidecar-injector.istio.io"]));

    // A remote cluster is named to those who may list its Secret, and to nobody else.
    let remote = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {
        "name": "istio-remote-secret-east", "namespace": "istio-system", "labels": {"istio/multiCluster": "true"},
        "annotations": {"networking.istio.io/cluster": "east"}}});
    let mut kinds: Vec<&str> = KINDS.iter().map(|row| row.plural).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "lookers"},
        "rules": [{"apiGroups": ["*"], "resources": kinds, "verbs": ["list"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "lookers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "lookers"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "lookers"}]});
    let mut scope = Scope::new(&env.plane);
    scope.apply(&[remote, role, binding]).await?;
    let looker = env.plane.kubeconfig_of("looker", &["lookers"])?;
    let said = run_as(&looker, &["uninstall-check", "1-23"]).await?;
    ensure!(said.out.contains("were not looked at: forbidden"), "{}{}", said.out, said.err);
    let said = run(env, &["uninstall-check", "1-23"]).await?;
    ensure!(said.out.contains("served from here (east)"), "{}{}", said.out, said.err);
    scope.end().await
}

async fn run(env: &Env, args: &[&str]) -> Result<Said> {
    run_as(&env.reader, args).await
}

async fn run_as(kubeconfig: &Path, args: &[&str]) -> Result<Said> {
    let mut command = Command::new(PROGRAM);
    command.env_clear().args(args).arg("--kubeconfig").arg(kubeconfig);
    Ok(Said::from(tokio::task::spawn_blocking(move || command.output()).await??))
}

/// A kind that the cluster did not have when we started.
async fn definition_installed_later(env: &mut Env, binary: &Binary) -> Result<()> {
    let (two, golden) = case("gw002/two-files.yaml")?;
    let mut scope = Scope::new(&env.plane);
    scope.apply(&[crds::permissive(row(Kind::IstioOperator))]).await?;
    env.stage(&two, binary).await?;
    env.jane(&["create", "-f", "-"], &two.request.raw.to_string()).await?.denied(CREATING, &golden)?;
    env.world.reach(std::iter::empty(), &revguard::model::Str::default()).await?;
    scope.end().await
}
