//! The HTTPS server: accepts, lets `connection` serve, and drains at the end.
//!
//! It knows nothing of Istio or of reviews; what a body means is the [`Reviewer`]'s matter.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Reviewer;
use super::answer::{self, Desk};
use super::callers::Callers;
use super::connection::{self, Shared};
use super::connections::{Place, Table};
use super::drain::{self, Drained};
use super::limit::{self, BodyMemory, Gate};
use super::settings::Settings;
use super::tls::Certificates;
use crate::telemetry::metrics::Port;
use crate::telemetry::{Condition, Health, Metrics};

/// After an accept that failed for want of file descriptors: long enough for a connection to be
/// closed, short enough for a client that waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Everything that the server is made of.
pub struct Serving {
    /// Limits and durations.
    pub settings: Settings,
    /// What is shown to clients.
    pub certificates: Arc<Certificates>,
    /// Whose client certificates are asked for; `None`: nobody's.
    pub callers: Option<Arc<Callers>>,
    /// What judges.
    pub reviewer: Arc<dyn Reviewer>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// Where readiness is told.
    pub health: Arc<Health>,
}

/// Serves until `shutdown` completes, then drains for `settings.drain` and at most
/// `settings.hard_stop` more. It needs a runtime of [`Settings::worker_threads`] threads; on one
/// with fewer, fewer reviews run at a time, so that a worker is left to answer 429.
///
/// # Errors
/// Only at start, if the TLS library refuses its own defaults.
pub async fn serve(
    listener: TcpListener,
    serving: Serving,
    shutdown: impl Future<Output = ()>,
) -> Result<Drained, rustls::Error> {
    let Serving { settings, certificates, callers, reviewer, metrics, health } = serving;
    let tls = TlsAcceptor::from(Arc::new(certificates.server_config(callers.as_ref())?));
    let table = Table::new(Port::Admission, &settings, Arc::clone(&metrics));
    let gate = Gate::new(concurrency(&settings));
    if let Err(error) = limit::oversee(&gate) {
        tracing::warn!(%error, "no thread to watch over slow reviews, one may delay others");
    }
    let desk = Arc::new(Desk {
        reviewer,
        metrics: Arc::clone(&metrics),
        gate,
        memory: BodyMemory::new(settings.body_memory),
        settings: settings.clone(),
    });
    let shared = Arc::new(Shared { router: answer::router(desk), closing: AtomicBool::new(false), metrics, settings });
    let mut tasks = JoinSet::new();
    let mut start = |tasks: &mut JoinSet<()>, stream: TcpStream, place: Place| {
        tasks.spawn(secured(stream, place, tls.clone(), Arc::clone(&shared)));
    };

    // One that is still to come is told by whoever brings it.
    if certificates.facts().is_some() {
        health.set(Condition::Certificate, Ok(()));
    }
    health.set(Condition::Running, Ok(()));
    health.set(Condition::Listener, Ok(()));
    accept(&listener, &table, &mut tasks, &mut start, shutdown).await;

    tracing::info!(drain_seconds = shared.settings.drain.as_secs_f64(), "shutdown began, draining");
    health.set(Condition::Running, Err("shutting down".to_owned()));
    shared.closing.store(true, Ordering::Release);
    let drained = tokio::time::sleep(shared.settings.drain);
    accept(&listener, &table, &mut tasks, &mut start, drained).await;

    let waiting = drain::backlog(&listener);
    drop(listener);
    health.set(Condition::Listener, Err("closed".to_owned()));
    for stream in waiting {
        if let Some(place) = table.admit().await {
            start(&mut tasks, stream, place);
        }
    }
    let drained = drain::finish(&table, &mut tasks, &shared.settings).await;
    tracing::info!(cut = drained.cut, "drained");
    Ok(drained)
}

fn concurrency(settings: &Settings) -> usize {
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    let possible = workers.saturating_sub(1).max(1);
    if settings.concurrency > possible {
        tracing::warn!(
            concurrency = settings.concurrency,
            workers,
            "fewer worker threads than reviews at a time, one is kept free to answer"
        );
    }
    settings.concurrency.min(possible)
}

/// Accepts until `until` completes. A connection that is accepted is always given to `start` or
/// counted as refused: nothing is awaited inside the `select!` but the accept itself.
pub(super) async fn accept(
    listener: &TcpListener,
    table: &Arc<Table>,
    tasks: &mut JoinSet<()>,
    start: &mut impl FnMut(&mut JoinSet<()>, TcpStream, Place),
    until: impl Future<Output = ()>,
) {
    let mut until = pin!(until);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut until => return,
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task panicked");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Answers are written whole; waiting for more to send only delays them.
                let _ = stream.set_nodelay(true);
                if let Some(place) = table.admit().await {
                    start(tasks, stream, place);
                }
            }
            Err(error) => {
                table.accept_error();
                if !is_of_the_peer(&error) {
                    tracing::warn!(%error, "cannot accept, closing an idle connection");
                    table.evict();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Errors of one connection, which accept(2) hands on; the next one may be fine.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn secured(stream: TcpStream, place: Place, tls: TlsAcceptor, shared: Arc<Shared>) {
    let activity = Arc::clone(&place.activity);
    let reason = match connection::handshake(tls.accept(stream), &activity, &shared.settings).await {
        Ok(stream) => connection::serve(stream, &activity, &shared).await,
        Err(reason) => reason,
    };
    place.leave(reason);
}
