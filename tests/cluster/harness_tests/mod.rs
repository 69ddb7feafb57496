//! The harness does what it promises. Tests of revguard rely on it, so these fail first and say what
//! is wrong with the ground rather than with what stands on it.

pub mod balancer;
pub mod ends;

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, Resource};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::harness::objects::{Scope, documents};
use crate::harness::recorder::Recorder;
use crate::harness::registration::{Hook, Kind, Registration, rule};
use crate::harness::wait::wait_until;
use crate::harness::{ControlPlane, Options, metrics};
use crate::shared::shared;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(Nothing, waiting_names_what_was_seen_last),
        trial!(Nothing, metrics_are_summed_by_label),
        trial!(ApiServer, two_side_by_side),
        trial!(Controllers, apiserver_restarts_on_its_port),
        trial!(ApiServer, users_have_their_own_permissions),
        trial!(ApiServer, audit_log_and_metrics_show_a_request),
        trial!(ApiServer, objects_come_and_go),
        trial!(ApiServer, webhooks_are_used_and_unused),
        trial!(Nothing, balancer::passes_over_a_dead_backend),
        trial!(Nothing, ends::without_tools_it_says_so),
        trial!(ApiServer, ends::a_killed_test_leaves_nothing),
    ]
}

const SOON: Duration = Duration::from_secs(20);

async fn waiting_names_what_was_seen_last() -> Result<()> {
    let mut asked = 0;
    let third = wait_until(SOON, "the third time", || {
        asked += 1;
        std::future::ready(if asked == 3 { Ok(asked) } else { Err(format!("{asked}")) })
    });
    assert_eq!(third.await?, 3);

    let never = || std::future::ready(Err::<(), _>("it was red".to_owned()));
    let error = wait_until(Duration::from_millis(40), "a green light", never).await;
    let text = format!("{:#}", error.expect_err("never is never"));
    ensure!(text.contains("a green light") && text.contains("it was red"), "{text}");

    let hangs = std::future::pending::<Result<(), String>>;
    let error = wait_until(Duration::from_millis(40), "an answer", hangs).await;
    ensure!(error.is_err(), "a hanging probe was waited for");
    Ok(())
}

async fn metrics_are_summed_by_label() -> Result<()> {
    let text = "# HELP calls_total x\n# TYPE calls_total counter\n\
                calls_total{name=\"a,b}\",code=\"200\"} 3\n\
                calls_total{name=\"q\\\"\",code=\"200\"} 4 1700000000\n\
                calls_total{name=\"c\",code=\"500\"} 1e1\n\
                calls_total_other 7\nup 1\n";
    assert_eq!(metrics::sum(text, "calls_total", &[])?, 17.0);
    assert_eq!(metrics::sum(text, "calls_total", &[("code", "200")])?, 7.0);
    assert_eq!(metrics::sum(text, "calls_total", &[("name", "q\"")])?, 4.0);
    assert_eq!(metrics::sum(text, "calls_total", &[("name", "a,b}"), ("code", "500")])?, 0.0);
    assert_eq!(metrics::sum(text, "up", &[])?, 1.0);
    assert_eq!(metrics::sum(text, "absent", &[])?, 0.0);
    Ok(())
}

fn config_map(name: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_owned());
    object
}

fn config_maps(client: Client) -> Api<ConfigMap> {
    Api::namespaced(client, "default")
}

/// The API server makes `default` by itself, a moment after it is ready.
async fn default_namespace(plane: &ControlPlane) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(plane.client());
    wait_until(SOON, "namespace default", || async {
        let found = namespaces.get("default").await;
        found.map(drop).map_err(|error| error.to_string())
    })
    .await
}

async fn two_side_by_side() -> Result<()> {
    let bare = || Options::with_controllers(&[]);
    let (one, other) = tokio::join!(ControlPlane::start(bare()), ControlPlane::start(bare()));
    let (one, other) = (one?, other?);
    assert_ne!(one.url(), other.url());
    default_namespace(&one).await?;
    default_namespace(&other).await?;

    config_maps(one.client()).create(&PostParams::default(), &config_map("only-here")).await?;
    assert!(config_maps(other.client()).get_opt("only-here").await?.is_none());

    // One's credentials are worth nothing at the other.
    let foreign = ["get", "--raw", "/version", "--server", &other.url()];
    let output = one.kubectl(&foreign).await?;
    ensure!(!output.status.success(), "another authority's server was believed: {output:?}");

    let pids = one.pids().await;
    drop(one);
    for pid in pids {
        ensure!(!ends::runs(pid), "process {pid} runs after the drop");
    }
    other.raw("/readyz").await.context("the other lives on")?;

    // A panic ends it as well. This one is thrown without its message, which would only frighten.
    let pids = other.pids().await;
    let panicked = tokio::spawn(async move {
        let _held = other;
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    ensure!(panicked.await.is_err_and(|error| error.is_panic()));
    for pid in pids {
        ensure!(!ends::runs(pid), "process {pid} runs after a panic");
    }
    Ok(())
}

async fn apiserver_restarts_on_its_port() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    default_namespace(&plane).await?;
    let url = plane.url();
    let maps = config_maps(plane.client());
    maps.create(&PostParams::default(), &config_map("stays")).await?;

    plane.stop_apiserver().await?;
    ensure!(plane.raw("/readyz").await.is_err(), "a stopped API server answers");
    plane.restart_apiserver().await?;
    assert_eq!(plane.url(), url);
    maps.get("stays").await?;

    // The controllers are back as well: what belongs to a deleted object is collected.
    let owner = maps.create(&PostParams::default(), &config_map("owner")).await?;
    let mut owned = config_map("owned");
    owned.metadata.owner_references = owner.controller_owner_ref(&()).map(|owner| vec![owner]);
    maps.create(&PostParams::default(), &owned).await?;
    maps.delete("owner", &DeleteParams::background()).await?;
    wait_until(SOON, "the end of what was owned", || async {
        match maps.get_opt("owned").await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("it is there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

async fn users_have_their_own_permissions() -> Result<()> {
    let plane = shared().await?;
    let mut scope = Scope::new(&plane);
    scope
        .apply(&documents(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: test-lists-namespaces}
rules: [{apiGroups: [''], resources: [namespaces], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-lists-namespaces}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: test-lists-namespaces}
subjects:
- {kind: Group, apiGroup: rbac.authorization.k8s.io, name: dev}
- {kind: ServiceAccount, name: test-robot, namespace: default}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: test-robot, namespace: default}
",
        )?)
        .await?;

    let lists = |client: Client| async move {
        let namespaces: Api<Namespace> = Api::all(client);
        namespaces.list(&ListParams::default()).await
    };
    for groups in [&["dev"][..], &["ops", "dev", "night-shift"][..]] {
        let jane = plane.user("jane", groups).await?;
        wait_until(SOON, "jane's role", || async {
            lists(jane.clone()).await.map(drop).map_err(|error| error.to_string())
        })
        .await?;
    }
    for groups in [&[][..], &["ops", "night-shift"][..]] {
        match lists(plane.user("jane", groups).await?).await {
            Err(kube::Error::Api(status)) => assert_eq!(status.code, 403),
            answer => panic!("jane of {groups:?} is not refused: {answer:?}"),
        }
    }

    let who = ["auth", "whoami", "-o", "json"];
    let jane = plane.kubeconfig_of("jane", &["ops", "dev"])?;
    let output = plane.kubectl_as(&jane, &who, "").await?;
    let answer: Value = serde_json::from_slice(&output.stdout).with_context(|| text(&output))?;
    assert_eq!(answer["status"]["userInfo"]["username"], "jane");
    assert_eq!(answer["status"]["userInfo"]["groups"], json!(["ops", "dev", "system:authenticated"]));

    let robot = plane.kubeconfig_of_service_account("default", "test-robot").await?;
    let output = plane.kubectl_as(&robot, &["get", "namespaces", "-o", "name"], "").await?;
    ensure!(text(&output).contains("namespace/default"), "{}", text(&output));
    scope.end().await
}

async fn audit_log_and_metrics_show_a_request() -> Result<()> {
    let plane = shared().await?;
    let labels = [("resource", "configmaps"), ("verb", "POST"), ("code", "201")];
    let before = plane.metric("apiserver_request_total", &labels).await?;

    let manifest = "{apiVersion: v1, kind: ConfigMap, metadata: {name: audited, namespace: default}}";
    let made = plane.kubectl_as(&plane.kubeconfig(), &["create", "-f", "-"], manifest).await?;
    ensure!(made.status.success(), "{}", text(&made));
    let mut scope = Scope::new(&plane);
    scope.adopt(&documents(manifest)?[0]).await?;

    wait_until(SOON, "the audit entry of a create", || async {
        let entries = plane.audit().map_err(|error| format!("{error:#}"))?;
        entries
            .into_iter()
            .find(|entry| {
                entry.verb == "create"
                    && entry.object_ref.resource == "configmaps"
                    && entry.object_ref.name == "audited"
                    && entry.object_ref.namespace == "default"
                    && entry.object_ref.subresource.is_empty()
                    && entry.response_status.code == 201
                    && entry.user().username == "admin"
                    && entry.user().groups.contains(&"system:masters".to_owned())
                    && entry.annotations["authorization.k8s.io/decision"] == "allow"
            })
            .ok_or_else(|| "no such entry".to_owned())
    })
    .await?;
    let after = plane.metric("apiserver_request_total", &labels).await?;
    ensure!(after >= before + 1.0, "{before} and then {after}");
    scope.end().await
}

async fn objects_come_and_go() -> Result<()> {
    let plane = shared().await?;
    let mut scope = Scope::new(&plane);
    // In an order that only works if namespaces and definitions go first, and with what a `kubectl get
    // -o yaml` leaves in.
    scope
        .apply(&documents(
            "
apiVersion: v1
kind: List
items:
- apiVersion: test.example/v1
  kind: Widget
  metadata: {name: one, namespace: objects, uid: 0-0, resourceVersion: '1', managedFields: []}
  spec: {size: 3}
  status: {phase: Ready}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, namespace: objects}
  spec:
    selector: {matchLabels: {app: web}}
    template:
      metadata: {labels: {app: web}}
      spec: {containers: [{name: web, image: web}]}
  status: {replicas: 1, readyReplicas: 1}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.test.example}
spec:
  group: test.example
  scope: Namespaced
  names: {kind: Widget, plural: widgets}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
---
apiVersion: v1
kind: Namespace
metadata: {name: objects}
",
        )?)
        .await?;
    let phase = ["-n", "objects", "get", "widgets.test.example", "one", "-o", "jsonpath={.status.phase}"];
    assert_eq!(text(&plane.kubectl(&phase).await?), "Ready");
    let ready = ["-n", "objects", "get", "deploy", "web", "-o", "jsonpath={.status.readyReplicas}"];
    assert_eq!(text(&plane.kubectl(&ready).await?), "1");

    scope.end().await?;
    for gone in [["get", "namespace", "objects"], ["get", "crd", "widgets.test.example"]] {
        let output = plane.kubectl(&gone).await?;
        ensure!(text(&output).contains("NotFound"), "{gone:?}: {}", text(&output));
    }
    Ok(())
}

async fn webhooks_are_used_and_unused() -> Result<()> {
    let plane = shared().await?;
    default_namespace(&plane).await?;
    let recorder = Recorder::start().await?;
    let hook = |name: &str, policy| {
        let rules = rule(&["CREATE"], "", "v1", "configmaps");
        let mut hook = Hook::new(&format!("{name}.test.example"), &recorder.url(name), recorder.ca(), rules);
        hook.object_selector = json!({"matchLabels": {"test": "webhooks"}});
        hook.failure_policy = policy;
        hook
    };
    let mut probe = config_map("webhooks");
    probe.metadata.labels = Some([("test".to_owned(), "webhooks".to_owned())].into());
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let maps = config_maps(plane.client());
    let called = || -> Vec<String> { recorder.calls().into_iter().map(|call| call.hook).collect() };

    let changing = Registration::create(&plane, Kind::Mutating, "test-changing", &[hook("change", "Fail")]).await?;
    let judging = Registration::create(&plane, Kind::Validating, "test-judging", &[hook("judge", "Ignore")]).await?;
    maps.create(&dry_run, &probe).await?;
    assert_eq!(called(), ["change", "judge"]);

    let name = changing.name().to_owned();
    changing.remove().await?;
    maps.create(&dry_run, &probe).await?;
    assert_eq!(called(), ["change", "judge", "judge"], "{name} is still used");

    // With nobody there, the failure policy decides.
    drop(recorder);
    maps.create(&dry_run, &probe).await.context("failurePolicy: Ignore")?;
    let nobody = Hook {
        failure_policy: "Fail",
        timeout_seconds: 2,
        ..Hook::new("gone.test.example", "https://127.0.0.1:1/", "", rule(&["CREATE"], "", "v1", "configmaps"))
    };
    let nobody = Hook { object_selector: json!({"matchLabels": {"test": "webhooks"}}), ..nobody };
    let strict = Registration::create(&plane, Kind::Validating, "test-strict", &[nobody]).await?;
    let refused = maps.create(&dry_run, &probe).await;
    let refused = refused.expect_err("failurePolicy: Fail").to_string();
    ensure!(refused.contains("failed calling webhook \"gone.test.example\""), "{refused}");
    strict.remove().await?;
    drop(judging);
    let left = plane.kubectl(&["get", "validatingwebhookconfiguration", "test-judging"]).await?;
    ensure!(text(&left).contains("NotFound"), "{}", text(&left));
    Ok(())
}
