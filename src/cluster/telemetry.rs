//! What the live state tells whoever counts, and how long it waits for what.

use std::time::Duration;

use super::discovery::watched;
use super::request::Trouble;
use crate::model::Kind;
use crate::snapshot::Source;

/// Told of everything that an operator or a test may want to see. Every method has a default that does nothing, must not
/// block, and carries no name of an object except for the log.
pub trait Telemetry: Send + Sync + 'static {
    /// A list or watch failed and will be tried again. A metric may carry the kind, the verb and [`Trouble::word`].
    fn trouble(&self, _source: &Source, _verb: Verb, _trouble: &Trouble) {}

    /// A task went round once more: [`STORE`] or [`SOURCES`].
    fn alive(&self, _task: &'static str) {}

    /// A list was begun: one more than once a source means a repair.
    fn listing(&self, _source: &Source) {}

    /// The API server sent something of this kind that cannot be read; it is left out. The name is for the log only.
    fn unreadable(&self, _kind: Kind, _name: &str, _error: &str) {}

    /// The published snapshot holds everything of this kind up to this version. `in_mesh` tells the two readings of
    /// Pods apart: metadata everywhere, whole objects in namespaces of the mesh.
    fn seen(&self, _kind: Kind, _in_mesh: bool, _version: u64) {}

    /// A snapshot was published; `objects` is how many it holds.
    fn published(&self, _objects: usize) {}

    /// More namespaces hold gateways than are read whole; the rest counts as unknown.
    fn too_many_mesh_namespaces(&self, _found: usize, _read: usize) {}

    /// The cluster serves a kind only in versions that this build cannot read.
    fn unread_versions(&self, _kind: Kind, _served: &[String]) {}
}

/// Tasks that say that they are alive.
pub const STORE: &str = "store of the live state";
pub const SOURCES: &str = "list of sources";

/// How often they do at least.
pub(super) const BEAT: Duration = Duration::from_secs(5);

/// The verb that RBAC must grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    List,
    Watch,
    /// Asking which kinds there are.
    Discover,
}

impl Verb {
    pub fn word(self) -> &'static str {
        match self {
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Discover => "discover",
        }
    }
}

/// Every duration and limit of the live state, so that tests wait for nothing.
#[derive(Clone, Debug)]
pub struct Timing {
    /// How long the head of an answer, or the next bytes of a list, may take.
    pub answer: Duration,
    /// How long the API server shall keep a watch open; up to a quarter more, so that watches do not all end at once.
    pub watch: Duration,
    /// A watch that says nothing for this long is dead. Longer than the longest `watch`, and more than two of the
    /// bookmarks that the API server sends every minute.
    pub idle: Duration,
    /// A source of which nothing was heard for so long is asked at which version it is before it is watched again. Longer
    /// than the minute between bookmarks, shorter than `watch`: one that was silent throughout is in doubt at its end.
    pub proof: Duration,
    /// First wait after a failure; doubled up to `most_backoff`.
    pub backoff: Duration,
    /// Short enough that a restarted API server is heard again within seconds, long enough that 40 watches are
    /// 4 requests a second while it is away.
    pub most_backoff: Duration,
    /// Without trouble for this long, the next failure is a first one.
    pub calm: Duration,
    /// Between two attempts at what RBAC refuses.
    pub forbidden: Duration,
    /// First and longest wait of what everything else waits for (discovery, the serving Secret), whatever the trouble
    /// is: RBAC that was granted late is noticed within the second of them.
    pub essential: [Duration; 2],
    /// How long a refusal is doubted: an API server that has just started refuses everything until it has read its
    /// own RBAC, which takes seconds. Until then what was known stays, and it is asked again as after any failure.
    pub doubt: Duration,
    /// Objects a page where lists come in pages.
    pub page: u32,
    /// First lists at one time: each holds at most one object and the connection's buffer.
    pub lists: usize,
    /// Events between watches and the store; when it is full, watches wait, and the API server with them.
    pub events: usize,
    /// Between two published snapshots.
    pub publish: Duration,
    /// A namespace that lost its last gateway is still read whole for this long.
    pub hold: Duration,
    /// Namespaces that are read whole; each costs [`WATCHES`] watches, and each watch a connection, because HTTP/1.1 is spoken.
    pub mesh_namespaces: usize,
    /// After a change of a CRD its group is looked at after each of these: the API server serves a kind moments after
    /// it says so.
    pub settle: [Duration; 5],
    /// Every group is looked at again, for API servers that were upgraded and CRDs that may not be watched.
    pub rediscover: Duration,
    /// First lists as a stream, which holds the API server's memory down and cannot be too old when it ends. Where it
    /// is not understood, pages are used.
    pub stream: bool,
}

/// Watches that a namespace of the mesh costs.
pub const WATCHES: usize = 6;

impl Timing {
    /// Connections to the API server at most: every watch, and as many requests beside them as there are lists at a time.
    pub fn most_connections(&self) -> usize {
        watched().count() + self.mesh_namespaces * WATCHES + self.lists
    }
}

impl Default for Timing {
    fn default() -> Self {
        let s = Duration::from_secs;
        Timing {
            answer: s(30),
            watch: s(120),
            idle: s(165),
            proof: s(90),
            backoff: Duration::from_millis(300),
            most_backoff: s(10),
            calm: s(60),
            forbidden: s(60),
            essential: [s(1), s(30)],
            doubt: s(20),
            page: 500,
            lists: 4,
            events: 1024,
            publish: Duration::from_millis(50),
            hold: s(30),
            mesh_namespaces: 256,
            settle: [Duration::from_millis(50), s(1), s(3), s(10), s(30)],
            rediscover: s(300),
            stream: true,
        }
    }
}

/// Waits that grow while trouble lasts.
pub(super) struct Waits<'a> {
    timing: &'a Timing,
    step: u32,
    last: Option<tokio::time::Instant>,
}

impl<'a> Waits<'a> {
    pub fn new(timing: &'a Timing) -> Self {
        Waits { timing, step: 0, last: None }
    }

    /// How long to wait after this trouble.
    pub fn next(&mut self, trouble: &Trouble) -> Duration {
        let now = tokio::time::Instant::now();
        if self.last.is_some_and(|last| now - last > self.timing.calm) {
            self.step = 0;
        }
        self.last = Some(now);
        let grown = self.timing.backoff.saturating_mul(1 << self.step.min(16)).min(self.timing.most_backoff);
        self.step += 1;
        match trouble {
            Trouble::Forbidden(_) => jitter(self.timing.forbidden),
            // Never earlier than asked for.
            Trouble::Throttled(wait) => *wait + jitter(grown) - grown / 2,
            _ => jitter(grown),
        }
    }
}

/// How long to wait after this many failures in a row of something essential.
pub(super) fn essential(timing: &Timing, failures: u32, trouble: &Trouble) -> Duration {
    let [least, most] = timing.essential;
    let grown = jitter(least.saturating_mul(1 << failures.min(16)).min(most));
    match trouble {
        // Never earlier than asked for.
        Trouble::Throttled(wait) => grown.max(*wait),
        _ => grown,
    }
}

/// Between one half and the whole of it. The hasher's seed is all the chance that is needed.
pub(super) fn jitter(whole: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    let dice = std::hash::RandomState::new().build_hasher().finish() % 1000;
    whole / 2 + whole.mul_f64(dice as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::discovery::is_in_mesh;

    #[test]
    fn a_namespace_of_the_mesh_costs_as_many_watches_as_the_table_says() {
        assert_eq!(watched().filter(|row| is_in_mesh(row.kind)).count(), WATCHES);
    }

    #[test]
    fn a_dead_watch_is_noticed_only_after_the_server_should_have_ended_it() {
        let t = Timing::default();
        assert!(t.watch.mul_f64(1.25) < t.idle && t.proof < t.watch);
    }

    #[test]
    fn what_is_essential_is_asked_for_again_within_half_a_minute() {
        let timing = Timing::default();
        let refused = Trouble::Forbidden(String::new());
        assert!(essential(&timing, 0, &refused) <= Duration::from_secs(1));
        for failures in 0..100 {
            let wait = essential(&timing, failures, &refused);
            assert!(wait >= Duration::from_millis(500) && wait <= Duration::from_secs(30), "{wait:?}");
        }
        assert!(essential(&timing, 0, &Trouble::Throttled(Duration::from_secs(9))) >= Duration::from_secs(9));
    }

    #[tokio::test]
    async fn waits_grow_to_their_limit_and_a_calm_while_forgets_them() {
        let timing = Timing { calm: Duration::from_millis(20), ..Timing::default() };
        let mut waits = Waits::new(&timing);
        assert!(waits.next(&Trouble::Gone) <= timing.backoff);
        let last = (0..30).map(|_| waits.next(&Trouble::Closed)).last().unwrap();
        assert!(last >= timing.most_backoff / 2 && last <= timing.most_backoff);
        assert!(waits.next(&Trouble::Throttled(Duration::from_secs(20))) >= Duration::from_secs(20));
        assert!(waits.next(&Trouble::Forbidden(String::new())) >= timing.forbidden / 2);
        tokio::time::sleep(timing.calm * 2).await;
        assert!(waits.next(&Trouble::Closed) <= timing.backoff);
    }
}
