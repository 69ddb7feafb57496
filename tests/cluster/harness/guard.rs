//! Our own server inside the test: the real HTTPS server and the real watches, with a policy and a clock
//! that a test sets. What judges is the product; only where it gets these two from is the test's.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use revguard::admission::self_signed::Authority;
use revguard::admission::tls::Certificates;
use revguard::admission::webhook::{Shared, Webhook};
use revguard::admission::{Endpoint, Reply, Reviewer, Serving, Settings, bind, response, serve};
use revguard::cluster::{self, Access, Handle, Readiness, Telemetry, Timing};
use revguard::rules::Policy;
use revguard::snapshot::Snapshot;
use revguard::telemetry::{Condition, Health, Metrics};
use tokio::task::JoinHandle;

const VALID: Duration = Duration::from_secs(24 * 3600);
const READY: Duration = Duration::from_secs(60);

/// Nobody counts what the watches have to say.
struct Silent;

impl Telemetry for Silent {}

/// Which endpoint answers with the product's words; the other one lets everything pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Validate,
    Mutate,
}

/// Counts the calls, and passes those on that are asked for.
struct Gate {
    webhook: Webhook,
    mutate: AtomicU8,
    calls: AtomicU64,
}

impl Reviewer for Gate {
    fn review(&self, endpoint: Endpoint, body: &[u8]) -> Reply {
        let wanted = if self.mutate.load(Ordering::SeqCst) == 1 { Endpoint::Mutate } else { Endpoint::Validate };
        if endpoint != wanted {
            let review: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            let uid = review["request"]["uid"].as_str().unwrap_or_default().to_owned();
            let pass = response::Response { uid, allowed: true, ..response::Response::default() };
            return Reply { status: http::StatusCode::OK, body: response::write(&pass), retry_after: None };
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.webhook.review(endpoint, body)
    }
}

/// A running server that follows a cluster.
pub struct Guard {
    pub shared: Arc<Shared>,
    address: SocketAddr,
    ca: String,
    gate: Arc<Gate>,
    _live: Handle,
    server: JoinHandle<()>,
}

impl Guard {
    /// Starts and waits until every first list is complete.
    pub async fn start(kubeconfig: &Path, clock: fn() -> Timestamp) -> Result<Guard> {
        let metrics = Arc::new(Metrics::new());
        let authority = Authority::new(VALID)?;
        let certificates = Certificates::in_memory(&authority.leaf(&[], VALID)?, &metrics)?;
        let listener = bind::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "--listen")?;
        let address = listener.local_addr()?;
        let shared = Shared::new(Snapshot::live(), Policy::default());
        let access = Access { kubeconfig: Some(kubeconfig.to_owned()), context: None };
        // Only durations differ from what ships: hundreds of cases wait for a publication each.
        let timing = Timing { publish: Duration::from_millis(2), hold: Duration::from_secs(3600), ..Timing::default() };
        let live = cluster::start(cluster::connect(&access).await?, Arc::clone(&shared), Arc::new(Silent), timing);
        let mut readiness = live.readiness();
        let ready = readiness.wait_for(|now| *now == Readiness::Ready);
        tokio::time::timeout(READY, ready).await.context("the watches never got ready")??;

        let webhook = Webhook { shared: Arc::clone(&shared), clock, observe: Box::new(|_| {}) };
        let gate = Arc::new(Gate { webhook, mutate: AtomicU8::new(0), calls: AtomicU64::new(0) });
        let serving = Serving {
            settings: Settings { drain: Duration::ZERO, quiet: Duration::ZERO, ..Settings::default() },
            certificates,
            callers: None,
            reviewer: Arc::clone(&gate) as Arc<dyn Reviewer>,
            metrics,
            health: Health::new(&[Condition::Listener]),
        };
        let server = tokio::spawn(async move {
            // Ended by aborting the task.
            let _ = serve(listener, serving, std::future::pending()).await;
        });
        Ok(Guard { shared, address, ca: authority.pem().to_owned(), gate, _live: live, server })
    }

    pub fn url(&self, endpoint: &str) -> String {
        format!("https://{}/{endpoint}", self.address)
    }

    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// From now on only this endpoint speaks, under this policy, and its calls are counted anew.
    pub fn ask(&self, asked: Asked, policy: Policy) {
        self.shared.policy.store(Arc::new(policy));
        self.gate.mutate.store(u8::from(asked == Asked::Mutate), Ordering::SeqCst);
        self.gate.calls.store(0, Ordering::SeqCst);
    }

    /// Calls of the endpoint that was asked for.
    pub fn calls(&self) -> u64 {
        self.gate.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.server.abort();
    }
}
