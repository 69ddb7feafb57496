//! The steps of a rollout by their place: what a step is remembered by, and whether its past was edited.

use std::sync::Arc;

use super::digest;
use super::memory::StepMemory;
use crate::api::gateway_rollout::Step;
use crate::api::rollout_status::Stage;

/// Of the step at `index` and all before it, FNV-1a: the same in every release. Edits of later steps leave it as it is.
pub fn prefix_hash(steps: &[Step], index: usize) -> u64 {
    let mut hash = digest::OFFSET;
    let mut feed = |bytes: &[u8]| hash = digest::fed(hash, bytes);
    for step in steps.iter().take(index.saturating_add(1)) {
        feed(step.name.as_bytes());
        feed(&[0]);
        for number in [step.weight, step.replicas] {
            feed(&number.map_or(u32::MAX, |n| n).to_be_bytes());
        }
        feed(&step.soak.signed().as_millis().to_be_bytes());
        feed(&[step.approval as u8]);
    }
    hash
}

/// As it stands in the status.
pub fn written(hash: u64) -> Arc<str> {
    Arc::from(format!("{hash:016x}"))
}

/// What was remembered of a step is what the spec says of it and of all before it.
pub fn is_same(steps: &[Step], memory: &StepMemory) -> bool {
    u64::from_str_radix(&memory.hash, 16)
        .is_ok_and(|was| memory.index < steps.len() && was == prefix_hash(steps, memory.index))
}

/// The beginning of a step.
pub fn begin(steps: &[Step], index: usize) -> StepMemory {
    let hash = written(prefix_hash(steps, index));
    StepMemory { index, hash, stage: Stage::Scaling, soak_until: None, measured: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::gateway_rollout::{Approval, Strategy};

    #[test]
    fn only_the_past_of_a_step_is_held() {
        let steps = Strategy::default().steps;
        let memory = begin(&steps, 1);
        assert!(is_same(&steps, &memory));
        let mut later = steps.clone();
        later[2].weight = Some(40);
        later.truncate(3);
        assert!(is_same(&later, &memory));
        for edit in [
            |s: &mut Step| s.name.push('x'),
            |s: &mut Step| s.replicas = Some(2),
            |s: &mut Step| s.approval = Approval::Required,
            |s: &mut Step| s.soak = crate::api::Duration::ZERO,
        ] {
            let mut past = steps.clone();
            edit(&mut past[0]);
            assert!(!is_same(&past, &memory));
        }
        assert!(!is_same(&steps[..1], &memory), "the step itself is gone");
        assert!(!is_same(&steps, &StepMemory { hash: "edited by hand".into(), ..memory }));
    }
}
