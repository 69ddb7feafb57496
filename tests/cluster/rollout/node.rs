//! What no controller of the tests' control plane does, done by hand: a stand-in for the scheduler, the kubelet, the endpoint controller and the
//! autoscaler, and for the Envoy in every pod.
//!
//! A pod is bound, gets an address of its own on loopback where its ports and Envoy's statistics answer, becomes ready, and ends a
//! moment after it was told to. Slices are written here, because the API server refuses loopback addresses in them: theirs are made
//! up, and `targetRef` names the pod. Deployments and ReplicaSets are the real controllers' business.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::Method;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::harness::raw::{As, JSON, MERGE, send};

/// What pods do that nothing else says.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// Revisions whose pods never become ready.
    pub unready: BTreeSet<String>,
    /// Revisions whose Envoys reject their listeners, and are ready all the same.
    pub rejecting: BTreeSet<String>,
    /// Revisions whose pods answer on no port but that of the statistics.
    pub deaf: BTreeSet<String>,
    /// Pods that start from now on are not ready for as long as this is set.
    pub starting_unready: bool,
    /// Revisions whose pods have connections open that do not end.
    pub busy: Vec<String>,
    /// From the end that is asked for to the end.
    pub linger: Duration,
}

/// One pod that runs.
struct Running {
    name: String,
    address: Ipv4Addr,
    servers: Vec<JoinHandle<()>>,
    began: Instant,
    ready: Option<bool>,
    ending: Option<Instant>,
}

/// From a pod's start to its being ready. A real gateway takes seconds.
const STARTS: Duration = Duration::from_millis(700);

/// A running stand-in for one namespace.
pub struct Node {
    pub manners: Arc<Mutex<Manners>>,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    pub fn start(client: Client, namespace: &str) -> Node {
        let manners: Arc<Mutex<Manners>> = Arc::default();
        let mut play = Play {
            client,
            namespace: namespace.to_owned(),
            manners: Arc::clone(&manners),
            running: BTreeMap::new(),
            written: BTreeMap::new(),
        };
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = play.round().await {
                    // The API server restarts, or the namespace is going.
                    eprintln!("node: {error:#}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        });
        Node { manners, task }
    }

    pub fn set(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.manners.lock().unwrap());
    }
}

struct Play {
    client: Client,
    namespace: String,
    manners: Arc<Mutex<Manners>>,
    running: BTreeMap<String, Running>,
    /// What was written last, so that nothing is written twice.
    written: BTreeMap<String, Value>,
}

/// Other test processes run at the same time.
fn address(number: u32) -> Ipv4Addr {
    let process = 20 + (std::process::id() % 200) as u8;
    Ipv4Addr::new(127, process, (number / 250) as u8, (number % 250) as u8 + 1)
}

static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl Play {
    async fn ask(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Value> {
        let answer = send(&self.client, method, path, body, &As::default()).await?;
        // What is gone, or was changed by somebody else, is looked at again.
        if matches!(answer.status, 404 | 409) { Ok(Value::Null) } else { answer.expect(path) }
    }

    async fn list(&self, group: &str, plural: &str) -> Result<Vec<Value>> {
        let path = format!("{group}/namespaces/{}/{plural}", self.namespace);
        let list = self.ask(Method::GET, &path, None).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    async fn round(&mut self) -> Result<()> {
        let pods = self.list("/api/v1", "pods").await?;
        let uids: BTreeSet<&str> = pods.iter().filter_map(|p| p["metadata"]["uid"].as_str()).collect();
        self.running.retain(|uid, running| {
            let stays = uids.contains(uid.as_str());
            if !stays {
                running.servers.iter().for_each(JoinHandle::abort);
            }
            stays
        });
        for pod in &pods {
            self.pod(pod).await?;
        }
        self.slices(&pods).await?;
        self.autoscalers().await
    }

    async fn pod(&mut self, pod: &Value) -> Result<()> {
        let meta = &pod["metadata"];
        let name = meta["name"].as_str().context("a name")?;
        let uid = meta["uid"].as_str().context("a uid")?;
        let path = format!("/api/v1/namespaces/{}/pods/{name}", self.namespace);
        if pod["spec"]["nodeName"].is_null() {
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": "loopback"},
            });
            self.ask(Method::POST, &format!("{path}/binding"), Some((JSON, &binding))).await?;
            return Ok(());
        }
        let revision = meta["labels"]["istio.io/rev"].as_str().unwrap_or_default().to_owned();
        let manners = self.manners.lock().unwrap().clone();
        if !self.running.contains_key(uid) {
            let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let address = address(number);
            let mut servers = vec![statistics(address, revision.clone(), Arc::clone(&self.manners)).await?];
            if !manners.deaf.contains(&revision) {
                for port in ports(pod) {
                    servers.push(accepting(address, port).await?);
                }
            }
            let running =
                Running { name: name.to_owned(), address, servers, began: Instant::now(), ready: None, ending: None };
            self.running.insert(uid.to_owned(), running);
        }
        let running = self.running.get_mut(uid).context("it runs")?;
        if !meta["deletionTimestamp"].is_null() {
            let since = *running.ending.get_or_insert_with(Instant::now);
            if since.elapsed() >= manners.linger {
                running.servers.iter().for_each(JoinHandle::abort);
                let now = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
                self.ask(Method::DELETE, &path, Some((JSON, &now))).await?;
            }
            return Ok(());
        }
        let slow = running.began.elapsed() < STARTS;
        let late = (slow || manners.starting_unready) && running.ready != Some(true);
        let containers = !late && !manners.unready.contains(&revision);
        let gates = pod["spec"]["readinessGates"].as_array().is_some_and(|g| !g.is_empty());
        if running.ready != Some(containers) {
            running.ready = Some(containers);
            let status = status(pod, running.address, containers, gates);
            self.ask(Method::PATCH, &format!("{path}/status"), Some((MERGE, &json!({"status": status})))).await?;
        }
        Ok(())
    }

    /// As the endpoint slice controller writes them, but for the addresses.
    async fn slices(&mut self, pods: &[Value]) -> Result<()> {
        for service in self.list("/api/v1", "services").await? {
            let Some(selector) = service["spec"]["selector"].as_object() else { continue };
            let selects = |pod: &Value| selector.iter().all(|(k, v)| pod["metadata"]["labels"][k] == *v);
            let mut endpoints = Vec::new();
            for pod in pods {
                let Some(running) = pod["metadata"]["uid"].as_str().and_then(|uid| self.running.get(uid)) else {
                    continue;
                };
                if !selects(pod) || running.ready.is_none() {
                    continue;
                }
                let ending = !pod["metadata"]["deletionTimestamp"].is_null();
                let ready = condition(pod, "Ready");
                let [_, _, c, d] = running.address.octets();
                endpoints.push(json!({
                    "addresses": [format!("10.99.{c}.{d}")],
                    "conditions": {"ready": ready && !ending, "serving": ready, "terminating": ending},
                    "nodeName": "loopback",
                    "targetRef": {"kind": "Pod", "namespace": self.namespace, "name": running.name, "uid": pod["metadata"]["uid"]},
                }));
            }
            let name = service["metadata"]["name"].as_str().context("a name")?;
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {
                    "name": format!("{name}-here"), "namespace": self.namespace,
                    "labels": {"kubernetes.io/service-name": name},
                },
                "endpoints": endpoints, "ports": [{"name": "http2", "port": 8080}],
            });
            let path = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/{name}-here", self.namespace);
            self.apply(&path, slice).await?;
        }
        Ok(())
    }

    /// An autoscaler that sees no load: what it scales gets its minimum at least, unless that is at 0.
    async fn autoscalers(&mut self) -> Result<()> {
        for hpa in self.list("/apis/autoscaling/v2", "horizontalpodautoscalers").await? {
            let name = hpa["metadata"]["name"].as_str().context("a name")?;
            let target = hpa["spec"]["scaleTargetRef"]["name"].as_str().context("a target")?;
            let path = format!("/apis/apps/v1/namespaces/{}/deployments/{target}", self.namespace);
            let deployment = self.ask(Method::GET, &path, None).await?;
            let replicas = deployment["spec"]["replicas"].as_u64().unwrap_or(0);
            let min = hpa["spec"]["minReplicas"].as_u64().unwrap_or(1);
            if replicas > 0 && replicas < min {
                let scale = json!({"spec": {"replicas": min}});
                self.ask(Method::PATCH, &format!("{path}/scale"), Some((MERGE, &scale))).await?;
            }
            let active = if replicas > 0 { "True" } else { "False" };
            let status = json!({"status": {
                "observedGeneration": hpa["metadata"]["generation"],
                "currentReplicas": replicas, "desiredReplicas": replicas.max(if replicas > 0 { min } else { 0 }),
                "conditions": [
                    {"type": "ScalingActive", "status": active, "reason": "ValidMetricFound", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                    {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                ],
            }});
            let path =
                format!("/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers/{name}/status", self.namespace);
            if self.written.get(&path) != Some(&status) {
                self.ask(Method::PATCH, &path, Some((MERGE, &status))).await?;
                self.written.insert(path, status);
            }
        }
        Ok(())
    }

    async fn apply(&mut self, path: &str, object: Value) -> Result<()> {
        if self.written.get(path) == Some(&object) {
            return Ok(());
        }
        let query = format!("{path}?fieldManager=node&force=true");
        let apply = "application/apply-patch+yaml";
        self.ask(Method::PATCH, &query, Some((apply, &object))).await?;
        self.written.insert(path.to_owned(), object);
        Ok(())
    }
}

fn condition(pod: &Value, of: &str) -> bool {
    let all = pod["status"]["conditions"].as_array().into_iter().flatten();
    all.into_iter().any(|c| c["type"] == of && c["status"] == "True")
}

fn ports(pod: &Value) -> Vec<u16> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let ports = containers.filter_map(|c| c["ports"].as_array()).flatten();
    let numbers = ports.filter_map(|p| u16::try_from(p["containerPort"].as_u64()?).ok());
    numbers.filter(|port| *port > 1024 && *port != 15090).collect()
}

fn status(pod: &Value, address: Ipv4Addr, containers: bool, gates: bool) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let one = |of: &str, is: bool| json!({"type": of, "status": if is { "True" } else { "False" }, "lastTransitionTime": now});
    let image = &pod["spec"]["containers"][0]["image"];
    json!({
        "phase": "Running", "podIP": address.to_string(), "podIPs": [{"ip": address.to_string()}],
        "hostIP": "127.0.0.1", "startTime": now,
        "conditions": [
            one("PodScheduled", true), one("Initialized", true), one("ContainersReady", containers),
            one("Ready", containers && !gates),
        ],
        "containerStatuses": [{
            "name": "istio-proxy", "image": image, "imageID": "", "ready": containers, "restartCount": 0,
            "started": true, "state": {"running": {"startedAt": now}},
        }],
    })
}

async fn accepting(address: Ipv4Addr, port: u16) -> Result<JoinHandle<()>> {
    let listener = TcpListener::bind((address, port)).await.with_context(|| format!("{address}:{port}"))?;
    Ok(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 2048];
                if stream.read(&mut asked).await.is_ok_and(|n| n > 0) {
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
                }
            });
        }
    }))
}

/// Envoy's statistics, as it writes them.
async fn statistics(address: Ipv4Addr, revision: String, manners: Arc<Mutex<Manners>>) -> Result<JoinHandle<()>> {
    let listener = TcpListener::bind((address, 15090)).await.with_context(|| format!("{address}:15090"))?;
    Ok(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 2048];
            let _ = stream.read(&mut asked).await;
            let (rejects, connections) = {
                let manners = manners.lock().unwrap();
                (manners.rejecting.contains(&revision), if manners.busy.contains(&revision) { 7 } else { 0 })
            };
            let (good, bad) = if rejects { (0, 2) } else { (2, 0) };
            let page = format!(
                "envoy_cluster_manager_cds_update_rejected{{}} 0\nenvoy_cluster_manager_cds_update_success{{}} 2\n\
                 envoy_listener_manager_lds_update_rejected{{}} {bad}\nenvoy_listener_manager_lds_update_success{{}} {good}\n\
                 envoy_listener_manager_total_listeners_active{{}} {good}\nenvoy_listener_manager_total_listeners_warming{{}} 0\n\
                 envoy_server_state{{}} 0\nenvoy_server_total_connections{{}} {connections}\n"
            );
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", page.len());
            let _ = stream.write_all(format!("{head}{page}").as_bytes()).await;
        }
    }))
}
