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
