//! One question to one pod, by its own address: a connection, an HTTP request, within a time and a size.
//!
//! No proxy, no Service and no name server stands between; whether a certificate is good is not asked, because the pod is known by its
//! address and the question is whether it answers, not who it is. One connection a question, closed afterwards: nothing of
//! ours stays open on a pod whose connections are counted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What is asked of a pod.
pub struct Ask<'a> {
    pub to: SocketAddr,
    /// Host header, and SNI with TLS.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    pub tls: bool,
    /// More of a body is not read: an error.
    pub most_bytes: usize,
    /// A bearer token.
    pub token: Option<&'a str>,
}

/// What it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("no connection: {0}")]
    Unreachable(String),
    #[error("no answer within {} s", .0.as_secs_f32())]
    Late(Duration),
    /// It speaks, and not as it should.
    #[error("{0}")]
    Unusable(String),
}

/// Address and number of a port of a pod's containers, by its name.
pub fn address(pod: &Value, port: &str) -> Option<(IpAddr, Option<u16>)> {
    let ip = pod["status"]["podIP"].as_str()?.parse().ok()?;
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.filter_map(|c| c["ports"].as_array()).flatten();
    let found = ports.find(|p| p["name"] == port).and_then(|p| p["containerPort"].as_u64());
    Some((ip, found.and_then(|p| u16::try_from(p).ok())))
}

/// Whether somebody accepts connections there.
///
/// # Errors
/// Nobody does, or not in time.
pub async fn connects(ip: IpAddr, port: u16, patience: Duration) -> Result<(), AskError> {
    match tokio::time::timeout(patience, TcpStream::connect((ip, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(AskError::Unreachable(error.to_string())),
        Err(_) => Err(AskError::Late(patience)),
    }
}

/// A GET, and its answer whatever its status.
///
/// # Errors
/// No answer in time, or none that is HTTP.
pub async fn get(ask: &Ask<'_>, patience: Duration) -> Result<Said, AskError> {
    let exchange = async {
        let stream = TcpStream::connect(ask.to).await.map_err(|e| AskError::Unreachable(e.to_string()))?;
        let _ = stream.set_nodelay(true);
        if !ask.tls {
            return over(stream, ask).await;
        }
        // A host that is no name (an address) sends no SNI.
        let name = ServerName::try_from(ask.host.to_owned()).unwrap_or_else(|_| ask.to.ip().into());
        let connector = TlsConnector::from(trusting()?);
        let stream = connector.connect(name, stream).await;
        over(stream.map_err(|e| AskError::Unusable(format!("TLS: {e}")))?, ask).await
    };
    tokio::time::timeout(patience, exchange).await.unwrap_or(Err(AskError::Late(patience)))
}

fn unusable(error: impl std::fmt::Display) -> AskError {
    AskError::Unusable(error.to_string())
}

async fn over(stream: impl AsyncRead + AsyncWrite + Unpin, ask: &Ask<'_>) -> Result<Said, AskError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unusable)?;
    let mut request = http::Request::get(ask.path).header(HOST, ask.host).header(CONNECTION, "close");
    if let Some(token) = ask.token {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(unusable)?;
        bearer.set_sensitive(true);
        request = request.header(AUTHORIZATION, bearer);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(unusable)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(unusable)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ask.most_bytes).collect().await.map_err(unusable)?;
        Ok(Said { status, body: body.to_bytes().to_vec() })
    };
    // It ends before the exchange does where the pod closes; what it has read by then is the exchange's.
    let driver = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        said = exchange => said,
        () = driver => unreachable!("it is pending"),
    }
}

/// TLS without a question about the certificate.
fn trusting() -> Result<Arc<ClientConfig>, AskError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Takes any certificate, and still checks that whoever shows it has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    /// Answers each connection with these bytes, and gives back what was asked.
    async fn answering(answer: &'static [u8], tls: Option<Arc<rustls::ServerConfig>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        None => speak(stream, answer).await,
                        Some(config) => {
                            let stream = tokio_rustls::TlsAcceptor::from(config).accept(stream).await.unwrap();
                            let sni = stream.get_ref().1.server_name().unwrap_or("").to_owned();
                            assert_eq!(sni, "shop.example.com");
                            speak(stream, answer).await;
                        }
                    }
                });
            }
        });
        at
    }

    async fn speak(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
        let mut asked = [0; 1024];
        let n = stream.read(&mut asked).await.unwrap();
        assert!(String::from_utf8_lossy(&asked[..n]).contains("host: shop.example.com"));
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
    }

    fn ask(to: SocketAddr, tls: bool) -> Ask<'static> {
        Ask { to, host: "shop.example.com", path: "/healthz", tls, most_bytes: 100, token: None }
    }

    #[tokio::test]
    async fn any_status_is_an_answer_and_its_end_may_be_the_connections() {
        let at = answering(b"HTTP/1.1 503 no\r\n\r\nuntil the end", None).await;
        let said = get(&ask(at, false), SOON).await;
        assert_eq!(said, Ok(Said { status: 503, body: b"until the end".to_vec() }));
        assert_eq!(connects(at.ip(), at.port(), SOON).await, Ok(()));
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_signed_will_do_and_the_name_is_sent() {
        crate::cluster::install_crypto();
        let made = rcgen::generate_simple_self_signed(vec!["somebody.else".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let at = answering(b"HTTP/1.1 204 fine\r\n\r\n", Some(Arc::new(config))).await;
        assert_eq!(get(&ask(at, true), SOON).await.map(|s| s.status), Ok(204));
    }

    #[tokio::test]
    async fn too_much_nothing_and_nonsense_are_errors() {
        let long: &[u8] = Box::leak([b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 101]].concat().into_boxed_slice());
        assert!(get(&ask(answering(long, None).await, false), SOON).await.is_err());
        assert!(get(&ask(answering(b"220 mail ready\r\n", None).await, false), SOON).await.is_err());
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(connects(closed.ip(), closed.port(), SOON).await.unwrap_err().to_string().contains("refused"));
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let said = get(&ask(silent.local_addr().unwrap(), false), Duration::from_millis(50)).await;
        assert_eq!(said.unwrap_err().to_string(), "no answer within 0.05 s");
    }
}
