//! What is known of a gateway's pods beyond their objects: what their Envoys say, whether their ports answer, whether a request
//! gets through.
//!
//! Asked of every pod at its own address, several at a time, each within seconds. Nothing is concluded here: what could not be asked
//! stays `None`, and what that means is the plan's to say. istiod's `/debug/syncz` is not asked: it answers 401 to
//! everybody without a token of its audience, and 403 from outside of its namespace, so `synced` stays unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;

use super::wire::{Ask, connects, get};
use super::envoy;
use crate::api::gateway_rollout::{HttpProbe, Scheme};
use crate::rollout::Seen;
use crate::rollout::seen::{Evidence, Of, Pod};

/// Pods that are asked at a time.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(2);
/// A request may go through to a backend.
const PATIENCE_PROBE: Duration = Duration::from_secs(5);
/// Of the answer's body only that it ends is looked at.
const MOST_BYTES: usize = 4 << 20;

/// Asks every pod that has an address, by uid. Those that only their connections are counted of are left out where `recent` says that they were
/// asked just now.
pub async fn gather(seen: &Seen, recent: impl Fn(&Arc<str>) -> bool) -> BTreeMap<Arc<str>, Evidence> {
    let ports: BTreeSet<u16> = seen.services.iter().flat_map(|s| s.target_ports.iter().copied()).collect();
    let probes = &seen.rollout.spec.probe.http;
    let asked = seen.pods.iter().filter_map(|pod| Some((pod, pod.ip.as_deref()?.parse::<IpAddr>().ok()?)));
    let is_judged = |pod: &Pod| matches!(pod.of, Of::Canary | Of::Probe);
    let asked: Vec<_> = asked
        .filter(|(pod, _)| pod.of != Of::Other && (is_judged(pod) || !recent(&pod.held.uid)))
        .collect();
    let mut evidence = Vec::new();
    for (pod, ip) in asked {
        let ports = &ports;
        evidence.push(async move { (Arc::clone(&pod.held.uid), of(pod, ip, ports, probes).await) });
    }
    futures::stream::iter(evidence).buffer_unordered(AT_ONCE).collect().await
}

async fn of(pod: &Pod, ip: IpAddr, ports: &BTreeSet<u16>, probes: &[HttpProbe]) -> Evidence {
    // Ports of old pods and of those set apart decide nothing, and every connection to one is one more that is open.
    let serves = matches!(pod.of, Of::Canary | Of::Probe | Of::Source) && pod.containers_ready;
    let stats = async {
        let said = envoy::stats(ip).await;
        said.inspect_err(|error| tracing::debug!(pod = %pod.name, %error, "no statistics")).ok()
    };
    let closed = async {
        if !serves {
            return None;
        }
        let mut tries = Vec::new();
        for port in ports {
            tries.push(async { connects(ip, *port, PATIENCE).await.is_err().then_some(*port) });
        }
        Some(futures::future::join_all(tries).await.into_iter().flatten().collect())
    };
    let failed = async {
        if pod.of != Of::Probe || !pod.containers_ready {
            return None;
        }
        let mut tries = Vec::new();
        for probe in probes {
            tries.push(fails(ip, probe));
        }
        Some(futures::future::join_all(tries).await.into_iter().flatten().collect())
    };
    let (stats, closed_ports, failed_probes) = futures::join!(stats, closed, failed);
    Evidence { stats, closed_ports, failed_probes, ..Evidence::default() }
}

/// Why a probe fails, if it does.
async fn fails(ip: IpAddr, probe: &HttpProbe) -> Option<String> {
    let tls = probe.scheme == Scheme::HTTPS;
    let ask =
        Ask { to: (ip, probe.port).into(), host: &probe.host, path: &probe.path, tls, most_bytes: MOST_BYTES };
    let named = format!("{}://{}{} at port {}", if tls { "https" } else { "http" }, probe.host, probe.path, probe.port);
    match get(&ask, PATIENCE_PROBE).await {
        Ok(said) if is_expected(probe, said.status) => None,
        Ok(said) => Some(format!("{named}: HTTP {}", said.status)),
        Err(error) => Some(format!("{named}: {error}")),
    }
}

fn is_expected(probe: &HttpProbe, status: u16) -> bool {
    if probe.expect_status.is_empty() { (200..400).contains(&status) } else { probe.expect_status.contains(&status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_what_the_probe_says() {
        let mut probe = HttpProbe {
            port: 1,
            scheme: Scheme::HTTP,
            host: "h".into(),
            path: "/".into(),
            expect_status: Vec::new(),
        };
        assert!(is_expected(&probe, 204) && is_expected(&probe, 302) && !is_expected(&probe, 404));
        probe.expect_status = vec![404];
        assert!(is_expected(&probe, 404) && !is_expected(&probe, 200));
    }

    #[tokio::test]
    async fn a_probe_that_nobody_answers_says_which_it_was() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let probe = HttpProbe {
            port: closed.port(),
            scheme: Scheme::HTTPS,
            host: "shop.example.com".into(),
            path: "/healthz".into(),
            expect_status: vec![200],
        };
        let said = fails(closed.ip(), &probe).await.unwrap();
        assert!(said.starts_with("https://shop.example.com/healthz at port ") && said.contains("no connection"), "{said}");
    }
}
