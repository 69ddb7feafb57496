//! The server of the demonstration: everything real but the cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::admission::self_signed::Authority;
use crate::admission::tls::Certificates;
use crate::admission::webhook::{Shared, Webhook};
use crate::admission::{Serving, Settings, bind, serve};
use crate::telemetry::{Condition, Health, Metrics};

/// Certificates of one day outlast any demonstration.
const VALID: Duration = Duration::from_secs(24 * 3600);

/// A running server.
pub struct Demo {
    pub address: SocketAddr,
    ca: Authority,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Demo {
    /// Starts on a free port of the loopback interface.
    ///
    /// # Errors
    /// A certificate that cannot be made, or no port to bind.
    pub async fn start(shared: Arc<Shared>) -> anyhow::Result<Demo> {
        let metrics = Arc::new(Metrics::new());
        let ca = Authority::new(VALID)?;
        let certificates = Certificates::in_memory(&ca.leaf(&[], VALID)?, &metrics)?;
        let listener = bind::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "--listen")?;
        let address = listener.local_addr()?;
        let observe = super::observer(Arc::clone(&metrics));
        let serving = Serving {
            // Nobody has to be moved elsewhere when the story ends.
            settings: Settings { drain: Duration::ZERO, quiet: Duration::ZERO, ..Settings::default() },
            certificates,
            callers: None,
            reviewer: Arc::new(Webhook { shared, clock: Timestamp::now, observe }),
            metrics,
            health: Health::new(&[Condition::Listener]),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let until = async {
                // A dropped sender stops the server as well.
                let _ = stopped.await;
            };
            if let Err(error) = serve(listener, serving, until).await {
                tracing::error!(%error, "the server ended");
            }
        });
        Ok(Demo { address, ca, stop, server })
    }

    /// What a client has to trust.
    pub fn ca_pem(&self) -> &str {
        self.ca.pem()
    }

    /// A command line that asks for a verdict. The CA is written into the folder for temporary files.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn curl(&self) -> anyhow::Result<String> {
        let ca = std::env::temp_dir().join(format!("revguard-demo-ca-{}.pem", std::process::id()));
        std::fs::write(&ca, self.ca_pem())?;
        let namespace = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"new","labels":{"istio-injection":"enabled","istio.io/rev":"prod"}}}"#;
        let request = format!(
            r#"{{"uid":"1","kind":{{"group":"","version":"v1","kind":"Namespace"}},"resource":{{"group":"","version":"v1","resource":"namespaces"}},"name":"new","operation":"CREATE","userInfo":{{"username":"jane"}},"object":{namespace}}}"#
        );
        Ok(format!(
            "curl -s --cacert {} -H 'Content-Type: application/json' 'https://localhost:{}/validate?timeout=5s' \\\n  -d '{{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\",\"request\":{request}}}'",
            ca.display(),
            self.address.port()
        ))
    }

    pub async fn stop(self) {
        // The receiver is gone only if the server already ended.
        let _ = self.stop.send(());
        let _ = self.server.await;
    }
}
