//! How pods leave: chosen within the floor, remembered by name, set apart one by one, and only then missed from the replicas.
//!
//! A batch is remembered before its first pod leaves. Whoever carries it out (a leader that starts anew, or one that does not know yet that it
//! leads no more) takes these pods and no others, and each write checks the floor on what was read right before it. Nothing here
//! takes a pod that serves without that check.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;

use super::look::{GO, Go, Look, after, pods};
use super::memory::Batch;
use super::seen::Pod;
use super::step::{Step, Which};
use crate::api::gateway_rollout::DrainMode;

/// `controller.kubernetes.io/pod-deletion-cost` of pods that were there before the first batch. A replacement has none, and goes first.
pub const PINNED: i32 = 1000;

/// Pods of a batch beyond the floor, which no batch exceeds when it begins: so many replacements are spared, however short they have been
/// ready. A controller that dies twice within a batch leaves two of them.
pub const SPARED: usize = 2;

/// A replacement that has been ready for so long was not noticed in time, and is spared whatever was spared before.
const UNTIL_SPARED: SignedDuration = SignedDuration::from_secs(1);

/// A pod that is not ready after so long is not on its way to help out.
const UNTIL_GIVEN_UP: SignedDuration = SignedDuration::from_secs(60);

/// The guard that stands against draining behind `externalTrafficPolicy: Local`, where it is acknowledged.
const LOCAL: &str = "LocalTrafficPolicy";

impl Look<'_> {
    /// Going back, pods leave one way or another.
    fn sets_apart(&self) -> bool {
        let wanted = self.memory.drain.as_ref().is_some_and(|d| d.0 == DrainMode::SetApart);
        wanted && (self.seen.apart_key.is_ok() || !self.is_back())
    }

    /// Carries the batch that was begun to its end, as far as capacity allows it now.
    pub fn finish_batch(&self) -> Go {
        let Some(batch) = self.memory.batch.as_ref().filter(|b| !b.over) else { return GO };
        let Some(deployment) = self.deployment(batch.which) else { return GO };
        let left: Vec<&Pod> = self.pods(batch.which).filter(|p| batch.pods.contains(&p.name)).collect();
        // What was set apart is missed at once, so that its replacement never gets to serve.
        let to = batch.to.saturating_add(u32::try_from(left.len()).unwrap_or(u32::MAX));
        if deployment.replicas > to {
            self.await_noticed()?;
            self.spare_ready(batch, to)?;
            if !self.can_spare(self.count(batch.which).loss(to)) && !self.costs_nothing(batch.which, to) {
                return GO;
            }
            return self.act(Step::Scale { which: batch.which, held: deployment.held.clone(), to });
        }
        let Some(pod) = left.first() else {
            return self.remember(|m| {
                if let Some(batch) = &mut m.batch {
                    batch.over = true;
                }
            });
        };
        if !self.can_spare(u32::from(self.is_endpoint(pod))) {
            return GO;
        }
        match &self.seen.apart_key {
            Ok(key) => {
                self.await_removed(batch.which)?;
                let (pod, held) = (Arc::clone(&pod.name), pod.held.clone());
                self.act(Step::SetApart { pod, held, key: Arc::clone(key), since: self.now })
            }
            // Going back it must leave one way or another; forward it is a matter for a person.
            Err(_) if self.is_back() => self.remember(|m| {
                if let Some(batch) = &mut m.batch {
                    batch.pods.clear();
                }
            }),
            Err(_) => GO,
        }
    }

    /// A ReplicaSet that still counts a pod set apart would end another for it, or the pod itself. Mostly it has noticed at once; when an API server
    /// has just come back it may hear of the lower replicas before it hears of the pod.
    fn await_noticed(&self) -> Go {
        match self.seen.pods.iter().find(|p| p.is_unnoticed()) {
            Some(pod) => self.slow(format!("the ReplicaSet of pod {} to notice that it is set apart", pod.name)),
            None => GO,
        }
    }

    /// What its ReplicaSet is about to remove is gone: a pod that is set apart meanwhile could be what it takes.
    fn await_removed(&self, which: Which) -> Go {
        let surplus = self.count(which).alive.saturating_sub(self.replicas(which));
        if surplus > 0 {
            return self.slow(format!("{} of {} to be removed", pods(surplus), which.named()));
        }
        GO
    }

    /// So many pods that serve may go.
    fn can_spare(&self, n: u32) -> bool {
        self.serving() >= self.floor().saturating_add(n)
    }

    /// Only pods that do not serve are missed: where too few do, no sooner than it is clear that they will not either. Then they may
    /// hold the very room that others need.
    fn costs_nothing(&self, which: Which, to: u32) -> bool {
        let given_up = |p: &Pod| self.now >= after(p.created, UNTIL_GIVEN_UP);
        self.count(which).loss(to) == 0 && self.pods(which).filter(|p| !p.ready).all(given_up)
    }

    /// A replacement that is ready already (nobody led for a while) has traffic: it is set apart as well, and not terminated. The one
    /// that comes for it is not ready yet when the replicas are lowered.
    fn spare_ready(&self, batch: &Batch, to: u32) -> Go {
        let count = self.count(batch.which);
        let removed = count.alive.saturating_sub(to).saturating_sub(count.unready);
        if removed == 0 || !self.sets_apart() {
            return GO;
        }
        let few = batch.pods.len() < (self.floor() as usize).saturating_add(SPARED);
        let old = |p: &Pod| p.ready_since.is_some_and(|since| self.now >= after(since, UNTIL_SPARED));
        let mut ready: Vec<&Pod> = self
            .pods(batch.which)
            .filter(|p| p.ready && !batch.pods.contains(&p.name) && (!batch.spared || few || old(p)))
            .collect();
        if ready.is_empty() {
            return GO;
        }
        // As a ReplicaSet chooses: the cheapest, then the youngest.
        ready.sort_by_key(|p| (p.deletion_cost.unwrap_or(0), std::cmp::Reverse(p.created)));
        let names: Vec<Arc<str>> = ready.iter().take(removed as usize).map(|p| Arc::clone(&p.name)).collect();
        self.remember(|m| {
            if let Some(batch) = &mut m.batch {
                batch.pods.extend(names);
                batch.spared = true;
            }
        })
    }

    /// Lowers a Deployment to so many replicas, batch by batch.
    pub fn shrink(&self, which: Which, leave: u32) -> Go {
        let Some(deployment) = self.deployment(which) else { return GO };
        if deployment.replicas <= leave {
            return GO;
        }
        if self.is_manual() {
            let on = format!(
                "Deployment {} to be scaled from {} to {leave}: capacity.mode is Manual",
                deployment.name, deployment.replicas
            );
            return self.wait_as("AwaitingScale", on, None);
        }
        if let Some(batch) = self.memory.batch.as_ref().filter(|b| !b.over) {
            let (left, of) = (pods(self.serving()), self.floor());
            return self.slow(format!(
                "more pods to serve before the batch goes on to {}: {left} serve, {of} are needed",
                batch.to
            ));
        }
        let back = self.is_back();
        if !back {
            self.may_move()?;
            self.pace()?;
        }
        if self.sets_apart() {
            self.pin(which)?;
        }
        let count = self.count(which);
        // Those that are not ready cost nothing and go first, whether they were started yet or not.
        let free = deployment.replicas.saturating_sub(count.alive).saturating_add(count.unready);
        let spare = self.serving().saturating_sub(self.floor());
        let batch = if back { u32::MAX } else { self.spec().strategy.drain.batch.of(self.floor()) };
        let most = (deployment.replicas - leave).min(batch);
        let chosen = self.choose(which, most.saturating_sub(free), spare);
        let leaving = most.min(free) + u32::try_from(chosen.len()).unwrap_or(0);
        if leaving == 0 {
            let on = if spare == 0 {
                format!(
                    "more pods to serve before another leaves: {} serve, {} are needed",
                    pods(self.serving()),
                    self.floor()
                )
            } else {
                format!(
                    "a pod of Deployment {} beside which another serves on its node (externalTrafficPolicy: Local)",
                    deployment.name
                )
            };
            return self.slow(on);
        }
        let names = if self.sets_apart() { chosen } else { Vec::new() };
        let to = deployment.replicas - leaving;
        self.remember(|m| {
            m.batch = Some(Batch { which, to, pods: names, spared: false, over: false });
            m.last_batch = Some(self.now);
        })
    }

    /// From one batch to the next.
    fn pace(&self) -> Go {
        let Some(last) = self.memory.last_batch else { return GO };
        let next = after(last, self.spec().strategy.drain.interval.signed());
        if self.now < next { self.wait("the next batch of pods".to_owned(), Some(next)) } else { GO }
    }

    /// Before a batch is chosen, every pod that is there is told from a replacement. One that is about to be removed is not: of two equals
    /// a ReplicaSet takes whichever it likes.
    fn pin(&self, which: Which) -> Go {
        self.await_removed(which)?;
        let loose = self.pods(which).find(|p| p.deletion_cost.is_none_or(|cost| cost < PINNED));
        let Some(pod) = loose else { return GO };
        self.act(Step::Pin { pod: Arc::clone(&pod.name), held: pod.held.clone() })
    }

    /// Ready pods that leave next, by name, no more than `spare` of them serving: those with the fewest connections, and where traffic
    /// stays on its node, none that is the last to serve there.
    fn choose(&self, which: Which, most: u32, spare: u32) -> Vec<Arc<str>> {
        let mut candidates: Vec<&Pod> = self.pods(which).filter(|p| p.ready).collect();
        let open = |p: &Pod| self.evidence(p).and_then(|e| e.stats.as_ref()).map_or(u64::MAX, |s| s.connections);
        candidates.sort_by(|a, b| (open(a), &a.name).cmp(&(open(b), &b.name)));
        let local = self.seen.services.iter().any(|s| s.local) && !self.spec().acknowledge.iter().any(|g| g == LOCAL);
        let mut beside: BTreeMap<&str, u32> = BTreeMap::new();
        for pod in self.seen.pods.iter().filter(|p| local && self.serves(p)) {
            *beside.entry(&*pod.node).or_default() += 1;
        }
        let (mut chosen, mut spare) = (Vec::new(), spare);
        for pod in candidates {
            if chosen.len() >= most as usize {
                break;
            }
            if self.is_endpoint(pod) {
                let here = beside.entry(&*pod.node).or_default();
                if spare == 0 || local && *here < 2 {
                    continue;
                }
                *here = here.saturating_sub(1);
                spare -= 1;
            }
            chosen.push(Arc::clone(&pod.name));
        }
        chosen
    }

    fn serves(&self, pod: &Pod) -> bool {
        self.whose(pod).is_some() && self.is_endpoint(pod)
    }
}
