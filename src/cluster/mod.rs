//! The live state: what the API server says, as snapshots.
//!
//! ```text
//! discovery ─→ sources ─→ one task a source (watch) ─→ bounded queue ─→ store (state) ─→ Shared.state
//!                 ↑                                                        │
//!                 └───────── CRDs that changed, namespaces of the mesh ────┘
//! ```
//!
//! It reads and never writes, decides nothing, and holds no object other than in the snapshot. When the API server is
//! away, the last snapshot stays and grows older, which it says; nothing is guessed.

pub mod client;
pub mod discovery;
pub mod gateway;
pub mod once;
pub mod request;
pub mod secret;
mod sources;
pub mod state;
mod stream;
pub mod telemetry;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures::FutureExt as _;
use kube::Client;
use tokio::sync::{Semaphore, mpsc, watch as channel};
use tokio::task::JoinSet;

pub use client::{Access, ClientError, connect, connect_as_kubectl, install_crypto};
pub use gateway::{GatewayReader, list, read_rollout};
pub use once::{Pods, ReadError, Reading, read_once, remote_clusters};
pub use request::{Trouble, source_name};
pub use state::Readiness;
pub use telemetry::{Telemetry, Timing, Verb};

use crate::admission::webhook::Shared;

/// A task that must run for ever has ended. Whoever hears it should end the process: a view of which a part stands still
/// looks healthy and is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {task} has died: {why}")]
pub struct Died {
    pub task: String,
    pub why: String,
}

/// The running live state. Dropping it ends every task.
pub struct Handle {
    readiness: channel::Receiver<Readiness>,
    died: channel::Receiver<Option<Died>>,
    _tasks: JoinSet<()>,
}

impl Handle {
    /// Whether every first list is complete, else what is missing.
    pub fn ready(&self) -> Readiness {
        self.readiness.borrow().clone()
    }

    /// Whether every task still runs, for the liveness probe.
    ///
    /// # Errors
    /// The first task that died.
    pub fn alive(&self) -> Result<(), Died> {
        self.died.borrow().clone().map_or(Ok(()), Err)
    }

    /// Readiness as it changes, for whoever must wait for it.
    pub fn readiness(&self) -> channel::Receiver<Readiness> {
        self.readiness.clone()
    }

    /// Waits until a task dies. Without a death it waits for ever.
    pub async fn join(&self) -> Died {
        let mut died = self.died.clone();
        match died.wait_for(Option::is_some).await {
            Ok(died) => died.clone().expect("it was waited for"),
            Err(_) => Died { task: "supervisor of the live state".to_owned(), why: "it ended".to_owned() },
        }
    }
}

/// Starts reading the cluster into `shared`. The first snapshot is published when it is complete; until then `shared`
/// keeps what it has, which for a live server is nothing known.
pub fn start(client: Client, shared: Arc<Shared>, telemetry: Arc<dyn Telemetry>, timing: Timing) -> Handle {
    let (reports, queue) = mpsc::channel(timing.events);
    let (lost, suspects) = mpsc::channel(64);
    let (died, mut deaths) = mpsc::channel::<Died>(16);
    let (announce, obituary) = channel::channel(None);
    let (store, wants, readiness) = state::Store::new(shared, Arc::clone(&telemetry), timing.clone());
    let context = Arc::new(watch::Context {
        client,
        lists: Semaphore::new(timing.lists),
        streams: AtomicBool::new(timing.stream),
        timing,
        telemetry,
        reports,
        lost,
    });
    let sources = sources::Sources::new(context, wants, suspects, died.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(watched(telemetry::STORE, store.run(queue), died.clone()));
    tasks.spawn(watched(telemetry::SOURCES, sources.run().boxed(), died));
    tasks.spawn(async move {
        while let Some(death) = deaths.recv().await {
            tracing::error!(task = death.task, why = death.why, "a task of the live state has died");
            // The first one is the cause; what follows is its consequence.
            announce.send_if_modified(|first| first.is_none() && first.replace(death).is_none());
        }
    });
    Handle { readiness, died: obituary, _tasks: tasks }
}

/// Runs a task that must not end, and reports it if it does.
async fn watched(task: &'static str, run: impl Future<Output = ()>, died: mpsc::Sender<Died>) {
    let why = match std::panic::AssertUnwindSafe(run).catch_unwind().await {
        Ok(()) => "it ended".to_owned(),
        Err(panic) => panic_text(&*panic),
    };
    let _ = died.send(Died { task: task.to_owned(), why }).await;
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a message"))
}
