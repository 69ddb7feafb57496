//! Monitoring from end to end: a real webhook that has answered the real API server, a real controller over a mesh, both with the
//! rights that the chart gives them, and a real Prometheus that scrapes all three. Every query of the dashboard returns something; a
//! validator that really dangles is alerted of, mended once that is allowed, and the alert ends. Rollouts that are held and given up are shown.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};

use super::panels::queries;
use super::render::{NAMESPACE, RELEASE, chart, file, helm};
use crate::controller::Controller;
use crate::harness::binary::Binary;
use crate::harness::objects::{Scope, documents};
use crate::harness::prometheus::Prometheus;
use crate::harness::raw::{Answer, As, JSON, JSON_PATCH, MERGE, send};
use crate::harness::wait::wait_until;
use crate::harness::{ControlPlane, Options};

/// A finding's grace of a minute, scrapes, and a machine that does other things as well.
const SOON: Duration = Duration::from_secs(150);

const ALERT: &str = "RevguardValidatorDangling";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MESH: &str = include_str!("../../../src/cli/demo/mesh.yaml");

/// Who uses the mesh, made before its injectors, which nobody serves here.
const USERS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/rev: prod}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, annotations: {istio.io/rev: 1-23, sidecar.istio.io/status: '{\"revision\":\"1-23\"}'}}
spec: {containers: [{name: cart, image: cart}, {name: istio-proxy, image: proxyv2}]}
";

/// Gateways without pods, of which one is guarded and held by a person, and one is given up before it begins.
const GATEWAYS: [&str; 2] = ["held", "given-up"];
const ROLLOUTS: &str = "/apis/revguard.dev/v1alpha1/namespaces/shop/gatewayrollouts";

/// Counters that stay at 0 while nothing is wrong, so that a line at 0 is what their panels have to show.
const QUIET: [(&str, &str); 3] = [
    ("revguard_admission_rejected_total", "needs an overload, which e2e::serving makes"),
    ("revguard_watch_errors_total", "needs an API server that fails, which controller::trouble makes"),
    ("revguard_reconcile_errors_total", "needs writes that are refused, which controller::trouble makes"),
];

/// The rules that ship, each waiting for a second only.
fn shipped() -> String {
    let shorter = |line: &str| {
        let wait = line.trim_start().strip_prefix("for: ").is_some();
        if wait { format!("{}for: 1s", &line[..line.len() - line.trim_start().len()]) } else { line.to_owned() }
    };
    file("files/alerts.yaml").lines().map(shorter).collect::<Vec<_>>().join("\n")
}

struct Scene {
    plane: ControlPlane,
    webhook: Binary,
    controller: Controller,
    prometheus: Prometheus,
}

impl Scene {
    /// The mesh, then the chart, whose webhooks call a Service that leads to nobody yet.
    async fn set() -> Result<Scene> {
        // Controllers would collect the pods and endpoints that stand for real ones.
        let plane = ControlPlane::start(Options::with_controllers(&[])).await?;
        let mut scope = Scope::new(&plane);
        scope.apply(&documents(USERS)?).await?;
        scope.apply(&documents(MESH)?).await?;
        scope.leave();
        let folder = plane.folder().to_owned();
        let mut install = helm();
        install.env("KUBECONFIG", plane.kubeconfig()).args(["install", RELEASE]).arg(chart());
        install.args(["--namespace", NAMESPACE, "--create-namespace", "--set", "policy.repair=all"]);
        // What leads nowhere is not worth five seconds a call.
        install.args(["--set", "webhooks.namespaces.timeoutSeconds=1,webhooks.workloads.timeoutSeconds=1"]);
        let installed = tokio::task::spawn_blocking(move || install.output()).await??;
        ensure!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));

        // Repairs are allowed later, by the file.
        let account = plane.kubeconfig_of_service_account(NAMESPACE, "revguard-controller").await?;
        let controller = Controller::start(&folder, &account, "", &["--cert-name", "127.0.0.1"]).await?;
        let account = plane.kubeconfig_of_service_account(NAMESPACE, "revguard-webhook").await?;
        let secret = ["--tls-secret", "revguard-webhook-tls", "--namespace", NAMESPACE];
        let webhook = Binary::bare(&folder, &account, &secret).await?;
        webhook.ready().await?;
        let prometheus =
            Prometheus::start(&folder, &shipped(), scrapes(&plane, webhook.health, controller.health)).await?;
        Ok(Scene { plane, webhook, controller, prometheus })
    }

    fn check(&mut self) -> Result<()> {
        let Scene { webhook, controller, prometheus, .. } = self;
        [&mut webhook.process, &mut controller.process, &mut prometheus.process].into_iter().try_for_each(|p| p.check())
    }

    async fn ask(&self, method: Method, path: &str, body: (&str, Value)) -> Result<Answer> {
        send(&self.plane.client(), method, path, Some((body.0, &body.1)), &As::default()).await
    }

    /// Three writes that are sent to us, none of which is kept: one to be refused, one that passes, one of a group that fails open.
    async fn write(&self) -> Result<[Answer; 3]> {
        let namespace = |labels: Value| {
            let object =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tried", "labels": labels}});
            self.ask(Method::POST, "/api/v1/namespaces?dryRun=All", (JSON, object))
        };
        let (labels, inject) = (json!({"app": "web"}), json!({"app": "web", "sidecar.istio.io/inject": "true"}));
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": inject}, "spec": {"containers": [{"name": "web", "image": "web"}]}}},
        });
        Ok([
            namespace(json!({"istio-injection": "enabled", "istio.io/rev": "prod"})).await?,
            namespace(json!({"istio-injection": "disabled"})).await?,
            self.ask(Method::POST, "/apis/apps/v1/namespaces/shop/deployments?dryRun=All", (JSON, deployment)).await?,
        ])
    }

    /// What a kube-proxy would do: the webhooks lead to the replica that runs here.
    async fn connect(&self) -> Result<()> {
        let path = format!("{CONFIGURATIONS}/{RELEASE}");
        let configuration =
            send(&self.plane.client(), Method::GET, &path, None, &As::default()).await?.expect(&path)?;
        let count = configuration["webhooks"].as_array().context("webhooks")?.len();
        let url = format!("https://{}/validate", self.webhook.address);
        let change = (0..count).flat_map(|i| {
            let at = format!("/webhooks/{i}/clientConfig");
            [
                json!({"op": "remove", "path": format!("{at}/service")}),
                json!({"op": "add", "path": format!("{at}/url"), "value": url}),
            ]
        });
        self.ask(Method::PATCH, &path, (JSON_PATCH, change.collect())).await?.expect(&path).map(drop)
    }

    /// Two rollouts: what panels show of rollouts has to come from somewhere.
    async fn roll(&self) -> Result<()> {
        for name in GATEWAYS {
            let labels = json!({"app": name, "istio": name, "istio.io/rev": "1-23", "sidecar.istio.io/inject": "true"});
            let deployment = json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name, "istio": name}}, "template": {
                    "metadata": {"labels": labels, "annotations": {"inject.istio.io/templates": "gateway"}},
                    "spec": {"containers": [{"name": "istio-proxy", "image": "auto"}]}}},
            });
            let path = "/apis/apps/v1/namespaces/shop/deployments";
            self.ask(Method::POST, path, (JSON, deployment)).await?.expect(name)?;
            let held = name == GATEWAYS[0];
            let guarded = json!({"source": {"url": self.prometheus.url()}, "alerts": {"resumeAfter": "3s"}});
            let rollout = json!({
                "apiVersion": "revguard.dev/v1alpha1", "kind": "GatewayRollout", "metadata": {"name": name},
                "spec": {
                    "target": {"deployment": {"name": name}}, "toRevision": "1-24", "paused": held,
                    "guardrails": if held { guarded } else { json!({}) },
                },
            });
            self.ask(Method::POST, ROLLOUTS, (JSON, rollout)).await?.expect(name)?;
        }
        let path = format!("{ROLLOUTS}/{}", GATEWAYS[1]);
        wait_until(SOON, "a preflight", || async {
            let found = send(&self.plane.client(), Method::GET, &path, None, &As::default()).await;
            let found = found.map_err(|error| format!("{error:#}"))?;
            if found.body["status"]["phase"] == "Preflight" { Ok(()) } else { Err(found.body["status"].to_string()) }
        })
        .await?;
        // It has been scraped once before it ends: an increase needs a before.
        tokio::time::sleep(Duration::from_secs(3)).await;
        self.ask(Method::PATCH, &path, (MERGE, json!({"spec": {"abort": true}}))).await?.expect(&path).map(drop)
    }

    async fn until_firing(&self, fires: bool) -> Result<()> {
        wait_until(SOON, if fires { "the alert" } else { "the end of the alert" }, || async {
            let firing = self.prometheus.firing().await?;
            if firing.iter().any(|name| name == ALERT) == fires { Ok(()) } else { Err(format!("{firing:?}")) }
        })
        .await
    }
}

/// Labels as the ServiceMonitor gives them.
fn scrapes(plane: &ControlPlane, webhook: SocketAddr, controller: SocketAddr) -> Value {
    let of = |component: &str, at: SocketAddr| json!({"targets": [at.to_string()], "labels": {"component": component}});
    let tls = json!({"ca_file": "ca.crt", "cert_file": "admin.crt", "key_file": "admin.key"});
    let url = plane.url();
    json!([
        {"job_name": "revguard", "static_configs": [of("webhook", webhook), of("controller", controller)]},
        // Megabytes each time.
        {"job_name": "apiserver", "scheme": "https", "tls_config": tls, "scrape_interval": "3s",
            "static_configs": [{"targets": [url.trim_start_matches("https://")]}]},
    ])
}

/// Which queries have shown nothing so far, and what they returned last.
struct Panels(BTreeMap<String, String>);

impl Panels {
    fn new() -> Result<Panels> {
        Ok(Panels(queries()?.into_iter().map(|(_, query)| (query, String::new())).collect()))
    }

    /// Whether that is something to look at: numbers, and where events are counted, events.
    fn shows(query: &str, values: &[f64]) -> bool {
        let counts = ["rate(", "increase(", "level=\"critical\""].iter().any(|word| query.contains(word));
        let quiet = QUIET.iter().any(|(name, _)| query.contains(name));
        values.iter().any(|value| value.is_finite() && (*value > 0.0 || quiet || !counts))
    }

    async fn look(&mut self, prometheus: &Prometheus) -> Result<()> {
        let mut open = BTreeMap::new();
        for query in self.0.keys() {
            // Grafana would say four times the time between scrapes.
            let values = prometheus.values(&query.replace("$__rate_interval", "30s")).await?;
            if !Panels::shows(query, &values) {
                open.insert(query.clone(), format!("{values:?}"));
            }
        }
        self.0 = open;
        Ok(())
    }

    /// Writes and looks until none of the queries with one of these words is left.
    async fn until(&mut self, scene: &mut Scene, words: &[&str]) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            scene.check()?;
            scene.write().await?;
            self.look(&scene.prometheus).await?;
            let left: Vec<_> =
                self.0.iter().filter(|(query, _)| words.iter().any(|word| query.contains(word))).collect();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("panels that show nothing: {left:#?}");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

pub async fn a_dangling_validator_is_alerted_of_and_every_panel_shows_something() -> Result<()> {
    let mut scene = Scene::set().await?;
    let mut panels = Panels::new()?;
    let count = panels.0.len();
    ensure!(count > 20, "{count} queries");

    // Nobody answers: one group fails closed, the other open.
    let [refused, ..] = scene.write().await?;
    ensure!(refused.message().contains("failed calling webhook"), "{} {}", refused.status, refused.message());
    panels.until(&mut scene, &["apiserver_admission_webhook_rejection_count", "fail_open_count"]).await?;

    scene.connect().await?;
    wait_until(SOON, "answers of ours", || async {
        let answers = scene.write().await.map_err(|error| format!("{error:#}"))?;
        let [refused, passed, open] = &answers;
        let ours = refused.message().contains("[NS001 ") && passed.ok() && open.ok();
        ours.then_some(()).ok_or_else(|| format!("{answers:?}"))
    })
    .await?;
    // The controller has audited, and nothing is said of validators.
    panels.until(&mut scene, &["revguard_audit_last_success_seconds"]).await?;
    scene.roll().await?;
    panels.until(&mut scene, &["revguard_rollout", "revguard_alert_gate", "revguard_prometheus_queries_total"]).await?;
    let before = scene.prometheus.firing().await.map_err(anyhow::Error::msg)?;
    ensure!(!before.iter().any(|name| name == ALERT), "it fires before there is a reason: {before:?}");

    let at = format!("{CONFIGURATIONS}/istiod-default-validator");
    let broken = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/service/name", "value": "istiod-1-22"}]);
    scene.ask(Method::PATCH, &at, (JSON_PATCH, broken)).await?.expect(&at)?;
    scene.until_firing(true).await?;
    // Once its grace is over, it is a finding, and the rest is well.
    panels.until(&mut scene, &["level=\"critical\"", "ALERTS"]).await?;

    std::fs::write(&scene.controller.policy, "repair: all\n")?;
    panels.until(&mut scene, &["revguard_repairs_total"]).await?;
    scene.until_firing(false).await?;
    panels.until(&mut scene, &[""]).await?;
    println!("panels: {count} queries, each has returned something; at 0 because nothing was wrong: {QUIET:?}");
    scene.check()
}
