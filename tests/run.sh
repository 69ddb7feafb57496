#!/usr/bin/env bash
# Runs every test and closes with one sum: `N passed, N failed`. Lines that begin with `!!!` (tests that could not run here)
# are said again at the end, where they are seen.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p target
log=target/test.log
cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
sum() { grep -E '^test result:' "$log" | sed -E "s/.* ([0-9]+) $1.*/\1/" | awk '{n += $1} END {print n + 0}'; }
passed=$(sum passed)
failed=$(sum failed)
# A target that does not build, or that dies, fails without a count of its own.
[ "$status" -ne 0 ] && [ "$failed" -eq 0 ] && failed=1
# The full length leaves its sum beside the figures of the benches.
if [ -n "${REVGUARD_PROVE:-}" ]; then
    mkdir -p target/bench
    printf '{"bench": "tests", "command": "make prove", "commit": "%s", "figures": {"passed": %d, "failed": %d, "idle_connections": %d}}\n' \
        "$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)" "$passed" "$failed" "${REVGUARD_IDLE_CONNECTIONS:-2000}" >target/bench/tests.json
fi
grep -E '^!!!' "$log" || true
echo "$passed passed, $failed failed"
exit "$status"
