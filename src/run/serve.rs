//! `revguard serve`: certificate, policy, state, two ports, and a drain at the end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::policy;
use super::secret::Listener;
use super::supervise::Supervisor;
use crate::admission::callers;
use crate::admission::drain::signalled;
use crate::admission::self_signed::Authority;
use crate::admission::tls::{self, Certificates, Files};
use crate::admission::webhook::{Shared, Webhook};
use crate::admission::{Serving, Settings, bind, probes, serve};
use crate::cluster::secret::{self, Place};
use crate::cluster::{self, Access, Timing};
use crate::rules::{Policy, RULES};
use crate::snapshot::Snapshot;
use crate::telemetry::{Condition, Health, Metrics};
use anyhow::Context as _;
use jiff::Timestamp;

/// What is served, from the command line.
pub struct Service {
    pub settings: Settings,
    pub listen: SocketAddr,
    pub health_listen: SocketAddr,
    pub certificate: Certificate,
    pub callers: Option<Callers>,
    pub config: Option<PathBuf>,
    pub state: State,
}

pub enum Certificate {
    Files(Files),
    /// Read by watch.
    Secret(Place),
    /// Made in memory for these names.
    SelfSigned(Vec<String>),
}

/// Whose client certificates are asked for.
pub struct Callers {
    pub ca: PathBuf,
    /// Empty: everybody's that the CA has signed.
    pub names: Vec<String>,
}

/// Where the cluster is known from.
pub enum State {
    /// Manifests, read once.
    Manifests(Box<Snapshot>),
    Live(Access),
}

/// A certificate in memory lives as long as the process; ten years outlast any.
const IN_MEMORY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A task that polls every few seconds and says nothing for so long is stuck.
const SILENCE: Duration = Duration::from_secs(30);

/// How long after its drain a process may take to end before it is ended.
const END: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT, and drains; `Some` names the task whose death was the reason.
///
/// # Errors
/// Whatever keeps the server from starting.
pub fn run(service: Service) -> anyhow::Result<Option<String>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(service.settings.worker_threads())
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let ended = runtime.block_on(start(service));
    // A worker that is stuck must not keep the process.
    runtime.shutdown_timeout(END);
    ended
}

async fn start(service: Service) -> anyhow::Result<Option<String>> {
    crate::cluster::install_crypto();
    let to_api_server = if matches!(service.state, State::Live(_)) { Timing::default().most_connections() } else { 0 };
    super::files::raise(to_api_server + service.settings.max_connections);
    let metrics = Arc::new(Metrics::new());
    metrics.expect_findings(RULES.iter().filter(|rule| rule.judges()).map(|rule| rule.code));
    let health = Health::new(&[Condition::Listener, Condition::Certificate, Condition::State, Condition::Running]);
    let client = match &service.state {
        State::Live(access) => Some(cluster::connect(access).await?),
        State::Manifests(_) => None,
    };
    let certificates = certificates(service.certificate, client.as_ref(), &metrics, &health)?;
    let callers = match service.callers {
        Some(Callers { ca, names }) => {
            let (callers, watch) = callers::Callers::from_file(&ca, names)?;
            tokio::spawn(watch.run(tls::POLL, health.task("authorities of clients", Some(SILENCE))));
            Some(callers)
        }
        None => None,
    };
    let start = match &service.state {
        State::Manifests(snapshot) => (**snapshot).clone(),
        State::Live(_) => Snapshot::live(),
    };
    let shared = Shared::new(start, Policy::default());
    if let Some(file) = &service.config {
        let file = policy::File::open(file, Arc::clone(&shared), Arc::clone(&metrics)).map_err(anyhow::Error::msg)?;
        tokio::spawn(file.run(policy::POLL, health.task("policy", Some(SILENCE))));
    }
    match client {
        None => health.set(Condition::State, Ok(())),
        Some(client) => super::live::start(client, &shared, &metrics, &health),
    }
    let listener = bind::bind(service.listen, "--listen")?;
    let probes = bind::bind(service.health_listen, "--health-listen")?;
    tracing::info!(
        listen = %listener.local_addr()?,
        health_listen = %probes.local_addr()?,
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    let (end_probes, probes_end) = tokio::sync::oneshot::channel::<()>();
    let probes = probes::spawn(probes, Arc::clone(&health), Arc::clone(&metrics), async {
        // A dropped sender ends the probes as well.
        let _ = probes_end.await;
    })?;
    let grace = service.settings.drain + service.settings.hard_stop + END;
    let mut supervisor = Supervisor::start(Arc::clone(&health), grace)?;
    let observe = super::observer(Arc::clone(&metrics));
    let reviewer = Arc::new(Webhook { shared, clock: Timestamp::now, observe });
    let signal = signalled();
    let serving = Serving { settings: service.settings, certificates, callers, reviewer, metrics, health };
    let mut dead = None;
    serve(listener, serving, async {
        tokio::select! {
            signal = signal => match signal {
                Ok(signal) => tracing::info!(signal, "asked to end"),
                Err(error) => tracing::error!(%error, "signals cannot be received"),
            },
            died = supervisor.died() => dead = Some(died),
        }
    })
    .await?;
    drop(supervisor);
    let _ = end_probes.send(());
    // The thread ends by itself once its sender is used; a panic in it was logged by its own hook.
    let _ = probes.join();
    Ok(dead)
}

/// The serving certificate, and the task that keeps it current.
fn certificates(
    from: Certificate,
    client: Option<&kube::Client>,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
) -> anyhow::Result<Arc<Certificates>> {
    Ok(match from {
        Certificate::Files(files) => {
            let (certificates, watch) = Certificates::from_files(files, Arc::clone(metrics))?;
            tokio::spawn(watch.run(tls::POLL, health.task("certificate", Some(SILENCE))));
            certificates
        }
        Certificate::Secret(place) => {
            let client =
                client.context("--tls-secret needs a live cluster; with --standalone give --tls-cert and --tls-key")?;
            let certificates = Certificates::empty();
            let (metrics, health) = (Arc::clone(metrics), Arc::clone(health));
            let timing = Timing::default();
            let heartbeat = health.task("watch of the serving Secret", Some(timing.idle + timing.answer * 3));
            let mut listener = Listener::new(place.clone(), Arc::clone(&certificates), metrics, health);
            tokio::spawn(secret::follow(client.clone(), place, timing, heartbeat, move |told| listener.hear(told)));
            certificates
        }
        Certificate::SelfSigned(names) => {
            let ca = Authority::new(IN_MEMORY)?;
            tracing::info!(names = names.join(","), ca = ca.pem(), "certificate made in memory");
            Certificates::in_memory(&ca.leaf(&names, IN_MEMORY)?, metrics)?
        }
    })
}
