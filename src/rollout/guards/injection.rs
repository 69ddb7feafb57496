//! Who makes the proxies of an injected gateway.

use super::selectors::acknowledged;
use super::{Found, Guard, Scene};
use crate::api::gateway_rollout::Flavor;
use crate::model::key;
use crate::rollout::objects::asking;
use crate::rollout::read::json::Json;
use crate::rollout::read::plane::{Asking, injects, serves};
use crate::rollout::read::workload::{behind, model};
use crate::rollout::seen::Severity;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "ConflictingLabels",
        summary: "the gateway's namespace says who injects, so that what the new pods ask for counts for nothing",
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
        summary: "the tag that the gateway's template asks for leads to another revision by now: old pods that are made anew are new ones",
        worst: Severity::Block,
        acknowledge: true,
        check: resolved,
    },
];

fn is_injected(scene: &Scene<'_>) -> bool {
    scene.plan.as_ref().is_some_and(|p| p.flavor == Flavor::Injected)
}

fn conflicting(scene: &Scene<'_>) -> Vec<Found> {
    let namespace = scene.namespace();
    let Ok(Some(home)) = scene.known.namespace(namespace) else { return Vec::new() };
    if !is_injected(scene) {
        return Vec::new();
    }
    let labels = &home.meta.labels;
    let object = format!("Namespace/{namespace}");
    if let Some(value) = labels.value(key::INJECTION) {
        let also = labels.value(key::REV).map(|rev| format!(" beside {}={rev}", key::REV));
        return vec![Found::block(object).says(
            format!("namespace {namespace} has {}={value}{}.", key::INJECTION, also.unwrap_or_default()),
            "that label alone decides who injects, whatever pods ask for: new pods would not be of the new revision.",
            format!("{}kubectl label namespace {namespace} {}-", keep_old(scene), key::INJECTION),
        )];
    }
    let Some(name) = labels.value(key::REV) else { return Vec::new() };
    let leads = behind(name, &scene.fresh);
    if leads == scene.to() {
        return Vec::new();
    }
    vec![Found::block(object).says(
        format!("namespace {namespace} has {}={name}, which leads to revision {leads}.", key::REV),
        "while a namespace names a revision, the label of a pod counts for nothing: new pods would be of that revision.",
        format!(
            "{}kubectl label namespace {namespace} {}-\n(other pods there that rely on the namespace's label need it on themselves first)",
            keep_old(scene),
            key::REV
        ),
    )]
}

/// The old pods must ask for their revision by themselves before the namespace stops doing it.
fn keep_old(scene: &Scene<'_>) -> String {
    let own = scene.source().and_then(|s| s.template.labels.get(key::REV));
    match (&scene.from, own) {
        (Some(from), None) => format!(
            "kubectl patch deployment {} -n {} -p '{{\"spec\":{{\"template\":{{\"metadata\":{{\"labels\":{{\"{}\":\"{from}\"}}}}}}}}}}'\n",
            scene.gateway(),
            scene.namespace(),
            key::REV
        ),
        _ => String::new(),
    }
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
    let (name, namespace) = (scene.gateway(), scene.namespace());
    let by = asked.map_or_else(|| "its namespace's label".to_owned(), |tag| format!("{}={tag}", key::REV));
    let fix = match asked {
        Some(tag) => format!("istioctl tag set {tag} --revision {from} --overwrite\n(until this rollout is over"),
        None => format!(
            "kubectl patch deployment {name} -n {namespace} -p '{{\"spec\":{{\"template\":{{\"metadata\":{{\"labels\":{{\"{}\":\"{from}\"}}}}}}}}}}'\n(this restarts its pods",
            key::REV
        ),
    };
    vec![Found::block(scene.named()).says(
        format!("{namespace}/{name} asks for its revision by {by}, which leads to {leads}; its pods are of {from}."),
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
