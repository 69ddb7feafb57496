//! The command that installs one more control plane, with the tool by which those came that are there.
//!
//! Decides neither whether one is needed nor of which version it has to be; that is the rules' part.

use super::{Operation, View};
use crate::model::{Kind, Meta, RevisionName, Version};

/// Installs `version` as a revision of its own, named after it, beside control plane `other`. What is written counts for how: a file of
/// istioctl's, of Sail's or of Gloo's; otherwise how `other` came into the cluster.
pub fn beside(other: &RevisionName, version: Version, view: &View<'_>) -> String {
    let (object, named) = (view.kubectl(), named(version));
    match view.kind() {
        Kind::IstioLifecycle => format!(
            "kubectl edit {object}\n\
             (add an installation: revision: {named}, a tag of {version}, defaultRevision: false)"
        ),
        Kind::SailIstio if view.operation != Operation::Create => format!(
            "kubectl patch {object} --type merge -p \
             '{{\"spec\":{{\"version\":\"v{version}-latest\",\"updateStrategy\":{{\"type\":\"RevisionBased\"}}}}}}'"
        ),
        Kind::SailIstio | Kind::SailRevision => format!("in the manifest: spec.version: v{version}-latest"),
        Kind::IstioOperator => by_istioctl(version),
        _ => as_it_came(other, version, view),
    }
}

fn as_it_came(other: &RevisionName, version: Version, view: &View<'_>) -> String {
    let istiods = view.before().istiods();
    let istiod = istiods.ok().and_then(|mut all| all.find(|w| w.istiod_revision().as_ref() == Some(other)));
    let Some(meta) = istiod.map(|istiod| &istiod.meta) else { return by_istioctl(version) };
    match meta.helm_release() {
        _ if is_of_sail(meta) => format!(
            "kubectl edit istios.sailoperator.io\n\
             (spec.version: v{version}-latest, with spec.updateStrategy.type: RevisionBased)"
        ),
        // What a mesh was given (hub, trust domain, meshConfig) its next control plane needs as well; pinned, the old version too.
        Some((release, namespace)) => format!(
            "helm get values {release} -n {namespace} -o yaml >{release}-values.yaml\n\
             (take global.tag and revisionTags out of that file, where they are in it: they belong to {release})\n\
             helm install istiod-{named} istio/istiod -n {namespace} --version {version} -f {release}-values.yaml \
             --set-string revision={named}",
            named = named(version)
        ),
        None => by_istioctl(version),
    }
}

fn by_istioctl(version: Version) -> String {
    format!("istioctl install --revision {} --set profile=minimal\n(with the istioctl of {version})", named(version))
}

/// Upgrades a release to a version of its chart. `--reuse-values` would keep the defaults of the old chart, and with them its image.
pub fn upgrade(release: &str, chart: &str, namespace: &str, version: &str) -> String {
    format!("helm upgrade {release} {chart} -n {namespace} --version {version} --reset-then-reuse-values")
}

/// How a revision is named after its version: `1-24`.
pub fn named(version: Version) -> String {
    format!("{}-{}", version.major, version.minor)
}

/// Sail's operator installs by Helm's library, which marks what it writes like a release of Helm's own; what is deleted of it comes back
/// by itself.
pub fn is_of_sail(meta: &Meta) -> bool {
    meta.owner.as_deref().is_some_and(|owner| owner.kind == "IstioRevision")
}
