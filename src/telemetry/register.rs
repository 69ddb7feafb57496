//! Metrics as values of the registry, made from their definitions.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::def::Def;

/// A review takes tens of microseconds and the API server waits up to 30 s, so the buckets
/// reach from well under the first to the second's usual configuration.
const DURATION_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Names are constants and unique (a test holds it), so neither making nor registering one can
/// fail at run time.
pub fn register<T: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<T>) -> T {
    let metric = made.expect("metric definitions are constants");
    registry.register(Box::new(metric.clone())).expect("metric names are unique");
    metric
}

fn opts(def: Def) -> Opts {
    Opts::new(def.name, def.help)
}

pub fn counter(registry: &Registry, def: Def) -> IntCounter {
    register(registry, IntCounter::with_opts(opts(def)))
}

pub fn counters(registry: &Registry, def: Def) -> IntCounterVec {
    register(registry, IntCounterVec::new(opts(def), def.labels))
}

pub fn int_gauge(registry: &Registry, def: Def) -> IntGauge {
    register(registry, IntGauge::with_opts(opts(def)))
}

pub fn int_gauges(registry: &Registry, def: Def) -> IntGaugeVec {
    register(registry, IntGaugeVec::new(opts(def), def.labels))
}

pub fn gauges(registry: &Registry, def: Def) -> GaugeVec {
    register(registry, prometheus::core::GenericGaugeVec::new(opts(def), def.labels))
}

pub fn histograms(registry: &Registry, def: Def) -> HistogramVec {
    register(
        registry,
        HistogramVec::new(HistogramOpts::new(def.name, def.help).buckets(DURATION_BUCKETS.to_vec()), def.labels),
    )
}
