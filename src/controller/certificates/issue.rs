//! Makes certificate authorities and serving certificates. Keys exist here and in the Secret that they are written to,
//! nowhere else.

use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::pem::Chain;

/// A certificate and its key in PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// An API server whose clock runs behind must not see a certificate from the future.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A new CA. Its name holds the time, so that two of them are told apart by whoever reads a bundle.
///
/// # Errors
/// What the library says; nothing here depends on input.
pub fn authority(now: Timestamp, valid: SignedDuration) -> Result<Pair, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("revguard CA {}", now.strftime("%Y-%m-%dT%H:%M:%SZ")));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    limit(&mut params, now, valid, None);
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// A serving certificate for these names; it never outlasts its CA.
///
/// # Errors
/// A name that is none, or a CA that cannot be read.
pub fn leaf(
    ca: &Pair,
    until: Timestamp,
    names: &[String],
    (now, valid): (Timestamp, SignedDuration),
) -> Result<Pair, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, "revguard");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    limit(&mut params, now, valid, Some(until));
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

/// Whether a certificate with this name is one in which a client finds it. One that is not would be signed again and again.
#[must_use]
pub fn carries(name: &str, now: Timestamp) -> bool {
    let (names, life) = ([name.to_owned()], SignedDuration::from_hours(1));
    let pair = authority(now, life).and_then(|ca| leaf(&ca, now + life, &names, (now, life)));
    let chain = pair.as_ref().ok().and_then(|pair| Some((Chain::read(pair.certificate.as_bytes())?, pair)));
    chain.is_some_and(|(chain, pair)| chain.fits(&names, pair.key.as_bytes()))
}

fn limit(params: &mut CertificateParams, now: Timestamp, valid: SignedDuration, most: Option<Timestamp>) {
    // Of a short life the allowance may not be a large part, or two thirds of it would be over at once.
    let from = now - SKEW.min(valid / 20);
    let until = now + valid;
    params.not_before = system(from).into();
    params.not_after = system(most.map_or(until, |most| until.min(most))).into();
}

fn system(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::certificates::pem::cas;

    #[test]
    fn a_ca_that_is_valid_for_ever_is_a_ca() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(9999, 12, 31) + Duration::from_secs(86_399);
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        assert_eq!(cas(pem.as_bytes()).first().map(|ca| ca.until.as_second()), Some(Timestamp::MAX.as_second()));
    }

    #[test]
    fn a_leaf_verifies_against_its_ca_and_no_other_and_never_outlasts_it() {
        let now: Timestamp = "2026-11-21T06:00:00Z".parse().unwrap();
        let (day, year) = (SignedDuration::from_hours(24), SignedDuration::from_hours(8760));
        let names = vec!["revguard-webhook.guard.svc".to_owned(), "127.0.0.1".to_owned()];
        let (one, two) = (authority(now, day).unwrap(), authority(now, year).unwrap());
        let known: Vec<_> = [&two, &one].iter().flat_map(|pair| cas(pair.certificate.as_bytes())).collect();
        assert_eq!(known.len(), 2);
        let pair = leaf(&one, known[1].until, &names, (now, year)).unwrap();
        let chain = Chain::read(pair.certificate.as_bytes()).unwrap();
        assert_eq!(chain.signed_by(&known, now), Some(known[1].id.clone()));
        assert_eq!(chain.signed_by(&known, now + day * 2), None, "expired");
        assert_eq!(chain.validity().unwrap().1, known[1].until);
        assert!(chain.fits(&names, pair.key.as_bytes()));
        assert!(!chain.fits(&names, one.key.as_bytes()), "another's key");
        assert!(!chain.fits(&["elsewhere.svc".to_owned()], pair.key.as_bytes()), "a name that is not in it");
        // A leaf is no CA, and what is written is what is read.
        assert!(cas(pair.certificate.as_bytes()).is_empty());
        assert_eq!(cas(known[0].id.as_bytes())[0], known[0]);
    }
}
