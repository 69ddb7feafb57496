//! What an old view means: per group of rules the policy says deny, warn, or allow and annotate.
//!
//! A view is old when nothing was heard of a kind, neither a change nor a bookmark, for longer than the policy's age. A
//! rule that looked at such a kind may be wrong in both directions, so the policy caps its findings and decides about the
//! write as a whole.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::{Action, Rule};
use crate::model::Kind;

/// `stale` of the policy.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Stale {
    /// From when on a kind is stale.
    pub age: Age,
    pub namespaces: Means,
    pub workloads: Means,
    pub gateways: Means,
    pub control_plane: Means,
    pub config: Means,
}

/// What it means that a rule looked at a kind that is stale.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Means {
    /// Findings are recorded, nobody is told.
    Allow,
    /// Findings warn at most, and the writer is told that the view is old.
    #[default]
    Warn,
    /// Findings stand, and a write of which it cannot be said that it is right is refused.
    Deny,
}

impl Means {
    pub const fn as_str(self) -> &'static str {
        match self {
            Means::Allow => "allow",
            Means::Warn => "warn",
            Means::Deny => "deny",
        }
    }

    /// The furthest that a finding of such a rule may go.
    pub fn most(self) -> Action {
        match self {
            Means::Allow => Action::Audit,
            Means::Warn => Action::Warn,
            Means::Deny => Action::Deny,
        }
    }

    fn at_most(action: Action) -> Means {
        match action {
            Action::Audit => Means::Allow,
            Action::Warn => Means::Warn,
            Action::Deny => Means::Deny,
        }
    }
}

/// How old a view may be.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Age(pub SignedDuration);

/// Bookmarks come about once a minute, and a watch that is silent is given up only after two of them and more: a healthy
/// view is up to 80 s old, one that recovers from a lost connection by itself up to 165 s.
const LEAST: SignedDuration = SignedDuration::from_mins(3);

impl Default for Age {
    fn default() -> Self {
        Age(SignedDuration::from_mins(5))
    }
}

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let age: SignedDuration =
            text.parse().map_err(|_| format!("stale.age: {text:?} is no duration; write 5m, 300s or 1h"))?;
        if age < LEAST {
            return Err(format!(
                "stale.age: {text} is less than 3m. The API server says that nothing has changed about once a minute, and \
                 a watch that went silent is renewed after 165 s: a smaller age would call a healthy view stale"
            ));
        }
        Ok(Age(age))
    }
}

/// A stale kind that a rule has looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    pub kind: Kind,
    pub age: SignedDuration,
    pub limit: SignedDuration,
    pub means: Means,
}

impl Stale {
    fn means(&self, rule: &Rule) -> Means {
        match &rule.code[..2] {
            "NS" => self.namespaces,
            "WL" => self.workloads,
            "GW" | "GR" => self.gateways,
            "CF" => self.config,
            _ => self.control_plane,
        }
    }

    /// For a rule that may do so much at most: a stale view never means more than that.
    pub fn of_rule(&self, rule: &Rule, most: Action) -> OfRule<'_> {
        OfRule { stale: self, means: self.means(rule).min(Means::at_most(most)) }
    }
}

/// The part of the policy that concerns one rule.
pub struct OfRule<'a> {
    stale: &'a Stale,
    means: Means,
}

impl OfRule<'_> {
    /// What it means that the rule looked at a kind that was last heard of then; `None`: it is not stale.
    pub fn judge(&self, kind: Kind, heard: Timestamp, now: Timestamp) -> Option<Old> {
        let (age, limit) = (now.duration_since(heard), self.stale.age.0);
        (age > limit).then_some(Old { kind, age, limit, means: self.means })
    }
}

impl std::fmt::Display for Old {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = crate::wire::row(self.kind).plural;
        write!(f, "the view of {plural} is {} old (the policy allows {})", Rough(self.age), Rough(self.limit))
    }
}

/// `7m12s`.
struct Rough(SignedDuration);

impl std::fmt::Display for Rough {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0, s) => write!(f, "{s}s"),
            (0, m, 0) => write!(f, "{m}m"),
            (0, m, s) => write!(f, "{m}m{s}s"),
            (h, 0, _) => write!(f, "{h}h"),
            (h, m, _) => write!(f, "{h}h{m}m"),
        }
    }
}
