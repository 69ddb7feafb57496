#!/usr/bin/env bash
# A real Kubernetes of one node, thrown away after use: etcd, API server, controller-manager, scheduler, containerd with runc, bridge
# networking, kubelet, kube-proxy, CoreDNS. It lives in namespaces of its own (network, mounts, processes, host name, IPC,
# cgroups): nothing of it is routed, and nothing of the machine is changed but a cgroup and a folder.
#
#   node.sh up            brings it up, or up again after `stop`, and waits until the node and CoreDNS are ready
#   node.sh stop          ends everything in it at once, as a power cut would; etcd and the images stay
#   node.sh down          the same, and removes what is left
#   node.sh exec CMD...   runs CMD inside, with KUBECONFIG and PATH set
#   node.sh load TAR...   takes image archives
#   node.sh kill PROGRAM  ends one of its programs (etcd, apiserver, controller-manager, scheduler, kubelet, kube-proxy)
#   node.sh restart PROGRAM  the same, and it is started again at once
#   node.sh status        what runs
#   node.sh needs         says what this machine lacks for it, if anything (exit 1)
#
#   NODE_DIR     where its state is (default: target/node of this repository)
#   NODE_MEMORY  how much memory all of it may take (default: 12G)
#
# Needs root, Linux with cgroup v1 (hybrid too), and Debian's nftables, iptables, conntrack, libseccomp2, openssl, iproute2, procps; to
# build runc and the images also gcc and libseccomp-dev.
set -euo pipefail

SELF=$(readlink -f "${BASH_SOURCE[0]}")
HERE=${SELF%/*}
ROOT=$(cd "$HERE/../.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
STATE=$(readlink -m "${NODE_DIR:-$TARGET/node}")
# One node for each state folder: two checkouts do not meet.
CGROUP=revguard-node-$(cksum <<<"$STATE" | cut -d' ' -f1)

NODE=node1
ADDRESS=10.200.0.1
SERVICES=10.96.0.0/16
KUBERNETES=10.96.0.1
DNS=10.96.0.10
PODS=10.244.0.0/16

# Every hierarchy, also the one that systemd names: the kubelet wants all that /proc/self/cgroup lists.
HIERARCHIES=$(awk '$3 == "cgroup" && $2 ~ "^/sys/fs/cgroup/" {print $2}' /proc/self/mounts)

die() { echo "node: $*" >&2; exit 1; }
say() { echo "node: $*"; }

# --- processes: a number alone may belong to somebody else by now, so the start time stands beside it -------------------------

started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
record() { echo "$2 $(started "$2")" >"$STATE/$1.pid"; }
# Sets $pid if the recorded process still runs.
alive() {
  local start
  [ -s "$STATE/$1.pid" ] && read -r pid start <"$STATE/$1.pid" && [ "$(started "$pid")" = "$start" ]
}

inside() {
  alive init || die "it is not up (node.sh up)"
  nsenter --target "$pid" --mount --uts --ipc --net --pid --cgroup --wdns="$PWD" env \
    PATH="$(cat "$STATE/path"):$PATH" KUBECONFIG="$STATE/admin.kubeconfig" KUBECACHEDIR="$STATE/kubecache" \
    CONTAINERD_ADDRESS=/run/containerd/containerd.sock CONTAINERD_NAMESPACE=k8s.io "$@"
}

# --- down -----------------------------------------------------------------------------------------------------------------

stop() {
  local name hierarchy
  # The end of the first process of a PID namespace is the end of all in it.
  for name in init unshare; do
    alive $name || continue
    kill -KILL "$pid" 2>/dev/null || true
    for _ in $(seq 100); do alive $name || break; sleep 0.1; done
  done
  for hierarchy in $HIERARCHIES; do
    [ -d "$hierarchy/$CGROUP" ] || continue
    # Only if the records were lost is there still somebody; whoever is in our cgroup is ours.
    find "$hierarchy/$CGROUP" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | xargs -r kill -KILL 2>/dev/null || true
    for _ in $(seq 100); do
      find "$hierarchy/$CGROUP" -depth -type d -exec rmdir {} \; 2>/dev/null || true
      [ -d "$hierarchy/$CGROUP" ] || break
      sleep 0.1
    done
    [ ! -d "$hierarchy/$CGROUP" ] || echo "node: $hierarchy/$CGROUP is left behind" >&2
  done
}

down() {
  stop
  rm -rf --one-file-system "$STATE"
}

# --- what it is made of -----------------------------------------------------------------------------------------------------

needs() {
  local lacks=() program package
  [ "$(uname -s)" = Linux ] || lacks+=("Linux")
  [ "$(id -u)" = 0 ] || lacks+=("root")
  [ -n "$HIERARCHIES" ] || lacks+=("cgroup v1 under /sys/fs/cgroup")
  while read -r program package; do
    command -v "$program" >/dev/null || lacks+=("$program (Debian: $package)")
  done <<<"nft nftables
iptables iptables
conntrack conntrack
gcc gcc
go Go-1.26
openssl openssl
ip iproute2
sysctl procps
nsenter util-linux
python3 python3"
  [ -e /usr/include/seccomp.h ] || lacks+=("seccomp.h (Debian: libseccomp-dev)")
  [ ${#lacks[@]} = 0 ] || { printf '%s\n' "${lacks[@]}"; return 1; }
}

certificates() {
  mkdir -p "$STATE/pki"
  cd "$STATE/pki"
  local key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes) user
  openssl req -x509 "${key[@]}" -keyout ca.key -out ca.crt -subj /CN=node-ca -days 30 2>/dev/null
  certificate() { # NAME SUBJECT NAMES
    openssl req "${key[@]}" -keyout "$1.key" -out "$1.csr" -subj "$2" 2>/dev/null
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$1.crt" \
      -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3") 2>/dev/null
  }
  certificate apiserver /CN=kube-apiserver "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:$ADDRESS,IP:$KUBERNETES"
  certificate admin /O=system:masters/CN=admin DNS:admin
  certificate to-kubelet /O=system:masters/CN=apiserver-to-kubelet DNS:to-kubelet
  certificate front-proxy /CN=front-proxy DNS:front-proxy
  certificate controller-manager /CN=system:kube-controller-manager DNS:controller-manager
  certificate scheduler /CN=system:kube-scheduler DNS:scheduler
  certificate proxy /CN=system:kube-proxy DNS:proxy
  certificate kubelet "/O=system:nodes/CN=system:node:$NODE" "DNS:$NODE,IP:$ADDRESS"
  openssl genrsa -out service-accounts.key 2048 2>/dev/null
  openssl rsa -in service-accounts.key -pubout -out service-accounts.pub 2>/dev/null
  for user in admin controller-manager scheduler proxy kubelet; do
    cat >"$STATE/$user.kubeconfig" <<END
apiVersion: v1
kind: Config
clusters: [{name: node, cluster: {server: "https://$ADDRESS:6443", certificate-authority: $STATE/pki/ca.crt}}]
users: [{name: $user, user: {client-certificate: $STATE/pki/$user.crt, client-key: $STATE/pki/$user.key}}]
contexts: [{name: node, context: {cluster: node, user: $user}}]
current-context: node
END
  done
}

# Fills the files of machine/ in.
configuration() {
  local runc cni file
  runc=$(PATH=$(cat "$STATE/path") command -v runc)
  cni=$(cat "$STATE/cni-plugins")
  mkdir -p "$STATE/cni"
  : >"$STATE/resolv.conf"
  for file in containerd.toml kubelet.yaml kube-proxy.yaml coredns.yaml cni/bridge.conflist; do
    sed -e "s#@STATE@#$STATE#g; s#@RUNC@#$runc#g; s#@CNI@#$cni#g; s#@DNS@#$DNS#g; s#@ADDRESS@#$ADDRESS#g; s#@PODS@#$PODS#g; s#@NODE@#$NODE#g" \
      "$HERE/machine/${file##*/}" >"$STATE/$file"
  done
}

# Builds what is not built yet, and notes where it is.
programs() {
  local folders
  # Together it is a string: a failed build must fail us.
  folders=$("$ROOT/tests/cluster/tools/build.sh" control-plane node containerd runc coredns)
  paste -sd: <<<"$folders" >"$STATE/path"
  "$ROOT/tests/cluster/tools/build.sh" cni >"$STATE/cni-plugins"
}

# The images of the node and of the tests, from programs alone: see image/archive.py.
images() {
  local made=$STATE/images
  mkdir -p "$made"
  gcc -Os -static -s -o "$made/pause" "$HERE/pause/pause.c"
  (cd "$HERE/lab" && CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-buildvcs=false go build -trimpath -ldflags "-s -w" -o "$made/lab" .)
  archive() { # NAME FILE ENTRYPOINT
    "$ROOT/image/archive.py" --arch "$(go env GOARCH)" --user "${3-65532:65532}" --name "revguard.local/$1" --out "$made/${1%%:*}.tar" "$2" -- "/${2##*/}" >/dev/null
  }
  archive pause:1 "$made/pause"
  archive lab:1 "$made/lab"
  # DNS is a port that only root may open.
  archive coredns:1 "$(PATH=$(cat "$STATE/path") command -v coredns)" 0:0
}

# --- the first process inside ---------------------------------------------------------------------------------------------

# What is mounted here is seen by nobody outside.
mounts() {
  local hierarchy name options folder setting file
  mount --make-rshared /
  mount -t sysfs sysfs /sys
  mount -t tmpfs tmpfs /sys/fs/cgroup
  for hierarchy in $HIERARCHIES; do
    name=${hierarchy##*/} options=${hierarchy##*/}
    [ "$name" != systemd ] || options=none,name=systemd
    mkdir "/sys/fs/cgroup/$name"
    mount -t cgroup -o "$options" cgroup "/sys/fs/cgroup/$name"
  done
  mount -t tmpfs tmpfs /run
  mkdir -p /run/lock "$STATE"/{var-lib/upper,var-lib/work,sysctl}
  mount --bind "$STATE/log" /var/log
  # Of what the kubelet and the CNI plugins keep in /var/lib nothing reaches the machine's.
  mount -t overlay overlay -o "lowerdir=/var/lib,upperdir=$STATE/var-lib/upper,workdir=$STATE/var-lib/work" /var/lib
  # These settings belong to the whole machine. They are read-only here, and the kubelet reads the values that it would set.
  for folder in kernel vm fs; do
    mount --bind "/proc/sys/$folder" "/proc/sys/$folder"
    mount -o remount,bind,ro "/proc/sys/$folder"
  done
  for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=$STATE/sysctl/$(tr / . <<<"${setting%=*}")
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${setting%=*}"
  done
}

network() {
  hostname "$NODE"
  ip link set lo up
  # Any device with a carrier will do; the other end of the pair leads nowhere.
  ip link add node0 type veth peer name node0-peer
  ip link set node0 up
  ip link set node0-peer up
  ip address add "$ADDRESS/24" dev node0
  # Without a route, addresses of Services would be unreachable before kube-proxy gets to see them.
  ip route add default dev node0 src "$ADDRESS"
  sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 net.ipv4.conf.all.rp_filter=0 net.ipv6.conf.all.disable_ipv6=1
}

# Starts a program, and again each time that it ends after somebody has asked for that.
run() { # NAME COMMAND...
  local name=$1
  shift
  {
    while :; do
      "$@" >>"$STATE/log/$name.log" 2>&1 &
      echo $! >"$STATE/pids/$name"
      wait $! || true
      rm "$STATE/pids/$name.again" 2>/dev/null || break
    done
  } &
}

wait_for() {
  for _ in $(seq 600); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  die "timeout: $*"
}

init() {
  [ $$ = 1 ] || die "__init is what \`up\` runs"
  mounts
  network
  cd "$STATE"
  rm -rf pids started
  mkdir pids
  PATH=$(cat path):$PATH
  export PATH KUBECONFIG=$STATE/admin.kubeconfig KUBECACHEDIR=$STATE/kubecache CONTAINERD_ADDRESS=/run/containerd/containerd.sock
  run containerd containerd --config containerd.toml
  run etcd etcd --data-dir etcd --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380 --unsafe-no-fsync
  run apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --bind-address=0.0.0.0 --advertise-address="$ADDRESS" \
    --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key --client-ca-file=pki/ca.crt \
    --service-account-key-file=pki/service-accounts.pub --service-account-signing-key-file=pki/service-accounts.key \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-cluster-ip-range="$SERVICES" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --kubelet-client-certificate=pki/to-kubelet.crt --kubelet-client-key=pki/to-kubelet.key \
    --kubelet-certificate-authority=pki/ca.crt --kubelet-preferred-address-types=InternalIP \
    --requestheader-client-ca-file=pki/ca.crt --requestheader-allowed-names=front-proxy --requestheader-username-headers=X-Remote-User \
    --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file=pki/front-proxy.crt --proxy-client-key-file=pki/front-proxy.key
  wait_for ctr version
  # Once is enough: containerd keeps them.
  if [ ! -e loaded ]; then
    for image in images/*.tar; do ctr --namespace k8s.io images import --local "$image"; done
    touch loaded
  fi
  wait_for kubectl get --raw /readyz
  run controller-manager kube-controller-manager --kubeconfig=controller-manager.kubeconfig --leader-elect=false --bind-address=127.0.0.1 \
    --authentication-kubeconfig=controller-manager.kubeconfig --authorization-kubeconfig=controller-manager.kubeconfig \
    --service-account-private-key-file=pki/service-accounts.key --root-ca-file=pki/ca.crt --use-service-account-credentials=true \
    --cluster-signing-cert-file=pki/ca.crt --cluster-signing-key-file=pki/ca.key --kube-api-qps=100 --kube-api-burst=200 \
    --horizontal-pod-autoscaler-sync-period=3s \
    --allocate-node-cidrs=true --cluster-cidr="$PODS" --node-cidr-mask-size=24 --service-cluster-ip-range="$SERVICES"
  run scheduler kube-scheduler --kubeconfig=scheduler.kubeconfig --authentication-kubeconfig=scheduler.kubeconfig \
    --authorization-kubeconfig=scheduler.kubeconfig --leader-elect=false --bind-address=127.0.0.1
  run kubelet kubelet --config=kubelet.yaml --kubeconfig=kubelet.kubeconfig --hostname-override="$NODE" --node-ip="$ADDRESS" \
    --root-dir="$STATE/kubelet" --cert-dir="$STATE/kubelet/pki" -v=2
  wait_for kubectl get node "$NODE"
  run kube-proxy kube-proxy --config=kube-proxy.yaml -v=2
  touch started
  # The first process also reaps orphans, which a shell does while it waits.
  while :; do
    sleep 3600 &
    wait $! || true
  done
}

# --- up -------------------------------------------------------------------------------------------------------------------

up() {
  local began again='' hierarchy child reason
  if alive init; then die "it is up already ($STATE)"; fi
  if ! reason=$(needs); then die "this machine lacks: $(paste -sd, <<<"$reason" | sed 's/,/, /g')"; fi
  stop
  mkdir -p "$STATE/log"
  chmod 755 "$STATE"
  programs
  [ ! -d "$STATE/etcd" ] || again=yes
  [ -n "$again" ] || { images && (certificates); }
  configuration
  began=$EPOCHREALTIME
  for hierarchy in $HIERARCHIES; do
    mkdir "$hierarchy/$CGROUP"
    case $hierarchy in
      */cpuset) # A new one is empty, and takes nobody.
        cat "$hierarchy/cpuset.cpus" >"$hierarchy/$CGROUP/cpuset.cpus"
        cat "$hierarchy/cpuset.mems" >"$hierarchy/$CGROUP/cpuset.mems" ;;
      */memory) echo "${NODE_MEMORY:-12G}" >"$hierarchy/$CGROUP/memory.limit_in_bytes" ;;
    esac
  done
  rm -f "$STATE/started"
  (
    for hierarchy in $HIERARCHIES; do echo "$BASHPID" >"$hierarchy/$CGROUP/cgroup.procs"; done
    exec setsid unshare --net --mount --pid --fork --kill-child --uts --ipc --cgroup --mount-proc --propagation private "$SELF" __init
  ) >>"$STATE/log/init.log" 2>&1 </dev/null &
  record unshare $!
  alive unshare || failed "it did not start"
  for _ in $(seq 100); do
    child=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)
    child=${child%% *}
    [ -z "$child" ] || break
    sleep 0.05
  done
  [ -n "$child" ] || failed "its first process did not start"
  record init "$child"
  for _ in $(seq 1200); do
    [ ! -e "$STATE/started" ] || break
    alive init || failed "its first process ended"
    sleep 0.1
  done
  [ -e "$STATE/started" ] || failed "its programs did not start"
  inside kubectl wait --for=condition=Ready "node/$NODE" --timeout=120s >/dev/null || failed "the node is not ready"
  # The admission of pods asks for it.
  for _ in $(seq 300); do
    inside kubectl --namespace default get serviceaccount default >/dev/null 2>&1 && break
    sleep 0.1
  done
  # After a stop everything has to come back by itself.
  [ -n "$again" ] || inside kubectl apply --filename "$STATE/coredns.yaml" >/dev/null
  inside kubectl --namespace kube-system rollout status deployment/coredns --timeout=120s >/dev/null || failed "CoreDNS is not ready"
  say "up after $(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN {printf "%.1f", b - a}') s, state in $STATE"
}

failed() {
  echo "node: $*; the ends of its logs:" >&2
  tail -n 5 "$STATE"/log/*.log >&2 || true
  stop
  exit 1
}

status() {
  alive init || die "it is not up"
  local file number
  for file in "$STATE"/pids/*; do
    [ "${file%.again}" = "$file" ] || continue
    number=$(cat "$file")
    if inside test -d "/proc/$number"; then
      say "${file##*/} runs ($number inside)"
    else
      say "${file##*/} has ended: $(tail -n 1 "$STATE/log/${file##*/}.log")"
    fi
  done
  inside kubectl get nodes
}

case ${1:-} in
  up | down | stop | status | needs) "$1" ;;
  exec) shift; inside "$@" ;;
  load) shift; for archive; do inside ctr images import --local "$(readlink -f "$archive")" 2> >(grep -v DEPRECATION >&2); done ;;
  kill) [ -f "$STATE/pids/${2:?PROGRAM}" ] || die "no program $2; there are: $(cd "$STATE/pids" && echo *)"
    inside kill -KILL "$(cat "$STATE/pids/$2")" ;;
  restart) [ -f "$STATE/pids/${2:?PROGRAM}" ] || die "no program $2; there are: $(cd "$STATE/pids" && echo *)"
    touch "$STATE/pids/$2.again"
    inside kill -KILL "$(cat "$STATE/pids/$2")" ;;
  __init) init ;;
  *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$SELF"; exit 2 ;;
esac
