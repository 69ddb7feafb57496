//! What is bounded inside a request: how many reviews run, how long one waits for its turn, and
//! how much memory the bodies take.
//!
//! Nothing queues without bound: a request waits in time, at most as many requests wait as there
//! are connections, and what does not get its turn is answered 429 so that the API server repeats
//! it within its own deadline.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Lets a fixed number of reviews run.
#[derive(Debug)]
pub(super) struct Gate {
    turns: Semaphore,
}

impl Gate {
    pub(super) fn new(concurrency: usize) -> Gate {
        Gate {
            turns: Semaphore::new(concurrency.max(1)),
        }
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
        BodyMemory {
            free: AtomicUsize::new(bytes),
        }
    }

    pub(super) fn share(&self) -> Share<'_> {
        Share {
            memory: self,
            taken: 0,
        }
    }
}

impl Share<'_> {
    /// Takes `bytes` more, or says that there are none. Taken as bytes arrive and not by what a
    /// client announces: an announcement costs the client nothing.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let took = self
            .memory
            .free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
                free.checked_sub(bytes)
            })
            .is_ok();
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
