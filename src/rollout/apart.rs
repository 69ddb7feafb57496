//! Pods that were set apart: each is deleted when what it had is finished, at the latest after `drain.maxWait`, whatever becomes of the
//! rollout meanwhile.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::look::{GO, Go, Look, Move, after};
use super::next::Next;
use super::seen::{Evidence, Of, Pod};
use super::step::Step;

/// A kernel may go on sending to a pod for so long after it left its Services, whatever load balancers do.
const HEARD: SignedDuration = SignedDuration::from_secs(2);
/// Envoy counts its connections so often: what it says is what it was at some moment in between.
const COUNTED: SignedDuration = SignedDuration::from_secs(5);

impl Look<'_> {
    /// Deletes the next pod set apart whose time has come. Paused or not, forward or back: nothing is routed to it any more.
    pub fn end_apart(&self) -> Go {
        let Some(pod) = self.left_apart().find(|p| self.is_finished(p)) else { return GO };
        let evidence = self.evidence(pod);
        let idle = evidence.is_some_and(|e| e.is_idle(self.memory.unrouted, self.counts_from(pod)));
        let cut = if idle { 0 } else { evidence.and_then(|e| e.open(self.memory.unrouted)).unwrap_or(0) };
        let next = Next::Do(Step::DropApart { pod: Arc::clone(&pod.name), held: pod.held.clone(), cut });
        let mut events = Vec::new();
        if cut > 0 {
            let wait = self.spec().strategy.drain.max_wait;
            let note = format!("pod {} is deleted after {wait}; connections that this cuts: {cut}", pod.name);
            events.push(("ConnectionsCut".to_owned(), note, true));
        }
        std::ops::ControlFlow::Break(Box::new(Move { next, word: None, events }))
    }

    /// When the next of them can be seen to be finished, or has waited for as long as it may.
    pub fn apart_until(&self) -> Option<Timestamp> {
        let next = |p: &Pod| Some(self.counts_from(p)).filter(|from| self.now < *from);
        self.left_apart().map(|p| next(p).map_or(self.last_moment(p), |from| from.min(self.last_moment(p)))).min()
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
        let from = self.counts_from(pod);
        self.now >= from && self.evidence(pod).is_some_and(|e: &Evidence| e.is_idle(self.memory.unrouted, from))
    }

    /// From when on what its Envoy says is of a time at which nothing new was sent to it. A pod that has served for a moment only looks idle before.
    fn counts_from(&self, pod: &Pod) -> Timestamp {
        let routed = self.spec().strategy.drain.lb_drain_delay.signed().max(HEARD);
        after(self.since(pod), routed + COUNTED)
    }
}
