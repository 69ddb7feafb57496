//! A GatewayRollout as rules read it: which gateway it moves where, how far it has come, what of it can still be edited.
//!
//! What the controller reads of it is `api`'s; here nothing is planned.

use super::{Labels, Meta, Str, key};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    pub meta: Meta,
    /// Empty before the API server has given one.
    pub uid: Str,
    pub target: RolloutTarget,
    /// The revision that it moves away from: as asked for, else as observed; `None` while neither is known.
    pub from: Option<Str>,
    pub to: Str,
    pub steps: Vec<RolloutStep>,
    /// Parts of the spec that are decided once it is under way, and how they are decided: [`Rollout::FIXED`].
    pub fixed: Vec<(&'static str, Str)>,
    /// Somebody else scales: `capacity.mode: Manual`.
    pub manual: bool,
    /// How it ends, as decided once that is decided.
    pub promotion: Str,
    pub dry_run: bool,
    pub abort: bool,
    pub state: RolloutState,
    /// The step that it is at, from 0; `None` before the first.
    pub step: Option<u32>,
    /// Services of the gateway: those that it began with, else those that the spec names.
    pub services: Vec<Str>,
    /// `services` are those that it began with.
    pub noted: bool,
    /// Condition `RollbackAvailable`.
    pub way_back: bool,
}

/// The gateway that is moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RolloutTarget {
    /// Neither, or both: the API server refuses that.
    #[default]
    Unclear,
    Deployment(Str),
    /// A Gateway API Gateway.
    Gateway(Str),
}

/// A step, and all of it that matters in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutStep {
    pub name: Str,
    /// `weight 25, soak 10m`.
    pub what: Str,
    /// Somebody has to approve it.
    pub approval: bool,
}

/// How far it has come, as far as others have to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RolloutState {
    /// Nothing was changed yet.
    #[default]
    Waiting,
    /// It has the gateway in its hands.
    Active,
    /// It has, and the original Deployment is to get the new revision.
    Promoting,
    /// It has, and moves back to the old revision.
    RollingBack,
    Completed,
    /// It went back, or failed.
    Ended,
}

/// What a Deployment is to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that the rollout names.
    Source,
    /// Its own, on the new revision.
    Canary,
    /// Its own, on the old revision, for the way back.
    Standby,
}

impl Rollout {
    /// Decided when it starts, the promotion when it promotes.
    pub const FIXED: [&'static str; 5] =
        ["strategy.type", "strategy.capacity", "strategy.promotion", "flavor", "services"];

    /// The gateway is in its hands.
    pub fn is_active(&self) -> bool {
        matches!(self.state, RolloutState::Active | RolloutState::Promoting | RolloutState::RollingBack)
    }

    /// Nothing follows by itself.
    pub fn is_over(&self) -> bool {
        matches!(self.state, RolloutState::Completed | RolloutState::Ended)
    }

    /// It has completed and can still be taken back.
    pub fn can_go_back(&self) -> bool {
        self.state == RolloutState::Completed && self.way_back && !self.meta.deleting
    }

    /// The revision to which whoever owns the original is asked to bring it now, or may be in a moment; `None`: nobody is.
    pub fn awaited(&self) -> Option<&str> {
        if !matches!(self.promotion.as_str(), "AwaitExternal" | "Auto") {
            return None;
        }
        match self.state {
            RolloutState::Promoting => Some(&self.to),
            RolloutState::RollingBack => self.from.as_deref(),
            _ => None,
        }
    }

    /// The Deployment that it moves.
    pub fn deployment(&self) -> Option<&Str> {
        match &self.target {
            RolloutTarget::Deployment(name) => Some(name),
            _ => None,
        }
    }

    /// What a Deployment of its namespace is to it. Its own are told by their label as well: whatever else has such a name is
    /// somebody else's.
    pub fn role(&self, name: &str, labels: &Labels) -> Option<Role> {
        let source = self.deployment()?;
        if source == name {
            return Some(Role::Source);
        }
        if self.uid.is_empty() || !labels.is(key::ROLLOUT, &self.uid) {
            return None;
        }
        let revision = name.strip_prefix(source.as_str())?.strip_prefix('-')?;
        if revision == self.to.as_str() {
            Some(Role::Canary)
        } else {
            (self.from.as_deref() == Some(revision)).then_some(Role::Standby)
        }
    }
}
