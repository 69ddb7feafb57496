//! From a request to its answer: routes, what a request must be to reach the reviewer, and what
//! everything else is told.
//!
//! Whatever fails here is a failed call, never a verdict: the webhook's `failurePolicy` decides.
//! Overload is answered 429 with `Retry-After`, because the API server repeats only what carries
//! that header.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::routing::post;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::Unread;
use super::deadline;
use super::limit::{BodyMemory, Gate};
use super::settings::Settings;
use super::{Endpoint, Reply, Reviewer};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Full, Outcome, Path};

/// Reserved at once for a body whose length is announced; more grows as it arrives, because an
/// announcement costs a client nothing.
const RESERVE: usize = 64 << 10;
/// Answered within the second, and client-go reads whole seconds.
const RETRY: Duration = Duration::from_secs(1);

/// What the handlers share.
pub(super) struct Desk {
    pub(super) settings: Settings,
    pub(super) reviewer: Arc<dyn Reviewer>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) gate: Arc<Gate>,
    pub(super) memory: BodyMemory,
}

/// The routes of the HTTPS port.
pub(super) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/validate", post(validate))
        .route("/mutate", post(mutate))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_path)
        .with_state(desk)
}

async fn validate(State(desk): State<Arc<Desk>>, request: Request<Body>) -> Response<Body> {
    desk.answer(Endpoint::Validate, request).await
}

async fn mutate(State(desk): State<Arc<Desk>>, request: Request<Body>) -> Response<Body> {
    desk.answer(Endpoint::Mutate, request).await
}

async fn wrong_method(State(desk): State<Arc<Desk>>, method: Method, request: Request<Body>) -> Response<Body> {
    desk.metrics.request(Path::of(request.uri().path()), Outcome::WrongMethod);
    let mut response = refuse(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not served here; send an AdmissionReview with POST\n"),
    );
    mark_unread(request.headers(), &mut response);
    response
}

async fn unknown_path(State(desk): State<Arc<Desk>>, request: Request<Body>) -> Response<Body> {
    desk.metrics.request(Path::Other, Outcome::NotFound);
    let mut response = refuse(
        StatusCode::NOT_FOUND,
        "unknown path; this port serves /validate and /mutate, probes and metrics are on the health port\n".to_owned(),
    );
    mark_unread(request.headers(), &mut response);
    response
}

/// What a connection over the limit is told, whatever it asked.
pub(super) fn too_many_connections(metrics: &Metrics, path: Path) -> Response<Body> {
    metrics.rejected(Full::Connections);
    metrics.request(path, Outcome::Overloaded);
    let mut response =
        refuse(StatusCode::TOO_MANY_REQUESTS, "too many connections, and none of them is idle\n".to_owned());
    response.headers_mut().insert(RETRY_AFTER, seconds(RETRY));
    response.extensions_mut().insert(Unread);
    response
}

/// Why a request did not reach the reviewer.
#[derive(Debug)]
enum Refusal {
    WrongType(Option<HeaderValue>),
    TooLarge(usize),
    SlowBody(Duration),
    BrokenBody(String),
    Overloaded(Full),
}

impl Desk {
    async fn answer(&self, endpoint: Endpoint, request: Request<Body>) -> Response<Body> {
        let mut exit = Exit::new(&self.metrics, endpoint.into());
        let (parts, body) = request.into_parts();
        let budget = deadline::budget(parts.uri.query(), self.settings.default_timeout);
        let due = Instant::now() + budget;

        let read = match json(&parts.headers) {
            Err(refusal) => Err(refusal),
            Ok(()) => self.read(&parts.headers, body, due).await,
        };
        // The share of memory is held until the review is over.
        let (body, _share) = match read {
            Ok(read) => read,
            Err(refusal) => {
                let mut response = exit.refuse(refusal);
                mark_unread(&parts.headers, &mut response);
                return response;
            }
        };
        let wait = self.settings.queue.min(due.saturating_duration_since(Instant::now()));
        let Some(turn) = self.gate.enter(wait).await else {
            return exit.refuse(Refusal::Overloaded(Full::Workers));
        };
        let reply = self.review(endpoint, &body);
        drop(turn);
        match reply {
            Some(reply) => exit.reply(reply),
            None => exit.panicked(),
        }
    }

    /// `None` if the reviewer panicked. It runs right here on the worker: handing a review of
    /// tens of microseconds to another thread costs as much as the review. The runtime has a
    /// worker more than there are turns, and [`super::limit::oversee`] keeps that one awake, so
    /// somebody is left to answer 429.
    fn review(&self, endpoint: Endpoint, body: &[u8]) -> Option<Reply> {
        // The reviewer is pure: whatever it left half done lived on its own stack.
        let judged = catch_unwind(AssertUnwindSafe(|| self.reviewer.review(endpoint, body)));
        judged.ok()
    }

    async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        due: Instant,
    ) -> Result<(Bytes, super::limit::Share<'_>), Refusal> {
        let limit = self.settings.max_body;
        let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(Refusal::TooLarge(limit));
        }
        let now = Instant::now();
        let until = due.min(now + self.settings.body_timeout);
        let mut share = self.memory.share();
        let reading = collect(body, announced, limit, &mut share);
        match tokio::time::timeout_at(until, reading).await {
            Ok(Ok(bytes)) => Ok((bytes, share)),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(Refusal::SlowBody(until - now)),
        }
    }
}

async fn collect(
    mut body: Body,
    announced: Option<usize>,
    limit: usize,
    share: &mut super::limit::Share<'_>,
) -> Result<Bytes, Refusal> {
    let mut first: Option<Bytes> = None;
    let mut all = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::BrokenBody(error.to_string()))?;
        // Trailers say nothing that matters here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length > limit {
            return Err(Refusal::TooLarge(limit));
        }
        if !share.grow(data.len()) {
            return Err(Refusal::Overloaded(Full::BodyMemory));
        }
        match first.take() {
            // Most bodies come in one piece, which is handed on as it is.
            None if all.is_empty() => first = Some(data),
            None => all.extend_from_slice(&data),
            Some(held) => {
                all.reserve(announced.unwrap_or(length).min(RESERVE).max(length));
                all.extend_from_slice(&held);
                all.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| Bytes::from(all)))
}

fn json(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers.get(CONTENT_TYPE);
    let is_json = value
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if is_json { Ok(()) } else { Err(Refusal::WrongType(value.cloned())) }
}

/// One request's way out: counted when dropped, so that no path can forget it. A handler that is
/// dropped half way had its client go away.
struct Exit<'a> {
    metrics: &'a Metrics,
    path: Path,
    begun: Instant,
    /// `None` when the reviewer counted the verdict.
    outcome: Option<Outcome>,
}

impl<'a> Exit<'a> {
    fn new(metrics: &'a Metrics, path: Path) -> Exit<'a> {
        metrics.begin();
        Exit { metrics, path, begun: Instant::now(), outcome: Some(Outcome::ClientGone) }
    }

    fn reply(&mut self, reply: Reply) -> Response<Body> {
        self.outcome = match reply.status {
            StatusCode::OK => None,
            StatusCode::BAD_REQUEST => Some(Outcome::BadRequest),
            StatusCode::TOO_MANY_REQUESTS => Some(Outcome::Overloaded),
            StatusCode::SERVICE_UNAVAILABLE => Some(Outcome::Unavailable),
            _ => Some(Outcome::Failed),
        };
        let kind = if reply.status == StatusCode::OK { HeaderValue::from_static("application/json") } else { PLAIN };
        let mut response = Response::new(Body::from(reply.body));
        *response.status_mut() = reply.status;
        response.headers_mut().insert(CONTENT_TYPE, kind);
        if let Some(after) = reply.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds(after));
        }
        response
    }

    fn panicked(&mut self) -> Response<Body> {
        self.outcome = Some(Outcome::Panicked);
        self.metrics.panicked();
        tracing::error!(endpoint = self.path.as_str(), "review panicked");
        refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            "revguard failed while judging this request; its log has the details, please report them\n".to_owned(),
        )
    }

    fn refuse(&mut self, refusal: Refusal) -> Response<Body> {
        let (outcome, status, text) = match refusal {
            Refusal::WrongType(kind) => (
                Outcome::WrongType,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                match kind {
                    Some(kind) => format!("content-type is {kind:?}, expected application/json\n"),
                    None => "no content-type, expected application/json\n".to_owned(),
                },
            ),
            Refusal::TooLarge(limit) => {
                (Outcome::TooLarge, StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {limit} bytes\n"))
            }
            Refusal::SlowBody(waited) => (
                Outcome::SlowBody,
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not arrive within {} ms\n", waited.as_millis()),
            ),
            Refusal::BrokenBody(error) => {
                (Outcome::BadRequest, StatusCode::BAD_REQUEST, format!("the body could not be read: {error}\n"))
            }
            Refusal::Overloaded(full) => {
                self.metrics.rejected(full);
                (
                    Outcome::Overloaded,
                    StatusCode::TOO_MANY_REQUESTS,
                    match full {
                        Full::Workers => "no worker became free in time\n",
                        Full::BodyMemory => "too many bytes of other requests are being read\n",
                        Full::Connections => "too many connections\n",
                    }
                    .to_owned(),
                )
            }
        };
        self.outcome = Some(outcome);
        let mut response = refuse(status, text);
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(RETRY_AFTER, seconds(RETRY));
        }
        response
    }
}

impl Drop for Exit<'_> {
    fn drop(&mut self) {
        self.metrics.end();
        self.metrics.duration(self.path, self.begun.elapsed());
        if let Some(outcome) = self.outcome {
            self.metrics.request(self.path, outcome);
        }
    }
}

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A failed call in one line of plain text, which the API server quotes to the user.
fn refuse(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PLAIN);
    response
}

/// A request that was answered before its body was read must be the connection's last, unless
/// it announced that it has none.
fn mark_unread(headers: &HeaderMap, response: &mut Response<Body>) {
    let empty = match headers.get(CONTENT_LENGTH) {
        Some(length) => length == "0",
        None => !headers.contains_key(http::header::TRANSFER_ENCODING),
    };
    if !empty {
        response.extensions_mut().insert(Unread);
    }
}

/// Whole seconds, at least one: `Retry-After: 0` would be repeated at once.
fn seconds(after: Duration) -> HeaderValue {
    let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    HeaderValue::from(whole.max(1))
}
