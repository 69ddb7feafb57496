//! Putting a test's objects into the cluster, and taking them out again.
//!
//! Objects are plain JSON documents, as the case table holds them. A [`Scope`] owns what it has
//! applied: its end removes everything and waits until it is gone, also when the test has failed,
//! because the next test uses the same API server.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::join_all;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{GroupVersionKind, Status};
use kube::discovery::{ApiCapabilities, ApiResource, Scope as Reach, pinned_kind, verbs};
use kube::{Api, Client, Discovery};
use serde_json::Value;

use super::runtime::finish;
use super::wait::wait_until;

/// Who our writes are by, in `managedFields`.
const MANAGER: &str = "revguard-tests";

/// An API server serves a new CRD after 50 to 300 ms, and forgets a deleted object at once; the rest is
/// for loaded machines.
const SETTLE: Duration = Duration::from_secs(30);

/// The documents of a YAML stream (JSON is YAML); `List`s are taken apart, empty documents left out.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for document in serde_saphyr::from_multiple::<Value>(text)? {
        match document {
            Value::Null => {}
            Value::Object(mut list) if list.get("items").is_some_and(Value::is_array) => {
                if let Some(Value::Array(items)) = list.remove("items") {
                    found.extend(items);
                }
            }
            other => found.push(other),
        }
    }
    Ok(found)
}

/// What a test has made.
pub struct Scope {
    client: Client,
    made: Vec<Made>,
}

#[derive(Clone)]
struct Made {
    resource: ApiResource,
    namespace: Option<String>,
    name: String,
}

impl Made {
    fn api(&self, client: &Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }

    /// At once: nobody stops containers here, and nobody would collect dependents in the foreground.
    async fn delete(&self, client: &Client) -> Result<()> {
        let params = DeleteParams::background().grace_period(0);
        match self.api(client).delete(&self.name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if is_gone(&status) => Ok(()),
            // The second removal of a namespace that is ending.
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(()),
            Err(error) => Err(error).with_context(|| format!("delete {} {}", self.resource.kind, self.name)),
        }
    }
}

/// By the code: of a kind whose CRD is gone the API server says so in plain text, without the reason
/// that `Status::is_not_found` looks at.
fn is_gone(status: &Status) -> bool {
    status.code == 404
}

/// First what others need to exist, then the rest as it was written.
fn rank(document: &Value) -> u8 {
    match document["kind"].as_str() {
        Some("Namespace") => 0,
        Some("CustomResourceDefinition") => 1,
        _ => 2,
    }
}

impl Scope {
    /// An empty scope over `plane`'s administrator.
    pub fn new(plane: &super::ControlPlane) -> Scope {
        Scope { client: plane.client(), made: Vec::new() }
    }

    /// Applies documents server-side, by force, namespaces and CRDs first; waits until the CRDs are
    /// served; writes `status` through the status subresource where there is one. What an API server
    /// adds (`uid`, `resourceVersion`, `managedFields` …) may stand in the documents and is ignored.
    pub async fn apply(&mut self, documents: &[Value]) -> Result<()> {
        let mut ordered: Vec<&Value> = documents.iter().collect();
        ordered.sort_by_key(|document| rank(document));
        let (definitions, rest): (Vec<_>, Vec<_>) = ordered.into_iter().partition(|document| rank(document) < 2);
        for document in &definitions {
            self.apply_one(document).await?;
        }
        for document in definitions {
            if rank(document) == 1 {
                self.served(document).await?;
            }
        }
        for document in rest {
            self.apply_one(document).await?;
        }
        Ok(())
    }

    /// Takes over the removal of an object that something else has made.
    pub async fn adopt(&mut self, document: &Value) -> Result<()> {
        let (made, _) = self.locate(document).await?;
        self.made.push(made);
        Ok(())
    }

    async fn locate(&self, document: &Value) -> Result<(Made, ApiCapabilities)> {
        let text = |pointer| document.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").context("an object without kind")?;
        let version = text("/apiVersion").context("an object without apiVersion")?;
        let name = text("/metadata/name").context("an object without a name")?;
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let (resource, capabilities) = pinned_kind(&self.client, &GroupVersionKind::gvk(group, version, kind))
            .await
            .with_context(|| format!("the API server does not serve {kind} of {group}/{version}"))?;
        let namespace = match capabilities.scope {
            Reach::Cluster => None,
            Reach::Namespaced => Some(text("/metadata/namespace").unwrap_or("default").to_owned()),
        };
        let name = name.to_owned();
        Ok((Made { resource, namespace, name }, capabilities))
    }

    async fn apply_one(&mut self, document: &Value) -> Result<()> {
        let (made, capabilities) = self.locate(document).await?;
        let what = format!("{} {}", made.resource.kind, made.name);
        let api = made.api(&self.client);
        let mut document = document.clone();
        if let Some(metadata) = document["metadata"].as_object_mut() {
            for server_side in ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"] {
                metadata.remove(server_side);
            }
        }
        let has_status = capabilities.subresources.iter().any(|(resource, _)| resource.plural == "status");
        let params = PatchParams::apply(MANAGER).force();
        let name = made.name.clone();
        // Before the write: an answer that is lost may still have made the object.
        self.made.push(made);
        api.patch(&name, &params, &Patch::Apply(&document)).await.with_context(|| format!("apply {what}"))?;
        if has_status && document.get("status").is_some_and(|status| !status.is_null()) {
            let only_status = serde_json::json!({
                "apiVersion": document["apiVersion"], "kind": document["kind"],
                "metadata": {"name": name}, "status": document["status"],
            });
            api.patch_status(&name, &params, &Patch::Apply(&only_status))
                .await
                .with_context(|| format!("apply the status of {what}"))?;
        }
        Ok(())
    }

    /// Waits until a CRD is established and every served version is in discovery.
    async fn served(&self, definition: &Value) -> Result<()> {
        let text = |pointer| definition.pointer(pointer).and_then(Value::as_str);
        let group = text("/spec/group").context("a CRD without group")?;
        let kind = text("/spec/names/kind").context("a CRD without kind")?;
        let versions = definition.pointer("/spec/versions");
        for version in versions.and_then(Value::as_array).into_iter().flatten() {
            if version["served"] == Value::Bool(false) {
                continue;
            }
            let name = version["name"].as_str().context("a version without name")?;
            let wanted = GroupVersionKind::gvk(group, name, kind);
            wait_until(SETTLE, &format!("{kind} of {group}/{name}"), || async {
                // Discovery lists it once it is established; a list is answered once it is served.
                let (resource, _) = pinned_kind(&self.client, &wanted).await.map_err(|error| error.to_string())?;
                let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
                let list = api.list_metadata(&Default::default()).await;
                list.map(drop).map_err(|error| error.to_string())
            })
            .await?;
        }
        Ok(())
    }

    /// Leaves everything where it is: its control plane ends with the test.
    pub fn leave(mut self) {
        self.made.clear();
    }

    /// Removes everything and waits until it is gone.
    pub async fn end(mut self) -> Result<()> {
        let made = std::mem::take(&mut self.made);
        remove(&self.client, made).await
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let made = std::mem::take(&mut self.made);
        if made.is_empty() {
            return;
        }
        if let Err(error) = finish(remove(&self.client, made)) {
            eprintln!("cluster: a test's objects are still there: {error:#}");
        }
    }
}

/// Webhook configurations first, so that they do not judge the rest of the removal; then everything in
/// the reverse order of its making; then CRDs, and namespaces last.
async fn remove(client: &Client, made: Vec<Made>) -> Result<()> {
    let turn = |made: &Made| match made.resource.kind.as_str() {
        "Namespace" => 3,
        "CustomResourceDefinition" => 2,
        _ if made.resource.group == "admissionregistration.k8s.io" => 0,
        _ => 1,
    };
    for step in 0..=3 {
        let now: Vec<Made> = made.iter().rev().filter(|made| turn(made) == step).cloned().collect();
        for one in &now {
            one.delete(client).await?;
        }
        if step == 3 && !now.is_empty() {
            end_namespaces(client, &now).await?;
        }
        all_gone(client, &now).await?;
    }
    Ok(())
}

/// Does the namespace controller's work for namespaces that are deleted: removes what is left in them,
/// then their finalizer. The controller itself first waits five seconds, which is hard-coded, and after
/// any error five more; with hundreds of cases on one API server that is too long, and a namespace that
/// lingers would be seen by the next case.
async fn end_namespaces(client: &Client, namespaces: &[Made]) -> Result<()> {
    let names: HashSet<&str> = namespaces.iter().map(|one| one.name.as_str()).collect();
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let kinds = discovery.groups().flat_map(|group| group.resources_by_stability()).filter(|(_, can)| {
        can.scope == Reach::Namespaced && can.supports_operation(verbs::LIST) && can.supports_operation(verbs::DELETE)
    });
    // One list a kind over the whole cluster: there are some forty kinds, and may be as many namespaces.
    let lists = kinds.map(|(resource, _)| async move {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let listed = match api.list_metadata(&ListParams::default()).await {
            Ok(list) => list.items,
            // A kind whose CRD another test has just removed.
            Err(kube::Error::Api(status)) if is_gone(&status) => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("list {}", resource.plural)),
        };
        Ok(listed
            .into_iter()
            .map(|object| Made {
                resource: resource.clone(),
                namespace: object.metadata.namespace,
                name: object.metadata.name.unwrap_or_default(),
            })
            .collect::<Vec<Made>>())
    });
    let mut left = join_all(lists).await.into_iter().collect::<Result<Vec<_>>>()?.concat();
    left.retain(|one| one.namespace.as_deref().is_some_and(|namespace| names.contains(namespace)));
    for one in &left {
        one.delete(client).await?;
    }
    all_gone(client, &left).await?;
    join_all(namespaces.iter().map(|one| finalize(client, &one.name))).await.into_iter().collect()
}

async fn finalize(client: &Client, namespace: &str) -> Result<()> {
    let body = serde_json::json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": namespace}, "spec": {"finalizers": []},
    });
    let request = http::Request::put(format!("/api/v1/namespaces/{namespace}/finalize"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(&body)?)?;
    match client.request::<Value>(request).await {
        Ok(_) => Ok(()),
        // The controller was first, or is at it.
        Err(kube::Error::Api(status)) if is_gone(&status) || status.is_conflict() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("finalize namespace {namespace}")),
    }
}

async fn all_gone(client: &Client, these: &[Made]) -> Result<()> {
    let gone = join_all(these.iter().map(|one| gone(client, one))).await;
    gone.into_iter().collect()
}

async fn gone(client: &Client, one: &Made) -> Result<()> {
    let what = format!("the end of {} {}", one.resource.kind, one.name);
    wait_until(SETTLE, &what, || async {
        match one.api(client).get_metadata_opt(&one.name).await {
            Ok(None) => Ok(()),
            Ok(Some(object)) => Err(match object.metadata.finalizers {
                Some(waiting) if !waiting.is_empty() => format!("finalizers {waiting:?}"),
                _ => "it is still there".to_owned(),
            }),
            Err(kube::Error::Api(status)) if is_gone(&status) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}
