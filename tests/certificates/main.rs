//! The plan of certificates in a small world: two leaders that believe in themselves, replicas that hear late, API servers
//! that still hold what was published before, crashes around every write, and people with kubectl.
//!
//! One promise is checked after every event: whatever certificate a replica serves verifies against whatever caBundle an
//! API server may still hold. What the plan relies on is then broken on purpose, one thing at a time, and the same walks
//! must find that.

mod world;

use std::collections::{BTreeSet, VecDeque};

use world::{Broken, Event, World};

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
    if std::env::var_os("REVGUARD_PROVE").is_some_and(|v| !v.is_empty()) { (20_000, 1_000) } else { (300, 900) }
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

#[test]
fn whatever_is_served_is_believed_by_whoever_calls() {
    let (seeds, steps) = walks();
    let mut states = BTreeSet::new();
    let (mut rotations, mut moved, mut crashes) = (0, 0, 0);
    for seed in 1..=seeds {
        let mut world = walk(seed, steps, Broken::Nothing).unwrap_or_else(|why| panic!("{why}"));
        rotations += world.rotations();
        moved += world.moved();
        crashes += world.crashes();
        states.insert(world.canonical());
        // When nothing goes wrong any more, it ends well and stays well through two more rotations.
        world.calm_down().unwrap_or_else(|why| panic!("seed {seed}: {why}\n{world:#?}"));
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

/// Every world that can come of a CA that is due within four minutes, with one crash and one leader that is late.
#[test]
fn no_order_of_events_around_a_rotation_breaks_the_promise() {
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::from([(World::due(), 0)]);
    // A bound on the test, not on the search: every state is visited.
    let most = 1_000_000;
    let (mut edges, mut ends) = (0_u64, 0);
    while let Some((world, depth)) = queue.pop_front() {
        for event in world.events_of_a_rotation() {
            let mut next = world.clone();
            next.happen(event);
            edges += 1;
            if let Some(why) = next.broken_promise() {
                panic!("after {depth} events and {event:?}: {why}\n{next:#?}");
            }
            if next.rotations() > 0 && next.is_steady() {
                ends += 1;
            }
            if seen.insert(next.canonical()) {
                assert!(seen.len() < most, "the world has grown out of what can be searched: {most} states");
                queue.push_back((next, depth + 1));
            }
        }
    }
    println!("{} states, {edges} edges, {ends} of them end a rotation", seen.len());
    assert!(ends > 0, "no rotation was seen to its end");
}

#[test]
fn each_thing_that_the_plan_relies_on_is_missed_when_it_is_gone() {
    let (seeds, steps) = walks();
    for broken in [Broken::NoOverlap, Broken::CaReadFirst, Broken::ReplicasNotAsked, Broken::NoPrecondition] {
        let found = (1..=seeds * 4).find_map(|seed| walk(seed, steps, broken).err());
        let found = found.unwrap_or_else(|| panic!("{broken:?} was not noticed"));
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
