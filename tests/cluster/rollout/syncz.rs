//! What istiods say of a gateway's pods counts beside what their Envoys say. Whoever contradicts is believed, whoever is silent or
//! refuses changes nothing.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Stage, World};
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(Controllers, istiods_of_both_revisions_are_asked)]
}

const TOKEN: &str = "a-token-of-istiods-audience";

/// The monitoring port of an istiod: who is connected, or a status instead.
struct Istiod {
    at: SocketAddr,
    says: Arc<Mutex<(u16, Value)>>,
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Istiod {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address of this machine that the API server takes for an endpoint. No packet is sent.
fn outside() -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("203.0.113.1:9").context("a machine with no network has no address for an endpoint")?;
    Ok(socket.local_addr()?.ip())
}

impl Istiod {
    async fn start(ip: IpAddr) -> Result<Istiod> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let at = listener.local_addr()?;
        let (says, heads) = (Arc::new(Mutex::new((200, json!([])))), Arc::<Mutex<Vec<String>>>::default());
        let (answer, asked) = (Arc::clone(&says), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let n = stream.read(&mut head).await.unwrap_or(0);
                asked.lock().unwrap().push(String::from_utf8_lossy(&head[..n]).into_owned());
                let (status, body) = answer.lock().unwrap().clone();
                let body = body.to_string();
                let text = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        Ok(Istiod { at, says, heads, task })
    }

    fn answers(&self, status: u16, page: Value) {
        *self.says.lock().unwrap() = (status, page);
    }

    /// Leads the Service of a revision here.
    async fn serves(&self, world: &World, revision: &str) -> Result<()> {
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/istio-system/endpointslices/istiod-{revision}-x1");
        let change = json!([
            {"op": "replace", "path": "/endpoints/0/addresses", "value": [self.at.ip().to_string()]},
            {"op": "add", "path": "/ports/-", "value": {"name": "http-monitoring", "port": self.at.port()}},
        ]);
        world.env.patch(&path, change).await.map(drop)
    }
}

/// A proxy as istiod lists it, with this as the last listeners that it has accepted of `b`.
fn proxy(id: &str, accepted: &str) -> Value {
    json!({
        "proxy": id, "istio_version": "1.24.2", "cluster_sent": "a", "cluster_acked": "a", "listener_sent": "b",
        "listener_acked": accepted,
    })
}

fn verified(object: &Value) -> (&str, &str, &str) {
    let all = object["status"]["conditions"].as_array();
    let found = all.and_then(|all| all.iter().find(|c| c["type"] == "Verified")).unwrap_or(&Value::Null);
    let text = |key: &str| found[key].as_str().unwrap_or_default();
    (text("status"), text("reason"), text("message"))
}

async fn istiods_of_both_revisions_are_asked() -> Result<()> {
    let mut world = World::start().await?;
    let ip = outside()?;
    let (old, new) = (Istiod::start(ip).await?, Istiod::start(ip).await?);
    old.serves(&world, "1-23").await?;
    new.serves(&world, "1-24").await?;
    let file = world.env.plane.folder().join("istiod-token");
    std::fs::write(&file, TOKEN)?;
    let path = file.to_str().context("a path")?;
    world.controller = Some(world.controller(&["--istiod-token-file", path]).await?);
    let stage = Stage::of(Arc::new(world), "syncz").await?;
    stage
        .begin(json!({"strategy": {"steps": [
            {"name": "one", "replicas": 1, "soak": "600s"},
            {"name": "all", "weight": 100, "soak": "1s"},
        ]}}))
        .await?;
    // Nobody knows its pod, which is nothing against it.
    let soaking = stage.until("soaking", |r| r["status"]["step"]["stage"] == "Soaking").await?;
    ensure!(verified(&soaking).0 == "True", "{soaking}");
    for istiod in [&old, &new] {
        let head = istiod.heads.lock().unwrap().first().context("it was not asked")?.to_lowercase();
        ensure!(head.starts_with("get /debug/syncz?namespace=syncz "), "{head}");
        ensure!(head.contains(&format!("authorization: bearer {TOKEN}")), "{head}");
    }

    let pods = stage.get(&stage.core("pods", "")).await?;
    let of_canary = |p: &&Value| p["metadata"]["labels"]["istio.io/rev"] == "1-24";
    let pod = pods["items"].as_array().into_iter().flatten().find(of_canary).context("a new pod")?;
    let id = format!("{}.syncz", pod["metadata"]["name"].as_str().context("a name")?);
    // It says that it is of the new revision, and gets its configuration of the old one.
    old.answers(200, json!([proxy(&id, "b")]));
    let wrong = stage.until("a contradiction", |r| verified(r).0 == "False").await?;
    ensure!(verified(&wrong).2.contains("connected to an istiod of the old revision"), "{wrong}");
    ensure!(wrong["status"]["pods"]["verified"] == 0, "{}", wrong["status"]["pods"]);
    old.answers(403, Value::Null);
    stage.until("the end of the contradiction", |r| verified(r) == ("True", "XdsConnected", "")).await?;

    // It does not accept what the new one sends.
    new.answers(200, json!([proxy(&id, "")]));
    let waits = stage.until("an answer that is waited for", |r| verified(r).0 == "False").await?;
    ensure!(verified(&waits).2.contains("it does not answer to its listeners"), "{waits}");
    new.answers(200, json!([proxy(&id, "b")]));
    stage.until("its answer", |r| verified(r) == ("True", "XdsConnected", "")).await?;

    // Without its token nobody is asked.
    std::fs::remove_file(&file)?;
    new.answers(200, json!([proxy(&id, "")]));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let before = new.heads.lock().unwrap().len();
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    ensure!(new.heads.lock().unwrap().len() == before, "it was asked without a token");
    stage.until("what its Envoy says", |r| verified(r) == ("True", "XdsConnected", "")).await?;
    stage.set(json!({"abort": true})).await?;
    stage.phase("RolledBack").await?;
    stage.is_as_before().await
}
