//! How many new and old pods a step wants, and how many may run at once. Plain arithmetic; the floor is kept where pods leave.

use crate::api::gateway_rollout::{CapacityMode, Step, Strategy, StrategyType};

/// Replicas at the end of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    pub new: u32,
    pub old: u32,
}

/// Where a step leads when the gateway needs `n` pods. Its weight is the part of all pods that is new, as far as whole pods can show it.
pub fn targets(n: u32, step: &Step, strategy: &Strategy) -> Targets {
    let weight = step.weight.map(|w| w.clamp(1, 100));
    let Some(w) = weight else {
        let new = step.replicas.unwrap_or(1).clamp(1, n);
        let old = match (strategy.type_, surge(n, strategy)) {
            (StrategyType::PausedRolling, _) => n - new,
            (_, Some(surge)) => n.min(n.saturating_add(surge) - new),
            (_, None) => n,
        };
        return Targets { new, old };
    };
    let part = |whole: u64, of: u64| u32::try_from((u64::from(n) * whole).div_ceil(of)).unwrap_or(n);
    let w = u64::from(w);
    if strategy.type_ == StrategyType::PausedRolling || strategy.capacity.mode == CapacityMode::Constrained {
        let new = part(w, 100);
        return Targets { new, old: n - new };
    }
    if w <= 50 {
        // new / (new + n) = w / 100; at a half that is n.
        Targets { new: part(w, 100 - w), old: n }
    } else {
        // n / (n + old) = w / 100, rounded down: never less weight than was asked for.
        let old = u64::from(n) * (100 - w) / w;
        Targets { new: n, old: u32::try_from(old).unwrap_or(n) }
    }
}

/// Pods that may run above `n`, all counted: those set apart take room as well. `None`: as many as it takes.
pub fn surge(n: u32, strategy: &Strategy) -> Option<u32> {
    let constrained = strategy.capacity.mode == CapacityMode::Constrained;
    let share = strategy.capacity.max_surge.as_ref().filter(|_| constrained)?;
    Some(share.of(n).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::duration::Duration;
    use crate::api::gateway_rollout::{Approval, Capacity, Share};

    fn step(replicas: Option<u32>, weight: Option<u32>) -> Step {
        Step { name: "s".into(), replicas, weight, soak: Duration::ZERO, approval: Approval::None }
    }

    fn strategy(mode: CapacityMode, type_: StrategyType) -> Strategy {
        let capacity = Capacity { mode, max_surge: Some(Share::Percent("25%".into())) };
        Strategy { type_, capacity, ..Strategy::default() }
    }

    #[test]
    fn a_full_surge_has_all_old_pods_until_half_and_all_new_ones_after() {
        let full = strategy(CapacityMode::FullSurge, StrategyType::ParallelDeployment);
        let at = |n, w| targets(n, &step(None, Some(w)), &full);
        assert_eq!(at(4, 25), Targets { new: 2, old: 4 });
        assert_eq!(at(4, 50), Targets { new: 4, old: 4 });
        assert_eq!(at(4, 75), Targets { new: 4, old: 1 });
        assert_eq!(at(4, 100), Targets { new: 4, old: 0 });
        assert_eq!(at(1, 1), Targets { new: 1, old: 1 });
        assert_eq!(targets(4, &step(Some(1), None), &full), Targets { new: 1, old: 4 });
        assert_eq!(targets(2, &step(Some(9), None), &full), Targets { new: 2, old: 2 });
    }

    #[test]
    fn capacity_is_never_below_what_is_needed_nor_above_what_is_allowed() {
        for n in 1..=40 {
            for w in 1..=100 {
                for mode in [CapacityMode::FullSurge, CapacityMode::Constrained, CapacityMode::Manual] {
                    let strategy = strategy(mode, StrategyType::ParallelDeployment);
                    let t = targets(n, &step(None, Some(w)), &strategy);
                    assert!(t.new >= 1 && t.new <= n && t.old <= n && t.new + t.old >= n, "{n} {w} {mode:?} {t:?}");
                    assert!(mode != CapacityMode::Constrained || t.new + t.old == n, "{n} {w} {t:?}");
                    assert!(w != 100 || (t.new, t.old) == (n, 0), "{n} {t:?}");
                    // The weight is reached.
                    assert!(t.new * 100 >= w * (t.new + t.old) || t.new == n, "{n} {w} {t:?}");
                }
                let place = strategy(CapacityMode::FullSurge, StrategyType::PausedRolling);
                let t = targets(n, &step(None, Some(w)), &place);
                assert_eq!(t.new + t.old, n);
            }
            let narrow = strategy(CapacityMode::Constrained, StrategyType::ParallelDeployment);
            let s = surge(n, &narrow).unwrap();
            for k in 1..=n + 3 {
                let t = targets(n, &step(Some(k), None), &narrow);
                assert!(t.new + t.old >= n && t.new + t.old <= n + s, "{n} {k} {t:?}");
            }
        }
    }
}
