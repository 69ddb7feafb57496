//! `revguard controller`: the lease, the live state, the loops, the probes, and an end in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Notify, oneshot};

use super::kill::{Kill, Place};
use super::policy;
use super::supervise::Supervisor;
use crate::admission::drain::signalled;
use crate::admission::webhook::Shared;
use crate::admission::{bind, probes};
use crate::cluster::{self, Access, Timing};
use crate::controller::audit::{Auditor, Pace};
use crate::controller::events::Events;
use crate::controller::in_force::Trials;
use crate::controller::{Candidate, Names, Terms, Writer, certificates, guard, rollout, week};
use crate::rules::{Policy, RULES};
use crate::snapshot::Snapshot;
use crate::telemetry::{Condition, Health, Heartbeat, Metrics};

/// What is run, from the command line.
pub struct Control {
    pub names: Names,
    /// This replica, as the Lease and Events call it.
    pub holder: String,
    pub config: Option<PathBuf>,
    pub health_listen: SocketAddr,
    pub access: Access,
    pub certificates: certificates::Settings,
    pub pace: Pace,
    /// Between two trials of the admission policy; `None` where it is not installed.
    pub policy_interval: Option<Duration>,
    /// Between two collections of the week's tally.
    pub collect: Duration,
    /// How long a Lease lasts without a renewal; the rest follows in proportion.
    pub lease: Option<Duration>,
    pub rollouts: rollout::Pace,
    /// A file with a token of istiod's audience.
    pub istiod_token: Option<PathBuf>,
    /// Where tests end the process, and the folder where it is remembered which places were used.
    pub kill: Vec<Place>,
    pub kill_marks: Option<PathBuf>,
}

/// A task that goes round every few seconds and says nothing for so long is stuck.
const SILENCE: Duration = Duration::from_secs(60);

/// How long the end may take: a write on its way, and the Lease.
const END: Duration = Duration::from_secs(15);

/// Runs until SIGTERM or SIGINT, and gives the Lease back; `Some` names the task whose death was the reason.
///
/// # Errors
/// Whatever keeps it from starting.
pub fn run(control: Control) -> anyhow::Result<Option<String>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot start")?;
    let ended = runtime.block_on(start(control));
    // A worker that is stuck must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn start(control: Control) -> anyhow::Result<Option<String>> {
    super::files::raise(Timing::default().most_connections());
    let metrics = Arc::new(Metrics::new());
    metrics.expect_repairs(RULES.iter().filter(|rule| rule.audits()).map(|rule| rule.code));
    let health = Health::new(&[Condition::State, Condition::Running]);
    let shared = Shared::new(Snapshot::live(), Policy::default());
    if let Some(file) = &control.config {
        let file = policy::File::open(file, Arc::clone(&shared), Arc::clone(&metrics)).map_err(anyhow::Error::msg)?;
        tokio::spawn(file.run(policy::POLL, health.task("policy", Some(SILENCE))));
    }
    let client = cluster::connect(&control.access).await?;
    super::live::start(client.clone(), &shared, &metrics, &health);
    let listener = bind::bind(control.health_listen, "--health-listen")?;
    tracing::info!(
        health_listen = %listener.local_addr()?,
        holder = control.holder,
        version = env!("CARGO_PKG_VERSION"),
        "controlling"
    );
    let (end_probes, probes_end) = oneshot::channel::<()>();
    let probes = probes::spawn(listener, Arc::clone(&health), Arc::clone(&metrics), async {
        // A dropped sender ends the probes as well.
        let _ = probes_end.await;
    })?;
    let mut supervisor = Supervisor::start(Arc::clone(&health), END)?;

    let candidate = Candidate::new(client.clone(), terms(&control));
    let leadership = candidate.leadership();
    let leader = leadership.clone();
    metrics.before_scrape(move |m| m.leader(leader.remaining().is_some()));
    let (end_lease, lease_end) = oneshot::channel::<()>();
    let lease = tokio::spawn(candidate.run(
        async {
            let _ = lease_end.await;
        },
        health.task("lease", Some(SILENCE)),
    ));
    let mut writer = Writer::new(client, leadership, Arc::clone(&metrics));
    if !control.kill.is_empty() {
        tracing::warn!(places = control.kill.len(), "this controller ends itself at write boundaries: --kill-at");
        writer = writer.witnessed(Arc::new(Kill::at(control.kill.clone(), control.kill_marks.clone())));
    }
    spawn_loops(&control, &writer, &shared, &health);
    health.set(Condition::Running, Ok(()));

    let dead = tokio::select! {
        signal = signalled() => {
            match signal {
                Ok(signal) => tracing::info!(signal, "asked to end"),
                Err(error) => tracing::error!(%error, "signals cannot be received"),
            }
            None
        }
        dead = supervisor.died() => Some(dead),
    };
    // Not ready first, then no new writes, then the Lease, so that the other replica begins at once.
    health.set(Condition::Running, Err("ending".to_owned()));
    let _ = end_lease.send(());
    if tokio::time::timeout(END, lease).await.is_err() {
        tracing::warn!("the lease could not be released in time; it runs out by itself");
    }
    drop(supervisor);
    let _ = end_probes.send(());
    // The thread ends by itself once its sender is used; a panic in it was logged by its own hook.
    let _ = probes.join();
    Ok(dead)
}

/// Everything that goes round by itself. A loop that ends, for whatever reason, ends the process by name.
fn spawn_loops(control: &Control, writer: &Writer, shared: &Arc<Shared>, health: &Arc<Health>) {
    // An audit of 50,000 workloads takes ten seconds, and each write waits for the API server.
    let audit = health.task("audit", Some(control.pace.interval * 3 + Duration::from_secs(180)));
    let audits = writer.clone().beating(audit.pulse());
    let events = Arc::new(Events::new(audits.clone(), &control.holder));
    let (auditor, exemptions) = Auditor::new(audits, Arc::clone(shared), events, control.names.clone(), control.pace);
    let auditor = match control.policy_interval {
        Some(every) => {
            let (trials, in_force) = Trials::new(writer.clone(), control.names.clone(), every);
            tokio::spawn(trials.run(health.task("admission-policy", Some(every * 3 + SILENCE))));
            auditor.with_policy(in_force)
        }
        None => auditor,
    };
    let known = Arc::clone(health);
    tokio::spawn(async move {
        // Before the first lists are complete everything would look missing.
        until_known(&known, &audit).await;
        auditor.run(audit, Arc::new(Notify::new())).await;
    });
    let heartbeat = health.task("tally", Some(control.collect * 3 + SILENCE));
    tokio::spawn(week::run(writer.clone(), control.names.clone(), exemptions, control.collect, heartbeat));
    let heartbeat = health.task("guard", Some(SILENCE));
    tokio::spawn(guard::run(writer.clone(), Arc::clone(shared), control.names.clone(), heartbeat));
    let settings = rollout::Settings {
        names: control.names.clone(),
        holder: control.holder.clone(),
        pace: control.rollouts,
        istiod_token: control.istiod_token.clone(),
    };
    let conductor = rollout::Conductor::new(writer.clone(), Arc::clone(shared), settings);
    let heartbeat = health.task("rollouts", Some(SILENCE));
    let known = Arc::clone(health);
    tokio::spawn(async move {
        // Where the control planes are stands in the snapshot.
        until_known(&known, &heartbeat).await;
        conductor.run(heartbeat).await;
    });
    let heartbeat = health.task("certificates", Some(control.certificates.pause * 3 + SILENCE));
    tokio::spawn(certificates::run(control.certificates.clone(), writer.clone(), heartbeat));
}

/// Waits until the first list of every kind is complete.
async fn until_known(health: &Health, heartbeat: &Heartbeat) {
    while !health.holds(Condition::State) {
        heartbeat.beat();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn terms(control: &Control) -> Terms {
    let mut terms = Terms::new(&control.names.namespace, &control.names.controller(), control.holder.clone());
    if let Some(duration) = control.lease {
        let part = |of: Duration| of.mul_f64(duration.as_secs_f64() / terms.duration.as_secs_f64());
        let (leads, period, answer) = (part(terms.leads), part(terms.period), part(terms.answer));
        terms = Terms { duration, leads, period, answer, ..terms };
    }
    terms
}
