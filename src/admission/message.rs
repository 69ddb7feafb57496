//! The text a person reads: denials of four lines, warnings of one.

use crate::rules::allow::Standing;
use crate::rules::{Judged, Verdict};

/// Longest warning. The API server drops nothing below 256 characters, and a terminal shows this much.
pub const MAX_WARNING: usize = 120;

/// The whole denial; empty if nothing is denied.
pub fn denial(verdict: &Verdict) -> String {
    verdict.denied().map(block).collect::<Vec<_>>().join("\n")
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
