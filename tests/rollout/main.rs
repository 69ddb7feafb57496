//! The plan of a rollout in a model of a cluster.

mod canonical;
mod config;
mod events;
mod look;
mod machines;
mod search;
mod world;

use std::sync::Arc;

use config::{Config, quick};

#[test]
fn try_it() {
    let config = Arc::new(Config::new("plain", 2, quick()));
    let began = std::time::Instant::now();
    let found = search::exhaust(&config, 2_000_000).unwrap_or_else(|why| panic!("{why}"));
    println!("{found:?} {:?}", began.elapsed());
}

#[test]
fn what_varies() {
    let config = Arc::new(Config::new("plain", 2, quick()));
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    let mut states = std::collections::HashSet::new();
    let start = world::World::new(&config);
    states.insert(start.canonical());
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(world) = queue.pop_front() {
        if states.len() > 60_000 {
            break;
        }
        let m = world.memory().unwrap();
        let ticks = |t: Option<jiff::Timestamp>| t.map(|t| i64::from(world.clock) - world::ticks(t));
        let step = m.step.as_ref().map(|s| (s.index, s.stage));
        for (name, value) in [
            ("phase", format!("{:?} {step:?}", m.phase)),
            ("since", format!("{:?} {:?}", ticks(m.since), ticks(m.last_batch))),
            ("pods", format!("{}", world.pods.len())),
            ("pause", format!("{:?}", m.pause.as_ref().map(|p| p.cause))),
            ("batch", format!("{:?}", m.batch.as_ref().map(|b| (b.which, b.to, b.over, b.pods.len())))),
            ("of", format!("{:?}", Of::count(&world))),
        ] {
            *seen.entry(format!("{name} {value}")).or_default() += 1;
        }
        let decision = world.decide().transpose().unwrap();
        for event in world.events(decision.as_ref()) {
            let mut next = world.clone();
            let d = world.decide().transpose().unwrap();
            next.happen(event, d).unwrap();
            if states.insert(next.canonical()) {
                queue.push_back(next);
            }
        }
    }
    for (k, v) in seen {
        println!("{v:>7} {k}");
    }
}

struct Of;
impl Of {
    fn count(w: &world::World) -> Vec<(String, usize)> {
        let mut m = std::collections::BTreeMap::new();
        for p in &w.pods {
            *m.entry(format!("{:?}{}", p.of, if p.deleting { "-" } else { "" })).or_insert(0) += 1;
        }
        m.into_iter().collect()
    }
}
