//! Many writes at a time through the API server, each of which must get the answer it deserves.
//!
//! Half of them must be denied: under `failurePolicy: Ignore` a lost call would let them pass, and under
//! `Fail` a lost call is another error. Nothing is tried twice. All are dry-runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use http::Method;
use kube::Client;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::{Env, SOON, namespace, prefix};
use crate::harness::credentials::config_of;
use crate::harness::raw::{As, JSON, send};
use crate::harness::wait::wait_until;

/// More than the 25 idle connections that the API server keeps to a webhook, so that it dials all the time.
const WORKERS: usize = 40;

/// Kept of what was lost.
const EXAMPLES: usize = 5;

#[derive(Default)]
struct State {
    stop: AtomicBool,
    done: AtomicU64,
    lost: AtomicU64,
    examples: Mutex<Vec<String>>,
    /// Since when each worker waits for its present answer.
    waiting: Mutex<Vec<Option<Instant>>>,
}

pub struct Load {
    state: Arc<State>,
    workers: JoinSet<()>,
}

/// What came of it.
#[derive(Debug)]
pub struct Tally {
    pub calls: u64,
    pub lost: u64,
    pub examples: Vec<String>,
}

impl Load {
    pub async fn start(env: &Env) -> Result<Load> {
        let state = Arc::new(State::default());
        *state.waiting.lock().await = vec![None; WORKERS];
        let mut config = config_of(&env.jane).await?;
        // A repeated call would hide a lost one.
        config.default_retry = false;
        let client = Client::try_from(config)?;
        let mut workers = JoinSet::new();
        for number in 0..WORKERS {
            workers.spawn(work(client.clone(), Arc::clone(&state), number));
        }
        Ok(Load { state, workers })
    }

    pub fn done(&self) -> u64 {
        self.state.done.load(Ordering::SeqCst)
    }

    pub fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::SeqCst)
    }

    /// Waits for so many further answers.
    pub async fn more(&self, calls: u64) -> Result<()> {
        let goal = self.done() + calls;
        wait_until(Duration::from_secs(600), &format!("{calls} answers"), || async {
            let done = self.done();
            if done >= goal { Ok(()) } else { Err(format!("{done} of {goal}")) }
        })
        .await
    }

    /// Waits until somebody has waited for his answer this long.
    pub async fn stuck(&self, long: Duration) -> Result<()> {
        wait_until(SOON, "a call that hangs", || async {
            let longest = self.state.waiting.lock().await.iter().flatten().map(Instant::elapsed).max();
            if longest.is_some_and(|longest| longest >= long) { Ok(()) } else { Err(format!("{longest:?}")) }
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
        Ok(Tally { calls: self.done(), lost: self.state.lost.load(Ordering::SeqCst), examples })
    }
}

async fn work(client: Client, state: Arc<State>, worker: usize) {
    let mut number = 0;
    while !state.stop.load(Ordering::SeqCst) {
        number += 1;
        let bad = number % 2 == 0;
        let labels =
            if bad { json!({"istio-injection": "enabled", "istio.io/rev": "x"}) } else { json!({"team": "a"}) };
        let object = namespace(&format!("load-{worker}-{number}"), labels);
        state.waiting.lock().await[worker] = Some(Instant::now());
        let answer =
            send(&client, Method::POST, "/api/v1/namespaces?dryRun=All", Some((JSON, &object)), &As::default()).await;
        state.waiting.lock().await[worker] = None;
        let lost = match answer {
            Ok(answer) if bad && answer.message().starts_with(&format!("{}[NS001 ", prefix())) => None,
            Ok(answer) if !bad && answer.status == 201 => None,
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
        state.done.fetch_add(1, Ordering::SeqCst);
    }
}
