//! `revguard serve`: certificate, policy, state, two ports, and a drain at the end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::policy;
use crate::admission::drain::signalled;
use crate::admission::self_signed::Authority;
use crate::admission::tls::{self, Certificates, Files};
use crate::admission::webhook::{Shared, Webhook};
use crate::admission::{Serving, Settings, bind, probes, serve};
use crate::rules::Policy;
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
    pub config: Option<PathBuf>,
    pub state: State,
}

pub enum Certificate {
    Files(Files),
    /// Made in memory for these names.
    SelfSigned(Vec<String>),
}

/// Where the cluster is known from.
pub enum State {
    /// Manifests, read once.
    Manifests(Box<Snapshot>),
    Live {
        kubeconfig: Option<PathBuf>,
        context: Option<String>,
    },
}

/// A certificate in memory lives as long as the process; ten years outlast any.
const IN_MEMORY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A task that polls every few seconds and says nothing for so long is stuck.
const SILENCE: Duration = Duration::from_secs(30);

/// Serves until SIGTERM or SIGINT, and drains.
///
/// # Errors
/// Whatever keeps the server from starting.
pub fn run(service: Service) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(service.settings.worker_threads())
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    runtime.block_on(start(service))
}

async fn start(service: Service) -> anyhow::Result<()> {
    crate::cluster::install_crypto();
    let metrics = Arc::new(Metrics::new());
    let health = Health::new(&[Condition::Listener, Condition::Certificate, Condition::State, Condition::Running]);
    let certificates = match service.certificate {
        Certificate::Files(files) => {
            let (certificates, watch) = Certificates::from_files(files, Arc::clone(&metrics))?;
            tokio::spawn(watch.run(tls::POLL, health.task("certificate", Some(SILENCE))));
            certificates
        }
        Certificate::SelfSigned(names) => {
            let ca = Authority::new(IN_MEMORY)?;
            tracing::info!(names = names.join(","), ca = ca.pem(), "certificate made in memory");
            Certificates::in_memory(&ca.leaf(&names, IN_MEMORY)?, &metrics)?
        }
    };
    let start = match &service.state {
        State::Manifests(snapshot) => (**snapshot).clone(),
        State::Live { .. } => Snapshot::live(),
    };
    let shared = Shared::new(start, Policy::default());
    if let Some(file) = &service.config {
        let file = policy::File::open(file, Arc::clone(&shared), Arc::clone(&metrics)).map_err(anyhow::Error::msg)?;
        tokio::spawn(file.run(policy::POLL, health.task("policy", Some(SILENCE))));
    }
    match service.state {
        State::Manifests(_) => health.set(Condition::State, Ok(())),
        State::Live { kubeconfig, context } => {
            super::live::start(kubeconfig, context, &shared, &metrics, &health).await?;
        }
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
    let observe = super::observer(Arc::clone(&metrics));
    let reviewer = Arc::new(Webhook { shared, clock: Timestamp::now, observe });
    let signal = signalled();
    let serving = Serving { settings: service.settings, certificates, reviewer, metrics, health };
    serve(listener, serving, async {
        match signal.await {
            Ok(signal) => tracing::info!(signal, "asked to end"),
            Err(error) => tracing::error!(%error, "signals cannot be received"),
        }
    })
    .await?;
    let _ = end_probes.send(());
    // The thread ends by itself once its sender is used; a panic in it was logged by its own hook.
    let _ = probes.join();
    Ok(())
}
