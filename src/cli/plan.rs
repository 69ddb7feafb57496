//! `revguard plan`: what a GatewayRollout would do, and what stands against it, before it is there.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::text::broken;
use super::{Failure, Live, Plain, input};
use crate::cluster::{self, Pods};
use crate::rollout::guards::{self, Scene};
use crate::rollout::preview::{Preview, preview};
use crate::rollout::read::{self, Raw, seen};
use crate::rollout::seen::{Finding, Seen, Severity};
use crate::snapshot::Snapshot;

#[derive(Args)]
#[command(
    after_help = "Reads the cluster that kubectl would talk to, unless --cluster gives its manifests. Nothing is written, and nothing is asked \
    but the API server: dry-runs, proxies and alerts are the controller's, before its first change.\n\
    Exit codes: 0 nothing blocks it, 1 something does, 2 bad input or usage."
)]
pub struct Options {
    /// The GatewayRollout; - reads stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Manifests of the cluster as it is
    #[arg(long, value_name = "PATH", conflicts_with_all = ["kubeconfig", "context"])]
    cluster: Vec<PathBuf>,
    #[command(flatten)]
    live: Live,
    /// For a person or for a program
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
}

/// A rollout that is not there yet has no uid; names of what it would make show this in its place.
const NO_UID: &str = "xxxxxxxx";

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let rollout = wanted(&options.file)?;
    let (raw, known, bad) = if options.cluster.is_empty() {
        let known = options.live.read(Pods::Metadata)?;
        (options.live.gateway(rollout, &known)?, known, false)
    } else {
        described(rollout, &options.cluster)?
    };
    let seen = seen(&raw, &known)?;
    let findings = guards::check(&Scene::of(&raw, &known, &seen));
    let answer = Answer {
        from: read::from_revision(&seen, &raw),
        preview: preview(&seen, Timestamp::now()),
        blocked: findings.iter().any(|f| f.severity == Severity::Block),
        findings,
        seen: &seen,
    };
    match options.output {
        Plain::Json => super::print(format!("{:#}\n", answer.json()).as_bytes())?,
        Plain::Text => super::print(answer.text().as_bytes())?,
    };
    Ok(ExitCode::from(if bad { 2 } else { u8::from(answer.blocked) }))
}

/// The one GatewayRollout of a file.
fn wanted(file: &Path) -> Result<Value, Failure> {
    let input = input::read(&[file.to_owned()], "default")?;
    if let Some(problem) = input.problems.first() {
        anyhow::bail!("{problem}");
    }
    let others = input.documents.into_iter().map(|d| d.raw).chain(input.other);
    let mut rollouts: Vec<Value> = others.filter(|o| o["kind"] == "GatewayRollout").collect();
    match rollouts.len() {
        1 => Ok(completed(rollouts.remove(0))),
        0 => anyhow::bail!("{}: no GatewayRollout there", file.display()),
        n => anyhow::bail!("{}: {n} GatewayRollouts there; plan them one by one", file.display()),
    }
}

/// What the API server would add.
fn completed(mut rollout: Value) -> Value {
    for (field, value) in [("namespace", "default"), ("name", "plan"), ("uid", NO_UID)] {
        if rollout["metadata"][field].as_str().is_none_or(str::is_empty) {
            rollout["metadata"][field] = json!(value);
        }
    }
    rollout
}

/// The cluster that manifests describe, and whether some of them could not be read.
fn described(rollout: Value, paths: &[PathBuf]) -> Result<(Raw, Snapshot, bool), Failure> {
    let input = input::read(paths, "default")?;
    for problem in &input.problems {
        super::fail(&problem.to_string());
    }
    let known = input::cluster(&input);
    let placed = input.documents.iter().map(|d| {
        let mut raw = d.raw.clone();
        let namespace = d.object.id().namespace;
        if !namespace.is_empty() {
            raw["metadata"]["namespace"] = json!(namespace.as_str());
        }
        raw
    });
    let others = input.other.iter().cloned().map(|mut other| {
        if other["metadata"]["namespace"].is_null() {
            other["metadata"]["namespace"] = json!("default");
        }
        other
    });
    let raw = Raw::manifests(rollout, placed.chain(others));
    Ok((raw, known, !input.problems.is_empty()))
}

impl Live {
    /// Everything around the gateway of a rollout. One that is there already lends its uid and its status.
    ///
    /// # Errors
    /// A cluster that cannot be reached.
    fn gateway(&self, mut rollout: Value, known: &Snapshot) -> Result<Raw, Failure> {
        let access = cluster::Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = cluster::connect_as_kubectl(&access).await?;
            let text = |field: &str| rollout["metadata"][field].as_str().unwrap_or_default().to_owned();
            if let Some(there) = cluster::read_rollout(&client, &text("namespace"), &text("name")).await? {
                rollout["metadata"] = there["metadata"].clone();
                rollout["status"] = there["status"].clone();
            }
            Ok(cluster::GatewayReader::new(client).fill(Raw::of(rollout), known, true).await?)
        })
    }
}

struct Answer<'a> {
    seen: &'a Seen,
    from: Option<String>,
    findings: Vec<Finding>,
    preview: Preview,
    blocked: bool,
}

impl Answer<'_> {
    fn gateway(&self) -> &str {
        let target = &self.seen.rollout.spec.target;
        target.deployment.as_ref().or(target.gateway.as_ref()).map_or("", |named| named.name.as_str())
    }

    fn flavor(&self) -> Option<String> {
        let source = self.seen.source.as_ref()?;
        read::flavor(source, &self.seen.rollout.spec).map(|flavor| format!("{flavor:?}"))
    }

    fn json(&self) -> Value {
        let rollout = &self.seen.rollout;
        let word = |s: Severity| if s == Severity::Block { "Block" } else { "Warn" };
        let findings: Vec<Value> = self
            .findings
            .iter()
            .map(|f| {
                json!({"guard": f.guard, "severity": word(f.severity), "object": f.object, "what": f.what, "why": f.why, "fix": f.fix})
            })
            .collect();
        json!({
            "rollout": format!("{}/{}", rollout.namespace, rollout.name),
            "gateway": format!("{}/{}", rollout.namespace, self.gateway()),
            "from": self.from,
            "to": rollout.spec.to_revision,
            "flavor": self.flavor(),
            "strategy": format!("{:?}", rollout.spec.strategy.type_),
            "promotion": self.preview.promotion.map(|p| format!("{p:?}")),
            "drain": self.preview.drain.map(|d| format!("{d:?}")),
            "apartKey": self.seen.apart_key.as_deref().ok(),
            "blocked": self.blocked,
            "preflight": findings,
            "plan": self.preview.outline,
        })
    }

    fn text(&self) -> String {
        let rollout = &self.seen.rollout;
        let mut out = format!(
            "gateway {}/{}: {} → {} ({})\n",
            rollout.namespace,
            self.gateway(),
            self.from.as_deref().unwrap_or("?"),
            rollout.spec.to_revision,
            self.flavor().as_deref().unwrap_or("no gateway of Istio")
        );
        let blocking = self.findings.iter().filter(|f| f.severity == Severity::Block).count();
        let warning = self.findings.len() - blocking;
        let _ = writeln!(
            out,
            "{}",
            match (blocking, warning) {
                (0, 0) => "nothing stands against it".to_owned(),
                (0, w) => format!("nothing blocks it; {}", counted(w, "warning")),
                (b, 0) => format!("blocked by {}", counted(b, "finding")),
                (b, w) => format!("blocked by {}; {}", counted(b, "finding"), counted(w, "warning")),
            }
        );
        for f in &self.findings {
            let word = if f.severity == Severity::Block { "BLOCKS" } else { "warns" };
            let fix = f.fix.replace('\n', "\n        ");
            let what = broken(&f.what, "  ");
            let why = broken(&f.why, "        ");
            let head = broken(&format!("{word} {} at {}", f.guard, f.object), "  ");
            let _ = writeln!(out, "\n{head}\n  {what}\n  why:  {why}\n  fix:  {fix}");
        }
        if !self.preview.outline.is_empty() {
            let head = if self.blocked { "Once nothing blocks it" } else { "It would" };
            let _ = writeln!(out, "\n{head}:");
        }
        for (i, line) in self.preview.outline.iter().enumerate() {
            let _ = writeln!(out, "  {:>2}. {}", i + 1, broken(line, "      "));
        }
        out
    }
}

fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
