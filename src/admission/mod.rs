//! What stands between the API server's bytes and `judge`.
//!
//! `server` owns connections, limits and the drain and knows nothing of Istio: it hands a body to
//! a [`Reviewer`] and writes what that returns. It never looks into an object.

mod answer;
pub mod bind;
pub mod callers;
pub mod compose;
mod connection;
mod connections;
mod deadline;
pub mod drain;
mod limit;
pub mod message;
pub mod probes;
pub mod response;
pub mod review;
pub mod self_signed;
pub mod server;
pub mod settings;
pub mod tls;
pub mod webhook;

use std::time::Duration;

pub use server::{Serving, serve};
pub use settings::Settings;

/// Which of the two webhooks the API server called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /validate`
    Validate,
    /// `POST /mutate`
    Mutate,
}

/// What is written back: a status, a JSON body, and perhaps when to try again.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status. 200 carries a verdict; anything else is a failed call, which the API server
    /// treats by the webhook's `failurePolicy`.
    pub status: http::StatusCode,
    /// An `AdmissionReview`, or a sentence in plain text when the call failed.
    pub body: Vec<u8>,
    /// `Retry-After`. Without it the API server does not repeat a 429 or 5xx.
    pub retry_after: Option<Duration>,
}

/// Turns the bytes of an AdmissionReview into the bytes of the answer. Pure computation: it is
/// called on a worker thread, must not block, and may panic (that request then fails with 500).
pub trait Reviewer: Send + Sync + 'static {
    /// `body` is complete and at most as long as the server's limit.
    fn review(&self, endpoint: Endpoint, body: &[u8]) -> Reply;
}

impl From<Endpoint> for crate::telemetry::metrics::Path {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Validate => Self::Validate,
            Endpoint::Mutate => Self::Mutate,
        }
    }
}

/// Marks an answer that was given before the body was read to its end.
#[derive(Clone, Copy, Debug)]
struct Unread;
