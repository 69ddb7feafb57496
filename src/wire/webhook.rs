//! Mutating and validating webhook configurations, and label selectors.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::meta::ObjectMeta;
use super::tree::{Text, list, or_default};
use crate::model::injection::is_injector_name;
use crate::model::validator::CONFIG_GROUPS;
use crate::model::{
    Backend, CaBundle, FailurePolicy, Hook, InjectorConfig, Labels, Meta, Object, RevisionName, Selector,
    SelectorError, Str, TagName, Validator, ValidatorConfig, key,
};

#[derive(Deserialize)]
pub struct Configuration {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "list")]
    webhooks: Vec<Webhook>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    #[serde(default)]
    name: Str,
    #[serde(default)]
    client_config: ClientConfig,
    #[serde(default)]
    failure_policy: Str,
    #[serde(default)]
    namespace_selector: Option<LabelSelector>,
    #[serde(default)]
    object_selector: Option<LabelSelector>,
    #[serde(default, deserialize_with = "list")]
    rules: Vec<Rule>,
    #[serde(default, deserialize_with = "list")]
    match_conditions: Vec<IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ClientConfig {
    service: Option<ServiceRef>,
    url: Option<Str>,
    #[serde(deserialize_with = "or_default")]
    ca_bundle: Ca,
}

/// A bundle is some kilobytes of base64, of which a hash is kept.
#[derive(Default)]
struct Ca(CaBundle);

impl<'de> Deserialize<'de> for Ca {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(d)?;
        Ok(Ca(ca_bundle(&text.0)))
    }
}

fn ca_bundle(text: &str) -> CaBundle {
    use base64::Engine as _;
    let bytes: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    if bytes.is_empty() {
        return CaBundle::Empty;
    }
    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(&bytes) else { return CaBundle::Broken };
    let mark = b"-----BEGIN CERTIFICATE-----";
    if !pem.windows(mark.len()).any(|w| w == mark) {
        return CaBundle::Broken;
    }
    let mut hasher = DefaultHasher::new();
    pem.trim_ascii().hash(&mut hasher);
    CaBundle::Of(hasher.finish())
}

#[derive(Deserialize)]
struct ServiceRef {
    #[serde(default)]
    name: Str,
    #[serde(default)]
    namespace: Str,
    #[serde(default)]
    port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default, deserialize_with = "list")]
    api_groups: Vec<Str>,
    #[serde(default, deserialize_with = "list")]
    api_versions: Vec<Str>,
    #[serde(default, deserialize_with = "list")]
    operations: Vec<Str>,
    #[serde(default, deserialize_with = "list")]
    resources: Vec<Str>,
    #[serde(default)]
    scope: Str,
}

/// The API server compares the parts before and after the slash; `pods/*` names pods themselves as well.
fn is_pods(resource: &Str) -> bool {
    let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
    matches!(resource, "*" | "pods") && matches!(sub, "" | "*")
}

impl Rule {
    fn is_pod_creation(&self) -> bool {
        let any = |list: &[Str], wanted: &str| list.iter().any(|v| *v == "*" || *v == wanted);
        any(&self.api_groups, "")
            && any(&self.api_versions, "v1")
            && any(&self.operations, "CREATE")
            && self.resources.iter().any(is_pods)
            && matches!(self.scope.as_str(), "" | "*" | "Namespaced")
    }

    fn is_istio_config(&self) -> bool {
        self.api_groups.iter().any(|g| *g == "*" || CONFIG_GROUPS.contains(&g.as_str()))
    }
}

/// A label selector as written.
#[derive(Deserialize, Default, Clone)]
#[serde(default, rename_all = "camelCase")]
pub struct LabelSelector {
    match_labels: Labels,
    #[serde(deserialize_with = "list")]
    match_expressions: Vec<Expression>,
}

#[derive(Deserialize, Clone)]
struct Expression {
    #[serde(default)]
    key: Str,
    #[serde(default)]
    operator: Str,
    #[serde(default, deserialize_with = "list")]
    values: Vec<Str>,
}

impl LabelSelector {
    /// # Errors
    /// What the API server would refuse.
    pub fn compile(self) -> Result<Selector, SelectorError> {
        let mut selector = Selector::exact(&self.match_labels);
        for e in self.match_expressions {
            selector.require(e.key, &e.operator, e.values)?;
        }
        Ok(selector)
    }
}

fn compiled(selector: Option<LabelSelector>, webhook: &str, which: &str) -> Result<Selector, String> {
    selector.unwrap_or_default().compile().map_err(|e| format!("webhook {webhook:?}, {which}: {e}"))
}

fn backend(client: &ClientConfig) -> Backend {
    match (&client.service, &client.url) {
        (Some(s), _) => {
            Backend::Service { namespace: s.namespace.clone(), name: s.name.clone(), port: s.port.unwrap_or(443) }
        }
        (None, Some(url)) => Backend::Url(url.clone()),
        (None, None) => Backend::None,
    }
}

fn policy(s: &str) -> FailurePolicy {
    // The API server's default is Fail.
    if s == "Ignore" { FailurePolicy::Ignore } else { FailurePolicy::Fail }
}

impl Configuration {
    /// # Errors
    /// A selector that cannot be compiled; named with its webhook.
    pub fn into_injector(self) -> Result<Object, String> {
        let meta = Meta::from(self.metadata);
        let revision = meta.labels.value(key::REV).map(RevisionName::new);
        let tag = meta.labels.value(key::TAG).map(TagName::new);
        let mut hooks = Vec::with_capacity(self.webhooks.len());
        for w in self.webhooks {
            hooks.push(Hook {
                config: meta.name.clone(),
                revision: revision.clone(),
                tag: tag.clone(),
                namespace_selector: compiled(w.namespace_selector, &w.name, "namespaceSelector")?,
                object_selector: compiled(w.object_selector, &w.name, "objectSelector")?,
                backend: backend(&w.client_config),
                failure_policy: policy(&w.failure_policy),
                ca: w.client_config.ca_bundle.0,
                conditional: !w.match_conditions.is_empty(),
                pods: w.rules.iter().any(Rule::is_pod_creation),
                istio: is_injector_name(&w.name),
                name: w.name,
            });
        }
        Ok(Object::Injector(Box::new(InjectorConfig { meta, hooks })))
    }

    /// # Errors
    /// A selector that cannot be compiled; named with its webhook.
    pub fn into_validator(self) -> Result<Object, String> {
        let meta = Meta::from(self.metadata);
        let mut webhooks = Vec::with_capacity(self.webhooks.len());
        for w in self.webhooks {
            webhooks.push(Validator {
                namespace_selector: compiled(w.namespace_selector, &w.name, "namespaceSelector")?,
                object_selector: compiled(w.object_selector, &w.name, "objectSelector")?,
                backend: backend(&w.client_config),
                failure_policy: policy(&w.failure_policy),
                ca: w.client_config.ca_bundle.0,
                istio: w.name.ends_with("validation.istio.io") && w.rules.iter().any(Rule::is_istio_config),
                name: w.name,
            });
        }
        Ok(Object::Validator(Box::new(ValidatorConfig { meta, webhooks })))
    }
}
