//! A running server, and clients that behave and misbehave as the tests need.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use revguard::admission::bind::bind;
use revguard::admission::drain::Drained;
use revguard::admission::self_signed::Authority;
use revguard::admission::tls::Certificates;
use revguard::admission::{Endpoint, Reply, Reviewer, Serving, Settings, serve};
use revguard::telemetry::metrics::{Closed, Port};
use revguard::telemetry::{Condition, Health, Metrics};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const DAY: Duration = Duration::from_secs(86_400);
pub const JSON: &str = "application/json";

/// Long enough that a slow machine never meets it, short enough to end a hanging test.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Fails the test instead of hanging.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(WATCHDOG, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {WATCHDOG:?}"),
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A reviewer made of a function.
pub struct By<F>(pub F);

impl<F> Reviewer for By<F>
where
    F: Fn(Endpoint, &[u8]) -> Reply + Send + Sync + 'static,
{
    fn review(&self, endpoint: Endpoint, body: &[u8]) -> Reply {
        (self.0)(endpoint, body)
    }
}

pub fn ok(body: &[u8]) -> Reply {
    Reply { status: StatusCode::OK, body: body.to_vec(), retry_after: None }
}

/// Answers with what it was sent.
pub fn echo() -> Arc<dyn Reviewer> {
    Arc::new(By(|_, body: &[u8]| ok(body)))
}

/// A reviewer that stays in a review whose body is `wait` until it is let go.
#[derive(Clone, Default)]
pub struct Latch(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    inside: usize,
    open: bool,
}

impl Latch {
    pub fn reviewer(&self) -> Arc<dyn Reviewer> {
        let latch = self.clone();
        Arc::new(By(move |_, body: &[u8]| {
            if body == b"wait" {
                latch.wait();
            }
            ok(body)
        }))
    }

    fn wait(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.inside += 1;
        while !state.open {
            state = changed.wait(state).unwrap();
        }
        state.inside -= 1;
    }

    pub fn inside(&self) -> usize {
        self.0.0.lock().unwrap().inside
    }

    pub fn open(&self) {
        self.0.0.lock().unwrap().open = true;
        self.0.1.notify_all();
    }
}

/// A failed test must not leave worker threads waiting for ever.
pub struct OpenOnDrop(pub Latch);

impl Drop for OpenOnDrop {
    fn drop(&mut self) {
        self.0.open();
    }
}

pub struct Server {
    pub addr: SocketAddr,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub ca: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Drained>,
}

impl Server {
    pub fn start(settings: Settings, reviewer: Arc<dyn Reviewer>) -> Server {
        let authority = Authority::new(DAY).unwrap();
        let leaf = authority.leaf(&[], DAY).unwrap();
        let metrics = Arc::new(Metrics::new());
        let certificates = Certificates::in_memory(&leaf, &metrics).unwrap();
        Server::start_with(settings, reviewer, authority.pem(), (certificates, metrics))
    }

    pub fn start_with(
        settings: Settings,
        reviewer: Arc<dyn Reviewer>,
        ca: &str,
        (certificates, metrics): (Arc<Certificates>, Arc<Metrics>),
    ) -> Server {
        let health = Health::new(&[Condition::Listener, Condition::Certificate, Condition::Running]);
        let listener = bind("127.0.0.1:0".parse().unwrap(), "--listen").unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = Serving {
            settings,
            certificates,
            callers: None,
            reviewer,
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
        };
        let task = tokio::spawn(async move {
            serve(listener, serving, async {
                let _ = stopped.await;
            })
            .await
            .unwrap()
        });
        Server { addr, metrics, health, ca: ca.to_owned(), stop: Some(stop), task }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.addr, &self.ca).await.unwrap()
    }

    /// A TLS stream without HTTP, for those who write their own.
    pub async fn raw(&self) -> TlsStream<TcpStream> {
        tls(self.addr, &client_config(&self.ca, rustls::ALL_VERSIONS)).await.unwrap()
    }

    pub fn begin_shutdown(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    pub async fn drained(self) -> Drained {
        soon("drain", self.task).await.unwrap()
    }

    pub fn closed(&self, reason: Closed) -> u64 {
        self.metrics.connections_closed(Port::Admission, reason)
    }
}

pub fn client_config(ca: &str, versions: &[&'static rustls::SupportedProtocolVersion]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

pub async fn tls(addr: SocketAddr, config: &rustls::ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config.clone())).connect(ServerName::try_from("localhost").unwrap(), tcp).await
}

/// One keep-alive connection, as the API server pools them.
pub struct Client {
    send: SendRequest<Full<Bytes>>,
    /// The serial of the certificate that the server showed.
    pub serial: String,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

pub type Error = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    pub async fn connect(addr: SocketAddr, ca: &str) -> Result<Client, Error> {
        let stream = tls(addr, &client_config(ca, rustls::ALL_VERSIONS)).await?;
        Client::over(stream).await
    }

    pub async fn over(stream: TlsStream<TcpStream>) -> Result<Client, Error> {
        let serial = serial(&stream);
        let (send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Client { send, serial })
    }

    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Result<Answer, Error> {
        self.send(
            Request::post(path)
                .header("host", "revguard")
                .header("content-type", JSON)
                .body(Full::new(body.into()))
                .unwrap(),
        )
        .await
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        soon("an answer", async {
            self.send.ready().await?;
            read(self.send.send_request(request).await?).await
        })
        .await
    }
}

async fn read(response: Response<hyper::body::Incoming>) -> Result<Answer, Error> {
    let (parts, body) = response.into_parts();
    Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
}

fn serial(stream: &TlsStream<TcpStream>) -> String {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let leaf = &stream.get_ref().1.peer_certificates().unwrap()[0];
    X509Certificate::from_der(leaf).unwrap().1.raw_serial_as_string()
}
