//! A certificate authority and a serving certificate made in memory, for `--self-signed` and
//! tests.
//!
//! The authority is separate from the leaf, as it is in a cluster: what a client trusts is the
//! CA's PEM, and a second leaf of the same CA is trusted too. The CA's key is dropped with the
//! [`Authority`]; nothing is ever written to a file here.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber,
};

/// The names that a self-signed certificate always carries.
pub const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A client whose clock runs behind must not see a certificate from the future.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a self-signed certificate for {names}: {source}. Give plain DNS names or IP addresses")]
pub struct SelfSignedError {
    names: String,
    source: rcgen::Error,
}

/// A certificate authority in memory.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A serving certificate in PEM, as it would stand in files.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate; no chain, the CA is what clients trust.
    pub cert_pem: String,
    /// Its private key, PKCS#8.
    pub key_pem: String,
}

impl Authority {
    /// Makes a CA that is valid for `valid` from now.
    pub fn new(valid: Duration) -> Result<Authority, SelfSignedError> {
        let failed = |source| SelfSignedError { names: "the CA".to_owned(), source };
        let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, "revguard self-signed CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        limit(&mut params, valid);
        let key = KeyPair::generate().map_err(failed)?;
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), pem })
    }

    /// What a client must trust, for example as `caBundle`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Makes a serving certificate for [`LOCAL_NAMES`] and `names`, valid for `valid` from now.
    pub fn leaf(&self, names: &[String], valid: Duration) -> Result<Leaf, SelfSignedError> {
        let names: Vec<String> =
            LOCAL_NAMES.iter().map(|name| (*name).to_owned()).chain(names.iter().cloned()).collect();
        let failed = |source| SelfSignedError { names: names.join(", "), source };
        let mut params = CertificateParams::new(names.clone()).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, "revguard");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        limit(&mut params, valid);
        let key = KeyPair::generate().map_err(failed)?;
        // The serial is a hash of the key unless set: with a fresh key each time it is unique.
        let serial: Vec<u8> = key.public_key_raw()[1..17]
            .iter()
            .enumerate()
            // Positive and at most 20 bytes, as RFC 5280 wants it.
            .map(|(i, byte)| if i == 0 { byte & 0x7f | 0x01 } else { *byte })
            .collect();
        params.serial_number = Some(SerialNumber::from(serial));
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Leaf { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

fn limit(params: &mut CertificateParams, valid: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + valid).into();
}
