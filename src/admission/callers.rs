//! Who may call: the optional check of the API server's client certificate.
//!
//! Without it any pod that reaches the port can ask for verdicts, which tells it what is in the mesh. With it the
//! handshake ends before a byte of HTTP is read unless the client shows a certificate of the given authority that carries
//! one of the given names. The file is compared by content on a timer, as every other file is; one that cannot be used
//! keeps the authorities in force.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::telemetry::Heartbeat;

/// Why the authorities of clients cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CallersError {
    #[error("cannot read {path} (--client-ca): {source}. Is the file mounted there, and may this user read it?")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} (--client-ca) holds no usable PEM certificate: {why}. Give the CA that signs the API server's client certificate"
    )]
    Unusable { path: PathBuf, why: String },
}

/// Checks client certificates.
pub struct Callers {
    provider: Arc<CryptoProvider>,
    verifier: ArcSwap<Arc<dyn ClientCertVerifier>>,
    /// Empty: whoever has a certificate of the authority.
    names: BTreeSet<String>,
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callers").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Callers {
    /// Reads the authorities once; a bad file at start is an error. The returned [`Watch`] keeps them current.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn from_file(path: &Path, names: Vec<String>) -> Result<(Arc<Callers>, Watch), CallersError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pem = read(path)?;
        let verifier = ArcSwap::from_pointee(verifier(path, &pem, &provider)?);
        let callers = Arc::new(Callers { provider, verifier, names: names.into_iter().collect() });
        Ok((Arc::clone(&callers), Watch { callers, path: path.to_owned(), pem }))
    }

    fn names_match(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if self.names.is_empty() {
            return Ok(());
        }
        let shown = names(certificate)?;
        if shown.iter().any(|name| self.names.contains(name)) {
            return Ok(());
        }
        tracing::warn!(
            shown = shown.join(","),
            wanted = self.names.iter().cloned().collect::<Vec<_>>().join(","),
            "a client's certificate carries another name (--client-name)"
        );
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }
}

/// The common name and every DNS name of a certificate: an API server's client certificate often has no more than the first.
fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, rustls::Error> {
    let bad = |_| rustls::Error::from(rustls::CertificateError::BadEncoding);
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(bad)?;
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned);
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let others = alternative.into_iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    Ok(common.chain(others).collect())
}

impl ClientCertVerifier for Callers {
    /// None: a client picks its certificate by itself, and these could not change while we run.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.verifier.load().verify_client_cert(end_entity, intermediates, now)?;
        self.names_match(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.load().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.load().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.load().supported_verify_schemes()
    }
}

/// Keeps [`Callers`] equal to their file.
#[derive(Debug)]
pub struct Watch {
    callers: Arc<Callers>,
    path: PathBuf,
    pem: Vec<u8>,
}

impl Watch {
    /// Looks every `interval`, forever; run it as a task of its own.
    pub async fn run(mut self, interval: Duration, heartbeat: Heartbeat) {
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            heartbeat.beat();
            self.look();
        }
    }

    /// Reads the file and takes what is new. A file that is away for a moment is a symlink that is being swapped.
    fn look(&mut self) {
        let Ok(pem) = read(&self.path) else { return };
        if pem == self.pem {
            return;
        }
        match verifier(&self.path, &pem, &self.callers.provider) {
            Ok(verifier) => {
                self.callers.verifier.store(Arc::new(verifier));
                tracing::info!(file = %self.path.display(), "authorities of clients read again");
            }
            Err(error) => tracing::error!(%error, "the authorities of clients stay as they were"),
        }
        // Also a refused content is remembered, so that it is reported once.
        self.pem = pem;
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CallersError> {
    std::fs::read(path).map_err(|source| CallersError::Read { path: path.to_owned(), source })
}

fn verifier(
    path: &Path,
    pem: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, CallersError> {
    let bad = |why: String| CallersError::Unusable { path: path.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|e| bad(e.to_string()))?).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("no certificate in it".to_owned()));
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|e| bad(e.to_string()))
}
