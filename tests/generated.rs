//! Generated pages are current. `UPDATE=1` rewrites them.

use std::path::Path;

#[test]
fn docs_are_what_the_program_prints() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    if std::env::var_os("UPDATE").is_some() {
        revguard::cli::docs::write(&docs).unwrap();
    }
    let mut stale = Vec::new();
    for (path, text) in revguard::cli::docs::pages() {
        if std::fs::read_to_string(docs.join(&path)).unwrap_or_default() != text {
            stale.push(path);
        }
    }
    let known: Vec<String> = revguard::cli::docs::pages().into_iter().map(|(p, _)| p).collect();
    for entry in std::fs::read_dir(docs.join("rules")).into_iter().flatten() {
        let name = format!("rules/{}", entry.unwrap().file_name().to_string_lossy());
        if !known.contains(&name) {
            stale.push(format!("{name} (no such rule)"));
        }
    }
    assert!(stale.is_empty(), "UPDATE=1 cargo test --test generated; stale: {stale:?}");
}

/// Roles and custom resource definitions in the chart are those of the program.
#[test]
fn the_chart_holds_what_the_program_needs() {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/revguard");
    if std::env::var_os("UPDATE").is_some() {
        revguard::cli::docs::write_chart(&chart).unwrap();
    }
    let current = |path: &str, text: &str| std::fs::read_to_string(chart.join(path)).unwrap_or_default() == text;
    let stale: Vec<String> =
        revguard::cli::docs::chart_files().into_iter().filter(|(p, t)| !current(p, t)).map(|(p, _)| p).collect();
    assert!(stale.is_empty(), "UPDATE=1 cargo test --test generated; stale: {stale:?}");
}

/// The policy page shows every key, and its example is one that the program reads.
#[test]
fn the_policy_page_is_a_policy() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md")).unwrap();
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let policy = revguard::rules::Policy::parse(example).unwrap();
    assert!(!policy.rules.is_empty() && !policy.strict.is_empty() && !policy.allow.groups.is_empty());
    // Debug prints every field of the type; each must be spoken of.
    for key in [
        "mode",
        "rules",
        "strict",
        "separateGateways",
        "canaryMinorSkip",
        "gatewayLists",
        "gatewayOrder",
        "canaryOnly",
        "mutations",
        "repair",
        "exempt",
        "allow",
        "stale",
    ] {
        assert!(example.contains(&format!("{key}:")), "{key}");
    }
    let error = revguard::rules::Policy::parse("nonsense: 1").unwrap_err();
    let known =
        error.split_once("one of ").and_then(|(_, rest)| rest.split_once(" at line")).expect("a list of keys").0;
    for key in known.split(", ") {
        assert!(example.contains(&format!("{key}:")), "the program knows {key}, the page does not: {error}");
    }
}
