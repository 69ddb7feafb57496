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
                "warn": of(&[Level::Info, Level::Warning]),
                "error": 0,
                "skip": 0,
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
        let result = if self.level >= Level::Error { "fail" } else { "warn" };
        // Definitions of wgpolicyk8s.io up to 2022 know three severities, and refuse a report with any other.
        let severity = match (self.level, api) {
            (Level::Info, ReportApi::WgPolicy) => "low",
            (Level::Info, ReportApi::OpenReports) => "info",
            (Level::Warning, _) => "medium",
            (Level::Error, _) | (Level::Critical, ReportApi::WgPolicy) => "high",
            (Level::Critical, ReportApi::OpenReports) => "critical",
        };
        let kind = row(self.object.kind);
        let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.name, "name": self.object.name});
        if !self.object.namespace.is_empty() {
            object["namespace"] = json!(self.object.namespace);
        }
        json!({
            "source": "revguard",
            "policy": self.code,
            "rule": self.name,
            "category": "Istio revisions",
            "result": result,
            "severity": severity,
            "scored": self.level >= Level::Error,
            "resources": [object],
            "message": self.what,
            "properties": {"level": self.level.as_str(), "why": self.why, "fix": self.fix},
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn entry(namespace: &str, n: usize, level: Level) -> Entry {
        Entry {
            rule: crate::rules::find("WL002").expect("a rule"),
            object: Id { kind: Kind::Deployment, namespace: namespace.into(), name: format!("web-{n:03}").into() },
            level,
            value: "x".into(),
            what: "what".into(),
            why: "why".into(),
            fix: "fix".into(),
            grace: SignedDuration::ZERO,
            repair: None,
        }
    }

    #[test]
    fn a_report_is_bounded_its_totals_are_not_and_the_worst_come_first() {
        let mut all: Vec<Entry> = (0..300).map(|n| entry("shop", n, Level::Warning)).collect();
        all.push(entry("shop", 999, Level::Critical));
        all.push(entry("bank", 1, Level::Info));
        let made = reports(&all);
        let names: Vec<Option<&str>> = made.iter().map(|r| r.namespace.as_deref()).collect();
        assert_eq!(names, [Some("bank"), Some("shop")]);
        for api in ReportApi::ALL {
            let shop = made[1].manifest(api);
            assert_eq!(shop["results"].as_array().map(Vec::len), Some(MOST));
            assert_eq!(shop["results"][0]["resources"][0]["name"], "web-999");
            assert_eq!((&shop["summary"]["fail"], &shop["summary"]["warn"]), (&json!(1), &json!(300)));
            assert_eq!(shop["kind"], api.kind(true));
        }
    }

    #[test]
    fn the_same_findings_in_any_order_are_the_same_bytes() {
        let all: Vec<Entry> = (0..5).map(|n| entry("shop", n, Level::Warning)).collect();
        let back: Vec<Entry> = all.iter().rev().cloned().collect();
        let bytes = |entries: &[Entry]| {
            let all = reports(entries);
            all.iter().map(|r| r.manifest(ReportApi::WgPolicy).to_string()).collect::<String>()
        };
        assert_eq!(bytes(&all), bytes(&back));
    }

    #[test]
    fn what_has_no_namespace_is_in_the_cluster_report_and_a_namespace_in_its_own() {
        let mut validator = entry("", 1, Level::Critical);
        validator.object.kind = Kind::ValidatingWebhook;
        let mut namespace = entry("", 2, Level::Error);
        namespace.object = Id { kind: Kind::Namespace, namespace: "".into(), name: "shop".into() };
        let made = reports(&[validator, namespace]);
        assert_eq!(made[0].manifest(ReportApi::OpenReports)["kind"], "ClusterReport");
        assert_eq!(made[0].manifest(ReportApi::WgPolicy)["kind"], "ClusterPolicyReport");
        assert_eq!(made[1].namespace.as_deref(), Some("shop"));
    }
}
