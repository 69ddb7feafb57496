//! Two worlds that differ only in names, versions and the time of day are one: what decides about the future is hashed, nothing else.

use std::hash::{Hash, Hasher};

use jiff::Timestamp;
use revguard::api::rollout_status::Baseline;
use revguard::rollout::Memory;
use revguard::rollout::Next;
use revguard::rollout::step::Step;

use super::world::{Pod, World, ticks};

/// Ages beyond this are all the same: longer than any duration of these worlds, but for the way back's half an hour.
const OLD: i64 = 40;

/// Two independent sums of 64 bits: among some million states two equal ones by chance are out of the question.
#[derive(Clone, Copy)]
pub struct Sum(u64, u64);

impl Default for Sum {
    fn default() -> Self {
        Sum(0xcbf2_9ce4_8422_2325, 0x9e37_79b9_7f4a_7c15)
    }
}

impl Sum {
    pub fn whole(self) -> u128 {
        u128::from(self.0) << 64 | u128::from(self.1)
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.0 ^= self.0 >> 29;
        self.1 = (self.1.rotate_left(23) ^ word).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        self.1 ^= self.1 >> 31;
    }
}

impl Hasher for Sum {
    fn finish(&self) -> u64 {
        self.0 ^ self.1
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 56);
        }
    }
    fn write_u8(&mut self, n: u8) {
        self.word(u64::from(n));
    }
    fn write_u16(&mut self, n: u16) {
        self.word(u64::from(n));
    }
    fn write_u32(&mut self, n: u32) {
        self.word(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }
    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }
    fn write_isize(&mut self, n: isize) {
        self.word(n as u64);
    }
    fn write_i64(&mut self, n: i64) {
        self.word(n as u64);
    }
}

impl World {
    fn age(&self, at: Timestamp) -> i64 {
        (i64::from(self.clock) - ticks(at)).clamp(-OLD, OLD)
    }

    pub fn canonical(&self) -> u128 {
        let mut sum = Sum::default();
        let s = &mut sum;
        self.hash_pods(s);
        for deployment in &self.deployments {
            let of = deployment.as_ref();
            let stale = of.map(|d| d.observed < d.generation);
            of.map(|d| (d.replicas, d.rev, d.paused, d.paced, d.ours, d.sets, stale)).hash(s);
        }
        self.hpa.as_ref().map(|h| (h.target, h.min, h.desired, h.written)).hash(s);
        (self.lock, self.written, self.original, self.copy.as_ref().map(|c| c.hash), self.former.is_some()).hash(s);
        self.asked.hash(s);
        (self.from_ready, self.from_installed, self.to_ready, self.gate).hash(s);
        (i64::from(self.clock) - i64::from(self.quiet)).min(OLD).hash(s);
        (
            self.sick,
            self.sick_old,
            self.rejects,
            (self.narrowed, self.lowered),
            self.key_lost,
            self.blocked,
            self.refused,
            self.metric,
            self.pruned,
        )
            .hash(s);
        (self.harmed, self.forced, self.late_left, self.budget).hash(s);
        if let Some(late) = &self.late {
            (late.tainted, late.over).hash(s);
            self.hash_next(&late.next, s);
        }
        match &self.rollout {
            None => 0_u8.hash(s),
            Some(r) => {
                (1_u8, r.deleting, r.finalizer, r.bits, r.approval).hash(s);
                let generation = r.memory.pause.as_ref().map(|p| p.generation == i64::from(r.generation));
                generation.hash(s);
                self.hash_memory(&r.memory, s);
            }
        }
        sum.whole()
    }

    /// Pods without their names, in an order of their own; which of them is in a batch, or in a late write, is a property of it.
    fn hash_pods(&self, s: &mut Sum) {
        let batch = self.memory().and_then(|m| m.batch.as_ref());
        let late = self.late.as_ref().and_then(|p| if let Next::Do(step) = &p.next { named(step) } else { None });
        let later =
            self.late.as_ref().and_then(|p| if let Next::Remember(m) = &p.next { m.batch.as_ref() } else { None });
        let is = |name: Option<&str>, pod: &Pod| name.is_some_and(|n| n[1..] == *pod.id.to_string());
        let within = |batch: Option<&revguard::rollout::memory::Batch>, pod: &Pod| {
            batch.is_some_and(|b| b.pods.iter().any(|p| is(Some(p), pod)))
        };
        let mut all: Vec<_> = self
            .pods
            .iter()
            .map(|p| {
                let flags = (p.ready, p.endpoint, p.deleting, p.pinned, p.busy, p.lost, p.counted);
                let apart = p.apart.map(|at| (self.clock - at).min(OLD as u32));
                // A ReplicaSet's choice among equals is by age, and ages differ at most by order: that is left to the names.
                ((p.of, p.rev, flags), (apart, within(batch, p), is(late, p), within(later, p)))
            })
            .collect();
        all.sort_unstable();
        all.hash(s);
    }

    fn hash_next(&self, next: &Next, s: &mut Sum) {
        match next {
            Next::Remember(memory) => {
                0_u8.hash(s);
                self.hash_memory(memory, s);
            }
            Next::Do(step) => {
                step.boundary().hash(s);
                match step {
                    Step::Scale { which, to, .. } => (*which, *to).hash(s),
                    Step::Autoscale { target, min, .. } => (&**target, *min).hash(s),
                    Step::DropDeployment { which, .. } => which.hash(s),
                    Step::Retemplate { revision, .. } => revision.hash(s),
                    Step::Pace { paused, .. } => paused.hash(s),
                    Step::CopyConfig { hash, .. } => hash.hash(s),
                    Step::DropConfig { name, .. } => name.hash(s),
                    Step::SetApart { since, .. } => self.age(*since).hash(s),
                    _ => {}
                }
            }
            Next::Wait(_) | Next::Done => {}
        }
    }

    fn hash_memory(&self, m: &Memory, s: &mut Sum) {
        let age = |at: &Option<Timestamp>| at.map(|at| self.age(at));
        (m.phase, age(&m.since), m.paused_for.as_secs().min(OLD * 60)).hash(s);
        let services = |b: &Baseline| b.services.first().map(|s| s.selector.len());
        let autoscaler = |b: &Baseline| b.hpa.as_ref().map(|h| h.min_replicas);
        m.baseline.as_ref().map(|b| (b.replicas, &b.deployment.template_hash, services(b), autoscaler(b))).hash(s);
        if let Some(step) = &m.step {
            (step.index, step.stage, age(&step.soak_until), &step.hash).hash(s);
            for measured in &step.measured {
                (measured.failures.min(9), measured.last, self.age(measured.at)).hash(s);
            }
        }
        m.pause.as_ref().map(|p| (p.cause, self.age(p.since))).hash(s);
        // How often somebody let it go on decides nothing.
        for (step, ..) in m.approvals.iter().filter(|(step, ..)| &**step != "resume") {
            step.hash(s);
        }
        (m.drain.is_some(), m.drain.as_ref().map(|d| d.0 as u8), age(&m.last_batch)).hash(s);
        m.batch.as_ref().map(|b| (b.which, b.to, b.over, b.pods.len())).hash(s);
        m.rollback.as_ref().map(|r| (r.reason, r.from)).hash(s);
        (m.spent, m.completion, m.finished.is_some(), m.unrouted, m.ignored_alerts.len()).hash(s);
    }
}

/// The pod that a step is about.
fn named(step: &Step) -> Option<&str> {
    match step {
        Step::DropProbe { pod, .. }
        | Step::Pin { pod, .. }
        | Step::SetApart { pod, .. }
        | Step::DropApart { pod, .. } => Some(pod),
        _ => None,
    }
}
