//! The plan of a rollout in a model of a cluster.

mod canonical;
mod config;
mod events;
mod look;
mod machines;
mod search;
mod world;
mod worlds;

use std::sync::Arc;

#[test]
fn every_small_world() {
    let only = std::env::var("WORLD").unwrap_or_default();
    for config in worlds::all(false) {
        if !only.is_empty() && config.name != only {
            continue;
        }
        let began = std::time::Instant::now();
        let name = config.name;
        let found = search::exhaust(&Arc::new(config), 300_000).unwrap_or_else(|why| panic!("{why}"));
        println!("{name}: {} states {} edges {:?} {:?}", found.states, found.edges, found.ends, began.elapsed());
    }
}
