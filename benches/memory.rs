//! Memory and time to ready of the live state: 10,000 namespaces, 50,000 Deployments and 200,000 pods, with 10,000
//! distinct label sets and the annotations of a real cluster, come through the very list and watch that `serve` uses. With them come 70,000
//! ConfigMaps and 60,000 objects of Istio's configuration, of which only metadata is asked for and little is kept.
//!
//! `cargo bench --bench memory` prints a line for people and leaves target/bench/memory.json. The API server is replayed here; the library
//! runs in a process of its own, whose resident memory is what counts. `--pods N` and the like change the load.

#[path = "common/record.rs"]
mod record;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use revguard::admission::webhook::Shared;
use revguard::cluster::{self, Readiness, Telemetry, Timing};
use revguard::model::Kind;
use revguard::rules::Policy;
use revguard::snapshot::Snapshot;

#[derive(Clone, Copy)]
struct Load {
    namespaces: usize,
    deployments: usize,
    pods: usize,
    /// Deployments that are gateways, each in a namespace of its own.
    gateways: usize,
    /// ConfigMaps of each namespace: what Kubernetes and istiod put into every one, and a team's own.
    config_maps: usize,
    /// Objects of each kind of [`CONFIG`] in each namespace.
    config: usize,
    /// Pods that change after the first list.
    changes: usize,
}

impl Load {
    /// The namespace of a Deployment; neighbours share one.
    fn home(&self, deployment: usize) -> usize {
        let each = (self.deployments / self.namespaces.max(1)).max(1);
        deployment / each % self.namespaces.max(1)
    }
}

const FULL: Load = Load {
    namespaces: 10_000,
    deployments: 50_000,
    pods: 200_000,
    gateways: 20,
    config_maps: 7,
    config: 2,
    changes: 50_000,
};
const EMPTY: Load = Load { namespaces: 0, deployments: 0, pods: 0, gateways: 0, config_maps: 0, config: 0, changes: 0 };
/// Kinds of Istio's configuration that the cluster has, group and plural.
const CONFIG: [(&str, &str); 3] = [
    ("networking.istio.io", "virtualservices"),
    ("networking.istio.io", "destinationrules"),
    ("security.istio.io", "authorizationpolicies"),
];
/// Version of the first list; changes count up from it.
const LISTED: u64 = 1_000_000;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|a| a == "--child") {
        child(&args[at + 1], args[at + 2].parse().expect("a number"));
        return;
    }
    // `cargo test --benches` and `cargo clippy` must not start the load.
    if args.iter().any(|a| a == "--test") {
        return;
    }
    let number = |name: &str, default: usize| {
        args.iter().position(|a| a == name).and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let full = Load {
        namespaces: number("--namespaces", FULL.namespaces),
        deployments: number("--deployments", FULL.deployments),
        pods: number("--pods", FULL.pods),
        gateways: number("--gateways", FULL.gateways),
        config_maps: number("--config-maps", FULL.config_maps),
        config: number("--config", FULL.config),
        changes: number("--changes", FULL.changes),
    };
    let start = measure(EMPTY);
    let loaded = measure(full);
    let text = |v: &serde_json::Value, key: &str| v[key].as_f64().unwrap_or(f64::NAN);
    println!(
        "RSS {:.1} MB after start, {:.1} MB with the load ({:.1} MB after {} changes, {:.1} MB at most); ready after {:.1} s",
        text(&start, "ready_mb"),
        text(&loaded, "ready_mb"),
        text(&loaded, "changed_mb"),
        full.changes,
        text(&loaded, "peak_mb"),
        text(&loaded, "seconds"),
    );
    let bytes = |v: &serde_json::Value, key: &str| text(v, key) * 1e6;
    let figures = serde_json::json!({
        "rss_start_bytes": bytes(&start, "ready_mb"), "rss_loaded_bytes": bytes(&loaded, "ready_mb"),
        "rss_changed_bytes": bytes(&loaded, "changed_mb"), "rss_peak_bytes": bytes(&loaded, "peak_mb"),
        "seconds_to_ready": loaded["seconds"], "namespaces": loaded["namespaces"], "deployments": loaded["deployments"],
        "pods": loaded["pods"], "config_maps": full.namespaces * full.config_maps,
        "config": loaded["config"], "changes": full.changes,
    });
    record::write("memory", "make bench-memory", figures);
}

/// Runs the library against a replayed cluster and returns what it says of itself.
fn measure(load: Load) -> serde_json::Value {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = Router::new().fallback(answer).with_state(load);
    runtime.spawn(async move { axum::serve(listener, router).await });
    let own = std::env::current_exe().expect("own path");
    let child = Command::new(own).args(["--child", &url, &load.changes.to_string()]).stdout(Stdio::piped()).spawn();
    let output = child.and_then(std::process::Child::wait_with_output).expect("the child runs");
    assert!(output.status.success(), "the child failed");
    serde_json::from_slice(&output.stdout).expect("the child's figures")
}

// ---- the library, in a process of its own ----

#[derive(Default)]
struct Version(AtomicU64);

impl Telemetry for Version {
    fn seen(&self, kind: Kind, in_mesh: bool, version: u64) {
        if kind == Kind::Pod && !in_mesh {
            self.0.store(version, Ordering::Relaxed);
        }
    }
}

fn child(url: &str, changes: u64) {
    let begun = Instant::now();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let figures = runtime.block_on(async {
        cluster::install_crypto();
        let config = kube::Config::new(url.parse().expect("a URL"));
        let client = kube::Client::try_from(config).expect("a client");
        let shared = Shared::new(Snapshot::live(), Policy::default());
        let version = Arc::new(Version::default());
        let handle = cluster::start(client, shared.clone(), version.clone(), Timing::default());
        handle.readiness().wait_for(|r| *r == Readiness::Ready).await.expect("the store runs");
        let seconds = begun.elapsed().as_secs_f64();
        let ready = status("VmRSS:");
        while version.0.load(Ordering::Relaxed) < LISTED + changes {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let state = shared.state.load();
        let count = |kind| state.snapshot.len(kind);
        let config = [Kind::VirtualService, Kind::DestinationRule, Kind::AuthorizationPolicy];
        let config: usize = config.into_iter().map(count).sum();
        serde_json::json!({
            "ready_mb": ready, "changed_mb": status("VmRSS:"), "peak_mb": status("VmHWM:"), "seconds": seconds,
            "namespaces": count(Kind::Namespace), "deployments": count(Kind::Deployment), "pods": count(Kind::Pod),
            "config": config,
            "runs": state.snapshot.runs("1-24").count(),
        })
    });
    let _ = writeln!(std::io::stdout(), "{figures}");
}

/// A line of /proc/self/status, in MB.
fn status(key: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kb = text.lines().find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse::<f64>().ok());
    kb.map_or(f64::NAN, |kb| kb * 1024.0 / 1e6)
}

// ---- the replayed API server ----

async fn answer(State(load): State<Load>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or("").to_owned();
    let built_in = [
        "/api/v1",
        "/apis/apps",
        "/apis/batch",
        "/apis/discovery.k8s.io",
        "/apis/admissionregistration.k8s.io",
        "/apis/apiextensions.k8s.io",
        "/apis/networking.istio.io",
        "/apis/security.istio.io",
    ];
    let text = |text: &str| Response::new(Body::from(text.to_owned()));
    if built_in.iter().all(|b| !path.starts_with(b)) {
        return Response::builder().status(404).body(Body::empty()).expect("a response");
    }
    if path != "/api/v1" && built_in.contains(&path.as_str()) {
        return text(r#"{"versions":[{"version":"v1"}]}"#);
    }
    if path.ends_with("/v1") {
        let all = [
            "namespaces",
            "pods",
            "services",
            "configmaps",
            "deployments",
            "daemonsets",
            "statefulsets",
            "cronjobs",
            "endpointslices",
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
            "customresourcedefinitions",
        ];
        let config = CONFIG.iter().map(|(_, plural)| plural);
        let all: Vec<String> = all.iter().chain(config).map(|r| format!(r#"{{"name":"{r}"}}"#)).collect();
        return text(&format!(r#"{{"resources":[{}]}}"#, all.join(",")));
    }
    let first = query.contains("sendInitialEvents");
    let mut lines = Lines { load, path, at: 0, changes: 0, phase: if first { Phase::First } else { Phase::Quiet } };
    let stream = futures::stream::unfold(0, move |_| {
        let chunk = lines.chunk();
        async move {
            if chunk.is_none() {
                // Watches stay open and quiet.
                std::future::pending::<()>().await;
            }
            chunk.map(|c| (Ok::<_, std::io::Error>(c), 0))
        }
    });
    Response::new(Body::from_stream(stream))
}

enum Phase {
    First,
    Changes,
    Quiet,
}

struct Lines {
    load: Load,
    path: String,
    at: usize,
    changes: usize,
    phase: Phase,
}

impl Lines {
    /// Some objects at a time, as a busy API server sends them.
    fn chunk(&mut self) -> Option<String> {
        let mut out = String::new();
        for _ in 0..16 {
            match self.phase {
                Phase::First => match self.object(self.at, LISTED) {
                    Some(object) => {
                        let _ = writeln!(out, r#"{{"type":"ADDED","object":{object}}}"#);
                        self.at += 1;
                    }
                    None => {
                        let mark = r#"{"k8s.io/initial-events-end":"true"}"#;
                        let _ = writeln!(
                            out,
                            r#"{{"type":"BOOKMARK","object":{{"metadata":{{"resourceVersion":"{LISTED}","annotations":{mark}}}}}}}"#
                        );
                        self.phase = if self.path == "/api/v1/pods" { Phase::Changes } else { Phase::Quiet };
                    }
                },
                Phase::Changes if self.changes < self.load.changes => {
                    self.changes += 1;
                    let version = LISTED + self.changes as u64;
                    let object = self.object(self.changes % self.load.pods, version).expect("a pod");
                    let _ = writeln!(out, r#"{{"type":"MODIFIED","object":{object}}}"#);
                }
                Phase::Changes | Phase::Quiet => break,
            }
        }
        (!out.is_empty()).then_some(out)
    }

    fn object(&self, i: usize, version: u64) -> Option<String> {
        let load = self.load;
        match self.path.as_str() {
            "/api/v1/namespaces" => (i < load.namespaces).then(|| namespace(i, version)),
            "/apis/apps/v1/deployments" => (i < load.deployments).then(|| deployment(load, i, version)),
            "/api/v1/pods" => (i < load.pods).then(|| pod(load, i, version, false)),
            "/api/v1/configmaps" => (i < load.namespaces * load.config_maps).then(|| config_map(load, i, version)),
            path if CONFIG.iter().any(|(group, plural)| *path == format!("/apis/{group}/v1/{plural}")) => {
                (i < load.namespaces * load.config).then(|| config(load, i, version))
            }
            path => {
                let of = path.strip_prefix("/api/v1/namespaces/ns-")?.strip_suffix("/pods")?;
                let namespace: usize = of.parse().ok()?;
                // Every pod of the namespace, the gateway's and its neighbours.
                let nth = (0..load.pods).filter(|p| load.home(p % load.deployments) == namespace).nth(i)?;
                Some(pod(load, nth, version, true))
            }
        }
    }
}

/// Label sets that repeat over namespaces, as one chart installed by many teams.
const SETS: usize = 10_000;

fn labels(i: usize) -> String {
    let app = i % SETS;
    format!(
        r#""app.kubernetes.io/name":"app-{app}","app.kubernetes.io/instance":"app-{app}-prod","app.kubernetes.io/version":"{}.{}.0","app.kubernetes.io/component":"server","app.kubernetes.io/part-of":"platform-{}","app.kubernetes.io/managed-by":"Helm","helm.sh/chart":"service-{}.3.1","team":"team-{}""#,
        app % 7,
        app % 30,
        app % 40,
        app % 11,
        app % 300
    )
}

fn managed_fields(times: usize) -> String {
    let one = r#"{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:annotations":{".":{},"f:istio.io/rev":{},"f:kubectl.kubernetes.io/default-container":{},"f:sidecar.istio.io/status":{}},"f:generateName":{},"f:labels":{".":{},"f:app.kubernetes.io/name":{},"f:pod-template-hash":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"0\"}":{}}}}}"#;
    vec![one; times].join(",")
}

fn namespace(i: usize, version: u64) -> String {
    format!(
        r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{{"name":"ns-{i}","uid":"00000000-0000-4000-8000-{i:012}","resourceVersion":"{version}","labels":{{"kubernetes.io/metadata.name":"ns-{i}","istio.io/rev":"prod","team":"team-{}"}},"annotations":{{"scheduler.alpha.kubernetes.io/node-selector":"pool=apps"}},"managedFields":[{}]}}}}"#,
        i % 300,
        managed_fields(1)
    )
}

fn config_map(load: Load, i: usize, version: u64) -> String {
    let (ns, nth) = (i / load.config_maps, i % load.config_maps);
    let name = match nth {
        0 => "kube-root-ca.crt".to_owned(),
        1 => "istio-ca-root-cert".to_owned(),
        nth => format!("app-{}-settings", ns * load.config_maps + nth),
    };
    metadata(&name, ns, version, &labels(ns))
}

fn config(load: Load, i: usize, version: u64) -> String {
    metadata(&format!("app-{i}"), i / load.config, version, &labels(i))
}

fn metadata(name: &str, ns: usize, version: u64, labels: &str) -> String {
    format!(
        r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{{"name":"{name}","namespace":"ns-{ns}","uid":"00000000-0000-4000-8000-{ns:012}","resourceVersion":"{version}","generation":1,"labels":{{{labels}}},"annotations":{{"meta.helm.sh/release-name":"{name}","meta.helm.sh/release-namespace":"ns-{ns}","kubectl.kubernetes.io/last-applied-configuration":"{applied}"}},"managedFields":[{managed}]}}}}"#,
        applied = "x".repeat(500),
        managed = managed_fields(1),
    )
}

fn deployment(load: Load, i: usize, version: u64) -> String {
    let first = i == 0 || load.home(i - 1) != load.home(i);
    let gateway = if first && load.home(i) < load.gateways { r#","inject.istio.io/templates":"gateway""# } else { "" };
    let env: Vec<String> = (0..25)
        .map(|n| format!(r#"{{"name":"SETTING_{n}","value":"the value of setting {n} of deployment {i}"}}"#))
        .collect();
    let labels = labels(i);
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"app-{app}","namespace":"ns-{ns}","uid":"00000000-0000-4000-8000-{i:012}","resourceVersion":"{version}","generation":3,"labels":{{{labels}}},"annotations":{{"deployment.kubernetes.io/revision":"{rev}","meta.helm.sh/release-name":"app-{app}","meta.helm.sh/release-namespace":"ns-{ns}","kubectl.kubernetes.io/last-applied-configuration":"{applied}"}},"managedFields":[{managed}]}},"spec":{{"replicas":4,"selector":{{"matchLabels":{{"app.kubernetes.io/name":"app-{app}","app.kubernetes.io/instance":"app-{app}-prod"}}}},"template":{{"metadata":{{"labels":{{{labels}}},"annotations":{{"prometheus.io/scrape":"true","prometheus.io/port":"9090","checksum/config":"{i:064x}"{gateway}}}}},"spec":{{"serviceAccountName":"app-{app}","containers":[{{"name":"server","image":"registry.example/team/app-{app}:1.{rev}.0","env":[{env}],"resources":{{"limits":{{"cpu":"1","memory":"512Mi"}}}},"volumeMounts":[{{"name":"config","mountPath":"/etc/app"}}]}}],"volumes":[{{"name":"config","configMap":{{"name":"app-{app}-config"}}}}]}}}}}},"status":{{"observedGeneration":3,"replicas":4,"readyReplicas":4,"conditions":[{{"type":"Available","status":"True"}}]}}}}"#,
        app = i % SETS,
        ns = load.home(i),
        rev = i % 50,
        applied = "x".repeat(1500),
        managed = managed_fields(3),
        env = env.join(","),
    )
}

fn pod(load: Load, i: usize, version: u64, whole: bool) -> String {
    let of = i % load.deployments;
    let app = of % SETS;
    let hash = format!("{:09x}", of.wrapping_mul(2_654_435_761) % (1 << 36));
    let body = if whole {
        r#","spec":{"containers":[{"name":"istio-proxy","image":"istio/proxyv2:1.24.2"}]},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}"#
    } else {
        ""
    };
    format!(
        r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{{"name":"app-{app}-{hash}-{i:05x}","generateName":"app-{app}-{hash}-","namespace":"ns-{ns}","uid":"00000000-0000-4000-8000-{i:012}","resourceVersion":"{version}","labels":{{{labels},"pod-template-hash":"{hash}","security.istio.io/tlsMode":"istio","service.istio.io/canonical-name":"app-{app}","service.istio.io/canonical-revision":"latest"}},"annotations":{{"istio.io/rev":"1-24","kubectl.kubernetes.io/default-container":"server","prometheus.io/scrape":"true","sidecar.istio.io/status":"{{\"initContainers\":[\"istio-init\"],\"containers\":[\"istio-proxy\"],\"volumes\":[\"workload-socket\",\"credential-socket\",\"workload-certs\",\"istio-envoy\",\"istio-data\",\"istio-podinfo\",\"istio-token\",\"istiod-ca-cert\"],\"imagePullSecrets\":null,\"revision\":\"1-24\"}}"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"app-{app}-{hash}","uid":"1","controller":true,"blockOwnerDeletion":true}}],"managedFields":[{managed}]}}{body}}}"#,
        ns = load.home(of),
        labels = labels(of),
        managed = managed_fields(2),
    )
}
