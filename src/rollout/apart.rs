//! Pods that were set apart: each is deleted when what it had is finished, at the latest after `drain.maxWait`, whatever becomes of the
//! rollout meanwhile.

use std::sync::Arc;

use jiff::Timestamp;

use super::look::{GO, Go, Look, Move, after};
use super::seen::{Evidence, Of, Pod};
use super::step::{Next, Step};

impl Look<'_> {
    /// Deletes the next pod set apart whose time has come. Paused or not, forward or back: nothing is routed to it any more.
    pub fn end_apart(&self) -> Go {
        let Some(pod) = self.left_apart().find(|p| self.is_finished(p)) else { return GO };
        let evidence = self.evidence(pod);
        let idle = evidence.is_some_and(|e| e.is_idle(self.memory.unrouted));
        let cut = if idle { 0 } else { evidence.and_then(|e| e.open(self.memory.unrouted)).unwrap_or(0) };
        let next = Next::Do(Step::DropApart { pod: Arc::clone(&pod.name), held: pod.held.clone(), cut });
        let mut events = Vec::new();
        if cut > 0 {
            let wait = self.spec().strategy.drain.max_wait;
            let note = format!("pod {} is deleted after {wait} with {cut} connections still open", pod.name);
            events.push(("ConnectionsCut".to_owned(), note, true));
        }
        std::ops::ControlFlow::Break(Box::new(Move { next, word: None, events }))
    }

    /// When the next of them has waited for as long as it may; it may be finished earlier.
    pub fn apart_until(&self) -> Option<Timestamp> {
        self.left_apart().map(|p| self.last_moment(p)).min()
    }

    fn left_apart(&self) -> impl Iterator<Item = &Pod> {
        self.seen.pods.iter().filter(|p| p.of == Of::Apart && !p.deleting)
    }

    /// Somebody may have taken the annotation off, or put a time into it that is yet to come; then it counts from what is
    /// surely not too early.
    fn since(&self, pod: &Pod) -> Timestamp {
        let known = |at: &Timestamp| *at <= self.now;
        let batch = self.memory.last_batch.or(self.memory.since).filter(known);
        pod.apart_since.filter(known).or(batch).map_or(pod.created, |at| at.max(pod.created))
    }

    fn last_moment(&self, pod: &Pod) -> Timestamp {
        after(self.since(pod), self.spec().strategy.drain.max_wait.signed())
    }

    fn is_finished(&self, pod: &Pod) -> bool {
        if self.now >= self.last_moment(pod) {
            return true;
        }
        // Load balancers may go on sending for so long.
        let routed = self.now < after(self.since(pod), self.spec().strategy.drain.lb_drain_delay.signed());
        !routed && self.evidence(pod).is_some_and(|e: &Evidence| e.is_idle(self.memory.unrouted))
    }
}
