//! The audit of a large cluster on one core: every object judged as if it were created now. `cargo bench --bench audit`.

mod common;

use std::time::Instant;

use revguard::audit;
use revguard::model::Kind;
use revguard::rules::Policy;

/// Namespaces of five Deployments each: 50,000 workloads.
const NAMESPACES: usize = 10_000;

fn main() {
    // `cargo test --benches` wants it to run, not to measure.
    let measures = std::env::args().any(|a| a == "--bench");
    let snapshot = common::cluster(if measures { NAMESPACES } else { 10 });
    let policy = Policy::default();
    let mut seconds = Vec::new();
    let mut entries = 0;
    for _ in 0..if measures { 5 } else { 1 } {
        let start = Instant::now();
        entries = audit::run(&policy, &snapshot, jiff::Timestamp::now()).entries.len();
        seconds.push(start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    let seen = audit::inventory(&snapshot, &[]);
    let inventory = start.elapsed().as_secs_f64();
    let workloads = snapshot.len(Kind::Deployment);
    println!(
        "{workloads} workloads: {seconds:.2?} s, {entries} entries; inventory of {} revisions {inventory:.2} s",
        seen.revisions.len()
    );
    if measures {
        let figures = serde_json::json!({
            "workloads": workloads, "entries": entries, "seconds": common::record::spread(seconds), "inventory_s": inventory,
        });
        common::record::write("audit", "cargo bench --bench audit", figures);
    }
}
