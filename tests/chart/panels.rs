//! The dashboard's queries, one by one.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::render::{file, text};

/// Title and query of every panel, and of the annotations.
pub fn queries() -> Result<Vec<(String, String)>> {
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
