//! The command lines of etcd, the API server and the controller manager, flag by flag with its reason.
//!
//! Paths are relative to the run's folder, which is where the programs work.

/// Where Services would get their addresses; nothing routes to them.
const SERVICES: &str = "10.96.0.0/16";

fn flags(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|&line| line.to_owned()).collect()
}

pub fn etcd() -> Vec<String> {
    flags(&[
        "--data-dir=etcd",
        // Relative, because a socket's path may be 107 bytes long and the run's folder may be longer.
        "--listen-client-urls=unix://etcd.sock",
        "--advertise-client-urls=unix://etcd.sock",
        "--listen-peer-urls=unix://peer.sock",
        "--initial-advertise-peer-urls=unix://peer.sock",
        "--initial-cluster=default=unix://peer.sock",
        // Nothing here has to survive a power cut.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ])
}

pub fn apiserver(port: u16) -> Vec<String> {
    let mut all = flags(&[
        "--etcd-servers=unix://etcd.sock",
        "--bind-address=127.0.0.1",
        // What makes our hold on the port and the API server's own compatible.
        "--permit-port-sharing",
        "--tls-cert-file=apiserver.crt",
        "--tls-private-key-file=apiserver.key",
        "--client-ca-file=ca.crt",
        "--anonymous-auth=false",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-account-signing-key-file=service-accounts.key",
        "--service-account-key-file=service-accounts.pub",
        // It would publish a loopback address as the endpoint of Service `kubernetes`, and refuses.
        "--endpoint-reconciler-type=none",
        "--allow-privileged",
        // Pods need no ServiceAccount: no controller makes one unless a test asks for it.
        "--disable-admission-plugins=ServiceAccount",
        "--audit-policy-file=audit-policy.yaml",
        "--audit-log-path=audit.jsonl",
        // The entry of an answered request is in the file, not in a buffer.
        "--audit-log-mode=blocking",
        // /debug/pprof and contention counters: nobody looks.
        "--profiling=false",
    ]);
    all.push(format!("--secure-port={port}"));
    all.push(format!("--service-cluster-ip-range={SERVICES}"));
    all
}

pub fn controllers(names: &[String]) -> Vec<String> {
    let mut all = flags(&[
        "--kubeconfig=controllers.kubeconfig",
        // There is one, so there is nobody to elect.
        "--leader-elect=false",
        // It serves nothing: no second port.
        "--secure-port=0",
        // Webhooks then see `system:serviceaccount:kube-system:namespace-controller`, as on any real
        // cluster, and rules may depend on that.
        "--use-service-account-credentials",
        "--service-account-private-key-file=service-accounts.key",
        "--root-ca-file=ca.crt",
        // Twenty a second by default, which makes the end of a test's namespace a matter of seconds.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]);
    all.push(format!("--controllers={}", names.join(",")));
    all
}
