//! What was counted on the node.

use anyhow::Result;
use serde_json::Value;

#[path = "../../figures/mod.rs"]
mod shared;

/// Prints the figures and leaves them in `<target>/bench/node-<name>.json`.
pub fn write(name: &str, figures: &Value) -> Result<()> {
    let command = if crate::trial::prove() { "REVGUARD_PROVE=1 make test-node" } else { "make test-node" };
    Ok(shared::write(&format!("node-{name}"), command, figures)?)
}
