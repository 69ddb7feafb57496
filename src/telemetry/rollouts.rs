//! Metrics of gateway rollouts, on the replica that leads. They are the only ones that may carry the namespace and the name of
//! an object: there are as many rollouts as somebody has asked for, and the series of one go with it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Registry};

use super::labels::{Asked, Source};
use super::register::{counters, gauges, int_gauges, register};
use super::table::*;
use crate::api::rollout_status::{Completion, Phase};

/// Rollouts that have series; finished ones stay for a month, as long as there is room, and a fleet has hundreds of gateways at
/// most.
pub const MOST_ROLLOUTS: usize = 500;

/// A rollout takes from minutes to days.
const BUCKETS: &[f64] = &[60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0, 259_200.0, 604_800.0];

/// One rollout, as its status has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolloutFigures {
    pub namespace: String,
    pub name: String,
    pub gateway: String,
    pub from: String,
    pub to: String,
    pub strategy: String,
    pub flavor: String,
    pub phase: Phase,
    /// From 1; 0 before the first.
    pub step: u32,
    pub weight_desired: u32,
    pub weight_endpoints: u32,
    /// Why it holds, in one word.
    pub paused: Option<String>,
    /// In seconds since 1970.
    pub stage_started: Option<i64>,
    /// When the stage should be over, in seconds since 1970; `None`: nobody can say.
    pub due: Option<i64>,
    pub apart: u32,
    /// When the first of the pods set apart has to go, in seconds since 1970.
    pub apart_due: Option<i64>,
    /// 0 quiet, 1 firing, 2 unknown; `None`: nobody asked for one.
    pub gate: Option<u8>,
}

impl RolloutFigures {
    fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }

    fn info(&self) -> [&str; 7] {
        [&self.namespace, &self.name, &self.gateway, &self.from, &self.to, &self.strategy, &self.flavor]
    }
}

/// See the module's documentation.
pub struct Rollouts {
    info: IntGaugeVec,
    phase: IntGaugeVec,
    step: IntGaugeVec,
    weight_desired: GaugeVec,
    weight_endpoints: GaugeVec,
    paused: IntGaugeVec,
    stage_started: IntGaugeVec,
    due: IntGaugeVec,
    apart: IntGaugeVec,
    apart_due: IntGaugeVec,
    gate: IntGaugeVec,
    transitions: IntCounterVec,
    duration: HistogramVec,
    ended: IntCounterVec,
    queries: IntCounterVec,
    /// What has series now.
    shown: Mutex<BTreeMap<(String, String), RolloutFigures>>,
}

impl Rollouts {
    pub(super) fn new(registry: &Registry) -> Rollouts {
        let opts = HistogramOpts::new(ROLLOUT_DURATION.name, ROLLOUT_DURATION.help).buckets(BUCKETS.to_vec());
        let all = Rollouts {
            info: int_gauges(registry, ROLLOUT_INFO),
            phase: int_gauges(registry, ROLLOUT_PHASE),
            step: int_gauges(registry, ROLLOUT_STEP),
            weight_desired: gauges(registry, ROLLOUT_WEIGHT_DESIRED),
            weight_endpoints: gauges(registry, ROLLOUT_WEIGHT_ENDPOINTS),
            paused: int_gauges(registry, ROLLOUT_PAUSED),
            stage_started: int_gauges(registry, ROLLOUT_STAGE_STARTED),
            due: int_gauges(registry, ROLLOUT_DUE),
            apart: int_gauges(registry, ROLLOUT_PODS_APART),
            apart_due: int_gauges(registry, ROLLOUT_APART_DUE),
            gate: int_gauges(registry, ALERT_GATE),
            transitions: counters(registry, ROLLOUT_TRANSITIONS),
            duration: register(registry, HistogramVec::new(opts, ROLLOUT_DURATION.labels)),
            ended: counters(registry, ROLLOUTS),
            queries: counters(registry, PROMETHEUS_QUERIES),
            shown: Mutex::default(),
        };
        for source in Source::ALL {
            for result in Asked::ALL {
                all.queries.with_label_values(&[source.as_str(), result.as_str()]);
            }
        }
        for completion in Completion::ALL {
            all.ended.with_label_values(&[completion.as_str()]);
            all.duration.with_label_values(&[completion.as_str()]);
        }
        all
    }

    /// Sets everything about one rollout.
    pub fn set(&self, figures: &RolloutFigures) {
        let mut shown = self.shown();
        let key = figures.key();
        match shown.get(&key).cloned() {
            Some(before) if before == *figures => return,
            Some(before) => self.remove(&before),
            None if shown.len() >= MOST_ROLLOUTS && !self.make_room(&mut shown, figures) => return,
            None => {}
        }
        let own = [figures.namespace.as_str(), figures.name.as_str()];
        self.info.with_label_values(&figures.info()).set(1);
        for phase in Phase::ALL {
            let labels = [own[0], own[1], phase.as_str()];
            self.phase.with_label_values(&labels).set(i64::from(phase == figures.phase));
        }
        self.step.with_label_values(&own).set(i64::from(figures.step));
        self.weight_desired.with_label_values(&own).set(f64::from(figures.weight_desired) / 100.0);
        self.weight_endpoints.with_label_values(&own).set(f64::from(figures.weight_endpoints) / 100.0);
        if let Some(reason) = &figures.paused {
            self.paused.with_label_values(&[own[0], own[1], reason]).set(1);
        }
        self.apart.with_label_values(&own).set(i64::from(figures.apart));
        let gate = figures.gate.map(i64::from);
        let known = [
            (&self.stage_started, figures.stage_started),
            (&self.due, figures.due),
            (&self.apart_due, figures.apart_due),
            (&self.gate, gate),
        ];
        for (gauge, value) in known {
            if let Some(value) = value {
                gauge.with_label_values(&own).set(value);
            }
        }
        shown.insert(key, figures.clone());
    }

    /// One that is under way takes the place of one that is over, and of those the one that has been so for longest; nothing
    /// takes the place of one that is under way.
    fn make_room(&self, shown: &mut BTreeMap<(String, String), RolloutFigures>, figures: &RolloutFigures) -> bool {
        if figures.phase.is_over() {
            return false;
        }
        let over = shown.iter().filter(|(_, shown)| shown.phase.is_over());
        let Some(key) = over.min_by_key(|(_, shown)| shown.stage_started).map(|(key, _)| key.clone()) else {
            return false;
        };
        if let Some(before) = shown.remove(&key) {
            self.remove(&before);
        }
        true
    }

    /// A phase was left for another; `reason` is one of a closed set of words, or empty.
    pub fn transition(&self, from: Phase, to: Phase, reason: &'static str) {
        self.transitions.with_label_values(&[from.as_str(), to.as_str(), reason]).inc();
    }

    /// A query for alerts or metrics was answered, or not.
    pub fn asked(&self, source: Source, result: Asked) {
        self.queries.with_label_values(&[source.as_str(), result.as_str()]).inc();
    }

    /// A rollout came to its end, so long after it began.
    pub fn ended(&self, how: Completion, took: Duration) {
        self.ended.with_label_values(&[how.as_str()]).inc();
        self.duration.with_label_values(&[how.as_str()]).observe(took.as_secs_f64());
    }

    /// The object is gone, and its series with it.
    pub fn forget(&self, namespace: &str, name: &str) {
        if let Some(before) = self.shown().remove(&(namespace.to_owned(), name.to_owned())) {
            self.remove(&before);
        }
    }

    /// Nothing is known here any more: another replica leads.
    pub fn clear(&self) {
        for before in std::mem::take(&mut *self.shown()).into_values() {
            self.remove(&before);
        }
    }

    fn remove(&self, before: &RolloutFigures) {
        // What was never set cannot be removed, which is no harm.
        let own = [before.namespace.as_str(), before.name.as_str()];
        let _ = self.info.remove_label_values(&before.info());
        for phase in Phase::ALL {
            let _ = self.phase.remove_label_values(&[own[0], own[1], phase.as_str()]);
        }
        for gauge in [&self.step, &self.stage_started, &self.due, &self.apart, &self.apart_due, &self.gate] {
            let _ = gauge.remove_label_values(&own);
        }
        for gauge in [&self.weight_desired, &self.weight_endpoints] {
            let _ = gauge.remove_label_values(&own);
        }
        if let Some(reason) = &before.paused {
            let _ = self.paused.remove_label_values(&[own[0], own[1], reason]);
        }
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<(String, String), RolloutFigures>> {
        self.shown.lock().unwrap_or_else(|p| p.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn figures(name: &str) -> RolloutFigures {
        RolloutFigures { namespace: "ns".into(), name: name.into(), to: "1-24".into(), ..RolloutFigures::default() }
    }

    #[test]
    fn the_series_of_a_rollout_follow_it_and_go_with_it() {
        let metrics = Metrics::new();
        let lines = |of: &str| metrics.text().lines().filter(|l| l.contains(of)).map(str::to_owned).collect::<Vec<_>>();
        metrics.rollouts.set(&RolloutFigures { paused: Some("User".into()), gate: Some(2), ..figures("a") });
        metrics.rollouts.set(&figures("b"));
        assert!(
            lines("reason=\"User\"")
                .contains(&"revguard_rollout_paused{name=\"a\",namespace=\"ns\",reason=\"User\"} 1".into())
        );
        assert_eq!(lines("revguard_alert_gate{"), ["revguard_alert_gate{name=\"a\",namespace=\"ns\"} 2"]);
        let moved = RolloutFigures {
            phase: Phase::Draining,
            weight_endpoints: 25,
            apart: 2,
            due: Some(7),
            apart_due: Some(9),
            ..figures("a")
        };
        metrics.rollouts.set(&moved);
        for (name, value) in [("pods_apart", 2), ("due_timestamp_seconds", 7), ("apart_due_timestamp_seconds", 9)] {
            let wanted = format!("revguard_rollout_{name}{{name=\"a\",namespace=\"ns\"}} {value}");
            assert!(lines("name=\"a\"").contains(&wanted), "{wanted}");
        }
        assert!(lines("reason=\"User\"").is_empty() && lines("revguard_alert_gate{").is_empty());
        let phases = lines("revguard_rollout_phase{name=\"a\"");
        assert_eq!(phases.len(), Phase::ALL.len());
        assert_eq!(phases.iter().filter(|l| l.ends_with(" 1")).count(), 1, "a state set has one that is true");
        assert!(lines("revguard_rollout_weight_endpoints{name=\"a\"")[0].ends_with(" 0.25"));
        metrics.rollouts.forget("ns", "a");
        assert!(lines("name=\"a\"").is_empty() && !lines("name=\"b\"").is_empty());
        metrics.rollouts.clear();
        assert!(lines("name=\"b\"").is_empty());
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let metrics = Metrics::new();
        (0..MOST_ROLLOUTS + 50).for_each(|i| metrics.rollouts.set(&figures(&format!("r{i}"))));
        let shown = metrics.text().lines().filter(|l| l.starts_with("revguard_rollout_info{")).count();
        assert_eq!(shown, MOST_ROLLOUTS);
    }

    #[test]
    fn what_is_under_way_takes_the_place_of_what_is_over() {
        let metrics = Metrics::new();
        let has = |name: &str| metrics.text().contains(&format!("name=\"{name}\","));
        let over = |i: i64| RolloutFigures {
            phase: Phase::Completed,
            stage_started: Some(1000 - i),
            ..figures(&format!("over{i}"))
        };
        let most = i64::try_from(MOST_ROLLOUTS).unwrap();
        (0..most).for_each(|i| metrics.rollouts.set(&over(i)));
        metrics.rollouts.set(&figures("new"));
        assert!(has("new") && !has(&format!("over{}", most - 1)) && has("over0"));
        // It does not come back by being looked at again.
        metrics.rollouts.set(&over(most - 1));
        assert!(has("new") && !has(&format!("over{}", most - 1)));
        let shown = metrics.text().lines().filter(|l| l.starts_with("revguard_rollout_info{")).count();
        assert_eq!(shown, MOST_ROLLOUTS);
    }
}
