//! The second, plain port: `/healthz`, `/readyz`, `/metrics`, and `/tally` for the controller.
//!
//! It answers from local memory alone and keeps the same hygiene as the HTTPS port, with limits
//! of its own, so that an overloaded or flooded webhook is still seen as what it is. Run it on a
//! thread with a runtime of its own ([`spawn`]): a worker that is busy judging then cannot delay
//! the kubelet's probe, and a wedged runtime is noticed instead of waited for.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::connection::{self, Shared};
use super::connections::{Place, Table};
use super::server::accept;
use super::settings::Settings;
use crate::telemetry::metrics::Port;
use crate::telemetry::{Health, Metrics};

/// A kubelet, two Prometheus replicas and a person with curl need a handful.
const MAX_CONNECTIONS: usize = 64;

#[derive(Clone)]
struct Probed {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// Serves until `shutdown` completes. It should outlive the drain of the HTTPS port: what is not
/// ready must still be able to say so.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()>,
) {
    let shared = Arc::new(Shared {
        // Nobody repeats a probe on 429, so there is no place to be refused in.
        settings: Settings { max_connections: MAX_CONNECTIONS, max_refusals: 0, ..Settings::default() },
        router: router(Probed { health, metrics: Arc::clone(&metrics) }),
        closing: AtomicBool::new(false),
        metrics: Arc::clone(&metrics),
    });
    let table = Table::new(Port::Probes, &shared.settings, metrics);
    let mut tasks = JoinSet::new();
    let mut start = |tasks: &mut JoinSet<()>, stream: TcpStream, place: Place| {
        tasks.spawn(plain(stream, place, Arc::clone(&shared)));
    };
    accept(&listener, &table, &mut tasks, &mut start, shutdown).await;
    tasks.shutdown().await;
}

/// Serves on a thread of its own until `shutdown` completes. The listener must be bound already,
/// so that a taken port is an error at start; it is handed over as a std listener because it
/// belongs to the runtime that polls it.
///
/// # Errors
/// If the thread or its runtime cannot be made.
pub fn spawn(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<std::thread::JoinHandle<()>> {
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener)?
    };
    std::thread::Builder::new().name("probes".to_owned()).spawn(move || {
        runtime.block_on(serve(listener, health, metrics, shutdown));
        runtime.shutdown_timeout(Duration::ZERO);
    })
}

async fn plain(stream: TcpStream, place: Place, shared: Arc<Shared>) {
    let activity = Arc::clone(&place.activity);
    let reason = connection::serve(stream, &activity, &shared).await;
    place.leave(reason);
}

fn router(probed: Probed) -> Router {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/tally", get(tally))
        .with_state(probed)
}

async fn alive(State(probed): State<Probed>) -> (StatusCode, String) {
    verdict(probed.health.alive())
}

async fn ready(State(probed): State<Probed>) -> (StatusCode, String) {
    verdict(probed.health.ready())
}

fn verdict(said: Result<String, String>) -> (StatusCode, String) {
    match said {
        Ok(body) => (StatusCode::OK, body),
        Err(body) => (StatusCode::SERVICE_UNAVAILABLE, body),
    }
}

async fn metrics(State(probed): State<Probed>) -> ([(http::HeaderName, &'static str); 1], String) {
    probed.metrics.ready(probed.health.is_ready());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], probed.metrics.text())
}

async fn tally(State(probed): State<Probed>) -> ([(http::HeaderName, &'static str); 1], String) {
    let page = serde_json::to_string(&probed.metrics.tally.page()).expect("strings and numbers");
    ([(CONTENT_TYPE, "application/json")], page)
}
