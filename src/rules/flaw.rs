//! What is wrong with what exists, and how the controller may mend it.

use std::borrow::Cow;

use jiff::SignedDuration;

use super::Patch;
use crate::model::{Id, Kind};

/// How bad it is that something exists as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Info,
    Warning,
    Error,
    /// Something fails already, or will with the next write or the next pod.
    Critical,
}

impl Level {
    pub const ALL: [Level; 4] = [Level::Info, Level::Warning, Level::Error, Level::Critical];

    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
            Level::Critical => "critical",
        }
    }
}

/// One thing that exists and is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub level: Level,
    /// The object to blame.
    pub object: Id,
    /// The offending value. Rule, object and value tell one flaw from another over time.
    pub value: String,
    /// One sentence with names and values.
    pub what: String,
    /// What happens if it stays.
    pub why: Cow<'static, str>,
    /// A command that works when pasted; further lines explain.
    pub fix: String,
    /// It must stand for so long before anybody is told: an installation writes its objects one after the other.
    pub grace: SignedDuration,
    /// What the controller does about it where policy allows.
    pub repair: Option<Repair>,
}

impl Flaw {
    /// Begins a flaw; its words are still to come, so that none of them is forgotten.
    pub fn of(level: Level, object: Id, value: impl Into<String>) -> Draft {
        Draft { level, object, value: value.into(), grace: INSTALLING }
    }

    #[must_use]
    pub fn with(mut self, repair: Option<Repair>) -> Flaw {
        self.repair = repair;
        self
    }
}

/// Installers write one object after the other, and an istiod takes its time to start.
pub const INSTALLING: SignedDuration = SignedDuration::from_secs(60);

/// A flaw without words.
pub struct Draft {
    level: Level,
    object: Id,
    value: String,
    grace: SignedDuration,
}

impl Draft {
    /// Another grace than an installation's.
    #[must_use]
    pub fn after(mut self, seconds: i64) -> Draft {
        self.grace = SignedDuration::from_secs(seconds);
        self
    }

    pub fn says(self, what: impl Into<String>, why: impl Into<Cow<'static, str>>, fix: impl Into<String>) -> Flaw {
        Flaw {
            level: self.level,
            object: self.object,
            value: self.value,
            what: what.into(),
            why: why.into(),
            fix: fix.into(),
            grace: self.grace,
            repair: None,
        }
    }
}

/// One write that mends a flaw. It is carried out with the object's uid and resourceVersion as precondition, so that
/// what changed since it was looked at is looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    pub object: Id,
    pub change: Change,
    /// What it does, in one sentence, for the Event.
    pub says: String,
}

/// What a repair writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Operations on the object as the API server holds it. The inverse is kept in an annotation, which undoes it.
    Patch(Vec<Patch>),
    /// Removes a leftover. A copy is kept, from which it can be put back.
    Delete,
    /// Makes what is missing, as a whole manifest.
    Create(serde_json::Value),
}

/// The kinds that repairs may write. The controller's access is made from this list.
pub const REPAIRED: [Kind; 3] = [Kind::MutatingWebhook, Kind::ValidatingWebhook, Kind::Service];
