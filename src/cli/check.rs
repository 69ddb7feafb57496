//! `revguard check`: the webhook's own judgement of manifests, before anybody applies them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::input::{self, Input};
use super::report::{Error, Finding, Format, ObjectRef, Report, SourceRef, Summary};
use super::{Failure, Live, output};
use crate::cluster::Pods;
use crate::model::{Kind, Object, Str};
use crate::rules::request::LazyObject;
use crate::rules::{Action, Judged, Operation, Policy, Request, User, judge};
use crate::snapshot::Snapshot;
use crate::wire::manifest::{Document, Problem};

#[derive(Args)]
#[command(
    after_help = "Everything in PATH is laid over the cluster first; then each object is judged in that end state.\n\
    Exit codes: 0 clean, 1 findings, 2 bad input or usage."
)]
pub struct Options {
    /// Files, folders, or - for stdin: YAML of many documents, JSON, Lists
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Manifests of the cluster as it is; without it (and without --kubeconfig) PATH itself is the cluster
    #[arg(long, value_name = "PATH")]
    cluster: Vec<PathBuf>,
    #[command(flatten)]
    live: Live,
    /// For a person, for a program, or for a pipeline (github: annotations of a workflow)
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Which findings make the exit code 1
    #[arg(long, value_name = "ACTION", value_enum, default_value_t)]
    fail_on: FailOn,
    /// The policy file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The namespace of objects that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Revision of IstioOperators that name none, as with `istioctl install --revision`
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,
    /// Judge as if this user wrote
    #[arg(long = "as", value_name = "USER", default_value = "revguard-check")]
    user: String,
    /// Judge as if the user were in this group
    #[arg(long = "as-group", value_name = "GROUP")]
    groups: Vec<String>,
}

#[derive(Clone, Copy, Default, ValueEnum, PartialEq, Eq)]
enum FailOn {
    #[default]
    Deny,
    Warn,
}

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let policy = super::policy(options.config.as_ref())?;
    let mut input = input::read(&options.paths, &options.namespace)?;
    if let Some(revision) = &options.revision {
        set_revision(&mut input, revision);
    }
    let mut problems = std::mem::take(&mut input.problems);
    let base = match (options.live.is_given(), options.cluster.is_empty()) {
        (false, true) => None,
        (false, false) => {
            let cluster = input::read(&options.cluster, &options.namespace)?;
            let snapshot = input::cluster(&cluster);
            problems.extend(cluster.problems);
            Some(snapshot)
        }
        (true, true) => Some(options.live.read(Pods::Metadata)?),
        (true, false) => {
            anyhow::bail!("--cluster and --kubeconfig exclude each other: is the cluster in files or live?")
        }
    };
    let user = User { name: options.user.clone(), groups: options.groups.clone() };
    let report = check(&policy, &input, base.as_ref(), &problems, &user, Timestamp::now());
    super::print(output::render(options.output, &report).as_bytes())?;
    let failed = report.summary.deny > 0 || options.fail_on == FailOn::Warn && report.summary.warn > 0;
    Ok(ExitCode::from(if report.summary.errors > 0 { 2 } else { u8::from(failed) }))
}

fn set_revision(input: &mut Input, revision: &str) {
    for document in &mut input.documents {
        if let Object::Operator(o) = &mut document.object
            && o.revision.is_none()
        {
            o.revision = Some(Str::from(revision));
        }
    }
}

/// Judges everything in `input` laid over `base`; without a base the input itself is the cluster and everything is created.
pub fn check(
    policy: &Policy,
    input: &Input,
    base: Option<&Snapshot>,
    problems: &[Problem],
    user: &User,
    now: Timestamp,
) -> Report {
    let empty = Snapshot::offline();
    let end = input.documents.iter().fold(base.unwrap_or(&empty).clone(), |s, d| s.with(d.object.clone()));
    let mut results = Vec::new();
    let mut counts: BTreeMap<Action, usize> = BTreeMap::new();
    for document in &input.documents {
        let id = document.object.id();
        let old = base.and_then(|b| b.get(id.kind, &id.namespace, &id.name)).cloned();
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        let request = Request {
            user: user.clone(),
            operation,
            sub_resource: String::new(),
            object: document.object.clone(),
            old: old.map_or_else(LazyObject::none, LazyObject::ready),
        };
        for judged in judge(policy, &request, &end, now).judged {
            *counts.entry(judged.action).or_default() += 1;
            results.push(finding(document, operation, &judged));
        }
    }
    let errors: Vec<Error> = problems.iter().map(error).collect();
    let count = |a: Action| counts.get(&a).copied().unwrap_or(0);
    let summary = Summary {
        objects: input.documents.len(),
        skipped: input.other.len(),
        deny: count(Action::Deny),
        warn: count(Action::Warn),
        audit: count(Action::Audit),
        errors: errors.len(),
    };
    Report { results, errors, summary }
}

fn finding(document: &Document, operation: Operation, judged: &Judged) -> Finding {
    let (rule, f) = (judged.rule, &judged.finding);
    Finding {
        code: rule.code,
        name: rule.name,
        action: judged.action.as_str(),
        object: ObjectRef::of(document),
        source: SourceRef { file: document.source.file.clone(), document: document.source.document },
        operation: if operation == Operation::Update { "UPDATE" } else { "CREATE" },
        field: field(document, f.field.as_ref()),
        what: f.what.clone(),
        why: f.why.to_string(),
        fix: f.fix.text().to_owned(),
        block: crate::admission::message::block(judged),
        line: document.source.line,
    }
}

/// A CronJob's template stands deeper.
fn field(document: &Document, field: &str) -> String {
    match field.strip_prefix("spec.template") {
        Some(rest) if document.object.kind() == Kind::CronJob => format!("spec.jobTemplate.spec.template{rest}"),
        _ => field.to_owned(),
    }
}

fn error(problem: &Problem) -> Error {
    let source = &problem.source;
    Error { file: source.file.clone(), document: source.document, line: source.line, message: problem.message.clone() }
}
