//! When was what first seen: flaws of a moment are told to nobody, and nobody is told twice.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Audit, Entry};
use crate::model::Id;

/// What tells one entry from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub code: &'static str,
    pub object: Id,
    pub value: String,
}

/// What stands after an audit.
#[derive(Default)]
pub struct Standing {
    /// Everything whose grace is over, in the audit's order.
    pub entries: Vec<Entry>,
    /// Those of them that were not standing before.
    pub new: Vec<Entry>,
    /// What stood before and is gone.
    pub gone: Vec<Key>,
}

/// Remembers from audit to audit. A new one (after a change of leader) begins every grace anew.
#[derive(Default)]
pub struct Ledger(BTreeMap<Key, Line>);

struct Line {
    since: Timestamp,
    told: bool,
    entry: Entry,
}

impl Ledger {
    /// Takes an audit in. What a rule found before stays while its question cannot be answered, but is not repaired.
    pub fn observe(&mut self, audit: Audit, now: Timestamp) -> Standing {
        let mut before = std::mem::take(&mut self.0);
        let mut standing = Standing::default();
        for entry in audit.entries {
            let key = entry.key();
            let old = before.remove(&key);
            let (since, told) = old.map_or((now, false), |l| (l.since, l.told));
            // A clock that was set back must not make anybody wait for ever.
            let since = since.min(now);
            let over = told || now.duration_since(since) >= entry.grace;
            if over {
                if !told {
                    standing.new.push(entry.clone());
                }
                standing.entries.push(entry.clone());
            }
            self.0.insert(key, Line { since, told: over, entry });
        }
        for (key, mut line) in before {
            if audit.unanswered.contains(key.code) {
                line.entry.repair = None;
                if line.told {
                    standing.entries.push(line.entry.clone());
                }
                self.0.insert(key, line);
            } else if line.told {
                standing.gone.push(key);
            }
        }
        standing.entries.sort_by(|a, b| b.level.cmp(&a.level).then_with(|| a.key().cmp(&b.key())));
        standing
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::model::Kind;
    use crate::rules::{Change, Level, Repair, find};

    fn audit(names: &[&str]) -> Audit {
        let entry = |name: &&str| {
            let object = Id { kind: Kind::ValidatingWebhook, namespace: "".into(), name: (*name).into() };
            Entry {
                rule: find("VW002").expect("a rule"),
                object: object.clone(),
                level: Level::Critical,
                value: "v".into(),
                what: String::new(),
                why: String::new(),
                fix: String::new(),
                grace: SignedDuration::from_secs(20),
                repair: Some(Repair { object, change: Change::Delete, says: String::new() }),
            }
        };
        Audit { entries: names.iter().map(entry).collect(), ..Audit::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn told(s: &Standing) -> (usize, usize, usize) {
        (s.entries.len(), s.new.len(), s.gone.len())
    }

    #[test]
    fn nobody_is_told_of_a_moment_and_nobody_twice() {
        let mut ledger = Ledger::default();
        assert_eq!(told(&ledger.observe(audit(&["a"]), at(0))), (0, 0, 0));
        assert_eq!(told(&ledger.observe(audit(&["a"]), at(19))), (0, 0, 0));
        assert_eq!(told(&ledger.observe(audit(&["a"]), at(20))), (1, 1, 0));
        assert_eq!(told(&ledger.observe(audit(&["a"]), at(30))), (1, 0, 0));
        assert_eq!(told(&ledger.observe(audit(&[]), at(40))), (0, 0, 1));
        // What comes back has to stand its grace again, and what goes within it was never there.
        assert_eq!(told(&ledger.observe(audit(&["a"]), at(50))), (0, 0, 0));
        assert_eq!(told(&ledger.observe(audit(&[]), at(60))), (0, 0, 0));
    }

    #[test]
    fn what_cannot_be_answered_stays_and_is_not_repaired() {
        let mut ledger = Ledger::default();
        ledger.observe(audit(&["a"]), at(0));
        ledger.observe(audit(&["a"]), at(20));
        let blind = Audit { unanswered: ["VW002"].into(), ..Audit::default() };
        let standing = ledger.observe(blind, at(30));
        assert_eq!(told(&standing), (1, 0, 0));
        assert!(standing.entries[0].repair.is_none());
        assert_eq!(told(&ledger.observe(audit(&[]), at(40))), (0, 0, 1));
    }

    #[test]
    fn a_clock_that_goes_back_delays_nothing_for_ever() {
        let mut ledger = Ledger::default();
        ledger.observe(audit(&["a"]), at(1000));
        ledger.observe(audit(&["a"]), at(0));
        assert_eq!(told(&ledger.observe(audit(&["a"]), at(20))), (1, 1, 0));
    }
}
