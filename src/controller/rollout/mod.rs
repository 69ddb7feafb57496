//! Gateway rollouts, carried out: for every GatewayRollout a look, a plan, one write, and a word about it, again and again.
//!
//! ```text
//! the object ─→ look (fresh lists) ─→ rollout::read ─→ Seen ─┐
//! its status ─→ Memory ──────────────────────────────────────┼─→ rollout::plan ─→ remember | one write | wait
//! pods, dry-runs, alerts (asked before the look) ────────────┘
//! ```
//!
//! What comes next is decided below the line; here it is only carried out. Nothing is kept between two turns that could not be
//! lost: another replica, or this one after a crash, goes on from the object's status. Rollouts do not wait for each other, and a
//! panic in the turn of one ends that turn only.

mod carry;
mod envoy;
mod evidence;
mod istiod;
mod moves;
mod rehearse;
mod say;
mod turn;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use serde_json::Value;
use tokio::time::Instant;

use self::turn::{Again, Track};
use super::events::Events;
use super::names::Names;
use super::resource::ROLLOUTS;
use super::write::Writer;
use crate::admission::webhook::Shared;
use crate::cluster::request::Question;
use crate::cluster::{GatewayReader, Trouble};
use crate::telemetry::Heartbeat;
use crate::telemetry::metrics::Loop;

/// How often things are looked at. Only tests have others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From one look at which rollouts there are to the next.
    pub list: Duration,
    /// From one turn of a rollout that moves something to the next, when it waits.
    pub active: Duration,
    /// Of one that waits for its turn, or for what stands against it to go.
    pub waiting: Duration,
    /// Of one that is over.
    pub over: Duration,
    /// From one reading of a pod's connections to the next. Envoy itself counts them every 5 s, so that two readings within that time are one.
    pub connections: Duration,
    /// From one look at what only guards look at to the next, once it has begun.
    pub guards: Duration,
    /// From one question to istiods about their proxies to the next: theirs is a page about the whole mesh.
    pub istiods: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let s = Duration::from_secs;
        Pace { list: s(1), active: s(1), waiting: s(5), over: s(60), connections: s(5), guards: s(15), istiods: s(15) }
    }
}

impl Pace {
    /// Everything in proportion to this, instead of to a second.
    pub fn of(second: Duration) -> Pace {
        let all = Pace::default();
        let part = |of: Duration| of.mul_f64(second.as_secs_f64()).max(Duration::from_millis(10));
        Pace {
            list: part(all.list),
            active: part(all.active),
            waiting: part(all.waiting),
            over: part(all.over),
            connections: part(all.connections),
            guards: part(all.guards),
            istiods: part(all.istiods),
        }
    }
}

/// Turns at a time; more rollouts take turns in the order in which they became due.
const TURNS_AT_ONCE: usize = 8;
/// A turn that takes longer is stuck: no request of it may take that long.
const STUCK: Duration = Duration::from_secs(300);
/// How long a list may take.
const LISTED: Duration = Duration::from_secs(10);
/// After a panic.
const AFTER_PANIC: Duration = Duration::from_secs(30);

/// Namespace and name of a GatewayRollout.
type Key = (String, String);

/// Carries out every rollout of the cluster.
pub struct Conductor {
    writer: Writer,
    events: Events,
    shared: Arc<Shared>,
    names: Names,
    reader: GatewayReader,
    pace: Pace,
    istiod_token: Option<PathBuf>,
}

/// What runs a conductor: which installation, which replica, how often.
pub struct Settings {
    pub names: Names,
    /// This replica, as Events call it.
    pub holder: String,
    pub pace: Pace,
    /// A file with a token of istiod's audience. Without it istiods are not asked.
    pub istiod_token: Option<PathBuf>,
}

/// One rollout, between or during its turns.
#[derive(Default)]
struct Player {
    /// Its version when it was listed last.
    version: String,
    due: Option<Instant>,
    began: Option<Instant>,
    track: Option<Box<Track>>,
    /// It changed while its turn was going on.
    again: bool,
}

type Played = (Key, Result<(Box<Track>, Again), String>);

impl Conductor {
    pub fn new(writer: Writer, shared: Arc<Shared>, settings: Settings) -> Conductor {
        let Settings { names, holder, pace, istiod_token } = settings;
        // Events of its own: what an audit has to say must not leave no room for what a rollout has to say.
        let events = Events::of_transitions(writer.clone(), &holder);
        let reader = GatewayReader::new(writer.client().clone());
        Conductor { writer, events, shared, names, reader, pace, istiod_token }
    }

    /// Goes on for as long as the process lives; acts while it leads.
    pub async fn run(self, heartbeat: Heartbeat) {
        loop {
            heartbeat.beat();
            if self.writer.leadership().remaining().is_some() {
                self.lead(&heartbeat).await;
                self.writer.metrics().rollouts.clear();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Until this replica leads no more. What is on its way then is dropped: it could write nothing.
    async fn lead(&self, heartbeat: &Heartbeat) {
        let mut players: BTreeMap<Key, Player> = BTreeMap::new();
        let mut turns: FuturesUnordered<BoxFuture<'_, Played>> = FuturesUnordered::new();
        let mut listing = self.list(Duration::ZERO).boxed();
        while self.writer.leadership().remaining().is_some() {
            if players.values().filter_map(|p| p.began).all(|began| began.elapsed() < STUCK) {
                heartbeat.beat();
            }
            self.begin(&mut players, &turns);
            let due = players.values().filter_map(|p| p.due).min().filter(|_| turns.len() < TURNS_AT_ONCE);
            tokio::select! {
                listed = &mut listing => {
                    if let Some(there) = listed {
                        self.listed(&mut players, there);
                    }
                    listing = self.list(self.pace.list).boxed();
                }
                Some((key, played)) = turns.next() => self.ended(&mut players, key, played),
                () = tokio::time::sleep_until(due.unwrap_or_else(|| Instant::now() + self.pace.list)) => {}
            }
        }
    }

    /// Begins the turns that are due, the longest due first.
    fn begin<'a>(&'a self, players: &mut BTreeMap<Key, Player>, turns: &FuturesUnordered<BoxFuture<'a, Played>>) {
        let now = Instant::now();
        let mut due: Vec<(Instant, Key)> =
            players.iter().filter_map(|(key, p)| Some((p.due.filter(|due| *due <= now)?, key.clone()))).collect();
        due.sort();
        for (_, key) in due.into_iter().take(TURNS_AT_ONCE.saturating_sub(turns.len())) {
            let player = players.get_mut(&key).expect("it was just listed");
            player.due = None;
            player.again = false;
            player.began = Some(now);
            let track = player.track.take().unwrap_or_default();
            turns.push(
                async move {
                    let turn = AssertUnwindSafe(self.turn(&key.0, &key.1, track)).catch_unwind().await;
                    (key, turn.map_err(|panic| crate::cluster::panic_text(&*panic)))
                }
                .boxed(),
            );
        }
    }

    fn ended(&self, players: &mut BTreeMap<Key, Player>, key: Key, played: Result<(Box<Track>, Again), String>) {
        let many = u32::try_from(players.len()).unwrap_or(u32::MAX);
        // Nobody is forgotten during a turn.
        let player = players.entry(key.clone()).or_default();
        player.began = None;
        let after = match played {
            Ok((track, Again::Gone)) => {
                drop(track);
                players.remove(&key);
                self.writer.metrics().rollouts.forget(&key.0, &key.1);
                return;
            }
            Ok((track, Again::In(after))) => {
                // However many have ended, together they ask no more than one that goes on does.
                let after = if track.is_over() { after.max(self.pace.list.saturating_mul(many)) } else { after };
                player.track = Some(track);
                after
            }
            Err(panic) => {
                self.writer.metrics().reconcile_error(Loop::Rollout);
                tracing::error!(
                    namespace = key.0,
                    rollout = key.1,
                    error = panic,
                    "the turn of a rollout has ended early"
                );
                AFTER_PANIC
            }
        };
        player.due = Some(Instant::now() + if player.again { after.min(self.pace.active) } else { after });
    }

    /// Which rollouts there are, and their versions, after a while; `None`: it is not known. Of the API server's cache: each is read freshly
    /// before anything is done.
    async fn list(&self, after: Duration) -> Option<BTreeMap<Key, String>> {
        tokio::time::sleep(after).await;
        let path = format!("{}?resourceVersion=0", ROLLOUTS.path(""));
        let listed = async { Question::metadata(path).ask(self.writer.client(), LISTED).await?.read().await };
        let listed: Value = match listed.await {
            Ok(listed) => listed,
            // The chart was installed without its definitions.
            Err(Trouble::NotFound) => return Some(BTreeMap::new()),
            Err(error) => {
                self.writer.metrics().reconcile_error(Loop::Rollout);
                tracing::warn!(%error, "gateway rollouts cannot be listed");
                return None;
            }
        };
        let text = |object: &Value, key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        let items = listed["items"].as_array().into_iter().flatten();
        Some(items.map(|o| ((text(o, "namespace"), text(o, "name")), text(o, "resourceVersion"))).collect())
    }

    /// Whatever is new or has changed is due, and what is gone is forgotten.
    fn listed(&self, players: &mut BTreeMap<Key, Player>, there: BTreeMap<Key, String>) {
        let now = Instant::now();
        players.retain(|key, player| {
            let stays = there.contains_key(key) || player.began.is_some();
            if !stays {
                self.writer.metrics().rollouts.forget(&key.0, &key.1);
            }
            stays
        });
        for (key, version) in there {
            let player = players.entry(key).or_default();
            // What we wrote ourselves needs no look.
            let own = player.track.as_ref().is_some_and(|track| track.wrote(&version));
            if player.version != version && !own {
                match player.began {
                    Some(_) => player.again = true,
                    None => player.due = Some(player.due.map_or(now, |due| due.min(now))),
                }
            }
            player.version = version;
        }
    }
}
