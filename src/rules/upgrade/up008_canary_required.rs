//! # UP008 canary-required
//!
//! ## What
//! An installation with a revision in Gloo's `IstioLifecycleManager` or `GatewayLifecycleManager` is changed in a way that Gloo
//! does not do in place:
//!
//! | changed in `istioOperatorSpec` | without a revision | with a revision |
//! |---|---|---|
//! | `tag`, a higher patch level | in place | in place |
//! | `tag`, a lower patch level | in place | canary |
//! | `tag`, another minor or major | in place | canary |
//! | `tag`, where there was none or `auto` before | in place | canary |
//! | `meshConfig` | in place | in place |
//! | `hub`, `components`, `profile`, `values`, `namespace` | in place | canary |
//!
//! With `skipUpgradeValidation: true` on the installation Gloo does all of it in place, and nothing is said. A tag that is no
//! release (`latest`) is compared as text, and its change is a warning.
//!
//! ## Why
//! Gloo rejects such a change instead of carrying it out: the object says one thing, and the clusters run another.
//!
//! ## What to do
//! Leave the entry as it is and add one with a revision of its own beside it, with `defaultRevision: false` or
//! `activeGateway: false`; move the namespaces, then switch.
//!
//! ## When to allow
//! When `skipUpgradeValidation` is set right before or after by somebody else.

use crate::model::object::Installation;
use crate::model::{Kind, Lifecycle, Release, Str};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, Severity, View};

pub static RULE: Rule = Rule {
    code: "UP008",
    name: "canary-required",
    summary: "an installation of Gloo with a revision is changed where Gloo needs a canary",
    reads: &[Field::Spec],
    checks: &[Check::Lifecycle(check)],
    source: include_str!("up008_canary_required.rs"),
};

fn check(new: &Lifecycle, old: Old<'_, Lifecycle>, view: &View<'_>) -> Found {
    let Some(old) = old.get() else { return Ok(Vec::new()) };
    let kept = new.installations.iter().filter(|i| !i.skips_validation);
    let changed = kept.filter_map(|now| {
        let revision = now.revision.as_deref()?;
        let was = former(now, &old.installations)?;
        finding(revision, was, now, new, view)
    });
    Ok(changed.collect())
}

/// The entry as it was. A revision may have an entry for each cluster; one for other clusters is another installation.
fn former<'a>(now: &Installation, old: &'a [Installation]) -> Option<&'a Installation> {
    let same = |was: &&Installation| was.revision == now.revision;
    let alike = |was: &&Installation| was.fixed == now.fixed && was.tag == now.tag;
    let shares = |was: &&Installation| was.clusters.iter().any(|a| now.clusters.iter().any(|b| a.cluster == b.cluster));
    let nowhere = |was: &&Installation| was.clusters.is_empty() || now.clusters.is_empty();
    old.iter().filter(same).find(alike).or_else(|| old.iter().filter(same).find(|was| shares(was) || nowhere(was)))
}

/// What became of a tag.
enum Tag {
    Kept,
    InPlace,
    Canary(&'static str),
    Unclear,
}

fn tag(was: Option<&str>, now: Option<&str>) -> Tag {
    let set = |tag: Option<&str>| tag.is_some_and(|t| t != "auto");
    if was == now || !set(was) && !set(now) {
        return Tag::Kept;
    }
    if !set(was) {
        return Tag::Canary("was not set before");
    }
    if !set(now) {
        return Tag::Canary("is no longer set");
    }
    match (was.and_then(Release::parse), now.and_then(Release::parse)) {
        (Some(a), Some(b)) if a.version != b.version => Tag::Canary("is of another minor"),
        (Some(a), Some(b)) if b < a => Tag::Canary("is of a lower patch level"),
        (Some(_), Some(_)) => Tag::InPlace,
        _ => Tag::Unclear,
    }
}

fn finding(
    revision: &str,
    was: &Installation,
    now: &Installation,
    lifecycle: &Lifecycle,
    view: &View<'_>,
) -> Option<Finding> {
    let part = |i: &Installation, name: &str| i.fixed.iter().find(|(n, _)| *n == name).map(|(_, text)| text.clone());
    let mut parts: Vec<String> = Installation::FOR_LIFE
        .iter()
        .filter(|name| part(was, name) != part(now, name))
        .map(|s| (*s).to_owned())
        .collect();
    let mut severity = if parts.is_empty() { Severity::Warn } else { Severity::Deny };
    let named = |tag: &Option<Str>| tag.as_deref().unwrap_or("unset").to_owned();
    match tag(was.tag.as_deref(), now.tag.as_deref()) {
        Tag::Kept | Tag::InPlace => {}
        Tag::Canary(why) => {
            severity = Severity::Deny;
            parts.insert(0, format!("tag {} (it {why})", named(&now.tag)));
        }
        Tag::Unclear => parts.insert(0, format!("tag {} (it tells no release)", named(&now.tag))),
    }
    if parts.is_empty() {
        return None;
    }
    let name = &lifecycle.meta.name;
    let switch = if view.kind() == Kind::IstioLifecycle { "defaultRevision" } else { "activeGateway" };
    let key = if view.kind() == Kind::IstioLifecycle { "revision" } else { "gatewayRevision" };
    let other = now
        .tag
        .as_deref()
        .and_then(Release::parse)
        .map(|r| r.to_string().replace('.', "-"))
        .filter(|free| !lifecycle.installations.iter().any(|i| i.revision.as_deref() == Some(free)))
        .unwrap_or_else(|| format!("{revision}-next"));
    Some(Finding::deny("spec.installations", format!("{revision}: {}", parts.join(", "))).severity(severity).says(
        format!("installation {revision} of {name} changes where Gloo needs a canary: {}.", parts.join(", ")),
        "Gloo rejects it instead of carrying it out: the object would say one thing and the clusters run another.",
        format!(
            "kubectl edit {}\n(leave installation {revision} as it was and add one: {key}: {other}, {switch}: false; or, unvalidated, set\n skipUpgradeValidation: true on installation {revision})",
            view.kubectl()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_higher_patch_level_of_a_tag_goes_in_place() {
        let of = |was, now| match tag(was, now) {
            Tag::Kept => "kept",
            Tag::InPlace => "in place",
            Tag::Canary(_) => "canary",
            Tag::Unclear => "unclear",
        };
        for (was, now, wanted) in [
            (Some("1.24.1"), Some("1.24.1"), "kept"),
            (Some("1.24.1-solo"), Some("1.24.10-solo"), "in place"),
            (Some("1.24.1"), Some("1.24.1-distroless"), "in place"),
            (Some("1.24.2"), Some("1.24.1"), "canary"),
            (Some("1.24.2"), Some("1.25.0"), "canary"),
            (Some("1.24.2"), Some("1.23.9"), "canary"),
            (None, Some("1.24.2"), "canary"),
            (Some("auto"), Some("1.24.2"), "canary"),
            (Some("1.24.2"), None, "canary"),
            (None, Some("auto"), "kept"),
            (Some("latest"), Some("1.24.2"), "unclear"),
            (Some("a"), Some("b"), "unclear"),
        ] {
            assert_eq!(of(was, now), wanted, "{was:?} -> {now:?}");
        }
    }
}
