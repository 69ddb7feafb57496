# What a person types. Everything needs Rust 1.90 or newer and a C compiler; the tests on a real control plane also Go 1.26
# or KUBEBUILDER_ASSETS.
.PHONY: demo test prove lint bench bench-server bench-memory docs fuzz

demo:            ## the main job, with no cluster at hand
	cargo run --release -- demo

test:            ## every test, the long ones in a short profile
	bash tests/run.sh

prove:           ## every test in full length, and the figures of docs/
	REVGUARD_PROVE=1 bash tests/run.sh
	$(MAKE) bench

lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

bench: bench-server bench-memory  ## measures and rewrites docs/performance.md
	cargo bench --bench judge
	python3 benches/report.py

bench-server:    ## CPU time and latency against a no-op on the same stack
	cargo bench --bench server

bench-memory:    ## resident memory and time to ready of a large cluster
	cargo bench --bench memory

docs:            ## rewrites the generated pages
	UPDATE=1 cargo test --test generated

fuzz:            ## needs cargo-fuzz and a nightly toolchain
	cd fuzz && for t in review selector builder; do cargo +nightly fuzz run $$t -- -max_total_time=300; done
