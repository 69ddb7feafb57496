#!/usr/bin/env bash
# Runs tests and closes with one sum: `N passed, N failed`. Lines that begin with `!!!` (tests that could not run here)
# are said again at the end, where they are seen.
#
#   run.sh [CARGO ARGUMENT...]   what anyone can run
#   run.sh node [FILTER]         the tests on a real node
#   run.sh all                   both
set -uo pipefail
cd "$(dirname "$0")/.." || exit
mkdir -p target
log=target/test.log
: >"$log"
status=0
failed=0

# Runs cargo, and sums its counts up.
run() {
    local part=target/test.part broken
    "$@" 2>&1 | tee "$part"
    local ended=${PIPESTATUS[0]}
    cat "$part" >>"$log"
    broken=$(sum failed "$part")
    # A target that does not build, or that dies, fails without a count of its own.
    [ "$ended" -ne 0 ] && [ "$broken" -eq 0 ] && broken=1
    failed=$((failed + broken))
    [ "$ended" -eq 0 ] || status=$ended
}
sum() { grep -E '^test result:' "$2" | sed -E "s/.* ([0-9]+) $1.*/\1/" | awk '{n += $1} END {print n + 0}'; }

case ${1:-} in
    node) run cargo test --locked --test node -- "${@:2}" ;;
    all)
        run cargo test --locked --no-fail-fast
        run cargo test --locked --test node
        ;;
    *) run cargo test --locked --no-fail-fast "$@" ;;
esac
passed=$(sum passed "$log")
# The full length leaves its sum beside the figures of the benches.
if [ -n "${REVGUARD_PROVE:-}" ] && [ "${1:-}" = all ]; then
    mkdir -p target/bench
    printf '{"bench": "tests", "command": "make prove", "commit": "%s", "figures": {"passed": %d, "failed": %d, "idle_connections": %d}}\n' \
        "$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)" "$passed" "$failed" "${REVGUARD_IDLE_CONNECTIONS:-2000}" >target/bench/tests.json
fi
grep -E '^!!!' "$log" || true
echo "$passed passed, $failed failed"
exit "$status"
