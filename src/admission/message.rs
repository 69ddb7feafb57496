//! The text a person reads: denials of four lines, warnings of one.

use crate::rules::allow::Standing;
use crate::rules::stale::{Means, Old};
use crate::rules::{Judged, Verdict};

/// Longest warning. The API server drops nothing below 256 characters, and a terminal shows this much.
pub const MAX_WARNING: usize = 120;

/// The whole denial; empty if nothing is denied.
pub fn denial(verdict: &Verdict) -> String {
    let mut blocks: Vec<String> = verdict.denied().map(block).collect();
    if let Some(old) = verdict.stale.filter(|_| verdict.is_too_old()) {
        blocks.push(too_old(&old));
    }
    blocks.join("\n")
}

/// The view is too old to say yes.
fn too_old(old: &Old) -> String {
    format!(
        "[stale-view] {old}, so nobody can say that this write is right.\n  why:   policy stale refuses what is judged by \
         a view of that age.\n  fix:   kubectl get --raw /readyz\n         try again when the API server answers watches; \
         revguard_watch_errors_total says what it did not\n  more:  docs/policy.md, A view that is old"
    )
}

/// One finding in four parts.
pub fn block(judged: &Judged) -> String {
    let (rule, f) = (judged.rule, &judged.finding);
    let fix = f.fix.text().replace('\n', "\n         ");
    format!(
        "[{} {}] {}\n  why:   {}\n  fix:   {}\n  more:  revguard explain {}",
        rule.code, rule.name, f.what, f.why, fix, rule.code
    )
}

/// Warnings, one line each, without control characters: the API server silently drops those that have some.
pub fn warnings(verdict: &Verdict) -> Vec<String> {
    let mut lines = Vec::new();
    for j in &verdict.judged {
        match &j.exemption {
            Some(Standing::Holds(reason)) if j.action == crate::rules::Action::Warn => {
                lines.push(line(&format!("[{}] allowed by annotation: {reason}; {}", j.rule.code, j.finding.what)));
                continue;
            }
            Some(Standing::Void(why)) => lines.push(line(&format!("[{}] {why}", j.rule.code))),
            _ => {}
        }
        if j.action == crate::rules::Action::Warn {
            lines.push(line(&format!("[{} {}] {}", j.rule.code, j.rule.name, j.finding.what)));
        }
    }
    if let Some(old) = verdict.stale.filter(|old| old.means == Means::Warn) {
        lines.push(line(&format!("[stale-view] {old}: findings only warn")));
    }
    lines.dedup();
    lines
}

/// Cuts at a word, and says so.
fn line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() <= MAX_WARNING {
        return text;
    }
    let room: String = text.chars().take(MAX_WARNING - 1).collect();
    let cut = room.rfind(' ').unwrap_or(room.len());
    format!("{}…", room[..cut].trim_end_matches([',', ';', ':', ' ']))
}
