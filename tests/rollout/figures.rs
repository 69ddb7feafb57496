//! What was counted, for the pages of docs/ that state it.

use std::path::Path;

use serde_json::{Value, json};

/// Prints the figures and leaves them in `<target>/bench/rollout-<name>.json`.
pub fn write(name: &str, figures: &Value) {
    println!("{name}: {figures}");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Two up from the test's own program: target/debug/deps/rollout-….
    let program = std::env::current_exe().expect("a program");
    let Some(target) = program.ancestors().find(|p| p.file_name().is_some_and(|n| n == "target")) else { return };
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder).expect("a folder for figures");
    let document = json!({
        "bench": format!("rollout-{name}"),
        "command": if crate::prove() { "REVGUARD_PROVE=1 cargo test --test rollout" } else { "cargo test --test rollout" },
        "commit": commit(repository),
        "figures": figures,
    });
    std::fs::write(folder.join(format!("rollout-{name}.json")), format!("{document}\n"))
        .expect("figures can be written");
}

fn commit(folder: &Path) -> String {
    let output =
        std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(folder).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim_end().to_owned(),
        _ => "unknown".to_owned(),
    }
}
