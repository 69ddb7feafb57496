//! Alerts: valid, explained, about metrics that exist, and each seen to fire and to stop by the real promtool.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::metrics::problems;
use crate::render::{chart, file, text};
use crate::test;
use crate::tools::program;

pub fn tests() -> Vec<Trial> {
    vec![
        test("alerts::are_explained_and_ask_for_metrics_that_exist", &[], are_explained),
        test("alerts::labels_in_texts_are_labels_of_the_result", &[], labels_in_texts),
        test("alerts::each_does_not_fire_fires_and_resolves", &[], each_is_tested),
        test("alerts::promtool_agrees", &["prometheus"], promtool_agrees),
    ]
}

/// Every rule, of every group.
pub fn alerts() -> Result<Vec<Value>> {
    let all: Value = serde_saphyr::from_str(&file("files/alerts.yaml"))?;
    let groups = all["groups"].as_array().context("groups")?;
    Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
}

fn are_explained() -> Result<()> {
    let runbook = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md"))?;
    let mut wrong = Vec::new();
    let all = alerts()?;
    ensure!(all.len() >= 30, "{} alerts", all.len());
    for alert in &all {
        let name = text(alert, "/alert");
        wrong.extend(problems(text(alert, "/expr")));
        if !name.starts_with("Revguard") || text(alert, "/labels/revguard") != "true" {
            wrong.push(format!("{name}: its name or its label `revguard`"));
        }
        if !["critical", "warning"].contains(&text(alert, "/labels/severity")) {
            wrong.push(format!("{name}: severity"));
        }
        for part in ["summary", "description"] {
            if text(alert, &format!("/annotations/{part}")).len() < 15 {
                wrong.push(format!("{name}: {part}"));
            }
        }
        if text(alert, "/annotations/runbook_url") != format!("docs/runbook.md#{}", name.to_lowercase())
            || !runbook.contains(&format!("\n### {name}\n"))
        {
            wrong.push(format!("{name}: no section of its own in docs/runbook.md"));
        }
    }
    for section in runbook.lines().filter_map(|line| line.strip_prefix("### Revguard")) {
        if !all.iter().any(|alert| text(alert, "/alert").strip_prefix("Revguard") == Some(section)) {
            wrong.push(format!("docs/runbook.md: there is no alert Revguard{section}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A text with a label that the result has lost would say nothing where it matters.
fn labels_in_texts() -> Result<()> {
    let mut wrong = Vec::new();
    for alert in alerts()? {
        let expr = text(&alert, "/expr");
        for part in ["/annotations/summary", "/annotations/description"] {
            for label in text(&alert, part).split("$labels.").skip(1) {
                let label: String = label.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let kept = expr
                    .split("by (")
                    .skip(1)
                    .any(|by| by.split(')').next().unwrap_or_default().split(", ").any(|word| word == label));
                if !kept {
                    wrong.push(format!("{}: {label} is in no `by (…)` of {expr}", text(&alert, "/alert")));
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/alerts")
}

fn files() -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}

/// `1h30m` in minutes.
fn minutes(text: &str) -> u64 {
    let (mut total, mut number) = (0, 0);
    for c in text.chars() {
        match c {
            'h' => (total, number) = (total + 60 * number, 0),
            'm' => (total, number) = (total + number, 0),
            digit => number = 10 * number + u64::from(digit.to_digit(10).expect("a duration in hours and minutes")),
        }
    }
    total
}

/// Silent, then firing, then silent again.
fn each_is_tested() -> Result<()> {
    let mut seen: BTreeMap<String, Vec<(u64, bool)>> = BTreeMap::new();
    for file in files()? {
        let tests: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file)?)?;
        for one in tests["tests"].as_array().context("tests")? {
            for look in one["promql_expr_test"].as_array().into_iter().flatten() {
                let (_, name) = text(look, "/expr").split_once("ALERTS{alertname=\"").context("ALERTS")?;
                let name = name.split('"').next().unwrap_or_default().to_owned();
                let fires = look["exp_samples"].as_array().is_some_and(|samples| !samples.is_empty());
                seen.entry(name).or_default().push((minutes(text(look, "/eval_time")), fires));
            }
        }
    }
    let mut wrong = Vec::new();
    for alert in alerts()? {
        let name = text(&alert, "/alert");
        let mut looks = seen.remove(name).unwrap_or_default();
        looks.sort_unstable();
        let story: Vec<bool> = looks.iter().map(|(_, fires)| *fires).collect();
        if story != [false, true, false] {
            wrong.push(format!(
                "{name}: tests/alerts shows {story:?}, not one that is silent, fires and is silent again"
            ));
        }
    }
    ensure!(wrong.is_empty() && seen.is_empty(), "{}\nno such alert: {:?}", wrong.join("\n"), seen.keys());
    Ok(())
}

fn promtool_agrees() -> Result<()> {
    let check = program("prometheus", "promtool")
        .args(["check", "rules", "--lint=all", "--lint-fatal"])
        .arg(chart().join("files/alerts.yaml"))
        .output()?;
    ensure!(
        check.status.success(),
        "{}{}",
        String::from_utf8_lossy(&check.stdout),
        String::from_utf8_lossy(&check.stderr)
    );
    let run = program("prometheus", "promtool").args(["test", "rules"]).args(files()?).output()?;
    ensure!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    Ok(())
}
