//! What became of reviews, by day, rule and writer: for the question what enforcing a rule would have stopped.
//!
//! Kept in memory and bounded, because user names are no label of a metric and nothing may be written on the way of a
//! request. The controller collects it from the probe port of every replica.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Mutex, MutexGuard};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// Days that are kept: a week, and the day that has begun.
pub const DAYS: usize = 8;
/// Writers a day; whoever comes later is one of the others.
pub const WRITERS: usize = 40;
/// Lines in all. A line is about a hundred bytes, and the controller keeps those of every replica in one object.
pub const LINES: usize = 800;
/// Who is one too many.
pub const OTHERS: &str = "others";
/// Names of users are cut here; they may be as long as a certificate lets them be.
const LONGEST_NAME: usize = 128;

/// What came of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The write was refused.
    Denied,
    /// It passed, and would have been refused in mode enforce.
    WouldDeny,
    /// It passed because of an exemption.
    Exempted,
    /// It passed with a warning, or without a word.
    Warned,
}

/// One line of the tally.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Line {
    pub day: String,
    pub code: String,
    pub writer: String,
    pub end: End,
}

/// A line and its count, as the probe port gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    #[serde(flatten)]
    pub line: Line,
    pub count: u64,
}

/// Everything that a process has counted since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Tells this process from the one before it in the same pod.
    pub process: String,
    pub counts: Vec<Count>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Tally {
    process: String,
    lines: Mutex<BTreeMap<Line, u64>>,
}

impl Default for Tally {
    fn default() -> Self {
        let dice = std::hash::RandomState::new().build_hasher().finish();
        Tally { process: format!("{dice:016x}"), lines: Mutex::default() }
    }
}

impl Tally {
    /// Counts one finding.
    pub fn count(&self, day: Date, code: &str, writer: &str, end: End) {
        let writer: String = writer.chars().take(LONGEST_NAME).collect();
        add(&mut self.lock(), Line { day: day.to_string(), code: code.to_owned(), writer, end }, 1);
    }

    /// Everything so far.
    pub fn page(&self) -> Page {
        Page { process: self.process.clone(), counts: counts(&self.lock()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Line, u64>> {
        self.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Lines as a list.
pub fn counts(lines: &BTreeMap<Line, u64>) -> Vec<Count> {
    lines.iter().map(|(line, count)| Count { line: line.clone(), count: *count }).collect()
}

/// Adds to a line within the bounds: days go oldest first, writers and lines beyond their number become others.
pub fn add(lines: &mut BTreeMap<Line, u64>, mut line: Line, count: u64) {
    if let Some(known) = lines.get_mut(&line) {
        *known += count;
        return;
    }
    let mut days: Vec<&str> = lines.keys().map(|l| l.day.as_str()).collect();
    days.dedup();
    if !days.contains(&line.day.as_str()) && days.len() >= DAYS {
        let oldest = days[0].to_owned();
        if line.day < oldest {
            return;
        }
        lines.retain(|l, _| l.day != oldest);
    }
    let mut writers: Vec<&str> = lines.keys().filter(|l| l.day == line.day).map(|l| l.writer.as_str()).collect();
    writers.sort_unstable();
    writers.dedup();
    let new = !writers.contains(&line.writer.as_str());
    if new && writers.len() >= WRITERS || lines.len() >= LINES {
        OTHERS.clone_into(&mut line.writer);
    }
    // One line a day, rule and end more than the bound at most: codes and ends are closed sets.
    *lines.entry(line).or_default() += count;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_and_days_are_bounded_and_nothing_is_lost() {
        let tally = Tally::default();
        let day = |d| jiff::civil::date(2026, 1, 1).checked_add(jiff::Span::new().days(d)).unwrap();
        for i in 0..10_000 {
            tally.count(day(1), "NS001", &format!("user-{i}"), End::Denied);
        }
        let page = tally.page();
        assert_eq!(page.counts.len(), WRITERS + 1);
        assert_eq!(page.counts.iter().map(|c| c.count).sum::<u64>(), 10_000);
        let others = page.counts.iter().find(|c| c.line.writer == OTHERS).unwrap();
        assert_eq!(others.count, 10_000 - WRITERS as u64);
        for d in 1..60 {
            tally.count(day(d), "NS001", "jane", End::WouldDeny);
        }
        let page = tally.page();
        let mut days: Vec<&str> = page.counts.iter().map(|c| c.line.day.as_str()).collect();
        days.dedup();
        assert_eq!((days.len(), days[DAYS - 1]), (DAYS, "2026-03-01"));
        tally.count(day(1), "NS001", "jane", End::Denied);
        assert_eq!(tally.page(), page, "what is older than all that is kept is not kept");
        let text = serde_json::to_string(&page).unwrap();
        assert_eq!(serde_json::from_str::<Page>(&text).unwrap(), page);
        assert!(text.contains(r#""end":"would-deny","count":1"#), "{text}");
    }
}
