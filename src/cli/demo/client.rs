//! An HTTPS client that speaks to a webhook as the API server does: HTTP/1.1, kept alive, the CA pinned.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// One kept-alive connection.
pub struct Client {
    address: SocketAddr,
    tls: TlsConnector,
    sender: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// Trusts this CA and nothing else.
    ///
    /// # Errors
    /// A CA that is no PEM certificate.
    pub fn new(address: SocketAddr, ca_pem: &str) -> anyhow::Result<Self> {
        use rustls::pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Client { address, tls: TlsConnector::from(Arc::new(config)), sender: Mutex::new(None) })
    }

    /// Sends a review to `/validate` and reads the answer.
    ///
    /// # Errors
    /// A connection that fails, or an answer that is no AdmissionReview.
    pub async fn validate(&self, body: String) -> anyhow::Result<Value> {
        let mut kept = self.sender.lock().await;
        let mut sender = match kept.take().filter(|s| !s.is_closed()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let request = http::Request::post("/validate?timeout=5s")
            .header(http::header::HOST, "localhost")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(
            status == http::StatusCode::OK,
            "the webhook answered {status}: {}",
            String::from_utf8_lossy(&bytes)
        );
        *kept = Some(sender);
        Ok(serde_json::from_slice(&bytes)?)
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let tls = self.tls.connect(ServerName::try_from("localhost")?, tcp).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(async move {
            // An error here ends the connection, and the next request reports that.
            let _ = connection.await;
        });
        Ok(sender)
    }
}
