//! What was counted, for the pages of docs/ that state it.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::programs::{repository, target};

/// Prints the figures and leaves them in `<target>/bench/node-<name>.json`.
pub fn write(name: &str, figures: &Value) -> Result<()> {
    println!("{name}: {figures}");
    let folder = target().join("bench");
    std::fs::create_dir_all(&folder)?;
    let document = json!({
        "bench": format!("node-{name}"),
        "command": if crate::trial::prove() { "REVGUARD_PROVE=1 make test-node" } else { "make test-node" },
        "commit": commit(repository()),
        "figures": figures,
    });
    std::fs::write(folder.join(format!("node-{name}.json")), format!("{document}\n"))?;
    Ok(())
}

fn commit(folder: &Path) -> String {
    let output =
        std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(folder).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim_end().to_owned(),
        _ => "unknown".to_owned(),
    }
}
