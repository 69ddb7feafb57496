//! Who injects a pod: the selectors of the webhook configurations, then what istiod itself decides.

use super::injector::INJECTOR_SUFFIX;
use super::{Hook, Injectors, Labels, RevisionName, Template, key};

/// Namespaces in which istiod never injects, whatever the selectors say (`initializer.go`).
pub const NEVER_INJECTED: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Why nothing is injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// No webhook's selectors match; the requested name tells the rest.
    NoHook,
    HostNetwork,
    SystemNamespace,
    /// The annotation `sidecar.istio.io/inject: "false"`, which only istiod sees.
    Annotation,
}

/// The outcome for one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Injection<'a> {
    None(WhyNot),
    One(&'a Hook),
    /// More than one Istio webhook is called; the sidecar of the last one stays.
    Conflict(Vec<&'a Hook>),
}

/// What the selectors and istiod make of one pod.
#[derive(Clone, Debug)]
pub struct Resolution<'a> {
    /// The revision or tag that the labels ask for; `None` if they ask for nothing.
    pub requested: Option<String>,
    /// Every webhook that the API server calls for it, in order, Istio's or not.
    pub hooks: Vec<&'a Hook>,
    pub injection: Injection<'a>,
    /// One sentence.
    pub because: String,
}

impl Resolution<'_> {
    /// The revision whose sidecar the pod ends up with.
    pub fn revision(&self) -> Option<&RevisionName> {
        match &self.injection {
            Injection::None(_) => None,
            Injection::One(hook) => hook.revision.as_ref(),
            Injection::Conflict(hooks) => hooks.last().and_then(|h| h.revision.as_ref()),
        }
    }

    pub fn is_injected(&self) -> bool {
        !matches!(self.injection, Injection::None(_))
    }
}

/// The name that a namespace asks for by its own labels: `None` if it says nothing, `Some(None)` if it
/// switches injection off.
pub fn asked_by_namespace(namespace: &Labels) -> Option<Option<&str>> {
    match namespace.value(key::INJECTION) {
        Some("enabled") => Some(Some("default")),
        Some(_) => Some(None),
        None => namespace.value(key::REV).map(Some),
    }
}

/// The name that a pod asks for: its namespace decides, and only an unlabelled one lets the pod choose.
pub fn requested<'a>(namespace: &'a Labels, pod: &'a Labels) -> Option<&'a str> {
    if pod.is(key::INJECT, "false") {
        return None;
    }
    match asked_by_namespace(namespace) {
        Some(asked) => asked,
        None => pod.value(key::REV).or_else(|| pod.is(key::INJECT, "true").then_some("default")),
    }
}

/// Who injects a pod made from `template` in a namespace of these labels.
pub fn resolve<'a>(
    injectors: &'a Injectors,
    namespace_name: &str,
    namespace: &Labels,
    template: &Template,
) -> Resolution<'a> {
    let hooks: Vec<&Hook> = injectors
        .hooks()
        .filter(|h| h.namespace_selector.matches(namespace) && h.object_selector.matches(&template.labels))
        .collect();
    let istio: Vec<&Hook> = hooks.iter().copied().filter(|h| h.istio).collect();
    let injection = match refusal(namespace_name, template) {
        Some(why) if !istio.is_empty() => Injection::None(why),
        _ => match istio.len() {
            0 => Injection::None(WhyNot::NoHook),
            1 => Injection::One(istio[0]),
            _ => Injection::Conflict(istio),
        },
    };
    let requested = requested(namespace, &template.labels);
    let because = because(&injection, requested, namespace, template);
    Resolution { requested: requested.map(str::to_owned), hooks, injection, because }
}

/// What makes istiod leave a pod alone although its webhook was called (`inject.go`, `injectRequired`).
fn refusal(namespace: &str, template: &Template) -> Option<WhyNot> {
    if template.host_network {
        return Some(WhyNot::HostNetwork);
    }
    if NEVER_INJECTED.contains(&namespace) {
        return Some(WhyNot::SystemNamespace);
    }
    // The label beats the annotation; a value that is neither true nor false counts as unset.
    let inject = template.labels.value(key::INJECT).or_else(|| template.annotations.value(key::INJECT));
    (inject == Some("false")).then_some(WhyNot::Annotation)
}

fn because(injection: &Injection<'_>, requested: Option<&str>, namespace: &Labels, template: &Template) -> String {
    match injection {
        Injection::One(hook) => {
            format!("{} asks for {} and only {} answers", asker(namespace), quoted(requested), hook.config)
        }
        Injection::Conflict(hooks) => {
            let configs: Vec<&str> = hooks.iter().map(|h| h.config.as_str()).collect();
            format!("{} webhooks answer ({}); the sidecar of the last one stays", hooks.len(), configs.join(", "))
        }
        Injection::None(WhyNot::HostNetwork) => "hostNetwork is true, so istiod skips it".into(),
        Injection::None(WhyNot::SystemNamespace) => "istiod never injects in this namespace".into(),
        Injection::None(WhyNot::Annotation) => format!("annotation {}=false, which istiod honours", key::INJECT),
        Injection::None(WhyNot::NoHook) => {
            if template.labels.is(key::INJECT, "false") {
                return format!("pod label {}=false", key::INJECT);
            }
            match (namespace.value(key::INJECTION), requested) {
                (Some(value), None) => format!("namespace label {}={value:?} switches injection off", key::INJECTION),
                (_, None) => "neither the namespace nor the pod asks for injection".into(),
                (_, Some(name)) => format!("{} asks for {name:?}, and no injector serves that", asker(namespace)),
            }
        }
    }
}

fn asker(namespace: &Labels) -> &'static str {
    if asked_by_namespace(namespace).is_some() { "the namespace" } else { "the pod" }
}

fn quoted(requested: Option<&str>) -> String {
    requested.map_or_else(|| "nothing".into(), |r| format!("{r:?}"))
}

/// True for the name of an Istio injector webhook.
pub fn is_injector_name(webhook: &str) -> bool {
    webhook.ends_with(INJECTOR_SUFFIX)
}
