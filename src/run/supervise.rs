//! A task that died or is stuck ends the process, by name.
//!
//! Liveness alone would do on a cluster, after some probes have failed; elsewhere nobody probes, and a view of which a part
//! stands still looks healthy and is wrong. The watch runs on a thread of its own: a runtime whose workers are all stuck
//! could not notice that by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::telemetry::Health;

/// The exit code of a process that ended because of one of its tasks.
pub const DEAD_TASK: u8 = 3;

/// How long is waited for more names after the first.
const GATHER: Duration = Duration::from_secs(1);

/// How often the tasks are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Ends the watch when dropped: tasks that end with the process are not dead.
pub struct Supervisor {
    over: Arc<AtomicBool>,
    died: oneshot::Receiver<String>,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

impl Supervisor {
    /// Watches over `health`. Whoever hears of a death has `grace` to end in order, then the process is ended.
    ///
    /// # Errors
    /// If the thread cannot be made.
    pub fn start(health: Arc<Health>, grace: Duration) -> std::io::Result<Supervisor> {
        let over = Arc::new(AtomicBool::new(false));
        let (tell, died) = oneshot::channel();
        let ended = Arc::clone(&over);
        std::thread::Builder::new().name("supervisor".to_owned()).spawn(move || {
            let Some(dead) = watch(&health, &ended) else { return };
            tracing::error!(dead, "a task has died or is stuck, the process ends");
            // Nobody listens if the end has begun already.
            let _ = tell.send(dead);
            std::thread::sleep(grace);
            if !ended.load(Ordering::Acquire) {
                tracing::error!(grace_seconds = grace.as_secs(), "the process did not end in order");
                std::process::exit(i32::from(DEAD_TASK));
            }
        })?;
        Ok(Supervisor { over, died })
    }

    /// Which task died, in words. Without a death it waits for ever.
    pub async fn died(&mut self) -> String {
        match (&mut self.died).await {
            Ok(dead) => dead,
            // The thread ends without a word only when nobody wants it any more.
            Err(_) => std::future::pending().await,
        }
    }
}

fn watch(health: &Health, over: &AtomicBool) -> Option<String> {
    while !over.load(Ordering::Acquire) {
        if health.alive().is_err() {
            // One that is stuck may hold up others; whoever reads the log needs all names.
            std::thread::sleep(GATHER);
        }
        if let Err(said) = health.alive() {
            return Some(said.trim_start_matches("not alive\n").trim_end().replace('\n', "; "));
        }
        std::thread::sleep(LOOK);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stuck_task_and_a_dead_one_are_told_by_name() {
        for (silence, says) in [(Some(Duration::from_millis(1)), "no heartbeat for"), (None, "the task ended")] {
            let health = Health::new(&[]);
            let heartbeat = health.task("policy", silence);
            let mut supervisor = Supervisor::start(Arc::clone(&health), Duration::from_secs(3600)).unwrap();
            if silence.is_none() {
                drop(heartbeat);
            }
            let said = tokio::time::timeout(Duration::from_secs(10), supervisor.died()).await.unwrap();
            assert!(said.starts_with("policy: ") && said.contains(says), "{said}");
        }
    }

    #[tokio::test]
    async fn tasks_that_live_are_left_alone() {
        let health = Health::new(&[]);
        let _alive = health.task("policy", None);
        let mut supervisor = Supervisor::start(health, Duration::ZERO).unwrap();
        assert!(tokio::time::timeout(LOOK * 3, supervisor.died()).await.is_err());
    }
}
