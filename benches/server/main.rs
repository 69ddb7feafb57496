//! What a review costs over TLS: our server beside a no-op handler on the same stack, in the same run, in turns.
//!
//! `cargo bench --bench server` starts three servers, each in a process of its own: `revguard` (the whole product over a
//! snapshot of 10,000 namespaces), `noop` (axum, hyper and rustls with the same settings; reads the body, answers a constant)
//! and `shell` (our server with a reviewer that answers the same constant), and a load generator in a fourth. CPU time is
//! what a server's own clock of process time says before and after a round. Rounds alternate, and a ratio is taken within
//! one round, so that a busy machine disturbs both sides alike.
//!
//! `REVGUARD_BENCH_ROUNDS` (default 9) and `REVGUARD_BENCH_SECONDS` (default 2) set how long.

#[path = "../common/mod.rs"]
mod common;
mod cost;
mod load;
mod parent;
mod saturation;
mod serve;

use serde_json::json;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("serve") => return serve::main(&args[1..]),
        Some("load") => return load::main(),
        _ => {}
    }
    // `cargo test --benches` builds this and must not start the load.
    if args.iter().any(|a| a == "--test") {
        return;
    }
    let rounds = setting("REVGUARD_BENCH_ROUNDS", 9.0) as usize;
    let seconds = setting("REVGUARD_BENCH_SECONDS", 2.0);
    let namespaces = setting("REVGUARD_BENCH_NAMESPACES", 10_000.0) as usize;
    let cost = cost::measure(rounds, seconds, namespaces);
    let saturation = saturation::measure(seconds.max(2.0), namespaces);
    let figures = json!({
        "namespaces": namespaces, "rounds": rounds, "seconds": seconds, "connections": cost::CONNECTIONS,
        "cost": cost, "saturation": saturation,
    });
    common::record::write("server", "make bench-server", figures);
}

fn setting(name: &str, default: f64) -> f64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}
