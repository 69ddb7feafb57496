//! Guards: what stands against moving a gateway, told before anything is changed.
//!
//! One family of guards a file, each guard a name, one line of documentation and one function of a [`Scene`]. A guard looks at objects
//! that exist, says what it sees, what would come of it, and a fix that works when pasted. `spec.acknowledge` turns findings of a
//! guard into warnings where that is sane; where it is not, the guard says so and goes on blocking.

mod budgets;
mod config;
mod drain;
mod injection;
mod names;
mod owners;
mod planes;
mod pods;
mod room;
mod scaling;
mod scene;
mod selectors;
mod services;
mod target;
mod unread;
mod validators;

use std::sync::LazyLock;

pub use injection::wrongly_injected;
pub use scene::Scene;

use crate::rollout::seen::{Finding, Severity};

/// One guard.
#[derive(Debug)]
pub struct Guard {
    /// As `spec.acknowledge` and the label `guard` of metrics name it.
    pub name: &'static str,
    /// What it finds, in one line.
    pub summary: &'static str,
    /// Its findings never do more than that.
    pub worst: Severity,
    /// Its findings can be accepted.
    pub acknowledge: bool,
    check: fn(&Scene<'_>) -> Vec<Found>,
}

impl Guard {
    /// What `revguard explain` prints.
    pub fn doc(&self) -> String {
        let says = match (self.worst, self.acknowledge) {
            (Severity::Warn, _) => "It warns, and never holds a rollout.".to_owned(),
            (Severity::Block, true) => {
                format!(
                    "It holds a rollout in Preflight until it is gone, or accepted: `spec.acknowledge: [{}]`.",
                    self.name
                )
            }
            (Severity::Block, false) => {
                "It holds a rollout in Preflight until it is gone; it cannot be accepted.".to_owned()
            }
        };
        format!(
            "# Guard {}\n\n{}.\n\n{says}\n\n`revguard plan -f FILE` and `status.preflight` tell what it finds, and the fix.",
            self.name,
            capitalised(self.summary)
        )
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// What a guard has found, without its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    severity: Severity,
    object: String,
    what: String,
    why: String,
    fix: String,
}

impl Found {
    fn block(object: impl Into<String>) -> Words {
        Words { severity: Severity::Block, object: object.into() }
    }

    fn warn(object: impl Into<String>) -> Words {
        Words { severity: Severity::Warn, object: object.into() }
    }
}

/// A finding whose words are still to come, so that none is forgotten.
struct Words {
    severity: Severity,
    object: String,
}

impl Words {
    fn says(self, what: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Found {
        Found { severity: self.severity, object: self.object, what: what.into(), why: why.into(), fix: fix.into() }
    }
}

const FAMILIES: [&[Guard]; 15] = [
    target::GUARDS,
    names::GUARDS,
    selectors::GUARDS,
    services::GUARDS,
    scaling::GUARDS,
    budgets::GUARDS,
    pods::GUARDS,
    config::GUARDS,
    injection::GUARDS,
    planes::GUARDS,
    validators::GUARDS,
    owners::GUARDS,
    drain::GUARDS,
    room::GUARDS,
    unread::GUARDS,
];

/// All guards, sorted by name.
pub static GUARDS: LazyLock<Vec<&'static Guard>> = LazyLock::new(|| {
    let mut all: Vec<&Guard> = FAMILIES.iter().flat_map(|family| family.iter()).collect();
    all.sort_by_key(|g| g.name);
    all
});

/// The guard of a name, whatever its case.
pub fn find(name: &str) -> Option<&'static Guard> {
    GUARDS.iter().find(|g| g.name.eq_ignore_ascii_case(name)).copied()
}

/// Everything that stands against a rollout: what blocks first, then by guard and object.
pub fn check(scene: &Scene<'_>) -> Vec<Finding> {
    let accepted = &scene.seen.rollout.spec.acknowledge;
    let mut all: Vec<Finding> = GUARDS
        .iter()
        .flat_map(|guard| {
            let accepts = guard.acknowledge && accepted.iter().any(|name| name == guard.name);
            (guard.check)(scene).into_iter().map(move |f| finding(guard, f, accepts))
        })
        .collect();
    all.sort_by(|a, b| (a.severity, a.guard, &a.object, &a.what).cmp(&(b.severity, b.guard, &b.object, &b.what)));
    all.dedup();
    all
}

fn finding(guard: &Guard, found: Found, accepts: bool) -> Finding {
    Finding {
        guard: guard.name,
        severity: if accepts { Severity::Warn } else { found.severity.max(guard.worst) },
        object: found.object,
        what: found.what,
        why: found.why,
        fix: found.fix,
    }
}

/// The page that lists them.
pub fn docs() -> String {
    let mut out = String::from(
        "# Guards of a gateway rollout\n\nWhat is looked at before a GatewayRollout changes anything, and while it waits in `Preflight`. \
         `Block` holds it until the finding is gone; it goes on by itself then. `Warn` only tells. A guard that can be acknowledged \
         warns instead of blocking when its name stands in `spec.acknowledge`.\n\n| guard | at worst | acknowledge | what it finds |\n\
         |---|---|---|---|\n",
    );
    for guard in GUARDS.iter() {
        let (worst, accept) = match (guard.worst, guard.acknowledge) {
            (Severity::Warn, _) => ("Warn", "–"),
            (Severity::Block, true) => ("Block", "yes"),
            (Severity::Block, false) => ("Block", "no"),
        };
        out.push_str(&format!("| `{}` | {worst} | {accept} | {} |\n", guard.name, guard.summary));
    }
    out
}
