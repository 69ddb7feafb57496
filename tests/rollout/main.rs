//! The plan of a rollout in a model of a cluster.

mod canonical;
mod config;
mod events;
mod look;
mod machines;
mod search;
mod world;
mod worlds;

use std::sync::{Arc, Mutex};

fn prove() -> bool {
    std::env::var_os("REVGUARD_PROVE").is_some_and(|v| !v.is_empty())
}

#[test]
fn every_small_world() {
    let only = std::env::var("WORLD").unwrap_or_default();
    let most = std::env::var("MOST").ok().and_then(|m| m.parse().ok()).unwrap_or(300_000);
    let queue = Mutex::new(worlds::all(prove()));
    let total = Mutex::new(search::Found::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(config) = queue.lock().unwrap().pop() else { break };
                    if !only.is_empty() && !only.split(',').any(|o| o == config.name) {
                        continue;
                    }
                    let began = std::time::Instant::now();
                    let name = config.name;
                    match search::exhaust(&Arc::new(config), most) {
                        Ok(found) => {
                            println!(
                                "{name}: {} states {} edges {:?} {:?}",
                                found.states,
                                found.edges,
                                found.ends,
                                began.elapsed()
                            );
                            total.lock().unwrap().add(found);
                        }
                        Err(why) => println!("FAILED {why}"),
                    }
                }
            });
        }
    });
    println!("{:#?}", total.lock().unwrap());
}
