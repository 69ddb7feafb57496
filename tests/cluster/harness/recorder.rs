//! A webhook that writes down who called it and allows everything.
//!
//! Its paths mean nothing to it: a test gives every webhook a path of its own and reads off the record
//! which of them the API server called, in which order. It never changes an object.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::pki::{Authority, server_config};

/// The API server keeps an idle connection for 90 s; closing it earlier could lose a call.
const IDLE: Duration = Duration::from_secs(120);

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The path without its leading slash.
    pub hook: String,
    /// `request` of the AdmissionReview.
    pub request: Value,
}

impl Call {
    /// A string of the request by its JSON pointer, empty if there is none.
    pub fn text(&self, pointer: &str) -> &str {
        let found = self.request.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default()
    }
}

/// A running recorder; dropping it closes its port and connections.
pub struct Recorder {
    address: SocketAddr,
    authority: Authority,
    calls: Arc<Mutex<Vec<Call>>>,
    accepting: JoinHandle<()>,
}

impl Recorder {
    pub async fn start() -> Result<Recorder> {
        let authority = Authority::new("recorder")?;
        let acceptor = TlsAcceptor::from(server_config(&authority.server(&["127.0.0.1"])?)?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let calls = Arc::default();
        let accepting = tokio::spawn(accept(listener, acceptor, Arc::clone(&calls)));
        Ok(Recorder { address, authority, calls, accepting })
    }

    /// `https://127.0.0.1:PORT/HOOK`
    pub fn url(&self, hook: &str) -> String {
        format!("https://{}/{hook}", self.address)
    }

    /// What signs this server's certificate, PEM.
    pub fn ca(&self) -> &str {
        self.authority.pem()
    }

    /// The calls so far, in the order of their arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("the record").clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, calls: Arc<Mutex<Vec<Call>>>) {
    // Dropped, and with it every connection, when `accepting` is aborted.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let (acceptor, calls) = (acceptor.clone(), Arc::clone(&calls));
                    connections.spawn(async move {
                        // A failed handshake or a cut connection is the caller's to report.
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let service = service_fn(move |request| answer(request, Arc::clone(&calls)));
                        let _ = hyper::server::conn::http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(IDLE)
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(request: Request<Incoming>, calls: Arc<Mutex<Vec<Call>>>) -> Result<Response<Full<Bytes>>> {
    let hook = request.uri().path().trim_start_matches('/').to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let reply = record(hook, &body, &calls);
    let (status, body) = match reply {
        Ok(review) => (StatusCode::OK, review.to_string()),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error:#}")),
    };
    Ok(Response::builder()
        .status(status)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::from(body))?)
}

fn record(hook: String, body: &[u8], calls: &Mutex<Vec<Call>>) -> Result<Value> {
    let mut review: Value = serde_json::from_slice(body)?;
    let request = review["request"].take();
    let uid = request["uid"].as_str().context("a review without a uid")?;
    let reply = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": uid, "allowed": true},
    });
    // Before the answer, so that whoever has seen the request answered finds the call.
    calls.lock().expect("the record").push(Call { hook, request });
    Ok(reply)
}
