//! The small worlds that are searched whole: together they go over every transition, and every fault meets every phase.

use serde_json::{Value, json};

use super::config::{Config, Fault, bit, quick, with};

fn strategy(change: &Value) -> Value {
    with(quick(), &json!({"strategy": change}))
}

/// One step, so that faults have more room.
fn short(change: &Value) -> Value {
    strategy(&with(json!({"steps": [{"name": "half", "weight": 100, "soak": "0s"}]}), change))
}

fn short_with(spec: &Value, change: &Value) -> Value {
    with(short(change), spec)
}

/// Alerts and a metric.
fn guarded(on: &str) -> Value {
    json!({
        "guardrails": {
            "source": {"url": "http://prometheus"},
            "alerts": {"resumeAfter": "1m", "onFiring": on},
            "metrics": [{"name": "errors", "query": "q", "window": "0s", "interval": "1m", "onFailure": on}],
        }
    })
}

/// Collects worlds.
struct Worlds {
    all: Vec<Config>,
    wide: bool,
}

impl Worlds {
    /// A world of one or two pods with so many of these faults; twice as many when there is time.
    fn add(&mut self, name: &'static str, pods: u8, spec: Value, faults: &[Fault]) -> &mut Config {
        let mut config = Config::new(name, pods, spec);
        config.faults = faults.to_vec();
        config.budget = u8::from(!faults.is_empty()) + u8::from(self.wide && !faults.is_empty());
        self.all.push(config);
        self.all.last_mut().expect("one")
    }
}

/// Every world; `wide` has more faults at a time, and more of what is open.
pub fn all(wide: bool) -> Vec<Config> {
    let mut worlds = Worlds { all: Vec::new(), wide };
    ways(&mut worlds);
    people(&mut worlds);
    trouble(&mut worlds);
    machines(&mut worlds);
    if wide {
        wider(&mut worlds);
    }
    worlds.all
}

/// Each way to move a gateway, with whoever wants it back.
fn ways(w: &mut Worlds) {
    use Fault::{Abort, Delete, Sick};
    w.add("plain", 2, quick(), &[]).busy = true;
    let probe = json!({"probe": {"mode": "DarkPod", "timeout": "2m"}});
    let config = w.add(
        "probe",
        1,
        short_with(&probe, &json!({})),
        &[Sick, Fault::Rejects, Fault::Refused, Abort, Delete, Fault::ConfigChanged],
    );
    (config.config_map, config.hpa) = (true, true);
    w.add(
        "dry run",
        1,
        short_with(&json!({"probe": {"mode": "DryRunOnly"}}), &json!({})),
        &[Fault::Refused, Fault::Blocked, Abort],
    )
    .bits = bit::DRY_RUN;
    w.add("promotion", 1, short(&json!({"promotion": "PatchOriginal"})), &[Abort, Delete, Sick]).hpa = true;
    w.add("external", 1, short(&json!({"promotion": "AwaitExternal"})), &[Abort, Delete]);
    let alone = json!({"standby": {"keep": false}});
    w.add("no standby", 1, short_with(&alone, &json!({"promotion": "PatchOriginal"})), &[Abort, Delete]);
    w.add("terminate", 2, short(&json!({"drain": {"mode": "Terminate"}})), &[Abort, Delete, Fault::EvictNew]);
    w.add("constrained", 2, short(&json!({"capacity": {"mode": "Constrained", "maxSurge": 1}})), &[Abort]).hpa = true;
    w.add(
        "in place",
        2,
        short(&json!({"type": "PausedRolling", "promotion": "Auto"})),
        &[Abort, Delete, Sick, Fault::EvictOld],
    );
    let steps = json!({"type": "PausedRolling", "promotion": "Auto", "steps": [{"name": "half", "replicas": 1, "soak": "0s"}, {"name": "all", "weight": 100, "soak": "0s"}]});
    w.add("in place, in steps", 2, strategy(&steps), &[Abort, Fault::Paused, Fault::Drift]).hpa = true;
    w.add(
        "standby for a while",
        1,
        short_with(
            &json!({"standby": {"until": "Duration", "ttl": "5m"}, "ttlAfterFinished": "9m"}),
            &json!({"promotion": "PatchOriginal"}),
        ),
        &[Abort, Fault::Removed],
    );
}

/// What people do.
fn people(w: &mut Worlds) {
    use Fault::{Abort, Approval, Delete, EditFuture, EditPast, Paused};
    w.add("people", 1, quick(), &[Abort, Delete, Paused, Approval, EditFuture, EditPast]);
    w.add("frozen", 1, short_with(&json!({"onDelete": "Freeze"}), &json!({})), &[Delete, Abort]).busy = true;
    let asked = json!({"steps": [{"name": "half", "replicas": 1, "soak": "0s", "approval": "Required"}, {"name": "all", "weight": 100, "soak": "1m"}]});
    w.add("approval", 1, strategy(&asked), &[Abort, Paused, Approval]);
    w.add("drift", 1, short(&json!({})), &[Fault::Drift, Abort]);
    w.add("resync", 1, short_with(&json!({"sourceDrift": "Resync"}), &json!({})), &[Fault::Drift, Abort, Delete]).hpa =
        true;
    w.add(
        "hands",
        1,
        short(&json!({"promotion": "PatchOriginal"})),
        &[Fault::ScaledUp, Fault::Foreign, Fault::CanaryGone, Fault::StatusLost],
    );
    w.add("finalizer", 1, short(&json!({})), &[Fault::FinalizerOff, Delete]).busy = true;
    w.add("removed", 1, short_with(&json!({}), &json!({"promotion": "PatchOriginal"})), &[Fault::Removed, Delete]);
}

/// What breaks.
fn trouble(w: &mut Worlds) {
    use Fault::{Abort, AlertFires, FromGone, MetricFails, MetricSilent, PrometheusGone, Rejects, Sick, ToGone};
    w.add("sick", 1, short(&json!({})), &[Sick, Rejects, ToGone, FromGone, Abort]);
    let hasty = json!({"onDeadline": "Abort", "guardrails": {"maxPause": "2m", "onPauseTimeout": "Abort"}});
    w.add("hasty", 1, short_with(&hasty, &json!({})), &[Sick, Rejects, ToGone, FromGone]);
    w.add("alerts", 1, with(quick(), &guarded("Pause")), &[AlertFires, PrometheusGone, MetricFails, MetricSilent]);
    w.add(
        "alerts abort",
        1,
        with(quick(), &guarded("Abort")),
        &[AlertFires, PrometheusGone, MetricFails, Fault::Paused],
    );
    w.add("service", 1, short(&json!({})), &[Fault::ServiceNarrowed, Fault::KeyLost, Abort]);
    w.add("blocked", 1, short(&json!({})), &[Fault::Blocked, Fault::Refused, ToGone, FromGone]);
}

/// Nodes, autoscalers, and leaders that come too late.
fn machines(w: &mut Worlds) {
    use Fault::{Abort, EvictNew, EvictOld, HpaGrows, HpaReset, UnreadyNew, UnreadyOld};
    w.add("nodes", 2, short(&json!({})), &[EvictOld, EvictNew, UnreadyOld, UnreadyNew]);
    w.add("nodes, set apart", 1, short(&json!({})), &[EvictOld, EvictNew, UnreadyOld, UnreadyNew]).busy = true;
    w.add("slow endpoints", 2, short(&json!({})), &[]).fine = true;
    w.add("autoscaler", 1, short(&json!({"promotion": "PatchOriginal"})), &[HpaGrows, HpaReset]).hpa = true;
    let config = w.add("late leader", 2, short(&json!({})), &[]);
    (config.late, config.hpa) = (1, true);
    let config = w.add("late leader and people", 1, short(&json!({"promotion": "PatchOriginal"})), &[Abort]);
    config.late = 1;
}

/// What takes minutes.
fn wider(_: &mut Worlds) {}
