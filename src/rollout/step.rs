//! One write of a rollout, as a value: the same that the simulation carries out on its model and the controller on the API server.

use std::sync::Arc;

use jiff::Timestamp;

use super::seen::{Map, Version};
use crate::api::rollout_status::Baseline;

/// Which Deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    Source,
    Canary,
    Standby,
}

/// One write, with the version of what it changes. A step that creates something expects that nothing of that name exists.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Our finalizer on the GatewayRollout.
    Hold {
        held: Version,
    },
    /// … and away again.
    Release {
        held: Version,
    },
    /// The lock and the baseline, as annotations of the source Deployment. Only where nobody else holds it.
    Lock {
        held: Version,
        baseline: Arc<Baseline>,
    },
    Unlock {
        held: Version,
    },
    /// The mesh configuration beside the gateway: created, or brought up to date.
    CopyConfig {
        name: Arc<str>,
        held: Option<Version>,
        hash: Arc<str>,
    },
    DropConfig {
        name: Arc<str>,
        held: Version,
    },
    /// Our second Deployment, without replicas.
    CreateCanary,
    /// The old template under the old revision's name, without replicas.
    CreateStandby,
    DropDeployment {
        which: Which,
        held: Version,
    },
    Scale {
        which: Which,
        held: Version,
        to: u32,
    },
    /// The source's template becomes the baseline's, moved to this revision; of the old revision it is the baseline's as it was. Only
    /// while the Deployment has no replicas, or is paused.
    Retemplate {
        held: Version,
        revision: Arc<str>,
    },
    /// `paused`, `minReadySeconds` and `strategy` of the source, for an update in place; `None` puts the baseline's back.
    Pace {
        held: Version,
        paused: Option<bool>,
    },
    CreateProbe,
    DropProbe {
        pod: Arc<str>,
        held: Version,
    },
    /// `controller.kubernetes.io/pod-deletion-cost` of an old pod, so that a replacement is the one that goes.
    Pin {
        pod: Arc<str>,
        held: Version,
    },
    /// The pod leaves its Services and its ReplicaSet. The patch itself is the record.
    SetApart {
        pod: Arc<str>,
        held: Version,
        key: Arc<str>,
        since: Timestamp,
    },
    /// The end of a pod that was set apart; `cut`: connections that end with it.
    DropApart {
        pod: Arc<str>,
        held: Version,
        cut: u64,
    },
    /// `minReplicas` and, in the same write, what it scales.
    Autoscale {
        name: Arc<str>,
        held: Version,
        target: Arc<str>,
        min: u32,
    },
    /// Labels by which an uninstallation of the old revision would take a Service, an autoscaler or a budget along.
    Relabel {
        kind: &'static str,
        name: Arc<str>,
        held: Version,
        labels: Map,
    },
    /// Our record of having written the spec of the source or of an autoscaler: with it, whoever applies server-side without force (Helm 4)
    /// is refused a change of those fields for ever after.
    LetGo {
        kind: &'static str,
        name: Arc<str>,
        held: Version,
    },
    /// The approval on the GatewayRollout, which has had its effect, is taken off.
    Consume {
        held: Version,
    },
    /// The GatewayRollout itself, when its time after the end is over.
    DropRollout {
        held: Version,
    },
}

impl Step {
    /// What it does, as a person calls it.
    pub const fn doing(&self) -> &'static str {
        match self {
            Step::Hold { .. } => "keep the GatewayRollout from being deleted half-way",
            Step::Release { .. } => "let the GatewayRollout be deleted",
            Step::Lock { .. } => "lock the gateway's Deployment, and note how it is",
            Step::Unlock { .. } => "unlock the gateway's Deployment",
            Step::CopyConfig { .. } => "copy the mesh configuration beside the gateway",
            Step::DropConfig { .. } => "delete the copy of the mesh configuration",
            Step::CreateCanary => "create the second Deployment",
            Step::CreateStandby => "create the standby for the way back",
            Step::DropDeployment { .. } => "delete a Deployment that was made",
            Step::Scale { .. } => "scale a Deployment",
            Step::Retemplate { .. } => "move the template of the gateway's Deployment",
            Step::Pace { .. } => "pause or unpause the gateway's Deployment",
            Step::CreateProbe => "create a pod that nothing is routed to",
            Step::DropProbe { .. } => "delete the pod that nothing was routed to",
            Step::Pin { .. } => "mark an old pod, so that no replacement outlives it",
            Step::SetApart { .. } => "set a pod apart",
            Step::DropApart { .. } => "delete a pod that was set apart",
            Step::Autoscale { .. } => "change what the autoscaler scales, or how far down",
            Step::Relabel { .. } => "keep an object from going with the old revision",
            Step::LetGo { .. } => "leave fields that were written to whoever owns them",
            Step::Consume { .. } => "take a used approval off",
            Step::DropRollout { .. } => "delete the GatewayRollout, whose time is over",
        }
    }

    /// The write boundary: a constant that tests kill at and logs name.
    pub const fn boundary(&self) -> &'static str {
        match self {
            Step::Hold { .. } => "rollout-hold",
            Step::Release { .. } => "rollout-release",
            Step::Lock { .. } => "rollout-lock",
            Step::Unlock { .. } => "rollout-unlock",
            Step::CopyConfig { .. } => "rollout-copy-config",
            Step::DropConfig { .. } => "rollout-drop-config",
            Step::CreateCanary => "rollout-create-canary",
            Step::CreateStandby => "rollout-create-standby",
            Step::DropDeployment { .. } => "rollout-drop-deployment",
            Step::Scale { .. } => "rollout-scale",
            Step::Retemplate { .. } => "rollout-retemplate",
            Step::Pace { .. } => "rollout-pace",
            Step::CreateProbe => "rollout-create-probe",
            Step::DropProbe { .. } => "rollout-drop-probe",
            Step::Pin { .. } => "rollout-pin",
            Step::SetApart { .. } => "rollout-set-apart",
            Step::DropApart { .. } => "rollout-drop-apart",
            Step::Autoscale { .. } => "rollout-autoscale",
            Step::Relabel { .. } => "rollout-relabel",
            Step::LetGo { .. } => "rollout-let-go",
            Step::Consume { .. } => "rollout-consume",
            Step::DropRollout { .. } => "rollout-drop-rollout",
        }
    }
}
