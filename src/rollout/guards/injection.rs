//! Who makes the proxies of an injected gateway.

use super::selectors::acknowledged;
use super::{Found, Guard, Scene};
use crate::api::gateway_rollout::Flavor;
use crate::model::key;
use crate::rollout::read::json::Json;
use crate::rollout::read::plane::{Asking, injects, serves};
use crate::rollout::read::workload::{asking, behind, model};
use crate::rollout::seen::Severity;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "ConflictingLabels",
        summary: "the gateway's namespace says who injects, so that what its pods ask for counts for nothing",
        worst: Severity::Block,
        acknowledge: false,
        check: conflicting,
    },
    Guard {
        name: "InjectorUnavailable",
        summary: "the injector of one of the two revisions would not make the proxies of the gateway's pods",
        worst: Severity::Block,
        acknowledge: false,
        check: unavailable,
    },
    Guard {
        name: "NotReResolved",
        summary: "what the gateway's template asks for leads to another revision by now: old pods that are made anew are new ones",
        worst: Severity::Block,
        acknowledge: true,
        check: resolved,
    },
];

fn is_injected(scene: &Scene<'_>) -> bool {
    scene.plan.as_ref().is_some_and(|p| p.flavor == Flavor::Injected)
}

/// A label of the namespace decides for old and new pods alike, so that one of them would be of the wrong revision.
fn conflicting(scene: &Scene<'_>) -> Vec<Found> {
    let namespace = scene.namespace();
    let Ok(Some(home)) = scene.known.namespace(namespace) else { return Vec::new() };
    if !is_injected(scene) {
        return Vec::new();
    }
    let labels = &home.meta.labels;
    let what = match (labels.value(key::INJECTION), labels.value(key::REV)) {
        (Some(value), None) => format!("{}={value}", key::INJECTION),
        (Some(value), Some(rev)) => format!("{}={value} beside {}={rev}", key::INJECTION, key::REV),
        (None, Some(rev)) => format!("{}={rev}, which leads to revision {}", key::REV, behind(rev, &scene.fresh)),
        (None, None) => return Vec::new(),
    };
    let gone: Vec<String> =
        [key::INJECTION, key::REV].into_iter().filter(|k| labels.has(k)).map(|k| format!("{k}-")).collect();
    let decided =
        scene.fresh.resolve(namespace, &scene.template).ok().and_then(|r| r.revision().map(|r| r.to_string()));
    let consequence = if decided.as_deref() == Some(scene.to()) {
        "old pods that are made anew would be of the new revision: there would be no way back."
    } else {
        "new pods would not be of the new revision."
    };
    vec![Found::block(format!("Namespace/{namespace}")).says(
        format!("namespace {namespace} has {what}."),
        format!("that label alone decides who injects, whatever pods ask for: {consequence}"),
        freed(scene, &gone.join(" "), decided.as_deref()),
    )]
}

/// How the namespace's labels go. Old pods ask for their revision by themselves before it does; after it, if what it leads to now would
/// make them of another one.
fn freed(scene: &Scene<'_>, gone: &str, decided: Option<&str>) -> String {
    let namespace = scene.namespace();
    let bare = format!("kubectl label namespace {namespace} {gone}");
    let others = "other pods there that rely on the namespace's label need one of their own first";
    match (&scene.from, scene.source().and_then(|s| s.template.labels.get(key::REV))) {
        (Some(from), None) => {
            let own = labelled(scene, from);
            let (first, then) = if decided == Some(from) { (own, bare) } else { (bare, own) };
            format!("{first}\n{then}\n(this restarts the gateway's pods; {others})")
        }
        _ => format!("{bare}\n({others})"),
    }
}

/// The gateway's template asks for a revision by itself.
fn labelled(scene: &Scene<'_>, revision: &str) -> String {
    format!(
        "kubectl patch deployment {} -n {} -p '{{\"spec\":{{\"template\":{{\"metadata\":{{\"labels\":{{\"{}\":\"{revision}\"}}}}}}}}}}'",
        scene.gateway(),
        scene.namespace(),
        key::REV
    )
}

fn unavailable(scene: &Scene<'_>) -> Vec<Found> {
    if !is_injected(scene) || !conflicting(scene).is_empty() {
        return Vec::new();
    }
    let old = scene.source().map(|s| &s.template.body);
    let sides = [(Some(scene.to()), Some(&scene.new), "new"), (scene.from.as_deref(), old, "old")];
    let mut found = Vec::new();
    for (revision, body, which) in sides {
        let (Some(revision), Some(body)) = (revision, body) else { continue };
        let name = crate::model::RevisionName::new(revision);
        // Without an istiod there is no injector either, and that is another guard's.
        if serves(&scene.fresh, &name).is_err() {
            continue;
        }
        let template = model(&asking(body, revision));
        let asked = Asking { revision, flavor: Some(Flavor::Injected), template: &template };
        let side = if which == "new" { &scene.seen.to } else { &scene.seen.from };
        let plane = if side.namespace.is_empty() { "istio-system" } else { &side.namespace };
        let Err(why) = injects(scene.raw, &scene.fresh, &asked) else { continue };
        let consequence = match which {
            "new" => "new pods would be refused, or come without a proxy.",
            _ => "old pods that are made anew would be refused or come without a proxy: there would be no way back.",
        };
        found.push(Found::block(scene.named()).says(
            format!("proxies of {which} pods (revision {revision}) cannot be made: {why}."),
            consequence,
            format!(
                "kubectl get mutatingwebhookconfigurations -l istio.io/rev={revision}\n\
                 kubectl logs -n {plane} deployment/{} | grep -i webhook\n\
                 (the control plane's installation makes its injector, and its istiod fills in the certificate)",
                name.istiod()
            ),
        ));
    }
    found
}

fn resolved(scene: &Scene<'_>) -> Vec<Found> {
    let (Some(source), Some(from)) = (scene.source().filter(|_| is_injected(scene)), &scene.from) else {
        return Vec::new();
    };
    let Some(leads) = source.template.revision.as_deref().filter(|r| r != from) else { return Vec::new() };
    let asked = source.template.labels.get(key::REV).map(String::as_str);
    // A template that names the revision itself is an update in place, of which another guard speaks.
    if asked == Some(leads) || !scene.ready().any(|p| p.revision.as_deref() == Some(from)) {
        return Vec::new();
    }
    // While the namespace decides, what the template asks for counts for nothing, and a restart would move the pods.
    if !conflicting(scene).is_empty() {
        return Vec::new();
    }
    let named = format!("{}/{}", scene.namespace(), scene.gateway());
    let (what, fix) = match asked {
        Some(tag) => (
            format!(
                "{named} asks for its revision by {}={tag}, which leads to {leads}; its pods are of {from}.",
                key::REV
            ),
            format!("istioctl tag set {tag} --revision {from} --overwrite\n(until this rollout is over"),
        ),
        None => (
            format!(
                "{named} names no revision and gets the default injector's, which is {leads} by now; its pods are of {from}."
            ),
            format!("{}\n(this restarts its pods", labelled(scene, from)),
        ),
    };
    vec![Found::block(scene.named()).says(
        what,
        format!("an old pod that is made anew is of {leads}, so that going back by scaling it up does not lead back."),
        format!("{fix}; or accept it: {})", acknowledged("NotReResolved")),
    )]
}

/// Whether a pod that the API server made in a dry-run is what the rollout expects of its injector; why not.
pub fn wrongly_injected(pod: &serde_json::Value, to: &str) -> Option<String> {
    let containers = pod["spec"].list("containers").iter().chain(pod["spec"].list("initContainers"));
    let image = { containers }.find(|c| c.text("name") == crate::model::workload::PROXY).map(|c| c.text("image"));
    match image {
        None => return Some("it has no proxy".to_owned()),
        Some("auto") => return Some("its image is still the word auto: nothing injected it".to_owned()),
        Some(_) => {}
    }
    let status: serde_json::Value = serde_json::from_str(pod.annotation(key::STATUS).unwrap_or("")).unwrap_or_default();
    let by = pod.annotation(key::REV).unwrap_or_else(|| status.text("revision"));
    let by = if by.is_empty() { "default" } else { by };
    (by != to).then(|| format!("it was injected by revision {by}, not {to}"))
}
