//! What is said of a review: one metric, one line in the log where somebody would want to know.

use std::sync::Arc;

use crate::admission::review::Unreadable;
use crate::admission::webhook::{Outcome, Seen};
use crate::rules::allow::Standing;
use crate::rules::{Action, Severity, Verdict};
use crate::telemetry::tally::End;
use crate::telemetry::{Metrics, metrics};
use jiff::Timestamp;
use jiff::tz::TimeZone;

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
                    // A dry run is followed by the same write, or by none.
                    if !seen.dry_run {
                        tally(&metrics, seen.user, verdict);
                    }
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

/// What enforcing every rule would have stopped.
fn tally(metrics: &Metrics, user: &str, verdict: &Verdict) {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    for j in &verdict.judged {
        let denies = j.finding.severity == Severity::Deny && !j.was_there;
        let end = match j.action {
            Action::Deny => End::Denied,
            _ if matches!(j.exemption, Some(Standing::Holds(_))) => End::Exempted,
            _ if denies => End::WouldDeny,
            _ => End::Warned,
        };
        metrics.tally.count(today, j.rule.code, user, end);
    }
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
