//! One request of the controller to the API server. It neither repeats nor decides; it has a time limit and says what
//! went wrong in the words of `cluster`.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

use super::resource::At;
use crate::cluster::Trouble;
use crate::cluster::request::exchange;

/// What is asked of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Create,
    /// Replaces the whole object.
    Update,
    JsonPatch,
    /// Server-side apply; the query names the field manager.
    Apply,
    Delete,
}

impl Method {
    /// The verb that RBAC must grant.
    pub fn verb(self) -> &'static str {
        match self {
            Method::Get => "get",
            Method::Create => "create",
            Method::Update => "update",
            Method::JsonPatch | Method::Apply => "patch",
            Method::Delete => "delete",
        }
    }
}

const JSON: &str = "application/json";

/// Sends one request about one object and reads the answer.
///
/// # Errors
/// Any answer but a success, or none in time.
pub async fn send(
    client: &Client,
    method: Method,
    at: &At,
    body: Option<&Value>,
    patience: Duration,
) -> Result<Value, Trouble> {
    send_with(client, method, &at_path(method, at), body, patience).await
}

fn at_path(method: Method, at: &At) -> String {
    if method == Method::Create { at.resource.path(&at.namespace) } else { at.path() }
}

/// The same with a path and query of its own.
///
/// # Errors
/// As [`send`].
pub async fn send_with(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
    patience: Duration,
) -> Result<Value, Trouble> {
    let (http, content) = match method {
        Method::Get => (http::Method::GET, JSON),
        Method::Create => (http::Method::POST, JSON),
        Method::Update => (http::Method::PUT, JSON),
        Method::JsonPatch => (http::Method::PATCH, "application/json-patch+json"),
        // JSON is YAML.
        Method::Apply => (http::Method::PATCH, "application/apply-patch+yaml"),
        Method::Delete => (http::Method::DELETE, JSON),
    };
    let request = http::Request::builder().method(http).uri(path).header(ACCEPT, JSON);
    let request = match body {
        Some(body) => request.header(CONTENT_TYPE, content).body(Body::from(body.to_string().into_bytes())),
        None => request.body(Body::empty()),
    };
    let request = request.map_err(|e| Trouble::Unreachable(e.to_string()))?;
    // One limit over the whole exchange: an answer that trickles in is as late as one that does not come.
    let exchange = async { exchange(client, request, patience).await?.read().await };
    tokio::time::timeout(patience, exchange).await.map_err(|_| Trouble::Silent(patience))?
}
