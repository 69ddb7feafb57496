//! The dashboard: every query is one that Prometheus reads, about metrics that the binary exposes.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::metrics::problems;
use crate::render::{file, text};
use crate::test;
use crate::tools::program;

pub fn tests() -> Vec<Trial> {
    vec![
        test("dashboard::asks_for_metrics_that_exist", &[], asks_for_metrics_that_exist),
        test("dashboard::prometheus_reads_every_query", &["prometheus"], prometheus_reads_every_query),
    ]
}

/// Title and query of every panel, and of the annotations.
fn queries() -> Result<Vec<(String, String)>> {
    let dashboard: Value = serde_json::from_str(&file("files/dashboard.json"))?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let mut all = Vec::new();
    let mut ids = Vec::new();
    for panel in panels {
        ids.push(panel["id"].as_u64().context("an id")?);
        let title = text(panel, "/title");
        let targets: Vec<&Value> = panel["targets"].as_array().into_iter().flatten().collect();
        ensure!(text(panel, "/type") == "row" || !targets.is_empty(), "{title}: no query");
        all.extend(targets.iter().map(|target| (title.to_owned(), text(target, "/expr").to_owned())));
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == count, "two panels have one id");
    all.push(("annotations".to_owned(), text(&dashboard, "/annotations/list/0/expr").to_owned()));
    Ok(all)
}

fn asks_for_metrics_that_exist() -> Result<()> {
    let queries = queries()?;
    ensure!(queries.len() > 20, "{} queries", queries.len());
    let wrong: Vec<String> = queries.iter().flat_map(|(_, query)| problems(query)).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// promtool reads rules, so each query is one.
fn prometheus_reads_every_query() -> Result<()> {
    let rules: Vec<Value> = queries()?
        .into_iter()
        .enumerate()
        .map(|(i, (_, query))| {
            serde_json::json!({"record": format!("query:{i}"), "expr": query.replace("$__rate_interval", "5m")})
        })
        .collect();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("queries.yaml");
    let all = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(&path, all.to_string())?;
    let check = program("prometheus", "promtool").args(["check", "rules"]).arg(&path).output()?;
    ensure!(
        check.status.success(),
        "{}{}",
        String::from_utf8_lossy(&check.stdout),
        String::from_utf8_lossy(&check.stderr)
    );
    Ok(())
}
