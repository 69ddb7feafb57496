//! One turn of one rollout: everything is read, the plan is asked, and at most one thing is written.
//!
//! Pods and dry-runs are asked before the look, about what the turn before saw: they take seconds, and what was counted must not be
//! that old when something is taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::look::LookError;
use super::{Conductor, carry, evidence, look, rehearse, say};
use crate::api::GatewayRolloutStatus;
use crate::api::gateway_rollout::StrategyType;
use crate::api::rollout_status::Phase;
use crate::cluster::Trouble;
use crate::cluster::request::encode;
use crate::controller::prometheus::{About, Guard};
use crate::controller::resource::{At, ROLLOUTS};
use crate::controller::write::{Change, Write, WriteError};
use crate::rollout::gate;
use crate::rollout::guards::{self, Scene};
use crate::rollout::objects::Impossible;
use crate::rollout::read::{self, Raw, Unreadable};
use crate::rollout::seen::{DryRun, Evidence, Gate, MetricResult};
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
/// The wait after a failure, doubled with each that follows …
const STUMBLE: Duration = Duration::from_millis(500);
/// … up to this.
const MOST_STUMBLE: Duration = Duration::from_secs(30);
/// The same step so often, with nothing remembered in between, is no progress: somebody takes it back.
const SAME_STEP: u32 = 10;

/// What one process keeps between the turns of a rollout. All of it can be lost.
#[derive(Default)]
pub struct Track {
    uid: String,
    /// Where it is, as far as this process knows.
    phase: Option<Phase>,
    /// What the last turn was planned from.
    last: Option<(Seen, Raw)>,
    evidence: BTreeMap<Arc<str>, (Instant, Evidence)>,
    rehearsed: Option<(Instant, i64, Vec<DryRun>)>,
    /// By which label pods can be set apart, and when that was asked.
    apart: Option<(Instant, Result<Arc<str>, String>)>,
    /// What is known of its Prometheus.
    guard: Guard,
    /// Events of the last plan, said already.
    said: BTreeSet<(String, String, bool)>,
    status_at: Option<Instant>,
    /// Our own last version of the object.
    version: String,
    stumbles: u32,
    /// The last failure, so that it is logged once.
    trouble: String,
    /// How often each step was taken since something was remembered.
    steps: BTreeMap<String, u32>,
}

impl Track {
    /// Whether everything is read that only guards look at: before the start, and from then on now and then.
    fn asks_guards(&self, every: Duration) -> bool {
        match self.phase {
            Some(phase) if phase.is_over() => false,
            Some(phase) if !is_before(phase) => self.apart.as_ref().is_none_or(|(at, _)| at.elapsed() >= every),
            _ => true,
        }
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
    Look(#[from] LookError),
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
        if let Some(phase) = track.phase {
            self.ask_pods(phase, track).await;
            self.rehearse(phase, track).await;
        }
        let guards = track.asks_guards(self.pace.guards);
        let Some(mut sight) = self.look(at, track, guards).await? else { return Ok(Again::Gone) };
        let uid = &sight.seen.rollout.held.uid;
        // The first look of a process, or at an object, only tells whom to ask.
        let first = track.uid != **uid;
        if first {
            *track = Track { uid: uid.to_string(), ..Track::default() };
        }
        let now = Timestamp::now();
        let mut plan = plan(&sight.seen, &sight.memory, now);
        if matches!(plan.next, Next::Do(Step::SetApart { .. })) && !sight.raw.is_guarded() {
            // By which label is asked again before a pod is set apart by it.
            let Some(again) = self.look(at, track, true).await? else { return Ok(Again::Gone) };
            plan = crate::rollout::plan(&again.seen, &again.memory, now);
            sight = again;
        }
        track.phase = Some(sight.memory.phase);
        if sight.raw.is_guarded() {
            track.apart = Some((Instant::now(), sight.seen.apart_key.clone()));
        }
        let again = match plan.next {
            Next::Wait(_) if first => Ok(Again::In(MOMENT)),
            _ => self.act(at, track, &sight, (plan, now)).await,
        };
        track.last = Some((sight.seen, sight.raw));
        again
    }

    /// The object itself, freshly. A list of one needs no right that finding it does not need already.
    async fn object(&self, at: &At) -> Result<Option<Value>, LookError> {
        let path = format!("{}?fieldSelector=metadata.name%3D{}", at.resource.path(&at.namespace), encode(&at.name));
        let listed = look::list(self.writer.client(), &path, ROLLOUTS.kind).await;
        match listed {
            Ok(items) => Ok(items.into_iter().next()),
            Err(Trouble::NotFound) => Ok(None),
            Err(trouble) => Err(LookError { what: at.to_string(), trouble }),
        }
    }

    /// Everything, read now, with what pods, dry-runs and Prometheus said; `None`: the rollout is gone.
    async fn look(&self, at: &At, track: &mut Track, guards: bool) -> Result<Option<Sight>, TurnError> {
        let Some(object) = self.object(at).await? else { return Ok(None) };
        let status = status::read(&object["status"]);
        let memory = status::memory(&status);
        let known = self.shared.state.load_full();
        let raw = self.reader.fill(Raw::of(object), &known.snapshot, guards).await?;
        let mut seen = read::seen(&raw, &known.snapshot)?;
        if raw.is_guarded() && is_before(memory.phase) {
            seen.findings = Some(guards::check(&Scene::of(&raw, &known.snapshot, &seen)));
        }
        if let (false, Some((_, key))) = (raw.is_guarded(), &track.apart) {
            seen.apart_key.clone_from(key);
        }
        seen.evidence = track.evidence.iter().map(|(uid, (_, e))| (uid.clone(), e.clone())).collect();
        let generation = seen.rollout.generation;
        seen.dry_runs = track.rehearsed.as_ref().filter(|r| r.1 == generation).map(|r| r.2.clone());
        (seen.gate, seen.metrics) = self.guardrails(&seen, &memory, &mut track.guard).await;
        Ok(Some(Sight { seen, raw, status, memory }))
    }

    /// Asks the pods that the last turn saw.
    async fn ask_pods(&self, phase: Phase, track: &mut Track) {
        let Some((seen, _)) = &track.last else { return };
        if !phase.is_active() {
            track.evidence.clear();
            return;
        }
        let now = Instant::now();
        let recent = |uid: &Arc<str>| {
            track.evidence.get(uid).is_some_and(|(at, _)| now.duration_since(*at) < self.pace.connections)
        };
        let asked = evidence::gather(seen, recent).await;
        let there: BTreeSet<Arc<str>> = seen.pods.iter().map(|p| p.held.uid.clone()).collect();
        track.evidence.retain(|uid, _| there.contains(uid));
        for (uid, found) in asked {
            let before = track.evidence.get(&uid).map(|(_, e)| e);
            let found = found.after(before);
            track.evidence.insert(uid, (now, found));
        }
    }

    /// Makes the dry-runs where they are looked at, again once they are old.
    async fn rehearse(&self, phase: Phase, track: &mut Track) {
        if !matches!(phase, Phase::Pending | Phase::Planned | Phase::Preflight | Phase::Preparing | Phase::Probing) {
            track.rehearsed = None;
            return;
        }
        let Some((seen, raw)) = &track.last else { return };
        let generation = seen.rollout.generation;
        let fresh = |(at, of, _): &(Instant, i64, Vec<DryRun>)| at.elapsed() < REHEARSED && *of == generation;
        if !track.rehearsed.as_ref().is_some_and(fresh) {
            let found = rehearse::rehearse(&self.writer, seen, raw).await;
            track.rehearsed = Some((Instant::now(), generation, found));
        }
    }

    /// What alerts and metrics say.
    async fn guardrails(&self, seen: &Seen, memory: &Memory, guard: &mut Guard) -> (Gate, Vec<MetricResult>) {
        if memory.phase.is_over() {
            return (Gate::Off, Vec::new());
        }
        let spec = &seen.rollout.spec;
        let old_workload = read::target(spec);
        let names = read::names(seen, memory.from.as_deref());
        let parallel = spec.strategy.type_ == StrategyType::ParallelDeployment;
        let new_workload = if parallel { &*names.canary } else { old_workload };
        let names = gate::Names { namespace: &seen.rollout.namespace, new_workload, old_workload };
        let about = About { guardrails: &spec.guardrails, memory, names, now: Timestamp::now() };
        guard.look(&self.writer, &self.names, &about).await
    }

    /// Does what the plan says.
    async fn act(
        &self,
        at: &At,
        track: &mut Track,
        sight: &Sight,
        (plan, now): (Plan, Timestamp),
    ) -> Result<Again, TurnError> {
        let Sight { seen, memory, .. } = sight;
        let after = match &plan.next {
            Next::Remember(after) => &**after,
            _ => memory,
        };
        let status = status::status(seen, after, &plan, Before { status: &sight.status, now });
        self.writer.metrics().rollouts.set(&say::figures(seen, &status));
        match &plan.next {
            Next::Remember(after) => {
                self.write_status(at, track, (seen, &status), REMEMBER).await?;
                say::transition(self.writer.metrics(), memory, after);
                track.phase = Some(after.phase);
                tracing::info!(
                    namespace = at.namespace,
                    rollout = at.name,
                    gateway = status.gateway,
                    phase = after.phase.as_str(),
                    state = status.state,
                    "a rollout goes on"
                );
                self.say(at, track, &plan).await;
                track.steps.clear();
                Ok(Again::In(Duration::ZERO))
            }
            Next::Do(step) => {
                let write = match self.carry(step, sight).await {
                    Ok(write) => write,
                    Err(error) => {
                        let told = say::hindered(status, &error, now);
                        if is_said(&error) && is_due(&sight.status, &told, track.status_at) {
                            self.write_status(at, track, (seen, &told), STATUS).await?;
                        }
                        return Err(error);
                    }
                };
                tracing::info!(
                    namespace = at.namespace,
                    rollout = at.name,
                    boundary = write.boundary,
                    object = %write.at,
                    "a step of a rollout is done"
                );
                self.say(at, track, &plan).await;
                Ok(Again::In(same_step(track, step, &write)))
            }
            Next::Wait(_) | Next::Done => {
                self.say(at, track, &plan).await;
                if is_due(&sight.status, &status, track.status_at) {
                    self.write_status(at, track, (seen, &status), STATUS).await?;
                }
                let until = match &plan.next {
                    Next::Wait(waiting) => waiting.until,
                    _ => None,
                };
                Ok(Again::In(self.pause(
                    memory.phase,
                    seen.rollout.deleting,
                    until.map(|until| until.duration_since(now)),
                )))
            }
        }
    }

    async fn carry(&self, step: &Step, sight: &Sight) -> Result<Write, TurnError> {
        let write = carry::write(step, &sight.seen, &sight.raw)?;
        self.writer.write(&write).await?;
        Ok(write)
    }

    /// How long until the next look, if nothing is heard before.
    fn pause(&self, phase: Phase, deleting: bool, until: Option<jiff::SignedDuration>) -> Duration {
        let pace = match phase {
            _ if deleting || phase.is_active() => self.pace.active,
            _ if phase.is_over() => self.pace.over,
            _ => self.pace.waiting,
        };
        until.map_or(pace, |until| pace.min(Duration::try_from(until).unwrap_or_default()).max(MOMENT))
    }

    async fn write_status(
        &self,
        at: &At,
        track: &mut Track,
        (seen, status): (&Seen, &GatewayRolloutStatus),
        boundary: &'static str,
    ) -> Result<(), WriteError> {
        let operations = vec![json!({"op": "add", "path": "/status", "value": status})];
        let change = Change::Patch { operations, held: carry::precondition(&seen.rollout.held) };
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
        let wait = STUMBLE.saturating_mul(1 << (track.stumbles - 1).min(16)).min(MOST_STUMBLE);
        if benign {
            // A Deployment's version changes with every pod that becomes ready: what came in between is looked at at once.
            return if track.stumbles <= 5 { MOMENT } else { wait.min(self.pace.active) };
        }
        // Failed writes were counted where they were sent.
        if !matches!(error, TurnError::Write(_)) {
            self.writer.metrics().reconcile_error(Loop::Rollout);
        }
        let text = error.to_string();
        if track.trouble != text {
            tracing::warn!(namespace = at.namespace, rollout = at.name, error = text, "a rollout does not go on");
            if is_said(error) {
                let word = say::word(&("Hindered".to_owned(), text.clone(), true));
                self.events.tell(at, &track.uid, &word).await;
            }
            track.trouble = text;
        }
        wait
    }
}

/// No turn follows the one before sooner than this, unless something was written.
const MOMENT: Duration = Duration::from_millis(50);

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

/// How long after this step: not at all, unless it is taken again and again, alone or in turns with others.
fn same_step(track: &mut Track, step: &Step, write: &Write) -> Duration {
    let times = track.steps.entry(format!("{} {}", step.boundary(), write.at)).or_default();
    *times += 1;
    let over = times.saturating_sub(SAME_STEP);
    if over == 0 { Duration::ZERO } else { STUMBLE.saturating_mul(1 << over.min(16)).min(MOST_STUMBLE) }
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
