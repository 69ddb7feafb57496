//! The dashboard: every query is one that Prometheus reads, about metrics that the binary exposes.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::metrics::problems;
use crate::panels::queries;
use crate::test;
use crate::tools::program;

pub fn tests() -> Vec<Trial> {
    vec![
        test("dashboard::asks_for_metrics_that_exist", &[], asks_for_metrics_that_exist),
        test("dashboard::prometheus_reads_every_query", &["prometheus"], prometheus_reads_every_query),
    ]
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
