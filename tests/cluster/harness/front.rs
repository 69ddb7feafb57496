//! A front before the API server that can be told to misbehave: answer every request with a status, or cut what is open.
//!
//! It speaks plain HTTP and passes requests on as one user, so that a program under test gets real answers until it gets
//! none. What an overloaded API server does cannot be provoked reliably by overloading one.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use anyhow::Result;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes requests on until it is dropped.
pub struct Front {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

struct State {
    client: Client,
    /// 0: passes on.
    status: AtomicU16,
    refused: AtomicU64,
    /// Connections end when it changes.
    cut: watch::Sender<u64>,
}

impl Front {
    /// `client` is who everybody behind it is.
    pub async fn start(client: Client) -> Result<Front> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = State { client, status: AtomicU16::new(0), refused: AtomicU64::new(0), cut: watch::Sender::new(0) };
        let state = Arc::new(state);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Front { address, state, accepting })
    }

    /// A kubeconfig that leads here.
    pub fn kubeconfig(&self, folder: &Path) -> Result<PathBuf> {
        let file = folder.join(format!("front-{}.kubeconfig", self.address.port()));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\n\
             users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
            self.address
        );
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// Every request is answered with this from now on, and what is open is cut.
    pub fn refuse(&self, status: u16) {
        self.state.status.store(status, Ordering::SeqCst);
        self.cut();
    }

    /// Requests are passed on again.
    pub fn pass(&self) {
        self.state.status.store(0, Ordering::SeqCst);
    }

    /// Ends every connection in the middle of whatever it carries.
    pub fn cut(&self) {
        self.state.cut.send_modify(|n| *n += 1);
    }

    /// How many requests were refused.
    pub fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::SeqCst)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let mut cut = state.cut.subscribe();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&state)));
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = serving => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Infallible> {
    let status = state.status.load(Ordering::SeqCst);
    if status != 0 {
        state.refused.fetch_add(1, Ordering::SeqCst);
        return Ok(plain(status, "the front was told to refuse"));
    }
    let (mut head, body) = request.into_parts();
    // The client behind has a host and a connection of its own.
    head.headers.remove(http::header::HOST);
    head.headers.remove(http::header::CONNECTION);
    let uri = head.uri.path_and_query().map_or("/", |p| p.as_str()).parse();
    head.uri = uri.unwrap_or_default();
    let body = match http_body_util::BodyExt::collect(body).await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(error) => return Ok(plain(400, &error.to_string())),
    };
    match state.client.send(Request::from_parts(head, Body::from(body))).await {
        Ok(mut response) => {
            // Frames are ours; what kube has unpacked is no longer what the header says.
            for name in [http::header::CONNECTION, http::header::TRANSFER_ENCODING, http::header::CONTENT_LENGTH] {
                response.headers_mut().remove(name);
            }
            Ok(response)
        }
        Err(error) => Ok(plain(502, &error.to_string())),
    }
}

fn plain(status: u16, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(text.as_bytes().to_vec()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    if status == 429 {
        response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    }
    response
}
