//! What was counted, for the pages of docs/ that state it: `<target>/bench/NAME.json`, with the command that shows it and the commit.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// How the command of a run in full length begins.
const FULL: &str = "REVGUARD_PROVE=1";

/// Prints the figures and leaves them on disk. Those of a run in full length are not written over by a short one.
pub fn write(name: &str, command: &str, figures: &Value) -> std::io::Result<()> {
    println!("{name}: {figures}");
    // Cargo's own answer to where the target folder is, whichever way that was configured.
    let target =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's temporary folder is in the target folder");
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{name}.json"));
    let there: Value =
        std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let is_full = |command: &str| command.starts_with(FULL);
    if there["command"].as_str().is_some_and(is_full) && !is_full(command) {
        return Ok(());
    }
    let document = json!({"bench": name, "command": command, "commit": commit(), "figures": figures});
    std::fs::write(file, format!("{document}\n"))
}

fn commit() -> String {
    let asked =
        Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    match asked {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim_end().to_owned(),
        _ => "unknown".to_owned(),
    }
}
