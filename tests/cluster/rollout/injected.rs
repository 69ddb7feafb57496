//! A gateway whose proxies an injector makes. The injectors are a stand-in that answers the API server's calls as istiod does: it fills in
//! the image, and says on the pod which revision it is.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::forward::condition;
use super::watch::Watch;
use super::{CANARY, Stage, World};
use crate::harness::pki::{Authority, server_config};
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(Controllers, the_injector_is_asked_before_anything_is_made)]
}

const GATEWAY: &str = include_str!("injected.yaml");
const INJECTORS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// Answers for every revision, by its path.
struct Injectors {
    address: SocketAddr,
    authority: Authority,
    task: JoinHandle<()>,
}

impl Drop for Injectors {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Injectors {
    async fn start() -> Result<Injectors> {
        let authority = Authority::new("injectors")?;
        let acceptor = TlsAcceptor::from(server_config(&authority.server(&["127.0.0.1"])?)?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
                });
            }
        });
        Ok(Injectors { address, authority, task })
    }

    /// Lets the injector of a revision lead here, to the one that answers as `as_revision`.
    async fn lead(&self, stage: &World, revision: &str, as_revision: &str) -> Result<()> {
        let path = format!("{INJECTORS}/istio-sidecar-injector-{revision}");
        let config = json!({
            "url": format!("https://{}/{as_revision}", self.address),
            "caBundle": STANDARD.encode(self.authority.pem()),
        });
        let change: Vec<Value> = (0..2)
            .map(|i| json!({"op": "replace", "path": format!("/webhooks/{i}/clientConfig"), "value": config}))
            .collect();
        stage.env.patch(&path, Value::Array(change)).await.map(drop)
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let revision = request.uri().path().trim_matches('/').to_owned();
    let review: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes())?;
    let asked = &review["request"];
    let mut response = json!({"uid": asked["uid"], "allowed": true});
    // `nobody` lets every pod through as it is.
    if revision != "nobody" {
        let annotations = match asked["object"]["metadata"]["annotations"].clone() {
            Value::Object(map) => map,
            _ => serde_json::Map::new(),
        };
        let mut annotations = Value::Object(annotations);
        annotations["istio.io/rev"] = json!(revision);
        annotations["sidecar.istio.io/status"] = json!(json!({"revision": revision}).to_string());
        let image = format!("docker.io/istio/proxyv2:{}.1", revision.replace('-', "."));
        let host = format!("istiod-{revision}.istio-system.svc:15012");
        let env = json!([{"name": "CA_ADDR", "value": host}, {"name": "PROXY_CONFIG", "value": json!({"discoveryAddress": host}).to_string()}]);
        let patch = json!([
            {"op": "add", "path": "/metadata/annotations", "value": annotations},
            {"op": "replace", "path": "/spec/containers/0/image", "value": image},
            {"op": "add", "path": "/spec/containers/0/env", "value": env},
        ]);
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(STANDARD.encode(patch.to_string()));
    }
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    let answer = Response::builder().header(http::header::CONTENT_TYPE, "application/json");
    Ok(answer.body(Full::from(review.to_string()))?)
}

async fn the_injector_is_asked_before_anything_is_made() -> Result<()> {
    let world = Arc::new(World::start().await?);
    let injectors = Injectors::start().await?;
    injectors.lead(&world, "1-23", "1-23").await?;
    injectors.lead(&world, "1-24", "1-23").await?;
    let stage = Stage::with(world, "injected", GATEWAY).await?;
    let controller = stage.world.controller(&[]).await?;
    let watch = Watch::start(&stage);
    stage.begin(json!({"toVersion": "1.24.1"})).await?;
    // What should be 1-24 is 1-23: only a pod that is really made, or as good as, shows it.
    let held = stage
        .until("a refusal", |r| {
            condition(r, "PreflightPassed") == "False"
                && r["status"].to_string().contains("injected by revision 1-23, not 1-24")
        })
        .await?;
    ensure!(held["status"]["phase"] == "Preflight", "{held}");
    injectors.lead(&stage.world, "1-24", "nobody").await?;
    stage.until("another", |r| r["status"].to_string().contains("its image is still the word auto")).await?;
    ensure!(stage.is_gone(&stage.deployment(CANARY)).await?, "something was made");
    injectors.lead(&stage.world, "1-24", "1-24").await?;
    let done = stage.phase("Completed").await?;
    let seen = watch.end().await?;
    ensure!(seen.fewest >= Some(2), "{seen:?}");
    ensure!(done["status"]["flavor"] == "Injected", "{done}");
    ensure!(stage.is_gone(&stage.core("configmaps", "istio-1-24")).await?, "an injected gateway needs no copy");
    // Old pods may still finish what they have.
    stage.until("no pod set apart", |r| r["status"]["apart"].is_null()).await?;
    let pods = stage.get(&stage.core("pods", "")).await?;
    let images: Vec<&str> = pods["items"]
        .as_array()
        .context("items")?
        .iter()
        .filter_map(|p| p["spec"]["containers"][0]["image"].as_str())
        .collect();
    ensure!(images == ["docker.io/istio/proxyv2:1.24.1"; 2], "{images:?}");
    drop(controller);
    Ok(())
}
