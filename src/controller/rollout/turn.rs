//! One turn of one rollout: everything is read, the plan is asked, and at most one thing is written.
//!
//! Pods and dry-runs are asked before the look, about what the turn before saw: they take seconds, and what was counted must not be
//! that old when something is taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::istiod::{self, Istiods};
use super::moves::{self, Moves};
use super::{Conductor, carry, evidence, rehearse, say};
use crate::api::GatewayRolloutStatus;
use crate::api::gateway_rollout::{Level, StrategyType};
use crate::api::rollout_status::Phase;
use crate::cluster::request::encode;
use crate::cluster::{ReadError, Trouble, list};
use crate::controller::prometheus::{About, Guard};
use crate::controller::resource::{At, ROLLOUTS};
use crate::controller::write::{Change, Held, Write, WriteError};
use crate::rollout::gate;
use crate::rollout::guards::{self, Scene};
use crate::rollout::objects::Impossible;
use crate::rollout::read::{self, Raw, Unreadable, plane};
use crate::rollout::seen::{ControlPlane, DryRun, Evidence, Gate, MetricResult, Of, Pod};
use crate::rollout::status::{self, Before};
use crate::rollout::{Memory, Next, Plan, Seen, Step, plan};
use crate::telemetry::metrics::Loop;

/// Boundaries of the writes that are no steps.
const REMEMBER: &str = "rollout-remember";
const STATUS: &str = "rollout-status";

/// How old a dry-run may be.
const REHEARSED: Duration = Duration::from_secs(20);
/// Derived parts of the status are written no more often than this, unless somebody would wait for them.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// A failure that has come so often in a row is told on the object, whatever it is: some 15 s after the first.
const UNTIL_SAID: u32 = 6;

/// What one process keeps between the turns of a rollout. All of it can be lost.
#[derive(Default)]
pub struct Track {
    uid: String,
    /// What the last turn was planned from, and what is remembered since.
    last: Option<Sight>,
    evidence: BTreeMap<Arc<str>, (Instant, Evidence)>,
    /// What istiods say of its pods.
    istiods: Istiods,
    rehearsed: Option<(Instant, i64, Vec<DryRun>)>,
    /// By which label pods can be set apart, and when that was asked.
    apart: Option<(Instant, Result<Arc<str>, String>)>,
    /// What is known of its Prometheus, and what it said last.
    guard: Guard,
    said_by_prometheus: (Gate, Vec<MetricResult>),
    /// The last turn took something down.
    remembered: bool,
    /// Events of the last plan, said already.
    said: BTreeSet<(String, String, bool)>,
    status_at: Option<Instant>,
    /// Since when every look succeeded.
    watched: Option<Timestamp>,
    /// Our own last version of the object.
    version: String,
    stumbles: u32,
    /// The last failure, so that it is logged once.
    trouble: String,
    moves: Moves,
}

impl Track {
    /// Where it is, as far as this process knows.
    fn phase(&self) -> Option<Phase> {
        self.last.as_ref().map(|last| last.memory.phase)
    }

    /// Whether everything is read that only guards look at: before the start, and from then on now and then.
    fn asks_guards(&self, every: Duration) -> bool {
        match self.phase() {
            Some(phase) if phase.is_over() => false,
            Some(phase) if !is_before(phase) => self.apart.as_ref().is_none_or(|(at, _)| at.elapsed() >= every),
            _ => true,
        }
    }

    /// What an evaluation comes to is taken down before anything follows from it. Were the next one asked for at once, a turn that takes
    /// longer than the metric's interval would only ever take down, and never act.
    fn asks_prometheus(&mut self) -> bool {
        !std::mem::take(&mut self.remembered)
    }

    /// Nothing follows by itself, and nobody has to be asked.
    pub fn is_over(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.memory.phase.is_over() && !has_apart(&last.seen))
    }

    /// Whether this version of the object is our own doing.
    pub fn wrote(&self, version: &str) -> bool {
        self.version == version
    }
}

/// What follows a turn.
pub enum Again {
    /// The object is not there any more.
    Gone,
    In(Duration),
}

/// Why a turn came to nothing.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error(transparent)]
    Look(#[from] ReadError),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Impossible(#[from] Impossible),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// One look at everything.
struct Sight {
    seen: Seen,
    raw: Raw,
    status: GatewayRolloutStatus,
    memory: Memory,
}

impl Conductor {
    /// One turn of this rollout.
    pub(super) async fn turn(&self, namespace: &str, name: &str, mut track: Box<Track>) -> (Box<Track>, Again) {
        let at = At::of(&ROLLOUTS, namespace, name);
        let again = match self.attempt(&at, &mut track).await {
            Ok(again) => {
                track.stumbles = 0;
                track.trouble.clear();
                again
            }
            Err(error) => Again::In(self.stumbled(&at, &mut track, &error).await),
        };
        (track, again)
    }

    async fn attempt(&self, at: &At, track: &mut Track) -> Result<Again, TurnError> {
        if let Some(last) = track.last.take() {
            self.ask_pods(&last, track).await;
            self.rehearse(&last, track).await;
            if track.asks_prometheus() {
                self.guardrails(&last, track).await;
            }
            track.last = Some(last);
        }
        let guards = track.asks_guards(self.pace.guards);
        let Some(mut sight) = self.look(at, track, guards).await? else { return Ok(Again::Gone) };
        let uid = &sight.seen.rollout.held.uid;
        if track.uid != **uid {
            // The first look of this process at this object only tells whom to ask. Nothing is done without their answers.
            *track = Track { uid: uid.to_string(), last: Some(sight), ..Track::default() };
            return Ok(Again::In(MOMENT));
        }
        let now = Timestamp::now();
        sight.seen.watched = Some(*track.watched.get_or_insert(now));
        let mut plan = plan(&sight.seen, &sight.memory, now);
        if matches!(plan.next, Next::Do(Step::SetApart { .. })) && !sight.raw.is_guarded() {
            // By which label is asked again before a pod is set apart by it.
            let Some(mut again) = self.look(at, track, true).await? else { return Ok(Again::Gone) };
            again.seen.watched = track.watched;
            plan = crate::rollout::plan(&again.seen, &again.memory, now);
            sight = again;
        }
        if sight.raw.is_guarded() {
            track.apart = Some((Instant::now(), sight.seen.apart_key.clone()));
        }
        let again = self.act(at, track, &sight, (&plan, now)).await;
        if let (Ok(_), Next::Remember(after)) = (&again, plan.next) {
            track.remembered = true;
            sight.memory = *after;
        }
        if sight.memory.phase.is_over() && !has_apart(&sight.seen) {
            // Of what is over nothing is asked, and there may be hundreds.
            sight.raw = Raw::default();
        }
        track.last = Some(sight);
        again
    }

    /// The object itself, freshly. A list of one needs no right that finding it does not need already.
    async fn object(&self, at: &At) -> Result<Option<Value>, ReadError> {
        let path = format!("{}?fieldSelector=metadata.name%3D{}", at.resource.path(&at.namespace), encode(&at.name));
        let listed = list(self.writer.client(), &path, ROLLOUTS.kind).await;
        match listed {
            Ok(items) => Ok(items.into_iter().next()),
            Err(Trouble::NotFound) => Ok(None),
            Err(trouble) => Err(ReadError { what: at.to_string(), trouble }),
        }
    }

    /// Everything, read now, with what pods, dry-runs and Prometheus said; `None`: the rollout is gone.
    async fn look(&self, at: &At, track: &Track, guards: bool) -> Result<Option<Sight>, TurnError> {
        let Some(object) = self.object(at).await? else { return Ok(None) };
        let status = status::read(&object["status"]);
        let memory = status::memory(&status);
        let known = self.shared.state.load_full();
        let guards = guards && !memory.phase.is_over();
        let raw = self.reader.fill(Raw::of(object), &known.snapshot, guards).await?;
        let mut seen = read::seen(&raw, &known.snapshot)?;
        if let (false, Some((_, key))) = (raw.is_guarded(), &track.apart) {
            seen.apart_key.clone_from(key);
        }
        seen.evidence = track.evidence.iter().map(|(uid, (_, e))| (uid.clone(), e.clone())).collect();
        let generation = seen.rollout.generation;
        seen.dry_runs = track.rehearsed.as_ref().filter(|r| r.1 == generation).map(|r| r.2.clone());
        if raw.is_guarded() && is_before(memory.phase) {
            seen.findings = Some(guards::check(&Scene::of(&raw, &known.snapshot, &seen)));
        }
        (seen.gate, seen.metrics) = track.said_by_prometheus.clone();
        Ok(Some(Sight { seen, raw, status, memory }))
    }

    /// Asks the pods that the last turn saw.
    async fn ask_pods(&self, last: &Sight, track: &mut Track) {
        if !last.memory.phase.is_active() && !has_apart(&last.seen) {
            track.evidence.clear();
            track.istiods = Istiods::default();
            return;
        }
        let now = Instant::now();
        let Track { evidence: known, istiods, .. } = track;
        let recent =
            |uid: &Arc<str>| known.get(uid).is_some_and(|(at, _)| now.duration_since(*at) < self.pace.connections);
        let (asked, ()) = tokio::join!(evidence::gather(&last.seen, recent), self.ask_istiods(last, istiods));
        let there: BTreeMap<&Arc<str>, &Pod> = last.seen.pods.iter().map(|p| (&p.held.uid, p)).collect();
        known.retain(|uid, _| there.contains_key(uid));
        for (uid, mut found) in asked {
            let new = there.get(&uid).filter(|pod| evidence::is_new(&last.seen, pod));
            found.synced = new.and_then(|pod| istiods.synced(&pod.name, &last.seen.rollout.namespace));
            let found = found.after(known.get(&uid).map(|(_, before)| before));
            known.insert(uid, (now, found));
        }
    }

    /// Asks the istiods of both revisions who is connected to them, where that is looked at and may be asked.
    async fn ask_istiods(&self, last: &Sight, istiods: &mut Istiods) {
        let Sight { seen, raw, memory, .. } = last;
        let (Some(token), Some(from)) = (&self.istiod_token, &memory.from) else { return };
        let spec = &seen.rollout.spec;
        let new = seen.pods.iter().any(|pod| evidence::is_new(seen, pod));
        if spec.verification.level < Level::XdsConnected || !new {
            *istiods = Istiods::default();
            return;
        }
        let of = |plane: &ControlPlane, revision: &str| -> Vec<SocketAddr> {
            let all = plane::monitoring(raw, &plane.namespace, revision);
            all.iter().filter_map(|(ip, port)| Some((ip.parse::<IpAddr>().ok()?, *port).into())).collect()
        };
        let question = istiod::Question {
            token,
            namespace: &seen.rollout.namespace,
            new: &of(&seen.to, &spec.to_revision),
            old: &of(&seen.from, from),
            every: self.pace.istiods,
        };
        istiods.ask(&question).await;
    }

    /// Makes the dry-runs where they are looked at, again once they are old.
    async fn rehearse(&self, last: &Sight, track: &mut Track) {
        let phase = last.memory.phase;
        if !is_before(phase) && !matches!(phase, Phase::Preparing | Phase::Probing) {
            track.rehearsed = None;
            return;
        }
        let generation = last.seen.rollout.generation;
        let fresh = |(at, of, _): &(Instant, i64, Vec<DryRun>)| at.elapsed() < REHEARSED && *of == generation;
        if !track.rehearsed.as_ref().is_some_and(fresh) {
            let found = rehearse::rehearse(&self.writer, &last.seen, &last.raw).await;
            track.rehearsed = found.map(|found| (Instant::now(), generation, found));
        }
    }

    /// Asks what alerts and metrics say. An evaluation stays until the next one: the plan counts it once.
    async fn guardrails(&self, last: &Sight, track: &mut Track) {
        let Sight { seen, memory, .. } = last;
        if memory.phase.is_over() {
            track.said_by_prometheus = (Gate::Off, Vec::new());
            return;
        }
        let spec = &seen.rollout.spec;
        let old_workload = read::target(spec);
        let names = read::names(seen, memory.from.as_deref());
        let parallel = spec.strategy.type_ == StrategyType::ParallelDeployment;
        let new_workload = if parallel { &*names.canary } else { old_workload };
        let names = gate::Names { namespace: &seen.rollout.namespace, new_workload, old_workload };
        let about = About { guardrails: &spec.guardrails, memory, names, now: Timestamp::now() };
        let (gate, metrics) = track.guard.look(&self.writer, &self.names, &about).await;
        let (known, results) = &mut track.said_by_prometheus;
        *known = gate;
        for result in metrics {
            results.retain(|r| r.name != result.name);
            results.push(result);
        }
    }

    /// Does what the plan says.
    async fn act(
        &self,
        at: &At,
        track: &mut Track,
        sight: &Sight,
        (plan, now): (&Plan, Timestamp),
    ) -> Result<Again, TurnError> {
        let Sight { seen, memory, .. } = sight;
        let after = match &plan.next {
            Next::Remember(after) => &**after,
            _ => memory,
        };
        let status = status::status(seen, after, plan, Before { status: &sight.status, now });
        let held = carry::precondition(&seen.rollout.held);
        self.writer.metrics().rollouts.set(&say::figures(seen, &status));
        match &plan.next {
            Next::Remember(after) => {
                self.write_status(at, track, (held, &status), REMEMBER).await?;
                say::transition(self.writer.metrics(), memory, after);
                tracing::info!(
                    namespace = at.namespace,
                    rollout = at.name,
                    gateway = status.gateway,
                    phase = after.phase.as_str(),
                    state = status.state,
                    "a rollout goes on"
                );
                self.say(at, track, plan).await;
                Ok(Again::In(track.moves.again(moves::remembered(after, &status.state))))
            }
            Next::Do(step) => {
                let write = carry::write(step, seen, &sight.raw)?;
                self.writer.write(&write).await?;
                tracing::info!(
                    namespace = at.namespace,
                    rollout = at.name,
                    boundary = write.boundary,
                    object = %write.at,
                    "a step of a rollout is done"
                );
                self.say(at, track, plan).await;
                Ok(Again::In(track.moves.again(moves::done(step, &write.at))))
            }
            Next::Wait(_) | Next::Done => {
                track.moves.clear();
                self.say(at, track, plan).await;
                if is_due(&sight.status, &status, track.status_at) {
                    self.write_status(at, track, (held, &status), STATUS).await?;
                }
                let until = match &plan.next {
                    Next::Wait(waiting) => waiting.until,
                    _ => None,
                };
                Ok(Again::In(self.pause(sight, until.map(|until| until.duration_since(now)))))
            }
        }
    }

    /// How long until the next look, if nothing is heard before.
    fn pause(&self, sight: &Sight, until: Option<jiff::SignedDuration>) -> Duration {
        let phase = sight.memory.phase;
        let pace = match phase {
            _ if sight.seen.rollout.deleting || phase.is_active() || has_apart(&sight.seen) => self.pace.active,
            _ if phase.is_over() => self.pace.over,
            _ => self.pace.waiting,
        };
        until.map_or(pace, |until| pace.min(Duration::try_from(until).unwrap_or_default()).max(MOMENT))
    }

    async fn write_status(
        &self,
        at: &At,
        track: &mut Track,
        (held, status): (Held, &GatewayRolloutStatus),
        boundary: &'static str,
    ) -> Result<(), WriteError> {
        let operations = vec![json!({"op": "add", "path": "/status", "value": status})];
        let change = Change::Patch { operations, held };
        let write = Write { boundary, by: Loop::Rollout, at: at.clone().status(), change };
        let written = self.writer.write(&write).await?;
        track.status_at = Some(Instant::now());
        track.version = written["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        Ok(())
    }

    /// Says what the plan wants said and what was not in the plan before.
    async fn say(&self, at: &At, track: &mut Track, plan: &Plan) {
        let now: BTreeSet<_> = plan.events.iter().cloned().collect();
        for event in plan.events.iter().filter(|e| !track.said.contains(*e)) {
            self.events.tell(at, &track.uid, &say::word(event)).await;
        }
        track.said = now;
    }

    /// What a failure is followed by.
    async fn stumbled(&self, at: &At, track: &mut Track, error: &TurnError) -> Duration {
        let benign = matches!(error, TurnError::Write(e) if e.is_benign());
        track.stumbles += 1;
        let wait = moves::later(track.stumbles - 1);
        if benign {
            // A Deployment's version changes with every pod that becomes ready: what came in between is looked at at once.
            return if track.stumbles <= 5 { MOMENT } else { wait.min(self.pace.active) };
        }
        // Failed writes were counted where they were sent.
        if !matches!(error, TurnError::Write(_)) {
            self.writer.metrics().reconcile_error(Loop::Rollout);
        }
        let text = error.to_string();
        if matches!(error, TurnError::Look(_)) {
            track.watched = None;
        }
        let news = track.trouble != text;
        if news {
            tracing::warn!(namespace = at.namespace, rollout = at.name, error = text, "a rollout does not go on");
        }
        // What does not end by itself soon is said as well: nothing else would tell why it stands.
        if news && is_said(error) || track.stumbles == UNTIL_SAID {
            self.hindered(at, track, &text).await;
        }
        track.trouble = text;
        wait
    }

    /// Says on the object why nothing happens: no plan could be made, or what was planned is refused.
    async fn hindered(&self, at: &At, track: &mut Track, why: &str) {
        let word = say::word(&(say::HINDERED.to_owned(), why.to_owned(), true));
        self.events.tell(at, &track.uid, &word).await;
        let Ok(Some(object)) = self.object(at).await else { return };
        let status = say::hindered(status::read(&object["status"]), why, Timestamp::now());
        // Counted and logged where it was tried; the Event says the same.
        let _ = self.write_status(at, track, (Held::of(&object), &status), STATUS).await;
    }
}

/// No turn follows the one before sooner than this, unless something was written.
const MOMENT: Duration = Duration::from_millis(50);

/// A pod finishes what it has.
fn has_apart(seen: &Seen) -> bool {
    seen.pods.iter().any(|pod| pod.of == Of::Apart)
}

/// Nothing was changed yet, and findings stand against it.
fn is_before(phase: Phase) -> bool {
    matches!(phase, Phase::Pending | Phase::Planned | Phase::Preflight)
}

/// Somebody else than the API server's operator can do something about it.
fn is_said(error: &TurnError) -> bool {
    match error {
        TurnError::Look(_) => false,
        TurnError::Unreadable(_) | TurnError::Impossible(_) => true,
        TurnError::Write(e) => matches!(e, WriteError::Forbidden { .. } | WriteError::Refused { .. }),
    }
}

/// Whether a status that follows from what was seen is written now.
fn is_due(before: &GatewayRolloutStatus, after: &GatewayRolloutStatus, last: Option<Instant>) -> bool {
    if before == after {
        return false;
    }
    let told = |s: &GatewayRolloutStatus| {
        let conditions: Vec<_> =
            s.conditions.iter().map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect();
        let pause = s.pause.as_ref().map(|p| p.reason.clone());
        (s.state.clone(), s.observed_generation, pause, s.preflight.clone(), conditions)
    };
    told(before) != told(after) || last.is_none_or(|at| at.elapsed() >= STATUS_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_evaluations_something_follows_from_the_first() {
        let mut track = Track { remembered: true, ..Track::default() };
        assert!(!track.asks_prometheus() && track.asks_prometheus());
    }
}
