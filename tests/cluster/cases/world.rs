//! The cluster of a case, on a real API server.
//!
//! A [`World`] knows what it has put there, so that going from one case to the next costs only what differs:
//! the mesh that most cases share is written once. Everything is written by the administrator, whom our
//! webhook is not asked about.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use kube::Client;
use revguard::admission::webhook::Shared;
use revguard::cluster::discovery::is_in_mesh;
use revguard::model::{ConfigMap, Id, Kind, Namespace, Object, Str};
use revguard::snapshot::Snapshot;
use revguard::wire::kinds::Watch;
use revguard::wire::{KINDS, Scope, read_json, row};
use serde_json::{Value, json};

use crate::harness::raw::{As, JSON, MERGE, send};
use crate::harness::wait::wait_until;

/// A write is seen after 5 to 60 ms; the rest is for loaded machines.
const SEEN: Duration = Duration::from_secs(20);

/// Writes at a time.
const AT_ONCE: usize = 8;

/// Namespaces that the API server makes and keeps.
const PERMANENT: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Holds an object that must be seen while it is being deleted.
const HELD: &str = "revguard-tests/held";

/// What stands in the cluster.
struct Held {
    /// Its resourceVersion.
    version: u64,
    /// What was asked for.
    wanted: Value,
    /// What the API server made of it, as the product reads it.
    object: Object,
    /// `false`: somebody else has written it since.
    clean: bool,
    /// That the API server has given it.
    uid: String,
}

pub struct World {
    client: Client,
    held: BTreeMap<Id, Held>,
    /// Removed on the way to the present state.
    gone: BTreeSet<Id>,
    /// Uids of GatewayRollouts: as the case writes them, and as the API server has given them.
    uids: BTreeMap<String, String>,
}

/// Of a list (`name` empty) or of an object.
pub fn path(id: &Id, api_version: &str, name: &str) -> String {
    let root = if api_version.contains('/') { "/apis" } else { "/api" };
    let row = row(id.kind);
    let namespace = if row.scope == Scope::Cluster { String::new() } else { format!("/namespaces/{}", id.namespace) };
    let name = if name.is_empty() { String::new() } else { format!("/{name}") };
    format!("{root}/{api_version}{namespace}/{}{name}", row.plural)
}

fn api_version(document: &Value) -> Result<&str> {
    document["apiVersion"].as_str().context("an object without apiVersion")
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or("").to_owned()
}

fn is_permanent(id: &Id) -> bool {
    id.kind == Kind::Namespace && PERMANENT.contains(&id.name.as_str())
}

/// The definition of a kind that other cases write as well.
fn is_shared(id: &Id) -> bool {
    id.kind == Kind::Crd
        && crate::harness::crds::custom().any(|row| id.name.as_str() == format!("{}.{}", row.plural, row.group))
}

fn namespace_id(name: &str) -> Id {
    Id { kind: Kind::Namespace, namespace: Str::default(), name: Str::from(name) }
}

/// Writes that others depend on come first: places, then rollouts, whose uids others name.
fn rank(id: &Id) -> u8 {
    match id.kind {
        Kind::Namespace => 0,
        Kind::GatewayRollout => 1,
        _ => 2,
    }
}

fn is_ending(document: &Value) -> bool {
    document.pointer("/metadata/deletionTimestamp").is_some()
}

/// What has a status that only its subresource takes.
fn has_status(kind: Kind) -> bool {
    let row = row(kind);
    let own = row.group.ends_with(".io") && !row.group.ends_with(".k8s.io")
        || matches!(row.group, "gateway.networking.k8s.io" | "revguard.dev");
    own || kind == Kind::Hpa || matches!(row.group, "apps" | "batch") || matches!(kind, Kind::Pod | Kind::Service)
}

/// The document as it is written: without what the API server sets, and with webhooks that nobody is called
/// by. A match condition does that last thing without touching what rules read: selectors, rules, Services
/// and failure policies stay as the case has them, and the API server looks at conditions before it calls.
/// Otherwise every pod of a case would be refused, for there is no istiod here.
fn prepared(id: &Id, raw: &Value) -> Value {
    let mut document = raw.clone();
    if let Some(metadata) = document["metadata"].as_object_mut() {
        for set_by_server in ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"] {
            metadata.remove(set_by_server);
        }
        if !id.namespace.is_empty() {
            metadata.insert("namespace".to_owned(), json!(&*id.namespace));
        }
    }
    for webhook in document.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
        webhook["matchConditions"] = json!([{"name": "nobody", "expression": "false"}]);
    }
    document
}

impl World {
    pub fn new(client: Client) -> World {
        World { client, held: BTreeMap::new(), gone: BTreeSet::new(), uids: BTreeMap::new() }
    }

    /// Brings the cluster to exactly these objects, with the namespaces that they and `place` need.
    pub async fn reach<'a>(&mut self, objects: impl Iterator<Item = (Id, &'a Value)>, place: &Str) -> Result<()> {
        let objects: Vec<(Id, &Value)> = objects.collect();
        let written = |(id, raw): &(Id, &Value)| {
            let uid = raw.pointer("/metadata/uid").and_then(Value::as_str).filter(|_| id.kind == Kind::GatewayRollout);
            uid.map(|uid| (id.clone(), uid.to_owned()))
        };
        let uids: BTreeMap<Id, String> = objects.iter().filter_map(written).collect();
        let mut target: BTreeMap<Id, Value> =
            objects.into_iter().map(|(id, raw)| (id.clone(), prepared(&id, raw))).collect();
        let needed: Vec<Str> =
            target.keys().map(|id| id.namespace.clone()).chain([place.clone()]).filter(|ns| !ns.is_empty()).collect();
        // Nothing is said of some, and what a former case said of a permanent one has to be unsaid.
        let permanent = self.held.keys().filter(|id| is_permanent(id)).map(|id| id.name.clone());
        for name in needed.into_iter().filter(|name| !PERMANENT.contains(&name.as_str())).chain(permanent) {
            let bare = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": &*name}});
            target.entry(namespace_id(&name)).or_insert(bare);
        }
        self.gone.clear();
        let same = |id: &Id, held: &Held| held.clean && target.get(id) == Some(&held.wanted);
        // What names a uid goes with the object that has it.
        let fresh = |(id, uid): &(&Id, &String)| {
            self.held.get(*id).is_none_or(|held| !same(id, held) || self.uids.get(*uid) != Some(&held.uid))
        };
        let renewed: Vec<&String> = uids.iter().filter(fresh).map(|(_, uid)| uid).collect();
        let stays = |id: &Id, held: &Held| {
            let text = held.wanted.to_string();
            same(id, held) && !renewed.iter().any(|uid| text.contains(uid.as_str()))
        };
        let old: Vec<Id> = self.held.iter().filter(|(id, held)| !stays(id, held)).map(|(id, _)| id.clone()).collect();
        self.remove(&old, &target).await?;
        let new: Vec<(Id, Value)> = target.into_iter().filter(|(id, _)| !self.held.contains_key(id)).collect();
        for step in 0..=2 {
            if step == 2 {
                let given = |(id, uid): (&Id, &String)| Some((uid.clone(), self.held.get(id)?.uid.clone()));
                self.uids = uids.iter().filter_map(given).collect();
                for id in new.iter().map(|(id, _)| id).filter(|id| uids.contains_key(*id)) {
                    self.name_itself(id).await?;
                }
            }
            let now = new.iter().filter(|(id, _)| rank(id) == step);
            let this = &*self;
            let made = stream::iter(now.map(|(id, wanted)| async move { (id, wanted, this.put(id, wanted).await) }));
            let made: Vec<_> = made.buffer_unordered(AT_ONCE).collect().await;
            let mut failed = Ok(());
            for (id, wanted, held) in made {
                match held {
                    Ok(held) => drop(self.held.insert(id.clone(), held)),
                    Err(error) => {
                        // Half of it may be there; the next case starts without it.
                        self.touched(id, wanted, false);
                        failed = Err(error);
                    }
                }
            }
            failed?;
        }
        // Only now: nothing can be made in a namespace that is being deleted.
        for (id, wanted) in new.iter().filter(|(_, wanted)| is_ending(wanted)) {
            let at = path(id, api_version(wanted)?, &id.name);
            let left = self.ask(Method::DELETE, &at, None).await?.with_context(|| format!("{at} is gone already"))?;
            let object = read_json(id.kind, &serde_json::to_vec(&left)?).map_err(anyhow::Error::msg)?;
            self.touched(id, wanted, true);
            let (version, uid) = (version(&left), uid(&left));
            self.held.insert(id.clone(), Held { version, wanted: wanted.clone(), object, clean: false, uid });
        }
        self.gone.retain(|id| !self.held.contains_key(id));
        Ok(())
    }

    /// Somebody may have written this object, or ended it.
    pub fn touched(&mut self, id: &Id, document: &Value, ended: bool) {
        let wanted = || Held {
            version: 0,
            wanted: document.clone(),
            object: Object::Namespace(Namespace::default()),
            clean: false,
            uid: String::new(),
        };
        self.held.entry(id.clone()).or_insert_with(wanted).clean = false;
        if ended && id.kind == Kind::Namespace {
            // What is in it cannot be changed any more, and would stay when the namespace is gone.
            self.held.iter_mut().filter(|(i, _)| i.namespace == id.name).for_each(|(_, held)| held.clean = false);
        }
    }

    /// Contents first, then namespaces, whose end is our work: no controller runs here.
    async fn remove(&mut self, old: &[Id], target: &BTreeMap<Id, Value>) -> Result<()> {
        let mut gone: Vec<Id> = old.to_vec();
        // A namespace that goes takes everything with it.
        for id in old.iter().filter(|id| id.kind == Kind::Namespace && !target.contains_key(*id)) {
            gone.extend(self.held.keys().filter(|i| i.namespace == id.name && !old.contains(i)).cloned());
        }
        for step in [2, 1, 0] {
            let now = gone.iter().filter(|id| rank(id) == step);
            let removals = stream::iter(now.map(|id| self.remove_one(id)));
            removals.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        }
        for id in gone {
            self.held.remove(&id);
            if !is_shared(&id) {
                self.gone.insert(id);
            }
        }
        Ok(())
    }

    async fn remove_one(&self, id: &Id) -> Result<()> {
        let wanted = &self.held[id].wanted;
        let at = path(id, api_version(wanted)?, &id.name);
        if is_permanent(id) || is_shared(id) {
            // Written over.
            return Ok(());
        }
        let none = json!({"metadata": {"finalizers": null}});
        if wanted.pointer("/metadata/finalizers").is_some() {
            self.ask(Method::PATCH, &at, Some((MERGE, &none))).await?;
        }
        let at_once = "?propagationPolicy=Background&gracePeriodSeconds=0";
        let answer = self.ask(Method::DELETE, &format!("{at}{at_once}"), None).await?;
        if id.kind == Kind::Namespace {
            let bare = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": &*id.name}, "spec": {}});
            self.ask(Method::PUT, &format!("{at}/finalize"), Some((JSON, &bare))).await?;
        }
        // The answer of a delete that somebody holds up is the object itself, not a Status.
        let held_up = |answer: &Value| answer["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        if answer.as_ref().is_some_and(held_up) {
            self.ask(Method::PATCH, &at, Some((MERGE, &none))).await?;
        }
        Ok(())
    }

    /// `None` if there is no such object.
    async fn ask(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Option<Value>> {
        let answer = send(&self.client, method.clone(), path, body, &As::default()).await?;
        if answer.status == 404 || answer.status == 409 && method != Method::POST {
            return Ok(None);
        }
        answer.expect(&format!("{method} {path}")).map(Some)
    }

    /// Its namespace is new, and for a moment the API server may still know the one that it replaces.
    async fn make(&self, path: &str, document: &Value) -> Result<Option<Value>> {
        let what = format!("POST {path}");
        let made = wait_until(SEEN, &what, || async {
            let answer = send(&self.client, Method::POST, path, Some((JSON, document)), &As::default()).await;
            let answer = answer.map_err(|error| format!("{error:#}"))?;
            let early = answer.status == 403 && answer.message().contains("is being terminated");
            if early { Err(answer.message().to_owned()) } else { Ok(answer) }
        });
        let answer = made.await?;
        if answer.status == 404 { Ok(None) } else { answer.expect(&what).map(Some) }
    }

    async fn put(&self, id: &Id, wanted: &Value) -> Result<Held> {
        let at = path(id, api_version(wanted)?, "");
        let one = format!("{at}/{}", id.name);
        let mut document = self.given(wanted)?;
        if is_ending(wanted) && id.kind != Kind::Namespace {
            // A namespace waits for its own finalizer.
            document["metadata"]["finalizers"] = json!([HELD]);
        }
        // Definitions of the kinds that cases write are there before the first case, schema and all.
        if id.kind == Kind::Crd
            && let Some(stored) = self.ask(Method::GET, &one, None).await?
        {
            let object = read_json(id.kind, &serde_json::to_vec(&stored)?).map_err(anyhow::Error::msg)?;
            let (version, uid) = (version(&stored), uid(&stored));
            return Ok(Held { version, wanted: wanted.clone(), object, clean: true, uid });
        }
        let mut made = if is_permanent(id) {
            let stored = self.ask(Method::GET, &one, None).await?.with_context(|| format!("{one} is not there"))?;
            document["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
            self.ask(Method::PUT, &one, Some((JSON, &document))).await?
        } else {
            self.make(&format!("{at}?fieldValidation=Strict"), &document).await?
        }
        .with_context(|| format!("{at}: no such place"))?;
        if has_status(id.kind) && document.get("status").is_some_and(|status| !status.is_null()) {
            let status = json!({"status": document["status"]});
            let answer = self.ask(Method::PATCH, &format!("{one}/status"), Some((MERGE, &status))).await?;
            made = answer.with_context(|| format!("{one} has no status"))?;
        }
        let object = read_json(id.kind, &serde_json::to_vec(&made)?).map_err(anyhow::Error::msg)?;
        let (version, uid) = (version(&made), uid(&made));
        Ok(Held { version, wanted: wanted.clone(), object, clean: true, uid })
    }

    /// Annotations of a rollout that name its own uid, which it has only now.
    async fn name_itself(&mut self, id: &Id) -> Result<()> {
        let held = &self.held[id];
        let annotations = json!({"metadata": {"annotations": held.wanted["metadata"]["annotations"]}});
        let given = self.given(&annotations)?;
        if given == annotations {
            return Ok(());
        }
        let at = path(id, api_version(&held.wanted)?, &id.name);
        let made = self.ask(Method::PATCH, &at, Some((MERGE, &given))).await?.context("the rollout is gone")?;
        let object = read_json(id.kind, &serde_json::to_vec(&made)?).map_err(anyhow::Error::msg)?;
        let held = self.held.get_mut(id).context("it was made")?;
        (held.object, held.version) = (object, version(&made));
        Ok(())
    }

    /// A text of the case with the uids that the API server has given.
    pub fn given_text(&self, text: &str) -> String {
        self.uids.iter().fold(text.to_owned(), |text, (written, given)| text.replace(written, given))
    }

    /// The same of an object.
    pub fn given(&self, object: &Value) -> Result<Value> {
        Ok(serde_json::from_str(&self.given_text(&object.to_string()))?)
    }

    /// The newest version of each kind that is watched everywhere.
    pub fn versions(&self) -> BTreeMap<Kind, u64> {
        let mut newest = BTreeMap::new();
        for (id, held) in &self.held {
            if matches!(row(id.kind).watch, Watch::Whole | Watch::Metadata | Watch::MetadataAndInMesh) {
                let version: &mut u64 = newest.entry(id.kind).or_default();
                *version = held.version.max(*version);
            }
        }
        newest
    }

    /// Returns when the product's view is this cluster: the very objects that the API server answered with,
    /// read by the same reader, and nothing of what was removed.
    pub async fn seen(&self, shared: &Shared) -> Result<()> {
        wait_until(SEEN, "the cluster of a case in the snapshot", || async {
            self.differs(&shared.state.load().snapshot).map_or(Ok(()), Err)
        })
        .await
    }

    fn differs(&self, snapshot: &Snapshot) -> Option<String> {
        let mesh = snapshot.mesh_namespaces();
        for ns in &mesh {
            for kind in KINDS.iter().map(|row| row.kind).filter(|kind| is_in_mesh(*kind)) {
                if let Err(unknown) = snapshot.knows(kind, Some(ns)) {
                    return Some(format!("{ns}: {unknown}"));
                }
            }
        }
        if let Some(id) = self.gone.iter().find(|id| snapshot.get(id.kind, &id.namespace, &id.name).is_some()) {
            return Some(format!("{id:?} is still there"));
        }
        let whole = |ns: &Str| mesh.contains(ns);
        self.held.iter().find_map(|(id, held)| {
            let known = snapshot.get(id.kind, &id.namespace, &id.name);
            let object = &held.object;
            let same = match row(id.kind).watch {
                Watch::Never => true,
                Watch::InMesh(label) if !whole(&id.namespace) || !has_label(object, label) => true,
                Watch::MetadataWhere(label) if !has_label(object, label) => true,
                Watch::MetadataAndInMesh if id.kind == Kind::ConfigMap => {
                    is_config_map_as_seen(object, known, whole(&id.namespace))
                }
                Watch::MetadataAndInMesh => is_pod_as_seen(object, known, whole(&id.namespace)),
                Watch::Metadata | Watch::MetadataWhere(_) => known.is_some_and(|known| known.meta() == object.meta()),
                Watch::Whole | Watch::InMesh(_) => known == Some(object),
            };
            (!same).then(|| format!("written: {object:?}; known: {known:?}"))
        })
    }
}

fn has_label(object: &Object, label: &str) -> bool {
    label.is_empty() || object.meta().labels.value(label).is_some()
}

/// Istio's own, by their names: mesh configurations everywhere, the rest in namespaces of the mesh.
fn is_config_map_as_seen(written: &Object, known: Option<&Object>, whole: bool) -> bool {
    let name = &written.meta().name;
    if ConfigMap::is_mesh_config(name) {
        return known.is_some_and(|known| known.meta() == written.meta());
    }
    if ConfigMap::is_local(name) && whole { known == Some(written) } else { true }
}

/// Whole in namespaces of the mesh, elsewhere who owns it and who injected it; one that is over is not watched.
fn is_pod_as_seen(written: &Object, known: Option<&Object>, whole: bool) -> bool {
    let Object::Pod(written) = written else { return false };
    if written.status.is_some_and(|status| status.over) {
        return known.is_none();
    }
    let Some(Object::Pod(known)) = known else { return false };
    let all = || known.meta == written.meta && known.status == written.status && known.proxy == written.proxy;
    let owner = known.workload() == written.workload() && known.meta.deleting == written.meta.deleting;
    known.revision == written.revision && owner && (!whole || all())
}
