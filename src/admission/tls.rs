//! The serving certificate: where it comes from, how a new one is taken into use, and the TLS
//! configuration that serves it.
//!
//! Files are compared by content on a timer. Watching them with inotify misses updates of a
//! mounted Secret, because the kubelet swaps the `..data` symlink and the watched file never
//! changes. A pair that cannot be used (half written, key of another certificate) is reported
//! once and the certificate in use stays: a webhook with an old certificate works, one without a
//! certificate takes the cluster's writes with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::callers::Callers;
use super::self_signed::Leaf;
use crate::telemetry::{Heartbeat, Metrics};

/// How often files are read again unless told otherwise. The kubelet itself takes up to a minute
/// to bring a changed Secret, so 2 s adds nothing that anybody notices.
pub const POLL: Duration = Duration::from_secs(2);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The Secret does not hold a pair.
    #[error("Secret {name} {lacks}: {fix}")]
    Secret {
        /// Namespace and name.
        name: String,
        /// What is missing of it.
        lacks: &'static str,
        /// Who writes it.
        fix: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path} ({flag}): {source}. Is the Secret mounted there, and may this user read it?")]
    Read {
        /// The flag that named the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate file holds no PEM certificate.
    #[error(
        "{origin} holds no usable PEM certificate: {why}. It must start with -----BEGIN CERTIFICATE-----, the serving certificate first"
    )]
    Certificate {
        /// The file, or "the certificate made in memory".
        origin: String,
        /// What is wrong.
        why: String,
    },
    /// The key file holds no PEM private key.
    #[error(
        "{origin} holds no usable PEM private key: {why}. PKCS#8, PKCS#1 and SEC1 keys are read; encrypted ones are not"
    )]
    Key {
        /// The file, or "the key made in memory".
        origin: String,
        /// What is wrong.
        why: String,
    },
    /// Both can be read and do not belong together.
    #[error(
        "the private key in {key} does not belong to the certificate in {cert}: {why}. If both are being replaced right now, this passes by itself"
    )]
    Mismatch {
        /// The certificate's origin.
        cert: String,
        /// The key's origin.
        key: String,
        /// What rustls said.
        why: String,
    },
}

/// Where the pair is read from.
#[derive(Clone, Debug)]
pub struct Files {
    /// `--tls-cert`: PEM, the serving certificate first, then its chain.
    pub cert: PathBuf,
    /// `--tls-key`: PEM.
    pub key: PathBuf,
}

/// A pair in PEM as its source holds it. Compared whole: a few kB, and no hash can collide.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    pub cert: Vec<u8>,
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key.
        f.debug_struct("Content").field("cert_bytes", &self.cert.len()).finish_non_exhaustive()
    }
}

/// What an operator wants to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Expiry, in seconds since 1970.
    pub not_after: i64,
    /// The serial number as openssl prints it.
    pub serial: String,
    /// Whether it has a subjectAltName; kube-apiserver refuses one without.
    pub has_names: bool,
}

struct Current {
    key: Arc<CertifiedKey>,
    facts: Facts,
}

/// The certificate in use, once there is one. Handshakes read it without a lock; running connections keep theirs.
pub struct Certificates {
    provider: Arc<CryptoProvider>,
    current: ArcSwapOption<Current>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key.
        f.debug_struct("Certificates").field("facts", &self.facts()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // One certificate for every name: the API server's SNI is `<service>.<namespace>.svc`, a
        // webhook by URL sends another or none, and checking the name is the client's part.
        self.current.load().as_ref().map(|current| Arc::clone(&current.key))
    }
}

impl Certificates {
    /// Serves nothing yet: handshakes fail until [`Keeper::offer`] has taken a pair.
    pub fn empty() -> Arc<Certificates> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Arc::new(Certificates { provider, current: ArcSwapOption::empty() })
    }

    /// Serves a certificate made in memory; it never changes.
    pub fn in_memory(leaf: &Leaf, metrics: &Metrics) -> Result<Arc<Certificates>, CertificateError> {
        let content = Content { cert: leaf.cert_pem.clone().into_bytes(), key: leaf.key_pem.clone().into_bytes() };
        let certificates = Certificates::empty();
        certificates.serve(&content, ("the certificate made in memory", "the key made in memory"), metrics)?;
        Ok(certificates)
    }

    /// Reads the files once; an unusable pair at start is an error. The returned [`Watch`] keeps
    /// them current.
    pub fn from_files(files: Files, metrics: Arc<Metrics>) -> Result<(Arc<Certificates>, Watch), CertificateError> {
        let content = read(&files)?;
        let certificates = Certificates::empty();
        let origin = [shown(&files.cert), shown(&files.key)];
        certificates.serve(&content, (&origin[0], &origin[1]), &metrics)?;
        let keeper =
            Keeper { certificates: Arc::clone(&certificates), origin, served: Some(content), refused: None, metrics };
        Ok((certificates, Watch { keeper, files }))
    }

    fn serve(&self, content: &Content, origin: (&str, &str), metrics: &Metrics) -> Result<(), CertificateError> {
        let current = parse(content, origin, &self.provider)?;
        announce(&current.facts, origin.0);
        metrics.certificate(current.facts.not_after);
        self.current.store(Some(Arc::new(current)));
        Ok(())
    }

    /// Facts of the certificate in use; `None` while there is none.
    pub fn facts(&self) -> Option<Facts> {
        self.current.load().as_ref().map(|current| current.facts.clone())
    }

    /// The TLS configuration: versions 1.2 and 1.3, HTTP/1.1 only, this certificate, and a client certificate if
    /// `callers` asks for one.
    pub fn server_config(
        self: &Arc<Self>,
        callers: Option<&Arc<Callers>>,
    ) -> Result<rustls::ServerConfig, rustls::Error> {
        // The provider is given, not taken from the process: with two compiled in, the default
        // builder panics.
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = match callers {
            Some(callers) => builder.with_client_cert_verifier(Arc::clone(callers) as Arc<dyn ClientCertVerifier>),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        // The API server speaks HTTP/1.1 to webhooks, whatever is offered.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // The API server's transport never resumes a session; tickets would only be sent, kept
        // and outlive a rotated certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// Takes pairs into use as their source offers them. One that cannot be used is reported once and counted, and the old
/// one stays.
pub struct Keeper {
    certificates: Arc<Certificates>,
    /// What the certificate and the key are called in a message.
    origin: [String; 2],
    served: Option<Content>,
    /// The last content that could not be used (`None` for a source that could not be read) and why:
    /// each is reported once.
    refused: Option<(Option<Content>, String)>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// What one look at the source came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// It holds what is served.
    Same,
    /// A new certificate is served from now on.
    Taken,
    /// It holds something unusable, reported now or earlier; the old certificate stays.
    Refused,
}

impl Keeper {
    /// For a source that has nothing yet.
    pub fn new(certificates: Arc<Certificates>, origin: [String; 2], metrics: Arc<Metrics>) -> Keeper {
        Keeper { certificates, origin, served: None, refused: None, metrics }
    }

    /// A pair is served.
    pub fn serves(&self) -> bool {
        self.served.is_some()
    }

    /// Takes what is new.
    ///
    /// # Errors
    /// Why it cannot be used, when it is said for the first time.
    pub fn offer(&mut self, content: Result<Content, CertificateError>) -> Result<Look, CertificateError> {
        let content = match content {
            Ok(content) => content,
            Err(error) => return self.refuse(None, error),
        };
        if self.served.as_ref() == Some(&content) {
            if self.refused.take().is_some() {
                self.metrics.certificate_restored();
            }
            return Ok(Look::Same);
        }
        if self.refused.as_ref().is_some_and(|(refused, _)| refused.as_ref() == Some(&content)) {
            return Ok(Look::Refused);
        }
        match self.certificates.serve(&content, (&self.origin[0], &self.origin[1]), &self.metrics) {
            Ok(()) => {
                // The first pair is no change of one.
                if self.served.is_some() {
                    self.metrics.certificate_reloaded();
                }
                self.served = Some(content);
                self.refused = None;
                Ok(Look::Taken)
            }
            Err(error) => self.refuse(Some(content), error),
        }
    }

    fn refuse(&mut self, content: Option<Content>, error: CertificateError) -> Result<Look, CertificateError> {
        let refused = Some((content, error.to_string()));
        if self.refused == refused {
            return Ok(Look::Refused);
        }
        // That there is nothing yet is how every installation begins.
        if self.served.is_some() || refused.as_ref().is_some_and(|(content, _)| content.is_some()) {
            self.metrics.certificate_refused();
        }
        self.refused = refused;
        Err(error)
    }
}

/// Keeps [`Certificates`] equal to their files.
#[derive(Debug)]
pub struct Watch {
    keeper: Keeper,
    files: Files,
}

impl Watch {
    /// Looks every `interval`, forever; run it as a task of its own.
    pub async fn run(mut self, interval: Duration, heartbeat: Heartbeat) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            heartbeat.beat();
            // Two files of a few kB, on a memory-backed mount: not worth a blocking thread.
            self.look();
        }
    }

    /// Reads the files and takes what is new.
    pub fn look(&mut self) -> Look {
        self.keeper.offer(read(&self.files)).unwrap_or_else(|error| {
            tracing::error!(%error, "certificate files cannot be used, the old certificate stays");
            Look::Refused
        })
    }
}

/// Reads both files as of one moment: if the certificate changed while the key was read, the
/// symlink was swapped in between and the pair is torn.
fn read(files: &Files) -> Result<Content, CertificateError> {
    let mut cert = read_one("--tls-cert", &files.cert)?;
    // A swap takes microseconds and comes once in weeks; after three torn reads in a row the
    // pair is judged as it is.
    for _ in 0..3 {
        let key = read_one("--tls-key", &files.key)?;
        let again = read_one("--tls-cert", &files.cert)?;
        if again == cert {
            return Ok(Content { cert, key });
        }
        cert = again;
    }
    let key = read_one("--tls-key", &files.key)?;
    Ok(Content { cert, key })
}

fn read_one(flag: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Read { flag, path: path.to_owned(), source })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn parse(
    content: &Content,
    (cert_origin, key_origin): (&str, &str),
    provider: &CryptoProvider,
) -> Result<Current, CertificateError> {
    let bad_cert = |why: String| CertificateError::Certificate { origin: cert_origin.to_owned(), why };
    let bad_key = |why: String| CertificateError::Key { origin: key_origin.to_owned(), why };
    let chain = CertificateDer::pem_slice_iter(&content.cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad_cert(error.to_string()))?;
    let leaf = chain.first().ok_or_else(|| bad_cert("no certificate in it".to_owned()))?;
    let facts = facts(leaf).map_err(bad_cert)?;
    let key = PrivateKeyDer::from_pem_slice(&content.key).map_err(|error| bad_key(error.to_string()))?;
    let signing = provider.key_provider.load_private_key(key).map_err(|error| bad_key(error.to_string()))?;
    let pair = CertifiedKey::new(chain, signing);
    // ring knows the public key of every kind of key it loads, so `Unknown` cannot happen; if it
    // ever does, serving an unchecked pair would be worse than keeping the old one.
    pair.keys_match().map_err(|error| CertificateError::Mismatch {
        cert: cert_origin.to_owned(),
        key: key_origin.to_owned(),
        why: error.to_string(),
    })?;
    Ok(Current { key: Arc::new(pair), facts })
}

fn facts(leaf: &CertificateDer<'_>) -> Result<Facts, String> {
    let (_, cert) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    Ok(Facts {
        not_after: cert.validity().not_after.timestamp(),
        serial: cert.raw_serial_as_string(),
        has_names: matches!(cert.subject_alternative_name(), Ok(Some(_))),
    })
}

fn announce(facts: &Facts, origin: &str) {
    tracing::info!(serial = facts.serial, not_after = facts.not_after, origin, "serving certificate loaded");
    if !facts.has_names {
        tracing::warn!(origin, "the certificate has no subjectAltName: kube-apiserver will refuse it");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if i64::try_from(now).is_ok_and(|now| facts.not_after <= now) {
        tracing::warn!(
            origin,
            not_after = facts.not_after,
            "the certificate has expired: kube-apiserver will refuse it"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::admission::self_signed::Authority;

    const DAY: Duration = Duration::from_secs(86_400);

    struct Mount {
        dir: tempfile::TempDir,
        generation: u32,
    }

    /// A directory as the kubelet makes it: files are symlinks into `..data`, which is itself a
    /// symlink that is renamed over.
    impl Mount {
        fn new(leaf: &Leaf) -> Mount {
            let mut mount = Mount { dir: tempfile::tempdir().unwrap(), generation: 0 };
            mount.swap(&leaf.cert_pem, &leaf.key_pem);
            for name in ["tls.crt", "tls.key"] {
                std::os::unix::fs::symlink(format!("..data/{name}"), mount.dir.path().join(name)).unwrap();
            }
            mount
        }

        fn swap(&mut self, cert: &str, key: &str) {
            self.generation += 1;
            let root = self.dir.path();
            let version = format!("..{}", self.generation);
            fs::create_dir(root.join(&version)).unwrap();
            fs::write(root.join(&version).join("tls.crt"), cert).unwrap();
            fs::write(root.join(&version).join("tls.key"), key).unwrap();
            std::os::unix::fs::symlink(&version, root.join("..data_tmp")).unwrap();
            fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
            let old = root.join(format!("..{}", self.generation - 1));
            if old.exists() {
                fs::remove_dir_all(old).unwrap();
            }
        }

        fn files(&self) -> Files {
            Files { cert: self.dir.path().join("tls.crt"), key: self.dir.path().join("tls.key") }
        }
    }

    fn leaf() -> Leaf {
        Authority::new(DAY).unwrap().leaf(&[], DAY).unwrap()
    }

    #[test]
    fn a_symlink_swap_is_noticed_twice_in_a_row() {
        let metrics = Arc::new(Metrics::new());
        let mut mount = Mount::new(&leaf());
        let (certificates, mut watch) = Certificates::from_files(mount.files(), Arc::clone(&metrics)).unwrap();
        let mut seen = vec![certificates.facts().unwrap().serial];
        assert_eq!(watch.look(), Look::Same);
        for _ in 0..2 {
            let next = leaf();
            mount.swap(&next.cert_pem, &next.key_pem);
            assert_eq!(watch.look(), Look::Taken);
            seen.push(certificates.facts().unwrap().serial);
            assert_eq!(watch.look(), Look::Same);
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3, "three serials were served: {seen:?}");
        assert_eq!(metrics.certificate_reloads(), 2);
        assert_eq!(metrics.certificate_errors(), 0);
    }

    #[test]
    fn a_foreign_key_keeps_the_old_certificate_and_is_reported_once() {
        let metrics = Arc::new(Metrics::new());
        let first = leaf();
        let mut mount = Mount::new(&first);
        let (certificates, mut watch) = Certificates::from_files(mount.files(), Arc::clone(&metrics)).unwrap();
        let served = certificates.facts().unwrap();

        mount.swap(&leaf().cert_pem, &leaf().key_pem);
        for _ in 0..3 {
            assert_eq!(watch.look(), Look::Refused);
        }
        assert_eq!(certificates.facts().unwrap(), served);
        assert_eq!(metrics.certificate_errors(), 1);
        assert!(metrics.text().contains("revguard_certificate_last_reload_success 0"));

        // Something else that is bad is something else to report.
        mount.swap("-----BEGIN CERTIFICATE-----\nAAAA", &first.key_pem);
        assert_eq!(watch.look(), Look::Refused);
        assert_eq!(metrics.certificate_errors(), 2);
        fs::remove_file(mount.files().key).unwrap();
        assert_eq!(watch.look(), Look::Refused);
        assert_eq!(watch.look(), Look::Refused);
        assert_eq!(metrics.certificate_errors(), 3);
        std::os::unix::fs::symlink("..data/tls.key", mount.files().key).unwrap();

        // Back to what is served: nothing is reloaded, and the alarm ends.
        mount.swap(&first.cert_pem, &first.key_pem);
        assert_eq!(watch.look(), Look::Same);
        assert_eq!(metrics.certificate_reloads(), 0);
        assert!(metrics.text().contains("revguard_certificate_last_reload_success 1"));
    }

    #[test]
    fn an_unusable_pair_at_start_says_which_file_and_why() {
        let good = leaf();
        let other = leaf();
        for (cert, key, says) in [
            ("", &*good.key_pem, "tls.crt holds no usable PEM certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &*good.key_pem,
                "tls.crt holds no usable PEM certificate",
            ),
            (&*good.cert_pem, "", "tls.key holds no usable PEM private key"),
            (&*good.cert_pem, &*other.key_pem, "does not belong to the certificate"),
        ] {
            let mut mount = Mount::new(&good);
            mount.swap(cert, key);
            let error = Certificates::from_files(mount.files(), Arc::new(Metrics::new())).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let nowhere = Files { cert: "/nonexistent/tls.crt".into(), key: "/nonexistent/tls.key".into() };
        let error = Certificates::from_files(nowhere, Arc::new(Metrics::new())).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/tls.crt (--tls-cert)"), "{error}");
    }

    #[test]
    fn expiry_is_a_metric() {
        let metrics = Metrics::new();
        let certificates = Certificates::in_memory(&leaf(), &metrics).unwrap();
        let not_after = certificates.facts().unwrap().not_after;
        let in_a_day = i64::try_from((SystemTime::now() + DAY).duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        assert!((not_after - in_a_day).abs() < 60);
        assert!(certificates.facts().unwrap().has_names);
        assert!(metrics.text().contains(&format!("revguard_certificate_not_after_seconds {not_after}")));
    }
}
