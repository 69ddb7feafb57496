//! Decode, judge, encode: what a review costs without the network. `cargo bench --bench judge`.

mod common;

use std::path::Path;

use criterion::{Criterion, criterion_group};
use revguard::admission::webhook::{Shared, Webhook};
use revguard::admission::{Endpoint, Reviewer};
use revguard::rules::Policy;

fn bench(c: &mut Criterion) {
    let bodies = [
        ("namespace-4kB", common::namespace()),
        ("deployment-create-10kB", common::create_deployment(10_000)),
        ("deployment-create-30kB", common::create_deployment(30_000)),
        ("deployment-update-10kB", common::update_deployment(10_000)),
    ];
    for namespaces in [100, 10_000] {
        let shared = Shared::new(common::cluster(namespaces), Policy::default());
        let webhook = Webhook { shared, clock: jiff::Timestamp::now, observe: Box::new(|_| {}) };
        for (name, body) in &bodies {
            c.bench_function(&format!("{name}/{namespaces}-namespaces"), |b| {
                b.iter(|| webhook.review(Endpoint::Validate, std::hint::black_box(body)));
            });
        }
    }
}

criterion_group!(benches, bench);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    // `--test` measures nothing; a filter leaves the others as they were, which the page must not mix.
    if std::env::args().skip(1).all(|a| a == "--bench") {
        common::record::write("judge", "cargo bench --bench judge", estimates());
    }
}

/// What criterion has just left.
fn estimates() -> serde_json::Value {
    let read = |file: std::path::PathBuf| -> Option<serde_json::Value> {
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    };
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/criterion");
    let mut all = serde_json::Map::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let new = entry.path().join("new");
        let (Some(id), Some(e)) = (read(new.join("benchmark.json")), read(new.join("estimates.json"))) else {
            continue;
        };
        let Some(name) = id["full_id"].as_str() else { continue };
        let mean = &e["mean"];
        let interval = &mean["confidence_interval"];
        all.insert(name.to_owned(), serde_json::json!({"mean_ns": mean["point_estimate"], "low_ns": interval["lower_bound"], "high_ns": interval["upper_bound"]}));
    }
    all.into()
}
