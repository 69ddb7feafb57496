//! An update in place: one Deployment, paused between steps, which adds a pod before it takes one away. Pods that leave drain as long as
//! they drain by themselves, and nothing more is promised of them.

use std::sync::Arc;

use serde_json::Value;

use super::stages::stages;
use crate::api::rollout_status::Stage;
use crate::rollout::capacity::Targets;
use crate::rollout::look::{GO, Go, Look, pods};
use crate::rollout::seen::Deployment;
use crate::rollout::step::{Step, Which};

/// One pod more, and none less, at any time: only then nothing is below the floor while the Deployment moves by itself.
pub fn is_paced(source: &Deployment) -> bool {
    let rolling = &source.strategy["rollingUpdate"];
    let is = |key: &str, n: u64| rolling[key] == n;
    source.strategy["type"] != "Recreate" && is("maxSurge", 1) && is("maxUnavailable", 0)
}

/// The Deployment stands still before anything of it is changed.
pub fn prepare(look: &Look) -> Go {
    let Some(source) = &look.seen.source else { return GO };
    still(look, source)?;
    if source.observed < source.generation {
        return look.slow(format!("Deployment {} to be noticed by its controller", source.name));
    }
    GO
}

fn still(look: &Look, source: &Deployment) -> Go {
    if source.paused && is_paced(source) {
        return GO;
    }
    look.act(Step::Pace { held: source.held.clone(), paused: Some(true) })
}

pub fn progressing(look: &Look) -> Go {
    stages(look, arrive)
}

fn arrive(look: &Look, targets: Targets) -> Go {
    let Some(source) = &look.seen.source else { return GO };
    if !look.is_source_new() {
        still(look, source)?;
        look.may_move()?;
        return look.act(Step::Retemplate { held: source.held.clone(), revision: Arc::from(look.to()) });
    }
    let new = moved(look, true);
    if new < targets.new {
        run(look, source)?;
        return look.slow(format!(
            "{} of the new revision in Deployment {}: {new} so far",
            pods(targets.new),
            source.name
        ));
    }
    if targets.old == 0 {
        // To the end: nothing is left that could be held back.
        let old = moved(look, false);
        if old > 0 {
            run(look, source)?;
            return look.slow(format!("{} of the old revision to end", pods(old)));
        }
    } else if !source.paused {
        return look.act(Step::Pace { held: source.held.clone(), paused: Some(true) });
    }
    let serving = look.new_pods().filter(|p| look.is_endpoint(p)).count();
    if serving < new as usize {
        return look.slow(format!(
            "{} of the new revision to be ready and endpoints of every Service: {serving} so far",
            pods(new)
        ));
    }
    GO
}

/// Lets the Deployment move, if everything that is needed serves.
fn run(look: &Look, source: &Deployment) -> Go {
    if !source.paused {
        return GO;
    }
    // While it soaks nothing moves; what a pod lost meanwhile is made up for at the end.
    if !look.is_back() && look.memory.step.as_ref().is_some_and(|s| s.stage == Stage::Soaking) {
        return look.slow("the end of the soak".to_owned());
    }
    if !look.is_back() {
        look.may_move()?;
    }
    let (serving, floor) = (look.serving(), look.floor());
    if serving < floor {
        return look.slow(format!("{} to serve before another leaves: {serving} so far", pods(floor)));
    }
    look.act(Step::Pace { held: source.held.clone(), paused: Some(false) })
}

/// Pods of the new revision, or of any other.
fn moved(look: &Look, new: bool) -> u32 {
    let count = look.pods(Which::Source).filter(|p| look.is_new(p) == new).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Pause, pace and strategy as they were.
pub fn restore(look: &Look) -> Go {
    let (Some(source), Some(baseline)) = (&look.seen.source, look.baseline()) else { return GO };
    let was = &baseline.deployment;
    let strategy: Value = serde_json::from_str(&was.strategy).unwrap_or(Value::Null);
    let same = source.paused == was.paused
        // Without a word about it there is nothing to put back.
        && (was.strategy.is_empty() || *source.strategy == strategy)
        && source.min_ready_seconds.unwrap_or(0) == was.min_ready_seconds.unwrap_or(0);
    if same {
        return GO;
    }
    look.act(Step::Pace { held: source.held.clone(), paused: None })
}

/// Back to the old template; goes on when every pod is of it.
pub fn back(look: &Look) -> Go {
    let Some(source) = &look.seen.source else {
        return look.slow("the gateway's Deployment, which is gone".to_owned());
    };
    if !look.is_source_old() {
        still(look, source)?;
        let Some(from) = &look.memory.from else { return GO };
        return look.act(Step::Retemplate { held: source.held.clone(), revision: Arc::clone(from) });
    }
    let new = moved(look, true);
    if new > 0 {
        run(look, source)?;
        return look.slow(format!("{} of the new revision to end", pods(new)));
    }
    if !look.is_untouched() {
        look.await_serving(Which::Source, look.floor())?;
    }
    restore(look)
}
