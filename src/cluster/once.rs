//! The cluster as it is now: one list of every kind, no watch. For `check` and `resolve`.

use std::collections::{BTreeMap, BTreeSet};

use kube::Client;
use serde::Deserialize;

use super::discovery::{self, Served, groups, is_everywhere, is_in_mesh};
use super::request::{Collection, Question, Trouble, encode, source_name};
use super::stream::Items;
use super::telemetry::Timing;
use crate::model::{Kind, Str};
use crate::snapshot::{Builder, Event, Snapshot};
use crate::wire::read_json;

/// How pods outside of the mesh's own namespaces are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pods {
    /// Their metadata, which is all that a rule asks of them.
    Metadata,
    /// Whole, with the template that they are: for `resolve`, which says of every pod who injects it.
    Whole,
}

/// What keeps the cluster from being read.
#[derive(Debug, thiserror::Error)]
#[error("cannot list {what}: {trouble}{}", trouble.advice())]
pub struct ReadError {
    pub what: String,
    pub trouble: Trouble,
}

/// A snapshot and what could not be read into it.
pub struct Reading {
    pub snapshot: Snapshot,
    /// One sentence for each object that was left out and each kind that RBAC refuses.
    pub problems: Vec<String>,
}

/// Reads everything that the table watches, once. What RBAC refuses is unknown, as in the live view.
///
/// # Errors
/// An API server that does not answer, or answers with anything but a list.
pub async fn read_once(client: &Client, pods: Pods) -> Result<Reading, ReadError> {
    let mut reader = Reader {
        client,
        pods,
        timing: Timing::default(),
        builder: Builder::new(Snapshot::live()),
        problems: Vec::new(),
    };
    let mut in_mesh = Vec::new();
    for group in groups() {
        let found = discovery::look(client, group, reader.timing.answer).await;
        let found = found.map_err(|trouble| ReadError { what: kinds_of(group), trouble })?;
        for (row, served) in found {
            match served {
                Served::No => reader.builder.apply(Event::NotInstalled(row.kind)),
                Served::Unread(versions) => {
                    let name = source_name(&(row.kind, None));
                    reader.problems.push(format!("{name}: served only in versions {versions:?}, which cannot be read"));
                    reader.builder.apply(Event::Forbidden((row.kind, None)));
                }
                Served::Versions(all) => {
                    if is_everywhere(row.kind) {
                        reader.list(row.kind, &all[0], None).await?;
                    }
                    if is_in_mesh(row.kind) {
                        in_mesh.push((row.kind, all[0].clone()));
                    }
                }
            }
        }
    }
    for namespace in reader.builder.snapshot().mesh_namespaces() {
        for (kind, version) in &in_mesh {
            reader.list(*kind, version, Some(&namespace)).await?;
        }
    }
    Ok(Reading { snapshot: reader.builder.snapshot().clone(), problems: reader.problems })
}

fn kinds_of(group: &str) -> String {
    if group.is_empty() { "the core kinds".to_owned() } else { format!("the kinds of API group {group}") }
}

/// Names of the remote clusters whose proxies the control planes of these namespaces may serve: Istio keeps a kubeconfig for
/// each in a Secret labelled `istio/multiCluster=true`. Only metadata is asked for, never a kubeconfig.
///
/// # Errors
/// Whatever keeps the API server from saying so; most people may not list Secrets.
pub async fn remote_clusters(client: &Client, namespaces: &BTreeSet<Str>) -> Result<Vec<String>, Trouble> {
    #[derive(Deserialize)]
    struct List {
        // `null`, where there are none.
        items: Option<Vec<Item>>,
    }
    #[derive(Deserialize)]
    struct Item {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    let mut names = Vec::new();
    for namespace in namespaces {
        let path = format!("/api/v1/namespaces/{}/secrets?labelSelector={REMOTE}", encode(namespace));
        let list: List = Question::metadata(path).ask(client, Timing::default().answer).await?.read().await?;
        names.extend(
            list.items
                .into_iter()
                .flatten()
                .map(|mut i| i.metadata.annotations.remove("networking.istio.io/cluster").unwrap_or(i.metadata.name)),
        );
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// `istio/multiCluster=true`, as it stands in a URL.
const REMOTE: &str = "istio%2FmultiCluster%3Dtrue";

struct Reader<'a> {
    client: &'a Client,
    pods: Pods,
    timing: Timing,
    builder: Builder,
    problems: Vec<String>,
}

impl Reader<'_> {
    async fn list(&mut self, kind: Kind, version: &str, namespace: Option<&Str>) -> Result<(), ReadError> {
        let mut collection = Collection::of(kind, version, namespace);
        if kind == Kind::Pod && self.pods == Pods::Whole {
            collection = collection.whole();
        }
        match self.pages(&collection).await {
            Ok(()) => Ok(()),
            Err(Trouble::Forbidden(why)) => {
                self.problems.push(why);
                self.builder.apply(Event::Forbidden(collection.source.clone()));
                Ok(())
            }
            // The kind went away since discovery.
            Err(Trouble::NotFound) if namespace.is_none() => {
                self.builder.apply(Event::NotInstalled(kind));
                Ok(())
            }
            Err(trouble) => Err(ReadError { what: collection.name(), trouble }),
        }
    }

    async fn pages(&mut self, collection: &Collection) -> Result<(), Trouble> {
        let source = &collection.source;
        let mut next = String::new();
        loop {
            let mut answer = self.ask(|| collection.list(self.timing.page, &next)).await?;
            if next.is_empty() {
                self.builder.apply(Event::Listing(source.clone()));
            }
            let mut items = Items::default();
            while let Some(chunk) = answer.chunk().await? {
                items.feed(&chunk, |bytes| match read_json(source.0, bytes) {
                    Ok(object) => self.builder.apply(Event::Apply(source.clone(), Box::new(object))),
                    Err(e) => self.problems.push(format!("{}: an object cannot be read: {e}", collection.name())),
                })?;
            }
            next = items.end()?.next;
            if next.is_empty() {
                self.builder.apply(Event::Listed(source.clone()));
                return Ok(());
            }
        }
    }

    /// Asks, and waits as often as a busy API server wants, but not for ever.
    async fn ask(&self, question: impl Fn() -> Question) -> Result<super::request::Answer, Trouble> {
        let mut left = 5;
        loop {
            match question().ask(self.client, self.timing.answer).await {
                Err(Trouble::Throttled(wait)) if left > 0 => tokio::time::sleep(wait).await,
                other => return other,
            }
            left -= 1;
        }
    }
}
