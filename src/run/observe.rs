//! What is said of a review: one metric, one line in the log where somebody would want to know.

use std::sync::Arc;

use crate::admission::review::Unreadable;
use crate::admission::webhook::{Outcome, Seen};
use crate::rules::{Action, Verdict};
use crate::telemetry::{Metrics, metrics};

/// Counts and logs reviews.
pub fn observer(metrics: Arc<Metrics>) -> Box<dyn Fn(&Seen<'_>) + Send + Sync> {
    Box::new(move |seen| {
        if let Some(outcome) = counted(&seen.outcome) {
            metrics.request(seen.endpoint.into(), outcome);
        }
        match &seen.outcome {
            Outcome::Verdict(verdict) => {
                for j in &verdict.judged {
                    metrics.finding(j.rule.code, action(j.action));
                }
                if !verdict.judged.is_empty() {
                    log(seen, verdict);
                }
            }
            Outcome::Unreadable(Unreadable::Envelope(error)) => {
                tracing::warn!(%error, "a request that is no AdmissionReview");
            }
            Outcome::Unreadable(Unreadable::Object { message, .. }) => {
                tracing::info!(req.uid = seen.uid, error = message, "denied: unreadable object");
            }
            Outcome::NotReady(unknown) => tracing::info!(req.uid = seen.uid, waiting_on = %unknown, "not ready"),
            Outcome::Mended(_) | Outcome::Passed => {}
        }
    })
}

/// Reviews that end in an answer of status 200; the server counts every other end.
fn counted(outcome: &Outcome<'_>) -> Option<metrics::Outcome> {
    Some(match outcome {
        Outcome::Verdict(v) if !v.is_allowed() => metrics::Outcome::Denied,
        Outcome::Verdict(v) if v.warnings().next().is_some() => metrics::Outcome::Warned,
        Outcome::Mended(n) if *n > 0 => metrics::Outcome::Patched,
        Outcome::Verdict(_) | Outcome::Passed | Outcome::Mended(_) => metrics::Outcome::Allowed,
        Outcome::Unreadable(Unreadable::Object { .. }) => metrics::Outcome::Unreadable,
        Outcome::Unreadable(Unreadable::Envelope(_)) | Outcome::NotReady(_) => return None,
    })
}

fn action(action: Action) -> metrics::Action {
    match action {
        Action::Deny => metrics::Action::Deny,
        Action::Warn => metrics::Action::Warn,
        Action::Audit => metrics::Action::Audit,
    }
}

fn log(seen: &Seen<'_>, verdict: &Verdict) {
    let rules: Vec<&str> = verdict.judged.iter().map(|j| j.rule.code).collect();
    let denied = !verdict.is_allowed();
    tracing::info!(
        req.uid = seen.uid,
        req.kind = seen.kind,
        req.ns = seen.namespace,
        req.name = seen.name,
        user = seen.user,
        dry_run = seen.dry_run,
        verdict = if denied { "denied" } else { "allowed" },
        rules = rules.join(","),
        "judged"
    );
}
