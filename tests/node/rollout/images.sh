#!/usr/bin/env bash
# images.sh FOLDER: the images of the meshes that gateway rollouts are tried on, as archives in FOLDER.
#
#   proxyv2.tar  revguard.local/proxyv2:1.23.0 and :1.24.0: a real Envoy, and `lab` in the place of pilot-agent and of sh
#   pilot.tar    revguard.local/pilot:1.23.0 and :1.24.0: `lab` in the place of istiod
#   lab.tar      revguard.local/lab:1
#
# The two versions of each are the same: what differs between two revisions here is whom they obey.
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/../../.."
out=${1:?FOLDER}
mkdir -p "$out"

envoy=$(tests/cluster/tools/build.sh envoy)/envoy
(cd tests/node/lab && CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-buildvcs=false go build -trimpath -ldflags "-s -w" -o "$out/lab" .)

# The libraries that it asks for, and the loader, where it looks for them.
libraries=$(ldd "$envoy" | awk '$2 == "=>" {print $3} $1 ~ "^/" {print $1}')
files=()
for library in $libraries; do files+=("$(readlink -f "$library")=$library"); done
[ ${#files[@]} -ge 3 ] || { echo "images.sh: ldd $envoy says too little: $libraries" >&2; exit 1; }

archive() { # FILE ENTRYPOINT USER NAMES FILES...
  local file=$1 entrypoint=$2 user=$3 names=() name
  for name in $4; do names+=(--name "revguard.local/$name"); done
  image/archive.py --arch "$(go env GOARCH)" --user "$user" "${names[@]}" --out "$out/$file" "${@:5}" -- "$entrypoint" >&2
}
archive proxyv2.tar /pilot-agent 1337:1337 "proxyv2:1.23.0 proxyv2:1.24.0" "$envoy=/envoy" "$out/lab=/pilot-agent" "$out/lab=/sh" "${files[@]}"
archive pilot.tar /lab 1337:1337 "pilot:1.23.0 pilot:1.24.0" "$out/lab"
archive lab.tar /lab 65532:65532 lab:1 "$out/lab"
