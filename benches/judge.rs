//! Decode, judge, encode: what a review costs without the network. `cargo bench --bench judge`.

mod common;

use criterion::{Criterion, criterion_group, criterion_main};
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
criterion_main!(benches);
