//! What is bounded inside a request: how many reviews run, how long one waits for its turn, and
//! how much memory the bodies take.
//!
//! Nothing queues without bound: a request waits in time, at most as many requests wait as there
//! are connections, and what does not get its turn is answered 429 so that the API server repeats
//! it within its own deadline.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Lets a fixed number of reviews run.
#[derive(Debug)]
pub(super) struct Gate {
    turns: Semaphore,
    concurrency: usize,
}

/// How often [`oversee`] looks: the longest that one slow review can keep the others from being
/// read, at a hundred wake-ups a second.
const OVERSEE: Duration = Duration::from_millis(10);

impl Gate {
    pub(super) fn new(concurrency: usize) -> Arc<Gate> {
        let concurrency = concurrency.max(1);
        Arc::new(Gate { turns: Semaphore::new(concurrency), concurrency })
    }

    /// Whether a review runs.
    fn is_busy(&self) -> bool {
        self.turns.available_permits() < self.concurrency
    }

    /// A turn, first come first served, or `None` if none came within `wait`.
    pub(super) async fn enter(&self, wait: Duration) -> Option<SemaphorePermit<'_>> {
        // The usual case, without a timer. It may overtake a waiter only if a turn is free, and
        // a freed turn goes to the first waiter before it counts as free.
        if let Ok(turn) = self.turns.try_acquire() {
            return Some(turn);
        }
        match tokio::time::timeout(wait, self.turns.acquire()).await {
            // The semaphore is never closed.
            Ok(turn) => turn.ok(),
            Err(_) => None,
        }
    }
}

/// Keeps sockets and timers going while reviews run on the runtime's workers.
///
/// A worker that was woken by a socket keeps the duty of watching all sockets, and hands it to
/// another only when it finds more than one task. If it goes straight into a review, the others
/// sleep on, and nobody accepts, reads or looks at a timer until that review is over. Handing
/// over before every review would cost as much as the review; a thread that gives a sleeping
/// worker an empty task now and then costs nothing and bounds the harm, as Go's sysmon does.
///
/// # Errors
/// If the thread cannot be made. It ends with the gate.
pub(super) fn oversee(gate: &Arc<Gate>) -> std::io::Result<()> {
    let gate: Weak<Gate> = Arc::downgrade(gate);
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name("overseer".to_owned())
        .spawn(move || {
            while let Some(gate) = gate.upgrade() {
                if gate.is_busy() {
                    runtime.spawn(async {});
                }
                drop(gate);
                std::thread::sleep(OVERSEE);
            }
        })
        .map(drop)
}

/// Bytes that all bodies together may take.
#[derive(Debug)]
pub(super) struct BodyMemory {
    free: AtomicUsize,
}

/// One body's share, given back on drop.
#[derive(Debug)]
pub(super) struct Share<'a> {
    memory: &'a BodyMemory,
    taken: usize,
}

impl BodyMemory {
    pub(super) fn new(bytes: usize) -> BodyMemory {
        BodyMemory { free: AtomicUsize::new(bytes) }
    }

    pub(super) fn share(&self) -> Share<'_> {
        Share { memory: self, taken: 0 }
    }
}

impl Share<'_> {
    /// Takes `bytes` more, or says that there are none. Taken as bytes arrive and not by what a
    /// client announces: an announcement costs the client nothing.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let took =
            self.memory.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(bytes)).is_ok();
        if took {
            self.taken += bytes;
        }
        took
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.memory.free.fetch_add(self.taken, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_is_given_back_and_a_wait_ends() {
        let gate = Gate::new(1);
        let held = gate.enter(Duration::ZERO).await.unwrap();
        assert!(gate.enter(Duration::from_millis(5)).await.is_none());
        drop(held);
        assert!(gate.enter(Duration::ZERO).await.is_some());
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let memory = BodyMemory::new(10);
        let mut one = memory.share();
        let mut two = memory.share();
        assert!(one.grow(6));
        assert!(!two.grow(5));
        assert!(two.grow(4));
        assert!(!one.grow(1));
        drop(one);
        assert!(two.grow(6));
        drop(two);
        assert!(memory.share().grow(10));
    }
}
