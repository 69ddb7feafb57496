//! The plan of certificates in a small world: two leaders that believe in themselves, replicas that hear late, API servers
//! that still hold what was published before, crashes around every write, people with kubectl, other durations under way, and
//! times without a leader.
//!
//! Two promises are checked: after every event, that whatever certificate a replica serves verifies against whatever
//! caBundle an API server may still hold; and where a leader lives, that nothing expires which could be saved when it
//! began. What the plan relies on is then broken on purpose, one thing at a time, and the same walks must find that.

mod world;

use std::collections::{BTreeSet, VecDeque};

use world::{Broken, Event, LIVES, World};

/// Numbers by chance from a seed (xorshift), so that a failure can be played again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }
}

fn walks() -> (u64, usize) {
    if std::env::var_os("REVGUARD_PROVE").is_some_and(|v| !v.is_empty()) { (20_000, 1_000) } else { (600, 900) }
}

/// Plays one world by chance; the first broken promise with the events that led to it.
fn walk(seed: u64, steps: usize, broken: Broken) -> Result<World, String> {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut world = if seed.is_multiple_of(3) { World::new(broken, seed) } else { World::installed(broken, seed) };
    let mut trace = VecDeque::new();
    for _ in 0..steps {
        let events = world.events();
        let event = events[dice.below(events.len())];
        trace.push_back(format!("{} {event:?}", world.now()));
        if trace.len() > 60 {
            trace.pop_front();
        }
        world.happen(event);
        if let Some(why) = world.broken_promise() {
            let trace: Vec<String> = trace.into_iter().collect();
            return Err(format!("seed {seed}: {why}\n{}\n{world:#?}", trace.join("\n")));
        }
    }
    Ok(world)
}

/// A walk, and what becomes of it when nothing goes wrong any more: it ends well and stays well through two more rotations.
fn play(seed: u64, steps: usize, broken: Broken) -> Result<World, String> {
    let walked = walk(seed, steps, broken)?;
    let mut world = walked.clone();
    // In every second world nobody leads for a while, and whoever leads then is told other durations.
    if seed.is_multiple_of(2) {
        world.happen(Event::Away(i64::try_from(seed / 2 % 11).unwrap() + 2));
        world.happen(Event::Upgraded(usize::try_from(seed / 2).unwrap() % LIVES));
    }
    world.calm_down().map_err(|why| format!("seed {seed}: {why}\n{world:#?}"))?;
    Ok(walked)
}

#[test]
fn whatever_is_served_is_believed_by_whoever_calls() {
    let (seeds, steps) = walks();
    let mut states = BTreeSet::new();
    let (mut rotations, mut moved, mut crashes) = (0, 0, 0);
    for seed in 1..=seeds {
        let world = play(seed, steps, Broken::Nothing).unwrap_or_else(|why| panic!("{why}"));
        rotations += world.rotations();
        moved += world.moved();
        crashes += world.crashes();
        states.insert(world.canonical());
    }
    println!(
        "{seeds} walks of {steps} events: {rotations} rotations, {moved} writes came too late, {crashes} crashes, {} different ends",
        states.len()
    );
    assert!(
        rotations > seeds && moved > seeds && crashes > seeds,
        "the walks must walk: {rotations} {moved} {crashes}"
    );
}

/// Worlds that were looked after until some time around the rotation of their CA; then nobody led until a few minutes were
/// left of what is served, and whoever leads next is told other durations, or the same. How many were played, or the first
/// that loses what could be saved.
fn neglect(broken: Broken) -> Result<usize, String> {
    // Minutes after the CA is due, which is when its successor is made: before, while that is published, and after, while
    // the old one still is.
    let stages = [-5, 0, 1, 2, 4, 6, 10, 30, 40, 41, 60];
    let mut played = 0;
    for (before, stage) in (0..LIVES).flat_map(|before| stages.map(|stage| (before, stage))) {
        let aged = World::aged(broken, before, stage);
        for (after, left) in (0..LIVES).flat_map(|after| (2..=12).map(move |left| (after, left))) {
            let mut neglected = aged.clone();
            neglected.happen(Event::Away(left));
            neglected.happen(Event::Upgraded(after));
            if !neglected.can_be_saved() {
                continue;
            }
            // One leader that lives on, one that dies once and has a successor at once, and some that live for two
            // minutes. Nobody can be blamed who begins with less than that.
            let ways = [(None, None), (None, Some(2))].into_iter().chain((1..left - 1).map(|at| (Some(at), None)));
            for (once, every) in ways {
                let dies = |minute: i64| once == Some(minute) || every.is_some_and(|every| minute % every == 0);
                if every.is_some() && left % 2 == 1 {
                    continue;
                }
                played += 1;
                neglected.clone().live(left + 25, dies).map_err(|why| {
                    format!(
                        "lives {before} then {after}, away at minute {stage}, back with {left} minutes left, a leader \
                         dies at {once:?}, or each {every:?}: {why}"
                    )
                })?;
            }
        }
    }
    Ok(played)
}

#[test]
fn nothing_that_is_served_expires_while_a_leader_lives() {
    let played = neglect(Broken::Nothing).unwrap_or_else(|why| panic!("{why}"));
    println!("{played} worlds with other durations under way, a controller that was away, and leaders that die");
    assert!(played > 5_000, "{played}");
    for broken in [Broken::RenewalWaits, Broken::OverlapIsNeverCut] {
        let found = neglect(broken).expect_err("was not noticed");
        println!("{broken:?}: {}", found.lines().next().unwrap_or_default());
    }
}

/// What a search has seen.
#[derive(Default)]
struct Searched {
    states: usize,
    edges: u64,
    /// Edges that end a rotation.
    ends: u64,
}

/// Every world that can come of a CA that is due within four minutes, with one crash and one leader that is late; the
/// first that breaks the promise.
fn search(broken: Broken) -> Result<Searched, String> {
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::from([(World::due(broken), 0)]);
    // A bound on the test, not on the search: every state is visited.
    let most = 1_000_000;
    let mut searched = Searched::default();
    while let Some((world, depth)) = queue.pop_front() {
        for event in world.events_of_a_rotation() {
            let mut next = world.clone();
            next.happen(event);
            searched.edges += 1;
            if let Some(why) = next.broken_promise() {
                return Err(format!("after {depth} events and {event:?}: {why}\n{next:#?}"));
            }
            if next.rotations() > 0 && next.is_steady() {
                searched.ends += 1;
            }
            if seen.insert(next.canonical()) {
                assert!(seen.len() < most, "the world has grown out of what can be searched: {most} states");
                queue.push_back((next, depth + 1));
            }
        }
    }
    searched.states = seen.len();
    Ok(searched)
}

#[test]
fn no_order_of_events_around_a_rotation_breaks_the_promise() {
    let Searched { states, edges, ends } = search(Broken::Nothing).unwrap_or_else(|why| panic!("{why}"));
    println!("{states} states, {edges} edges, {ends} of them end a rotation");
    assert!(ends > 0, "no rotation was seen to its end");
    // Which takes two leaders that meet exactly, so that a walk seldom comes by.
    let found = search(Broken::CaReadFirst).err().expect("a CA Secret that is read first was not noticed");
    println!("CaReadFirst: {}", found.lines().next().unwrap_or_default());
}

#[test]
fn each_thing_that_the_plan_relies_on_is_missed_when_it_is_gone() {
    let (seeds, steps) = walks();
    let orders = [Broken::NoOverlap, Broken::ReplicasNotAsked, Broken::NoPrecondition];
    for broken in orders.into_iter().chain([Broken::RenewalWaits, Broken::OverlapIsNeverCut]) {
        let found = (1..=seeds * 4).find_map(|seed| Some((seed, play(seed, steps, broken).err()?)));
        let (seed, found) = found.unwrap_or_else(|| panic!("{broken:?} was not noticed"));
        assert!(play(seed, steps, Broken::Nothing).is_ok(), "{broken:?} is not what goes wrong in {seed}");
        println!("{broken:?}: {}", found.lines().next().unwrap_or_default());
    }
}

#[test]
fn every_event_of_the_world_happens() {
    let mut kinds = BTreeSet::new();
    for seed in 1..50 {
        let mut world = World::new(Broken::Nothing, seed);
        let mut dice = Dice(seed);
        for _ in 0..200 {
            let events = world.events();
            let event = events[dice.below(events.len())];
            kinds.insert(std::mem::discriminant(&event).clone_debug());
            world.happen(event);
        }
    }
    assert_eq!(kinds.len(), Event::KINDS - 1, "{kinds:?}");
}

trait CloneDebug {
    fn clone_debug(&self) -> String;
}

impl<T> CloneDebug for std::mem::Discriminant<T> {
    fn clone_debug(&self) -> String {
        format!("{self:?}")
    }
}
