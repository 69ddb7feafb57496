//! `revguard uninstall-check`: may this control plane go, what goes with it, and the command.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::text::broken;
use super::{Failure, Live, Plain, input};
use crate::audit::uninstall::{REMOTE_UNSEEN, Uninstall, check};
use crate::cluster::Pods;
use crate::model::RevisionName;

#[derive(Args)]
#[command(after_help = "Reads the cluster that kubectl would talk to, unless --cluster gives its manifests.\n\
    Exit codes: 0 safe to remove, 1 still used (or it cannot be told), 2 bad input or usage, or no such revision.")]
pub struct Options {
    /// The revision of the control plane; `default` is the one without a name
    revision: String,
    /// Manifests of the cluster as it is
    #[arg(long, value_name = "PATH", conflicts_with_all = ["kubeconfig", "context"])]
    cluster: Vec<PathBuf>,
    #[command(flatten)]
    live: Live,
    /// For a person or for a program
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
}

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let (snapshot, bad) = if options.cluster.is_empty() {
        (options.live.read(Pods::Metadata)?, false)
    } else {
        input::described(&options.cluster)?
    };
    let mut answer = check(&snapshot, &RevisionName::new(&options.revision));
    if options.cluster.is_empty() {
        match options.live.remote_clusters(&snapshot) {
            Ok(clusters) => answer.note_remote(&clusters),
            Err(why) => answer.notes.push(format!("{REMOTE_UNSEEN}: {why}")),
        }
    }
    if !answer.found {
        let known: Vec<String> = snapshot.revisions().unwrap_or_default().iter().map(ToString::to_string).collect();
        let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
        anyhow::bail!("there is no control plane of revision {:?} (revisions: {known})", options.revision);
    }
    match options.output {
        Plain::Json => super::print(format!("{}\n", serde_json::to_string_pretty(&answer)?).as_bytes())?,
        Plain::Text => super::print(text(&answer).as_bytes())?,
    };
    Ok(ExitCode::from(if bad { 2 } else { u8::from(!answer.safe) }))
}

/// Lines of a list before the rest is counted.
const SHOWN: usize = 20;

fn text(answer: &Uninstall) -> String {
    let mut out = String::new();
    let verdict = match (answer.safe, answer.used.len()) {
        (true, _) => "nothing uses it: safe to remove".to_owned(),
        (false, 0) => "not everything could be looked at".to_owned(),
        (false, 1) => "still used".to_owned(),
        (false, n) => format!("still used, {n} times"),
    };
    let _ = writeln!(out, "control plane {}: {verdict}", answer.revision);
    list(&mut out, "Still used by:", &answer.used);
    list(&mut out, "Could not be looked at:", &answer.unknown);
    list(&mut out, "Note:", &answer.notes);
    list(&mut out, "Would be deleted:", &answer.deletes);
    let head = if answer.safe { "To remove it:" } else { "Once nothing uses it:" };
    commands(&mut out, head, &answer.command.lines().map(str::to_owned).collect::<Vec<_>>());
    out
}

fn list(out: &mut String, head: &str, lines: &[String]) {
    let lines: Vec<String> = lines.iter().map(|line| broken(line, "  ")).collect();
    commands(out, head, &lines);
}

/// The same for lines that are pasted, and so stay in one piece.
fn commands(out: &mut String, head: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{head}");
    for line in lines.iter().take(SHOWN) {
        let _ = writeln!(out, "  {line}");
    }
    if lines.len() > SHOWN {
        let _ = writeln!(out, "  and {} more (-o json names all)", lines.len() - SHOWN);
    }
}
