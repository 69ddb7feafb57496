//! Certificates in PEM, reduced to what a plan needs: who signed what, from when until when.
//!
//! Whether one certificate verifies against another is asked of the library that real clients use, never told by names.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::plan::{Ca, Id};

/// The CAs in a bundle. What is no CA in it is left out: it verifies nothing.
pub fn cas(pem: &[u8]) -> Vec<Ca> {
    CertificateDer::pem_slice_iter(pem).filter_map(|der| ca(&der.ok()?)).collect()
}

fn ca(der: &CertificateDer<'_>) -> Option<Ca> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let (from, until) = validity(&certificate)?;
    let name = name.map_or_else(|| certificate.raw_serial_as_string(), str::to_owned);
    certificate.is_ca().then(|| Ca { id: id(der), name, from, until })
}

/// A certificate as the one PEM text that it has here, whatever it was read from.
pub fn id(der: &CertificateDer<'_>) -> Id {
    let text = STANDARD.encode(der);
    let mut pem = String::with_capacity(text.len() + text.len() / 64 + 64);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    Arc::from(pem)
}

fn validity(certificate: &X509Certificate<'_>) -> Option<(Timestamp, Timestamp)> {
    // "For ever" is written as the last second of the year 9999, which is beyond what a Timestamp can be.
    let at = |seconds: i64| Timestamp::from_second(seconds.min(Timestamp::MAX.as_second())).ok();
    let validity = certificate.validity();
    Some((at(validity.not_before.timestamp())?, at(validity.not_after.timestamp())?))
}

/// A chain as it is served.
pub struct Chain(Vec<CertificateDer<'static>>);

impl Chain {
    /// `None`: there is no certificate in it.
    pub fn read(pem: &[u8]) -> Option<Chain> {
        let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
        Chain::of(all)
    }

    pub fn of(chain: Vec<CertificateDer<'static>>) -> Option<Chain> {
        (!chain.is_empty()).then_some(Chain(chain))
    }

    /// The first of the chain.
    pub fn id(&self) -> Id {
        id(&self.0[0])
    }

    pub fn validity(&self) -> Option<(Timestamp, Timestamp)> {
        validity(&X509Certificate::from_der(&self.0[0]).ok()?.1)
    }

    /// The first of these CAs that it verifies against, as an API server would at this time.
    pub fn signed_by<'a>(&self, cas: impl IntoIterator<Item = &'a Ca>, now: Timestamp) -> Option<Id> {
        let leaf = ParsedCertificate::try_from(&self.0[0]).ok()?;
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
        cas.into_iter().find_map(|ca| {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(ca.id.as_bytes()).ok()?).ok()?;
            let verified =
                rustls::client::verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &self.0[1..], now, algorithms);
            verified.is_ok().then(|| ca.id.clone())
        })
    }

    /// It carries every one of these names, and this is its key.
    pub fn fits(&self, names: &[String], key: &[u8]) -> bool {
        let Ok(leaf) = ParsedCertificate::try_from(&self.0[0]) else { return false };
        let named = |name: &String| {
            ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(&leaf, &name).is_ok())
        };
        let Ok(key) = PrivateKeyDer::from_pem_slice(key) else { return false };
        let Ok(key) = rustls::crypto::ring::sign::any_supported_type(&key) else { return false };
        names.iter().all(named) && rustls::sign::CertifiedKey::new(self.0.clone(), key).keys_match().is_ok()
    }
}
