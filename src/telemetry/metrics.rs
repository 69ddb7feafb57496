//! Every metric of the process, in one file.
//!
//! Each metric is one [`Def`]; the registry, the table of docs/metrics.md and the test that
//! bounds the number of series are made from the same list, so none of the three can drift.
//! Labels are enums, or `&'static str` where the set lives in another module's static table
//! (kinds, rule codes). A namespace, object, user or message is never a label: such a label makes
//! one series per object in the cluster, and a monitoring system dies of it.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::admission::Endpoint;

/// One metric as an operator reads of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Def {
    /// The full name, base unit and `_total` included.
    pub name: &'static str,
    /// What the exposition format says after `# TYPE`.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Label names; every set of values is closed.
    pub labels: &'static [&'static str],
}

/// The types of metric that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Declares an enum whose variants are the values of one label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The label's value.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }
    };
}

label! {
    /// Which path was asked for.
    Path {
        /// `POST /validate`
        Validate = "validate",
        /// `POST /mutate`
        Mutate = "mutate",
        /// Anything else.
        Other = "other",
    }
}

impl Path {
    /// The label of a request's path.
    pub fn of(path: &str) -> Path {
        match path {
            "/validate" => Path::Validate,
            "/mutate" => Path::Mutate,
            _ => Path::Other,
        }
    }
}

impl From<Endpoint> for Path {
    fn from(endpoint: Endpoint) -> Path {
        match endpoint {
            Endpoint::Validate => Path::Validate,
            Endpoint::Mutate => Path::Mutate,
        }
    }
}

label! {
    /// How a request ended. The first five are verdicts, which only the reviewer knows; the
    /// server counts the rest. Every request is counted exactly once.
    Outcome {
        /// Allowed without a word.
        Allowed = "allowed",
        /// Allowed with at least one warning.
        Warned = "warned",
        /// Allowed and patched.
        Patched = "patched",
        /// Denied by a rule.
        Denied = "denied",
        /// The uid could be read and the object could not: denied with 422.
        Unreadable = "unreadable",
        /// 400: no AdmissionReview could be read.
        BadRequest = "bad_request",
        /// 404: unknown path.
        NotFound = "not_found",
        /// 405: not a POST.
        WrongMethod = "wrong_method",
        /// 408: the body did not arrive in time.
        SlowBody = "slow_body",
        /// 413: the body is longer than the limit.
        TooLarge = "too_large",
        /// 415: the body is not declared as JSON.
        WrongType = "wrong_type",
        /// 429: no free worker, no memory for the body, or too many connections.
        Overloaded = "overloaded",
        /// 503: the snapshot is not complete.
        Unavailable = "unavailable",
        /// 500: the reviewer panicked.
        Panicked = "panicked",
        /// Any other status of the reviewer.
        Failed = "failed",
        /// The client went away before it could be answered.
        ClientGone = "client_gone",
    }
}

label! {
    /// Which listener a connection came to.
    Port {
        /// The HTTPS port that the API server calls.
        Admission = "admission",
        /// The plain port of probes and metrics.
        Probes = "probes",
    }
}

label! {
    /// Why a connection ended.
    Closed {
        /// The client closed it.
        ByClient = "by_client",
        /// The answer carried `Connection: close`.
        AfterAnswer = "after_answer",
        /// Nothing arrived for longer than the idle timeout.
        Idle = "idle",
        /// It was idle and the place was needed for a new one.
        Evicted = "evicted",
        /// It was idle while the server drained.
        Drained = "drained",
        /// It was still open at the end of the drain and was cut.
        Cut = "cut",
        /// The TLS handshake failed.
        HandshakeFailed = "handshake_failed",
        /// The TLS handshake took too long.
        HandshakeTimeout = "handshake_timeout",
        /// The head of a request took too long.
        SlowHead = "slow_head",
        /// The client did not take its answer in time.
        SlowRead = "slow_read",
        /// What arrived was not HTTP/1.1.
        ProtocolError = "protocol_error",
        /// The transport failed.
        IoError = "io_error",
        /// Over the limit with nothing idle: closed without a byte.
        Refused = "refused",
    }
}

label! {
    /// What was full when a request was answered 429.
    Full {
        /// No worker became free within the queue's time.
        Workers = "workers",
        /// The bodies being read already fill their budget.
        BodyMemory = "body_memory",
        /// The connection came over the limit.
        Connections = "connections",
    }
}

label! {
    /// What became of a finding, after policy and mode.
    Action {
        /// The request was denied.
        Deny = "deny",
        /// The user saw a warning.
        Warn = "warn",
        /// Only the audit annotation says it.
        Audit = "audit",
    }
}

const REQUESTS: Def = Def {
    name: "revguard_admission_requests_total",
    kind: Kind::Counter,
    help: "Requests by path and by how they ended, each counted once on every exit path.",
    labels: &["endpoint", "outcome"],
};
const DURATION: Def = Def {
    name: "revguard_admission_duration_seconds",
    kind: Kind::Histogram,
    help: "Time from the request's parsed head to its answer: reading the body, waiting for a worker, judging.",
    labels: &["endpoint"],
};
const IN_FLIGHT: Def = Def {
    name: "revguard_admission_in_flight",
    kind: Kind::Gauge,
    help: "Requests that were begun and are not answered yet.",
    labels: &[],
};
const REJECTED: Def = Def {
    name: "revguard_admission_rejected_total",
    kind: Kind::Counter,
    help: "Requests answered 429, by what was full.",
    labels: &["full"],
};
const PANICS: Def = Def {
    name: "revguard_admission_panics_total",
    kind: Kind::Counter,
    help: "Panics while judging; each failed one request with 500. Any is a bug worth a report.",
    labels: &[],
};
const CONNECTIONS_OPEN: Def = Def {
    name: "revguard_connections_open",
    kind: Kind::Gauge,
    help: "Connections held right now.",
    labels: &["port"],
};
const CONNECTIONS_OPENED: Def = Def {
    name: "revguard_connections_opened_total",
    kind: Kind::Counter,
    help: "Connections accepted.",
    labels: &["port"],
};
const CONNECTIONS_CLOSED: Def = Def {
    name: "revguard_connections_closed_total",
    kind: Kind::Counter,
    help: "Connections ended, by reason.",
    labels: &["port", "reason"],
};
const ACCEPT_ERRORS: Def = Def {
    name: "revguard_accept_errors_total",
    kind: Kind::Counter,
    help: "Failed accepts, usually for want of file descriptors.",
    labels: &["port"],
};
const HANDSHAKE_FAILURES: Def = Def {
    name: "revguard_tls_handshake_failures_total",
    kind: Kind::Counter,
    help: "TLS handshakes that failed or timed out. Clients that do not trust the certificate show here.",
    labels: &[],
};
const CERT_NOT_AFTER: Def = Def {
    name: "revguard_certificate_not_after_seconds",
    kind: Kind::Gauge,
    help: "When the serving certificate expires, in seconds since 1970.",
    labels: &[],
};
const CERT_RELOADS: Def = Def {
    name: "revguard_certificate_reloads_total",
    kind: Kind::Counter,
    help: "Changed certificates that were taken into use.",
    labels: &[],
};
const CERT_RELOAD_ERRORS: Def = Def {
    name: "revguard_certificate_reload_errors_total",
    kind: Kind::Counter,
    help: "Changed certificates that could not be used, each content counted once; the old one stays.",
    labels: &[],
};
const CERT_RELOAD_SUCCESS: Def = Def {
    name: "revguard_certificate_last_reload_success",
    kind: Kind::Gauge,
    help: "1 if the files hold the certificate that is served, 0 if they hold something unusable.",
    labels: &[],
};
const POLICY_RELOAD_ERRORS: Def = Def {
    name: "revguard_policy_reload_errors_total",
    kind: Kind::Counter,
    help: "Changed policy files that were refused; the old policy stays.",
    labels: &[],
};
const POLICY_RELOAD_SUCCESS: Def = Def {
    name: "revguard_policy_last_reload_success",
    kind: Kind::Gauge,
    help: "1 if the policy in force is the one in the file, 0 if the file was refused.",
    labels: &[],
};
const SNAPSHOT_VERSION: Def = Def {
    name: "revguard_snapshot_resource_version",
    kind: Kind::Gauge,
    help: "The newest resourceVersion of a kind that verdicts are based on.",
    labels: &["kind"],
};
const SNAPSHOT_AGE: Def = Def {
    name: "revguard_snapshot_age_seconds",
    kind: Kind::Gauge,
    help: "Time since the last watch event or bookmark of a kind.",
    labels: &["kind"],
};
const WATCH_ERRORS: Def = Def {
    name: "revguard_watch_errors_total",
    kind: Kind::Counter,
    help: "Failed lists and watches of a kind.",
    labels: &["kind"],
};
const FINDINGS: Def = Def {
    name: "revguard_findings_total",
    kind: Kind::Counter,
    help: "Findings by rule and by what policy made of them.",
    labels: &["code", "action"],
};
const READY: Def = Def {
    name: "revguard_ready",
    kind: Kind::Gauge,
    help: "1 if /readyz answers 200.",
    labels: &[],
};
const BUILD_INFO: Def = Def {
    name: "revguard_build_info",
    kind: Kind::Gauge,
    help: "Always 1; the version is the label.",
    labels: &["version"],
};

/// Every metric, in the order of docs/metrics.md.
pub const ALL: &[Def] = &[
    REQUESTS,
    DURATION,
    IN_FLIGHT,
    REJECTED,
    PANICS,
    FINDINGS,
    CONNECTIONS_OPEN,
    CONNECTIONS_OPENED,
    CONNECTIONS_CLOSED,
    ACCEPT_ERRORS,
    HANDSHAKE_FAILURES,
    CERT_NOT_AFTER,
    CERT_RELOADS,
    CERT_RELOAD_ERRORS,
    CERT_RELOAD_SUCCESS,
    POLICY_RELOAD_ERRORS,
    POLICY_RELOAD_SUCCESS,
    SNAPSHOT_VERSION,
    SNAPSHOT_AGE,
    WATCH_ERRORS,
    READY,
    BUILD_INFO,
];

/// A review takes tens of microseconds and the API server waits up to 30 s, so the buckets
/// reach from well under the first to the second's usual configuration.
const DURATION_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];

type BeforeScrape = Box<dyn Fn(&Metrics) + Send + Sync>;

/// The process's metrics, in a registry of their own so that tests can have many.
pub struct Metrics {
    registry: Registry,
    // Looked up once: on the admission path a label lookup would cost a hash and a lock.
    requests: Vec<Vec<IntCounter>>,
    duration: Vec<Histogram>,
    in_flight: IntGauge,
    rejected: Vec<IntCounter>,
    panics: IntCounter,
    findings: IntCounterVec,
    connections_open: Vec<IntGauge>,
    connections_opened: Vec<IntCounter>,
    connections_closed: Vec<Vec<IntCounter>>,
    accept_errors: Vec<IntCounter>,
    handshake_failures: IntCounter,
    cert_not_after: IntGauge,
    cert_reloads: IntCounter,
    cert_reload_errors: IntCounter,
    cert_reload_success: IntGauge,
    policy_reload_errors: IntCounter,
    policy_reload_success: IntGauge,
    snapshot_version: IntGaugeVec,
    snapshot_age: GaugeVec,
    watch_errors: IntCounterVec,
    ready: IntGauge,
    before_scrape: Mutex<Vec<BeforeScrape>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every metric. Series of closed label sets exist from the start at 0, so that a
    /// rate over them sees the first event.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let requests = counters(&registry, REQUESTS);
        let duration = histograms(&registry, DURATION);
        let rejected = counters(&registry, REJECTED);
        let connections_open = int_gauges(&registry, CONNECTIONS_OPEN);
        let connections_opened = counters(&registry, CONNECTIONS_OPENED);
        let connections_closed = counters(&registry, CONNECTIONS_CLOSED);
        let accept_errors = counters(&registry, ACCEPT_ERRORS);
        int_gauges(&registry, BUILD_INFO)
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let cert_reload_success = int_gauge(&registry, CERT_RELOAD_SUCCESS);
        let policy_reload_success = int_gauge(&registry, POLICY_RELOAD_SUCCESS);
        // What was read at start was good, or the process would not be running.
        cert_reload_success.set(1);
        policy_reload_success.set(1);

        Metrics {
            requests: each(Path::ALL, |path| {
                each(Outcome::ALL, |outcome| {
                    requests.with_label_values(&[path.as_str(), outcome.as_str()])
                })
            }),
            duration: each(Path::ALL, |path| {
                duration.with_label_values(&[path.as_str()])
            }),
            in_flight: int_gauge(&registry, IN_FLIGHT),
            rejected: each(Full::ALL, |full| {
                rejected.with_label_values(&[full.as_str()])
            }),
            panics: counter(&registry, PANICS),
            findings: counters(&registry, FINDINGS),
            connections_open: each(Port::ALL, |port| {
                connections_open.with_label_values(&[port.as_str()])
            }),
            connections_opened: each(Port::ALL, |port| {
                connections_opened.with_label_values(&[port.as_str()])
            }),
            connections_closed: each(Port::ALL, |port| {
                each(Closed::ALL, |reason| {
                    connections_closed.with_label_values(&[port.as_str(), reason.as_str()])
                })
            }),
            accept_errors: each(Port::ALL, |port| {
                accept_errors.with_label_values(&[port.as_str()])
            }),
            handshake_failures: counter(&registry, HANDSHAKE_FAILURES),
            cert_not_after: int_gauge(&registry, CERT_NOT_AFTER),
            cert_reloads: counter(&registry, CERT_RELOADS),
            cert_reload_errors: counter(&registry, CERT_RELOAD_ERRORS),
            cert_reload_success,
            policy_reload_errors: counter(&registry, POLICY_RELOAD_ERRORS),
            policy_reload_success,
            snapshot_version: int_gauges(&registry, SNAPSHOT_VERSION),
            snapshot_age: gauges(&registry, SNAPSHOT_AGE),
            watch_errors: counters(&registry, WATCH_ERRORS),
            ready: int_gauge(&registry, READY),
            before_scrape: Mutex::new(Vec::new()),
            registry,
        }
    }

    /// Counts a request. The reviewer calls this for each answer with status 200, because only it
    /// knows the verdict; the server calls it for every other way in which a request ends.
    pub fn request(&self, path: Path, outcome: Outcome) {
        self.requests[path as usize][outcome as usize].inc();
    }

    /// How often a request ended this way.
    pub fn requests(&self, path: Path, outcome: Outcome) -> u64 {
        self.requests[path as usize][outcome as usize].get()
    }

    /// Records how long an answer took.
    pub fn duration(&self, path: Path, took: Duration) {
        self.duration[path as usize].observe(took.as_secs_f64());
    }

    /// A request was begun.
    pub fn begin(&self) {
        self.in_flight.inc();
    }

    /// A begun request ended, in whatever way.
    pub fn end(&self) {
        self.in_flight.dec();
    }

    /// A request was answered 429.
    pub fn rejected(&self, full: Full) {
        self.rejected[full as usize].inc();
    }

    /// The reviewer panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// How often the reviewer panicked.
    pub fn panics(&self) -> u64 {
        self.panics.get()
    }

    /// A finding was made. `code` comes from the rule's static metadata.
    pub fn finding(&self, code: &'static str, action: Action) {
        self.findings
            .with_label_values(&[code, action.as_str()])
            .inc();
    }

    /// A connection was accepted.
    pub fn opened(&self, port: Port) {
        self.connections_opened[port as usize].inc();
        self.connections_open[port as usize].inc();
    }

    /// A connection ended.
    pub fn closed(&self, port: Port, reason: Closed) {
        self.connections_open[port as usize].dec();
        self.connections_closed[port as usize][reason as usize].inc();
        if matches!(reason, Closed::HandshakeFailed | Closed::HandshakeTimeout) {
            self.handshake_failures.inc();
        }
    }

    /// How many connections ended for this reason.
    pub fn connections_closed(&self, port: Port, reason: Closed) -> u64 {
        self.connections_closed[port as usize][reason as usize].get()
    }

    /// How many connections are open.
    pub fn connections_open(&self, port: Port) -> i64 {
        self.connections_open[port as usize].get()
    }

    /// An accept failed.
    pub fn accept_error(&self, port: Port) {
        self.accept_errors[port as usize].inc();
    }

    /// A certificate is served from now on; it expires at `not_after` seconds since 1970.
    pub fn certificate(&self, not_after: i64) {
        self.cert_not_after.set(not_after);
        self.cert_reload_success.set(1);
    }

    /// A changed certificate was taken into use.
    pub fn certificate_reloaded(&self) {
        self.cert_reloads.inc();
    }

    /// How many changed certificates were taken into use.
    pub fn certificate_reloads(&self) -> u64 {
        self.cert_reloads.get()
    }

    /// A changed certificate could not be used.
    pub fn certificate_refused(&self) {
        self.cert_reload_errors.inc();
        self.cert_reload_success.set(0);
    }

    /// The files hold again what is served, without a change of the certificate.
    pub fn certificate_restored(&self) {
        self.cert_reload_success.set(1);
    }

    /// How many changed certificates could not be used.
    pub fn certificate_errors(&self) -> u64 {
        self.cert_reload_errors.get()
    }

    /// The policy in the file is in force.
    pub fn policy_loaded(&self) {
        self.policy_reload_success.set(1);
    }

    /// The policy in the file was refused.
    pub fn policy_refused(&self) {
        self.policy_reload_errors.inc();
        self.policy_reload_success.set(0);
    }

    /// Verdicts are based on this resourceVersion of `kind`.
    pub fn snapshot_version(&self, kind: &'static str, version: i64) {
        self.snapshot_version
            .with_label_values(&[kind])
            .set(version);
    }

    /// The last event or bookmark of `kind` came this long ago. An age only makes sense at the
    /// moment of the scrape: call this from [`Metrics::before_scrape`].
    pub fn snapshot_age(&self, kind: &'static str, age: Duration) {
        self.snapshot_age
            .with_label_values(&[kind])
            .set(age.as_secs_f64());
    }

    /// A list or watch of `kind` failed.
    pub fn watch_error(&self, kind: &'static str) {
        self.watch_errors.with_label_values(&[kind]).inc();
    }

    /// Whether /readyz would answer 200.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// Registers what must be computed at the moment of a scrape, such as ages.
    pub fn before_scrape(&self, f: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.before_scrape
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .push(Box::new(f));
    }

    /// The text format of Prometheus, version 0.0.4.
    pub fn text(&self) -> String {
        for f in self
            .before_scrape
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .iter()
        {
            f(self);
        }
        let mut out = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        out
    }
}

/// The table of docs/metrics.md.
pub fn docs() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         Served on `/metrics` of the probe port. Every label has a closed set of values; no label\n\
         ever carries the name of a namespace, an object or a user.\n\n\
         | name | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for def in ALL {
        let labels = def
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect::<Vec<_>>()
            .join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            def.name,
            def.kind.as_str(),
            if labels.is_empty() { "–" } else { &labels },
            def.help
        );
    }
    out.push_str("\n## Values of labels\n\n| label | values |\n|---|---|\n");
    for (label, values) in [
        ("endpoint", values(Path::ALL, Path::as_str)),
        ("outcome", values(Outcome::ALL, Outcome::as_str)),
        ("full", values(Full::ALL, Full::as_str)),
        ("port", values(Port::ALL, Port::as_str)),
        ("reason", values(Closed::ALL, Closed::as_str)),
        ("action", values(Action::ALL, Action::as_str)),
        ("code", "the codes of the rules".to_owned()),
        ("kind", "the kinds that are watched".to_owned()),
        ("version", "the version of this binary".to_owned()),
    ] {
        let _ = writeln!(out, "| `{label}` | {values} |");
    }
    out
}

fn values<T: Copy>(all: &[T], text: fn(T) -> &'static str) -> String {
    all.iter()
        .map(|value| format!("`{}`", text(*value)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn each<L: Copy, T>(all: &[L], make: impl Fn(L) -> T) -> Vec<T> {
    all.iter().map(|label| make(*label)).collect()
}

/// Names are constants and unique (a test holds it), so neither making nor registering one can
/// fail at run time.
fn register<T: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<T>) -> T {
    let metric = made.expect("metric definitions are constants");
    registry
        .register(Box::new(metric.clone()))
        .expect("metric names are unique");
    metric
}

fn opts(def: Def) -> Opts {
    Opts::new(def.name, def.help)
}

fn counter(registry: &Registry, def: Def) -> IntCounter {
    register(registry, IntCounter::with_opts(opts(def)))
}

fn counters(registry: &Registry, def: Def) -> IntCounterVec {
    register(registry, IntCounterVec::new(opts(def), def.labels))
}

fn int_gauge(registry: &Registry, def: Def) -> IntGauge {
    register(registry, IntGauge::with_opts(opts(def)))
}

fn int_gauges(registry: &Registry, def: Def) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(opts(def), def.labels))
}

fn gauges(registry: &Registry, def: Def) -> GaugeVec {
    register(
        registry,
        prometheus::core::GenericGaugeVec::new(opts(def), def.labels),
    )
}

fn histograms(registry: &Registry, def: Def) -> HistogramVec {
    register(
        registry,
        HistogramVec::new(
            HistogramOpts::new(def.name, def.help).buckets(DURATION_BUCKETS.to_vec()),
            def.labels,
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that can be set, set once; open label sets with as many values as we have
    /// kinds and rules, and then some.
    fn touched() -> Metrics {
        const KINDS: [&str; 40] = numbered!("Kind");
        let metrics = Metrics::new();
        for kind in KINDS {
            metrics.snapshot_version(kind, 1);
            metrics.snapshot_age(kind, Duration::from_secs(1));
            metrics.watch_error(kind);
            for action in Action::ALL {
                metrics.finding(kind, *action);
            }
        }
        metrics
    }

    macro_rules! numbered {
        ($prefix:literal) => {
            numbered!(@ $prefix; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24
                25 26 27 28 29 30 31 32 33 34 35 36 37 38 39)
        };
        (@ $prefix:literal; $($n:literal)*) => { [$(concat!($prefix, $n)),*] };
    }
    use numbered;

    #[test]
    fn the_number_of_series_is_bounded() {
        let text = touched().text();
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series < 500, "{series} series");
    }

    #[test]
    fn the_table_lists_exactly_what_is_registered() {
        let metrics = touched();
        let mut registered: Vec<_> = metrics
            .registry
            .gather()
            .iter()
            .map(|family| {
                let labels: Vec<_> = family.get_metric()[0]
                    .get_label()
                    .iter()
                    .map(|pair| pair.name().to_owned())
                    .collect();
                (family.name().to_owned(), family.help().to_owned(), labels)
            })
            .collect();
        registered.sort();
        let mut listed: Vec<_> = ALL
            .iter()
            .map(|def| {
                let mut labels: Vec<_> = def.labels.iter().map(|l| (*l).to_owned()).collect();
                labels.sort();
                (def.name.to_owned(), def.help.to_owned(), labels)
            })
            .collect();
        listed.sort();
        assert_eq!(registered, listed);
    }

    #[test]
    fn names_follow_the_conventions() {
        for def in ALL {
            assert!(def.name.starts_with("revguard_"), "{}", def.name);
            assert_eq!(
                def.name.ends_with("_total"),
                def.kind == Kind::Counter,
                "{}",
                def.name
            );
            assert!(def.help.ends_with('.'), "{}", def.name);
            for label in def.labels {
                assert!(
                    !["namespace", "name", "user", "object", "message"].contains(label),
                    "{}",
                    def.name
                );
                assert!(docs().contains(&format!("| `{label}` |")), "{label}");
            }
        }
    }

    #[test]
    fn ages_are_computed_at_the_scrape() {
        let metrics = Metrics::new();
        metrics.before_scrape(|m| m.snapshot_age("Pod", Duration::from_secs(7)));
        assert!(
            metrics
                .text()
                .contains("revguard_snapshot_age_seconds{kind=\"Pod\"} 7")
        );
    }
}
