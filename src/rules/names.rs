//! Names of control planes in findings: whether anybody serves a name, and which name to offer instead.
//!
//! Selectors are evaluated, never restated: a name is served if a live webhook's selectors take pods that ask for it.

use super::Severity;
use crate::model::injector::DEFAULT_INJECTOR;
use crate::model::{Labels, RevisionName, Str, key};
use crate::snapshot::mesh::Answers;
use crate::snapshot::{Known, Snapshot, Unknown, WhyUnknown};

/// A name that no live injector serves.
pub struct Unserved {
    /// Only where others are served and nothing announces this one is it surely a mistake.
    pub severity: Severity,
    /// What names it as a control plane or tag to come, in words.
    pub announced: Option<String>,
    /// Some other name is served.
    pub others: bool,
}

/// Nobody serves pods that ask for `name` (or [`DEFAULT_INJECTOR`]) in a namespace of the labels `around`. The cluster must
/// be the one without the object that asks, which is no evidence for itself.
pub fn unserved(cluster: &Snapshot, name: &str, around: &Labels) -> Known<Option<Unserved>> {
    let injectors = cluster.injectors()?;
    if !injectors.serving(name, around).is_empty() {
        return Ok(None);
    }
    let announced = cluster.announced(plain(name));
    let others = injectors.any_live();
    let severity = if others && announced.is_none() { Severity::Deny } else { Severity::Warn };
    Ok(Some(Unserved { severity, announced, others }))
}

/// The name as a person writes it.
pub fn plain(name: &str) -> &str {
    if name == DEFAULT_INJECTOR { "default" } else { name }
}

/// A name to ask for in place of `wrong`: the most alike of those whose control plane answers and stays, else the first
/// tag, which outlives upgrades, else the first revision.
pub fn offer(cluster: &Snapshot, wrong: &str) -> Option<Str> {
    let mut names = cluster.injectors().ok()?.names();
    for list in [&mut names.tags, &mut names.revisions] {
        list.retain(|n| n.as_str() != wrong && is_sound(cluster, n));
    }
    names.nearest(wrong).or_else(|| names.all().next()).cloned()
}

/// A control plane answers behind the name, and it is to stay.
pub fn is_sound(cluster: &Snapshot, name: &str) -> bool {
    let Ok(injectors) = cluster.injectors() else { return false };
    let hooks = injectors.serving(name, &Labels::default());
    hooks.last().is_some_and(|hook| {
        let silent = matches!(cluster.answers(&hook.backend), Ok(Answers::Missing | Answers::Nobody));
        !silent && hook.revision.as_ref().is_none_or(|r| retiring(cluster, r).is_none())
    })
}

/// The control plane of the newest version; of equals, and of those without one, the last by name.
pub fn newest<'a>(
    cluster: &Snapshot,
    revisions: impl IntoIterator<Item = &'a RevisionName>,
) -> Option<&'a RevisionName> {
    let planes = cluster.control_planes().unwrap_or_default();
    revisions.into_iter().max_by_key(|r| (planes.get(*r).and_then(|plane| plane.version), *r))
}

/// The istiod Deployment of a revision that is to go, if every one of them is.
pub fn retiring(cluster: &Snapshot, revision: &RevisionName) -> Option<String> {
    let own = cluster.istiods().ok()?.filter(|w| w.istiod_revision().as_ref() == Some(revision));
    let mut first = None;
    for istiod in own {
        if !istiod.meta.annotations.has(key::RETIRING) {
            return None;
        }
        first.get_or_insert_with(|| format!("{}/{}", istiod.meta.namespace, istiod.meta.name));
    }
    first
}

/// A question whose answer helps but is not needed: unknown for good is `None`, unknown for a moment stays an error.
pub fn if_known<T>(answer: Known<T>) -> Result<Option<T>, Unknown> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(unknown) if unknown.why == WhyUnknown::Listing => Err(unknown),
        Err(_) => Ok(None),
    }
}

/// Up to three names, and how many more there are.
pub fn few(names: &[&str]) -> String {
    match names.len() {
        0..=3 => names.join(", "),
        n => format!("{}, {} more", names[..3].join(", "), n - 3),
    }
}
