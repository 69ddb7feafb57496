//! # CP005 definition-in-use
//!
//! ## What
//! A CustomResourceDefinition of Istio's configuration (`networking.istio.io`, `security.istio.io`, `telemetry.istio.io`,
//! `extensions.istio.io`) is deleted while there are objects of its kind and a control plane is installed.
//!
//! ## Why
//! Kubernetes deletes every object of the kind with it, in all namespaces, and every proxy loses that configuration within
//! seconds. Definitions are shared by all revisions: removing an old control plane from a manifest that still holds them takes
//! the configuration of the new one.
//!
//! ## What to do
//! Leave definitions out of what is removed with one revision. They go last, after the last control plane; then nothing is
//! said. The definition of `istiooperators`, which nobody reads any more since 1.24, may go at any time.
//!
//! ## When to allow
//! When all objects of the kind are to go. They can be deleted as such first; then nothing is said either.

use crate::model::validator::CONFIG_GROUPS;
use crate::model::{Backend, Object};
use crate::rules::names::few;
use crate::rules::{Check, Finding, Found, Rule, View};
use crate::snapshot::{Known, Snapshot, WhyUnknown};
use crate::wire::KINDS;

pub static RULE: Rule = Rule {
    code: "CP005",
    name: "definition-in-use",
    summary: "a definition of Istio's configuration is deleted with every object of it",
    reads: &[],
    checks: &[Check::Delete(check)],
    source: include_str!("cp005_definition_in_use.rs"),
};

const WHY: &str =
    "Kubernetes deletes all of them with it, in every namespace, and all proxies lose that configuration.";

fn check(object: &Object, view: &View<'_>) -> Found {
    let Object::Crd(definition) = object else { return Ok(Vec::new()) };
    let name = definition.meta.name.as_str();
    let Some((plural, group)) = name.split_once('.').filter(|(_, group)| CONFIG_GROUPS.contains(group)) else {
        return Ok(Vec::new());
    };
    let cluster = view.before();
    let planes = planes(cluster)?;
    if planes.is_empty() {
        return Ok(Vec::new());
    }
    let running: Vec<&str> = planes.iter().map(String::as_str).collect();
    let reads = if running.len() == 1 { "reads" } else { "read" };
    let running = few(&running);
    let keep = format!(
        "kubectl get {name} -A -o yaml > {plural}.yaml\n(keep that, and leave the definition until the last control plane is gone)"
    );
    let Some(row) = KINDS.iter().find(|r| r.plural == plural && r.group == group) else {
        let what = format!("deletes all {name}; {running} may read them");
        return Ok(vec![Finding::warn("metadata.name", name).says(what, WHY, keep)]);
    };
    match cluster.knows(row.kind, None) {
        Ok(()) => {}
        Err(unknown) if unknown.why == WhyUnknown::Listing => return Err(unknown),
        Err(unknown) => {
            let what = format!("deletes all {plural}; {unknown}; running: {running}");
            return Ok(vec![Finding::warn("metadata.name", name).says(what, WHY, keep)]);
        }
    }
    let objects: Vec<_> = cluster.raw(row.kind).map(Object::meta).filter(|m| !m.deleting).collect();
    let Some(first) = objects.first() else { return Ok(Vec::new()) };
    let more = if objects.len() > 1 { format!(" and {} more", objects.len() - 1) } else { String::new() };
    Ok(vec![Finding::deny("metadata.name", name).says(
        format!(
            "deleting {name} would delete {} {}/{}{more}, which {running} {reads}.",
            row.name, first.namespace, first.name
        ),
        WHY,
        keep,
    )])
}

/// Control planes that are installed, here or elsewhere.
fn planes(cluster: &Snapshot) -> Known<Vec<String>> {
    let mut found: Vec<String> = cluster
        .istiods()?
        .filter(|w| !w.meta.deleting)
        .filter_map(crate::model::Workload::istiod_revision)
        .map(|r| r.to_string())
        .collect();
    let remote = cluster.injectors()?.hooks().filter(|h| h.istio && matches!(h.backend, Backend::Url(_)));
    found.extend(remote.filter_map(|h| h.revision.as_ref()).map(ToString::to_string));
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    /// The groups are those of the table, so that what is counted is what a definition stands for.
    #[test]
    fn every_kind_of_istios_configuration_is_counted() {
        for row in KINDS.iter().filter(|r| CONFIG_GROUPS.contains(&r.group)) {
            assert!(Kind::CONFIG.contains(&row.kind), "{}", row.name);
            assert!(!matches!(
                row.watch,
                crate::wire::kinds::Watch::Never | crate::wire::kinds::Watch::MetadataWhere(_)
            ));
        }
    }
}
