#!/usr/bin/env bash
# binary.sh [amd64|arm64]: builds revguard as one static file that needs nothing else in its image, and prints its path as the
# only line on stdout. The Dockerfile and `make image` both run this.
#
# Static by way of glibc: its resolver reads /etc/hosts and asks DNS from within the program since 2.34, nothing is loaded at run
# time (only ring and rustls speak TLS here), and its allocator scales over threads, which musl's does not.
#
#   REVGUARD_PROFILE  cargo's profile: release, or dev with little optimisation for trying (default: release)
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."

case ${1:-$(uname -m)} in
  amd64 | x86_64) cpu=x86_64 ;;
  arm64 | aarch64) cpu=aarch64 ;;
  *) echo "binary.sh: no target for ${1:-$(uname -m)}; there are amd64 and arm64" >&2; exit 2 ;;
esac
target=$cpu-unknown-linux-gnu
profile=${REVGUARD_PROFILE:-release}

# From another processor, the linker and the C compiler are Debian's cross compilers.
if [ "$cpu" != "$(uname -m)" ]; then
  cross=${cpu/_/-}-linux-gnu-gcc
  command -v "$cross" >/dev/null || { echo "binary.sh: $cross is needed to build for $cpu (Debian: gcc-${cpu/_/-}-linux-gnu)" >&2; exit 1; }
  variable=${target^^}
  export "CARGO_TARGET_${variable//-/_}_LINKER=$cross" "CC_${target//-/_}=$cross"
fi
[ "$profile" != dev ] || export CARGO_PROFILE_DEV_OPT_LEVEL=1

# With --target, the flags reach only what runs in the image, not the build scripts.
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" cargo build --locked --profile "$profile" --target "$target" --bin revguard >&2

folder=$profile
[ "$profile" != dev ] || folder=debug
built=${CARGO_TARGET_DIR:-target}/$target/$folder/revguard
# A program that asks for a loader would not start in an empty image.
if LC_ALL=C grep -aq /ld-linux "$built"; then
  echo "binary.sh: $built is not static: it names a loader" >&2
  exit 1
fi
echo "$built"
