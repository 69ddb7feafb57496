//! What a small world is made of: the gateway, what is asked for, and what may go wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use revguard::api::GatewayRolloutSpec;
use revguard::rollout::seen::Template;
use serde_json::{Value, json};

/// A minute: every duration of a spec in these worlds is some of them.
pub const TICK: i64 = 60;

/// Which template a Deployment, or a pod, is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rev {
    Old,
    New,
    /// The old one, changed by somebody.
    Other,
}

impl Rev {
    pub const ALL: [Rev; 3] = [Rev::Old, Rev::New, Rev::Other];
}

/// What may go wrong, or is asked for, in the middle of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A node is drained: a serving pod of the source, of the others.
    EvictOld,
    EvictNew,
    /// A ready pod is ready no more, until it is again.
    UnreadyOld,
    UnreadyNew,
    /// Old pods do not start.
    SickOld,
    /// New pods do not start; Envoys of the new revision reject their listeners.
    Sick,
    Rejects,
    ToGone,
    FromGone,
    Paused,
    DryRun,
    Abort,
    Delete,
    AlertFires,
    PrometheusGone,
    HpaGrows,
    /// The source's template is changed.
    Drift,
    /// The source is scaled up by hand.
    ScaledUp,
    /// What carries everything is scaled up by hand, while it waits for the original's owner or after the end: more are needed from then on.
    Asked,
    /// GitOps or Helm puts the autoscaler back to the source, with its own minimum.
    HpaReset,
    /// A Deployment of the canary's name appears, before ours is made.
    Foreign,
    StatusLost,
    /// Steps that are to come are edited; steps that are over are.
    EditFuture,
    EditPast,
    ServiceNarrowed,
    ConfigChanged,
    /// A label that takes pods out of their Services alone is there no more.
    KeyLost,
    /// An approval, or `resume`, that nobody waits for.
    Approval,
    /// After the end: the old revision is removed.
    Removed,
    /// A guard has found something.
    Blocked,
    /// A dry-run is refused.
    Refused,
    /// Somebody deletes the canary.
    CanaryGone,
    MetricFails,
    MetricSilent,
    /// The finalizer is taken off by hand.
    FinalizerOff,
}

impl Fault {
    pub const ALL: [Fault; 35] = [
        Fault::EvictOld,
        Fault::EvictNew,
        Fault::UnreadyOld,
        Fault::UnreadyNew,
        Fault::SickOld,
        Fault::Sick,
        Fault::Rejects,
        Fault::ToGone,
        Fault::FromGone,
        Fault::Paused,
        Fault::DryRun,
        Fault::Abort,
        Fault::Delete,
        Fault::AlertFires,
        Fault::PrometheusGone,
        Fault::HpaGrows,
        Fault::Drift,
        Fault::ScaledUp,
        Fault::Asked,
        Fault::HpaReset,
        Fault::Foreign,
        Fault::StatusLost,
        Fault::EditFuture,
        Fault::EditPast,
        Fault::ServiceNarrowed,
        Fault::ConfigChanged,
        Fault::KeyLost,
        Fault::Approval,
        Fault::Removed,
        Fault::Blocked,
        Fault::Refused,
        Fault::CanaryGone,
        Fault::MetricFails,
        Fault::MetricSilent,
        Fault::FinalizerOff,
    ];
}

/// What is taken away from the promises' keeping, so that the search has something to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Broken {
    Nothing,
    /// The plan believes that one pod is enough.
    NoFloor,
    /// Writes go through whatever has become of the object, but for the status.
    NoPrecondition,
    /// A pod that is set apart bears no mark of it.
    ApartNotRecorded,
    /// Each leader takes pods of its own choice.
    OwnChoice,
    /// The plan does not see pods set apart, and lets the object go.
    ApartUnseen,
    /// The autoscaler stays with the source.
    HpaStays,
    /// Endpoints are not looked at: ready is enough.
    EndpointsUnseen,
    /// The plan takes what is called like ours for ours.
    ForeignIsOurs,
    /// Old pods are not pinned and a batch is lowered at the end: replacements get to serve.
    ReadyTerminated,
    /// Rejected listeners are not looked at.
    RejectionsUnseen,
    /// What Envoy said before a pod had any traffic is taken for what it says now.
    OldReadings,
    /// It is not waited for that ReplicaSets notice which pods are set apart.
    NeverNoticed,
    /// A rolled back autoscaler keeps its raised bounds.
    BoundsKept,
}

impl Broken {
    pub const ALL: [Broken; 13] = [
        Broken::NoFloor,
        Broken::NoPrecondition,
        Broken::ApartNotRecorded,
        Broken::OwnChoice,
        Broken::ApartUnseen,
        Broken::HpaStays,
        Broken::EndpointsUnseen,
        Broken::ForeignIsOurs,
        Broken::ReadyTerminated,
        Broken::RejectionsUnseen,
        Broken::OldReadings,
        Broken::NeverNoticed,
        Broken::BoundsKept,
    ];
}

/// One small world.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: &'static str,
    pub pods: u8,
    pub hpa: bool,
    /// The mesh configuration has to be copied.
    pub config_map: bool,
    /// An earlier rollout has left its copy for the old revision.
    pub former: bool,
    /// ReplicaSets notice late which pods are set apart.
    pub blind: bool,
    pub faults: Vec<Fault>,
    /// So many of them.
    pub budget: u8,
    /// Decisions of a leader that leads no more, each of which is written whenever it likes.
    pub late: u8,
    /// The Service has the label by which an uninstallation of the old revision takes it along.
    pub pruned: bool,
    /// What does not start says why.
    pub told: bool,
    /// Pods that are set apart have requests open, and nobody knows for how long.
    pub busy: bool,
    /// A pod becomes an endpoint some time after it is ready, ends some time after it is deleted, and is rolled in small steps.
    pub fine: bool,
    pub broken: Broken,
    /// Bits of the spec that are set from the beginning.
    pub bits: u8,
    pub spec: Value,
    specs: BTreeMap<u8, Arc<GatewayRolloutSpec>>,
    pub templates: [Arc<Template>; 3],
}

/// Bits of a spec that change.
pub mod bit {
    pub const PAUSED: u8 = 1;
    pub const ABORT: u8 = 2;
    pub const DRY_RUN: u8 = 4;
    pub const EDIT_FUTURE: u8 = 8;
    pub const EDIT_PAST: u8 = 16;
    pub const ALL: u8 = 32;
}

/// A spec that waits for nothing but its pods.
pub fn quick() -> Value {
    json!({
        "target": {"deployment": {"name": "gw"}},
        "toRevision": "new",
        "fromRevision": "old",
        "strategy": {
            "promotion": "KeepRevisioned",
            "steps": [{"name": "half", "weight": 50, "soak": "0s"}, {"name": "all", "weight": 100, "soak": "0s"}],
            "drain": {"batch": 1, "interval": "0s", "lbDrainDelay": "0s", "maxWait": "2m"},
        },
        "probe": {"mode": "None"},
        "verification": {"level": "Label"},
        "progressDeadline": "3m",
        "ttlAfterFinished": "0s",
    })
}

/// Lays one over the other.
pub fn with(mut spec: Value, change: &Value) -> Value {
    json_patch::merge(&mut spec, change);
    spec
}

impl Config {
    pub fn new(name: &'static str, pods: u8, spec: Value) -> Config {
        let mut specs = BTreeMap::new();
        for bits in 0..bit::ALL {
            // The API server refuses the two together.
            if bits & bit::PAUSED != 0 && bits & bit::ABORT != 0 {
                continue;
            }
            let mut spec = spec.clone();
            spec["paused"] = json!(bits & bit::PAUSED != 0);
            spec["abort"] = json!(bits & bit::ABORT != 0);
            spec["dryRun"] = json!(bits & bit::DRY_RUN != 0);
            let steps = spec["strategy"]["steps"].as_array_mut().expect("steps");
            if bits & bit::EDIT_FUTURE != 0 {
                steps.last_mut().expect("a step")["soak"] = json!("1m");
            }
            if bits & bit::EDIT_PAST != 0 {
                steps[0]["soak"] = json!("1m");
            }
            specs.insert(bits, Arc::new(serde_json::from_value(spec).expect("a spec")));
        }
        let template = |hash: &str, revision: &str| {
            Arc::new(Template {
                hash: Arc::from(hash),
                revision: Some(Arc::from(revision)),
                labels: BTreeMap::new(),
                body: json!({"spec": {"containers": [{"name": "istio-proxy", "image": "auto"}]}}),
            })
        };
        Config {
            name,
            pods,
            hpa: false,
            config_map: false,
            former: false,
            blind: false,
            faults: Vec::new(),
            budget: 0,
            late: 0,
            pruned: false,
            told: false,
            busy: false,
            fine: false,
            broken: Broken::Nothing,
            bits: 0,
            spec,
            specs,
            templates: [template("h-old", "old"), template("h-new", "new"), template("h-other", "old")],
        }
    }

    pub fn spec(&self, bits: u8) -> &Arc<GatewayRolloutSpec> {
        &self.specs[&bits]
    }

    pub fn is_in_place(&self) -> bool {
        self.spec["strategy"]["type"] == "PausedRolling"
    }

    pub fn is_manual(&self) -> bool {
        self.spec["strategy"]["capacity"]["mode"] == "Manual"
    }
}
