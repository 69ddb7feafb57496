//! The webhook: bytes in, verdict, bytes out. The only part of admission that knows both the codec and the rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use http::StatusCode;
use jiff::Timestamp;

use super::response::{self, Cause, Details, Response, Status};
use super::review::{self, Unreadable};
use super::{Endpoint, Reply, Reviewer, message};
use crate::model::Kind;
use crate::rules::allow::Standing;
use crate::rules::{Action, Patch, Policy, Verdict, judge, judge::mend};
use crate::snapshot::{Snapshot, Unknown};
use crate::wire::kinds::label;

/// A snapshot as it was published.
pub struct Published {
    pub snapshot: Snapshot,
    /// When each kind was last heard of, whole objects of namespaces of the mesh apart; empty for manifests, which do not
    /// age.
    pub heard: BTreeMap<(Kind, bool), Timestamp>,
}

impl Published {
    /// A snapshot that does not age.
    pub fn of(snapshot: Snapshot) -> Published {
        Published { snapshot, heard: BTreeMap::new() }
    }
}

/// What reviews read; replaced as a whole, never changed in place.
pub struct Shared {
    pub state: ArcSwap<Published>,
    pub policy: ArcSwap<Policy>,
}

impl Shared {
    pub fn new(snapshot: Snapshot, policy: Policy) -> Arc<Self> {
        Arc::new(Shared {
            state: ArcSwap::from_pointee(Published::of(snapshot)),
            policy: ArcSwap::from_pointee(policy),
        })
    }
}

/// Judges reviews over what is shared.
pub struct Webhook {
    pub shared: Arc<Shared>,
    pub clock: fn() -> Timestamp,
    /// Told of every review, for metrics and the log.
    pub observe: Box<dyn Fn(&Seen<'_>) + Send + Sync>,
}

/// One review, as metrics and the log see it.
pub struct Seen<'a> {
    pub endpoint: Endpoint,
    pub uid: &'a str,
    pub user: &'a str,
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub dry_run: bool,
    pub outcome: Outcome<'a>,
}

pub enum Outcome<'a> {
    Verdict(&'a Verdict),
    Mended(usize),
    /// Nothing that a rule looks at.
    Passed,
    NotReady(&'a Unknown),
    Unreadable(&'a Unreadable),
}

impl Reviewer for Webhook {
    fn review(&self, endpoint: Endpoint, body: &[u8]) -> Reply {
        let review = match review::read(body) {
            Ok(review) => review,
            Err(error) => return self.unreadable(endpoint, error),
        };
        let state = self.shared.state.load();
        let policy = self.shared.policy.load();
        let about = (review.user.name.clone(), review.kind_name.clone(), review.namespace.clone(), review.name.clone());
        let (uid, dry_run) = (review.uid.clone(), review.dry_run);
        let see = |outcome: Outcome<'_>| {
            let (user, kind, namespace, name) = (&about.0, &about.1, &about.2, &about.3);
            (self.observe)(&Seen { endpoint, uid: &uid, user, kind, namespace, name, dry_run, outcome });
        };
        let Some((_, request)) = review.into_request(&state.snapshot) else {
            see(Outcome::Passed);
            return ok(&Response { uid: uid.clone(), allowed: true, ..Response::default() });
        };
        let now = (self.clock)();
        if endpoint == Endpoint::Mutate {
            return match mend(&policy, &request, &state.snapshot, now) {
                Err(unknown) => {
                    see(Outcome::NotReady(&unknown));
                    not_ready(&unknown)
                }
                Ok(patches) => {
                    see(Outcome::Mended(patches.len()));
                    ok(&mended(uid.clone(), &patches))
                }
            };
        }
        let verdict = judge(&policy, &request, &state.snapshot, now);
        if let Some(unknown) = &verdict.not_ready {
            see(Outcome::NotReady(unknown));
            return not_ready(unknown);
        }
        see(Outcome::Verdict(&verdict));
        ok(&answer(uid.clone(), &verdict, now))
    }
}

impl Webhook {
    fn unreadable(&self, endpoint: Endpoint, error: Unreadable) -> Reply {
        let uid = match &error {
            Unreadable::Object { uid, .. } => uid.as_str(),
            Unreadable::Envelope(_) => "",
        };
        let outcome = Outcome::Unreadable(&error);
        (self.observe)(&Seen { endpoint, uid, user: "", kind: "", namespace: "", name: "", dry_run: false, outcome });
        match error {
            Unreadable::Envelope(_) => {
                Reply { status: StatusCode::BAD_REQUEST, body: error.to_string().into_bytes(), retry_after: None }
            }
            Unreadable::Object { uid, message } => ok(&response::unprocessable(uid, message)),
        }
    }
}

fn ok(response: &Response) -> Reply {
    Reply { status: StatusCode::OK, body: response::write(response), retry_after: None }
}

/// With `Retry-After` the API server tries again within its deadline; without it, it does not.
fn not_ready(unknown: &Unknown) -> Reply {
    let body = format!("not ready: {unknown}").into_bytes();
    Reply { status: StatusCode::SERVICE_UNAVAILABLE, body, retry_after: Some(Duration::from_secs(1)) }
}

/// The answer to a validation.
pub fn answer(uid: String, verdict: &Verdict, now: Timestamp) -> Response {
    let denied = !verdict.is_allowed();
    let status = denied.then(|| Status {
        status: "Failure",
        message: message::denial(verdict),
        reason: "Forbidden",
        code: 403,
        details: Some(Details {
            causes: verdict
                .denied()
                .map(|j| Cause {
                    reason: j.rule.code,
                    message: j.finding.what.clone(),
                    field: j.finding.field.to_string(),
                })
                .collect(),
        }),
    });
    Response {
        uid,
        allowed: !denied,
        status,
        warnings: message::warnings(verdict),
        audit_annotations: audit(verdict, now),
        ..Response::default()
    }
}

/// Audit annotations: which rules spoke, what was let through and why, how old the view was.
fn audit(verdict: &Verdict, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    if let Some(old) = verdict.stale {
        out.push(("snapshot-stale", format!("{}: {old}", old.means.as_str())));
    } else if verdict.judged.is_empty() {
        return out;
    }
    for (key, action) in [("denied", Action::Deny), ("warned", Action::Warn), ("audited", Action::Audit)] {
        let codes: Vec<&str> = verdict.judged.iter().filter(|j| j.action == action).map(|j| j.rule.code).collect();
        if !codes.is_empty() {
            out.push((key, codes.join(",")));
        }
    }
    let exempted: Vec<String> = verdict
        .judged
        .iter()
        .filter_map(|j| match &j.exemption {
            Some(Standing::Holds(reason)) => Some(format!("{}: {reason}", j.rule.code)),
            _ => None,
        })
        .collect();
    if !exempted.is_empty() {
        out.push(("exempted", exempted.join("; ")));
    }
    if let Some((kind, heard)) = verdict.oldest {
        let age = now.duration_since(heard).as_secs_f64().max(0.0);
        out.push(("snapshot-age", format!("{} {age:.3}s", label(kind))));
    }
    out
}

/// The answer to a mutation.
pub fn mended(uid: String, patches: &[(&'static crate::rules::Rule, Patch)]) -> Response {
    let mut response = Response { uid, allowed: true, ..Response::default() };
    if patches.is_empty() {
        return response;
    }
    let operations: Vec<&Patch> = patches.iter().map(|(_, p)| p).collect();
    let json = serde_json::to_vec(&operations).expect("strings always serialise");
    response.patch = Some(base64::engine::general_purpose::STANDARD.encode(json));
    response.patch_type = Some("JSONPatch");
    let mut codes: Vec<&str> = patches.iter().map(|(r, _)| r.code).collect();
    codes.dedup();
    response.audit_annotations = vec![("mended", codes.join(","))];
    response
}
