//! `revguard controller`: arguments of the one that writes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::certificates::{self, duration};
use super::serve::LogFormat;
use super::{Failure, Live, serve};
use crate::cluster::Access;
use crate::controller::audit::Pace;
use crate::controller::{Names, rollout};
use crate::run::controller::Control;
use crate::run::kill::Place;
use crate::run::supervise;

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
    #[command(flatten)]
    certificates: certificates::Options,
    /// From one audit to the next; one also follows soon after webhook configurations change
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    audit_interval: Duration,
    /// From one trial of the admission policy over webhook configurations to the next: a dry run of a write that it must
    /// refuse. Without this it is not tried
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    admission_policy_interval: Option<Duration>,
    /// From one collection of what the webhooks counted to the next
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration, hide = true)]
    tally_interval: Duration,
    /// How long the Lease lasts when nobody renews it
    #[arg(long, value_name = "DURATION", value_parser = duration, hide = true)]
    lease_duration: Option<Duration>,
    /// A file with a token of istiod's audience, with which istiods are asked which gateway pods are connected to them. Without it, or while it
    /// is not there, they are not asked
    #[arg(long, value_name = "FILE")]
    istiod_token_file: Option<PathBuf>,
    /// How often rollouts are looked at, in tests: everything follows in proportion, 1s is what it is
    #[arg(long, value_name = "DURATION", value_parser = duration, hide = true)]
    rollout_pace: Option<Duration>,
    /// For tests: ends the process at a write boundary, BOUNDARY:before|after[:CROSSING], several separated by commas
    #[arg(long, value_name = "PLACES", value_delimiter = ',', env = "REVGUARD_KILL_AT", hide = true, hide_env = true)]
    kill_at: Vec<Place>,
    /// For tests: a folder in which --kill-at marks the places that it has used, so that each is used once
    #[arg(long, value_name = "FOLDER", env = "REVGUARD_KILL_MARKS", hide = true, hide_env = true)]
    kill_marks: Option<PathBuf>,
    /// How a line of the log is written
    #[arg(long, value_enum, default_value_t, env = "REVGUARD_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, or a filter such as revguard=debug
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "REVGUARD_LOG")]
    log: String,
}

pub fn run(options: Options) -> Result<ExitCode, Failure> {
    serve::log(options.log_format, &options.log)?;
    anyhow::ensure!(
        options.audit_interval >= Duration::from_secs(1),
        "--audit-interval: at least 1s; an audit also follows soon after webhook configurations change"
    );
    anyhow::ensure!(
        options.admission_policy_interval.is_none_or(|every| every >= Duration::from_secs(1)),
        "--admission-policy-interval: at least 1s; the API server counts every trial as a denial"
    );
    let names = Names::new(&options.namespace, &options.release);
    let dead = crate::run::controller::run(Control {
        certificates: options.certificates.settings(names.clone())?,
        names,
        holder: holder(&options.pod),
        config: options.config,
        health_listen: options.health_listen,
        access: Access { kubeconfig: options.live.kubeconfig, context: options.live.context },
        pace: Pace { interval: options.audit_interval, ..Pace::default() },
        policy_interval: options.admission_policy_interval,
        collect: options.tally_interval.max(Duration::from_millis(100)),
        lease: options.lease_duration,
        rollouts: options.rollout_pace.map_or_else(rollout::Pace::default, rollout::Pace::of),
        istiod_token: options.istiod_token_file,
        kill: options.kill_at,
        kill_marks: options.kill_marks,
    })?;
    Ok(dead.map_or(ExitCode::SUCCESS, |dead| {
        super::fail(&format!("ended because of a task: {dead}"));
        ExitCode::from(supervise::DEAD_TASK)
    }))
}

/// The pod's name and a number of this process: a container that was restarted is another holder.
fn holder(pod: &str) -> String {
    use std::hash::{BuildHasher, Hasher};
    let dice = std::hash::RandomState::new().build_hasher().finish();
    format!("{pod}_{dice:016x}")
}
