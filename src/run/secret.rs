//! The serving certificate out of a Secret: taken into use as the watch tells of it.

use std::sync::Arc;

use crate::admission::tls::{CertificateError, Certificates, Content, Keeper};
use crate::cluster::Trouble;
use crate::cluster::secret::{Place, Told};
use crate::telemetry::{Condition, Health, Metrics};

const FIX: &str = "the controller writes it (--certificates own), else cert-manager or whoever made the Secret; \
                   `kubectl describe secret` shows its keys";

/// Hears of the Secret; not ready until it held a pair that fits.
pub struct Listener {
    place: Place,
    keeper: Keeper,
    health: Arc<Health>,
    /// The last trouble, so that each is logged once.
    trouble: String,
    /// Why there is no pair yet.
    refusal: String,
}

impl Listener {
    pub fn new(place: Place, certificates: Arc<Certificates>, metrics: Arc<Metrics>, health: Arc<Health>) -> Listener {
        let origin = [format!("tls.crt of Secret {place}"), format!("tls.key of Secret {place}")];
        health.set(Condition::Certificate, Err(format!("Secret {place} is not read yet")));
        Listener {
            keeper: Keeper::new(certificates, origin, metrics),
            place,
            health,
            trouble: String::new(),
            refusal: String::new(),
        }
    }

    /// Takes what is told.
    pub fn hear(&mut self, told: Told) {
        let content = match told {
            Told::Data(mut data) => {
                let mut take = |key, lacks| {
                    let found = data.remove(key).map(|bytes| bytes.0).filter(|bytes| !bytes.is_empty());
                    found.ok_or(CertificateError::Secret { name: self.place.to_string(), lacks, fix: FIX })
                };
                take("tls.crt", "has no tls.crt")
                    .and_then(|cert| Ok(Content { cert, key: take("tls.key", "has no tls.key")? }))
            }
            Told::Missing => {
                Err(CertificateError::Secret { name: self.place.to_string(), lacks: "is not there", fix: FIX })
            }
            Told::Trouble(trouble) => return self.wait(&trouble),
        };
        self.trouble.clear();
        match self.keeper.offer(content) {
            Ok(_) => {}
            Err(error) if self.keeper.serves() => {
                tracing::error!(%error, "the serving Secret cannot be used, the old certificate stays");
            }
            Err(error) => {
                tracing::warn!(%error, "waiting for a serving certificate");
                self.refusal = error.to_string();
            }
        }
        let state = if self.keeper.serves() { Ok(()) } else { Err(self.refusal.clone()) };
        self.health.set(Condition::Certificate, state);
    }

    /// A pair that is served stays as good as it was; the watch tells when it is read again.
    fn wait(&mut self, trouble: &Trouble) {
        let text = match trouble {
            Trouble::Forbidden(why) => format!(
                "RBAC refuses to read Secret {}: {why}; grant get, list and watch of secrets with this resourceName in a Role",
                self.place
            ),
            other => format!("Secret {} cannot be read: {other}", self.place),
        };
        if text != self.trouble {
            tracing::warn!(error = text, "the serving Secret is asked for again");
            if !self.keeper.serves() {
                self.health.set(Condition::Certificate, Err(text.clone()));
            }
            self.trouble = text;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use k8s_openapi::ByteString;

    use super::*;
    use crate::admission::self_signed::{Authority, Leaf};

    const DAY: Duration = Duration::from_secs(86_400);

    fn data(cert: &str, key: &str) -> Told {
        let pair = [("tls.crt", cert), ("tls.key", key)];
        Told::Data(BTreeMap::from(pair.map(|(k, v)| (k.to_owned(), ByteString(v.as_bytes().to_vec())))))
    }

    fn leaf() -> Leaf {
        Authority::new(DAY).unwrap().leaf(&[], DAY).unwrap()
    }

    #[test]
    fn not_ready_until_a_pair_fits_and_ever_after() {
        let (metrics, health) = (Arc::new(Metrics::new()), Health::new(&[Condition::Certificate]));
        let certificates = Certificates::empty();
        let place = Place { namespace: "guard".into(), name: "tls".into() };
        let mut listener = Listener::new(place, Arc::clone(&certificates), Arc::clone(&metrics), Arc::clone(&health));
        let says = |text: &str| {
            let said = health.ready().unwrap_err();
            assert!(said.contains(text), "{said}");
        };
        says("Secret guard/tls is not read yet");
        listener.hear(Told::Missing);
        says("Secret guard/tls is not there");
        listener.hear(Told::Trouble(Trouble::Forbidden("no".into())));
        says("grant get, list and watch of secrets");
        listener.hear(Told::Data(BTreeMap::new()));
        says("Secret guard/tls has no tls.crt");
        let (first, second, foreign) = (leaf(), leaf(), leaf());
        listener.hear(data(&first.cert_pem, &foreign.key_pem));
        says("does not belong to the certificate in tls.crt of Secret guard/tls");
        assert!(certificates.facts().is_none());

        listener.hear(data(&first.cert_pem, &first.key_pem));
        assert!(health.is_ready());
        let served = certificates.facts().unwrap();
        let errors = metrics.certificate_errors();
        for told in [data(&second.cert_pem, &foreign.key_pem), Told::Missing, Told::Trouble(Trouble::Closed)] {
            listener.hear(told);
            assert_eq!(certificates.facts().unwrap(), served);
            assert!(health.is_ready());
        }
        assert_eq!(metrics.certificate_errors(), errors + 2);
        assert_eq!(metrics.certificate_reloads(), 0, "the first pair is no change");
        listener.hear(data(&second.cert_pem, &second.key_pem));
        assert_ne!(certificates.facts().unwrap(), served);
        assert_eq!(metrics.certificate_reloads(), 1);
    }
}
