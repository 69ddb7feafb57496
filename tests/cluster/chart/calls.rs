//! Which writes the chart's webhooks are asked about: all that a rule has something to say of, and none that touches nothing of
//! Istio. Counted by the API server itself.

use std::time::Instant;

use anyhow::{Result, ensure};
use http::Method;
use serde_json::{Value, json};

use super::register;
use crate::case_table::Case;
use crate::cases::{Stage, play};
use crate::harness::guard::Asked;
use crate::harness::metrics::sum;
use crate::harness::raw::{As, JSON, MERGE, send};

/// Every mutation on, so that the mutating configuration is there.
const MUTATING: [&str; 2] = ["--set", "policy.mutations.NS002=true"];

/// Cases with a finding that are never sent, each with its reason. More would be a hole.
const NEVER_SENT: &[(&str, &str)] = &[
    ("gw006/scaled-up.yaml", "a scale is sent only when it is to zero"),
    ("ns008/kube-system-revision.yaml", "kube-* is never sent; `check` and the audit judge it"),
    ("ns008/kube-system.yaml", "kube-* is never sent"),
    ("wl002/namespace-asks.yaml", "only the namespace asks, which no condition can see; the audit does"),
    ("wl002/namespace-enabled.yaml", "only the namespace asks"),
    ("wl003/kube-system.yaml", "kube-* is never sent"),
];

/// Plays the cases that find something, with the chart's own webhooks.
pub async fn every_finding_is_asked_for() -> Result<()> {
    let mut stage = Stage::set().await?;
    // The administrator sets the stage.
    let stage_hand = json!({"name": "not-the-stage", "expression": "request.userInfo.username != 'admin'"});
    let registered = register(&stage, &MUTATING, Some(stage_hand)).await?;
    let mut live: Vec<Case> =
        Case::all().into_iter().filter(|case| case.head.not_live.is_empty() && finds(case)).collect();
    live.sort_by_key(|case| case.head.mesh.clone());
    let (mut failures, mut silent, begin) = (Vec::new(), Vec::new(), Instant::now());
    for case in &live {
        let played = play(&mut stage, case).await;
        match stage.guard.calls() {
            0 => silent.push(case.path.clone()),
            1 => failures.extend(played.err().map(|error| format!("{}: {error:#}", case.path))),
            n => failures.push(format!("{}: {n} calls for one write", case.path)),
        }
    }
    println!("chart: {} cases with a finding, {} never sent, {:?}", live.len(), silent.len(), begin.elapsed());
    let errors = stage.plane.metric("apiserver_admission_match_condition_evaluation_errors_total", &[]).await?;
    for registration in registered {
        registration.remove().await?;
    }
    silent.sort();
    let known: Vec<&str> = NEVER_SENT.iter().map(|(path, _)| *path).collect();
    let only = std::env::var_os("CASE").is_some();
    let unknown: Vec<&String> = silent.iter().filter(|path| !known.contains(&path.as_str())).collect();
    ensure!(unknown.is_empty(), "the chart's webhooks keep away what a rule finds something in: {unknown:#?}");
    ensure!(only || silent.len() == known.len(), "not all of {known:?} are silent: {silent:?}");
    ensure!(failures.is_empty(), "{} of {}:\n{}", failures.len(), live.len(), failures.join("\n\n"));
    ensure!(errors == 0.0, "{errors} conditions failed");
    Ok(())
}

/// It is denied, warned of, or mended.
fn finds(case: &Case) -> bool {
    let patched = || {
        let golden = crate::case_table::folder().join(&case.path).with_extension("txt");
        case.mutate && std::fs::read_to_string(golden).is_ok_and(|text| text.contains("\npatch: "))
    };
    !case.expect.is_empty() || !case.warns.is_empty() || patched()
}

/// One write of a person, and by which webhook it is asked about.
struct Write {
    what: &'static str,
    method: Method,
    path: &'static str,
    body: Value,
    asked: &'static [&'static str],
}

fn write(what: &'static str, method: Method, path: &'static str, body: Value, asked: &'static [&'static str]) -> Write {
    Write { what, method, path, body, asked }
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments";

fn deployment(name: &str, labels: &Value, annotations: &Value) -> Value {
    let mut all = json!({"app": name});
    all.as_object_mut().expect("a map").extend(labels.as_object().cloned().unwrap_or_default());
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": all, "annotations": annotations},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    })
}

fn replicas(n: u32) -> Value {
    json!({"spec": {"replicas": n}})
}

const WORKLOADS: &[&str] = &["workloads.revguard.dev"];
const GATEWAYS: &[&str] = &["gateways.revguard.dev"];
const CONTROL_PLANE: &[&str] = &["control-plane.revguard.dev"];
const NAMESPACES: &[&str] = &["namespaces.revguard.dev"];
const CONFIG: &[&str] = &["config.revguard.dev"];
const ROLLOUTS: &[&str] = &["rollouts.revguard.dev"];
/// Marked first, then judged.
const APPROVALS: &[&str] = &["rollouts.revguard.dev", "approvals.revguard.dev"];
const NOBODY: &[&str] = &[];

const NAMES: [&str; 7] =
    [NAMESPACES[0], WORKLOADS[0], GATEWAYS[0], CONTROL_PLANE[0], CONFIG[0], APPROVALS[0], APPROVALS[1]];

const ROLLOUT: &str = "/apis/revguard.dev/v1alpha1/namespaces/shop/gatewayrollouts";

/// Of our own custom resource.
fn rollout_writes() -> Vec<Write> {
    let (post, patch, delete) = (Method::POST, Method::PATCH, Method::DELETE);
    const ONE: &str = "/apis/revguard.dev/v1alpha1/namespaces/shop/gatewayrollouts/public";
    const STATUS: &str = "/apis/revguard.dev/v1alpha1/namespaces/shop/gatewayrollouts/public/status";
    let annotation = |key: &str, value: Value| json!({"metadata": {"annotations": {key: value}}});
    let rollout = json!({"apiVersion": "revguard.dev/v1alpha1", "kind": "GatewayRollout", "metadata": {"name": "public"}, "spec": {"target": {"deployment": {"name": "igw"}}, "toRevision": "1-24"}});
    let approve = "revguard.dev/approve";
    vec![
        write("a rollout", post, ROLLOUT, rollout, ROLLOUTS),
        write("its pause", patch.clone(), ONE, json!({"spec": {"paused": true}}), ROLLOUTS),
        write("the same again", patch.clone(), ONE, json!({"spec": {"paused": true}}), NOBODY),
        write("its status", patch.clone(), STATUS, json!({"status": {"state": "Soaking"}}), NOBODY),
        write("its finalizer", patch.clone(), ONE, json!({"metadata": {"finalizers": ["revguard.dev/x"]}}), NOBODY),
        write("and off", patch.clone(), ONE, json!({"metadata": {"finalizers": null}}), NOBODY),
        write("an annotation", patch.clone(), ONE, annotation("team", json!("a")), ROLLOUTS),
        write("an approval", patch.clone(), ONE, annotation(approve, json!("x/half")), APPROVALS),
        write("the same approval", patch.clone(), ONE, annotation(approve, json!("x/half")), NOBODY),
        write("its name", patch.clone(), ONE, annotation("revguard.dev/approved-by", json!("john")), APPROVALS),
        write("an approval's end", patch, ONE, annotation(approve, Value::Null), APPROVALS),
        write("its end", delete, ONE, json!({}), NOBODY),
    ]
}

/// In this order: later ones change what earlier ones made.
fn writes() -> Vec<Write> {
    let (post, patch, delete) = (Method::POST, Method::PATCH, Method::DELETE);
    let none = json!({});
    let label = |key: &str, value: Value| json!({"metadata": {"labels": {key: value}}});
    let annotation = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    let istio = json!({"sidecar.istio.io/inject": "true"});
    let gateway = json!({"inject.istio.io/templates": "gateway"});
    let service = |name: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}});
    let hosts = json!({"hosts": ["a.example"]});
    let service_entry = |name: &str, labels: Value| json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": name, "labels": labels}, "spec": hosts});
    vec![
        // What touches nothing of Istio.
        write(
            "a namespace",
            post.clone(),
            "/api/v1/namespaces",
            json!({"metadata": {"name": "plain", "labels": {"team": "a"}}}),
            NOBODY,
        ),
        write("a label of a namespace", patch.clone(), "/api/v1/namespaces/plain", label("team", json!("b")), NOBODY),
        write("a Deployment", post.clone(), DEPLOYMENTS, deployment("web", &none, &none), NOBODY),
        write(
            "its image",
            patch.clone(),
            "/apis/apps/v1/namespaces/shop/deployments/web",
            annotation("team", "a"),
            NOBODY,
        ),
        write("its replicas", patch.clone(), "/apis/apps/v1/namespaces/shop/deployments/web", replicas(2), NOBODY),
        write("its scale", patch.clone(), "/apis/apps/v1/namespaces/shop/deployments/web/scale", replicas(3), NOBODY),
        write(
            "its status",
            patch.clone(),
            "/apis/apps/v1/namespaces/shop/deployments/web/status",
            json!({"status": {"observedGeneration": 1}}),
            NOBODY,
        ),
        write("its end", delete.clone(), "/apis/apps/v1/namespaces/shop/deployments/web", none.clone(), NOBODY),
        write(
            "a pod",
            post.clone(),
            "/api/v1/namespaces/shop/pods",
            json!({"metadata": {"name": "p", "labels": {"istio.io/rev": "x"}}, "spec": {"containers": [{"name": "istio-proxy", "image": "p"}]}}),
            NOBODY,
        ),
        write(
            "a ConfigMap",
            post.clone(),
            "/api/v1/namespaces/shop/configmaps",
            json!({"metadata": {"name": "c"}}),
            NOBODY,
        ),
        write(
            "a lease",
            post.clone(),
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
            json!({"metadata": {"name": "node"}}),
            NOBODY,
        ),
        write(
            "an event",
            post.clone(),
            "/api/v1/namespaces/shop/events",
            json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "shop"}}),
            NOBODY,
        ),
        write(
            "a node",
            post.clone(),
            "/api/v1/nodes",
            json!({"metadata": {"name": "node", "labels": {"istio.io/rev": "x"}}}),
            NOBODY,
        ),
        write("a Service", post.clone(), "/api/v1/namespaces/shop/services", service("web"), NOBODY),
        write(
            "a label of a Service",
            patch.clone(),
            "/api/v1/namespaces/shop/services/web",
            label("team", json!("a")),
            NOBODY,
        ),
        write(
            "an autoscaler",
            post.clone(),
            "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers",
            json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
            WORKLOADS,
        ),
        write(
            "Istio configuration",
            post.clone(),
            "/apis/networking.istio.io/v1/namespaces/shop/serviceentries",
            service_entry("plain", none.clone()),
            NOBODY,
        ),
        write("a ConfigMap's end", delete.clone(), "/api/v1/namespaces/shop/configmaps/c", none.clone(), NOBODY),
        write(
            "a ServiceAccount",
            post.clone(),
            "/api/v1/namespaces/shop/serviceaccounts",
            json!({"metadata": {"name": "web"}}),
            NOBODY,
        ),
        write(
            "a ServiceAccount's end",
            delete.clone(),
            "/api/v1/namespaces/shop/serviceaccounts/web",
            none.clone(),
            NOBODY,
        ),
        write(
            "mesh configuration",
            post.clone(),
            "/api/v1/namespaces/shop/configmaps",
            json!({"metadata": {"name": "istio-1-23"}}),
            NOBODY,
        ),
        write(
            "mesh configuration's end",
            delete.clone(),
            "/api/v1/namespaces/shop/configmaps/istio-1-23",
            none.clone(),
            CONTROL_PLANE,
        ),
        write(
            "an istiod's account",
            post.clone(),
            "/api/v1/namespaces/shop/serviceaccounts",
            json!({"metadata": {"name": "istiod"}}),
            NOBODY,
        ),
        write("its end", delete.clone(), "/api/v1/namespaces/shop/serviceaccounts/istiod", none.clone(), CONTROL_PLANE),
        write(
            "a role of an istiod",
            post.clone(),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({"metadata": {"name": "istiod-clusterrole-shop"}}),
            NOBODY,
        ),
        write(
            "its end",
            delete.clone(),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/istiod-clusterrole-shop",
            none.clone(),
            CONTROL_PLANE,
        ),
        // In namespaces that are never guarded.
        write(
            "something of Istio in kube-system",
            post.clone(),
            "/apis/apps/v1/namespaces/kube-system/deployments",
            deployment("web", &istio, &gateway),
            NOBODY,
        ),
        write(
            "something of Istio in our own namespace",
            post.clone(),
            "/apis/apps/v1/namespaces/revguard-system/deployments",
            deployment("web", &istio, &gateway),
            NOBODY,
        ),
        write(
            "kube-public",
            patch.clone(),
            "/api/v1/namespaces/kube-public",
            label("istio.io/rev", json!("x")),
            NOBODY,
        ),
        write(
            "our own namespace",
            patch.clone(),
            "/api/v1/namespaces/revguard-system",
            label("istio.io/rev", json!("x")),
            NOBODY,
        ),
        // What rules look at, each once and by its own group.
        write(
            "a label of injection",
            patch.clone(),
            "/api/v1/namespaces/plain",
            label("istio-injection", json!("disabled")),
            NAMESPACES,
        ),
        write(
            "the same again",
            patch.clone(),
            "/api/v1/namespaces/plain",
            label("istio-injection", json!("disabled")),
            NOBODY,
        ),
        write(
            "that label off",
            patch.clone(),
            "/api/v1/namespaces/plain",
            label("istio-injection", Value::Null),
            NAMESPACES,
        ),
        write(
            "an exemption",
            patch.clone(),
            "/api/v1/namespaces/plain",
            annotation("revguard.dev/allow", "NS004: a reason"),
            NAMESPACES,
        ),
        write("a namespace's end", delete.clone(), "/api/v1/namespaces/plain", none.clone(), NAMESPACES),
        write("a Deployment of the mesh", post.clone(), DEPLOYMENTS, deployment("meshed", &istio, &none), WORKLOADS),
        write(
            "its scale",
            patch.clone(),
            "/apis/apps/v1/namespaces/shop/deployments/meshed/scale",
            replicas(2),
            NOBODY,
        ),
        write(
            "its scale to zero",
            patch.clone(),
            "/apis/apps/v1/namespaces/shop/deployments/meshed/scale",
            replicas(0),
            GATEWAYS,
        ),
        write(
            "its scale at zero",
            patch.clone(),
            "/apis/apps/v1/namespaces/shop/deployments/meshed/scale",
            replicas(0),
            NOBODY,
        ),
        write(
            "its status",
            patch.clone(),
            "/apis/apps/v1/namespaces/shop/deployments/meshed/status",
            json!({"status": {"observedGeneration": 1}}),
            NOBODY,
        ),
        write(
            "its labels off",
            patch.clone(),
            "/apis/apps/v1/namespaces/shop/deployments/meshed",
            json!({"spec": {"template": {"metadata": {"labels": {"sidecar.istio.io/inject": null}}}}}),
            WORKLOADS,
        ),
        write("its end", delete.clone(), "/apis/apps/v1/namespaces/shop/deployments/meshed", none.clone(), NOBODY),
        write("a gateway", post.clone(), DEPLOYMENTS, deployment("gw", &none, &gateway), GATEWAYS),
        write(
            "a gateway's end",
            delete.clone(),
            "/apis/apps/v1/namespaces/shop/deployments/gw",
            none.clone(),
            GATEWAYS,
        ),
        write(
            "an istiod",
            post.clone(),
            DEPLOYMENTS,
            deployment("istiod", &json!({"app": "istiod"}), &none).selecting("istiod"),
            CONTROL_PLANE,
        ),
        write(
            "an istiod's replicas",
            patch.clone(),
            "/apis/apps/v1/namespaces/shop/deployments/istiod",
            replicas(2),
            CONTROL_PLANE,
        ),
        write(
            "an istiod's end",
            delete.clone(),
            "/apis/apps/v1/namespaces/shop/deployments/istiod",
            none.clone(),
            CONTROL_PLANE,
        ),
        write(
            "a Service's selector",
            patch.clone(),
            "/api/v1/namespaces/shop/services/web",
            json!({"spec": {"selector": {"app": "other"}}}),
            CONTROL_PLANE,
        ),
        write(
            "a tag",
            patch.clone(),
            "/api/v1/namespaces/shop/services/web",
            label("istio.io/tag", json!("prod")),
            CONTROL_PLANE,
        ),
        write("a Service's end", delete.clone(), "/api/v1/namespaces/shop/services/web", none.clone(), CONTROL_PLANE),
        write(
            "pinned configuration",
            post.clone(),
            "/apis/networking.istio.io/v1/namespaces/shop/serviceentries",
            service_entry("pinned", json!({"istio.io/rev": "x"})),
            CONFIG,
        ),
        write(
            "its spec",
            patch.clone(),
            "/apis/networking.istio.io/v1/namespaces/shop/serviceentries/pinned",
            json!({"spec": {"hosts": ["b.example"]}}),
            NOBODY,
        ),
        write(
            "its pin off",
            patch.clone(),
            "/apis/networking.istio.io/v1/namespaces/shop/serviceentries/pinned",
            label("istio.io/rev", Value::Null),
            CONFIG,
        ),
        write(
            "a Gateway",
            post.clone(),
            "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways",
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "g"}, "spec": {"gatewayClassName": "istio", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}}),
            CONFIG,
        ),
        write(
            "an IstioOperator",
            post.clone(),
            "/apis/install.istio.io/v1alpha1/namespaces/shop/istiooperators",
            json!({"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator", "metadata": {"name": "o"}, "spec": {"profile": "empty"}}),
            CONTROL_PLANE,
        ),
        write(
            "a CronJob of the mesh",
            post.clone(),
            "/apis/batch/v1/namespaces/shop/cronjobs",
            json!({"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"metadata": {"labels": {"sidecar.istio.io/inject": "false"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c"}]}}}}}}),
            WORKLOADS,
        ),
        write(
            "a plain CronJob",
            post,
            "/apis/batch/v1/namespaces/shop/cronjobs",
            json!({"metadata": {"name": "d"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c"}]}}}}}}),
            NOBODY,
        ),
    ]
}

trait Selecting {
    fn selecting(self, app: &str) -> Value;
}

impl Selecting for Value {
    /// Selects the pods of this application.
    fn selecting(mut self, app: &str) -> Value {
        self["spec"]["selector"] = json!({"matchLabels": {"app": app}});
        self
    }
}

/// Counted by the API server, write by write.
pub async fn what_no_rule_looks_at_makes_no_call() -> Result<()> {
    let stage = Stage::set().await?;
    let plane = &stage.plane;
    let client = plane.client();
    for name in ["shop", "revguard-system"] {
        send(
            &client,
            Method::POST,
            "/api/v1/namespaces",
            Some((JSON, &json!({"metadata": {"name": name}}))),
            &As::default(),
        )
        .await?
        .expect(name)?;
    }
    let registered = register(&stage, &MUTATING, None).await?;
    stage
        .guard
        .ask(Asked::Validate, revguard::rules::Policy { mode: revguard::rules::Mode::Audit, ..Default::default() });
    let calls = |text: &str| -> Result<Vec<f64>> {
        NAMES.iter().map(|name| sum(text, "apiserver_admission_webhook_request_total", &[("name", name)])).collect()
    };
    let mut wrong = Vec::new();
    for write in writes().into_iter().chain(rollout_writes()) {
        let before = calls(&plane.raw("/metrics").await?)?;
        let content = if write.method == Method::PATCH { MERGE } else { JSON };
        let body = (write.method != Method::DELETE).then_some((content, &write.body));
        let who = As { user: "jane".into(), groups: vec!["system:masters".into()] };
        let answer = send(&client, write.method, write.path, body, &who).await?;
        if !answer.ok() {
            wrong.push(format!("{}: {} {}", write.what, answer.status, answer.message()));
            continue;
        }
        let after = calls(&plane.raw("/metrics").await?)?;
        let rose: Vec<(&str, f64)> = NAMES
            .iter()
            .zip(before.iter().zip(&after))
            .map(|(n, (b, a))| (*n, a - b))
            .filter(|(_, n)| *n != 0.0)
            .collect();
        let wanted: Vec<(&str, f64)> = write.asked.iter().map(|name| (*name, 1.0)).collect();
        if rose != wanted {
            wrong.push(format!("{} {}: called {rose:?}, wanted {wanted:?}", write.what, write.path));
        }
    }
    let text = plane.raw("/metrics").await?;
    let excluded = sum(&text, "apiserver_admission_match_condition_exclusions_total", &[])?;
    let errors = sum(&text, "apiserver_admission_match_condition_evaluation_errors_total", &[])?;
    println!(
        "chart: {} writes, {excluded} excluded by conditions, {errors} conditions failed",
        writes().len() + rollout_writes().len()
    );
    for registration in registered {
        registration.remove().await?;
    }
    // What alerts and the dashboard ask the API server for.
    ensure!(
        text.contains("apiserver_admission_webhook_admission_duration_seconds_bucket{name=\"workloads.revguard.dev\"")
    );
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(errors == 0.0, "{errors} conditions failed");
    // That it was the conditions, and not rules that are too narrow to notice anything.
    ensure!(excluded >= 10.0, "conditions excluded {excluded} writes only");
    Ok(())
}
