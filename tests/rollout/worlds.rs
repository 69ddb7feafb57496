//! The small worlds that are searched whole: together they go over every transition, and every fault meets every phase.

use serde_json::{Value, json};

use super::config::{Broken, Config, Fault, bit, quick, with};
use super::search::Dice;

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
        &[Fault::Refused, Fault::Blocked, Abort, Fault::DryRun],
    )
    .bits = bit::DRY_RUN;
    let config = w.add("promotion", 1, short(&json!({"promotion": "PatchOriginal"})), &[Abort, Delete, Sick]);
    (config.hpa, config.pruned) = (true, true);
    // Helm writes the autoscaler anew, a moment after the template or at any other time.
    w.add("external", 1, short(&json!({"promotion": "AwaitExternal"})), &[Abort, Delete, Fault::HpaReset]).hpa = true;
    let alone = json!({"standby": {"keep": false}});
    w.add("more is asked for", 1, short(&json!({"promotion": "AwaitExternal"})), &[Fault::Asked, Abort]);
    w.add("more is asked for afterwards", 1, short(&json!({})), &[Fault::Asked, Abort]).budget = 2;
    w.add("no standby", 1, short_with(&alone, &json!({"promotion": "PatchOriginal"})), &[Abort, Delete]).former = true;
    w.add("terminate", 2, short(&json!({"drain": {"mode": "Terminate"}})), &[Abort, Delete, Fault::EvictNew]);
    w.add("constrained", 2, short(&json!({"capacity": {"mode": "Constrained", "maxSurge": 1}})), &[Abort]).hpa = true;
    w.add(
        "in place",
        2,
        short(&json!({"type": "PausedRolling", "promotion": "Auto"})),
        &[Abort, Delete, Sick, Fault::EvictOld],
    )
    .former = true;
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
    )
    .former = true;
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
    w.add("removed", 1, short_with(&json!({}), &json!({"promotion": "PatchOriginal"})), &[Fault::Removed, Delete])
        .former = true;
}

/// What breaks.
fn trouble(w: &mut Worlds) {
    use Fault::{Abort, AlertFires, FromGone, MetricFails, MetricSilent, PrometheusGone, Rejects, Sick, ToGone};
    w.add("sick", 1, short(&json!({})), &[Sick, Rejects, ToGone, FromGone, Abort]);
    let hasty = json!({"onDeadline": "Abort", "guardrails": {"maxPause": "2m", "onPauseTimeout": "Abort"}});
    w.add("hasty", 1, short_with(&hasty, &json!({})), &[Sick, Rejects, ToGone, FromGone]).told = true;
    let office =
        json!({"window": {"allow": ["Wed 06:20-06:22"]}, "guardrails": {"maxPause": "2m", "onPauseTimeout": "Abort"}});
    let soaked =
        json!({"steps": [{"name": "half", "weight": 50, "soak": "1m"}, {"name": "all", "weight": 100, "soak": "2m"}]});
    w.add("window", 1, short_with(&office, &soaked), &[Sick, Abort]).told = true;
    w.add("alerts", 1, with(quick(), &guarded("Pause")), &[AlertFires, PrometheusGone, MetricFails, MetricSilent]);
    w.add(
        "alerts abort",
        1,
        with(quick(), &guarded("Abort")),
        &[AlertFires, PrometheusGone, MetricFails, Fault::Paused],
    );
    w.add("service", 1, short(&json!({})), &[Fault::ServiceNarrowed, Fault::KeyLost, Abort]);
    let config = w.add("stuck", 1, short(&json!({})), &[Fault::SickOld, Abort]);
    config.budget = 2;
    let beyond =
        json!({"steps": [{"name": "half", "weight": 60, "soak": "0s"}, {"name": "all", "weight": 100, "soak": "0s"}]});
    w.add("beyond a half", 2, strategy(&beyond), &[]);
    w.add("blocked", 1, short(&json!({})), &[Fault::Blocked, Fault::Refused, ToGone, FromGone]);
}

/// Nodes, autoscalers, and leaders that come too late.
fn machines(w: &mut Worlds) {
    use Fault::{Abort, EvictNew, EvictOld, HpaGrows, HpaReset, UnreadyNew, UnreadyOld};
    w.add("nodes", 2, short(&json!({})), &[EvictOld, EvictNew, UnreadyOld, UnreadyNew]);
    w.add("nodes, set apart", 1, short(&json!({})), &[EvictOld, EvictNew, UnreadyOld, UnreadyNew]).busy = true;
    w.add("slow endpoints", 2, short(&json!({})), &[]).fine = true;
    w.add("slow ReplicaSets", 2, short(&json!({})), &[]).blind = true;
    w.add("slow ReplicaSets and people", 1, short(&json!({})), &[Abort]).blind = true;
    w.add("autoscaler", 1, short(&json!({"promotion": "PatchOriginal"})), &[HpaGrows, HpaReset]).hpa = true;
    let config = w.add("late leader", 2, short(&json!({})), &[]);
    (config.late, config.hpa) = (1, true);
}

/// What takes minutes.
fn wider(w: &mut Worlds) {
    use Fault::{Abort, Delete, EvictNew, EvictOld, HpaGrows, Paused, Sick, UnreadyNew};
    let config = w.add("late leader and people", 1, short(&json!({"promotion": "PatchOriginal"})), &[Abort]);
    config.late = 1;
    w.add("slow ReplicaSets of two", 2, short(&json!({"promotion": "PatchOriginal"})), &[]).blind = true;
    let config = w.add("slow ReplicaSets, busy", 1, short(&json!({})), &[Abort]);
    (config.blind, config.busy, config.budget) = (true, true, 1);
    let config = w.add("two late leaders", 2, quick(), &[EvictNew]);
    (config.late, config.hpa, config.busy) = (2, true, true);
    let config = w.add(
        "constrained nodes",
        2,
        short(&json!({"capacity": {"mode": "Constrained", "maxSurge": 1}})),
        &[EvictOld, EvictNew, UnreadyNew],
    );
    (config.late, config.hpa) = (1, true);
    let config = w.add(
        "promotion of two",
        2,
        short(&json!({"promotion": "PatchOriginal", "drain": {"batch": 2}})),
        &[Abort, EvictNew],
    );
    config.budget = 1;
    let config = w.add(
        "everything",
        1,
        quick(),
        &[
            Abort,
            Delete,
            EvictNew,
            EvictOld,
            HpaGrows,
            Paused,
            Sick,
            Fault::StatusLost,
            Fault::Drift,
            Fault::KeyLost,
            Fault::FromGone,
        ],
    );
    (config.late, config.hpa) = (1, true);
}

/// A large world by chance: anything may be asked for, and anything may happen in it.
pub fn by_chance(dice: &mut Dice) -> Config {
    let n = |most: usize, dice: &mut Dice| u8::try_from(1 + dice.below(most)).expect("few");
    let pods = n(8, dice);
    let weights = dice.one_of(&[vec![100], vec![50, 100], vec![10, 25, 50, 75, 100], vec![60, 100]]);
    let soak = dice.one_of(&["0s", "1m", "2m"]);
    let approval = dice.one_of(&["None", "None", "Required"]);
    let step = |(i, weight): (usize, &i32)| {
        let name = if i == 0 { "half".to_owned() } else { format!("s{i}") };
        json!({"name": name, "weight": weight, "soak": soak, "approval": if i == 0 { approval } else { "None" }})
    };
    let steps: Vec<Value> = weights.iter().enumerate().map(step).collect();
    let in_place = dice.below(5) == 0;
    let mut strategy = json!({
        "steps": steps,
        "promotion": dice.one_of(&["KeepRevisioned", "PatchOriginal", "AwaitExternal", "Auto"]),
        "drain": {
            "mode": dice.one_of(&["SetApart", "SetApart", "Terminate"]),
            "batch": dice.one_of(&[json!(1), json!(2), json!("50%"), json!("100%")]),
            "interval": dice.one_of(&["0s", "1m"]),
            "lbDrainDelay": "0s",
            "maxWait": dice.one_of(&["2m", "5m"]),
        },
    });
    if in_place {
        strategy = with(strategy, &json!({"type": "PausedRolling", "promotion": "Auto"}));
    } else if dice.below(3) == 0 {
        let surge = dice.one_of(&[json!(1), json!(2), json!("25%")]);
        strategy = with(strategy, &json!({"capacity": {"mode": "Constrained", "maxSurge": surge}}));
    }
    let spec = json!({
        "strategy": strategy,
        "probe": {"mode": dice.one_of(&["DarkPod", "DryRunOnly", "None"]), "timeout": "2m"},
        "onDeadline": dice.one_of(&["Pause", "Abort"]),
        "onDelete": dice.one_of(&["Rollback", "Freeze"]),
        "sourceDrift": dice.one_of(&["Pause", "Resync"]),
        "standby": {"keep": dice.below(4) > 0},
    });
    let mut spec = with(quick(), &spec);
    if dice.below(2) == 0 {
        spec = with(spec, &guarded(dice.one_of(&["Pause", "Abort"])));
    }
    let mut config = Config::new("by chance", pods, spec);
    config.hpa = dice.below(2) == 0;
    config.config_map = dice.below(2) == 0;
    config.former = dice.below(2) == 0;
    config.blind = dice.below(2) == 0;
    config.fine = !in_place && dice.below(2) == 0;
    config.busy = dice.below(2) == 0;
    config.told = dice.below(2) == 0;
    config.pruned = dice.below(2) == 0;
    // A late lowering and a ReplicaSet that does not notice are too much together: no precondition of one object holds both. The lease does.
    config.late = if config.blind { 0 } else { 3 };
    config.budget = u8::try_from(dice.below(6)).expect("few");
    config.faults = Fault::ALL.to_vec();
    config
}

/// A world in which what is taken away must be missed, and the words by which it is.
pub fn broken(broken: Broken) -> (Config, &'static str) {
    let plain = |spec: Value, faults: &[Fault]| {
        let mut config = Config::new("broken", 2, spec);
        (config.faults, config.budget, config.broken) = (faults.to_vec(), u8::from(!faults.is_empty()), broken);
        config
    };
    let tight = json!({"capacity": {"mode": "Constrained", "maxSurge": 1}});
    let late = |mut config: Config| {
        config.late = 1;
        config
    };
    match broken {
        Broken::Nothing => (plain(quick(), &[]), ""),
        Broken::NoFloor => (plain(short(&tight), &[]), "and nobody else took any"),
        Broken::NoPrecondition => (late(plain(short(&tight), &[Fault::Abort])), "and nobody else took any"),
        Broken::ApartNotRecorded => (plain(short(&json!({})), &[]), "a pod is still set apart"),
        Broken::OwnChoice => (late(plain(short(&tight), &[])), "and nobody else took any"),
        Broken::ApartUnseen => {
            let mut config = plain(short(&json!({})), &[]);
            config.busy = true;
            (config, "breaks Forgotten")
        }
        Broken::HpaStays => {
            let mut config = plain(short(&json!({})), &[]);
            config.hpa = true;
            (config, "it goes round and round")
        }
        Broken::EndpointsUnseen => {
            let mut config = plain(short(&json!({})), &[]);
            config.fine = true;
            (config, "breaks Floor")
        }
        Broken::ForeignIsOurs => (plain(short(&json!({})), &[Fault::Foreign]), "breaks Foreign"),
        Broken::ReadyTerminated => (plain(short(&json!({})), &[]), "breaks Apart"),
        Broken::RejectionsUnseen => {
            (plain(short(&json!({})), &[Fault::Rejects]), "rejected listeners count as verified")
        }
        Broken::OldReadings => {
            let mut config = plain(short(&json!({})), &[]);
            config.busy = true;
            (config, "with its requests still open, before its time")
        }
        Broken::NeverNoticed => {
            let mut config = plain(short(&json!({})), &[]);
            (config.blind, config.busy) = (true, true);
            (config, "breaks Apart")
        }
        Broken::BoundsKept => {
            let mut config = plain(short(&json!({})), &[]);
            config.hpa = true;
            (config, "bounds were not put back")
        }
    }
}
