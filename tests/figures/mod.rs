//! What was counted, for the pages of docs/ that state it: `<target>/bench/NAME.json`, with the command that shows it and the commit.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// Prints the figures and leaves them on disk.
pub fn write(name: &str, command: &str, figures: &Value) -> std::io::Result<()> {
    println!("{name}: {figures}");
    // Cargo's own answer to where the target folder is, whichever way that was configured.
    let target =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's temporary folder is in the target folder");
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder)?;
    let document = json!({"bench": name, "command": command, "commit": commit(), "figures": figures});
    std::fs::write(folder.join(format!("{name}.json")), format!("{document}\n"))
}

fn commit() -> String {
    let asked =
        Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    match asked {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim_end().to_owned(),
        _ => "unknown".to_owned(),
    }
}
