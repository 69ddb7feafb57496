//! The case table, depths 1 and 2: every file under `tests/cases` in process and as AdmissionReview bytes.
//!
//! `UPDATE=1` rewrites the golden texts, never the expected codes. `CASE=part-of-a-path` runs only those.

#[path = "case_table/mod.rs"]
mod case_table;

use case_table::{Case, Outcome};
use revguard::model::Kind;
use revguard::rules::{Check, RULES, Rule};
use revguard::snapshot::Snapshot;

#[test]
fn every_case_in_process() {
    let mut failures = Vec::new();
    let mut ran = 0;
    for case in Case::all() {
        ran += 1;
        let outcome = case.judge();
        if let Err(e) = case.compare(&outcome) {
            failures.push(e);
        }
    }
    assert!(failures.is_empty(), "{} of {ran} cases:\n{}", failures.len(), failures.join("\n"));
    println!("{ran} cases");
}

#[test]
fn every_case_as_bytes() {
    let mut failures = Vec::new();
    for case in Case::all() {
        let (by_value, by_bytes) = (case.judge(), case.review());
        if by_value != by_bytes {
            failures.push(format!(
                "{}\n--- in process\n{}\n--- as bytes\n{}",
                case.path,
                by_value.text(),
                by_bytes.text()
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Rules that judge writes. Those that judge what exists have a table of their own.
fn judging() -> impl Iterator<Item = &'static Rule> {
    let judges = |r: &&Rule| r.checks.iter().any(|c| !matches!(c, Check::Audit(_)));
    RULES.iter().copied().filter(judges)
}

#[test]
fn a_rule_switched_off_makes_its_cases_fail() {
    for rule in judging() {
        let named = Case::all().into_iter().filter(|c| c.expect.iter().chain(&c.warns).any(|code| code == rule.code));
        let mut seen = 0;
        for mut case in named {
            seen += 1;
            let on = case.judge();
            case.switch_off(rule.code);
            assert_ne!(on, case.judge(), "{}: {} is off and nothing changes", case.path, rule.code);
        }
        assert!(seen > 0, "no case expects {}", rule.code);
    }
}

#[test]
fn every_rule_has_what_it_stops_and_what_it_lets_pass() {
    for rule in judging() {
        let folder = rule.code.to_lowercase();
        let own: Vec<Case> = Case::all().into_iter().filter(|c| c.rule() == folder).collect();
        let quiet = own.iter().filter(|c| !c.expect.iter().chain(&c.warns).any(|code| code == rule.code)).count();
        assert!(own.len() - quiet >= 1, "{}: no case that it stops", rule.code);
        assert!(quiet >= 2, "{}: needs an allowed case and a near miss, has {quiet}", rule.code);
    }
}

/// What a shell at hand takes for arguments, zsh does, is no remark.
#[test]
fn commands_paste_into_any_shell() {
    let is_command = |line: &str| {
        let words = line.trim_start().trim_start_matches("fix:").trim_start();
        ["kubectl ", "istioctl ", "helm ", "revguard "].iter().any(|program| words.starts_with(program))
    };
    for case in Case::all() {
        let outcome = case.judge();
        let said = [&outcome.message].into_iter().chain(&outcome.warnings).flat_map(|text| text.lines());
        for line in said.filter(|line| is_command(line)) {
            assert!(!line.contains(" # "), "{}: {line}", case.path);
        }
    }
}

#[test]
fn a_patched_object_needs_no_patch() {
    for case in Case::all().iter().filter(|c| c.mutate) {
        let Outcome { patch: Some(patch), .. } = case.judge() else { continue };
        let again = case.patched(&patch).judge();
        assert_eq!(again.patch, None, "{}", case.path);
        assert!(again.denied.is_empty(), "{}: {}", case.path, again.text());
    }
}

#[test]
fn a_patched_object_breaks_nothing_new() {
    for mut case in Case::all().into_iter().filter(|c| c.mutate) {
        let Outcome { patch: Some(patch), .. } = case.judge() else { continue };
        case.mutate = false;
        let (before, after) = (case.judge(), case.patched(&patch).judge());
        let codes = |o: &Outcome| o.denied.iter().chain(&o.warned).cloned().collect::<Vec<_>>();
        let new: Vec<String> = codes(&after).into_iter().filter(|c| !codes(&before).contains(c)).collect();
        assert!(new.is_empty(), "{}: {new:?}\n{}", case.path, after.text());
        assert!(codes(&after).len() < codes(&before).len(), "{}: nothing is mended", case.path);
    }
}

/// Denials of these rest on the object alone.
const NEEDS_NO_CLUSTER: [&str; 2] = ["NS001", "NS003"];

#[test]
fn injectors_that_are_not_known_deny_nobody() {
    let about_injection = |code: &String| code.starts_with("NS") || code.starts_with("WL");
    for mut case in Case::all().into_iter().filter(|c| !c.mutate && c.expect.iter().any(about_injection)) {
        case.cluster.retain(|d| d.object.kind() != Kind::MutatingWebhook);
        let codes = |o: Outcome| o.denied.into_iter().filter(about_injection).collect::<Vec<_>>();
        let rests = |codes: &[String]| {
            let is_empty_label = case.path == "ns004/empty.yaml";
            codes
                .iter()
                .all(|c| NEEDS_NO_CLUSTER.contains(&c.as_str()) || is_empty_label || case.policy.strict.contains(c))
        };
        let offline = codes(case.judge_over(Snapshot::offline()).expect("offline, nothing is still to come"));
        assert!(rests(&offline), "{}: {offline:?}", case.path);
        match case.judge_over(Snapshot::live()) {
            // The API server asks again.
            Err(unknown) => assert!(unknown.contains("still being listed"), "{}: {unknown}", case.path),
            Ok(outcome) => assert!(rests(&codes(outcome)), "{}", case.path),
        }
    }
}
