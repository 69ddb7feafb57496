//! `revguard status`: revisions, tags, who uses them, validators, and what is wrong, as a table or as JSON.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::text::{columns, wrapped};
use super::{Failure, Live, Plain, input, table};
use crate::audit::{self, Audit, Entry, Inventory, inventory};
use crate::cluster::Pods;
use crate::rules::{Level, Policy};
use crate::snapshot::Snapshot;
use crate::wire::row;

#[derive(Args)]
#[command(after_help = "Reads the cluster that kubectl would talk to, unless PATH gives its manifests.\n\
    Exit codes: 0 told, whatever was found; 2 bad input or usage.")]
pub struct Options {
    /// Manifests of the cluster: files, folders, or - for stdin
    #[arg(value_name = "PATH", conflicts_with_all = ["kubeconfig", "context"])]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    live: Live,
    /// For a person or for a program
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
    /// Look again every few seconds, and print when something has changed
    #[arg(short, long, conflicts_with = "paths")]
    watch: bool,
    /// The policy file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Every finding, not only the worst
    #[arg(long)]
    all: bool,
}

/// Between two looks. Each reads the whole cluster.
const EVERY: Duration = Duration::from_secs(10);

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let policy = super::policy(options.config.as_ref())?;
    if !options.paths.is_empty() {
        let (snapshot, bad) = input::described(&options.paths)?;
        super::print(told(options, &policy, &snapshot)?.as_bytes())?;
        return Ok(ExitCode::from(if bad { 2 } else { 0 }));
    }
    let mut last = String::new();
    loop {
        let now = match options.live.read(Pods::Metadata) {
            Ok(snapshot) => told(options, &policy, &snapshot)?,
            Err(e) if last.is_empty() => return Err(e),
            // A watch outlives a restart of the API server.
            Err(e) => {
                super::warn(&format!("{e:#}"));
                last.clone()
            }
        };
        if now != last {
            let gap = if options.watch && !last.is_empty() && options.output == Plain::Text {
                format!("\n--- {:.0}\n", Timestamp::now())
            } else {
                String::new()
            };
            super::print(format!("{gap}{now}").as_bytes())?;
            last = now;
        }
        if !options.watch {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(EVERY);
    }
}

fn told(options: &Options, policy: &Policy, snapshot: &Snapshot) -> Result<String, Failure> {
    let audit = audit::run(policy, snapshot, Timestamp::now());
    let seen = inventory(snapshot, &audit.entries);
    Ok(match options.output {
        Plain::Json => format!("{}\n", serde_json::to_string_pretty(&value(&seen, &audit)?)?),
        Plain::Text => text(&seen, &audit, options.all),
    })
}

fn value(seen: &Inventory, audit: &Audit) -> Result<Value, Failure> {
    let mut out = serde_json::to_value(seen)?;
    let results: Vec<Value> = audit
        .entries
        .iter()
        .map(|e| {
            let kind = row(e.object.kind);
            json!({
                "code": e.rule.code, "name": e.rule.name, "level": e.level.as_str(),
                "object": {"apiVersion": kind.api_version(), "kind": kind.name,
                           "namespace": e.object.namespace, "name": e.object.name},
                "what": e.what, "why": e.why, "fix": e.fix,
                "repair": e.repair.as_ref().map(|r| &r.says),
            })
        })
        .collect();
    let exemptions: Vec<Value> = audit
        .exemptions
        .iter()
        .map(|e| {
            let (kind, until) = (row(e.object.kind).name, e.until.map(|d| d.to_string()));
            json!({
                "code": e.code, "reason": e.reason, "until": until, "void": e.void,
                "object": {"kind": kind, "namespace": e.object.namespace, "name": e.object.name},
            })
        })
        .collect();
    out["results"] = json!(results);
    out["exemptions"] = json!(exemptions);
    Ok(out)
}

/// Findings that are told at once.
const SHOWN: usize = 5;

fn text(seen: &Inventory, audit: &Audit, all: bool) -> String {
    let mut out = String::new();
    let gaps = gaps(seen, audit);
    if !seen.revisions.is_empty() {
        out.push_str(&revisions(seen));
    } else if gaps.is_empty() {
        out.push_str("no Istio control plane is here\n");
    } else {
        out.push_str("no Istio control plane is seen, but not everything could be looked at\n");
    }
    if !seen.tags.is_empty() {
        let rows = seen.tags.iter().map(|t| {
            let to = t.revision.clone().unwrap_or_else(|| "?".into());
            vec![cut(&t.name, 30), cut(&to, 20), yes(t.served).to_owned(), few(&t.namespaces, 20)]
        });
        out.push('\n');
        out.push_str(&table::fitted(&["TAG", "REVISION", "SERVED", "NAMESPACES"], rows.collect(), columns(), &[]));
    }
    if !seen.validators.is_empty() {
        let heads = ["VALIDATOR", "REVISION", "JUDGES", "POLICY", "ANSWERS"];
        let rows = seen.validators.iter().map(|v| {
            let judges = if v.catch_all { "the rest" } else { "its own" };
            let answer = if v.dangling { "nobody" } else { "yes" };
            let revision = v.revision.clone().unwrap_or_else(|| "-".into());
            vec![cut(&v.name, 34), cut(&revision, 12), judges.into(), v.failure_policy.into(), answer.into()]
        });
        out.push('\n');
        out.push_str(&table::fitted(&heads, rows.collect(), columns(), &["JUDGES", "POLICY"]));
    }
    for lost in &seen.lost {
        let (pods, revision) = (lost.pods, &lost.revision);
        let line = format!("{pods} pods run revision {revision}, which is not here: {}", lost.workloads.join(", "));
        let _ = write!(out, "\n{}", wrapped(&line, ""));
    }
    out.push('\n');
    match audit.entries.is_empty() {
        // What could not be looked at may be wrong.
        true if gaps.is_empty() => out.push_str("nothing is wrong\n"),
        true => out.push_str("nothing wrong is seen in what could be looked at\n"),
        false => out.push_str(&findings(&audit.entries, all)),
    }
    if !gaps.is_empty() {
        let _ = write!(out, "\nCould not be looked at:\n{}", wrapped(&gaps.join("; "), "  "));
    }
    out
}

/// What could not be looked at, each once.
fn gaps(seen: &Inventory, audit: &Audit) -> Vec<String> {
    let mut gaps: Vec<String> =
        seen.unknown.iter().cloned().chain(audit.unknown.iter().map(|u| u.to_string())).collect();
    gaps.sort();
    gaps.dedup();
    gaps
}

fn revisions(seen: &Inventory) -> String {
    let rows = seen.revisions.iter().map(|r| {
        let istiod = match (r.installed, r.endpoints) {
            (_, Some(0)) => "not ready".to_owned(),
            (_, Some(n)) => format!("{n} ready"),
            (true, None) => "installed".to_owned(),
            (false, None) => "not here".to_owned(),
        };
        let name = if r.is_default { format!("{} *", cut(&r.name, 18)) } else { cut(&r.name, 20) };
        vec![
            name,
            r.version.clone().unwrap_or_else(|| "?".into()),
            istiod,
            few(&r.tags, 16),
            r.users.namespaces.len().to_string(),
            r.users.workload_pods.to_string(),
            r.users.gateway_pods.to_string(),
        ]
    });
    let heads = ["REVISION", "VERSION", "ISTIOD", "TAGS", "NS", "PODS", "GW PODS"];
    let table = table::fitted(&heads, rows.collect(), columns(), &["VERSION", "TAGS"]);
    let legend = if seen.revisions.iter().any(|r| r.is_default) { "(* the default)\n" } else { "" };
    format!("{table}{legend}")
}

fn findings(entries: &[Entry], all: bool) -> String {
    let count = |level: Level| entries.iter().filter(|e| e.level == level).count();
    let counts: Vec<String> = Level::ALL
        .iter()
        .rev()
        .filter(|l| count(**l) > 0)
        .map(|l| match (l, count(*l)) {
            (Level::Error | Level::Warning, n) if n > 1 => format!("{n} {}s", l.as_str()),
            (l, n) => format!("{n} {}", l.as_str()),
        })
        .collect();
    let mut out = format!("{}\n\n{}", counts.join(", "), by_rule(entries));
    let shown = if all { entries.len() } else { SHOWN };
    for e in entries.iter().take(shown) {
        let (kind, name) = (row(e.object.kind).name, input::display(&e.object));
        let _ = writeln!(out, "\n{} {kind} {name}", e.rule.code);
        out.push_str(&wrapped(&e.what, "  "));
        // A command stays in one piece, so that it can be pasted.
        let _ = writeln!(out, "  fix: {}", e.fix.replace('\n', "\n       "));
        if let Some(repair) = &e.repair {
            out.push_str(&wrapped(&format!("repair: {}", repair.says), "  "));
        }
    }
    if entries.len() > shown {
        let _ = writeln!(out, "\nand {} more; --all tells them, -o json as well", entries.len() - shown);
    }
    out
}

/// One line a rule and level, the worst first.
fn by_rule(entries: &[Entry]) -> String {
    let mut counts: Vec<(Level, &str, &str, usize)> = Vec::new();
    for e in entries {
        match counts.iter_mut().find(|(level, code, ..)| *level == e.level && *code == e.rule.code) {
            Some((.., n)) => *n += 1,
            None => counts.push((e.level, e.rule.code, e.rule.summary, 1)),
        }
    }
    let rows = counts.into_iter().map(|(level, code, summary, n)| {
        vec![level.as_str().to_owned(), code.to_owned(), n.to_string(), summary.to_owned()]
    });
    table::fitted(&["LEVEL", "CODE", "COUNT", "WHAT"], rows.collect(), columns(), &[])
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "nobody" }
}

/// As many names as fit, and how many there are.
fn few(names: &[String], width: usize) -> String {
    let joined = names.join(",");
    match names.len() {
        0 => "-".to_owned(),
        _ if joined.chars().count() <= width => joined,
        1 => cut(&names[0], width),
        n => {
            let more = format!("+{}", n - 1);
            format!("{}{more}", cut(&names[0], width - more.len()))
        }
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width - 1).collect();
    format!("{kept}…")
}
