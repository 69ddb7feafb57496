//! Who leads: one Lease, held by one replica, renewed by it and released when it ends.
//!
//! All times are measured on our own monotonic clock, from before a request was sent: a holder whose wall clock is wrong
//! neither keeps a lease for ever nor loses it early, and a lease that was renewed in a request that took five seconds is
//! five seconds older than it looks. A leader that cannot reach the API server knows it: [`Leadership::remaining`] runs
//! out before the Lease does, and whoever writes asks it first. What this cannot exclude is a write that is still on its
//! way when the next leader begins; preconditions of every write answer that.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, watch};
use tokio::time::Instant;

use super::resource::{At, LEASES};
use super::send::{self, Method};
use crate::cluster::Trouble;
use crate::telemetry::Heartbeat;

/// Which Lease, who asks for it, and for how long.
#[derive(Clone, Debug)]
pub struct Terms {
    pub namespace: String,
    pub name: String,
    /// Unique to the process: a restarted container must not take itself for its predecessor.
    pub holder: String,
    /// Nobody else takes the Lease before it went unrenewed for so long.
    pub duration: Duration,
    /// We stop leading after so long without a renewal: earlier than anybody else begins, by as much as a write may take.
    pub leads: Duration,
    /// Between two renewals, and between two looks at somebody else's Lease.
    pub period: Duration,
    /// How long one request may take.
    pub answer: Duration,
}

impl Terms {
    /// 15 s, of which the last 5 are nobody's: a write takes at most 5. A renewal every 3 s that is refused is tried again until the 10 are
    /// over; one that is not answered costs 4 of them, so that once is none.
    pub fn new(namespace: &str, name: &str, holder: String) -> Terms {
        let s = Duration::from_secs;
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Terms { namespace, name, holder, duration: s(15), leads: s(10), period: s(3), answer: s(4) }
    }
}

/// Until a renewal that failed is tried again. A leader has no time to lose, and it is one.
const AGAIN: Duration = Duration::from_millis(500);

/// A record that asks for more than this is a mistake, and would leave the mesh unattended.
const LONGEST: Duration = Duration::from_secs(120);

/// Whether this process leads, for whoever is about to write. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: Arc<Mutex<Option<Instant>>>,
    /// Held by every write while it is on its way; the release waits for them.
    writing: Arc<RwLock<()>>,
    changes: watch::Sender<bool>,
}

impl Default for Leadership {
    fn default() -> Self {
        Leadership { until: Arc::default(), writing: Arc::default(), changes: watch::Sender::new(false) }
    }
}

impl Leadership {
    /// How long a write that begins now may take; `None` when we do not lead.
    pub fn remaining(&self) -> Option<Duration> {
        let until = (*self.until.lock().unwrap_or_else(|p| p.into_inner()))?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// The right to one write, until it is dropped.
    pub async fn right(&self) -> Option<(RwLockReadGuard<'_, ()>, Duration)> {
        let guard = self.writing.read().await;
        // After the wait: a release may have been what was waited for.
        self.remaining().map(|left| (guard, left))
    }

    /// Waits until this process leads.
    pub async fn gained(&self) {
        let mut changes = self.changes.subscribe();
        // The sender lives as long as `self`.
        let _ = changes.wait_for(|leads| *leads).await;
    }

    /// Leadership as it changes.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.changes.subscribe()
    }

    /// Leads until then. Public for tests of what writes.
    pub fn lead_until(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(|p| p.into_inner()) = until;
        let leads = self.remaining().is_some();
        self.changes.send_if_modified(|was| std::mem::replace(was, leads) != leads);
    }
}

/// Says the end of leadership if it has run out and nobody was told yet.
fn expire(leadership: &Leadership, lease: &str, error: &str) {
    if leadership.remaining().is_none() && *leadership.changes.borrow() {
        tracing::warn!(
            lease,
            error,
            "no longer leading: the lease could not be renewed; nothing is written until it is"
        );
        leadership.lead_until(None);
    }
}

/// What is known of the Lease as the API server last showed it.
struct Seen {
    version: String,
    holder: String,
    /// Its record has not changed since.
    since: Instant,
    duration: Duration,
    record: Value,
}

/// Asks for the Lease, keeps it, and gives it back.
pub struct Candidate {
    client: Client,
    terms: Terms,
    leadership: Leadership,
    seen: Option<Seen>,
    trouble: Option<String>,
}

impl Candidate {
    pub fn new(client: Client, terms: Terms) -> Candidate {
        Candidate { client, terms, leadership: Leadership::default(), seen: None, trouble: None }
    }

    /// Ask this before every write.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Runs until `stop`, then gives the Lease back so that the next leader need not wait.
    pub async fn run(mut self, stop: impl Future<Output = ()>, heartbeat: Heartbeat) {
        tokio::pin!(stop);
        loop {
            heartbeat.beat();
            if self.turn_or_stop(&mut stop).await.is_break() {
                break;
            }
            self.expire();
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(self.pause()) => {}
            }
            self.expire();
        }
        self.release().await;
        heartbeat.finish();
    }

    /// One turn. Whoever follows `changes` hears of an end on time, not when an API server that hangs was given up.
    async fn turn_or_stop(&mut self, stop: &mut (impl Future<Output = ()> + Unpin)) -> ControlFlow<()> {
        let leadership = self.leadership.clone();
        let (lease, was) = (self.terms.name.clone(), leadership.remaining());
        let turn = self.turn();
        tokio::pin!(turn);
        let expired = async {
            match was {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(expired);
        let mut due = true;
        loop {
            tokio::select! {
                biased;
                () = &mut *stop => return ControlFlow::Break(()),
                () = &mut turn => return ControlFlow::Continue(()),
                () = &mut expired, if due => {
                    due = false;
                    expire(&leadership, &lease, "no answer in time");
                }
            }
        }
    }

    /// Says the end of what has run out.
    fn expire(&self) {
        expire(&self.leadership, &self.terms.name, self.trouble.as_deref().unwrap_or("no answer in time"));
    }

    /// Until the next turn.
    fn pause(&self) -> Duration {
        let period = self.terms.period;
        match self.leadership.remaining() {
            Some(left) if self.trouble.is_some() => left.min(AGAIN.min(period)),
            Some(left) => left.min(period),
            None => period,
        }
    }

    /// One look, one attempt.
    async fn turn(&mut self) {
        match self.attempt().await {
            Ok(()) => self.trouble = None,
            Err(trouble) => {
                // Another replica may have written; what was known of the Lease no longer helps.
                if let Some(seen) = &mut self.seen {
                    seen.version.clear();
                }
                let text = trouble.to_string();
                if self.trouble.as_ref() != Some(&text) {
                    tracing::warn!(lease = self.terms.name, error = text, "the lease cannot be read or written");
                }
                self.trouble = Some(text);
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), Trouble> {
        let mine = self.seen.as_ref().is_some_and(|s| s.holder == self.terms.holder && !s.version.is_empty());
        if !mine && !self.look().await? {
            return self.write(Method::Create, Value::Null, 0).await;
        }
        let Some(seen) = &self.seen else { return Ok(()) };
        let ours = seen.holder == self.terms.holder;
        if !ours && !seen.holder.is_empty() && seen.since.elapsed() < seen.duration {
            // Somebody else leads. Whoever was leader here until now is not.
            self.leadership.lead_until(None);
            return Ok(());
        }
        let transitions = seen.record["leaseTransitions"].as_u64().unwrap_or(0);
        let version = json!(seen.version);
        self.write(Method::Update, version, if ours { transitions } else { transitions + 1 }).await
    }

    /// Reads the Lease; `false` if there is none.
    async fn look(&mut self) -> Result<bool, Trouble> {
        let asked = Instant::now();
        match send::send(&self.client, Method::Get, &self.at(), None, self.terms.answer).await {
            Ok(lease) => {
                self.note(&lease, asked);
                Ok(true)
            }
            Err(Trouble::NotFound) => {
                self.seen = None;
                Ok(false)
            }
            Err(trouble) => Err(trouble),
        }
    }

    async fn write(&mut self, method: Method, version: Value, transitions: u64) -> Result<(), Trouble> {
        let asked = Instant::now();
        let now = micro(Timestamp::now());
        let acquired = match &self.seen {
            Some(seen) if seen.holder == self.terms.holder => seen.record["acquireTime"].clone(),
            _ => json!(now),
        };
        let mut lease = self.manifest(json!({
            "holderIdentity": self.terms.holder,
            "leaseDurationSeconds": self.terms.duration.as_secs().max(1),
            "acquireTime": acquired,
            "renewTime": now,
            "leaseTransitions": transitions,
        }));
        if !version.is_null() {
            lease["metadata"]["resourceVersion"] = version;
        }
        match send::send(&self.client, method, &self.at(), Some(&lease), self.terms.answer).await {
            Ok(lease) => {
                self.note(&lease, asked);
                let before = self.leadership.remaining().is_some();
                self.leadership.lead_until(Some(asked + self.terms.leads));
                if !before {
                    tracing::info!(lease = self.terms.name, holder = self.terms.holder, "leading");
                }
                Ok(())
            }
            // Somebody was faster; the next turn looks who.
            Err(Trouble::Refused(409, _)) => {
                if let Some(seen) = &mut self.seen {
                    seen.version.clear();
                }
                self.look().await.map(drop)
            }
            Err(trouble) => Err(trouble),
        }
    }

    fn note(&mut self, lease: &Value, asked: Instant) {
        let record = lease["spec"].clone();
        let same = self.seen.as_ref().filter(|s| s.record == record);
        let seconds = record["leaseDurationSeconds"].as_u64().unwrap_or(0);
        self.seen = Some(Seen {
            version: lease["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned(),
            holder: record["holderIdentity"].as_str().unwrap_or_default().to_owned(),
            // An unchanged record ages from when it was first seen; the clock that wrote it is not asked.
            since: same.map_or(asked, |s| s.since),
            duration: Duration::from_secs(seconds).clamp(self.terms.duration, LONGEST.max(self.terms.duration)),
            record,
        });
    }

    /// No write begins any more, those on their way end, and the Lease is free.
    async fn release(&mut self) {
        let held = self.leadership.remaining().is_some();
        self.leadership.lead_until(None);
        let writes = tokio::time::timeout(self.terms.answer, self.leadership.writing.write()).await;
        let Some(seen) = self.seen.take().filter(|s| held && s.holder == self.terms.holder) else { return };
        if writes.is_err() {
            tracing::warn!(lease = self.terms.name, "a write is still on its way: the lease is left to run out");
            return;
        }
        let mut lease = self.manifest(json!({
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "acquireTime": seen.record["acquireTime"],
            "renewTime": micro(Timestamp::now()),
            "leaseTransitions": seen.record["leaseTransitions"],
        }));
        lease["metadata"]["resourceVersion"] = json!(seen.version);
        match send::send(&self.client, Method::Update, &self.at(), Some(&lease), self.terms.answer).await {
            Ok(_) => tracing::info!(lease = self.terms.name, "lease released"),
            Err(error) => tracing::warn!(lease = self.terms.name, %error, "the lease could not be released"),
        }
    }

    fn at(&self) -> At {
        At::of(&LEASES, &self.terms.namespace, &self.terms.name)
    }

    fn manifest(&self, spec: Value) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.terms.name, "namespace": self.terms.namespace},
            "spec": spec,
        })
    }
}

/// A time as `MicroTime` is written.
pub(super) fn micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_stop_before_anybody_else_begins() {
        let terms = Terms::new("ns", "l", "me".to_owned());
        assert!(terms.leads + super::super::write::LONGEST <= terms.duration);
        // Read, and written again.
        assert!(terms.period + terms.answer + AGAIN + Duration::from_secs(2) <= terms.leads, "one may stay unanswered");
    }

    #[tokio::test]
    async fn a_leader_that_is_not_renewed_ends_by_itself() {
        let leadership = Leadership::default();
        assert!(leadership.right().await.is_none());
        leadership.lead_until(Some(Instant::now() + Duration::from_millis(80)));
        assert!(leadership.right().await.is_some_and(|(_, left)| left <= Duration::from_millis(80)));
        tokio::time::sleep(Duration::from_millis(90)).await;
        assert!(leadership.right().await.is_none(), "the Lease itself may last longer; we do not");
    }

    #[test]
    fn times_have_six_digits() {
        let at: Timestamp = "2026-01-02T03:04:05.0067Z".parse().unwrap();
        assert_eq!(micro(at), "2026-01-02T03:04:05.006700Z");
    }
}
