//! Every limit and duration of the serving side, with its default and the arithmetic behind it.
//!
//! All of them are fields so that tests run the same code in milliseconds; nothing here is read
//! from the environment.

use std::time::Duration;

/// Limits of the HTTPS server. `Settings::default()` is what production runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest body in bytes. The API server admits objects of 3 MiB, and a review carries the
    /// object, the old object and options: over 6 MiB of JSON. 8 MiB leaves room.
    pub max_body: usize,
    /// Bytes of all bodies that are being read at one time. Eight of the longest; without it,
    /// connections × `max_body` would be 8 GiB.
    pub body_memory: usize,
    /// Reviews at one time. Reviews are pure computation, so more than the cores gains nothing
    /// but lets a small review pass beside a large one: 2 × cores.
    pub concurrency: usize,
    /// Longest wait for one of them; then 429. A review takes tens of microseconds, so a wait of
    /// 100 ms means a thousand reviews ahead, and the client does better to try elsewhere.
    pub queue: Duration,
    /// What a request without `?timeout=` is taken to have: the API server's default.
    pub default_timeout: Duration,
    /// Longest time for a body to arrive, from its head.
    pub body_timeout: Duration,
    /// Most connections. An idle one holds about 35 kB after a 9 kB review: 36 MB in all.
    pub max_connections: usize,
    /// Connections above that, when none is idle, that still get a 429 with `Retry-After` (which
    /// the API server repeats) instead of a closed socket (which fails the user's request).
    pub max_refusals: usize,
    /// Longest TLS handshake; the API server itself gives up after 10 s.
    pub handshake_timeout: Duration,
    /// Longest time from the first byte of a request to the end of its head.
    pub head_timeout: Duration,
    /// Longest time for a client to take its answer.
    pub write_timeout: Duration,
    /// How long a connection may stay without a request. The API server's transport closes its
    /// own after 90 s; whoever closes first risks a request that crosses, so it must be it. This
    /// also holds before the first request: Go's transport dials ahead and keeps the spare.
    pub idle_timeout: Duration,
    /// Longest life of a connection; `None`: any. An answer of one that is old says `Connection: close`, so that no request can
    /// cross with the end. The API server keeps 25 idle connections to a webhook and dials anew only beyond them: without an
    /// age those that were dialled while one replica was alone would lead to it for days. Which answer it is, chance says, between half of the
    /// age and all of it: what was dialled together shall not end together. A handshake every ten minutes costs nothing.
    pub connection_age: Option<Duration>,
    /// After an answer that did not read the whole body: how long the rest is thrown away before
    /// the socket closes. Closing with unread bytes sends a reset, and a reset can overtake the
    /// answer.
    pub linger: Duration,
    /// First phase of the drain: not ready, `Connection: close`, still accepting. Endpoints take
    /// some seconds to reach every node; 10 to 15 s is what others ship.
    pub drain: Duration,
    /// In the second phase: how long a connection must have been silent before it is closed. One
    /// that was opened just now is about to send its request.
    pub quiet: Duration,
    /// Second phase of the drain: when whatever still runs is cut. 12 + 15 s stays under
    /// `terminationGracePeriodSeconds: 30` with room for exit.
    pub hard_stop: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            max_body: 8 << 20,
            body_memory: 64 << 20,
            concurrency: 2 * cores(),
            queue: Duration::from_millis(100),
            default_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            max_connections: 1024,
            max_refusals: 64,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            connection_age: Some(Duration::from_secs(600)),
            linger: Duration::from_secs(1),
            drain: Duration::from_secs(12),
            quiet: Duration::from_secs(1),
            hard_stop: Duration::from_secs(15),
        }
    }
}

impl Settings {
    /// How many worker threads the runtime needs. A review runs on the worker that read its body
    /// (handing it over costs more than the review), so with as many workers as reviews nobody
    /// would be left to say 429: one more than `concurrency`.
    pub fn worker_threads(&self) -> usize {
        self.concurrency.saturating_add(1)
    }
}

/// The cores that this process may use; a container's CPU limit counts.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
