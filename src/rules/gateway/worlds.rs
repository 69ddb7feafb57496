//! Small worlds for the tests of audit checks.

use crate::rules::{Check, Flaw, Policy, Rule};
use crate::snapshot::Snapshot;
use crate::wire::manifest;

/// A cluster that holds exactly these manifests.
pub fn world(texts: &[&str]) -> Snapshot {
    texts.iter().fold(Snapshot::whole(), |cluster, text| {
        let read = manifest::read("world", text, "default");
        assert!(read.problems.is_empty(), "{:?}", read.problems);
        read.documents.into_iter().fold(cluster, |c, d| c.with(d.object))
    })
}

/// What a rule's audit finds there.
pub fn audited(rule: &Rule, cluster: &Snapshot, policy: &str) -> Vec<Flaw> {
    let policy = Policy::parse(policy).expect("a policy");
    let checks = rule.checks.iter().filter_map(|check| match check {
        Check::Audit(f) => Some(f),
        _ => None,
    });
    checks.flat_map(|f| f(cluster, &policy).expect("known")).collect()
}
