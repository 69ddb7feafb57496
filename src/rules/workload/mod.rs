//! Rules about pod templates.
//!
//! An istiod is never judged here. Of a gateway whose control plane is unknown, the gateway rules speak.

use super::names::if_known;
use super::{Operation, Rule, View};
use crate::model::injection::NEVER_INJECTED;
use crate::model::{Kind, Labels, Resolution, Template, Workload, resolve};
use crate::snapshot::Known;

mod wl001_revision_ignored;
mod wl002_unserved_revision;
mod wl003_image_auto_not_injected;
mod wl004_inject_annotation;
mod wl005_bad_inject_value;
mod wl006_revision_without_injection;
mod wl007_unknown_template;
mod wl008_host_network;
mod wl010_tag_in_selector;
mod wl011_foreign_discovery_address;

pub static ALL: &[&Rule] = &[
    &wl001_revision_ignored::RULE,
    &wl002_unserved_revision::RULE,
    &wl003_image_auto_not_injected::RULE,
    &wl004_inject_annotation::RULE,
    &wl005_bad_inject_value::RULE,
    &wl006_revision_without_injection::RULE,
    &wl007_unknown_template::RULE,
    &wl008_host_network::RULE,
    &wl010_tag_in_selector::RULE,
    &wl011_foreign_discovery_address::RULE,
];

/// Where a template lands, and who injects it there.
struct Place<'a> {
    /// The labels of its namespace, as selectors see them.
    namespace: Labels,
    /// The namespace is in the cluster (or the input); else its labels are a guess, good for a warning.
    certain: bool,
    resolution: Resolution<'a>,
}

/// Looks a workload's namespace up. The workload itself is in none of the objects that are asked here, so the cluster with
/// its stored self gives the same answer and costs nothing.
fn place<'a>(workload: &Workload, view: &'a View<'_>) -> Known<Place<'a>> {
    let cluster = view.before();
    let name = &workload.meta.namespace;
    let certain = if_known(cluster.namespace(name))?.flatten().is_some();
    let namespace = cluster.namespace_labels(name);
    let resolution = resolve(cluster.injectors()?, name, &namespace, &workload.template);
    Ok(Place { namespace, certain, resolution })
}

/// istiod leaves such pods alone even when its webhook is called for them.
fn is_never_injected(workload: &Workload) -> bool {
    workload.template.host_network || NEVER_INJECTED.contains(&workload.meta.namespace.as_str())
}

/// Field path of the pod template's metadata.
fn template_path(kind: Kind) -> &'static str {
    if kind == Kind::CronJob { "spec.jobTemplate.spec.template.metadata" } else { "spec.template.metadata" }
}

fn label(view: &View<'_>, key: &str) -> String {
    format!("{}.labels[{key}]", template_path(view.kind()))
}

fn annotation(view: &View<'_>, key: &str) -> String {
    format!("{}.annotations[{key}]", template_path(view.kind()))
}

/// JSON pointer of the pod template's labels.
fn labels_pointer(kind: Kind) -> String {
    format!("/{}/labels", template_path(kind).replace('.', "/"))
}

/// Which part of a template's metadata a fix changes.
#[derive(Clone, Copy)]
enum Part {
    Labels,
    Annotations,
}

/// How to give a key of the pod template a value, or (`None`) to take it away: a command where the object exists, whatever
/// the stored one holds; words about the manifest where it does not.
fn set(view: &View<'_>, part: Part, key: &str, value: Option<&str>) -> String {
    let part = match part {
        Part::Labels => "labels",
        Part::Annotations => "annotations",
    };
    // A Job's template can never be changed.
    if view.operation == Operation::Create || view.kind() == Kind::Job {
        let path = template_path(view.kind());
        return match value {
            Some(value) => format!("in the manifest, set {path}.{part}[{key}] to {value:?}"),
            None => format!("in the manifest, drop {path}.{part}[{key}]"),
        };
    }
    merge(&view.kubectl(), view.kind(), serde_json::json!({ part: { key: value } }))
}

/// The command that merges something into the metadata of a workload's pod template; null takes a key away.
pub(super) fn merge(object: &str, kind: Kind, metadata: serde_json::Value) -> String {
    let steps = template_path(kind).split('.').rev();
    let patch = steps.fold(metadata, |patch, step| serde_json::json!({ step: patch }));
    format!("kubectl patch {object} -p '{patch}'")
}

/// `sidecar.istio.io/inject` as istiod understands it: the label, else the annotation.
fn refuses(template: &Template) -> bool {
    template.inject() == Some("false")
}
