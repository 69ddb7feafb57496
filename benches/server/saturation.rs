//! More than one core can do: the server on the first core, an open loop that does not wait for answers on the second.
//!
//! A review takes so little that no generator on one core can offer five times as many; so beside the product as it is, a
//! second server has every review last a millisecond, and that one is offered two and five times what it can do.

use serde_json::{Value, json};

use crate::parent::{self, Server};

/// Every review of the slowed server lasts this long.
const SLOW_US: u64 = 1_000;
/// What the generator may have open: under the server's own limit, so that none is refused for want of a place.
const MOST_CONNECTIONS: usize = 900;

pub fn measure(seconds: f64, namespaces: usize) -> Value {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return json!({"skipped": "needs two cores"});
    }
    let as_it_is = sweep(seconds, namespaces, 0, &[0.5, 1.0, 2.0, 5.0]);
    let slowed = sweep(seconds, namespaces, SLOW_US, &[0.5, 2.0, 5.0]);
    json!({"as_it_is": as_it_is, "slowed": slowed, "slow_us": SLOW_US, "bytes": BYTES})
}

const BYTES: usize = 10_000;

fn sweep(seconds: f64, namespaces: usize, slow_us: u64, factors: &[f64]) -> Value {
    let mut server = Server::start("revguard", namespaces, Some(0), slow_us);
    let job = |mode: &str| {
        json!({"mode": mode, "seconds": seconds, "operation": "create", "bytes": BYTES, "core": 1,
            "connections": 64, "most_connections": MOST_CONNECTIONS})
    };
    let (closed, ..) = parent::load(&mut server, job("closed"), |_| ());
    let capacity = closed["accepted"].as_f64().expect("a number") / closed["seconds"].as_f64().expect("a number");
    let mut rows = Vec::new();
    for factor in factors {
        let mut open = job("open");
        open["rate"] = json!(capacity * factor);
        let (mut figures, before, after) = parent::load(&mut server, open, Server::usage);
        figures["factor"] = json!(factor);
        figures["rss_bytes"] = json!(after.1);
        figures["cpu_share"] = json!((after.0 - before.0) / 1e6 / figures["seconds"].as_f64().expect("a number"));
        println!(
            "saturation, {} µs reviews, {factor}×: {figures}",
            if slow_us == 0 { "real".to_owned() } else { slow_us.to_string() }
        );
        rows.push(figures);
    }
    json!({"capacity_per_second": capacity, "rows": rows})
}
