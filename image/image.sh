#!/usr/bin/env bash
# image.sh [amd64|arm64]: the image of revguard as an archive that any engine loads, and beside it what is in it. Without an engine.
#
#   REVGUARD_IMAGE    repository:tag (default: two names with the version in Cargo.toml: revguard, which the chart's own values ask for, and
#                     revguard.local/revguard, which no registry answers to)
#   REVGUARD_PROFILE  see binary.sh
#   OUT               folder (default: <target>/image)
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

arch=${1:-$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')}
out=${OUT:-${CARGO_TARGET_DIR:-target}/image}
version=$(sed -n '0,/^version = "\(.*\)"$/s//\1/p' Cargo.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
cpu=$(sed 's/amd64/x86_64/; s/arm64/aarch64/' <<<"$arch")

names=(--name "docker.io/library/revguard:$version" --name "revguard.local/revguard:$version")
[ -z "${REVGUARD_IMAGE:-}" ] || names=(--name "$REVGUARD_IMAGE")

binary=$(image/binary.sh "$arch")
mkdir -p "$out"
image/sbom.py "$cpu-unknown-linux-gnu" >"$out/revguard.cdx.json"
# The labels are those of the Dockerfile.
image/archive.py "${names[@]}" --out "$out/revguard.tar" --arch "$arch" \
  --label org.opencontainers.image.title=revguard \
  --label "org.opencontainers.image.description=The guard of Istio upgrades on Kubernetes" \
  --label org.opencontainers.image.licenses=Apache-2.0 \
  --label "org.opencontainers.image.version=$version" \
  --label "org.opencontainers.image.revision=$revision" \
  --expose 8443 --expose 8080 --cmd serve "$binary=/revguard" -- /revguard
