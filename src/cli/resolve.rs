//! `revguard resolve`: who injects every pod and every pod template.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::text::room;
use super::{Failure, Live, Plain, input, table};
use crate::cluster::Pods;
use crate::model::{Injection, Kind, Object, Template, resolve};
use crate::snapshot::Snapshot;
use crate::wire::row;

#[derive(Args)]
#[command(after_help = "Reads the cluster that kubectl would talk to, unless --cluster gives its manifests.\n\
    Exit codes: 0 told, whatever was found; 2 bad input or usage.")]
pub struct Options {
    /// Manifests of the cluster as it is
    #[arg(long, value_name = "PATH", conflicts_with_all = ["kubeconfig", "context"])]
    cluster: Vec<PathBuf>,
    #[command(flatten)]
    live: Live,
    /// Only pods and templates of this namespace
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// For a person or for a program
    #[arg(short, long, value_enum, default_value_t)]
    output: Plain,
}

/// The outcome for one pod or template.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    pub api_version: String,
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub injection: &'static str,
    pub requested: Option<String>,
    pub revision: Option<String>,
    /// `CONFIG/WEBHOOK`: every webhook whose selectors match, in the order in which the API server calls them.
    pub hooks: Vec<String>,
    pub because: String,
}

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let (snapshot, bad) = if options.cluster.is_empty() {
        (options.live.read(Pods::Whole)?, false)
    } else {
        input::described(&options.cluster)?
    };
    let all = resolve_all(&snapshot, options.namespace.as_deref());
    match options.output {
        Plain::Json => {
            let json = serde_json::to_string_pretty(&serde_json::json!({"workloads": all}))?;
            super::print(format!("{json}\n").as_bytes())?;
        }
        Plain::Text => {
            let heads = ["NAMESPACE", "KIND", "NAME", "INJECTION", "REQUESTED", "REVISION", "BECAUSE"];
            let dash = |o: &Option<String>| o.clone().unwrap_or_else(|| "-".into());
            let rows = all.iter().map(|r| {
                let kind = r.kind.to_owned();
                vec![
                    r.namespace.clone(),
                    kind,
                    r.name.clone(),
                    r.injection.to_owned(),
                    dash(&r.requested),
                    dash(&r.revision),
                    r.because.clone(),
                ]
            });
            super::print(table::fitted(&heads, rows.collect(), room(), &["REQUESTED", "INJECTION"]).as_bytes())?;
        }
    }
    Ok(ExitCode::from(if bad { 2 } else { 0 }))
}

/// Every pod and template of the cluster, by namespace, kind and name.
pub fn resolve_all(snapshot: &Snapshot, namespace: Option<&str>) -> Vec<Resolved> {
    let kinds = Kind::WORKLOADS.into_iter().chain([Kind::Pod]);
    let mut all: Vec<Resolved> = kinds
        .flat_map(|kind| snapshot.raw(kind))
        .filter(|o| namespace.is_none_or(|ns| o.meta().namespace == ns))
        .map(|o| one(snapshot, o))
        .collect();
    all.sort_by(|a, b| (&a.namespace, a.kind, &a.name).cmp(&(&b.namespace, b.kind, &b.name)));
    all
}

fn one(snapshot: &Snapshot, object: &Object) -> Resolved {
    let meta = object.meta();
    let row = row(object.kind());
    // Of pods in other namespaces than the mesh's own only the metadata is read.
    let bare =
        || Template { labels: meta.labels.clone(), annotations: meta.annotations.clone(), ..Template::default() };
    let template = object.template().cloned().unwrap_or_else(bare);
    let labels = snapshot.namespace_labels(&meta.namespace);
    let known = snapshot.injectors();
    let none = crate::model::Injectors::default();
    let r = resolve(known.as_ref().map_or(&none, |i| i), &meta.namespace, &labels, &template);
    let because = match &known {
        Err(unknown) => format!("cannot tell: {unknown}"),
        Ok(_) => r.because.clone(),
    };
    Resolved {
        api_version: row.api_version(),
        kind: row.name,
        namespace: meta.namespace.to_string(),
        name: meta.name.to_string(),
        injection: match r.injection {
            Injection::None(_) => "none",
            Injection::One(_) => "one",
            Injection::Conflict(_) => "conflict",
        },
        requested: r.requested.clone(),
        revision: r.revision().map(ToString::to_string),
        hooks: r.hooks.iter().map(|h| format!("{}/{}", h.config, h.name)).collect(),
        because,
    }
}
