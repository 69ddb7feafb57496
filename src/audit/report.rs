//! Reports as other tools read them: one per namespace and one for what has none, bounded, and the same bytes for the
//! same findings.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Entry;
use crate::model::{Id, Kind, Str};
use crate::rules::Level;
use crate::wire::row;

/// Results that one report holds; its totals count all.
pub const MOST: usize = 200;

/// The name of every report.
pub const NAME: &str = "revguard";

/// Which API the cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReportApi {
    /// `wgpolicyk8s.io/v1alpha2`: PolicyReport, ClusterPolicyReport.
    WgPolicy,
    /// `openreports.io/v1alpha1`: Report, ClusterReport.
    OpenReports,
}

impl ReportApi {
    pub const ALL: [ReportApi; 2] = [ReportApi::OpenReports, ReportApi::WgPolicy];

    pub const fn group(self) -> &'static str {
        match self {
            ReportApi::WgPolicy => "wgpolicyk8s.io",
            ReportApi::OpenReports => "openreports.io",
        }
    }

    pub const fn version(self) -> &'static str {
        match self {
            ReportApi::WgPolicy => "v1alpha2",
            ReportApi::OpenReports => "v1alpha1",
        }
    }

    pub const fn kind(self, namespaced: bool) -> &'static str {
        match (self, namespaced) {
            (ReportApi::WgPolicy, true) => "PolicyReport",
            (ReportApi::WgPolicy, false) => "ClusterPolicyReport",
            (ReportApi::OpenReports, true) => "Report",
            (ReportApi::OpenReports, false) => "ClusterReport",
        }
    }

    pub const fn plural(self, namespaced: bool) -> &'static str {
        match (self, namespaced) {
            (ReportApi::WgPolicy, true) => "policyreports",
            (ReportApi::WgPolicy, false) => "clusterpolicyreports",
            (ReportApi::OpenReports, true) => "reports",
            (ReportApi::OpenReports, false) => "clusterreports",
        }
    }
}

/// One report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// `None`: objects without a namespace.
    pub namespace: Option<Str>,
    /// At most [`MOST`], the worst first.
    pub results: Vec<Row>,
    /// Of all findings, by level.
    pub totals: BTreeMap<Level, usize>,
}

/// One result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub code: &'static str,
    pub name: &'static str,
    pub level: Level,
    pub object: Id,
    pub what: String,
    pub why: String,
    pub fix: String,
}

/// Reports of all entries. A Namespace is reported in itself, where those who own it look.
pub fn reports(entries: &[Entry]) -> Vec<Report> {
    let mut by_place: BTreeMap<Option<Str>, Report> = BTreeMap::new();
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| b.level.cmp(&a.level).then_with(|| a.key().cmp(&b.key())));
    for e in sorted {
        let namespace = match (e.object.kind, e.object.namespace.is_empty()) {
            (Kind::Namespace, _) => Some(e.object.name.clone()),
            (_, true) => None,
            (_, false) => Some(e.object.namespace.clone()),
        };
        let report = by_place.entry(namespace.clone()).or_insert_with(|| Report {
            namespace,
            results: Vec::new(),
            totals: BTreeMap::new(),
        });
        *report.totals.entry(e.level).or_default() += 1;
        if report.results.len() < MOST {
            report.results.push(Row {
                code: e.rule.code,
                name: e.rule.name,
                level: e.level,
                object: e.object.clone(),
                what: e.what.clone(),
                why: e.why.clone(),
                fix: e.fix.clone(),
            });
        }
    }
    by_place.into_values().collect()
}

impl Report {
    /// The object as the API server takes it.
    pub fn manifest(&self, api: ReportApi) -> Value {
        let of = |levels: &[Level]| levels.iter().filter_map(|l| self.totals.get(l)).sum::<usize>();
        let mut metadata = json!({
            "name": NAME,
            "labels": {"app.kubernetes.io/name": "revguard", "app.kubernetes.io/managed-by": "revguard"},
        });
        if let Some(namespace) = &self.namespace {
            metadata["namespace"] = json!(namespace);
        }
        let all: usize = self.totals.values().sum();
        if all > self.results.len() {
            let left = format!("{} of {all} findings; the summary counts all", self.results.len());
            metadata["annotations"] = json!({"revguard.dev/truncated": left});
        }
        let mut out = json!({
            "apiVersion": format!("{}/{}", api.group(), api.version()),
            "kind": api.kind(self.namespace.is_some()),
            "metadata": metadata,
            "summary": {
                "pass": 0,
                "fail": of(&[Level::Error, Level::Critical]),
                "warn": of(&[Level::Warning]),
                "error": 0,
                "skip": of(&[Level::Info]),
            },
            "results": self.results.iter().map(|r| r.value(api)).collect::<Vec<_>>(),
        });
        if api == ReportApi::OpenReports {
            out["source"] = json!("revguard");
        }
        out
    }
}

impl Row {
    fn value(&self, api: ReportApi) -> Value {
        let (result, severity) = match self.level {
            Level::Info => ("skip", "info"),
            Level::Warning => ("warn", "medium"),
            Level::Error => ("fail", "high"),
            Level::Critical => ("fail", "critical"),
        };
        let kind = row(self.object.kind);
        let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.name, "name": self.object.name});
        if !self.object.namespace.is_empty() {
            object["namespace"] = json!(self.object.namespace);
        }
        let mut out = json!({
            "source": "revguard",
            "policy": self.code,
            "rule": self.name,
            "category": "Istio revisions",
            "result": result,
            "severity": severity,
            "scored": true,
            "properties": {"why": self.why, "fix": self.fix},
        });
        out["resources"] = json!([object]);
        out["message"] = json!(self.what);
        let _ = api;
        out
    }
}
