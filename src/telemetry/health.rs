//! Whether this replica should be asked (ready) and whether it should be restarted (alive).
//!
//! Both are answered from local memory alone: a probe that asks the API server takes every
//! replica out of service in the same moment in which the API server is slow. Not ready is a set
//! of named conditions, each with the sentence an operator needs; not alive is a task that ended
//! or stopped beating, by name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What readiness consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The HTTPS port accepts connections.
    Listener,
    /// A certificate is loaded.
    Certificate,
    /// The first list of every kind is complete, or the manifests are read.
    State,
    /// No shutdown has begun.
    Running,
}

impl Condition {
    /// The name in the body of /readyz.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Listener => "listener",
            Condition::Certificate => "certificate",
            Condition::State => "state",
            Condition::Running => "running",
        }
    }
}

/// Shared health of the process.
#[derive(Debug)]
pub struct Health {
    conditions: Mutex<BTreeMap<Condition, Result<(), String>>>,
    tasks: Mutex<BTreeMap<&'static str, Arc<Task>>>,
    /// Tasks that have no heartbeat and were reported dead, with the reason.
    died: Mutex<BTreeMap<String, String>>,
    start: Instant,
}

#[derive(Debug)]
struct Task {
    /// Milliseconds from `Health::start` to the last beat.
    beat: AtomicU64,
    ended: AtomicBool,
    silence: Option<Duration>,
}

/// Held by a task that must not die. Dropping it, also by a panic or an early return, makes the
/// process not alive; [`Heartbeat::finish`] says that the end was meant.
#[derive(Debug)]
#[must_use = "a dropped heartbeat reports its task as dead"]
pub struct Heartbeat {
    name: &'static str,
    task: Arc<Task>,
    health: Arc<Health>,
}

/// Beats for a task from within what it waits for. Nothing is said when it ends.
#[derive(Clone, Debug)]
pub struct Pulse {
    task: Arc<Task>,
    health: Arc<Health>,
}

impl Pulse {
    /// What the task waits for goes on.
    pub fn beat(&self) {
        self.task.beat.store(self.health.elapsed(), Ordering::Release);
    }
}

impl Health {
    /// Not ready until every one of `required` was set to `Ok`.
    pub fn new(required: &[Condition]) -> Arc<Health> {
        Arc::new(Health {
            conditions: Mutex::new(
                required.iter().map(|condition| (*condition, Err("not reported yet".to_owned()))).collect(),
            ),
            tasks: Mutex::default(),
            died: Mutex::default(),
            start: Instant::now(),
        })
    }

    /// Sets a condition; the error says what is missing, for an operator.
    pub fn set(&self, condition: Condition, state: Result<(), String>) {
        lock(&self.conditions).insert(condition, state);
    }

    /// Whether this condition holds.
    pub fn holds(&self, condition: Condition) -> bool {
        lock(&self.conditions).get(&condition).is_some_and(Result::is_ok)
    }

    /// Whether every condition holds.
    pub fn is_ready(&self) -> bool {
        lock(&self.conditions).values().all(Result::is_ok)
    }

    /// `Ok` with the body of a 200, or `Err` with one line per missing condition.
    pub fn ready(&self) -> Result<String, String> {
        let mut missing = String::new();
        for (condition, state) in lock(&self.conditions).iter() {
            if let Err(why) = state {
                // Writing to a String cannot fail.
                let _ = writeln!(missing, "{}: {why}", condition.as_str());
            }
        }
        if missing.is_empty() { Ok("ready\n".to_owned()) } else { Err(format!("not ready\n{missing}")) }
    }

    /// Registers a task whose death should restart the process. With `silence` it must also beat
    /// at least that often, so choose several times the pause between two beats.
    pub fn task(self: &Arc<Self>, name: &'static str, silence: Option<Duration>) -> Heartbeat {
        let task = Arc::new(Task { beat: AtomicU64::new(self.elapsed()), ended: AtomicBool::new(false), silence });
        lock(&self.tasks).insert(name, Arc::clone(&task));
        Heartbeat { name, task, health: Arc::clone(self) }
    }

    /// Reports the death of a task that somebody else watches over.
    pub fn died(&self, task: &str, why: &str) {
        lock(&self.died).insert(task.to_owned(), why.to_owned());
    }

    /// `Ok` with the body of a 200, or `Err` with one line per dead or silent task.
    pub fn alive(&self) -> Result<String, String> {
        let now = self.elapsed();
        let mut dead = String::new();
        for (name, why) in lock(&self.died).iter() {
            let _ = writeln!(dead, "{name}: {why}");
        }
        for (name, task) in lock(&self.tasks).iter() {
            // Writing to a String cannot fail.
            if task.ended.load(Ordering::Acquire) {
                let _ = writeln!(dead, "{name}: the task ended");
            } else if let Some(silence) = task.silence {
                let silent = Duration::from_millis(now.saturating_sub(task.beat.load(Ordering::Acquire)));
                if silent > silence {
                    let _ = writeln!(
                        dead,
                        "{name}: no heartbeat for {:.1} s (limit {:.1} s)",
                        silent.as_secs_f64(),
                        silence.as_secs_f64()
                    );
                }
            }
        }
        if dead.is_empty() { Ok("alive\n".to_owned()) } else { Err(format!("not alive\n{dead}")) }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Heartbeat {
    /// The task is still going round.
    pub fn beat(&self) {
        self.task.beat.store(self.health.elapsed(), Ordering::Release);
    }

    /// For whoever works for this task.
    pub fn pulse(&self) -> Pulse {
        Pulse { task: Arc::clone(&self.task), health: Arc::clone(&self.health) }
    }

    /// The task ends because it should.
    pub fn finish(self) {
        lock(&self.health.tasks).remove(self.name);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        // After `finish` nobody looks at it any more.
        self.task.ended.store(true, Ordering::Release);
    }
}

/// Every critical section is a whole map operation: a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing_and_then_is_ready() {
        let health = Health::new(&[Condition::Listener, Condition::State]);
        assert_eq!(health.ready(), Err("not ready\nlistener: not reported yet\nstate: not reported yet\n".to_owned()));
        health.set(Condition::Listener, Ok(()));
        health.set(Condition::State, Err("the first list of Pods is not complete".to_owned()));
        assert_eq!(health.ready(), Err("not ready\nstate: the first list of Pods is not complete\n".to_owned()));
        health.set(Condition::State, Ok(()));
        assert_eq!(health.ready(), Ok("ready\n".to_owned()));
        assert!(health.is_ready());
        health.set(Condition::Running, Err("draining".to_owned()));
        assert!(!health.is_ready());
    }

    #[test]
    fn a_dead_task_is_named_and_a_finished_one_is_not() {
        let health = Health::new(&[]);
        let finished = health.task("policy", None);
        let died = health.task("watch", None);
        assert!(health.alive().is_ok());
        finished.finish();
        assert!(health.alive().is_ok());
        drop(died);
        assert_eq!(health.alive(), Err("not alive\nwatch: the task ended\n".to_owned()));
        health.died("watch of pods", "panic: boom");
        assert!(health.alive().is_err_and(|said| said.contains("watch of pods: panic: boom\n")));
    }

    #[test]
    fn a_panicking_task_is_dead() {
        let health = Health::new(&[]);
        let heartbeat = health.task("watch", None);
        let panicked = std::thread::spawn(move || {
            let _held = heartbeat;
            std::panic::resume_unwind(Box::new("boom"));
        })
        .join();
        assert!(panicked.is_err());
        assert!(health.alive().is_err());
    }

    #[test]
    fn a_silent_task_is_named_until_it_beats() {
        let health = Health::new(&[]);
        let heartbeat = health.task("watch", Some(Duration::from_millis(500)));
        std::thread::sleep(Duration::from_millis(600));
        let said = health.alive().unwrap_err();
        assert!(said.contains("watch: no heartbeat for 0."), "{said}");
        heartbeat.beat();
        assert!(health.alive().is_ok());
    }
}
