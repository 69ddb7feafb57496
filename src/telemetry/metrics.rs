//! Every metric of the process: registered, set and written out.
//!
//! Names, types and help stand in `table`, label values in `labels`; the registry, the table of
//! docs/metrics.md and the test that bounds the number of series are made from the same list, so
//! none of the three can drift.
//! Labels are enums, or `&'static str` where the set lives in another module's static table
//! (kinds, rule codes). A namespace, object, user or message is never a label: such a label makes
//! one series per object in the cluster, and a monitoring system dies of it. Gateway rollouts are the exception.

use std::sync::Mutex;
use std::time::Duration;

use prometheus::{GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

pub use super::labels::{Action, Asked, Closed, Full, Loop, Outcome, Path, Port, RepairResult, Source};
use super::mesh::Mesh;
use super::register::{counter, counters, gauges, histograms, int_gauge, int_gauges};
use super::rollouts::Rollouts;
use super::table::*;
pub use super::table::{ALL, Def, Kind, docs};
use super::tally::Tally;

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
    snapshot_stale: IntGaugeVec,
    ca_not_after: IntGauge,
    ca_bundle_current: IntGaugeVec,
    ca_bundle_restored: IntCounter,
    leader: IntGauge,
    reconcile_errors: Vec<IntCounter>,
    repairs: IntCounterVec,
    /// What the audit saw, on the replica that leads.
    pub mesh: Mesh,
    /// Gateway rollouts, on the replica that leads.
    pub rollouts: Rollouts,
    /// What became of reviews, by writer; no metric, because names of users are no labels.
    pub tally: Tally,
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
    /// rate over them sees the first event; for sets that live elsewhere see `expect_…`.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let requests = counters(&registry, REQUESTS);
        let duration = histograms(&registry, DURATION);
        let rejected = counters(&registry, REJECTED);
        let connections_open = int_gauges(&registry, CONNECTIONS_OPEN);
        let connections_opened = counters(&registry, CONNECTIONS_OPENED);
        let connections_closed = counters(&registry, CONNECTIONS_CLOSED);
        let accept_errors = counters(&registry, ACCEPT_ERRORS);
        let reconcile_errors = counters(&registry, RECONCILE_ERRORS);
        int_gauges(&registry, BUILD_INFO).with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let cert_reload_success = int_gauge(&registry, CERT_RELOAD_SUCCESS);
        let policy_reload_success = int_gauge(&registry, POLICY_RELOAD_SUCCESS);
        // What was read at start was good, or the process would not be running.
        cert_reload_success.set(1);
        policy_reload_success.set(1);

        Metrics {
            requests: each(Path::ALL, |path| {
                each(Outcome::ALL, |outcome| requests.with_label_values(&[path.as_str(), outcome.as_str()]))
            }),
            duration: each(Path::ALL, |path| duration.with_label_values(&[path.as_str()])),
            in_flight: int_gauge(&registry, IN_FLIGHT),
            rejected: each(Full::ALL, |full| rejected.with_label_values(&[full.as_str()])),
            panics: counter(&registry, PANICS),
            findings: counters(&registry, FINDINGS),
            connections_open: each(Port::ALL, |port| connections_open.with_label_values(&[port.as_str()])),
            connections_opened: each(Port::ALL, |port| connections_opened.with_label_values(&[port.as_str()])),
            connections_closed: each(Port::ALL, |port| {
                each(Closed::ALL, |reason| connections_closed.with_label_values(&[port.as_str(), reason.as_str()]))
            }),
            accept_errors: each(Port::ALL, |port| accept_errors.with_label_values(&[port.as_str()])),
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
            snapshot_stale: int_gauges(&registry, SNAPSHOT_STALE),
            ca_not_after: int_gauge(&registry, CA_NOT_AFTER),
            ca_bundle_current: int_gauges(&registry, CA_BUNDLE_CURRENT),
            ca_bundle_restored: counter(&registry, CA_BUNDLE_RESTORED),
            leader: int_gauge(&registry, LEADER),
            reconcile_errors: each(Loop::ALL, |l| reconcile_errors.with_label_values(&[l.as_str()])),
            repairs: counters(&registry, REPAIRS),
            mesh: Mesh::new(&registry),
            rollouts: Rollouts::new(&registry),
            tally: Tally::default(),
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
        self.findings.with_label_values(&[code, action.as_str()]).inc();
    }

    /// Findings of these rules begin at 0, so that a rate sees the first one. Codes come from the rules' static metadata, as
    /// in [`Metrics::finding`].
    pub fn expect_findings(&self, codes: impl Iterator<Item = &'static str>) {
        begin(&self.findings, codes, Action::ALL.iter().map(|action| action.as_str()));
    }

    /// The same of repairs.
    pub fn expect_repairs(&self, codes: impl Iterator<Item = &'static str>) {
        begin(&self.repairs, codes, RepairResult::ALL.iter().map(|result| result.as_str()));
    }

    /// The same of failed lists and watches.
    pub fn expect_watches(&self, kinds: impl Iterator<Item = &'static str>) {
        kinds.for_each(|kind| drop(self.watch_errors.with_label_values(&[kind])));
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
        self.snapshot_version.with_label_values(&[kind]).set(version);
    }

    /// The last event or bookmark of `kind` came this long ago. An age only makes sense at the
    /// moment of the scrape: call this from [`Metrics::before_scrape`].
    pub fn snapshot_age(&self, kind: &'static str, age: Duration) {
        self.snapshot_age.with_label_values(&[kind]).set(age.as_secs_f64());
    }

    /// A list or watch of `kind` failed.
    pub fn watch_error(&self, kind: &'static str) {
        self.watch_errors.with_label_values(&[kind]).inc();
    }

    /// Whether a kind is older than the policy allows. Call this from [`Metrics::before_scrape`].
    pub fn snapshot_stale(&self, kind: &'static str, stale: bool) {
        self.snapshot_stale.with_label_values(&[kind]).set(i64::from(stale));
    }

    /// The CA of the serving certificate expires at `not_after` seconds since 1970.
    pub fn ca(&self, not_after: i64) {
        self.ca_not_after.set(not_after);
    }

    /// Whether the bundles of our configuration of this kind verify what is served.
    pub fn ca_bundle_current(&self, configuration: &'static str, current: bool) {
        self.ca_bundle_current.with_label_values(&[configuration]).set(i64::from(current));
    }

    /// A caBundle that was changed by hand was put back.
    pub fn ca_bundle_restored(&self) {
        self.ca_bundle_restored.inc();
    }

    /// Whether this replica of the controller may write.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// A repair was attempted. `code` comes from the rule's static metadata.
    pub fn repair(&self, code: &'static str, result: RepairResult) {
        self.repairs.with_label_values(&[code, result.as_str()]).inc();
    }

    /// A read or write of the controller failed.
    pub fn reconcile_error(&self, of: Loop) {
        self.reconcile_errors[of as usize].inc();
    }

    /// How many reads and writes of a loop failed.
    pub fn reconcile_errors(&self, of: Loop) -> u64 {
        self.reconcile_errors[of as usize].get()
    }

    /// Whether /readyz would answer 200.
    pub fn ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// Registers what must be computed at the moment of a scrape, such as ages.
    pub fn before_scrape(&self, f: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.before_scrape.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(Box::new(f));
    }

    /// The text format of Prometheus, version 0.0.4.
    pub fn text(&self) -> String {
        for f in self.before_scrape.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).iter() {
            f(self);
        }
        let mut out = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        out
    }
}

fn each<L: Copy, T>(all: &[L], make: impl Fn(L) -> T) -> Vec<T> {
    all.iter().map(|label| make(*label)).collect()
}

/// Makes the series of a counter with two labels, at 0.
fn begin<'a>(
    counter: &IntCounterVec,
    firsts: impl Iterator<Item = &'a str>,
    seconds: impl Iterator<Item = &'a str> + Clone,
) {
    for first in firsts {
        seconds.clone().for_each(|second| drop(counter.with_label_values(&[first, second])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::rollout_status::Phase;
    use crate::telemetry::mesh::{Figures, RevisionFigures};
    use crate::telemetry::rollouts::RolloutFigures;

    /// Everything that can be set, set once; open label sets with as many values as we have
    /// kinds and rules, and then some.
    fn touched() -> Metrics {
        const KINDS: [&str; 40] = numbered!("Kind");
        let metrics = Metrics::new();
        metrics.ca_bundle_current("ValidatingWebhookConfiguration", true);
        for kind in KINDS {
            metrics.snapshot_version(kind, 1);
            metrics.snapshot_age(kind, Duration::from_secs(1));
            metrics.watch_error(kind);
            metrics.snapshot_stale(kind, false);
            for action in Action::ALL {
                metrics.finding(kind, *action);
            }
            RepairResult::ALL.iter().for_each(|result| metrics.repair(kind, *result));
        }
        let names = || KINDS.iter().map(|n| ((*n).to_owned(), true)).collect();
        metrics.mesh.set(&Figures {
            revisions: vec![RevisionFigures { name: "r".into(), endpoints: Some(1), ..RevisionFigures::default() }],
            validators: names(),
            injectors: names(),
            findings: KINDS.iter().map(|code| ((*code, "error"), 1)).collect(),
            exemptions: KINDS.iter().map(|code| (*code, 1)).collect(),
            ..Figures::default()
        });
        metrics.mesh.present("ValidatingWebhookConfiguration/revguard", true);
        metrics.rollouts.set(&RolloutFigures {
            paused: Some("User".into()),
            stage_started: Some(1),
            due: Some(1),
            apart_due: Some(1),
            gate: Some(0),
            ..RolloutFigures::default()
        });
        metrics.rollouts.transition(Phase::Pending, Phase::Preflight, "");
        metrics.mesh.in_force(Some(true));
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
        assert!(series < 900, "{series} series");
    }

    #[test]
    fn what_is_expected_stands_at_nought() {
        let metrics = Metrics::new();
        metrics.expect_findings(["NS001", "NS002"].into_iter());
        metrics.expect_repairs(["VW005"].into_iter());
        metrics.expect_watches(["pods"].into_iter());
        metrics.finding("NS001", Action::Deny);
        let text = metrics.text();
        for line in [
            "revguard_findings_total{action=\"deny\",code=\"NS001\"} 1",
            "revguard_findings_total{action=\"warn\",code=\"NS002\"} 0",
            "revguard_repairs_total{code=\"VW005\",result=\"refused\"} 0",
            "revguard_watch_errors_total{kind=\"pods\"} 0",
        ] {
            assert!(text.contains(line), "no {line}");
        }
    }

    #[test]
    fn the_table_lists_exactly_what_is_registered() {
        let metrics = touched();
        let mut registered: Vec<_> = metrics
            .registry
            .gather()
            .iter()
            .map(|family| {
                let labels: Vec<_> =
                    family.get_metric()[0].get_label().iter().map(|pair| pair.name().to_owned()).collect();
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
            assert_eq!(def.name.ends_with("_total"), def.kind == Kind::Counter, "{}", def.name);
            assert!(def.help.ends_with('.'), "{}", def.name);
            for label in def.labels {
                // `name` is a closed or bounded set of cluster-wide configurations; docs/metrics.md says which.
                assert!(!["user", "object", "message"].contains(label), "{}", def.name);
                let of_rollout = def.name.starts_with("revguard_rollout_") || def.name == "revguard_alert_gate";
                assert!(*label != "namespace" || of_rollout, "{}: only of rollouts there are few enough", def.name);
                assert!(docs().contains(&format!("| `{label}` |")), "{label}");
            }
        }
    }

    #[test]
    fn ages_are_computed_at_the_scrape() {
        let metrics = Metrics::new();
        metrics.before_scrape(|m| m.snapshot_age("Pod", Duration::from_secs(7)));
        assert!(metrics.text().contains("revguard_snapshot_age_seconds{kind=\"Pod\"} 7"));
    }
}
