//! The plan of a rollout in a model of a cluster: controllers that act when they like, two leaders, writes that come too late, nodes that are
//! drained, pods that do not start, istiods that go and return, and people.
//!
//! Small worlds are searched whole: every state is visited, every edge is held against the promises, and from every state the way to
//! a good end is walked. Large worlds are walked by chance. What the promises rest on is then taken away, one thing at a time, and
//! the same search must miss it.

mod canonical;
mod config;
mod events;
#[path = "../figures/mod.rs"]
mod figures;
mod look;
mod machines;
mod moments;
mod search;
mod table;
mod told;
mod world;
mod worlds;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::json;

use config::Broken;
use search::{Dice, Found};

/// The full figures, which take minutes.
fn prove() -> bool {
    std::env::var_os("REVGUARD_PROVE").is_some_and(|v| !v.is_empty())
}

/// Leaves figures for the pages that state them.
fn tell(name: &str, figures: &serde_json::Value) {
    let command = if prove() { "REVGUARD_PROVE=1 cargo test --test rollout" } else { "cargo test --test rollout" };
    figures::write(&format!("rollout-{name}"), command, figures).expect("figures can be written");
}

/// Does it for each on as many threads as there are cores; the first that fails ends it.
fn each<T: Send>(all: Vec<T>, what: impl Fn(T) -> Result<Found, String> + Sync) -> Found {
    let (queue, total) = (Mutex::new(all), Mutex::new(Found::default()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(4);
    let failed: Mutex<Option<String>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().unwrap().is_none() {
                    let Some(one) = queue.lock().unwrap().pop() else { break };
                    match what(one) {
                        Ok(found) => total.lock().unwrap().add(found),
                        Err(why) => *failed.lock().unwrap() = Some(why),
                    }
                }
            });
        }
    });
    if let Some(why) = failed.into_inner().unwrap() {
        panic!("{why}");
    }
    total.into_inner().unwrap()
}

#[test]
fn every_way_through_small_worlds_keeps_every_promise() {
    let began = Instant::now();
    let only = std::env::var("REVGUARD_WORLD").unwrap_or_default();
    let mut all = worlds::all(prove());
    // For whoever looks for the reason of a failure.
    all.retain(|w| only.is_empty() || only.split(',').any(|name| name == w.name));
    let count = all.len();
    let found = each(all, |config| {
        let (began, name) = (Instant::now(), config.name);
        // A bound on the test, not on the search: every state is visited.
        let found = search::exhaust(&Arc::new(config), 12_000_000)?;
        println!("{name}: {} states, {} edges, {:.1?}", found.states, found.edges, began.elapsed());
        Ok(found)
    });
    println!(
        "{} distinct states of {count} worlds, {} edges, {} writes refused, ends {:?}, the longest way to one {} events, {:.0?}",
        found.states,
        found.edges,
        found.refusals,
        found.ends,
        found.longest,
        began.elapsed()
    );
    if !only.is_empty() {
        return;
    }
    let missed = table::missed(&found.transitions);
    assert!(missed.is_empty(), "never taken: {missed:#?}\nof {:#?}", found.transitions);
    assert!(found.states > if prove() { 1_000_000 } else { 100_000 }, "{} states", found.states);
    tell(
        "states",
        &json!({
            "worlds": count,
            "states": found.states,
            "edges": found.edges,
            "refused": found.refusals,
            "ends": found.ends,
            "transitions": found.transitions.len(),
            "longest_way_to_an_end": found.longest,
            "broken_promises": 0,
            "seconds": began.elapsed().as_secs(),
        }),
    );
}

#[test]
fn large_worlds_by_chance_keep_every_promise() {
    let began = Instant::now();
    let (seeds, events) = if prove() { (20_000, 600) } else { (400, 400) };
    let seed: Option<u64> = std::env::var("REVGUARD_SEED").ok().and_then(|s| s.parse().ok());
    let seeds: Vec<u64> = seed.map_or((1..=seeds).collect(), |s| vec![s]);
    let count = seeds.len();
    let found = each(seeds, |seed| {
        let mut dice = Dice::new(seed);
        let config = worlds::by_chance(&mut dice);
        let told = |why: String| format!("seed {seed}: {why}\n{:?}", config.spec);
        search::walk(&Arc::new(config.clone()), &mut dice, events).map_err(told)
    });
    println!(
        "{count} worlds by chance, {} events, {} writes refused, ends {:?}, {:.0?}",
        found.edges,
        found.refusals,
        found.ends,
        began.elapsed()
    );
    if seed.is_none() {
        tell(
            "chance",
            &json!({
                "worlds": count,
                "events": found.edges,
                "refused": found.refusals,
                "ends": found.ends,
                "broken_promises": 0,
                "seconds": began.elapsed().as_secs(),
            }),
        );
    }
}

#[test]
fn each_thing_that_the_promises_rest_on_is_missed_when_it_is_gone() {
    for broken in Broken::ALL {
        let (config, words) = worlds::broken(broken);
        let found = search::exhaust(&Arc::new(config), 1_000_000);
        let why = found.err().unwrap_or_else(|| panic!("{broken:?} was not missed"));
        assert!(why.contains(words), "{broken:?} was missed by something else than {words:?}:\n{why}");
        println!("{broken:?}: {}", why.lines().next().unwrap_or_default());
    }
    let (config, _) = worlds::broken(Broken::Nothing);
    search::exhaust(&Arc::new(config), 1_000_000).unwrap_or_else(|why| panic!("with nothing taken away: {why}"));
}
