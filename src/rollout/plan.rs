//! The one next step of a rollout, or what it waits for.
//!
//! Before any phase is asked come what holds in all of them: pods set apart are ended, a stray probe is removed, approvals are
//! consumed, a deletion is heeded. What a person reads of a plan (the word, the outline, the Events) is added at the end and decides nothing.

use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::Timestamp;

use super::look::{GO, Go, Look, Move};
use super::memory::Memory;
use super::next::{Next, Plan};
use super::outline;
use super::phases::{back, before, forward, over, place, prepare};
use super::seen::{Of, Seen};
use super::step::Step;
use crate::api::rollout_status::{Phase, Stage};

/// What comes next. A function of its arguments: the same twice for the same, and nothing left to do where it has been done.
pub fn plan(seen: &Seen, memory: &Memory, now: Timestamp) -> Plan {
    let look = Look::new(seen, memory, now);
    let decided = match decide(&look) {
        ControlFlow::Break(decided) => *decided,
        ControlFlow::Continue(()) => Move { next: Next::Done, word: None, events: Vec::new() },
    };
    let after = if let Next::Remember(after) = &decided.next { after } else { memory };
    let state = decided.word.unwrap_or_else(|| word(after, seen)).to_owned();
    let mut events = decided.events;
    outline::events(memory, after, &seen.rollout, &mut events);
    if let Next::Wait(waiting) = &decided.next
        && let Some((word, warning)) = STANDS.iter().find(|(word, _)| Some(*word) == decided.word)
    {
        // An Event is a line of a table.
        let on = waiting.on.replace('\n', " ");
        events.push(((*word).to_owned(), format!("waiting for {on}"), *warning));
    }
    Plan { state, outline: outline::outline(&Look::new(seen, after, now)), events, next: decided.next }
}

/// Words for what only somebody else can end, and whether it is amiss. An Event says so: nobody would look for it in the conditions.
const STANDS: [(&str, bool); 4] =
    [("PreflightFailed", true), ("UnsupportedTarget", true), ("SourceMissing", true), ("AwaitingExternal", false)];

fn decide(look: &Look) -> Go {
    if look.spec().target.deployment.is_none() {
        if look.seen.rollout.deleting && look.seen.rollout.finalizer {
            return look.act(Step::Release { held: look.seen.rollout.held.clone() });
        }
        return look.wait_as("UnsupportedTarget", format!("another target: {}", outline::UNSUPPORTED), None);
    }
    look.end_apart()?;
    stray_probe(look)?;
    if look.seen.rollout.deleting {
        over::deleting(look)?;
    } else {
        approvals(look)?;
    }
    remembered(look)?;
    match look.memory.phase {
        Phase::Pending => before::pending(look),
        Phase::Planned => before::planned(look),
        Phase::Preflight => before::preflight(look),
        Phase::Preparing => prepare::preparing(look),
        Phase::Probing => prepare::probing(look),
        Phase::Progressing if look.is_in_place() => place::progressing(look),
        Phase::Progressing => forward::progressing(look),
        Phase::HandingOver => forward::handing_over(look),
        Phase::Draining => forward::draining(look),
        Phase::Promoting => forward::promoting(look),
        Phase::Finalizing => forward::finalizing(look),
        Phase::Completed => over::completed(look),
        Phase::RollingBack => back::rolling_back(look),
        Phase::RolledBack => over::rolled_back(look),
        Phase::Failed => over::failed(look),
    }
}

fn stray_probe(look: &Look) -> Go {
    if look.memory.phase == Phase::Probing && !look.seen.rollout.deleting {
        return GO;
    }
    let stray = look.seen.pods.iter().find(|p| p.of == Of::Probe && !p.deleting);
    stray.map_or(GO, |p| look.act(Step::DropProbe { pod: Arc::clone(&p.name), held: p.held.clone() }))
}

/// What stands on the object is taken in once, and then taken off.
fn approvals(look: &Look) -> Go {
    let memory = look.memory;
    let Some(approval) = &look.seen.rollout.approval else {
        return if memory.spent { look.remember(|m| m.spent = false) } else { GO };
    };
    if memory.spent {
        return look.act(Step::Consume { held: look.seen.rollout.held.clone() });
    }
    let waits = memory.pause.as_ref().is_some_and(|p| p.cause.may_be_accepted()) || memory.phase == Phase::Failed;
    if &*approval.step == "resume" && waits {
        // Whatever waits for it takes it.
        return GO;
    }
    let past = memory.step.as_ref().map_or(0, |s| s.index);
    let known = look.spec().strategy.steps.iter().skip(past).any(|s| *s.name == *approval.step);
    let counts = known && !look.is_approved(&approval.step);
    look.remember(|m| {
        m.spent = true;
        if counts {
            m.approvals.push((Arc::clone(&approval.step), Arc::clone(&approval.by), look.now));
        }
    })
}

/// What every phase after preflight relies on is there, or is derived anew.
fn remembered(look: &Look) -> Go {
    let phase = look.memory.phase;
    if !phase.is_active() {
        return GO;
    }
    if look.memory.since.is_none() {
        return look.remember(|m| look.begin(m));
    }
    if look.baseline().is_some() {
        return GO;
    }
    before::recover(look)?;
    // Without a lock nothing of the gateway was changed.
    look.remember(|m| look.enter(m, Phase::Pending))
}

/// Where it is, in one word.
fn word(memory: &Memory, seen: &Seen) -> &'static str {
    if seen.rollout.deleting && !memory.phase.is_active() {
        return "Deleting";
    }
    if let Some(pause) = &memory.pause {
        return pause.cause.as_str();
    }
    let stage = memory.step.as_ref().map(|s| s.stage);
    match (memory.phase, stage) {
        (Phase::Draining, Some(Stage::Scaling)) => "Draining",
        (Phase::Progressing | Phase::Draining, Some(stage)) => stage.as_str(),
        (phase, _) => phase.as_str(),
    }
}
