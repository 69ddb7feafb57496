//! Which certificate each replica of the webhook serves, by asking: a handshake tells what no Secret and no status can.
//!
//! Nothing is sent to whoever answers. The handshake is completed all the same, because one that fails would be counted
//! there as a client that does not trust the certificate.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use tokio::net::TcpStream;

use super::pem::Chain;
use crate::controller::ask::address;

/// A pod in the same cluster answers within milliseconds; one that is being started or ended may not answer at all.
const PATIENCE: Duration = Duration::from_secs(3);

/// The name of the container port.
const PORT: &str = "https";
const DEFAULT_PORT: u16 = 8443;

/// A pod of the webhook, and what it serves or why that is not known.
pub struct Asked {
    pub name: String,
    pub serves: Result<Chain, String>,
}

/// Asks every pod of a list that may serve.
pub async fn ask(pods: &Value) -> Vec<Asked> {
    let pods = pods["items"].as_array().into_iter().flatten().filter(|pod| may_serve(pod));
    join_all(pods.map(|pod| async {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let serves = match address(pod, PORT) {
            Some((ip, port)) => served(SocketAddr::new(ip, port.unwrap_or(DEFAULT_PORT))).await,
            None => Err("it has no address yet".to_owned()),
        };
        Asked { name, serves }
    }))
    .await
}

/// One that has ended serves nobody.
fn may_serve(pod: &Value) -> bool {
    !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

async fn served(address: SocketAddr) -> Result<Chain, String> {
    let shown = Arc::new(Shown::default());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&shown) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let handshake = async {
        let stream = TcpStream::connect(address).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream).await
    };
    let outcome = tokio::time::timeout(PATIENCE, handshake).await;
    // The certificate comes before whatever may fail later, such as the want of a client certificate.
    if let Some(chain) = shown.0.lock().unwrap_or_else(|p| p.into_inner()).take().and_then(Chain::of) {
        return Ok(chain);
    }
    Err(match outcome {
        Ok(Ok(_)) => "it showed no certificate".to_owned(),
        Ok(Err(error)) => format!("{address}: {error}"),
        Err(_) => format!("{address} does not answer within {} s", PATIENCE.as_secs()),
    })
}

/// Keeps what it is shown and believes nobody: whether the certificate is good is the plan's question.
#[derive(Debug, Default)]
struct Shown(Mutex<Option<Vec<CertificateDer<'static>>>>);

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).map(|c| c.clone().into_owned()).collect();
        *self.0.lock().unwrap_or_else(|p| p.into_inner()) = Some(chain);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
