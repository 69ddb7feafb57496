//! # MW004 tag-named-like-revision
//!
//! ## What
//! A tag has the name of a revision that exists. `default` is meant to be both, and is not spoken of.
//!
//! ## Why
//! Whoever asks for the revision gets what the tag points to, and is injected by both (MW001). istioctl refuses to make such
//! a tag; `--overwrite`, `tag generate`, and a revision that comes later do not.
//!
//! ## What to do
//! `istioctl tag set OTHER --revision REVISION`, relabel who asks for the tag, `istioctl tag remove TAG`.
//!
//! ## When to allow
//! Never; rename one of the two.

use crate::model::{Id, Kind};
use crate::rules::{Check, Flaw, Level, Policy, Rule, tags};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "MW004",
    name: "tag-named-like-revision",
    summary: "a revision tag has the name of an existing revision",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("mw004_tag_named_like_revision.rs"),
};

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let revisions = cluster.revisions()?;
    let mut flaws = Vec::new();
    for tag in cluster.tags().iter().filter(|t| *t != "default" && revisions.iter().any(|r| r.as_str() == *t)) {
        let marked = [Kind::MutatingWebhook, Kind::Service].into_iter().flat_map(|k| cluster.raw(k));
        let by_label = { marked }.find(|o| o.meta().labels.is(crate::model::key::TAG, tag)).map(|o| o.id());
        let object =
            by_label.unwrap_or_else(|| Id { kind: Kind::SailTag, namespace: "".into(), name: tag.as_str().into() });
        let target = cluster.revision_behind(tag)?.map_or_else(|| "REVISION".to_owned(), |r| r.to_string());
        flaws.push(Flaw::of(Level::Error, object, tag.as_str()).says(
            format!("tag {tag} has the name of revision {tag}."),
            "whoever asks for the revision gets what the tag points to.",
            tags::rename(cluster, tag, &target),
        ));
    }
    Ok(flaws)
}
