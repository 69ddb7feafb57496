//! One source: its list, its watch, and what is done when either fails.
//!
//! Not kube's `watcher`: it takes a page as a whole (one object that cannot be read hides all others, for ever), keeps
//! bookmarks and versions to itself (so nobody can say how old the view is), and holds each page as text and as objects.
//! What it does right is done here as well: go on from the last version after a lost connection, list again when that is
//! gone, ask for bookmarks, and give up on a connection that says nothing.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::Client;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::request::{Collection, Status, Trouble};
use super::stream::{Items, Lines, Malformed};
use super::telemetry::{Telemetry, Timing, Verb, Waits, jitter};
use crate::model::{Id, Kind, Object, Str};
use crate::snapshot::builder::is_of;
use crate::snapshot::{Event, Source};
use crate::wire::read_json;

/// What a source tells the store.
#[derive(Debug)]
pub struct Report {
    pub source: Source,
    /// Everything up to this version has been told.
    pub version: Option<u64>,
    /// `None`: the API server is alive and has nothing new.
    pub event: Option<Event>,
}

/// What every source needs.
pub struct Context {
    pub client: Client,
    pub timing: Timing,
    pub telemetry: Arc<dyn Telemetry>,
    pub reports: mpsc::Sender<Report>,
    /// First lists in flight.
    pub lists: Semaphore,
    /// The API server understands first lists as streams, as far as we know.
    pub streams: AtomicBool,
    /// Kinds whose path was not found: somebody should look which there are.
    pub lost: mpsc::Sender<Kind>,
}

/// So many first lists as streams may be cut or put off before pages are tried.
const MOST_UNLUCKY: u32 = 3;

/// Why a source ended its attempt.
enum End {
    /// Nobody listens any more.
    Unheard,
    Trouble(Trouble),
}

impl<T: Into<Trouble>> From<T> for End {
    fn from(t: T) -> Self {
        End::Trouble(t.into())
    }
}

/// One source, for as long as it is wanted.
pub struct Feed {
    context: Arc<Context>,
    collection: Collection,
    /// Everything up to here has been told; `None` before the first list and after its loss.
    version: Option<String>,
    /// This source alone had no luck with streams.
    paged: bool,
    /// First lists as streams in a row that failed for a reason that says nothing of streams.
    unlucky: u32,
    /// When last something showed that the API server knows our version: the end of a list, an event, a bookmark. The
    /// head of an answer shows nothing, because any API server sends one.
    proof: Instant,
    /// Since when it is refused.
    refused: Option<Instant>,
}

impl Feed {
    pub fn new(context: Arc<Context>, collection: Collection) -> Self {
        Feed { context, collection, version: None, paged: false, unlucky: 0, proof: Instant::now(), refused: None }
    }

    /// Tells the store what the API server says, until nobody listens.
    pub async fn run(mut self) {
        let context = Arc::clone(&self.context);
        let mut waits = Waits::new(&context.timing);
        loop {
            let begun = Instant::now();
            let streams = !self.paged && self.unlucky < MOST_UNLUCKY && context.streams.load(Ordering::Relaxed);
            let pages = self.version.is_none() && !streams;
            let doubts = self.version.is_some() && self.proof.elapsed() > context.timing.proof;
            let end = match (doubts, pages) {
                (true, _) => self.prove().await,
                (_, true) => self.list().await,
                _ => self.watch().await,
            };
            let lists = doubts || pages;
            let trouble = match end {
                // A stream that ends at once without a word would otherwise be asked for without a pause.
                Ok(()) if lists || begun.elapsed() > context.timing.backoff => continue,
                Ok(()) => Trouble::Closed,
                Err(End::Unheard) => return,
                Err(End::Trouble(trouble)) => trouble,
            };
            let verb = if lists { Verb::List } else { Verb::Watch };
            if self.heed(&trouble, verb).await.is_err() {
                return;
            }
            let wait = if self.is_doubted(&trouble) { waits.next(&Trouble::Closed) } else { waits.next(&trouble) };
            tokio::time::sleep(wait).await;
        }
    }

    /// A refusal that is so new that it may be the API server's start.
    fn is_doubted(&self, trouble: &Trouble) -> bool {
        let new = self.refused.is_none_or(|since| since.elapsed() < self.context.timing.doubt);
        matches!(trouble, Trouble::Forbidden(_)) && new
    }

    /// Draws the consequences of a failure.
    async fn heed(&mut self, trouble: &Trouble, verb: Verb) -> Result<(), End> {
        let source = self.collection.source.clone();
        let first = self.version.is_none();
        match trouble {
            // An API server that has lost its history says 410; one that was restored from a backup, 400 or 422.
            Trouble::Gone => self.version = None,
            Trouble::Invalid(_) if !first => self.version = None,
            Trouble::Invalid(_) if verb == Verb::Watch => {
                self.context.streams.store(false, Ordering::Relaxed);
                tracing::info!(error = %trouble, "the API server does not stream lists; using pages");
                return Ok(());
            }
            Trouble::Forbidden(_) => {
                self.refused.get_or_insert_with(Instant::now);
                if first || !self.is_doubted(trouble) {
                    self.version = None;
                    self.tell(Event::Forbidden(source.clone())).await?;
                }
            }
            Trouble::NotFound => {
                self.version = None;
                // If the queue is full, somebody is about to look anyway.
                let _ = self.context.lost.try_send(source.0);
            }
            // Neither says anything of streams, but what never lets one end would never let us be ready either.
            Trouble::Throttled(_) | Trouble::Unreachable(_) if first && verb == Verb::Watch => self.unlucky += 1,
            // Where etcd is too old for lists as streams an API server takes the question and answers with an error.
            _ if first && verb == Verb::Watch => self.paged = true,
            _ => {}
        }
        self.context.telemetry.trouble(&source, verb, trouble);
        let (resource, verb) = (self.collection.name(), verb.word());
        if matches!(trouble, Trouble::Forbidden(_)) && self.version.is_none() {
            tracing::warn!(verb, resource, error = %trouble, "RBAC refuses; what needs it counts as unknown");
        } else if matches!(trouble, Trouble::Gone | Trouble::Closed) {
            tracing::debug!(verb, resource, error = %trouble, "the view is renewed");
        } else {
            tracing::warn!(verb, resource, error = %trouble, "the API server is asked again");
        }
        Ok(())
    }

    async fn tell(&self, event: Event) -> Result<(), End> {
        self.report(None, Some(event)).await
    }

    async fn report(&self, version: Option<u64>, event: Option<Event>) -> Result<(), End> {
        let report = Report { source: self.collection.source.clone(), version, event };
        self.context.reports.send(report).await.map_err(|_| End::Unheard)
    }

    /// Lists in pages.
    async fn list(&mut self) -> Result<(), End> {
        let context = Arc::clone(&self.context);
        let Ok(_turn) = context.lists.acquire().await else { return Err(End::Unheard) };
        let (kind, source) = (self.collection.source.0, self.collection.source.clone());
        let mut next = String::new();
        loop {
            let question = self.collection.list(context.timing.page, &next);
            let mut answer = question.ask(&context.client, context.timing.answer).await?;
            if next.is_empty() {
                // Only now: a refused list must not make unknown what was known.
                context.telemetry.listing(&source);
                self.tell(Event::Listing(source.clone())).await?;
            }
            let mut items = Items::default();
            let mut read = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                items.feed(&chunk, |bytes| read.push(self.object(kind, bytes)))?;
                for object in read.drain(..).flatten() {
                    self.tell(Event::Apply(source.clone(), Box::new(object))).await?;
                }
            }
            let meta = items.end()?;
            if meta.next.is_empty() {
                let version = number(&meta.version);
                self.version = Some(meta.version).filter(|v| !v.is_empty());
                self.proof = Instant::now();
                self.refused = None;
                self.unlucky = 0;
                return self.report(version, Some(Event::Listed(source))).await;
            }
            if meta.next == next {
                return Err(Malformed::List("the next page is this page".to_owned()).into());
            }
            next = meta.next;
        }
    }

    /// Watches, from the last version on; without one, after a list in the same stream.
    async fn watch(&mut self) -> Result<(), End> {
        let context = Arc::clone(&self.context);
        let timing = &context.timing;
        let source = self.collection.source.clone();
        let mut turn = None;
        if self.version.is_none() {
            let Ok(taken) = context.lists.acquire().await else { return Err(End::Unheard) };
            turn = Some(taken);
        }
        // From the whole of it to a quarter more.
        let seconds = jitter(timing.watch / 2) + timing.watch.mul_f64(0.75);
        let question = self.collection.watch(self.version.as_deref(), seconds.as_secs().max(1));
        let mut answer = question.ask(&context.client, timing.answer).await?;
        if turn.is_some() {
            context.telemetry.listing(&source);
            self.tell(Event::Listing(source.clone())).await?;
        } else {
            answer.patience = timing.idle;
            self.refused = None;
        }
        let mut lines = Lines::default();
        let mut said = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            lines.feed(&chunk, |line| said.push(self.line(line)))?;
            for said in said.drain(..).flatten() {
                match said {
                    Said::Apply(version, object) => {
                        self.heard(version, Some(Event::Apply(source.clone(), object))).await?;
                    }
                    Said::Delete(version, id) => {
                        self.heard(version, Some(Event::Delete(source.clone(), id))).await?;
                    }
                    Said::Bookmark(version, true) if turn.take().is_some() => {
                        answer.patience = timing.idle;
                        self.version = Some(version.clone());
                        self.heard(version, Some(Event::Listed(source.clone()))).await?;
                    }
                    Said::Bookmark(version, _) => self.heard(version, None).await?,
                    Said::Error(trouble) => return Err(trouble.into()),
                }
            }
        }
        if turn.is_some() { Err(Trouble::Closed.into()) } else { Ok(()) }
    }

    /// Asks which version the API server is at. One whose data was restored from a backup takes a watch from a version that
    /// it has yet to reach, says nothing for as long as it was to last, and ends it in order; so does one that has nothing
    /// to say and no bookmarks. Only the first is behind us.
    async fn prove(&mut self) -> Result<(), End> {
        let context = Arc::clone(&self.context);
        let question = self.collection.list(1, "");
        let mut answer = question.ask(&context.client, context.timing.answer).await?;
        let mut items = Items::default();
        while let Some(chunk) = answer.chunk().await? {
            items.feed(&chunk, |_| {})?;
        }
        let now = items.end()?.version;
        self.proof = Instant::now();
        if let (Some(ours), Some(now)) = (self.version.as_deref().and_then(number), number(&now))
            && now < ours
        {
            let resource = self.collection.name();
            tracing::warn!(
                resource,
                ours,
                now,
                "the API server went back in time: its data was restored; listing anew"
            );
            self.version = None;
            return Ok(());
        }
        self.report(None, None).await
    }

    /// Tells what was heard. While the first objects still come, their versions are those of their own last change
    /// and say nothing of what was told.
    async fn heard(&mut self, version: String, event: Option<Event>) -> Result<(), End> {
        self.proof = Instant::now();
        self.refused = None;
        let mut told = None;
        if self.version.is_some() && !version.is_empty() {
            told = number(&version);
            self.version = Some(version);
        }
        self.report(told, event).await
    }

    /// One object of a list. One that cannot be read is named and left out; the others are not its business.
    fn object(&self, kind: Kind, bytes: &[u8]) -> Option<Object> {
        match read_json(kind, bytes) {
            Ok(object) => lean(&self.collection.source, object),
            Err(error) => {
                let head: Head = serde_json::from_slice(bytes).unwrap_or_default();
                self.complain(&head.metadata, &error);
                None
            }
        }
    }

    fn complain(&self, head: &HeadMeta, error: &str) {
        let kind = self.collection.source.0;
        let name = format!("{}/{}", head.namespace, head.name);
        tracing::warn!(resource = self.collection.name(), name, error, "this object cannot be read and is left out");
        self.context.telemetry.unreadable(kind, &name, error);
    }

    /// One line of a watch.
    fn line(&self, bytes: &[u8]) -> Option<Said> {
        if bytes.is_empty() {
            return None;
        }
        let line: Line<'_> = match serde_json::from_slice(bytes) {
            Ok(line) => line,
            Err(e) => return Some(Said::Error(Malformed::List(e.to_string()).into())),
        };
        if line.what == "ERROR" {
            let status: Status = serde_json::from_str(line.object.get()).unwrap_or_default();
            return Some(Said::Error(status.trouble(None)));
        }
        let head: Head = serde_json::from_str(line.object.get()).unwrap_or_default();
        let HeadMeta { version, .. } = &head.metadata;
        match &*line.what {
            "ADDED" | "MODIFIED" => match read_json(self.collection.source.0, line.object.get().as_bytes()) {
                Ok(object) => Some(match lean(&self.collection.source, object) {
                    Some(object) => Said::Apply(version.clone(), Box::new(object)),
                    // Not ours, and its version is as good a place to go on from as any.
                    None => Said::Bookmark(version.clone(), false),
                }),
                Err(error) => {
                    // As a list would leave it out, so that a restart changes nothing.
                    self.complain(&head.metadata, &error);
                    Some(self.gone(head.metadata))
                }
            },
            "DELETED" => Some(self.gone(head.metadata)),
            "BOOKMARK" => Some(Said::Bookmark(version.clone(), head.metadata.ends_list())),
            _ => None,
        }
    }

    fn gone(&self, head: HeadMeta) -> Said {
        let id = Id { kind: self.collection.source.0, namespace: head.namespace, name: head.name };
        Said::Delete(head.version, id)
    }
}

enum Said {
    Apply(String, Box<Object>),
    Delete(String, Id),
    /// The version, and whether the first objects end here.
    Bookmark(String, bool),
    Error(Trouble),
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    what: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Head {
    metadata: HeadMeta,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct HeadMeta {
    namespace: Str,
    name: Str,
    #[serde(rename = "resourceVersion")]
    version: String,
    annotations: Option<Marks>,
}

/// The one annotation that a bookmark carries.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Marks {
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_events_end: Option<String>,
}

impl HeadMeta {
    fn ends_list(&self) -> bool {
        self.annotations.as_ref().is_some_and(|m| m.initial_events_end.as_deref() == Some("true"))
    }
}

/// Versions are opaque by contract and numbers in every API server; one that is none is simply not reported.
fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

/// What the live view needs: a pod is looked up by who injected it, who made it and whether it serves; of ConfigMaps only
/// Istio's own are kept, each from the watch that is for it.
fn lean(source: &Source, mut object: Object) -> Option<Object> {
    if source.0 == Kind::ConfigMap && !is_of(source, &object.id()) {
        return None;
    }
    if let Object::Pod(pod) = &mut object {
        pod.template = None;
        if source.1.is_none() {
            pod.outline();
        }
    }
    Some(object)
}
