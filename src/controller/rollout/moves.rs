//! How soon the next turn follows a write, or a failure: at once, unless the same comes again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::controller::resource::At;
use crate::rollout::{Memory, Step};

/// The wait after a failure, doubled with each that follows …
const STUMBLE: Duration = Duration::from_millis(500);
/// … up to this.
const MOST_STUMBLE: Duration = Duration::from_secs(30);
/// The same so often, with no wait in between, is no progress.
const SAME_MOVE: u32 = 10;

/// The wait after so many failures that came before this one.
pub fn later(before: u32) -> Duration {
    STUMBLE.saturating_mul(1 << before.min(16)).min(MOST_STUMBLE)
}

/// What was done since there was nothing to do, and how often.
#[derive(Default)]
pub struct Moves(BTreeMap<String, u32>);

impl Moves {
    /// How long after this move: not at all, unless it is made again and again, alone or in turns with others: somebody takes it back, or
    /// it was never one.
    pub fn again(&mut self, what: String) -> Duration {
        let times = self.0.entry(what).or_default();
        *times += 1;
        let over = times.saturating_sub(SAME_MOVE);
        if over == 0 { Duration::ZERO } else { later(over) }
    }

    /// There was nothing to do.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A step, named so that the same one is known again. Replicas that fall pod by pod, and a minimum that follows them, are many.
pub fn done(step: &Step, at: &At) -> String {
    let to = match step {
        Step::Scale { to, .. } | Step::Autoscale { min: to, .. } => to.to_string(),
        _ => String::new(),
    };
    format!("{} {at} {to}", step.boundary())
}

/// The same of what was remembered: one batch after another is progress.
pub fn remembered(after: &Memory, state: &str) -> String {
    let batch = after.batch.as_ref().map(|b| (b.to, b.over));
    format!("{} {state} {batch:?}", after.phase.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::rollout_status::Phase;
    use crate::controller::resource::DEPLOYMENTS;
    use crate::rollout::memory::Batch;
    use crate::rollout::seen::Version;
    use crate::rollout::step::Which;

    fn lower(to: u32) -> String {
        let step = Step::Scale { which: Which::Source, held: Version::default(), to };
        done(&step, &At::of(&DEPLOYMENTS, "edge", "gw"))
    }

    fn batch(to: u32, over: bool) -> String {
        let batch = Batch { which: Which::Source, to, pods: Vec::new(), spared: false, over };
        remembered(&Memory { phase: Phase::Draining, batch: Some(batch), ..Memory::default() }, "Draining")
    }

    #[test]
    fn many_pods_that_leave_one_after_another_are_many_moves() {
        let mut moves = Moves::default();
        for to in (0..100).rev() {
            for made in [batch(to, false), lower(to), batch(to, true)] {
                assert_eq!(moves.again(made.clone()), Duration::ZERO, "{made}");
            }
        }
    }

    #[test]
    fn a_move_that_somebody_takes_back_is_made_ever_less_often() {
        let mut moves = Moves::default();
        let waits: Vec<Duration> = (0..30).map(|_| moves.again(lower(3))).collect();
        assert!(waits[..10].iter().all(|wait| wait.is_zero()), "{waits:?}");
        assert!(waits[10..].is_sorted() && !waits[10].is_zero() && waits[29] == MOST_STUMBLE, "{waits:?}");
    }
}
