//! # UP006 base-first
//!
//! ## What
//! A control plane is installed or upgraded to a newer minor than that of Istio's custom resource definitions, as far as those
//! tell: by the label that istioctl writes (`operator.istio.io/version`), or the base chart's (`app.kubernetes.io/version`, from 1.24).
//! Where definitions tell nothing, the default validator of the base chart is asked. A build without a version (1.0.0) says nothing.
//!
//! An IstioOperator that installs the base itself, which is the default, brings its definitions along.
//!
//! ## Why
//! Definitions of one minor serve the control plane of the next, and of the one before. A control plane that is newer than its
//! definitions watches kinds and fields that are not there: what is written in them is dropped or refused.
//!
//! ## What to do
//! Upgrade the base first; it does not touch any control plane that runs.
//!
//! ## When to allow
//! Where definitions are applied by hand from the release and keep the old labels.

use super::moves::{self, Move};
use crate::model::{Kind, Labels, Object, Operator, Sail, Version, Workload};
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View, install};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "UP006",
    name: "base-first",
    summary: "a control plane becomes newer than Istio's custom resource definitions",
    reads: &[Field::Spec],
    checks: &[Check::Operator(operator), Check::Sail(sail), Check::Workload(istiod)],
    source: include_str!("up006_base_first.rs"),
};

fn operator(new: &Operator, old: Old<'_, Operator>, view: &View<'_>) -> Found {
    if new.has_base() {
        return Ok(Vec::new());
    }
    judge(moves::of_operator(new, old.get(), view)?, view)
}

fn sail(new: &Sail, old: Old<'_, Sail>, view: &View<'_>) -> Found {
    judge(moves::of_sail(new, old.get(), view)?, view)
}

fn istiod(new: &Workload, old: Old<'_, Workload>, view: &View<'_>) -> Found {
    if !new.is_istiod() {
        return Ok(Vec::new());
    }
    judge(moves::of_istiod(new, old.get(), view)?, view)
}

fn judge(step: Option<Move>, view: &View<'_>) -> Found {
    let Some(Move { revision, to, field, .. }) = step else { return Ok(Vec::new()) };
    let Some(base) = base(view.cluster())? else { return Ok(Vec::new()) };
    if to.minors_after(base.version).is_none_or(|minors| minors <= 0) {
        return Ok(Vec::new());
    }
    let named =
        if revision.is_default() { "the control plane".to_owned() } else { format!("control plane {revision}") };
    Ok(vec![Finding::warn(field, to.to_string()).says(
        format!("{named} becomes {to} over {} of {}", base.evidence, base.version),
        "kinds and fields that it watches may not be there, and what is written in them is dropped or refused.",
        upgrade(&base, to, view),
    )])
}

/// Istio's definitions, or what came with them.
struct Base {
    version: Version,
    /// In words.
    evidence: String,
    helm: Option<(String, String)>,
}

const GROUPS: [&str; 4] = [".networking.istio.io", ".security.istio.io", ".telemetry.istio.io", ".extensions.istio.io"];

/// The oldest of the definitions that tell their version.
fn base(cluster: &Snapshot) -> Known<Option<Base>> {
    cluster.knows(Kind::Crd, None)?;
    let ours = cluster.raw(Kind::Crd).filter(|o| GROUPS.iter().any(|group| o.meta().name.ends_with(group)));
    let told = ours.filter_map(|o| Some((version(&o.meta().labels)?, o)));
    let oldest = told.min_by(|(a, x), (b, y)| (a, &x.meta().name).cmp(&(b, &y.meta().name)));
    let validator = || {
        let charts = |m: &Labels| m.value("helm.sh/chart").is_some_and(|chart| chart.starts_with("base-"));
        let mut all = cluster.raw(Kind::ValidatingWebhook).filter(|o| charts(&o.meta().labels));
        all.find_map(|o| Some((version(&o.meta().labels)?, o)))
    };
    let found = oldest.map(|(v, o)| (v, o, "definitions")).or_else(|| validator().map(|(v, o)| (v, o, "a base chart")));
    Ok(found.map(|(version, o, evidence): (Version, &Object, &str)| Base {
        version,
        evidence: evidence.to_owned(),
        helm: o.meta().helm_release().map(|(release, namespace)| (release.to_owned(), namespace.to_owned())),
    }))
}

fn version(labels: &Labels) -> Option<Version> {
    let told = labels.value("operator.istio.io/version").and_then(Version::parse);
    let told = told.or_else(|| labels.value("app.kubernetes.io/version").and_then(Version::parse));
    // What a build of the main branch calls itself.
    told.filter(|v| *v != Version::new(1, 0))
}

fn upgrade(base: &Base, to: Version, view: &View<'_>) -> String {
    match (&base.helm, view.kind()) {
        (Some((release, namespace)), _) => install::upgrade(release, "istio/base", namespace, &to.to_string()),
        (None, Kind::SailIstio | Kind::SailRevision) => {
            format!("upgrade the operator first: a release that knows v{to} brings the definitions")
        }
        (None, _) => format!(
            "istioctl manifest generate --set profile=empty --set components.base.enabled=true | kubectl apply -f -\n\
             (with the istioctl of {to})"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::manifest;

    /// Definitions of the case table's API server are of one release, so that these stand here.
    fn told(definitions: &[(&str, &str)]) -> Option<String> {
        let definition = |(name, labels): &(&str, &str)| {
            let text = format!(
                "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: {name}, labels: {{{labels}}}}}}}"
            );
            manifest::read("definition", &text, "").documents.remove(0).object
        };
        let cluster = definitions.iter().fold(Snapshot::whole(), |c, d| c.with(definition(d)));
        base(&cluster).expect("known").map(|b| format!("{} {}", b.evidence, b.version))
    }

    #[test]
    fn the_oldest_definition_that_tells_its_version_counts() {
        let services = ("virtualservices.networking.istio.io", "operator.istio.io/version: 1.24.0");
        let sidecars = ("sidecars.networking.istio.io", "app.kubernetes.io/version: 1.23.2");
        let silent = ("telemetries.telemetry.istio.io", "chart: istio");
        assert_eq!(told(&[services, sidecars, silent]).as_deref(), Some("definitions 1.23"));
        assert_eq!(told(&[services, silent]).as_deref(), Some("definitions 1.24"));
    }

    #[test]
    fn others_definitions_and_builds_without_a_version_tell_nothing() {
        let others = ("certificates.cert-manager.io", "app.kubernetes.io/version: v1.16.0");
        let build = ("sidecars.networking.istio.io", "app.kubernetes.io/version: 1.0.0");
        let unknown = ("gateways.networking.istio.io", "operator.istio.io/version: unknown");
        assert_eq!(told(&[others, build, unknown]), None);
    }
}
