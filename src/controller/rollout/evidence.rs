//! What is known of a gateway's pods beyond their objects: what their Envoys say, whether their ports answer, whether a request
//! gets through.
//!
//! Asked of every pod at its own address, several at a time, each within seconds. Nothing is concluded here: what could not be asked
//! stays `None`, and what that means is the plan's to say. What istiods say of the same pods is `istiod`'s to ask.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;

use super::envoy;
use crate::api::gateway_rollout::{HttpProbe, Scheme};
use crate::controller::ask::{Ask, connects, get};
use crate::rollout::Seen;
use crate::rollout::seen::{Evidence, Of, Pod, Stats};

/// Old pods whose ports show which ports have to answer.
const MODELS: usize = 3;
/// Pods that are asked at a time.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(2);
/// A request may go through to a backend.
const PATIENCE_PROBE: Duration = Duration::from_secs(5);
/// Of the answer's body only that it ends is looked at.
const MOST_BYTES: usize = 4 << 20;

/// What one pod said.
struct Said {
    stats: Option<Stats>,
    /// Ports that answered; `None`: nobody tried.
    open: Option<BTreeSet<u16>>,
    failed_probes: Option<Vec<String>>,
}

/// Asks every pod that has an address, by uid. Those of which only the connections are counted are left out where `recent` says that they
/// were asked just now.
pub async fn gather(seen: &Seen, recent: impl Fn(&Arc<str>) -> bool) -> BTreeMap<Arc<str>, Evidence> {
    let ports: BTreeSet<u16> = seen.services.iter().flat_map(|s| s.target_ports.iter().copied()).collect();
    let is_new = |pod: &Pod| is_new(seen, pod);
    let mut models = 0;
    let mut asked = Vec::new();
    for pod in seen.pods.iter().filter(|p| p.of != Of::Other) {
        let Some(ip) = pod.ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()) else { continue };
        let judged = is_new(pod) && pod.of != Of::Apart;
        let model = !judged && pod.of != Of::Apart && pod.ready && models < MODELS;
        models += usize::from(model);
        if judged || model || !recent(&pod.held.uid) {
            let tried = (pod.containers_ready && (judged || model)).then_some(&ports);
            let probes = if pod.of == Of::Probe { seen.rollout.spec.probe.http.as_slice() } else { &[] };
            asked.push(async move { (pod, of(pod, ip, tried, probes).await) });
        }
    }
    let said: Vec<(&Pod, Said)> = futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    let expected = expected(said.iter().map(|(pod, said)| (is_new(pod), said)));
    let kept = said.into_iter().filter(|(pod, said)| pod.containers_ready || said.stats.is_some());
    kept.map(|(pod, said)| (pod.held.uid.clone(), evidence(said, &expected))).collect()
}

/// It should be the new revision's.
pub fn is_new(seen: &Seen, pod: &Pod) -> bool {
    pod.of == Of::Probe || pod.revision.as_deref() == Some(seen.rollout.spec.to_revision.as_str())
}

/// Ports that have to answer: those that old pods answer on, and where there are none, any pod. A Service may have ports that no Gateway
/// opens, and nobody misses them.
fn expected<'a>(said: impl Iterator<Item = (bool, &'a Said)>) -> BTreeSet<u16> {
    let (mut old, mut all) = (BTreeSet::new(), BTreeSet::new());
    for (is_new, said) in said {
        let open = said.open.iter().flatten().copied();
        all.extend(open.clone());
        old.extend(open.filter(|_| !is_new));
    }
    if old.is_empty() { all } else { old }
}

fn evidence(said: Said, expected: &BTreeSet<u16>) -> Evidence {
    let closed = said.open.map(|open| expected.difference(&open).copied().collect());
    Evidence { stats: said.stats, closed_ports: closed, failed_probes: said.failed_probes, ..Evidence::default() }
}

async fn of(pod: &Pod, ip: IpAddr, ports: Option<&BTreeSet<u16>>, probes: &[HttpProbe]) -> Said {
    let stats = async {
        let at = Timestamp::now();
        let said = envoy::stats(ip).await.map(|stats| Stats { at, ..stats });
        said.inspect_err(|error| tracing::debug!(pod = %pod.name, %error, "no statistics")).ok()
    };
    let open = async {
        let mut tries = Vec::new();
        for port in ports? {
            tries.push(async { connects(ip, *port, PATIENCE).await.is_ok().then_some(*port) });
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
    let (stats, open, failed_probes) = futures::join!(stats, open, failed);
    Said { stats, open, failed_probes }
}

/// Why a probe fails, if it does.
async fn fails(ip: IpAddr, probe: &HttpProbe) -> Option<String> {
    let tls = probe.scheme == Scheme::HTTPS;
    let ask = Ask {
        to: (ip, probe.port).into(),
        host: &probe.host,
        path: &probe.path,
        tls,
        most_bytes: MOST_BYTES,
        token: None,
    };
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
        let mut probe =
            HttpProbe { port: 1, scheme: Scheme::HTTP, host: "h".into(), path: "/".into(), expect_status: Vec::new() };
        assert!(is_expected(&probe, 204) && is_expected(&probe, 302) && !is_expected(&probe, 404));
        probe.expect_status = vec![404];
        assert!(is_expected(&probe, 404) && !is_expected(&probe, 200));
    }

    #[test]
    fn only_ports_that_somebody_answers_on_are_missed() {
        let said = |open: &[u16]| Said { stats: None, open: Some(open.iter().copied().collect()), failed_probes: None };
        let (old, new, deaf) = (said(&[8080]), said(&[8080, 8443]), said(&[]));
        let closed = |pods: &[(bool, &Said)], of: Said| evidence(of, &expected(pods.iter().copied())).closed_ports;
        assert_eq!(closed(&[(false, &old), (true, &deaf)], said(&[])), Some(vec![8080]), "nobody opens 8443");
        assert_eq!(closed(&[(true, &new), (true, &deaf)], said(&[8080])), Some(vec![8443]), "no old pod is left");
        assert_eq!(closed(&[(false, &deaf), (true, &deaf)], said(&[])), Some(Vec::new()), "we are not let through");
        let untried = Said { stats: None, open: None, failed_probes: None };
        assert_eq!(closed(&[(false, &old)], untried), None);
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
        assert!(
            said.starts_with("https://shop.example.com/healthz at port ") && said.contains("no connection"),
            "{said}"
        );
    }
}
