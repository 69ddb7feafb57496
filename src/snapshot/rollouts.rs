//! Which gateways are on their way to another revision, in whose hands a Deployment is, and which revisions that needs.

use super::{Known, Snapshot};
use crate::model::{Kind, Labels, Object, RevisionName, Role, Rollout, RolloutTarget};

impl Snapshot {
    pub fn rollouts(&self) -> Known<impl Iterator<Item = &Rollout>> {
        self.knows(Kind::GatewayRollout, None)?;
        Ok(self.raw(Kind::GatewayRollout).filter_map(as_rollout))
    }

    pub fn rollouts_in<'a>(&'a self, namespace: &'a str) -> Known<impl Iterator<Item = &'a Rollout>> {
        self.knows(Kind::GatewayRollout, None)?;
        Ok(self.raw_in(Kind::GatewayRollout, namespace).filter_map(as_rollout))
    }

    /// The rollout that has a Deployment in its hands, and what the Deployment is to it.
    pub fn in_hands<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        labels: &'a Labels,
    ) -> Known<Option<(&'a Rollout, Role)>> {
        let mut active = self.rollouts_in(namespace)?.filter(|r| r.is_active());
        Ok(active.find_map(|r| Some((r, r.role(name, labels)?))))
    }

    /// Rollouts that need a revision: those under way both of theirs, those that can still go back the old one.
    pub fn rollouts_with(&self, revision: &RevisionName) -> Known<Vec<&Rollout>> {
        let is = |name: Option<&str>| name.is_some_and(|n| RevisionName::new(n) == *revision);
        let needs = |r: &&Rollout| {
            let from = is(r.from.as_deref()) && (r.is_active() || r.can_go_back());
            from || is(Some(&r.to)) && r.is_active()
        };
        Ok(self.rollouts()?.filter(needs).collect())
    }

    /// The two move the same gateway, or one moves what the other has made.
    pub fn is_same_gateway(&self, one: &Rollout, other: &Rollout) -> bool {
        if one.meta.namespace != other.meta.namespace || one.target == RolloutTarget::Unclear {
            return false;
        }
        let made = |maker: &Rollout, user: &Rollout| {
            let Some(name) = user.deployment() else { return false };
            let found = self.workload(Kind::Deployment, &user.meta.namespace, name);
            found.is_some_and(|w| maker.role(name, &w.meta.labels).is_some())
        };
        one.target == other.target || made(one, other) || made(other, one)
    }
}

fn as_rollout(object: &Object) -> Option<&Rollout> {
    match object {
        Object::Rollout(r) => Some(r),
        _ => None,
    }
}
