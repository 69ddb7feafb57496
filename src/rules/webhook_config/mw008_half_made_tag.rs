//! # MW008 half-made-tag
//!
//! ## What
//! A tag is a webhook configuration, since Istio 1.28 also a Service, and for `default` a validator. istioctl writes them one
//! after the other, so that a command that was cut off leaves a half:
//!
//! * the webhook configuration and the Service lead to different revisions, or only the Service is there: error;
//! * the Service is missing (only where the control plane is known to be 1.28 or newer, and not for tags of Helm): warning;
//! * the tag `default` has no validator although control planes have theirs: warning.
//!
//! ## Why
//! Pods are injected by what the webhook configuration says, istiod believes the Service: proxies and configuration end up
//! with different control planes. Without the webhook configuration nobody injects who asks for the tag.
//!
//! ## What to do
//! `istioctl tag set TAG --revision REVISION --overwrite` writes all of it; `istioctl tag remove TAG` removes it.
//!
//! ## Repair
//! What is missing is made after the half that is there, if its control plane answers. Of two halves that disagree, the one
//! whose control plane does not run follows the other. A Service that is left alone, and that nobody asks for, is removed.
//!
//! ## When to allow
//! When something else than istioctl keeps tags, and only one half of them.

use serde_json::{Value, json};

use super::scene::{self, DEFAULT_VALIDATOR, Home, Scene, injector, validator};
use crate::model::{Backend, Id, InjectorConfig, Kind, RevisionName, Service, Version, key};
use crate::rules::{Change, Check, Flaw, Level, Policy, Repair, Rule};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "MW008",
    name: "half-made-tag",
    summary: "the parts of a revision tag disagree, or one of them is missing",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("mw008_half_made_tag.rs"),
};

/// The first version whose istioctl and chart make a Service for a tag.
const WITH_SERVICE: Version = Version::new(1, 28);

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    cluster.knows(Kind::Service, None)?;
    let mut flaws = Vec::new();
    // MW004 speaks of a tag with the name of a revision, which is not to be completed.
    for tag in cluster.tags().into_iter().filter(|t| !scene.is_taken(t)) {
        let hooks: Vec<&InjectorConfig> =
            cluster.injector_configs().filter(|c| c.meta.labels.is(key::TAG, &tag)).collect();
        let services: Vec<&Service> = cluster.services()?.filter(|s| s.meta.labels.is(key::TAG, &tag)).collect();
        match (hooks.as_slice(), services.as_slice()) {
            ([hook], [service]) => flaws.extend(disagreement(&scene, &tag, hook, service)),
            ([], [service]) => flaws.extend(without_webhooks(&scene, &tag, service)),
            ([hook], []) => flaws.extend(without_service(&scene, &tag, hook)),
            // The same tag in two namespaces, or one of Sail's that is still to be made.
            _ => {}
        }
        if let (true, [hook]) = (tag == "default", hooks.as_slice()) {
            flaws.extend(without_validator(&scene, hook));
        }
    }
    Ok(flaws)
}

fn service_id(service: &Service) -> Id {
    Id { kind: Kind::Service, namespace: service.meta.namespace.clone(), name: service.meta.name.clone() }
}

fn set(tag: &str, revision: &RevisionName) -> String {
    format!("istioctl tag set {tag} --revision {revision} --overwrite")
}

fn disagreement(scene: &Scene<'_>, tag: &str, hook: &InjectorConfig, service: &Service) -> Option<Flaw> {
    let (by_hook, by_service) = (hook.revision()?, RevisionName::new(service.meta.labels.value(key::REV)?));
    if by_hook == by_service {
        return None;
    }
    let (home_of_hook, home_of_service) = (scene.home(&by_hook), scene.home(&by_service));
    let to = if home_of_hook.is_none() && home_of_service.is_some() { &by_service } else { &by_hook };
    // MW002 leads a webhook configuration away from a Service that is gone.
    let dangling = hook.hooks.iter().any(|h| h.istio && scene.cluster.answers(&h.backend).is_ok_and(scene::is_dead));
    let repair = match (home_of_hook, home_of_service) {
        (None, Some(home)) if !scene.is_running(&by_hook) && !dangling => {
            let says = format!("tag {tag}: {} follows its Service to {by_service}", hook.meta.name);
            Some(scene::patch(injector(&hook.meta.name), scene::retarget(hook, &by_service, &home), says))
        }
        (Some(_), None) if !scene.is_running(&by_service) => follow(scene, tag, service, &by_hook),
        _ => None,
    };
    let flaw = Flaw::of(Level::Error, injector(&hook.meta.name), format!("{by_hook}/{by_service}")).says(
        format!("tag {tag} leads to {by_hook} by its webhooks and to {by_service} by Service {}.", service.meta.name),
        "pods are injected by the one, and istiod takes configuration for the other.",
        format!("{}\n(or {by_service}, whichever is meant)", set(tag, to)),
    );
    Some(flaw.with(repair))
}

/// A tag's Service as that of another revision.
fn follow(scene: &Scene<'_>, tag: &str, service: &Service, revision: &RevisionName) -> Option<Repair> {
    let own = istiod(scene, revision)?;
    let operations = vec![
        scene::relabel(&service.meta.labels, revision),
        crate::rules::Patch::Add { path: "/spec/selector".into(), value: labels(&own.selector) },
    ];
    let says = format!("tag {tag}: Service {} follows the webhooks to {revision}", service.meta.name);
    Some(scene::patch(service_id(service), operations, says))
}

/// The Service of a revision's istiod.
fn istiod<'a>(scene: &Scene<'a>, revision: &RevisionName) -> Option<&'a Service> {
    let home = scene.home(revision)?;
    let service = scene.cluster.service(&home.namespace, &home.name).ok()??;
    (!service.selector.is_empty()).then_some(service)
}

fn labels(of: &crate::model::Labels) -> Value {
    Value::Object(of.iter().map(|(k, v)| (k.to_string(), json!(v))).collect())
}

fn without_webhooks(scene: &Scene<'_>, tag: &str, service: &Service) -> Option<Flaw> {
    let revision = RevisionName::new(service.meta.labels.value(key::REV).unwrap_or(""));
    // Whoever asks is answered by a revision of that name (MW004), or by the unnamed one.
    let served = scene.injectors.serves(tag) || tag == "default" && scene.injectors.default_hook().is_some();
    let sail = scene.cluster.sails(Kind::SailTag).any(|t| t.meta.name == tag);
    if served || sail {
        return None;
    }
    let usage = scene.cluster.asking_for(tag);
    let asked = usage.uses.len() + usage.idle.len();
    let delete = || {
        let says = format!("tag {tag}: Service {} is removed; it was all that was left", service.meta.name);
        let free = asked == 0 && usage.unknown.is_empty() && service.meta.helm_release().is_none();
        free.then(|| Repair { object: service_id(service), change: Change::Delete, says })
    };
    let (fix, repair) = match scene.home(&revision) {
        Some(home) if asked > 0 => {
            let name = format!("istio-revision-tag-{tag}");
            let says = format!("tag {tag}: {name} is made, leading to {revision} as its Service does");
            let create = Change::Create(webhooks(&name, tag, &revision, &home));
            // Where the default leads its validator must lead, too: VW005 would speak next.
            let judged = scene.default_validator().is_none_or(|j| j.serving.as_ref() == Some(&revision));
            let repair = Repair { object: injector(&name), change: create, says };
            (set(tag, &revision), (tag != "default" || judged).then_some(repair))
        }
        Some(_) => (format!("istioctl tag remove {tag}\n(or {})", set(tag, &revision)), delete()),
        // Its istiod may only be starting again.
        None if scene.is_running(&revision) => (set(tag, &revision), None),
        None => {
            (format!("istioctl tag remove {tag}"), delete().filter(|_| scene::is_forgotten(scene.cluster, &revision)))
        }
    };
    let users = if asked == 0 { "nobody asks for it" } else { "pods that ask for it start without a sidecar" };
    let flaw = Flaw::of(Level::Error, service_id(service), format!("{tag} without webhooks")).says(
        format!("tag {tag} has Service {} and no webhook configuration; {users}.", service.meta.name),
        "nobody injects pods that ask for the tag, while istiod believes that it leads somewhere.",
        fix,
    );
    Some(flaw.with(repair))
}

/// The configuration that `istioctl tag set` makes. istiod fills in the CA bundle of what carries its revision.
fn webhooks(name: &str, tag: &str, revision: &RevisionName, home: &Home) -> Value {
    let none = |key: &str| json!({"key": key, "operator": "DoesNotExist"});
    let one = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
    let allowed = json!({"key": key::INJECT, "operator": "NotIn", "values": ["false"]});
    let mut all = vec![
        ("rev.namespace.", vec![one(key::REV, tag), none(key::INJECTION)], vec![allowed.clone()]),
        ("rev.object.", vec![none(key::REV), none(key::INJECTION)], vec![allowed.clone(), one(key::REV, tag)]),
    ];
    if tag == "default" {
        let wanted = vec![one(key::INJECT, "true"), none(key::REV)];
        all.push(("namespace.", vec![one(key::INJECTION, "enabled")], vec![allowed]));
        all.push(("object.", vec![none(key::INJECTION), none(key::REV)], wanted));
    }
    let webhook = |(prefix, namespaces, objects): (&str, Vec<Value>, Vec<Value>)| {
        json!({
            "name": format!("{prefix}sidecar-injector.istio.io"),
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service":
                {"namespace": home.namespace, "name": home.name, "path": "/inject", "port": 443}},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "namespaceSelector": {"matchExpressions": namespaces},
            "objectSelector": {"matchExpressions": objects},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": name,
            "labels": {"app": "sidecar-injector", key::REV: revision.as_str(), key::TAG: tag},
        },
        "webhooks": all.into_iter().map(webhook).collect::<Vec<_>>(),
    })
}

fn without_service(scene: &Scene<'_>, tag: &str, hook: &InjectorConfig) -> Option<Flaw> {
    let revision = hook.revision()?;
    let new = scene.cluster.version_of(&revision).is_some_and(|v| v >= WITH_SERVICE);
    if !new || hook.meta.helm_release().is_some() || scene.cluster.sails(Kind::SailTag).any(|t| t.meta.name == tag) {
        return None;
    }
    let home = scene.home(&revision)?;
    let own = istiod(scene, &revision)?;
    let name = format!("istiod-revision-tag-{tag}");
    let taken = scene.cluster.get(Kind::Service, &home.namespace, &name).is_some();
    let repair = (!taken && name.len() <= 63).then(|| {
        let id = Id { kind: Kind::Service, namespace: home.namespace.as_str().into(), name: name.as_str().into() };
        let says = format!("tag {tag}: Service {name} is made, leading to {revision} as its webhooks do");
        Repair { object: id, change: Change::Create(tag_service(&name, tag, &revision, own)), says }
    });
    let flaw = Flaw::of(Level::Warning, injector(&hook.meta.name), format!("{tag} without service")).says(
        format!("tag {tag} has webhooks and no Service {name}."),
        "what looks a tag up by its Service (remote clusters, istiod itself) does not find it.",
        set(tag, &revision),
    );
    Some(flaw.with(repair))
}

/// The Service that `istioctl tag set` makes.
fn tag_service(name: &str, tag: &str, revision: &RevisionName, istiod: &Service) -> Value {
    let port = |name: &str, port: u16, target: u16| json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"});
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": istiod.meta.namespace,
            "labels": {"app": "istiod", "istio": "pilot", key::REV: revision.as_str(), key::TAG: tag},
        },
        "spec": {
            "selector": labels(&istiod.selector),
            "ports": [
                port("grpc-xds", 15010, 15010),
                port("https-dns", 15012, 15012),
                port("https-webhook", 443, 15017),
                port("http-monitoring", 15014, 15014),
            ],
        },
    })
}

fn without_validator(scene: &Scene<'_>, hook: &InjectorConfig) -> Option<Flaw> {
    let exists = scene.cluster.get(Kind::ValidatingWebhook, "", DEFAULT_VALIDATOR).is_some();
    let outside = hook.hooks.iter().any(|h| h.istio && !matches!(h.backend, Backend::Service { .. }));
    if exists || outside || !scene.validates() || scene.catch_alls().next().is_some() {
        return None;
    }
    let revision = hook.revision()?;
    let home = scene.home(&revision);
    let repair = home.map(|home| {
        let says = format!("{DEFAULT_VALIDATOR} is made, leading to {revision} as the tag default does");
        let create = Change::Create(default_validator(&revision, &home));
        Repair { object: validator(DEFAULT_VALIDATOR), change: create, says }
    });
    let flaw = Flaw::of(Level::Warning, injector(&hook.meta.name), "no validator").says(
        format!("the tag default leads to {revision}, and no validator judges what names no revision."),
        "mistakes in VirtualServices, Gateways and the like are only found by the proxies that they break.",
        set("default", &revision),
    );
    Some(flaw.with(repair))
}

/// The configuration that `istioctl tag set default` makes: `Ignore` until istiod has filled in its CA bundle and seen that
/// validation works.
fn default_validator(revision: &RevisionName, home: &Home) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {
            "name": DEFAULT_VALIDATOR,
            "labels": {"app": "istiod", "istio": "istiod", key::REV: revision.as_str(), key::TAG: "default"},
        },
        "webhooks": [{
            "name": "validation.istio.io",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": home.namespace, "name": home.name, "path": "/validate"}},
            "failurePolicy": "Ignore",
            "sideEffects": "None",
            "objectSelector": {"matchExpressions": [{"key": key::REV, "operator": "DoesNotExist"}]},
            "rules": [{
                "apiGroups": crate::model::validator::CONFIG_GROUPS,
                "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["*"],
            }],
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Object;
    use crate::wire::manifest;

    /// What is made reads as what it is to be.
    #[test]
    fn a_made_tag_is_a_tag_and_answers_to_its_name_alone() {
        let home = Home { namespace: "istio-system".into(), name: "istiod-1-24".into(), ca: Default::default() };
        let made = webhooks("istio-revision-tag-prod", "prod", &RevisionName::new("1-24"), &home).to_string();
        let read = manifest::read("made", &made, "default");
        let [document] = read.documents.as_slice() else { panic!("{:?}", read.problems) };
        let Object::Injector(config) = &document.object else { panic!("{:?}", document.object) };
        let injectors = crate::model::Injectors::new(std::iter::once(&**config));
        assert!(injectors.serves("prod") && injectors.default_hook().is_none());
        assert_eq!(injectors.names().tags, ["prod"]);
    }
}
