//! What a rollout calls the objects that it makes: one place, so that whoever looks for them and whoever makes them agree.

use std::sync::Arc;

/// The longest name of a Service or of anything that becomes a label's value.
pub const LONGEST: usize = 63;

/// The value of the apart key on a pod that was set apart. No Service selects it.
pub const APART: &str = "revguard-apart";

/// Names of one rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The second Deployment.
    pub canary: Arc<str>,
    /// What keeps the old template once the original has the new one; `None` while it is not known what it comes from.
    pub standby: Option<Arc<str>>,
    /// The dark probe pod.
    pub probe: Arc<str>,
    /// In the second Deployment's selector: tells its pods from the original's.
    pub instance: Arc<str>,
    /// The same of the standby.
    pub standby_instance: Option<Arc<str>>,
}

impl Names {
    /// Of the rollout with this uid, which moves `gateway` to the revision `to`.
    pub fn of(gateway: &str, from: Option<&str>, to: &str, uid: &str) -> Names {
        let short: String = uid.chars().take(8).collect();
        Names {
            canary: Arc::from(format!("{gateway}-{to}")),
            standby: from.map(|from| Arc::from(format!("{gateway}-{from}"))),
            probe: Arc::from(format!("{gateway}-probe-{short}")),
            instance: Arc::from(format!("{short}-{to}")),
            standby_instance: from.map(|from| Arc::from(format!("{short}-{from}"))),
        }
    }

    /// Those that the API server, or a label that has to carry them, would refuse.
    pub fn too_long(&self) -> impl Iterator<Item = &Arc<str>> {
        let always = [&self.canary, &self.probe, &self.instance].map(Some);
        let all = always.into_iter().chain([self.standby.as_ref(), self.standby_instance.as_ref()]);
        all.flatten().filter(|name| name.len() > LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_gateway_and_the_revisions() {
        let names = Names::of("igw", Some("1-23"), "1-24", "845e7a80-6db4-415b");
        assert_eq!((&*names.canary, names.standby.as_deref()), ("igw-1-24", Some("igw-1-23")));
        assert_eq!((&*names.probe, &*names.instance), ("igw-probe-845e7a80", "845e7a80-1-24"));
        assert_eq!(names.too_long().count(), 0);
        let names = Names::of(&"g".repeat(59), None, "1-24", "845e7a80");
        assert_eq!(names.too_long().count(), 2, "the canary's and the probe's");
        let names = Names::of("igw", Some(&"r".repeat(55)), "1-24", "845e7a80");
        assert_eq!(names.too_long().count(), 1, "a label's value, although the Deployment's name is short enough");
    }
}
