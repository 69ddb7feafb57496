# What a person types. Everything needs Rust 1.90 or newer and a C compiler; the tests on a real control plane also Go 1.26
# or KUBEBUILDER_ASSETS.
.PHONY: demo test prove lint bench bench-judge bench-server bench-memory docs fuzz

demo:            ## the main job, with no cluster at hand
	cargo run --release -- demo

test:            ## every test, the long ones in a short profile
	bash tests/run.sh

prove:           ## every test in full length, and the figures of docs/
	ulimit -n 65536 2>/dev/null || ulimit -n "$$(ulimit -Hn)"; \
	REVGUARD_PROVE=1 REVGUARD_IDLE_CONNECTIONS=10000 bash tests/run.sh
	$(MAKE) bench

lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

bench: bench-judge bench-server bench-memory  ## measures and rewrites docs/performance.md; REVGUARD_BENCH_ROUNDS=3 REVGUARD_BENCH_SECONDS=1 is the short profile
	python3 benches/report.py

bench-judge:     ## decode, judge and encode in process
	cargo bench --bench judge

bench-server:    ## CPU time and latency against a no-op on the same stack
	cargo bench --bench server

bench-memory:    ## resident memory and time to ready of a large cluster
	cargo bench --bench memory

docs:            ## rewrites the generated pages
	UPDATE=1 cargo test --test generated

fuzz:            ## needs cargo-fuzz and a nightly toolchain
	cd fuzz && for t in review selector builder; do cargo +nightly fuzz run $$t -- -max_total_time=300; done
