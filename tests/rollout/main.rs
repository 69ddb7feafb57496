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
        if !only.is_empty() && !only.split(',').any(|o| o == config.name) {
            continue;
        }
        let began = std::time::Instant::now();
        let name = config.name;
        let found = match search::exhaust(&Arc::new(config), 300_000) {
            Ok(found) => found,
            Err(why) => {
                println!("FAILED {why}");
                continue;
            }
        };
        println!("{name}: {} states {} edges {:?} {:?}", found.states, found.edges, found.ends, began.elapsed());
    }
}
