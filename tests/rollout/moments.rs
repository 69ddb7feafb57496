//! Moments that the search does not come to: somebody looks again after a long while, a template was moved too early, steps were cut.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use revguard::api::rollout_status::{Phase, Stage};
use revguard::rollout::memory::{Cause, Memory};
use revguard::rollout::seen::{Approval, Seen};
use revguard::rollout::step::Which;
use revguard::rollout::{Next, plan};
use serde_json::{Value, json};

use super::config::{Config, Rev, quick, with};
use super::events::Event;
use super::world::World;

/// A world of two pods that goes its way until it waits, or until that is enough. Nobody mends or breaks anything.
fn until(spec: &Value, sick: bool, enough: impl Fn(&World) -> bool) -> World {
    let mut world = World::new(&Arc::new(Config::new("moments", 2, with(quick(), spec))));
    world.sick = sick;
    for _ in 0..300 {
        let decision = world.decide().map(|d| d.expect("no promise is broken"));
        let by_itself = |e: &Event| !matches!(e, Event::TimePasses | Event::Heals(_));
        let event = world.events(decision.as_ref()).into_iter().find(by_itself);
        let Some(event) = event.filter(|_| !enough(&world)) else { return world };
        world.happen(event, decision.as_ref()).expect("no promise is broken");
    }
    panic!("it goes on and on");
}

fn phase(world: &World) -> Option<Phase> {
    world.memory().map(|m| m.phase)
}

fn remembered(seen: &Seen, memory: &Memory, now: Timestamp) -> Memory {
    match plan(seen, memory, now).next {
        Next::Remember(after) => *after,
        other => panic!("{other:?}"),
    }
}

#[test]
fn time_in_which_nobody_looked_is_nobodys_slowness() {
    let world = until(&json!({}), true, |_| false);
    let (seen, memory) = (world.seen().expect("there"), world.memory().expect("there").clone());
    let later = world.now() + SignedDuration::from_mins(30);
    let late = remembered(&seen, &memory, later);
    assert_eq!(
        late.pause.map(|p| p.cause),
        Some(Cause::DeadlineExceeded),
        "pods that do not start, watched all the time"
    );
    let anew = |ago| Seen { watched: Some(later - SignedDuration::from_secs(ago)), ..seen.clone() };
    assert!(matches!(plan(&anew(0), &memory, later).next, Next::Wait(_)), "it has only just been looked at again");
    assert!(matches!(plan(&anew(600), &memory, later).next, Next::Remember(_)), "and for ten minutes by now");
}

#[test]
fn a_template_that_moved_too_early_is_no_way_back_whoever_accepts_it() {
    let mut world = until(&json!({}), false, |world| {
        phase(world) == Some(Phase::Draining) && world.deployment(Which::Source).is_some_and(|d| d.replicas == 1)
    });
    world.retemplate(Rev::New);
    let (mut seen, memory) = (world.seen().expect("there"), world.memory().expect("there").clone());
    // A batch that has begun is noted to its end first.
    let held = [(); 3].iter().fold(memory.clone(), |m, ()| match &m.pause {
        None => remembered(&seen, &m, world.now()),
        Some(_) => m,
    });
    let pause = held.pause.as_ref().expect("it holds");
    assert_eq!(pause.cause, Cause::SourceDrift);
    assert!(pause.message.contains("is of revision new already"), "{}", pause.message);
    seen.rollout.approval = Some(Approval { step: Arc::from("resume"), by: Arc::from("jane") });
    let on = remembered(&seen, &held, world.now());
    let hash = |m: &Memory| m.baseline.as_ref().map(|b| b.deployment.template_hash.clone());
    assert!(on.pause.is_none() && hash(&on) == hash(&memory), "{on:?}");
}

#[test]
fn nothing_that_was_seen_of_a_step_counts_for_the_one_that_takes_its_place() {
    let step = |name: &str, weight: u32| json!({"name": name, "weight": weight, "soak": "1h"});
    let steps = json!({"strategy": {"steps": [step("one", 10), step("half", 50), step("all", 100)]}});
    let soaks = |world: &World| world.memory().and_then(|m| m.step.as_ref()).is_some_and(|s| s.stage == Stage::Soaking);
    let world = until(&steps, false, soaks);
    let (mut seen, memory) = (world.seen().expect("there"), world.memory().expect("there").clone());
    Arc::make_mut(&mut seen.rollout.spec).strategy.steps.remove(0);
    let held = remembered(&seen, &memory, world.now());
    assert_eq!(held.pause.as_ref().map(|p| p.cause), Some(Cause::FieldContested));
    seen.rollout.approval = Some(Approval { step: Arc::from("resume"), by: Arc::from("jane") });
    let step = remembered(&seen, &held, world.now()).step.expect("a step");
    assert_eq!((step.index, step.stage, step.soak_until), (0, Stage::Scaling, None));
}
