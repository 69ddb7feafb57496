//! Deployments and their pod templates: what a template's pods are, how they get their proxy, and who wrote it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::json::Json;
use crate::api::gateway_rollout::Flavor;
use crate::model::workload::PROXY;
use crate::model::{self, ConfigMap, Kind, Object, key};
use crate::rollout::digest;
use crate::rollout::owner::{Owner, Release};
use crate::rollout::seen::{Deployment, Template};
use crate::snapshot::Snapshot;
use crate::wire::manifest::typed;

/// Annotations by which pods are restarted and which change nothing else.
const RESTARTS: [&str; 3] = ["kubectl.kubernetes.io/restartedAt", "revguard.dev/restart-id", "rollme"];

/// Reads a Deployment. Revisions are resolved through the injectors and tags of `fresh`.
pub fn deployment(object: &Value, fresh: &Snapshot) -> Deployment {
    let (spec, status) = (&object["spec"], &object["status"]);
    let meta = &object["metadata"];
    Deployment {
        name: Arc::from(object.name()),
        held: object.held(),
        labels: object.labels(),
        annotations: meta.map("annotations"),
        generation: meta["generation"].as_i64().unwrap_or(0),
        observed: status["observedGeneration"].as_i64().unwrap_or(0),
        selector: spec["selector"].map("matchLabels"),
        replicas: spec.count("replicas").unwrap_or(1),
        total: status.count("replicas").unwrap_or(0),
        updated: status.count("updatedReplicas").unwrap_or(0),
        ready: status.count("readyReplicas").unwrap_or(0),
        paused: spec.yes("paused"),
        template: Arc::new(template(&spec["template"], object.namespace(), fresh)),
        strategy: Arc::new(spec["strategy"].clone()),
        min_ready_seconds: spec["minReadySeconds"].as_i64().and_then(|n| i32::try_from(n).ok()),
        owner: owner(object),
        written: is_written(object),
        deleting: object.is_deleting(),
    }
}

/// Reads a pod template that stands in a namespace.
pub fn template(body: &Value, namespace: &str, fresh: &Snapshot) -> Template {
    Template {
        hash: Arc::from(hash(body)),
        revision: revision(body, namespace, fresh).map(Arc::from),
        labels: body.labels(),
        body: body.clone(),
    }
}

/// Of everything that makes pods of a template differ. Restarts, and fields that are null or empty, make none.
pub fn hash(body: &Value) -> String {
    let mut body = body.clone();
    if let Some(annotations) = body.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|k, _| !RESTARTS.contains(&k.as_str()));
    }
    bare(&mut body);
    digest::of(&body)
}

/// Takes out nulls and empty maps, which the API server adds and drops as it likes; only of a volume does an empty one say something.
fn bare(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(bare);
            map.retain(|k, v| !v.is_null() && (k == "emptyDir" || v.as_object().is_none_or(|m| !m.is_empty())));
        }
        Value::Array(all) => all.iter_mut().for_each(bare),
        _ => {}
    }
}

/// A template as the rules read it.
pub fn model(body: &Value) -> model::Template {
    let object =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {"template": body}});
    match typed(Kind::Deployment, &object) {
        Ok(Object::Workload(_, workload)) => workload.template,
        _ => model::Template::default(),
    }
}

/// A template whose pods ask for a revision by their own label; nothing else is changed.
pub fn asking(body: &Value, revision: &str) -> Value {
    let mut asking = if body.is_object() { body.clone() } else { json!({}) };
    let mut labels = body.labels();
    labels.insert(key::REV.to_owned(), revision.to_owned());
    asking["metadata"] = json!({"labels": labels, "annotations": body["metadata"].map("annotations")});
    asking
}

/// The revision that a template's pods are of: the mounted mesh configuration's, where the proxy stands in the template; else that of the
/// injector that makes the proxy; else what the label asks for.
fn revision(body: &Value, namespace: &str, fresh: &Snapshot) -> Option<String> {
    let template = model(body);
    let label = template.labels.value(key::REV);
    if flavor(body) == Some(Flavor::ConfigMapMount) {
        let mounted = template.config_maps.iter().find(|c| ConfigMap::is_mesh_config(&c.name));
        let named = mounted.map(|c| c.name.strip_prefix("istio-").unwrap_or("default").to_owned());
        return named.or_else(|| label.map(|l| behind(l, fresh)));
    }
    if let Ok(resolution) = fresh.resolve(namespace, &template)
        && let Some(revision) = resolution.revision()
    {
        return Some(revision.to_string());
    }
    label.map(|l| behind(l, fresh))
}

/// The revision behind a name; the name itself where it is not known to lead anywhere.
pub fn behind(name: &str, fresh: &Snapshot) -> String {
    fresh.revision_behind(name).ok().flatten().map_or_else(|| name.to_owned(), |r| r.to_string())
}

/// How a template's pods get their proxy; `None`: they are no gateway's.
pub fn flavor(body: &Value) -> Option<Flavor> {
    let labels = &body["metadata"]["labels"];
    if !labels.text(key::GATEWAY_MANAGED).is_empty() || !labels.text(key::GATEWAY_NAME).is_empty() {
        return Some(Flavor::GatewayAPI);
    }
    let template = model(body);
    if template.is_image_auto() {
        return Some(Flavor::Injected);
    }
    let mounts = template.config_maps.iter().any(|c| ConfigMap::is_mesh_config(&c.name));
    if mounts && template.container(PROXY).is_some() && template.inject() != Some("true") {
        return Some(Flavor::ConfigMapMount);
    }
    // An image of its own does not keep the injector from doing the rest.
    let templates: Vec<&str> = template.injection_templates().collect();
    (templates.contains(&"gateway") && template.inject() != Some("false")).then_some(Flavor::Injected)
}

/// Tools that write a Deployment again and again, by the names under which they write.
const WRITERS: [(&str, &str); 9] = [
    ("argocd", "Argo CD"),
    ("argo-cd", "Argo CD"),
    ("kustomize-controller", "Flux (kustomize-controller)"),
    ("helm-controller", "Flux (helm-controller)"),
    ("helm", "Helm"),
    ("terraform", "Terraform"),
    ("pulumi", "Pulumi"),
    ("kapp", "kapp"),
    ("olm", "OLM"),
];

/// Labels and annotations by which those tools mark what is theirs.
const MARKS: [(&str, &str); 7] = [
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux (kustomize-controller)"),
    ("helm.toolkit.fluxcd.io/name", "Flux (helm-controller)"),
    ("kapp.k14s.io/app", "kapp"),
    ("olm.owner", "OLM"),
    (key::HELM_RELEASE, "Helm"),
];

/// The GitOps tool or installer that will write a Deployment's template again: by its mark, else by who owns the fields. The label
/// `app.kubernetes.io/managed-by: Helm` alone says nothing, because istioctl stamps it as well.
pub fn owner(object: &Value) -> Option<Owner> {
    let marked = |key: &str| object.label(key).is_some() || object.annotation(key).is_some();
    let by_mark = MARKS.iter().find(|(key, _)| marked(key)).map(|(_, name)| *name);
    let writers = || object["metadata"].list("managedFields").iter();
    let tool = by_mark.or_else(|| {
        writers().filter(|w| owns(w, &["f:spec", "f:template"]) || owns(w, &["f:spec", "f:replicas"])).find_map(tool)
    })?;
    Some(Owner { tool, release: (tool == "Helm").then(|| release(object)).flatten() })
}

/// The release of Helm's that a person upgrades.
fn release(object: &Value) -> Option<Release> {
    let (name, namespace) = (object.annotation(key::HELM_RELEASE)?, object.annotation(key::HELM_RELEASE_NAMESPACE)?);
    let writers = object["metadata"].list("managedFields").iter();
    let applied = writers.filter(|w| tool(w) == Some("Helm")).any(|w| w.text("operation") == "Apply");
    let (chart, version) = chart(object);
    Some(Release {
        name: Arc::from(name),
        namespace: Arc::from(namespace),
        chart: chart.map(Arc::from),
        version: version.map(Arc::from),
        applied,
    })
}

/// Name and version of the chart that an object is of: of `gateway-1.24.0`, a version begins with a digit. A label holds `_` for `+`.
pub fn chart(object: &Value) -> (Option<&str>, Option<String>) {
    let Some(chart) = object.label("helm.sh/chart") else { return (None, None) };
    let is_version = |at: usize| chart[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    match chart.char_indices().find(|(at, c)| *c == '-' && is_version(*at)) {
        Some((at, _)) => (Some(&chart[..at]), Some(chart[at + 1..].replace('_', "+"))),
        None => (Some(chart), None),
    }
}

/// An entry of `managedFields` that says that we have written the spec.
pub fn is_ours(writer: &Value) -> bool {
    writer.text("manager") == key::FIELD_MANAGER && owns(writer, &["f:spec"])
}

/// Fields of its spec are recorded as ours, beside what others have written.
pub fn is_written(object: &Value) -> bool {
    let writers = object["metadata"].list("managedFields");
    writers.iter().any(is_ours) && !writers.iter().all(is_ours)
}

/// The tool behind one entry of `managedFields`.
pub fn tool(writer: &Value) -> Option<&'static str> {
    let manager = writer.text("manager").to_lowercase();
    WRITERS.iter().find(|(prefix, _)| manager.starts_with(prefix)).map(|(_, name)| *name)
}

/// An entry of `managedFields` has this field, or something in it.
pub fn owns(writer: &Value, path: &[&str]) -> bool {
    let found = path.iter().try_fold(&writer["fieldsV1"], |at, part| at.get(part));
    found.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_and_empty_fields_do_not_change_a_hash() {
        let bare = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let mut restarted = bare.clone();
        restarted["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/restartedAt": "now"});
        restarted["metadata"]["creationTimestamp"] = Value::Null;
        restarted["spec"]["affinity"] = json!({"nodeAffinity": {}});
        assert_eq!(hash(&bare), hash(&restarted));
        restarted["metadata"]["annotations"]["istio.io/rev"] = json!("1-24");
        assert_ne!(hash(&bare), hash(&restarted));
        assert_ne!(
            hash(&bare),
            hash(&json!({"metadata": {"labels": {"a": "b"}}, "spec": {"volumes": [{"name": "v"}]}}))
        );
    }

    #[test]
    fn an_owner_is_told_by_its_mark_or_by_its_fields() {
        let by = |meta: Value| owner(&json!({"metadata": meta})).map(|owner| owner.tool);
        let istioctl = json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}, "managedFields": [
            {"manager": "istio-operator", "fieldsV1": {"f:spec": {"f:template": {}}}}]});
        assert_eq!(by(istioctl), None);
        assert_eq!(by(json!({"annotations": {"meta.helm.sh/release-name": "igw"}})), Some("Helm"));
        let argo = json!({"annotations": {"meta.helm.sh/release-name": "igw", "argocd.argoproj.io/tracking-id": "x"}});
        assert_eq!(by(argo), Some("Argo CD"));
        let written =
            |fields: Value| by(json!({"managedFields": [{"manager": "kustomize-controller", "fieldsV1": fields}]}));
        assert_eq!(written(json!({"f:spec": {"f:template": {"f:spec": {}}}})), Some("Flux (kustomize-controller)"));
        assert_eq!(written(json!({"f:metadata": {"f:labels": {}}})), None);
    }

    #[test]
    fn a_release_says_its_chart_and_how_it_is_written() {
        let read = |operation: &str| {
            let owner = owner(&json!({"metadata": {
                "labels": {"helm.sh/chart": "my-gateway-1.24.0-beta.1"},
                "annotations": {"meta.helm.sh/release-name": "igw", "meta.helm.sh/release-namespace": "gw"},
                "managedFields": [{"manager": "helm", "operation": operation, "fieldsV1": {}}],
            }}));
            owner.and_then(|owner| owner.release).map(|r| (r.chart, r.applied))
        };
        assert_eq!(read("Apply"), Some((Some(Arc::from("my-gateway")), true)));
        assert_eq!(read("Update"), Some((Some(Arc::from("my-gateway")), false)));
    }
}
