//! What exists, judged as a whole and without a write: findings about every object, flaws of the mesh, who uses which
//! revision. Pure; the controller and the command line carry its answers out.

pub mod guard;
pub mod inventory;
pub mod ledger;
pub mod report;
mod scan;
pub mod uninstall;

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::model::{Id, Meta, Object, key};
use crate::rules::allow::{self, Standing};
use crate::rules::policy::RuleAction;
use crate::rules::{Check, Flaw, Level, Policy, RULES, Repair, Rule};
use crate::snapshot::{Snapshot, Unknown};

pub use inventory::{Inventory, inventory};
pub use ledger::{Key, Ledger};

/// Installations, upgrades and GitOps write one object after the other: what is wrong in between is nobody's business.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Everything that is wrong with what exists, and what could not be looked at.
#[derive(Default)]
pub struct Audit {
    /// Sorted by level (worst first), code, object and value; each only once.
    pub entries: Vec<Entry>,
    pub unknown: Vec<Unknown>,
    pub exemptions: Vec<Exemption>,
    /// Rules whose question could not be answered. That they found nothing means nothing.
    pub unanswered: BTreeSet<&'static str>,
}

/// One thing that is wrong, whichever way it was found.
#[derive(Clone)]
pub struct Entry {
    pub rule: &'static Rule,
    pub object: Id,
    pub level: Level,
    /// Rule, object and value tell one entry from another over time.
    pub value: String,
    pub what: String,
    pub why: String,
    pub fix: String,
    /// It must stand for so long before anybody is told.
    pub grace: SignedDuration,
    /// Only where policy allows it and the object is not annotated `revguard.dev/repair: off`.
    pub repair: Option<Repair>,
}

/// One entry of an annotation `revguard.dev/allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exemption {
    pub object: Id,
    pub code: String,
    pub reason: String,
    /// Last day on which it holds, in UTC.
    pub until: Option<Date>,
    /// Why it does nothing, if it does nothing.
    pub void: Option<String>,
}

impl Exemption {
    /// The first moment at which it no longer holds; `None` if that never comes.
    pub fn expires(&self) -> Option<Timestamp> {
        let day = self.until?.tomorrow().ok()?;
        Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp())
    }
}

/// Judges everything that exists: the mesh as a whole, then every object as if it were created now.
pub fn run(policy: &Policy, snapshot: &Snapshot, now: Timestamp) -> Audit {
    let today = now.to_zoned(TimeZone::UTC).date();
    let mut audit = Audit::default();
    for rule in RULES.iter().filter(|r| policy.rules.get(r.code) != Some(&RuleAction::Off)) {
        for check in rule.checks {
            let Check::Audit(check) = check else { continue };
            match check(snapshot, policy) {
                Ok(flaws) => {
                    let entries = flaws.into_iter().filter_map(|flaw| entry(rule, flaw, policy, snapshot, today));
                    audit.entries.extend(entries);
                }
                Err(unknown) => {
                    audit.unanswered.insert(rule.code);
                    audit.unknown.push(unknown);
                }
            }
        }
    }
    scan::objects(policy, snapshot, now, &mut audit);
    audit.entries.sort_by(|a, b| b.level.cmp(&a.level).then_with(|| a.key().cmp(&b.key())));
    audit.entries.dedup_by(|a, b| a.key() == b.key());
    audit.unknown.sort_by_key(|u| (u.kind, u.to_string()));
    audit.unknown.dedup();
    audit
}

impl Entry {
    pub fn key(&self) -> Key {
        Key { code: self.rule.code, object: self.object.clone(), value: self.value.clone() }
    }
}

/// A flaw as policy, exemptions and the owner of the object want it.
fn entry(rule: &'static Rule, flaw: Flaw, policy: &Policy, snapshot: &Snapshot, today: Date) -> Option<Entry> {
    let blamed = snapshot.get(flaw.object.kind, &flaw.object.namespace, &flaw.object.name).map(Object::meta);
    if blamed.is_some_and(|m| m.deleting) {
        return None;
    }
    let mut level = match policy.rules.get(rule.code) {
        Some(RuleAction::Warn) => flaw.level.min(Level::Warning),
        Some(RuleAction::Audit) => Level::Info,
        _ => flaw.level,
    };
    let exempt = blamed.is_some_and(|m| holds(m, rule, today));
    if exempt {
        level = Level::Info;
    }
    let repair = flaw.repair.filter(|r| !exempt && policy.repairs(rule.code) && !is_left_alone(snapshot, &r.object));
    Some(Entry {
        rule,
        object: flaw.object,
        level,
        value: flaw.value,
        what: flaw.what,
        why: flaw.why.into_owned(),
        fix: flaw.fix,
        grace: flaw.grace,
        repair,
    })
}

fn holds(meta: &Meta, rule: &Rule, today: Date) -> bool {
    let own = allow::parse(&meta.annotations);
    own.iter().any(|e| e.code == rule.code && matches!(e.standing(today), Standing::Holds(_)))
}

/// Somebody wants no repair of this object, or a repair of it is being undone.
fn is_left_alone(snapshot: &Snapshot, id: &Id) -> bool {
    let meta = snapshot.get(id.kind, &id.namespace, &id.name).map(Object::meta);
    meta.is_some_and(|m| m.annotations.has(key::REPAIR))
}
