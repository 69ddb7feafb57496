//! Constant load on gateways, from a pod, through the ClusterIP of their Services: what was sent, answered and lost.
//!
//! Each load is a pod of its own, so that no connection of it meets what the node's connection tracking remembers of a former one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use super::stage::{BACKEND, Gateway, SOON, get};
use crate::harness::machine::Machine;
use crate::harness::raw::{As, JSON, send};
use crate::harness::wait::wait_until;

/// How long the long requests take: four times as long as an Istio gateway drains.
pub const LONG: Duration = Duration::from_secs(20);

/// Load that nobody has stopped ends after this.
const AT_MOST: Duration = Duration::from_secs(2 * 3600);

/// The streams on each gateway: name, requests a second, connections that are kept, and what is asked for.
const STREAMS: [(&str, u32, u32, &str); 3] =
    [("short", 200, 0, "/"), ("kept", 200, 20, "/"), ("long", 10, 0, "/?wait=20s")];

pub struct Traffic {
    machine: &'static Machine,
    client: Client,
    pod: String,
}

/// What came of one stream.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Report {
    pub name: String,
    pub sent: u64,
    pub ok: u64,
    pub lost: u64,
    pub skipped: u64,
    pub open: u64,
    pub dialled: u64,
    /// Answers by the revision of the gateway that gave them.
    pub by: BTreeMap<String, u64>,
    pub errors: BTreeMap<String, u64>,
    pub told: Vec<String>,
    pub worst_ms: u64,
    pub late_ms: u64,
}

impl Traffic {
    /// Starts the load on these gateways, and waits until it is answered.
    pub async fn start(machine: &'static Machine, gateways: &[Gateway]) -> Result<Traffic> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let mut streams = Vec::new();
        for gateway in gateways {
            let service = get(machine, gateway.namespace, "service", gateway.name).await?;
            let address = service["spec"]["clusterIP"].as_str().context("an address")?;
            for (name, rate, keep, path) in STREAMS {
                streams.push(json!({
                    "name": format!("{}/{name}", gateway.name), "url": format!("http://{address}:80{path}"),
                    "rate": rate, "keep": keep, "seconds": AT_MOST.as_secs(),
                }));
            }
        }
        let pod = format!("load-{}", NUMBER.fetch_add(1, Ordering::SeqCst));
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": BACKEND},
            "spec": {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [{
                "name": "load", "image": "revguard.local/lab:1", "imagePullPolicy": "IfNotPresent",
                "args": ["load", Value::Array(streams).to_string()],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
            }]},
        });
        machine.kubectl(&["create", "-f", "-"], &object.to_string()).await?.passed()?;
        let traffic = Traffic { machine, client: machine.client().await?, pod };
        let ready = ["wait", "-n", BACKEND, "pod", &traffic.pod, "--for=condition=Ready", "--timeout=60s"];
        machine.kubectl(&ready, "").await?.passed()?;
        wait_until(SOON, "answers to the load", || async {
            let reports = traffic.reports().await.map_err(|error| format!("{error:#}"))?;
            let busy = |report: &Report| report.ok > 0 || report.name.ends_with("/long") && report.open >= 30;
            if reports.iter().all(busy) { Ok(()) } else { Err(format!("{reports:?}")) }
        })
        .await?;
        Ok(traffic)
    }

    /// As it is now.
    pub async fn reports(&self) -> Result<Vec<Report>> {
        let path = format!("/api/v1/namespaces/{BACKEND}/pods/{}:8080/proxy/report", self.pod);
        let answer = send(&self.client, Method::GET, &path, None, &As::default()).await?;
        Ok(serde_json::from_value(answer.expect("the report of the load")?)?)
    }

    /// Lets it finish what it has begun, and takes its pod away.
    pub async fn finish(self) -> Result<Tally> {
        let path = format!("/api/v1/namespaces/{BACKEND}/pods/{}:8080/proxy/stop", self.pod);
        send(&self.client, Method::POST, &path, Some((JSON, &json!({}))), &As::default()).await?;
        let limit = LONG + SOON;
        let streams = wait_until(limit, "the last answers", || async {
            let reports = self.reports().await.map_err(|error| format!("{error:#}"))?;
            let open: u64 = reports.iter().map(|report| report.open).sum();
            if open == 0 { Ok(reports) } else { Err(format!("{open} are under way")) }
        })
        .await?;
        self.machine.kubectl(&["delete", "pod", &self.pod, "-n", BACKEND, "--wait=false"], "").await?.passed()?;
        Ok(Tally { streams })
    }
}

/// What came of all streams in the end.
#[derive(Clone, Debug)]
pub struct Tally {
    pub streams: Vec<Report>,
}

impl Tally {
    pub fn sent(&self) -> u64 {
        self.streams.iter().map(|report| report.sent).sum()
    }

    pub fn lost(&self) -> u64 {
        self.streams.iter().map(|report| report.lost).sum()
    }

    /// One of the streams, of all gateways.
    pub fn only(&self, kind: &str) -> Tally {
        let of = |report: &&Report| report.name.ends_with(&format!("/{kind}"));
        Tally { streams: self.streams.iter().filter(of).cloned().collect() }
    }

    /// One line each, with every sort of loss.
    pub fn print(&self, what: &str) {
        for Report { name, sent, ok, lost, dialled, by, errors, worst_ms, late_ms, told, .. } in &self.streams {
            println!(
                "{what}: {name}: {sent} sent on {dialled} connections, {ok} answered {by:?}, {lost} lost {errors:?}; the \
                 slowest {worst_ms} ms, at most {late_ms} ms late"
            );
            for one in told.iter().take(8) {
                println!("    lost: {one}");
            }
        }
    }

    /// The load was what it is called.
    fn whole(&self) -> Result<()> {
        for report in &self.streams {
            ensure!(report.sent == report.ok + report.lost && report.sent > 0, "{report:?}");
            ensure!(report.skipped == 0, "there was more under way than the load can carry: {report:?}");
        }
        Ok(())
    }

    pub fn none_lost(&self, what: &str) -> Result<()> {
        self.print(what);
        self.whole()?;
        let told: Vec<&String> = self.streams.iter().flat_map(|report| &report.told).collect();
        ensure!(self.lost() == 0, "{what}: {} of {} requests lost: {told:#?}", self.lost(), self.sent());
        Ok(())
    }

    /// A count that cannot lose says nothing: without this the whole run is void. What must be lost are long requests.
    pub fn some_lost(&self, what: &str) -> Result<()> {
        self.print(&format!("{what} (control)"));
        self.whole()?;
        ensure!(
            self.only("long").lost() > 0,
            "the control lost nothing that takes {LONG:?}, so the counts beside it are void: {what}"
        );
        Ok(())
    }

    /// For the figures.
    pub fn json(&self) -> Value {
        let of = |kind: &str| {
            let part = self.only(kind);
            json!({"sent": part.sent(), "lost": part.lost()})
        };
        json!({"short": of("short"), "kept": of("kept"), "long": of("long")})
    }
}
