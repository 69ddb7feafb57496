//! Pod templates as a rollout changes them: what makes a gateway's pods those of another revision, and nothing else.
//!
//! What tells an installer or a GitOps tool that pods are its own is left out, because it would take them away again. Labels by which the
//! Deployment or a Service selects are never left out.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::gateway_rollout::Flavor;
use crate::model::version::tag;
use crate::model::workload::PROXY;
use crate::model::{ConfigMap, RevisionName, key};
use crate::rollout::read::json::Json;
use crate::rollout::read::raw::mesh_config;
use crate::rollout::seen::Map;

/// Where a template's pods go.
#[derive(Clone, Debug)]
pub struct Move<'a> {
    pub flavor: Flavor,
    pub from: Option<&'a str>,
    pub to: &'a str,
    /// Namespace and version of the control plane that they go to.
    pub plane: &'a str,
    pub version: Option<&'a str>,
    /// The Deployment that gets the template, and its namespace.
    pub deployment: &'a str,
    pub namespace: &'a str,
    /// Value of the label that tells its pods from the original's; `None` for the original itself.
    pub instance: Option<&'a str>,
    /// Keys that Services and the Deployment select by.
    pub kept: &'a BTreeSet<String>,
}

/// The revision of a pod for telemetry.
const CANONICAL: &str = "service.istio.io/canonical-revision";

/// Prefixes of label and annotation keys by which tools know what is theirs, or that a controller writes anew.
const DROPPED: [&str; 12] = [
    "install.operator.istio.io/",
    "operator.istio.io/",
    "app.kubernetes.io/managed-by",
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "kapp.k14s.io/",
    "olm.owner",
    "pod-template-hash",
    "kubectl.kubernetes.io/",
    "revguard.dev/",
];

/// A tool or controller would take the object with this label or annotation for its own.
pub fn is_dropped(key: &str) -> bool {
    DROPPED.iter().any(|prefix| key.starts_with(prefix))
}

/// The template for a Deployment of our own, or for the original once it moves.
pub fn moved(body: &Value, to: &Move<'_>) -> Value {
    let mut body = renamed(body, to);
    let labels = relabelled(&body.labels(), to);
    let mut annotations = body["metadata"].map("annotations");
    if to.flavor == Flavor::ConfigMapMount || annotations.contains_key(key::REV) {
        annotations.insert(key::REV.to_owned(), to.to.to_owned());
    }
    for key in [key::PROXY_CONFIG, key::DISCOVERY_ADDRESS] {
        if let Some(value) = annotations.get_mut(key) {
            *value = to.readdress(value);
        }
    }
    put(&mut body, "metadata", json!({"labels": labels, "annotations": annotations}));
    if let Some(spec) = body.get_mut("spec") {
        each_proxy(spec, |proxy| to.proxy(proxy));
        if to.flavor == Flavor::ConfigMapMount {
            to.mounts(spec);
        }
    }
    body
}

/// Labels of pods that move.
pub fn relabelled(labels: &Map, to: &Move<'_>) -> Map {
    let mut labels = owned(labels, to);
    labels.insert(key::REV.to_owned(), to.to.to_owned());
    labels.insert(CANONICAL.to_owned(), to.to.to_owned());
    labels
}

/// Labels of pods in a Deployment of ours: nobody else's, as far as nothing selects by them.
fn owned(labels: &Map, to: &Move<'_>) -> Map {
    let mut labels = labels.clone();
    if let Some(instance) = to.instance {
        labels.retain(|k, _| to.kept.contains(k) || !is_dropped(k));
        labels.insert(key::INSTANCE.to_owned(), instance.to_owned());
    }
    labels
}

/// The same pods in a Deployment of another name, on the revision that they are on.
pub fn renamed(body: &Value, to: &Move<'_>) -> Value {
    let mut body = body.clone();
    let mut annotations = body["metadata"].map("annotations");
    if to.instance.is_some() {
        annotations.retain(|k, _| !is_dropped(k));
    }
    let labels = owned(&body.labels(), to);
    put(&mut body, "metadata", json!({"labels": labels, "annotations": annotations}));
    if let Some(spec) = body.get_mut("spec") {
        each_proxy(spec, |proxy| to.workload(proxy));
    }
    body
}

fn put(body: &mut Value, field: &str, value: Value) {
    if !body.is_object() {
        *body = json!({});
    }
    body[field] = value;
}

fn each(of: &mut Value, list: &str, change: impl FnMut(&mut Value)) {
    of.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().for_each(change);
}

fn each_proxy(spec: &mut Value, change: impl Fn(&mut Value)) {
    for list in ["containers", "initContainers"] {
        each(spec, list, |container| {
            if container.text("name") == PROXY {
                change(container);
            }
        });
    }
}

impl Move<'_> {
    /// Names of istiods in a text, changed from the revision that is left to the one that is gone to.
    fn readdress(&self, text: &str) -> String {
        let Some(from) = self.from else { return text.to_owned() };
        let (old, new) = (RevisionName::new(from).istiod(), RevisionName::new(self.to).istiod());
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(&old) {
            let (before, found) = rest.split_at(at);
            let after = &found[old.len()..];
            out.push_str(before);
            // `istiod` begins `istiod-1-23` as well, and only a whole name with its namespace is an address.
            let whole =
                after.starts_with('.') && !before.ends_with(|c: char| c.is_ascii_alphanumeric() || "-.".contains(c));
            out.push_str(if whole { &new } else { &old });
            rest = if whole { self.renamespace(after, &mut out) } else { after };
        }
        out.push_str(rest);
        out
    }

    /// Writes the namespace of the other istiod behind its name, and returns what follows.
    fn renamespace<'t>(&self, after: &'t str, out: &mut String) -> &'t str {
        let name = &after[1..];
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(name.len());
        out.push('.');
        out.push_str(if self.plane.is_empty() { &name[..end] } else { self.plane });
        &name[end..]
    }

    /// Image, and addresses in the environment and the arguments.
    fn proxy(&self, proxy: &mut Value) {
        if self.flavor == Flavor::ConfigMapMount
            && let Some(image) = self.version.and_then(|v| retagged(proxy.text("image"), v))
        {
            put(proxy, "image", json!(image));
        }
        each(proxy, "env", |variable| {
            if matches!(variable.text("name"), "CA_ADDR" | "PROXY_CONFIG" | "XDS_ADDRESS")
                && variable.get("value").is_some()
            {
                let value = self.readdress(variable.text("value"));
                put(variable, "value", json!(value));
            }
        });
        each(proxy, "args", |argument| {
            if let Some(text) = argument.as_str() {
                *argument = json!(self.readdress(text));
            }
        });
    }

    /// What telemetry calls the pods' workload, where the template says it.
    fn workload(&self, proxy: &mut Value) {
        let owner = format!("kubernetes://apis/apps/v1/namespaces/{}/deployments/{}", self.namespace, self.deployment);
        each(proxy, "env", |variable| match variable.text("name") {
            "ISTIO_META_WORKLOAD_NAME" => put(variable, "value", json!(self.deployment)),
            "ISTIO_META_OWNER" => put(variable, "value", json!(owner)),
            _ => {}
        });
    }

    /// The mesh configuration that the proxies read: of the other revision, and in a Deployment of ours not optional, so that pods without it
    /// never start instead of dialling somebody else.
    fn mounts(&self, spec: &mut Value) {
        let name = mesh_config(self.to);
        each(spec, "volumes", |volume| {
            if let Some(source) = volume.get_mut("configMap").filter(|c| ConfigMap::is_mesh_config(c.text("name"))) {
                put(source, "name", json!(name));
                if self.instance.is_some() {
                    put(source, "optional", json!(false));
                }
            }
        });
    }
}

/// An image with another version as its tag. How it is built (`-distroless`) stays; `None` where there is no tag, or a digest says which
/// image it is.
pub fn retagged(image: &str, version: &str) -> Option<String> {
    let tag = tag(image).filter(|_| !image.contains('@'))?;
    let variant = ["-distroless", "-debug"].into_iter().find(|v| tag.ends_with(v)).unwrap_or("");
    Some(format!("{}{version}{variant}", image.strip_suffix(tag)?))
}

/// Keys that must stay on pods, because these selectors have them.
pub fn kept<'a>(selectors: impl Iterator<Item = &'a Map>) -> BTreeSet<String> {
    selectors.flat_map(|s| s.keys().cloned()).collect()
}
