//! `revguard controller`: the lease, the live state, the loops, the probes, and an end in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use super::policy;
use crate::admission::drain::signalled;
use crate::admission::webhook::Shared;
use crate::admission::{bind, probes};
use crate::cluster::{self, Access};
use crate::controller::audit::{Auditor, Pace};
use crate::controller::events::Events;
use crate::controller::{Candidate, Names, Terms, Writer};
use crate::rules::Policy;
use crate::snapshot::Snapshot;
use crate::telemetry::{Condition, Health, Heartbeat, Metrics};

/// What is run, from the command line.
pub struct Control {
    pub names: Names,
    /// This replica, as the Lease and Events call it.
    pub holder: String,
    pub config: Option<PathBuf>,
    pub health_listen: SocketAddr,
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    pub pace: Pace,
    /// How long a Lease lasts without a renewal; the rest follows in proportion.
    pub lease: Option<Duration>,
}

/// A task that goes round every few seconds and says nothing for so long is stuck.
const SILENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether a task is stuck. The kubelet does it as well; without one, we do.
const CHECK: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT, and gives the Lease back.
///
/// # Errors
/// Whatever keeps it from starting; afterwards the name of a task that died or is stuck.
pub fn run(control: Control) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot start")?;
    runtime.block_on(start(control))
}

async fn start(control: Control) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new());
    let health = Health::new(&[Condition::State, Condition::Running]);
    let shared = Shared::new(Snapshot::live(), Policy::default());
    let mut tasks = JoinSet::new();
    if let Some(file) = &control.config {
        let file = policy::File::open(file, Arc::clone(&shared), Arc::clone(&metrics)).map_err(anyhow::Error::msg)?;
        tasks.spawn(named("policy", file.run(policy::POLL, health.task("policy", Some(SILENCE)))));
    }
    let access = Access { kubeconfig: control.kubeconfig.clone(), context: control.context.clone() };
    let client = cluster::connect(&access).await?;
    super::live::start(control.kubeconfig.clone(), control.context.clone(), &shared, &metrics, &health).await?;

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
    health.set(Condition::Running, Ok(()));

    let candidate = Candidate::new(client.clone(), terms(&control));
    let leadership = candidate.leadership();
    let leader = leadership.clone();
    metrics.before_scrape(move |m| m.leader(leader.remaining().is_some()));
    let (end_lease, lease_end) = oneshot::channel::<()>();
    let mut lease = tokio::spawn(candidate.run(
        async {
            let _ = lease_end.await;
        },
        health.task("lease", Some(SILENCE)),
    ));

    let writer = Writer::new(client, leadership, Arc::clone(&metrics));
    let events = Arc::new(Events::new(writer.clone(), &control.holder));
    let again = Arc::new(Notify::new());
    spawn_loops(&mut tasks, &control, &writer, &shared, &events, &health, &again);

    let ended = tokio::select! {
        signal = signalled() => {
            match signal {
                Ok(signal) => tracing::info!(signal, "asked to end"),
                Err(error) => tracing::error!(%error, "signals cannot be received"),
            }
            Ok(())
        }
        dead = tasks.join_next() => Err(match dead {
            Some(Ok(name)) => format!("the {name} task has ended"),
            Some(Err(error)) => format!("a task has died: {error}"),
            None => "there is nothing to do".to_owned(),
        }),
        dead = &mut lease => Err(format!("the lease task has died: {}", dead.err().map(|e| e.to_string()).unwrap_or_default())),
        stuck = stuck(Arc::clone(&health)) => Err(stuck),
    };
    // Not ready first, then no new writes, then the Lease, so that the other replica begins at once.
    health.set(Condition::Running, Err("ending".to_owned()));
    let _ = end_lease.send(());
    if !lease.is_finished() && tokio::time::timeout(Duration::from_secs(10), &mut lease).await.is_err() {
        tracing::warn!("the lease could not be released in time; it runs out by itself");
    }
    tasks.shutdown().await;
    let _ = end_probes.send(());
    // The thread ends by itself once its sender is used; a panic in it was logged by its own hook.
    let _ = probes.join();
    ended.map_err(|why| {
        tracing::error!(why, "the process must be restarted");
        anyhow::anyhow!(why)
    })
}

/// Everything that goes round by itself.
fn spawn_loops(
    tasks: &mut JoinSet<&'static str>,
    control: &Control,
    writer: &Writer,
    shared: &Arc<Shared>,
    events: &Arc<Events>,
    health: &Arc<Health>,
    again: &Arc<Notify>,
) {
    // An audit of 50,000 workloads takes ten seconds, and writes wait for the API server.
    let audit_silence = control.pace.interval * 3 + Duration::from_secs(180);
    let (auditor, _exemptions) =
        Auditor::new(writer.clone(), Arc::clone(shared), Arc::clone(events), control.names.clone(), control.pace);
    let again = Arc::clone(again);
    let mut spawn = |name: &'static str, silence: Duration, run: Box<dyn FnOnce(Heartbeat) -> Boxed + Send>| {
        let heartbeat = health.task(name, Some(silence));
        let ready = until_known(Arc::clone(health));
        tasks.spawn(named(name, async move {
            // Before the first lists are complete everything would look missing.
            ready.await;
            run(heartbeat).await;
        }));
    };
    spawn("audit", audit_silence, Box::new(move |heartbeat| Box::pin(auditor.run(heartbeat, again))));
}

type Boxed = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Waits until the first list of every kind is complete.
async fn until_known(health: Arc<Health>) {
    while !health.holds(Condition::State) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn named(name: &'static str, run: impl Future<Output = ()>) -> &'static str {
    run.await;
    name
}

/// Returns when a task that should beat does not.
async fn stuck(health: Arc<Health>) -> String {
    loop {
        tokio::time::sleep(CHECK).await;
        if let Err(why) = health.alive() {
            return why.trim_end().replace('\n', "; ");
        }
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
