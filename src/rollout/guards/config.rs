//! Configuration that old and new pods must see alike.

use super::selectors::acknowledged;
use super::{Found, Guard, Scene};
use crate::api::gateway_rollout::Flavor;
use crate::model::{Kind, Labels, Version, key};
use crate::rollout::read::Listed;
use crate::rollout::read::apart::{Selecting, selecting};
use crate::rollout::read::json::Json;
use crate::rollout::read::raw::root_namespaces;
use crate::rollout::seen::Severity;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "ConfigMapMissing",
        summary: "the mesh configuration that new pods mount is not there, or somebody's copy of it beside the gateway is another one",
        worst: Severity::Block,
        acknowledge: false,
        check: config_map,
    },
    Guard {
        name: "RevPinnedConfig",
        summary: "Istio's configuration is pinned to one of the two revisions, so that the other one's proxies do not see it",
        worst: Severity::Block,
        acknowledge: true,
        check: pinned,
    },
    Guard {
        name: "EnvoyFilterPin",
        summary: "an EnvoyFilter for this gateway applies to the old proxy version only",
        worst: Severity::Block,
        acknowledge: true,
        check: envoy_filter,
    },
    Guard {
        name: "PolicySelectorMiss",
        summary: "a policy, a Gateway or a network policy selects the old pods and not the new ones, or the other way round",
        worst: Severity::Block,
        acknowledge: true,
        check: policy,
    },
];

fn config_map(scene: &Scene<'_>) -> Vec<Found> {
    let mounts = scene.plan.as_ref().is_some_and(|p| p.flavor == Flavor::ConfigMapMount);
    let (config, to) = (&scene.seen.config, scene.to());
    if !mounts || !scene.seen.to.installed {
        return Vec::new();
    }
    let (name, plane, home) = (&config.name, &scene.seen.to.namespace, scene.namespace());
    let Some(original) = &config.original else {
        return vec![Found::block(format!("ConfigMap/{plane}/{name}")).says(
            format!("ConfigMap {plane}/{name}, the mesh configuration of revision {to}, is not there."),
            "new pods mount it to learn which istiod is theirs, and would never start.",
            format!(
                "kubectl get configmaps -n {plane} -l istio.io/rev={to}\n(the control plane's installation makes it)"
            ),
        )];
    };
    let Some(copy) = config.copy.as_ref().filter(|c| config.needed && !c.ours) else { return Vec::new() };
    let object = scene.object("ConfigMap", name);
    if copy.hash == *original {
        return vec![Found::warn(object).says(
            format!("ConfigMap {home}/{name} was copied by somebody else."),
            "it is used as it is, and nobody brings it up to date when the mesh configuration changes.",
            format!("kubectl delete configmap {name} -n {home}\n(the rollout then makes its own and keeps it current)"),
        )];
    }
    vec![Found::block(object).says(
        format!("ConfigMap {home}/{name} was made by somebody else and differs from {plane}/{name}."),
        "new pods would mount it and get another mesh configuration, perhaps another control plane.",
        format!("kubectl delete configmap {name} -n {home}\n(the rollout then makes its own and keeps it current)"),
    )]
}

/// As many names as a person reads.
const SHOWN: usize = 5;

fn pinned(scene: &Scene<'_>) -> Vec<Found> {
    let Some(from) = scene.from.as_deref().filter(|_| scene.plan.is_some()) else { return Vec::new() };
    let sees = |revision: &str| scene.known.names_of(&crate::model::RevisionName::new(revision));
    let (old, new) = (sees(from), sees(scene.to()));
    let (mut lost, mut gained) = (Vec::new(), Vec::new());
    for kind in Kind::CONFIG.iter().chain([&Kind::HttpRoute]) {
        for object in scene.known.raw(*kind) {
            let meta = object.meta();
            let Some(rev) = meta.labels.value(key::REV) else { continue };
            let by = |names: &[String]| names.iter().any(|n| n == rev);
            let place = format!("{} {}/{}", crate::wire::row(*kind).name, meta.namespace, meta.name);
            match (by(&old), by(&new)) {
                (true, false) => lost.push((place, rev.to_owned())),
                (false, true) => gained.push((place, rev.to_owned())),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    if let Some((first, rev)) = lost.first() {
        let command = relabel(first);
        found.push(Found::block(slashed(first)).says(
            format!(
                "{} pinned to {rev}, so that proxies of revision {} do not see {}.",
                several(&lost),
                scene.to(),
                them(&lost)
            ),
            "routes, filters or policies that old pods have would be missing on new ones.",
            format!(
                "{command} {}-\n(or accept it, if this gateway needs none of them: {})",
                key::REV,
                acknowledged("RevPinnedConfig")
            ),
        ));
    }
    if let Some((first, rev)) = gained.first() {
        let command = relabel(first);
        found.push(Found::warn(slashed(first)).says(
            format!("{} pinned to {rev}, so that only the new proxies see {}.", several(&gained), them(&gained)),
            "old and new pods answer differently while both serve.",
            format!("{command} {}-", key::REV),
        ));
    }
    found
}

fn several(all: &[(String, String)]) -> String {
    let names: Vec<&str> = all.iter().take(SHOWN).map(|(name, _)| name.as_str()).collect();
    let more = if all.len() > SHOWN { format!(" and {} more", all.len() - SHOWN) } else { String::new() };
    format!("{}{more} {}", names.join(", "), if all.len() == 1 { "is" } else { "are" })
}

fn them(all: &[(String, String)]) -> &'static str {
    if all.len() == 1 { "it" } else { "them" }
}

/// `Kind namespace/name` as findings name objects.
fn slashed(place: &str) -> String {
    place.replacen(' ', "/", 1)
}

/// `kubectl label KIND NAME -n NAMESPACE`
fn relabel(place: &str) -> String {
    let (kind, rest) = place.split_once(' ').unwrap_or(("", place));
    let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
    let kind = Kind::CONFIG.iter().chain([&Kind::HttpRoute]).map(|k| crate::wire::row(*k)).find(|r| r.name == kind);
    format!("kubectl label {} {name} -n {namespace}", kind.map_or_else(String::new, |r| r.kubectl()))
}

fn envoy_filter(scene: &Scene<'_>) -> Vec<Found> {
    let version = scene.seen.rollout.spec.to_version.as_deref().or(scene.seen.to.version.as_deref());
    let Some(new) = version.filter(|v| Version::parse(v).is_some() && scene.plan.is_some()) else { return Vec::new() };
    let mut places = root_namespaces(scene.raw, scene.known);
    places.insert(scene.namespace().to_owned());
    let pods = scene.shapes();
    let mut found = Vec::new();
    for filter in scene.raw.all(Listed::EnvoyFilters).iter().filter(|f| places.contains(f.namespace())) {
        let wanted = filter["spec"]["workloadSelector"].map("labels");
        let selected = |own: &Labels| wanted.is_empty() || crate::rollout::read::fresh::pairs(&wanted).matches(own);
        if !pods.iter().any(|(old, _)| selected(old)) {
            continue;
        }
        let old = scene.seen.from.version.as_deref().filter(|v| Version::parse(v).is_some());
        let Some(pattern) = unfollowed(&version_pins(filter), old, new) else { continue };
        let (name, namespace) = (filter.name(), filter.namespace());
        let what = format!(
            "EnvoyFilter {namespace}/{name} applies to proxies whose version is like {pattern}, and the new ones are {new}."
        );
        let why = "what it adds to the old proxies would be missing on the new ones.";
        let fix = format!(
            "kubectl edit envoyfilter {name} -n {namespace}\n(add a patch for the new version beside it, or drop match.proxy.proxyVersion; \
             or accept it: {})",
            acknowledged("EnvoyFilterPin")
        );
        let object = format!("EnvoyFilter/{namespace}/{name}");
        let words = if old.is_some() { Found::block(object) } else { Found::warn(object) };
        found.push(words.says(what, why, fix));
    }
    found
}

/// What a filter's patches for gateways apply to, and for which proxy versions, where they say it.
fn version_pins(filter: &serde_json::Value) -> Vec<(&str, &str)> {
    let patches = filter["spec"].list("configPatches").iter();
    let own = patches.filter(|p| matches!(p["match"].text("context"), "" | "ANY" | "GATEWAY"));
    own.map(|p| (p.text("applyTo"), p["match"]["proxy"].text("proxyVersion"))).filter(|(_, v)| !v.is_empty()).collect()
}

/// The version of a patch that surely goes with the old proxies: as many that come with the new ones, for the same place, follow those that
/// go. Of an old version that is not known, every patch that is not for the new one may be one that goes.
fn unfollowed<'a>(pins: &[(&'a str, &'a str)], old: Option<&str>, new: &str) -> Option<&'a str> {
    let for_old = |pattern: &str| old.is_none_or(|old| !excludes(pattern, old));
    let goes = |(_, pattern): &&(&str, &str)| for_old(pattern) && excludes(pattern, new);
    let comes = |(_, pattern): &&(&str, &str)| !excludes(pattern, new) && (old.is_none() || !for_old(pattern));
    let at = |place: &str, counts: &dyn Fn(&&(&str, &str)) -> bool| {
        pins.iter().filter(|pin| pin.0 == place).filter(|pin| counts(pin)).count()
    };
    let mut going = pins.iter().filter(goes);
    going.find(|(place, _)| at(place, &goes) > at(place, &comes)).map(|(_, pattern)| *pattern)
}

/// The pattern (a regular expression, found anywhere in a version) surely does not match it: each of its alternatives begins, up to the
/// first character that means more than itself, with what is not there. What begins with such a character is not judged.
fn excludes(pattern: &str, version: &str) -> bool {
    alternatives(pattern).into_iter().all(|one| {
        let (anchored, one) = one.strip_prefix('^').map_or((false, one), |rest| (true, rest));
        let literal = literal(one);
        let shorter = literal.len().min(version.len());
        // A version may be cut short.
        let begins = literal.as_bytes()[..shorter] == version.as_bytes()[..shorter];
        !literal.is_empty() && !begins && (anchored || !version.contains(&literal))
    })
}

/// The parts between the `|` that stand in no group.
fn alternatives(pattern: &str) -> Vec<&str> {
    let (mut parts, mut from, mut depth, mut escaped) = (Vec::new(), 0, 0_u32, false);
    for (at, c) in pattern.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' | '[' => depth = depth.saturating_add(1),
            ')' | ']' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => {
                parts.push(&pattern[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&pattern[from..]);
    parts
}

/// What every match of a pattern begins with.
fn literal(pattern: &str) -> String {
    let mut literal = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped) if !escaped.is_ascii_alphanumeric() => literal.push(escaped),
                _ => break,
            },
            // A point matches a point, and in a version that is what is meant.
            '.' if !matches!(chars.peek(), Some('*' | '+' | '?' | '{')) => literal.push('.'),
            c if c.is_ascii_alphanumeric() || c == '-' => literal.push(c),
            // What may be repeated may be absent.
            '*' | '?' | '{' => {
                literal.pop();
                break;
            }
            _ => break,
        }
    }
    literal
}

fn policy(scene: &Scene<'_>) -> Vec<Found> {
    let shapes = scene.shapes();
    let mut found = Vec::new();
    for one in selecting(scene.raw, scene.known) {
        let differs = shapes.iter().find(|(old, new)| one.selector.matches(old) != one.selector.matches(new));
        if let Some((old, new)) = differs {
            found.push(missed(scene, &one, old, new));
        }
    }
    found.dedup();
    found
}

fn missed(scene: &Scene<'_>, one: &Selecting, old: &Labels, new: &Labels) -> Found {
    let keys: Vec<&str> = one.selector.keys().map(|k| k.as_str()).filter(|k| old.get(k) != new.get(k)).collect();
    let (which, other) = if one.selector.matches(old) { ("old", "new") } else { ("new", "old") };
    let (kind, place) = one.object.split_once('/').unwrap_or(("", &one.object));
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    let why = match one.listed {
        Listed::AuthorizationPolicies => {
            "what an AuthorizationPolicy denies is allowed on pods that it does not select."
        }
        Listed::Gateways => "pods that a Gateway does not select have none of its listeners, and refuse its ports.",
        Listed::NetworkPolicies => {
            "connections that old pods may make or take are refused to new ones, or the other way round."
        }
        _ => "old and new pods would be configured differently.",
    };
    Found::block(&one.object).says(
        format!(
            "{kind} {namespace}/{name} selects the {which} pods of {} by {}, and not the {other} ones.",
            scene.gateway(),
            keys.join(", ")
        ),
        why,
        format!(
            "kubectl edit {} {name} -n {namespace}\n(select by labels that both have, such as {}; or accept it: {})",
            format_args!("{}.{}", one.listed.row().plural, one.listed.row().group),
            shared(old, new),
            acknowledged("PolicySelectorMiss")
        ),
    )
}

/// A label that old and new pods have in common.
fn shared(old: &Labels, new: &Labels) -> String {
    let same = |k: &str| old.get(k) == new.get(k);
    let preferred = ["istio", "app"].into_iter().find(|k| old.has(k) && same(k));
    let any = || old.iter().map(|(k, _)| k.as_str()).find(|k| same(k));
    preferred
        .or_else(any)
        .map_or_else(|| "one of your own".to_owned(), |k| format!("{k}={}", old.value(k).unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use super::excludes;

    #[test]
    fn a_pattern_is_excluded_only_where_that_is_sure() {
        for (pattern, yes) in [
            ("^1\\.23.*", true),
            ("1.23", true),
            (r"^1\.23\.5$", true),
            (r"^1\.24.*", false),
            (r"^1\.2.*", false),
            (r"^1\.(23|24).*", false),
            (r"^1\.[0-9]+", false),
            (".*", false),
            ("", false),
            (r"^2?1\.24", false),
            (r"^1\.22.*|^1\.23.*", true),
            (r"^1\.23.*|^1\.24.*", false),
            (r"^1\.23|.*", false),
            (r"24\.", false),
            (r"23\.", true),
            (r"^24\.", true),
            (r"1\.24\.2\.", false),
            (r"[|]", false),
        ] {
            assert_eq!(excludes(pattern, "1.24.2"), yes, "{pattern}");
        }
    }
}
