//! One request to the API server and every way in which it can fail.
//!
//! Requests are built by hand: kube's `Api` reads into its own types, and what we read is leaner. Nothing here waits
//! before it tries again; that is the caller's decision.

use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde::Deserialize;

use super::client::chain;
use super::stream::Malformed;
use crate::model::{Kind, Str};
use crate::snapshot::Source;
use crate::wire::kinds::{KindRow, Watch};
use crate::wire::row;

/// Why a request did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// RBAC says no.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The version to go on from is too old; only a new list helps.
    #[error("resource version is gone")]
    Gone,
    /// The API server does not serve this path.
    #[error("not found")]
    NotFound,
    /// The API server does not understand the question.
    #[error("not understood: {0}")]
    Invalid(String),
    /// The API server asks us to wait.
    #[error("throttled by the API server for {} s", .0.as_secs())]
    Throttled(Duration),
    #[error("HTTP {0}: {1}")]
    Refused(u16, String),
    #[error("cannot reach the API server: {0}")]
    Unreachable(String),
    #[error("nothing heard for {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The stream ended where it should have gone on.
    #[error("the connection was closed early")]
    Closed,
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                Status { code: status.code, message: status.message, ..Status::default() }.trouble(None)
            }
            other => Trouble::Unreachable(chain(&other)),
        }
    }
}

impl Trouble {
    /// What a person may do about it, where that is the same whatever was asked.
    pub fn advice(&self) -> &'static str {
        match self {
            Trouble::Refused(401, _) => {
                "; the credentials are not known there: log in again, or choose another --context"
            }
            Trouble::Forbidden(_) => "",
            _ => "; check that the API server answers: kubectl get --raw /readyz",
        }
    }

    /// The closed set of words that a metric may carry.
    pub fn word(&self) -> &'static str {
        match self {
            Trouble::Forbidden(_) => "forbidden",
            Trouble::Gone => "gone",
            Trouble::NotFound => "not-found",
            Trouble::Invalid(_) => "invalid",
            Trouble::Throttled(_) => "throttled",
            Trouble::Refused(..) => "refused",
            Trouble::Unreachable(_) => "unreachable",
            Trouble::Silent(_) => "silent",
            Trouble::Malformed(_) => "malformed",
            Trouble::Closed => "closed",
        }
    }
}

/// The API server's own error object, as an answer or as a line of a watch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub code: u16,
    pub message: String,
    details: StatusDetails,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StatusDetails {
    retry_after_seconds: u64,
}

impl Status {
    pub fn trouble(self, retry_after: Option<u64>) -> Trouble {
        let wait = retry_after.or(Some(self.details.retry_after_seconds).filter(|s| *s > 0));
        match (self.code, wait) {
            (403, _) => Trouble::Forbidden(self.message),
            (404, _) => Trouble::NotFound,
            (410, _) => Trouble::Gone,
            (400 | 422, _) => Trouble::Invalid(self.message),
            (429, wait) => Trouble::Throttled(Duration::from_secs(wait.unwrap_or(1).min(MOST_WAIT))),
            (500.., Some(wait)) => Trouble::Throttled(Duration::from_secs(wait.min(MOST_WAIT))),
            (code, _) => Trouble::Refused(code, self.message),
        }
    }
}

/// Seconds that a `Retry-After` may ask for: a mistaken hour would leave the view stale for an hour.
const MOST_WAIT: u64 = 60;

/// Error bodies are cut here; a Status is a few hundred bytes.
const MOST_ERROR_BYTES: usize = 64 << 10;

/// A collection of objects: what to ask for and how.
#[derive(Clone, Debug)]
pub struct Collection {
    pub source: Source,
    path: String,
    selector: &'static str,
    label: Option<&'static str>,
    metadata: bool,
}

/// Pods that have ended serve nobody and are never asked about.
const LIVE_PODS: &str = "fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed";

impl Collection {
    /// The collection that the table wants for a kind: everywhere, or whole objects of one namespace.
    pub fn of(kind: Kind, version: &str, namespace: Option<&Str>) -> Self {
        let row = row(kind);
        let (metadata, label) = match (row.watch, namespace) {
            (Watch::Metadata | Watch::MetadataAndInMesh, None) => (true, None),
            (Watch::MetadataWhere(label), _) => (true, Some(label)),
            (Watch::InMesh(label), _) if !label.is_empty() => (false, Some(label)),
            _ => (false, None),
        };
        Collection {
            source: (kind, namespace.cloned()),
            path: path(row, version, namespace),
            selector: if kind == Kind::Pod { LIVE_PODS } else { "" },
            label,
            metadata,
        }
    }

    /// The same collection with whole objects.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.metadata = false;
        self
    }

    /// `pods`, `pods in istio-system`: what a log line and an operator call it.
    pub fn name(&self) -> String {
        source_name(&self.source)
    }

    /// One page of a list.
    pub fn list(&self, limit: u32, after: &str) -> Question {
        let mut query = format!("{}?limit={limit}", self.path);
        if !after.is_empty() {
            query.push_str("&continue=");
            query.push_str(&encode(after));
        }
        self.narrow(&mut query);
        let accept = if self.metadata { METADATA_LIST } else { JSON };
        Question { path: query, accept, plain: false }
    }

    /// A watch from a version on; from `None`, the objects that there are come first, and a bookmark after the last.
    pub fn watch(&self, from: Option<&str>, seconds: u64) -> Question {
        let mut query = format!("{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}", self.path);
        match from {
            Some(version) => query.push_str(&format!("&resourceVersion={}", encode(version))),
            None => query.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
        }
        self.narrow(&mut query);
        Question { path: query, accept: if self.metadata { METADATA } else { JSON }, plain: true }
    }

    fn narrow(&self, query: &mut String) {
        if !self.selector.is_empty() {
            query.push('&');
            query.push_str(self.selector);
        }
        if let Some(label) = self.label {
            query.push_str("&labelSelector=");
            query.push_str(&encode(label));
        }
    }
}

/// `pods`, `gateways.networking.istio.io`, `pods in istio-system`.
pub fn source_name((kind, namespace): &Source) -> String {
    let row = row(*kind);
    let dot = if row.group.is_empty() { "" } else { "." };
    match namespace {
        None => format!("{}{dot}{}", row.plural, row.group),
        Some(ns) => format!("{}{dot}{} in {ns}", row.plural, row.group),
    }
}

const JSON: &str = "application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// The path under which a group's version is served.
pub fn version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

fn path(row: &KindRow, version: &str, namespace: Option<&Str>) -> String {
    let base = version_path(row.group, version);
    match namespace {
        None => format!("{base}/{}", row.plural),
        Some(ns) => format!("{base}/namespaces/{}/{}", encode(ns), row.plural),
    }
}

/// Percent-encodes everything but unreserved characters.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A GET.
pub struct Question {
    pub path: String,
    pub accept: &'static str,
    /// Uncompressed: newer API servers gzip every watch event by itself, which the decoder below kube cannot read.
    pub plain: bool,
}

impl Question {
    /// A small JSON document, as discovery answers.
    pub fn json(path: String) -> Self {
        Question { path, accept: JSON, plain: false }
    }

    /// Metadata of a short list of objects.
    pub fn metadata(path: String) -> Self {
        Question { path, accept: METADATA_LIST, plain: false }
    }

    /// Sends it and waits for the answer's head.
    ///
    /// # Errors
    /// Any answer but 200, or none in time.
    pub async fn ask(self, client: &Client, patience: Duration) -> Result<Answer, Trouble> {
        let mut request = Request::get(self.path.as_str()).header(ACCEPT, self.accept);
        if self.plain {
            request = request.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let request = request.body(Body::empty()).map_err(|e| Trouble::Unreachable(e.to_string()))?;
        exchange(client, request, patience).await
    }
}

/// Sends any request and waits for the answer's head.
///
/// # Errors
/// Any answer but a success, or none in time.
pub async fn exchange(client: &Client, request: Request<Body>, patience: Duration) -> Result<Answer, Trouble> {
    let answer = tokio::time::timeout(patience, client.send(request)).await;
    let response = answer.map_err(|_| Trouble::Silent(patience))?.map_err(|e| Trouble::Unreachable(chain(&e)))?;
    if matches!(response.status(), StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED) {
        return Ok(Answer { response, patience });
    }
    Err(refusal(response, patience).await)
}

async fn refusal(response: Response<Body>, patience: Duration) -> Trouble {
    let code = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let mut body = Vec::new();
    let mut answer = Answer { response, patience };
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_ERROR_BYTES {
            break;
        }
    }
    let mut status: Status = serde_json::from_slice(&body).unwrap_or_default();
    if status.message.is_empty() {
        status.message = String::from_utf8_lossy(&body).chars().take(200).collect();
    }
    // What HTTP says is what every proxy in between agreed on.
    status.code = code;
    status.trouble(retry_after)
}

/// An answer whose body is still arriving.
pub struct Answer {
    response: Response<Body>,
    /// How long the next bytes may take.
    pub patience: Duration,
}

impl Answer {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// A lost connection, or silence.
    pub async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, Trouble> {
        loop {
            let frame = tokio::time::timeout(self.patience, self.response.body_mut().frame()).await;
            match frame.map_err(|_| Trouble::Silent(self.patience))? {
                None => return Ok(None),
                Some(Err(e)) => return Err(Trouble::Unreachable(chain(&e))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body as a small JSON document.
    ///
    /// # Errors
    /// As [`Answer::chunk`]; a body that is not that document, or too long.
    pub async fn read<T: for<'de> Deserialize<'de>>(mut self) -> Result<T, Trouble> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > super::stream::MOST_BYTES {
                return Err(Malformed::LongAnswer.into());
            }
        }
        serde_json::from_slice(&body).map_err(|e| Malformed::List(e.to_string()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_ask_for_no_more_than_the_table_wants() {
        let pods = Collection::of(Kind::Pod, "v1", None);
        assert_eq!(pods.list(500, "a=").path, format!("/api/v1/pods?limit=500&continue=a%3D&{LIVE_PODS}"));
        assert_eq!(pods.list(500, "").accept, METADATA_LIST);
        let here = Collection::of(Kind::Pod, "v1", Some(&"istio-system".into()));
        assert!(here.watch(Some("7"), 9).path.starts_with("/api/v1/namespaces/istio-system/pods?watch=1&"));
        assert_eq!(here.watch(Some("7"), 9).accept, JSON);
        let maps = Collection::of(Kind::ConfigMap, "v1", None);
        assert!(!maps.list(1, "").path.contains("labelSelector"), "a copy made by hand may have lost its labels");
        assert_eq!(maps.list(1, "").accept, METADATA_LIST);
        let routes = Collection::of(Kind::HttpRoute, "v1beta1", None);
        assert!(routes.list(1, "").path.ends_with("&labelSelector=istio.io%2Frev"), "{}", routes.list(1, "").path);
        assert!(routes.watch(None, 9).path.starts_with("/apis/gateway.networking.k8s.io/v1beta1/httproutes?"));
        assert_eq!(routes.watch(None, 9).accept, METADATA);
        assert_eq!(Collection::of(Kind::Deployment, "v1", None).list(1, "").accept, JSON);
        assert_eq!(here.name(), "pods in istio-system");
        assert_eq!(routes.name(), "httproutes.gateway.networking.k8s.io");
    }
}
