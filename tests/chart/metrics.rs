//! Which metrics a query uses, and whether anybody exposes them.

use revguard::telemetry::table::{self, Kind};

/// Of the API server, as Kubernetes 1.36 exposes them. tests/cluster reads the first of a real one; the others appear with their
/// first event.
const API_SERVER: [&str; 3] = [
    "apiserver_admission_webhook_admission_duration_seconds_bucket",
    "apiserver_admission_webhook_rejection_count",
    "apiserver_admission_webhook_fail_open_count",
];

/// Of Prometheus itself.
const PROMETHEUS: [&str; 2] = ["up", "ALERTS"];

/// What a scrape adds: by the ServiceMonitor's relabelling.
const TARGET: [&str; 4] = ["job", "instance", "component", "le"];

/// Names of metrics and, for each, the labels that the query asks it for.
pub fn used(query: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = query;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '"') {
        if rest[start..].starts_with('"') {
            // A value, not a name.
            let end = rest[start + 1..].find('"').map_or(rest.len(), |at| start + at + 2);
            rest = &rest[end..];
            continue;
        }
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |at| start + at);
        let name = &rest[start..end];
        rest = &rest[end..];
        let known = name.starts_with("revguard_") || name.starts_with("apiserver_") || PROMETHEUS.contains(&name);
        if !known {
            continue;
        }
        let mut labels = Vec::new();
        if let Some(inner) = rest.strip_prefix('{') {
            let end = inner.find('}').unwrap_or(inner.len());
            let matchers = inner[..end].split(',');
            labels = matchers.map(|m| m.chars().take_while(|c| is_word(*c)).collect::<String>()).collect();
            labels.retain(|label| !label.is_empty());
            rest = &inner[end..];
        }
        found.push((name.to_owned(), labels));
    }
    found
}

/// What is wrong with a query's metrics and labels.
pub fn problems(query: &str) -> Vec<String> {
    let used = used(query);
    if used.is_empty() {
        return vec![format!("{query}: asks for no metric that is known")];
    }
    used.into_iter()
        .filter_map(|(name, labels)| {
            let own: Option<Vec<&str>> = if API_SERVER.contains(&name.as_str()) || PROMETHEUS.contains(&name.as_str()) {
                return None;
            } else {
                of_ours(&name)
            };
            let Some(own) = own else { return Some(format!("{query}: there is no metric {name}")) };
            let unknown: Vec<&String> =
                labels.iter().filter(|l| !own.contains(&l.as_str()) && !TARGET.contains(&l.as_str())).collect();
            (!unknown.is_empty()).then(|| format!("{query}: {name} has no label {unknown:?}"))
        })
        .collect()
}

fn of_ours(name: &str) -> Option<Vec<&'static str>> {
    let exposed = table::ALL.iter().find(|def| match def.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(def.name)),
        _ => def.name == name,
    });
    exposed.map(|def| def.labels.to_vec())
}
