//! `revguard controller`: arguments of the one that writes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::serve::LogFormat;
use super::{Failure, Live, duration, serve};
use crate::controller::Names;
use crate::controller::audit::Pace;
use crate::run::controller::Control;

#[derive(Args)]
pub struct Options {
    /// The namespace that revguard is installed in
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    namespace: String,
    /// Full name of the release; names of Secrets, ConfigMaps, the Lease and the webhook configurations follow from it
    #[arg(long, value_name = "NAME", default_value = "revguard")]
    release: String,
    /// Name of this replica, as the Lease and Events call it
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "controller", hide = true)]
    pod: String,
    /// The policy file; read again when its content changes
    #[arg(long, value_name = "FILE", env = "REVGUARD_CONFIG")]
    config: Option<PathBuf>,
    /// Where /healthz, /readyz and /metrics answer, in plain HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8080", env = "REVGUARD_HEALTH_LISTEN")]
    health_listen: SocketAddr,
    #[command(flatten)]
    live: Live,
    /// From one audit to the next; one also follows soon after webhook configurations change
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    audit_interval: Duration,
    /// How long the Lease lasts when nobody renews it
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, hide = true)]
    lease_duration: Option<Duration>,
    #[arg(long, value_enum, default_value_t, env = "REVGUARD_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, or a filter such as revguard=debug
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "REVGUARD_LOG")]
    log: String,
}

pub fn run(options: Options) -> Result<ExitCode, Failure> {
    serve::log(options.log_format, &options.log)?;
    crate::run::controller::run(Control {
        names: Names::new(&options.namespace, &options.release),
        holder: holder(&options.pod),
        config: options.config,
        health_listen: options.health_listen,
        kubeconfig: options.live.kubeconfig,
        context: options.live.context,
        pace: Pace { interval: options.audit_interval, ..Pace::default() },
        lease: options.lease_duration,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The pod's name and a number of this process: a container that was restarted is another holder.
fn holder(pod: &str) -> String {
    use std::hash::{BuildHasher, Hasher};
    let dice = std::hash::RandomState::new().build_hasher().finish();
    format!("{pod}_{dice:016x}")
}
