//! Constant admission load: writes that must be refused by us, and writes that must pass, each checked by what came back.
//!
//! All are dry-runs, and nothing is tried twice. The workers write at the same moments, three times as many of them as the 25 idle
//! connections that an API server keeps to a webhook, so that it dials all the time and the Service spreads the calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use http::Method;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::machine::Machine;
use super::raw::{As, JSON, MERGE, send};
use super::wait::wait_until;

const WORKERS: usize = 80;

/// From one volley to the next: 200 calls a second, which leaves two cores time for the pods that come and go.
const VOLLEY: Duration = Duration::from_millis(400);

/// Kept of what was lost.
const EXAMPLES: usize = 8;

/// The namespace that updates are tried on.
pub const TARGET: &str = "under-load";

#[derive(Default)]
struct State {
    stop: AtomicBool,
    calls: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
    examples: Mutex<Vec<String>>,
}

pub struct Load {
    state: Arc<State>,
    workers: JoinSet<()>,
}

/// What came of it.
#[derive(Debug)]
pub struct Tally {
    pub calls: u64,
    /// Of the calls, those that we have refused as we had to.
    pub refused: u64,
    pub lost: u64,
    pub examples: Vec<String>,
}

impl Tally {
    pub fn none_lost(&self, what: &str) -> Result<()> {
        println!("{what}: {} calls, {} of them refused as they must be, {} lost", self.calls, self.refused, self.lost);
        ensure!(self.lost == 0, "{what}: {} of {} calls lost:\n{}", self.lost, self.calls, self.examples.join("\n"));
        Ok(())
    }

    /// A count that cannot lose says nothing: without this the whole test is void.
    pub fn some_lost(&self, what: &str) -> Result<()> {
        println!("{what} (control): {} calls, {} lost", self.calls, self.lost);
        ensure!(self.lost > 0, "the control lost nothing, so the counts beside it are void: {what}: {self:?}");
        Ok(())
    }
}

impl Load {
    /// Needs the namespace [`TARGET`].
    pub async fn start(machine: &Machine) -> Result<Load> {
        let state = Arc::new(State::default());
        let client = machine.client().await?;
        let start = Instant::now() + VOLLEY;
        let mut workers = JoinSet::new();
        for number in 0..WORKERS {
            workers.spawn(work(client.clone(), Arc::clone(&state), number, start));
        }
        Ok(Load { state, workers })
    }

    pub fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::SeqCst)
    }

    pub fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::SeqCst)
    }

    /// Waits for so many further answers.
    pub async fn more(&self, calls: u64) -> Result<()> {
        self.until(self.calls() + calls).await
    }

    /// Waits until so many answers have come since the start.
    pub async fn until(&self, goal: u64) -> Result<()> {
        wait_until(Duration::from_secs(1200), &format!("{goal} answers"), || async {
            let done = self.calls();
            if done >= goal { Ok(()) } else { Err(format!("{done} of {goal}")) }
        })
        .await
    }

    /// Lets every worker finish what it has begun.
    pub async fn finish(mut self) -> Result<Tally> {
        self.state.stop.store(true, Ordering::SeqCst);
        while let Some(worker) = self.workers.join_next().await {
            worker?;
        }
        let examples = std::mem::take(&mut *self.state.examples.lock().await);
        let refused = self.state.refused.load(Ordering::SeqCst);
        Ok(Tally { calls: self.calls(), refused, lost: self.lost(), examples })
    }
}

/// Labels that contradict each other, and labels that Istio also reads and that are in order: both are sent to us.
fn labels(bad: bool) -> Value {
    if bad {
        json!({"istio-injection": "enabled", "istio.io/rev": "x"})
    } else {
        json!({"istio-injection": "disabled"})
    }
}

async fn work(client: Client, state: Arc<State>, worker: usize, start: Instant) {
    let mut volley = interval_at(start, VOLLEY);
    volley.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut number = worker;
    while !state.stop.load(Ordering::SeqCst) {
        volley.tick().await;
        number += 1;
        let (bad, update) = (number.is_multiple_of(2), (number / 2).is_multiple_of(2));
        let answer = if update {
            let patch = json!({"metadata": {"labels": labels(bad)}});
            let path = format!("/api/v1/namespaces/{TARGET}?dryRun=All");
            send(&client, Method::PATCH, &path, Some((MERGE, &patch)), &As::default()).await
        } else {
            let name = format!("load-{worker}-{number}");
            let object =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels(bad)}});
            send(&client, Method::POST, "/api/v1/namespaces?dryRun=All", Some((JSON, &object)), &As::default()).await
        };
        let lost = match answer {
            Ok(answer) if bad && answer.status == 403 && answer.message().contains(" denied the request: [NS001 ") => {
                state.refused.fetch_add(1, Ordering::SeqCst);
                None
            }
            Ok(answer) if !bad && answer.ok() => None,
            Ok(answer) => Some(format!("{} {}", answer.status, answer.message())),
            Err(error) => Some(format!("{error:#}")),
        };
        if let Some(lost) = lost {
            state.lost.fetch_add(1, Ordering::SeqCst);
            let mut examples = state.examples.lock().await;
            if examples.len() < EXAMPLES {
                examples.push(lost);
            }
        }
        state.calls.fetch_add(1, Ordering::SeqCst);
    }
}
