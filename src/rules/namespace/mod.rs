//! Rules about the labels of a Namespace.

use super::Rule;
use crate::model::injector::DEFAULT_INJECTOR;
use crate::model::{Hook, Injectors, Labels, Namespace, key};

mod ns001_both_labels;
mod ns002_disabled_with_revision;
mod ns003_bad_injection_value;
mod ns004_unknown_revision;
mod ns005_no_default_injector;
mod ns006_ambient_with_sidecars;
mod ns007_too_far;
mod ns008_system_namespace;
mod ns010_injection_lost;
mod ns011_injector_not_answering;
mod ns013_namespace_in_use;
mod ns014_gateways_at_once;

pub static ALL: &[&Rule] = &[
    &ns001_both_labels::RULE,
    &ns002_disabled_with_revision::RULE,
    &ns003_bad_injection_value::RULE,
    &ns004_unknown_revision::RULE,
    &ns005_no_default_injector::RULE,
    &ns006_ambient_with_sidecars::RULE,
    &ns007_too_far::RULE,
    &ns008_system_namespace::RULE,
    &ns010_injection_lost::RULE,
    &ns011_injector_not_answering::RULE,
    &ns013_namespace_in_use::RULE,
    &ns014_gateways_at_once::RULE,
];

/// The Istio webhooks that are called for a pod without labels of its own in a namespace of these labels.
fn called<'a>(injectors: &'a Injectors, namespace: &Labels) -> Vec<&'a Hook> {
    let pod = Labels::default();
    let matches = |h: &&Hook| h.istio && h.namespace_selector.matches(namespace) && h.object_selector.matches(&pod);
    injectors.hooks().filter(matches).collect()
}

fn is_ambient(labels: &Labels) -> bool {
    labels.is(key::DATAPLANE_MODE, "ambient")
}

/// The name that the labels ask for: [`DEFAULT_INJECTOR`] for `istio-injection=enabled`, else the revision label. `None` if
/// they ask for nothing, or for something that is no name.
fn asked(labels: &Labels) -> Option<&str> {
    match labels.value(key::INJECTION) {
        Some("enabled") => Some(DEFAULT_INJECTOR),
        Some(_) => None,
        None => labels.value(key::REV).filter(|rev| !rev.is_empty()),
    }
}

/// The command that lets a namespace follow `name`, whatever its labels were.
fn follow(namespace: &Namespace, name: &str) -> String {
    let labels = &namespace.meta.labels;
    let drop = if labels.has(key::INJECTION) { format!(" {}-", key::INJECTION) } else { String::new() };
    format!("kubectl label namespace {} {}={name}{drop} --overwrite", namespace.meta.name, key::REV)
}
