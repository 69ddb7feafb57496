//! One request as it goes over the wire, and everything that comes back: kube's typed client throws the
//! `Warning` headers away, and those are half of what a webhook says.

use anyhow::{Context, Result};
use http::header::{CONTENT_TYPE, WARNING};
use http::{HeaderValue, Method, Request};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

pub const JSON: &str = "application/json";
pub const JSON_PATCH: &str = "application/json-patch+json";
pub const MERGE: &str = "application/merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

/// Who asks. The client must be allowed to impersonate; without a user it asks for itself.
#[derive(Clone, Debug, Default)]
pub struct As {
    pub user: String,
    pub groups: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    /// Texts of the `Warning` headers, in order.
    pub warnings: Vec<String>,
}

impl Answer {
    pub fn ok(&self) -> bool {
        self.status < 300
    }

    /// `message` of a Status.
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The body, or the API server's words as an error.
    pub fn expect(self, what: &str) -> Result<Value> {
        anyhow::ensure!(self.ok(), "{what}: {} {}", self.status, self.message());
        Ok(self.body)
    }
}

/// Sends `body` of `content` (none for a GET or DELETE) and reads the answer, whatever its status is.
pub async fn send(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<(&str, &Value)>,
    who: &As,
) -> Result<Answer> {
    let mut request = Request::builder().method(method).uri(path);
    if !who.user.is_empty() {
        request = request.header("impersonate-user", HeaderValue::from_str(&who.user)?);
        for group in &who.groups {
            request = request.header("impersonate-group", HeaderValue::from_str(group)?);
        }
    }
    let bytes = match body {
        Some((content, value)) => {
            request = request.header(CONTENT_TYPE, content);
            serde_json::to_vec(value)?
        }
        None => Vec::new(),
    };
    let response = client.send(request.body(Body::from(bytes))?).await.with_context(|| path.to_owned())?;
    let (head, body) = response.into_parts();
    let bytes = body.collect().await?.to_bytes();
    let warnings = head.headers.get_all(WARNING).iter().map(warning).collect::<Result<_>>()?;
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
        // What is not JSON is somebody's plain words.
        serde_json::json!({"message": String::from_utf8_lossy(&bytes)})
    });
    Ok(Answer { status: head.status.as_u16(), body, warnings })
}

/// `299 - "text"`, with quotes and backslashes escaped.
fn warning(header: &HeaderValue) -> Result<String> {
    let text = std::str::from_utf8(header.as_bytes())?;
    let quoted = text.strip_prefix("299 - \"").and_then(|rest| rest.strip_suffix('"'));
    let mut chars = quoted.with_context(|| format!("a Warning header: {text}"))?.chars();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    Ok(out)
}
