//! The real program under test: `revguard serve` as a process, with certificate files as the kubelet lays
//! them out, and what it says of itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::metrics;
use super::pki::Authority;
use super::process::Process;
use super::wait::wait_until;

/// From start to ready takes 0.2 s on two idle cores.
const START: Duration = Duration::from_secs(60);

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_revguard");

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A folder as the kubelet makes it of a Secret: the files are links through `..data`, which is itself a
/// link that one rename replaces.
pub struct Secret {
    folder: PathBuf,
    authority: Authority,
}

impl Secret {
    pub fn new(parent: &Path) -> Result<Secret> {
        let folder = parent.join(format!("secret-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&folder)?;
        let secret = Secret { folder, authority: Authority::new("guard")? };
        secret.swap()?;
        for file in ["tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(format!("..data/{file}"), secret.folder.join(file))?;
        }
        Ok(secret)
    }

    /// A new certificate of the same authority in the place of the old one.
    pub fn swap(&self) -> Result<()> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let version = format!("..version-{number}");
        std::fs::create_dir(self.folder.join(&version))?;
        let pair = self.authority.server(&["127.0.0.1"])?;
        std::fs::write(self.folder.join(&version).join("tls.crt"), pair.certificate)?;
        std::fs::write(self.folder.join(&version).join("tls.key"), pair.key)?;
        let new = self.folder.join(format!("..data-{number}"));
        std::os::unix::fs::symlink(version, &new)?;
        std::fs::rename(new, self.folder.join("..data"))?;
        Ok(())
    }

    pub fn ca(&self) -> &str {
        self.authority.pem()
    }
}

/// A running `revguard serve`.
pub struct Binary {
    pub process: Process,
    pub address: SocketAddr,
    pub health: SocketAddr,
}

impl Binary {
    /// Starts on free ports and returns once it listens; it may not be ready yet.
    pub async fn start(folder: &Path, kubeconfig: &Path, secret: &Secret, more: &[&str]) -> Result<Binary> {
        Binary::launch(folder, ("--kubeconfig", kubeconfig), Some(secret), more).await
    }

    /// The same with a certificate that the arguments name, such as `--tls-secret`.
    pub async fn bare(folder: &Path, kubeconfig: &Path, more: &[&str]) -> Result<Binary> {
        Binary::launch(folder, ("--kubeconfig", kubeconfig), None, more).await
    }

    /// The same over manifests, with no cluster at hand.
    pub async fn standalone(folder: &Path, manifests: &Path, secret: &Secret, more: &[&str]) -> Result<Binary> {
        Binary::launch(folder, ("--standalone", manifests), Some(secret), more).await
    }

    async fn launch(folder: &Path, state: (&str, &Path), secret: Option<&Secret>, more: &[&str]) -> Result<Binary> {
        let name = format!("revguard-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(PROGRAM);
        command.env_clear().current_dir(folder).arg("serve").arg(state.0).arg(state.1);
        command.args(["--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0", "--log-format", "json"]);
        if let Some(secret) = secret {
            command.arg("--tls-cert").arg(secret.folder.join("tls.crt"));
            command.arg("--tls-key").arg(secret.folder.join("tls.key"));
        }
        command.args(more);
        let log = folder.join(format!("{name}.log"));
        let mut process = Process::spawn(&name, command, log.clone())?;
        let (address, health) = wait_until(START, "where revguard listens", || {
            let ended = process.check().err();
            let found = listening(&log);
            async move {
                match (ended, found) {
                    (Some(ended), _) => Ok(Err(ended)),
                    (None, Some(found)) => Ok(Ok(found)),
                    (None, None) => Err("nothing about it in its log".to_owned()),
                }
            }
        })
        .await??;
        Ok(Binary { process, address, health })
    }

    pub async fn ready(&self) -> Result<()> {
        wait_until(START, "/readyz", || async {
            match self.get("/readyz").await {
                Ok((200, _)) => Ok(()),
                Ok((_, why)) => Err(why),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }

    /// Status and body of a plain GET on the health port.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.health).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: revguard\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let (head, body) = text.split_once("\r\n\r\n").context("an answer")?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let (status, text) = self.get("/metrics").await?;
        ensure!(status == 200, "/metrics answers {status}");
        metrics::sum(&text, name, labels)
    }

    /// Waits until verdicts are based on everything of `kind` up to this version.
    pub async fn seen(&self, kind: &str, version: u64) -> Result<()> {
        wait_until(START, &format!("{kind} of version {version} in the snapshot"), || async {
            let seen = self.metric("revguard_snapshot_resource_version", &[("kind", kind)]).await;
            let seen = seen.map_err(|error| format!("{error:#}"))?;
            // Versions of a test's etcd are far below what a float holds exactly.
            if seen >= version as f64 { Ok(()) } else { Err(format!("{seen}")) }
        })
        .await
    }

    /// What it has logged so far.
    pub fn said(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.process.log())?)
    }

    /// Serial number of the certificate that a new connection is shown.
    pub async fn serial(&self, secret: &Secret) -> Result<String> {
        serial(self.address, secret).await
    }
}

fn listening(log: &Path) -> Option<(SocketAddr, SocketAddr)> {
    let text = std::fs::read_to_string(log).ok()?;
    let line = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|line| {
        let fields = line.get("fields").cloned().unwrap_or(line);
        (fields["message"] == "serving").then_some(fields)
    })?;
    let address = |key: &str| line[key].as_str()?.parse().ok();
    Some((address("listen")?, address("health_listen")?))
}

/// Opens a TLS connection and reads the server's certificate.
async fn serial(address: SocketAddr, secret: &Secret) -> Result<String> {
    let stream = connect(address, secret).await?;
    let certificates = stream.get_ref().1.peer_certificates().context("a certificate")?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificates[0])?;
    Ok(certificate.raw_serial_as_string())
}

/// A TLS connection that believes this secret's authority.
pub async fn connect(address: SocketAddr, secret: &Secret) -> Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(secret.ca().as_bytes()).context("a CA")?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::from(address.ip());
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}
