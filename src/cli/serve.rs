//! `revguard serve`: arguments of the webhook server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::certificates::duration;
use super::{Failure, Live, input};
use crate::admission::Settings;
use crate::admission::tls::Files;
use crate::cluster::Access;
use crate::cluster::secret::Place;
use crate::run::serve::{Callers, Certificate, Service, State};
use crate::run::supervise;

#[derive(Args)]
pub struct Options {
    /// Where the API server calls, over TLS
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443", env = "REVGUARD_LISTEN")]
    listen: SocketAddr,
    /// Where /healthz, /readyz and /metrics answer, in plain HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8080", env = "REVGUARD_HEALTH_LISTEN")]
    health_listen: SocketAddr,
    /// The serving certificate with its chain; read again when its content changes
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        required_unless_present_any = ["self_signed", "tls_secret"],
        conflicts_with_all = ["self_signed", "tls_secret"]
    )]
    tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The Secret that holds both as tls.crt and tls.key, read by watch; not ready until it does
    #[arg(long, value_name = "NAME", requires = "namespace", conflicts_with_all = ["self_signed", "standalone"])]
    tls_secret: Option<String>,
    /// The namespace of that Secret
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// Ask callers for a client certificate that this CA has signed; read again when its content changes
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// A common name or DNS name that the client certificate may carry; without one, any
    #[arg(long, value_name = "NAME", requires = "client_ca")]
    client_name: Vec<String>,
    /// Make a certificate in memory; its CA is logged
    #[arg(long)]
    self_signed: bool,
    /// A further name or address of the certificate made in memory
    #[arg(long, value_name = "NAME", requires = "self_signed")]
    name: Vec<String>,
    /// The policy file; read again when its content changes
    #[arg(long, value_name = "FILE", env = "REVGUARD_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    live: Live,
    /// Take manifests as the cluster, instead of a live one
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["kubeconfig", "context"])]
    standalone: Vec<PathBuf>,
    /// After SIGTERM: how long to keep accepting while the endpoint goes away, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 12)]
    drain: u64,
    /// Most connections at a time; the longest idle is closed first
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// Longest life of a connection: an answer after half of it or later closes it, so that callers spread over all replicas. 0s: any
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    max_connection_age: Duration,
    /// Reviews at a time; more wait up to --queue-ms, then they are told to try again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Longest wait for a place, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100)]
    queue_ms: u64,
    /// How a line of the log is written
    #[arg(long, value_enum, default_value_t, env = "REVGUARD_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, or a filter such as revguard=debug
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "REVGUARD_LOG")]
    log: String,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

pub fn run(options: Options) -> Result<ExitCode, Failure> {
    log(options.log_format, &options.log)?;
    let certificate = match (options.tls_cert, options.tls_key, options.tls_secret, options.namespace) {
        (Some(cert), Some(key), ..) => Certificate::Files(Files { cert, key }),
        (_, _, Some(name), Some(namespace)) => Certificate::Secret(Place { namespace, name }),
        _ => Certificate::SelfSigned(options.name),
    };
    let state = if options.standalone.is_empty() {
        State::Live(Access { kubeconfig: options.live.kubeconfig, context: options.live.context })
    } else {
        let input = input::read(&options.standalone, "default")?;
        for problem in &input.problems {
            tracing::error!(error = %problem, "a manifest cannot be read");
        }
        anyhow::ensure!(input.problems.is_empty(), "--standalone: {} documents cannot be read", input.problems.len());
        State::Manifests(Box::new(input::cluster(&input)))
    };
    let mut settings = Settings {
        drain: Duration::from_secs(options.drain),
        max_connections: options.max_connections as usize,
        connection_age: Some(options.max_connection_age).filter(|age| !age.is_zero()),
        queue: Duration::from_millis(options.queue_ms),
        ..Settings::default()
    };
    if let Some(n) = options.concurrency {
        settings.concurrency = n as usize;
    }
    let dead = crate::run::serve::run(Service {
        settings,
        listen: options.listen,
        health_listen: options.health_listen,
        certificate,
        callers: options.client_ca.map(|ca| Callers { ca, names: options.client_name }),
        config: options.config,
        state,
    })?;
    Ok(dead.map_or(ExitCode::SUCCESS, |dead| {
        super::fail(&format!("ended because of a task: {dead}"));
        ExitCode::from(supervise::DEAD_TASK)
    }))
}

pub fn log(format: LogFormat, filter: &str) -> Result<(), Failure> {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_new(filter).map_err(|e| anyhow::anyhow!("--log {filter}: {e}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
    }
    Ok(())
}
