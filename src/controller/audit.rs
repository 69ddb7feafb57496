//! The audit loop: what exists is judged every so often and soon after webhook configurations change, and what comes of
//! it is carried out: metrics, reports, Events, the MeshState, repairs.
//!
//! Only the leader audits, so that a sum of metrics over replicas counts nothing twice. Judging runs on a thread of its
//! own: 50,000 workloads take seconds, and leases must be renewed meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};

use super::events::{self, Events, Word};
use super::in_force::InForce;
use super::names::Names;
use super::repair::Repairs;
use super::resource::At;
use super::write::Writer;
use super::{mesh_state, reports};
use crate::admission::webhook::Shared;
use crate::audit::ledger::Standing;
use crate::audit::{self, Audit, Inventory, Ledger};
use crate::model::{Kind, Object};
use crate::rules::policy::Mutations;
use crate::rules::{Level, Policy};
use crate::snapshot::Snapshot;
use crate::telemetry::Heartbeat;
use crate::telemetry::mesh::{Figures, RevisionFigures};
use crate::telemetry::metrics::Loop;

/// When it audits.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From the end of one audit to the beginning of the next.
    pub interval: Duration,
    /// How often it is looked whether webhook configurations changed; an audit follows at most that often.
    pub look: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { interval: Duration::from_secs(30), look: Duration::from_secs(2) }
    }
}

/// What the adoption report says of exemptions; filled by every audit.
pub type Exemptions = Arc<std::sync::Mutex<Vec<audit::Exemption>>>;

/// The audit and everything that follows from it.
pub struct Auditor {
    writer: Writer,
    shared: Arc<Shared>,
    events: Arc<Events>,
    names: Names,
    pace: Pace,
    exemptions: Exemptions,
    ledger: Ledger,
    reports: reports::Keeper,
    mesh: mesh_state::Keeper,
    /// What is known of the admission policy, where there is one.
    in_force: Option<watch::Receiver<InForce>>,
    repairs: Repairs,
}

/// A grace is 20 seconds and more; half of the shortest.
const GRACE_LOOK: Duration = Duration::from_secs(10);

/// What an audit left to be done.
#[derive(Default)]
struct After {
    /// Something was repaired: the next audit sees what came of it.
    wrote: bool,
    /// Something is not told yet because its grace is not over.
    pending: Option<Duration>,
}

/// One audit, judged.
struct Judged {
    snapshot: Snapshot,
    audit: Audit,
    took: Duration,
    at: Timestamp,
}

impl Auditor {
    pub fn new(
        writer: Writer,
        shared: Arc<Shared>,
        events: Arc<Events>,
        names: Names,
        pace: Pace,
    ) -> (Auditor, Exemptions) {
        let exemptions = Exemptions::default();
        let auditor = Auditor {
            repairs: Repairs::new(writer.clone(), Arc::clone(&events), &names),
            writer,
            shared,
            events,
            names,
            pace,
            exemptions: Arc::clone(&exemptions),
            ledger: Ledger::default(),
            reports: reports::Keeper::default(),
            mesh: mesh_state::Keeper::default(),
            in_force: None,
        };
        (auditor, exemptions)
    }

    /// Tells of the admission policy as well.
    #[must_use]
    pub fn with_policy(mut self, in_force: watch::Receiver<InForce>) -> Auditor {
        self.in_force = Some(in_force);
        self
    }

    /// Audits for as long as the process lives, whenever this replica leads.
    pub async fn run(mut self, heartbeat: Heartbeat, again: Arc<Notify>) {
        let mut leads = self.writer.leadership().changes();
        loop {
            heartbeat.beat();
            if self.writer.leadership().remaining().is_none() {
                self.writer.metrics().mesh.clear();
                self.writer.metrics().mesh.clear_present();
                self.ledger = Ledger::default();
                self.reports.forget();
                self.mesh.forget();
                self.idle(&mut leads).await;
                continue;
            }
            let seen = Marks::of(&self.shared.state.load().snapshot);
            let next = self.pass().await;
            self.wait(&seen, &next, &heartbeat, &again).await;
        }
    }

    /// Until this replica leads, and a while at most. Leadership runs out by itself, a moment before it is said: until then it
    /// looks as if there were nothing to wait for.
    async fn idle(&self, leads: &mut watch::Receiver<bool>) {
        let begun = Instant::now();
        let _ = tokio::time::timeout(self.pace.interval, leads.wait_for(|leads| *leads)).await;
        if self.writer.leadership().remaining().is_none() {
            tokio::time::sleep(self.pace.look.saturating_sub(begun.elapsed())).await;
        }
    }

    /// Until the next audit is due: the interval, the end of a grace, a change of webhook configurations, a write of our
    /// own, or a call.
    async fn wait(&self, seen: &Marks, next: &After, heartbeat: &Heartbeat, again: &Notify) {
        let until = Instant::now() + next.pending.map_or(self.pace.interval, |due| due.min(self.pace.interval));
        while Instant::now() < until && self.writer.leadership().remaining().is_some() {
            heartbeat.beat();
            tokio::select! {
                () = tokio::time::sleep(self.pace.look) => {}
                () = again.notified() => return,
            }
            if next.wrote || Marks::of(&self.shared.state.load().snapshot) != *seen {
                return;
            }
        }
    }

    /// One audit and what follows from it.
    async fn pass(&mut self) -> After {
        let snapshot = self.shared.state.load().snapshot.clone();
        let policy = Policy::clone(&self.shared.policy.load());
        self.present(&snapshot, &policy);
        let limit = policy.stale.age.0;
        let judged = tokio::task::spawn_blocking(move || judge(&policy, snapshot)).await;
        let judged = match judged {
            Ok(judged) => judged,
            Err(error) => {
                self.writer.metrics().reconcile_error(Loop::Audit);
                tracing::error!(%error, "the audit has failed");
                return After::default();
            }
        };
        let Judged { snapshot, audit, took, at } = judged;
        *self.exemptions.lock().unwrap_or_else(|p| p.into_inner()) = audit.exemptions.clone();
        let (ends, found) = (ends(&audit), audit.entries.len());
        let standing = self.ledger.observe(audit, at);
        // What is still in its grace is looked at again soon, so that a long interval delays neither words nor repairs.
        let pending = (standing.entries.len() < found).then(|| GRACE_LOOK.max(took * 5));
        let mut inventory = audit::inventory(&snapshot, &standing.entries);
        let old = old(&snapshot, limit, at);
        let is_old = !old.is_empty();
        inventory.unknown.extend(old);
        self.writer.metrics().mesh.set(&figures(&inventory, &standing, ends, took, at));
        self.tell(&standing).await;
        let written = self.reports.keep(&self.writer, &self.names, &audit::report::reports(&standing.entries)).await;
        failed(written, "policy reports");
        let in_force = self.in_force.as_ref().map(|known| *known.borrow());
        let written = self.mesh.keep(&self.writer, mesh_state::Seen { inventory: &inventory, in_force }, at).await;
        failed(written, "MeshState");
        // As at admission, nothing is mended by an old view; what somebody wants taken back is read freshly.
        let to_mend = if is_old { &[][..] } else { &standing.entries };
        let wrote = self.repairs.pass(to_mend, &snapshot, at).await > 0;
        After { wrote, pending }
    }

    /// Events about what is new.
    async fn tell(&self, standing: &Standing) {
        for gone in &standing.gone {
            tracing::info!(rule = gone.code, object = %At::id(&gone.object), value = gone.value, "no longer wrong");
        }
        for entry in &standing.new {
            let at = At::id(&entry.object);
            tracing::info!(
                rule = entry.rule.code,
                level = entry.level.as_str(),
                object = %at,
                value = entry.value,
                "wrong"
            );
            if entry.level == Level::Info {
                continue;
            }
            let what = format!("[{} {}] {}", entry.rule.code, entry.rule.name, entry.what);
            let note = events::with_fix(&what, &entry.fix);
            let word = Word { warning: true, reason: entry.rule.code.to_owned(), action: "Audit", note };
            self.events.say(&at, None, &word).await;
        }
    }

    /// Whether our own webhook configurations are there. They are never made again by us; the alert asks a person.
    fn present(&self, snapshot: &Snapshot, policy: &Policy) {
        // Whoever registers by hand needs the mutating one only where something is mended, or approved.
        let mutates = policy.mutations != Mutations::default() || snapshot.len(Kind::GatewayRollout) > 0;
        for (kind, wanted) in [(Kind::ValidatingWebhook, true), (Kind::MutatingWebhook, mutates)] {
            if !wanted || snapshot.knows(kind, None).is_err() {
                continue;
            }
            let (name, kind_name) = (&self.names.release, crate::wire::row(kind).name);
            let there = snapshot.get(kind, "", name).is_some();
            self.writer.metrics().mesh.present(&format!("{kind_name}/{name}"), there);
            if !there {
                tracing::warn!(
                    name,
                    kind = kind_name,
                    "our own webhook configuration is not there: nothing is judged; `helm upgrade` makes it again"
                );
            }
        }
    }
}

fn failed(result: Result<(), super::write::WriteError>, what: &str) {
    match result {
        Err(error) if !error.is_benign() => tracing::warn!(what, %error, "not brought up to date"),
        _ => {}
    }
}

fn judge(policy: &Policy, snapshot: Snapshot) -> Judged {
    let (began, at) = (Instant::now(), Timestamp::now());
    let audit = audit::run(policy, &snapshot, at);
    Judged { snapshot, audit, took: began.elapsed(), at }
}

/// What nothing was heard of for longer than the policy allows. Since when, not for how long: that would be another text, and a
/// write, with every audit.
fn old(snapshot: &Snapshot, limit: SignedDuration, now: Timestamp) -> Vec<String> {
    let heard = crate::wire::KINDS.iter().filter_map(|row| snapshot.oldest(1 << row.kind.index()));
    heard
        .filter(|(_, heard)| now.duration_since(*heard) > limit)
        .map(|(kind, heard)| {
            let (plural, since) = (crate::wire::row(kind).plural, heard.strftime("%Y-%m-%dT%H:%M:%SZ"));
            format!("nothing was heard of {plural} since {since}")
        })
        .collect()
}

/// The earliest end of an exemption that holds, by rule.
fn ends(audit: &Audit) -> BTreeMap<&'static str, i64> {
    let mut ends = BTreeMap::new();
    for e in audit.exemptions.iter().filter(|e| e.void.is_none()) {
        if let (Some(rule), Some(end)) = (crate::rules::find(&e.code), e.expires()) {
            let at = ends.entry(rule.code).or_insert(i64::MAX);
            *at = end.as_second().min(*at);
        }
    }
    ends
}

fn figures(
    inventory: &Inventory,
    standing: &Standing,
    exemptions: BTreeMap<&'static str, i64>,
    took: Duration,
    at: Timestamp,
) -> Figures {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut findings = BTreeMap::new();
    for entry in &standing.entries {
        *findings.entry((entry.rule.code, entry.level.as_str())).or_default() += 1;
    }
    let mut validators: BTreeMap<String, bool> = BTreeMap::new();
    for v in &inventory.validators {
        *validators.entry(v.name.clone()).or_default() |= v.dangling;
    }
    let mut catch_all: Vec<&str> =
        inventory.validators.iter().filter(|v| v.catch_all).map(|v| v.name.as_str()).collect();
    catch_all.dedup();
    Figures {
        revisions: inventory
            .revisions
            .iter()
            .map(|r| RevisionFigures {
                name: r.name.clone(),
                version: r.version.clone(),
                ready: r.endpoints.map(|n| n > 0),
                endpoints: r.endpoints,
                namespaces: count(r.users.namespaces.len()),
                workload_pods: r.users.workload_pods,
                gateway_pods: r.users.gateway_pods,
            })
            .collect(),
        pods_of_unknown_revisions: inventory.lost.iter().map(|l| l.pods).sum(),
        pods_without_revision: inventory.pods_without_revision,
        default_validators: count(catch_all.len()),
        validators: validators.into_iter().collect(),
        injectors: inventory.injectors.iter().map(|i| (i.name.clone(), i.dangling)).collect(),
        injectors_conflicting: count(inventory.injectors.iter().filter(|i| i.conflicting).count()),
        findings,
        exemptions,
        took,
        at: at.as_second(),
    }
}

/// Webhook configurations as they were: an audit follows soon when they differ.
#[derive(PartialEq)]
struct Marks(Vec<Object>);

impl Marks {
    fn of(snapshot: &Snapshot) -> Marks {
        let kinds = [Kind::MutatingWebhook, Kind::ValidatingWebhook];
        Marks(kinds.iter().flat_map(|kind| snapshot.raw(*kind)).cloned().collect())
    }
}
