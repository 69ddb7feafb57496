//! A server process: `serve KIND NAMESPACES CORE SLOW_US`. It prints where it listens, then answers each line with what it
//! has used, and ends with its input.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use axum::routing::post;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use revguard::admission::bind::bind;
use revguard::admission::self_signed::Authority;
use revguard::admission::tls::Certificates;
use revguard::admission::webhook::{Shared, Webhook};
use revguard::admission::{Endpoint, Reply, Reviewer, Serving, Settings, serve};
use revguard::rules::Policy;
use revguard::telemetry::{Condition, Health, Metrics};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::common;

const ALLOWED: &[u8] = br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","allowed":true}}"#;

pub fn main(args: &[String]) {
    let [kind, namespaces, core, slow] = args else { panic!("serve KIND NAMESPACES CORE SLOW_US") };
    if let Ok(core) = core.parse() {
        pin(core);
    }
    let slow = Duration::from_micros(slow.parse().expect("microseconds"));
    let settings = Settings::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.worker_threads())
        .enable_all()
        .build()
        .expect("a runtime");
    let authority = Authority::new(Duration::from_secs(86_400)).expect("a CA");
    let leaf = authority.leaf(&[], Duration::from_secs(86_400)).expect("a certificate");
    let metrics = Arc::new(Metrics::new());
    let certificates = Certificates::in_memory(&leaf, &metrics).expect("our own certificate");
    let _guard = runtime.enter();
    let listener = bind("127.0.0.1:0".parse().expect("an address"), "--listen").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    match kind.as_str() {
        "noop" => {
            let tls = certificates.server_config(None).expect("a configuration");
            runtime.spawn(noop(listener, TlsAcceptor::from(Arc::new(tls))));
        }
        ours => {
            let reviewer: Arc<dyn Reviewer> = match ours {
                "shell" => Arc::new(Constant),
                _ => {
                    let snapshot = common::cluster(namespaces.parse().expect("a number"));
                    let observe = revguard::run::observer(Arc::clone(&metrics));
                    let webhook = Webhook {
                        shared: Shared::new(snapshot, Policy::default()),
                        clock: jiff::Timestamp::now,
                        observe,
                    };
                    Arc::new(Slow { webhook, slow })
                }
            };
            let health = Health::new(&[Condition::Listener, Condition::Certificate, Condition::Running]);
            let serving = Serving { settings, certificates, callers: None, reviewer, metrics, health };
            runtime.spawn(async move { serve(listener, serving, std::future::pending()).await.map(drop) });
        }
    }
    println!("{}", json!({"addr": addr.to_string(), "ca": authority.pem()}));
    for line in std::io::stdin().lock().lines() {
        line.expect("our parent speaks UTF-8");
        println!("{}", json!({"cpu_us": cpu_us(), "rss_bytes": rss_bytes()}));
        std::io::stdout().flush().expect("our parent listens");
    }
    std::process::exit(0);
}

/// The same settings of TLS and of hyper as ours, and nothing else.
async fn noop(listener: TcpListener, tls: TlsAcceptor) {
    // Answers a constant once the body is there.
    async fn answer(_: Bytes) -> Response {
        let mut response = Response::new(Body::from(ALLOWED));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
    let router: Router =
        Router::new().route("/validate", post(answer)).layer(axum::extract::DefaultBodyLimit::disable());
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let _ = http1::Builder::new()
                .header_read_timeout(None)
                .max_buf_size(64 << 10)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
                .await;
        });
    }
}

/// Our server around the no-op's answer: what its limits, deadlines and metrics cost.
struct Constant;

impl Reviewer for Constant {
    fn review(&self, _: Endpoint, _: &[u8]) -> Reply {
        Reply { status: http::StatusCode::OK, body: ALLOWED.to_vec(), retry_after: None }
    }
}

/// The webhook, made to take at least so long: how a larger cluster's or a slower machine's would behave.
struct Slow {
    webhook: Webhook,
    slow: Duration,
}

impl Reviewer for Slow {
    fn review(&self, endpoint: Endpoint, body: &[u8]) -> Reply {
        let begun = Instant::now();
        let reply = self.webhook.review(endpoint, body);
        while begun.elapsed() < self.slow {
            std::hint::spin_loop();
        }
        reply
    }
}

pub fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).expect("the core exists");
}

fn cpu_us() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    t.tv_sec as f64 * 1e6 + t.tv_nsec as f64 / 1e3
}

fn rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}
