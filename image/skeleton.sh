#!/usr/bin/env bash
# skeleton.sh: writes empty sources for every target that Cargo.toml names, where there are none, so that a layer of the image can
# hold the built dependencies without the code.
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."
empty() { [ -e "$1" ] || { mkdir -p "$(dirname "$1")" && echo "${2-fn main() {\}}" >"$1"; }; }

empty src/main.rs
empty src/lib.rs ''
# Benches without a path of their own lie in benches/.
awk '
  function flush() { if (kind == "bench" && !path) print "benches/" name ".rs"; else if (path) print path; kind = name = path = "" }
  /^\[/ { flush() }
  /^\[\[(bench|test|example|bin)\]\]/ { gsub(/[][]/, ""); kind = $0 }
  kind && /^name *=/ { split($0, part, "\""); name = part[2] }
  kind && /^path *=/ { split($0, part, "\""); path = part[2] }
  END { flush() }
' Cargo.toml | while read -r path; do empty "$path"; done
