//! The table of open connections: how many there may be, which one makes room for a new one, and
//! what each is doing.
//!
//! hyper has one timer, which also runs while a connection is idle and would close the API
//! server's pooled connections under its hands. So what a connection is doing is observed from
//! outside, by the bytes that go through it ([`Activity`]), and every timeout follows from that.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::settings::Settings;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Closed, Port};

/// How long the accept loop waits for a connection that was told to make room. It only has to
/// wake up; if a request reached it in that very moment, the next one is asked.
const EVICTION: Duration = Duration::from_millis(100);
/// How many are asked before the newcomer is refused.
const EVICTION_TRIES: usize = 4;
/// A connection that is stuck in a handshake or a head this long makes room like an idle one, and
/// a refused connection must use its one answer within it.
const STALLED: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// TLS handshake.
    Handshake = 0,
    /// No byte since the last answer, or since the handshake.
    Idle = 1,
    /// Bytes of a request's head.
    Head = 2,
    /// A request is with the handler.
    Busy = 3,
    /// An answer is being written.
    Answered = 4,
    /// Being shut down.
    Closing = 5,
}

/// What a connection was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Serve.
    Serve = 0,
    /// Close when silent for [`Settings::quiet`]; answer with `Connection: close`.
    Drain = 1,
    /// Close as soon as idle, its place is needed.
    Evict = 2,
}

/// One connection as others see it. Only its own task changes what it is doing; the table only
/// gives orders.
#[derive(Debug)]
pub(super) struct Activity {
    /// Phase in the top byte, milliseconds since `epoch` of its beginning below.
    state: AtomicU64,
    order: AtomicU8,
    /// An answer was given without reading the whole body.
    unread: AtomicBool,
    /// An answer said `Connection: close`.
    last: AtomicBool,
    /// Came over the limit: every request is answered 429.
    pub(super) refused: bool,
    /// Old enough from then on: see [`Settings::connection_age`].
    old: Option<Instant>,
    waker: AtomicWaker,
    epoch: Instant,
}

const TIME: u64 = (1 << 56) - 1;

impl Activity {
    fn new(epoch: Instant, refused: bool, old: Option<Instant>) -> Activity {
        let activity = Activity {
            state: AtomicU64::new(0),
            order: AtomicU8::new(Order::Serve as u8),
            unread: AtomicBool::new(false),
            last: AtomicBool::new(false),
            refused,
            old,
            waker: AtomicWaker::new(),
            epoch,
        };
        activity.enter(Phase::Handshake);
        activity
    }

    pub(super) fn enter(&self, phase: Phase) {
        let since = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(TIME) & TIME;
        self.state.store((phase as u64) << 56 | since, Ordering::Release);
    }

    /// The phase and when it began.
    pub(super) fn state(&self) -> (Phase, Instant) {
        let state = self.state.load(Ordering::Acquire);
        let phase = match state >> 56 {
            0 => Phase::Handshake,
            1 => Phase::Idle,
            2 => Phase::Head,
            3 => Phase::Busy,
            4 => Phase::Answered,
            _ => Phase::Closing,
        };
        (phase, self.epoch + Duration::from_millis(state & TIME))
    }

    fn phase(&self) -> Phase {
        self.state().0
    }

    /// Bytes came in. Within a request they belong to its body.
    pub(super) fn bytes_arrived(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// The transport has nothing left to write. hyper flushes only when its own buffer is empty,
    /// so after an answer this means that the answer is out.
    pub(super) fn flushed(&self) {
        if self.phase() == Phase::Answered {
            self.enter(Phase::Idle);
        }
    }

    pub(super) fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::Drain,
            _ => Order::Evict,
        }
    }

    fn tell(&self, order: Order) {
        self.order.store(order as u8, Ordering::Release);
        self.waker.wake();
    }

    /// Wakes the connection's task at the next order.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(super) fn left_unread(&self) {
        self.unread.store(true, Ordering::Release);
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Acquire)
    }

    pub(super) fn said_close(&self) {
        self.last.store(true, Ordering::Release);
    }

    pub(super) fn has_said_close(&self) -> bool {
        self.last.load(Ordering::Acquire)
    }

    /// The answer that is given now should be the last one.
    pub(super) fn is_old(&self) -> bool {
        self.old.is_some_and(|old| old <= Instant::now())
    }

    /// When this connection must be closed if nothing happens until then, and why. `None` while
    /// a request is with the handler, which has its own deadline.
    pub(super) fn deadline(&self, settings: &Settings) -> Option<(Instant, Closed)> {
        let (phase, since) = self.state();
        match (phase, self.order()) {
            (Phase::Idle, Order::Evict) => Some((since, Closed::Evicted)),
            // It was idle when it was chosen and a request reached it since: that one is served.
            // It is stalled only if the head does not follow at once.
            (Phase::Handshake | Phase::Head, Order::Evict) => Some((since + STALLED, Closed::Evicted)),
            (Phase::Idle, _) if self.refused => Some((since + STALLED, Closed::Refused)),
            (Phase::Handshake, _) => Some((since + settings.handshake_timeout, Closed::HandshakeTimeout)),
            (Phase::Idle, Order::Drain) => Some((since + settings.quiet.min(settings.idle_timeout), Closed::Drained)),
            (Phase::Idle, Order::Serve) => Some((since + settings.idle_timeout, Closed::Idle)),
            (Phase::Head, _) => Some((since + settings.head_timeout, Closed::SlowHead)),
            (Phase::Busy, _) => None,
            (Phase::Answered, _) => Some((since + settings.write_timeout, Closed::SlowRead)),
            (Phase::Closing, _) => None,
        }
    }

    /// Since when this connection could make room, the less willing ones later.
    fn evictable(&self, now: Instant) -> Option<(u8, Instant)> {
        if self.order() == Order::Evict || self.refused {
            return None;
        }
        match self.state() {
            (Phase::Idle, since) => Some((0, since)),
            (Phase::Handshake | Phase::Head, since) if now - since > STALLED => Some((1, since)),
            _ => None,
        }
    }
}

/// The open connections of one port.
#[derive(Debug)]
pub(super) struct Table {
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    open: Mutex<Open>,
    epoch: Instant,
    age: Option<Duration>,
    dice: RandomState,
    metrics: Arc<Metrics>,
    port: Port,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Activity>>,
}

/// A connection's place in the table; dropping it frees the place and counts the end.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) activity: Arc<Activity>,
    table: Arc<Table>,
    id: u64,
    reason: Closed,
    _permit: OwnedSemaphorePermit,
}

impl Table {
    pub(super) fn new(port: Port, settings: &Settings, metrics: Arc<Metrics>) -> Arc<Table> {
        Arc::new(Table {
            places: Arc::new(Semaphore::new(settings.max_connections.max(1))),
            refusals: Arc::new(Semaphore::new(settings.max_refusals)),
            open: Mutex::default(),
            epoch: Instant::now(),
            age: settings.connection_age,
            dice: RandomState::new(),
            metrics,
            port,
        })
    }

    /// A place for a new connection. When all are taken the longest idle connection makes room;
    /// when none is idle the newcomer gets a place to be refused in; `None` if not even that.
    pub(super) async fn admit(self: &Arc<Self>) -> Option<Place> {
        self.metrics.opened(self.port);
        for _ in 0..EVICTION_TRIES {
            if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
                return Some(self.enter(permit, false));
            }
            if !self.evict() {
                break;
            }
            let freed = Arc::clone(&self.places).acquire_owned();
            if let Ok(Ok(permit)) = tokio::time::timeout(EVICTION, freed).await {
                return Some(self.enter(permit, false));
            }
        }
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            return Some(self.enter(permit, true));
        }
        self.metrics.closed(self.port, Closed::Refused);
        None
    }

    fn enter(self: &Arc<Self>, permit: OwnedSemaphorePermit, refused: bool) -> Place {
        let mut open = self.lock();
        let id = open.next;
        open.next += 1;
        let activity = Arc::new(Activity::new(self.epoch, refused, self.old(id)));
        open.connections.insert(id, Arc::clone(&activity));
        Place { activity, table: Arc::clone(self), id, reason: Closed::Cut, _permit: permit }
    }

    /// When a connection that begins now is old: a hash with a key of this process is as good as dice.
    fn old(&self, id: u64) -> Option<Instant> {
        let half = self.age? / 2;
        let part = self.dice.hash_one(id) as f64 / u64::MAX as f64;
        Some(Instant::now() + half + half.mul_f64(part))
    }

    /// Tells the longest idle connection to close; whether there was one.
    pub(super) fn evict(&self) -> bool {
        let now = Instant::now();
        let open = self.lock();
        let victim = open
            .connections
            .values()
            .filter_map(|activity| Some((activity.evictable(now)?, activity)))
            .min_by_key(|(willing, _)| *willing);
        match victim {
            Some((_, activity)) => {
                activity.tell(Order::Evict);
                true
            }
            None => false,
        }
    }

    /// Tells every connection to close when it has been silent for a while.
    pub(super) fn drain(&self) {
        for activity in self.lock().connections.values() {
            if activity.order() == Order::Serve {
                activity.tell(Order::Drain);
            }
        }
    }

    /// How many connections have something under way.
    pub(super) fn busy(&self) -> usize {
        self.lock()
            .connections
            .values()
            .filter(|activity| !matches!(activity.phase(), Phase::Idle | Phase::Closing))
            .count()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().connections.len()
    }

    pub(super) fn accept_error(&self) {
        self.metrics.accept_error(self.port);
    }

    /// Every critical section is a whole operation on the map.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Place {
    /// Ends the connection's stay.
    pub(super) fn leave(mut self, reason: Closed) {
        self.reason = reason;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.lock().connections.remove(&self.id);
        self.table.metrics.closed(self.table.port, self.reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(limit: usize, refusals: usize) -> Arc<Table> {
        let settings = Settings { max_connections: limit, max_refusals: refusals, ..Settings::default() };
        Table::new(Port::Admission, &settings, Arc::new(Metrics::new()))
    }

    /// Puts a connection into a phase that began some time after the table was made.
    fn enter_at(activity: &Activity, phase: Phase, millis: u64) {
        activity.state.store((phase as u64) << 56 | millis, Ordering::Release);
    }

    #[tokio::test]
    async fn the_longest_idle_makes_room_and_busy_ones_do_not() {
        let table = table(3, 0);
        let busy = table.admit().await.unwrap();
        busy.activity.enter(Phase::Busy);
        let old = table.admit().await.unwrap();
        enter_at(&old.activity, Phase::Idle, 10);
        let young = table.admit().await.unwrap();
        enter_at(&young.activity, Phase::Idle, 20);

        assert!(table.evict());
        assert_eq!(old.activity.order(), Order::Evict);
        assert_eq!(young.activity.order(), Order::Serve);
        assert!(table.evict());
        assert_eq!(young.activity.order(), Order::Evict);
        assert!(!table.evict(), "only a busy one is left");
        assert_eq!(busy.activity.order(), Order::Serve);
        assert_eq!(table.busy(), 1);
    }

    #[tokio::test]
    async fn with_nothing_idle_a_few_are_refused_in_words_and_the_rest_without() {
        let table = table(1, 1);
        let busy = table.admit().await.unwrap();
        busy.activity.enter(Phase::Busy);
        let refused = table.admit().await.unwrap();
        assert!(!busy.activity.refused && refused.activity.refused);
        assert!(table.admit().await.is_none());
        assert_eq!(table.metrics.connections_closed(Port::Admission, Closed::Refused), 1);
        busy.leave(Closed::ByClient);
        assert!(!table.admit().await.unwrap().activity.refused);
    }

    #[tokio::test]
    async fn a_stalled_handshake_makes_room_after_a_second() {
        let table = table(1, 0);
        let stalled = table.admit().await.unwrap();
        let begun = stalled.activity.state().1;
        assert_eq!(stalled.activity.evictable(begun + STALLED), None);
        let later = begun + STALLED + Duration::from_millis(1);
        assert_eq!(stalled.activity.evictable(later), Some((1, begun)));
    }

    #[tokio::test]
    async fn connections_grow_old_one_by_one() {
        let age = Duration::from_secs(600);
        let settings = |connection_age| Settings { connection_age, ..Settings::default() };
        let table = |age| Table::new(Port::Admission, &settings(age), Arc::new(Metrics::new()));
        let (aging, now) = (table(Some(age)), Instant::now());
        let mut ages: Vec<Duration> = (0..100).map(|id| aging.old(id).unwrap() - now).collect();
        ages.sort();
        assert!(ages[0] >= age / 2 && ages[99] < age + Duration::from_secs(10), "{ages:?}");
        assert!(ages[75] - ages[25] > age / 10, "all at once: {ages:?}");
        assert!(!aging.admit().await.unwrap().activity.is_old());
        assert!(table(Some(Duration::ZERO)).admit().await.unwrap().activity.is_old());
        assert_eq!(table(None).old(1), None);
    }

    #[tokio::test]
    async fn each_phase_has_its_own_deadline() {
        let settings = Settings::default();
        let table = table(1, 0);
        let place = table.admit().await.unwrap();
        let activity = &place.activity;
        let reason = |activity: &Activity| activity.deadline(&settings).map(|(at, why)| (at - activity.state().1, why));
        let secs = Duration::from_secs;
        assert_eq!(reason(activity), Some((secs(10), Closed::HandshakeTimeout)));
        activity.enter(Phase::Idle);
        assert_eq!(reason(activity), Some((secs(120), Closed::Idle)));
        activity.bytes_arrived();
        assert_eq!(reason(activity), Some((secs(10), Closed::SlowHead)));
        activity.flushed();
        assert_eq!(activity.phase(), Phase::Head, "no answer was out yet");
        activity.enter(Phase::Busy);
        activity.bytes_arrived();
        assert_eq!(reason(activity), None);
        activity.enter(Phase::Answered);
        assert_eq!(reason(activity), Some((secs(10), Closed::SlowRead)));
        activity.flushed();
        assert_eq!(reason(activity), Some((secs(120), Closed::Idle)));
        activity.tell(Order::Drain);
        assert_eq!(reason(activity), Some((secs(1), Closed::Drained)));
        activity.tell(Order::Evict);
        assert_eq!(reason(activity), Some((secs(0), Closed::Evicted)));
    }
}
