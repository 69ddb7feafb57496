//! Arguments, subcommands, exit codes. What a subcommand does stands in its own module.

pub mod certificates;
pub mod check;
mod completion;
mod controller;
mod demo;
pub mod docs;
pub mod input;
mod output;
mod page;
mod paint;
mod plan;
pub mod report;
pub mod resolve;
mod rollout;
mod serve;
mod status;
mod table;
mod text;
mod uninstall;
mod week;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use self::paint::Paint;
use crate::cluster;
use crate::rollout::guards;
use crate::rules::{self, Policy};
use crate::snapshot::Snapshot;

/// The guard of Istio upgrades on Kubernetes.
#[derive(Parser)]
#[command(name = "revguard", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 clean or done, 1 findings (check), still in use (uninstall-check), blocked (plan) or an unexpected verdict (demo), \
     2 bad input or usage, 3 a task of serve or controller died or was stuck; its name is the last line.";

#[derive(Subcommand)]
enum Command {
    /// Serve the admission webhooks
    Serve(Box<serve::Options>),
    /// Audit, report and mend; one replica leads, the others wait
    Controller(Box<controller::Options>),
    /// Judge manifests before they are applied
    Check(check::Options),
    /// Say who injects every pod and pod template
    Resolve(resolve::Options),
    /// Show revisions, tags, users, validators, and what is wrong
    Status(status::Options),
    /// Say whether a control plane can be removed, and how
    UninstallCheck(uninstall::Options),
    /// Say what a GatewayRollout would do, and what blocks it
    Plan(plan::Options),
    /// Play an upgrade against the real server; needs no cluster
    Demo(demo::Options),
    /// Show what was or would have been denied in the last week
    Report(week::Options),
    /// Show gateway rollouts, approve, pause, resume or abort them
    Rollout(rollout::Options),
    /// List the rules
    Rules(RulesOptions),
    /// Explain a rule, or a guard of gateway rollouts
    Explain {
        /// A rule's code, such as NS004, or a rollout's guard, such as NoApartKey
        code: String,
    },
    /// Print a completion script
    Completion {
        /// The shell that is to complete, such as bash
        shell: clap_complete::Shell,
    },
    /// Write the generated pages of the documentation
    #[command(hide = true)]
    Docs {
        /// The folder to write into
        #[arg(default_value = "docs")]
        folder: PathBuf,
    },
}

#[derive(Args)]
struct RulesOptions {
    /// For a person or for a program
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
}

/// Output for a person or for a program.
#[derive(Clone, Copy, Default, ValueEnum, PartialEq, Eq)]
pub enum Plain {
    #[default]
    Text,
    Json,
}

/// A live cluster, as kubectl finds it.
#[derive(Args, Clone, Default)]
pub struct Live {
    /// Read a live cluster through this kubeconfig
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

impl Live {
    /// A live cluster is asked for.
    pub fn is_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// Reads the cluster once; what cannot be read is said on stderr and is unknown.
    ///
    /// # Errors
    /// A cluster that cannot be reached.
    pub fn read(&self, pods: cluster::Pods) -> Result<Snapshot, Failure> {
        let access = cluster::Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reading = runtime.block_on(async {
            let client = cluster::connect_as_kubectl(&access).await?;
            let read = cluster::read_once(&client, pods);
            tokio::pin!(read);
            // Silence for longer than this makes people reach for Ctrl-C.
            tokio::select! {
                reading = &mut read => Ok(reading?),
                () = tokio::time::sleep(Duration::from_secs(2)) => {
                    note("reading the cluster…");
                    Ok::<_, Failure>(read.await?)
                }
            }
        })?;
        for problem in &reading.problems {
            warn(problem);
        }
        Ok(reading.snapshot)
    }
}

impl Live {
    /// Remote clusters that the control planes of a mesh have the keys of, as far as this person may look.
    ///
    /// # Errors
    /// Secrets that may not be listed.
    pub fn remote_clusters(&self, snapshot: &Snapshot) -> Result<Vec<String>, Failure> {
        let access = cluster::Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() };
        let namespaces = snapshot.istiods().into_iter().flatten().map(|w| w.meta.namespace.clone()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = cluster::connect_as_kubectl(&access).await?;
            Ok(cluster::remote_clusters(&client, &namespaces).await?)
        })
    }
}

/// What went wrong, for a person: exit code 2.
type Failure = anyhow::Error;

/// Parses the process's arguments and runs.
pub fn main() -> ExitCode {
    let matches = Cli::command().bin_name(called(std::env::args_os().next().as_deref())).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let outcome = match cli.command {
        Command::Serve(options) => serve::run(*options),
        Command::Controller(options) => controller::run(*options),
        Command::Demo(options) => demo::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Resolve(options) => resolve::run(&options),
        Command::Report(options) => week::run(&options),
        Command::Status(options) => status::run(&options),
        Command::UninstallCheck(options) => uninstall::run(&options),
        Command::Plan(options) => plan::run(&options),
        Command::Rollout(options) => rollout::run(&options),
        Command::Rules(options) => list_rules(options.output),
        Command::Explain { code } => explain(&code),
        Command::Completion { shell } => print(&completion::script(shell)),
        Command::Docs { folder } => docs::write(&folder).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|e| {
        fail(&format!("{e:#}"));
        ExitCode::from(2)
    })
}

/// What a person types. kubectl finds a program `kubectl-revguard` in the PATH and runs it as `kubectl revguard`.
fn called(program: Option<&OsStr>) -> &'static str {
    let stem = program.and_then(|p| Path::new(p).file_stem());
    if stem.is_some_and(|s| s == "kubectl-revguard" || s == "kubectl_revguard") {
        "kubectl revguard"
    } else {
        "revguard"
    }
}

/// Says on stderr what went wrong.
fn fail(what: &str) {
    note(&format!("{} {what}", Paint::of(&std::io::stderr()).red("error:")));
}

/// Says on stderr what a person should know who goes on.
fn warn(what: &str) {
    note(&format!("{} {what}", Paint::of(&std::io::stderr()).yellow("warning:")));
}

/// A line on stderr. That nobody reads it is no error.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes to stdout. A reader that has gone (`| head`) is no error.
fn print(bytes: &[u8]) -> Result<ExitCode, Failure> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn list_rules(output: Plain) -> Result<ExitCode, Failure> {
    if output == Plain::Json {
        let all: Vec<_> = rules::RULES
            .iter()
            .map(|r| serde_json::json!({"code": r.code, "name": r.name, "summary": r.summary}))
            .collect();
        return print(format!("{}\n", serde_json::to_string_pretty(&all)?).as_bytes());
    }
    let rows = rules::RULES.iter().map(|r| vec![r.code.to_owned(), r.name.to_owned(), r.summary.to_owned()]);
    print(table::fitted(&["CODE", "NAME", "SUMMARY"], rows.collect(), text::room(), &[]).as_bytes())
}

/// Lines of prose are as wide as the screen, but not wider than is pleasant to read.
const WIDEST: usize = 100;

/// A page on a terminal; for a pipe its Markdown.
fn explain(code: &str) -> Result<ExitCode, Failure> {
    let page = match (rules::find(&code.to_uppercase()), guards::find(code)) {
        (Some(rule), _) => rule.doc(),
        (None, Some(guard)) => guard.doc(),
        (None, None) => anyhow::bail!(
            "there is no rule {code}, nor a guard of that name. `revguard rules` lists the rules; guards: {}",
            guards::GUARDS.iter().map(|g| g.name).collect::<Vec<_>>().join(", ")
        ),
    };
    let shown =
        text::terminal().map(|(columns, _)| page::render(&page, columns.min(WIDEST), Paint::of(&std::io::stdout())));
    print(shown.unwrap_or_else(|| format!("{page}\n")).as_bytes())
}

/// Reads a policy file, or takes the default.
///
/// # Errors
/// The file and what is wrong with it.
pub fn policy(file: Option<&PathBuf>) -> Result<Policy, Failure> {
    let Some(file) = file else { return Ok(Policy::default()) };
    let text = std::fs::read_to_string(file).map_err(|e| anyhow::anyhow!("--config {}: {e}", file.display()))?;
    Policy::parse(&text).map_err(|e| anyhow::anyhow!("--config {}: {e}", file.display()))
}

/// The command line as clap knows it, for the generated page.
pub fn command() -> clap::Command {
    Cli::command()
}
