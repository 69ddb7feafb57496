//! CPU time a review, in turns: no-op, our server around the no-op's answer, our server.

use serde_json::{Value, json};

use crate::common::record::spread;
use crate::parent::{self, Server};

/// Keep-alive connections of the closed loop.
pub const CONNECTIONS: usize = 8;

const SHAPES: [(&str, usize); 4] = [("create", 10_000), ("create", 30_000), ("update", 10_000), ("update", 30_000)];
const KINDS: [&str; 3] = ["noop", "shell", "revguard"];

pub fn measure(rounds: usize, seconds: f64, namespaces: usize) -> Value {
    let mut servers: Vec<Server> = KINDS.iter().map(|kind| Server::start(kind, namespaces, None, 0)).collect();
    let mut out = Vec::new();
    for (operation, bytes) in SHAPES {
        let mut cpu = vec![Vec::new(); KINDS.len()];
        let mut quantiles: Vec<Vec<Value>> = vec![Vec::new(); KINDS.len()];
        for round in 0..rounds {
            let mut order: Vec<usize> = (0..KINDS.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let job = json!({"mode": "closed", "connections": CONNECTIONS, "seconds": seconds, "operation": operation, "bytes": bytes});
                let (figures, before, after) = parent::load(&mut servers[at], job, |s| s.usage().0);
                let reviews = figures["accepted"].as_f64().expect("a number");
                assert_eq!(figures["sent"], figures["accepted"], "{}: {figures}", KINDS[at]);
                cpu[at].push((after - before) / reviews);
                quantiles[at].push(figures["latency_us"].clone());
            }
        }
        let ratio = |at: usize| spread((0..rounds).map(|r| cpu[at][r] / cpu[0][r]).collect());
        let latency = |at: usize| {
            let of = |q: &str| spread(quantiles[at].iter().filter_map(|v| v[q].as_f64()).collect());
            json!({"p50": of("p50"), "p99": of("p99"), "p999": of("p999")})
        };
        let mut one = json!({"operation": operation, "bytes": bytes, "ratio": ratio(2), "shell_ratio": ratio(1)});
        for (at, kind) in KINDS.iter().enumerate() {
            one[kind] = json!({"cpu_us": spread(cpu[at].clone()), "latency_us": latency(at)});
        }
        println!(
            "{operation} {bytes}: no-op {} µs, shell {} µs, revguard {} µs of CPU a review, ratio {} ({} to {})",
            one["noop"]["cpu_us"]["median"],
            one["shell"]["cpu_us"]["median"],
            one["revguard"]["cpu_us"]["median"],
            one["ratio"]["median"],
            one["ratio"]["least"],
            one["ratio"]["most"]
        );
        out.push(one);
    }
    json!({"shapes": out, "revguard_rss_bytes": servers[2].usage().1})
}
