//! The table of what exists: every file under `tests/audit`, and what carrying the repairs out comes to.
//!
//! `UPDATE=1` rewrites the golden texts, never the expected lines. `CASE=part-of-a-path` runs only those.

#[path = "audit_table/mod.rs"]
mod audit_table;

use std::collections::BTreeSet;

use audit_table::{Case, World, folder, line, text};
use revguard::rules::policy::RuleAction;
use revguard::rules::{Check, Level, Policy, RULES, Rule};

fn auditing() -> impl Iterator<Item = &'static Rule> {
    let audits = |r: &&Rule| r.checks.iter().all(|c| matches!(c, Check::Audit(_)));
    RULES.iter().copied().filter(audits)
}

#[test]
fn every_case_says_what_is_expected() {
    let mut failures = Vec::new();
    let all = Case::all();
    for case in &all {
        let audit = case.audit();
        let mut expected = case.head.expect.clone();
        expected.sort();
        let mut found: Vec<String> = audit.entries.iter().map(line).collect();
        found.sort();
        let got = text(&audit);
        if expected != found {
            failures
                .push(format!("{}: {}\n  expected {expected:#?}\n  got {found:#?}\n{got}", case.path, case.head.case));
            continue;
        }
        let golden = folder().join(&case.path).with_extension("txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&golden, &got).unwrap();
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        if wanted != got {
            failures.push(format!("{}:\n--- golden\n{wanted}--- got\n{got}", case.path));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), all.len(), failures.join("\n"));
}

#[test]
fn every_rule_finds_something_and_lets_near_misses_be() {
    for rule in auditing() {
        let own: Vec<Case> = Case::all().into_iter().filter(|c| c.rule() == rule.code).collect();
        let speaks = |c: &&Case| c.head.expect.iter().any(|e| e.starts_with(rule.code));
        let (loud, quiet) = (own.iter().filter(speaks).count(), own.iter().filter(|c| !speaks(c)).count());
        assert!(loud >= 1, "{}: no flawed world", rule.code);
        assert!(quiet >= 2, "{}: needs a clean world and a near miss, has {quiet}", rule.code);
    }
}

#[test]
fn a_rule_switched_off_says_nothing() {
    for case in Case::all() {
        let codes: BTreeSet<String> =
            case.head.expect.iter().filter_map(|e| e.split(' ').next().map(str::to_owned)).collect();
        for code in codes {
            let mut policy = case.policy.clone();
            policy.rules.insert(code.clone(), RuleAction::Off);
            let left = case.world.audit(&policy);
            assert!(left.entries.iter().all(|e| e.rule.code != code), "{}: {code} is off", case.path);
        }
    }
}

#[test]
fn without_a_policy_nothing_is_repaired() {
    for case in Case::all() {
        let audit = case.world.audit(&Policy::default());
        assert!(audit.entries.iter().all(|e| e.repair.is_none()), "{}", case.path);
    }
}

/// Repairs until none is offered. No world may come back, and in the end there is no error that was not there before. (On
/// the way there may be one: a tag is two objects, and is moved in two writes.)
pub fn converge(world: &World, policy: &Policy) -> Result<World, String> {
    let mut now = world.clone();
    now.settle();
    let severe = |w: &World| -> BTreeSet<(String, String)> {
        let audit = w.audit(policy);
        let bad = audit.entries.into_iter().filter(|e| e.level >= Level::Error);
        bad.map(|e| (e.rule.code.to_owned(), e.object.name.to_string())).collect()
    };
    let before = severe(&now);
    let mut seen = vec![now.clone()];
    let mut steps = Vec::new();
    for _ in 0..40 {
        let audit = now.audit(policy);
        let Some(entry) = audit.entries.iter().find(|e| e.repair.is_some()) else {
            let new: Vec<_> = severe(&now).difference(&before).cloned().collect();
            if new.is_empty() {
                return Ok(now);
            }
            return Err(format!("{steps:#?} leave {new:?}\n{}", text(&audit)));
        };
        let repair = entry.repair.as_ref().expect("a repair");
        steps.push(format!("{}: {}", line(entry), repair.says));
        now.mend(repair).map_err(|e| format!("{steps:#?}: {e}"))?;
        now.settle();
        if seen.contains(&now) {
            return Err(format!("{steps:#?}: has been there before"));
        }
        seen.push(now.clone());
    }
    Err("does not come to an end".into())
}

#[test]
fn repairs_of_every_case_come_to_an_end() {
    let mut failures = Vec::new();
    for case in Case::all().iter().filter(|c| !c.head.rendered) {
        if let Err(e) = converge(&case.world, &case.policy) {
            failures.push(format!("{}: {e}", case.path));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
