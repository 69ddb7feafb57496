//! The two control planes.

use super::selectors::acknowledged;
use super::{Found, Guard, Scene};
use crate::model::version::bare;
use crate::model::{ConfigMap, RevisionName, Version};
use crate::rollout::read::json::Json;
use crate::rollout::read::plane::serves;
use crate::rollout::read::{Listed, apart};
use crate::rollout::seen::Severity;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "ToRevisionIsTag",
        summary: "spec.toRevision names a tag, which may lead elsewhere tomorrow",
        worst: Severity::Block,
        acknowledge: false,
        check: tag,
    },
    Guard {
        name: "RevisionUnknown",
        summary: "no control plane of the new revision is installed, or it cannot be told which one the gateway comes from",
        worst: Severity::Block,
        acknowledge: false,
        check: unknown,
    },
    Guard {
        name: "ControlPlaneNotReady",
        summary: "nobody answers behind the Service of one of the two control planes",
        worst: Severity::Block,
        acknowledge: false,
        check: not_ready,
    },
    Guard {
        name: "VersionMismatch",
        summary: "the new control plane is not of the version that spec.toVersion says",
        worst: Severity::Block,
        acknowledge: false,
        check: mismatch,
    },
    Guard {
        name: "VersionSkew",
        summary: "the two control planes are more than one minor version apart (more than two block)",
        worst: Severity::Block,
        acknowledge: true,
        check: skew,
    },
    Guard {
        name: "RootMismatch",
        summary: "the control planes, or the gateway's namespace, do not trust the same root certificate",
        worst: Severity::Block,
        acknowledge: false,
        check: root,
    },
];

fn is_tag(scene: &Scene<'_>) -> bool {
    !scene.seen.to.installed && (scene.known.is_tag(scene.to()) || scene.fresh.is_tag(scene.to()))
}

fn tag(scene: &Scene<'_>) -> Vec<Found> {
    if !is_tag(scene) {
        return Vec::new();
    }
    let to = scene.to();
    // It may have come after the last look at the mesh.
    let behind = [&scene.fresh, scene.known].into_iter().find_map(|mesh| mesh.revision_behind(to).ok().flatten());
    let leads = behind.map_or_else(|| "REVISION".to_owned(), |r| r.to_string());
    vec![Found::block(scene.rollout()).says(
        format!("spec.toRevision {to} is a tag, which leads to {leads} now."),
        "a tag that is moved while the rollout lasts would mix three revisions.",
        scene.anew(&format!("toRevision: {to}"), &format!("toRevision: {leads}")),
    )]
}

fn unknown(scene: &Scene<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    if !scene.seen.to.installed && !is_tag(scene) {
        let to = scene.to();
        let offer = crate::rules::names::offer(scene.known, to);
        let leads =
            |name: &str| scene.known.revision_behind(name).ok().flatten().map_or(name.to_owned(), |r| r.to_string());
        let other = offer.map(|name| leads(&name)).filter(|r| Some(r) != scene.from.as_ref());
        let meant = other.map(|revision| {
            format!(
                "\n(or was another one meant? {})",
                scene.anew(&format!("toRevision: {to}"), &format!("toRevision: {revision}"))
            )
        });
        found.push(Found::block(scene.rollout()).says(
            format!("no control plane of revision {to} is installed {}.", scene.known.name_list()),
            "new pods would wait for a configuration that never comes.",
            format!("istioctl install --revision {to} --set profile=minimal{}", meant.unwrap_or_default()),
        ));
    }
    if scene.plan.is_some() && scene.from.is_none() {
        found.push(Found::block(scene.named()).says(
            format!("nothing tells which revision {}/{} comes from.", scene.namespace(), scene.gateway()),
            "there would be no way back.",
            format!(
                "kubectl get pods -n {} -o custom-columns=NAME:.metadata.name,REV:.metadata.annotations.istio\\.io/rev\n\
                 (and say it in spec.fromRevision of a new GatewayRollout)",
                scene.namespace()
            ),
        ));
    }
    found
}

fn not_ready(scene: &Scene<'_>) -> Vec<Found> {
    let sides = [
        (Some(scene.to()), &scene.seen.to, "new pods would wait for a configuration that never comes."),
        (
            scene.from.as_deref(),
            &scene.seen.from,
            "old pods that are made anew would never be ready: there would be no way back.",
        ),
    ];
    let mut found = Vec::new();
    for (revision, plane, why) in sides {
        let Some(revision) = revision else { continue };
        let name = RevisionName::new(revision);
        let is_to = revision == scene.to();
        // A revision that is not installed is another guard's, unless it is the way back.
        if is_to && !plane.installed {
            continue;
        }
        let trouble = if plane.installed {
            serves(&scene.fresh, &name).err()
        } else {
            Some("it is not installed any more".into())
        };
        let Some(trouble) = trouble else { continue };
        let namespace = if plane.namespace.is_empty() { "istio-system" } else { &plane.namespace };
        found.push(Found::block(format!("Service/{namespace}/{}", name.istiod())).says(
            format!("the control plane of revision {revision} takes no proxies: {trouble}."),
            why,
            format!("kubectl get deployment,endpoints {} -n {namespace}", name.istiod()),
        ));
    }
    found
}

fn mismatch(scene: &Scene<'_>) -> Vec<Found> {
    let (Some(wanted), true) = (scene.seen.rollout.spec.to_version.as_deref(), scene.seen.to.installed) else {
        return Vec::new();
    };
    let object = format!("Deployment/{}/{}", scene.seen.to.namespace, RevisionName::new(scene.to()).istiod());
    match scene.seen.to.version.as_deref() {
        Some(version) if version == bare(wanted) => Vec::new(),
        Some(version) => vec![Found::block(object).says(
            format!("the istiod of revision {} is of version {version}, and spec.toVersion is {wanted}.", scene.to()),
            "the gateway would get another version than was asked for.",
            scene.respec(&format!("{{\"toVersion\":\"{version}\"}}")),
        )],
        None => vec![Found::warn(object).says(
            format!(
                "the version of the istiod of revision {} cannot be told by its image; spec.toVersion is {wanted}.",
                scene.to()
            ),
            "it is not compared.",
            scene.respec("{\"toVersion\":null}"),
        )],
    }
}

fn skew(scene: &Scene<'_>) -> Vec<Found> {
    let version = |plane: &crate::rollout::seen::ControlPlane| plane.version.as_deref().and_then(Version::parse);
    let (Some(old), Some(new)) = (version(&scene.seen.from), version(&scene.seen.to)) else { return Vec::new() };
    let apart = new.minors_after(old).map_or(u32::MAX, i32::unsigned_abs);
    let what = format!("the gateway would go from Istio {old} to {new}.");
    let why = "proxies and configuration of versions that are further apart than one minor are not tested together; a canary may skip one.";
    match apart {
        0 | 1 => Vec::new(),
        2 => {
            vec![Found::warn(scene.rollout()).says(what, why, "go by way of the version in between, if there is time")]
        }
        _ => vec![Found::block(scene.rollout()).says(
            what,
            why,
            format!(
                "install the versions in between and move the gateway from one to the next; or accept it: {}",
                acknowledged("VersionSkew")
            ),
        )],
    }
}

/// The certificate that proxies of a namespace trust, without what an editor adds.
fn trusted(scene: &Scene<'_>, namespace: &str) -> Option<String> {
    let object = scene.raw.get(Listed::ConfigMaps, namespace, ConfigMap::ROOT_CERT)?;
    let text: String = object["data"].text("root-cert.pem").split_whitespace().collect();
    (!text.is_empty()).then_some(text)
}

fn root(scene: &Scene<'_>) -> Vec<Found> {
    let Some(plan) = &scene.plan else { return Vec::new() };
    let (home, name) = (scene.namespace(), ConfigMap::ROOT_CERT);
    let planes: Vec<&str> = [&scene.seen.to.namespace, &scene.seen.from.namespace]
        .into_iter()
        .map(|n| &**n)
        .filter(|n| !n.is_empty())
        .collect();
    let theirs: Vec<(&str, String)> = planes.iter().filter_map(|ns| Some((*ns, trusted(scene, ns)?))).collect();
    let object = apart::named(Listed::ConfigMaps, &serde_json::json!({"metadata": {"namespace": home, "name": name}}));
    let Some(own) = trusted(scene, home) else {
        // Where nobody has one, proxies may take their root from elsewhere.
        let Some((plane, _)) = theirs.first() else { return Vec::new() };
        return vec![Found::block(object).says(
            format!("namespace {home} has no ConfigMap {name}."),
            "every proxy mounts it: new pods would wait for it for ever.",
            format!(
                "kubectl logs -n {plane} deployment/{} | grep -i {home}\n(the istiod that leads writes it into every namespace that it discovers)",
                RevisionName::new(scene.to()).istiod()
            ),
        )];
    };
    let Some((plane, _)) = theirs.iter().find(|(_, cert)| *cert != own) else { return Vec::new() };
    vec![Found::block(object).says(
        format!("ConfigMap {home}/{name} holds another root certificate than {plane}/{name}."),
        format!(
            "proxies of {} would not trust the istiod of one of the two revisions, and pods on both sides not each other.",
            plan.source.name
        ),
        format!(
            "for ns in {home} {plane}; do kubectl get configmap {name} -n $ns -o jsonpath='{{.data.root-cert\\.pem}}' | openssl x509 -noout -subject -enddate; done\n\
             (give both control planes the same CA, in Secret cacerts, before a gateway moves)"
        ),
    )]
}
