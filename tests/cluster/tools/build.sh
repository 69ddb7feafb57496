#!/usr/bin/env bash
# Builds etcd, kube-apiserver, kube-controller-manager and kubectl from the pinned Go modules beside
# this script, and prints the folder that holds them as the only line on stdout. Progress goes to stderr.
#
# The folder is <target>/control-plane/<hash>/bin. The hash covers the modules' go.sum and go.mod, this
# script and the Go version, so a changed pin is a new folder and an unchanged one costs milliseconds.
# Two builders at once are safe: one builds, the other waits for its lock and then finds the result. A
# build that is cut off leaves nothing that looks finished, because the folder appears by one rename.
#
#   CARGO_TARGET_DIR  where <target> is (default: target/ of this repository)
#   exit 3            there is no usable Go here: nothing was tried
set -euo pipefail

here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
target=${CARGO_TARGET_DIR:-$(cd "$here/../../.." && pwd)/target}
KUBERNETES=1.36.3

# A go.mod that asks for a newer Go would otherwise make Go download one behind our back.
export GOTOOLCHAIN=local GOFLAGS="-buildvcs=false -mod=readonly" CGO_ENABLED=0

say() { echo "control plane: $*" >&2; }

# Fails without Go, and with one that is older than the modules ask for.
if ! why=$(cd "$here/kube" && go list -m 2>&1); then
  say "no usable Go: ${why##*$'\n'}"
  exit 3
fi
hash=$(cd "$here" && { go env GOVERSION GOOS GOARCH; cat build.sh {etcd,kube}/go.{mod,sum}; } | sha256sum | cut -c1-16)
root=$target/control-plane/$hash
bin=$root/bin

if [ ! -d "$bin" ]; then
  mkdir -p "$root"
  # The kernel drops this lock with the process, however that ends, so there is no stale lock to clean up.
  exec 9>"$root/lock"
  if ! flock --nonblock 9; then
    say "another build is running in $root, waiting for it"
    flock 9
  fi
fi

if [ ! -d "$bin" ]; then
  say "building into $root (once; from nothing about four minutes on two cores)"
  part=$root/part
  rm -rf "$part"
  mkdir -p "$part"

  # What `kubectl version` and /version say. Without it the API server calls itself v0.0.0-master, and
  # checks that compare versions go astray.
  v=k8s.io/component-base/version
  minor=${KUBERNETES#*.}
  stamp="-s -w -X $v.gitVersion=v$KUBERNETES -X $v.gitMajor=${KUBERNETES%%.*} -X $v.gitMinor=${minor%%.*} -X $v.gitTreeState=clean"

  build() { # NAME MODULE PACKAGE LDFLAGS
    local start=$SECONDS
    # The lock must not leak into a Go process that outlives us.
    (cd "$here/$2" && go build -trimpath -ldflags "$4" -o "$part/$1" "$3" >&2 9>&-)
    say "$1 $((SECONDS - start)) s"
  }
  build etcd etcd go.etcd.io/etcd/server/v3 "-s -w"
  for c in kube-apiserver kube-controller-manager kubectl; do
    build "$c" kube "k8s.io/kubernetes/cmd/$c" "$stamp"
  done
  mv "$part" "$bin"
  say "ready after $SECONDS s"
  # Former pins: 290 MB each. One that is being built right now is somebody's, and stays.
  for old in "$target"/control-plane/*/; do
    [ "$old" = "$root/" ] || flock --nonblock "${old}lock" rm -rf "$old" || true
  done
fi
echo "$bin"
