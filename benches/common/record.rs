//! Figures on disk: `target/bench/NAME.json`, with the commit, the machine and the command that they come from.
//! `benches/report.py` makes docs/performance.md of them.

#![allow(dead_code)] // each bench uses its own part

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// Writes the figures of one bench.
pub fn write(name: &str, command: &str, figures: Value) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    let record = json!({
        "bench": name, "command": command, "commit": commit(), "machine": machine(), "at": jiff::Timestamp::now().to_string(),
        "figures": figures,
    });
    std::fs::create_dir_all(&dir).expect("target can be written");
    let file = dir.join(format!("{name}.json"));
    std::fs::write(&file, format!("{record:#}\n")).expect("target can be written");
    println!("figures: target/bench/{name}.json");
}

/// The commit that is measured; `+` when the tree differs from it.
fn commit() -> String {
    let git = |args: &[&str]| {
        let out = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    // The page that is made of the figures does not change what was measured.
    let changed = git(&["status", "--porcelain", "--", "src", "benches", "Cargo.toml", "Cargo.lock"]);
    if changed.is_some_and(|c| c.is_empty()) { commit } else { format!("{commit}+") }
}

fn machine() -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|l| l.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({"cores": cores, "cpu": cpu.unwrap_or_else(|| "unknown".to_owned()), "os": std::env::consts::OS, "arch": std::env::consts::ARCH})
}

/// Median, least and most of some figures: what a bench says of its own noise.
pub fn spread(mut all: Vec<f64>) -> Value {
    all.sort_by(f64::total_cmp);
    let round = |v: f64| (v * 1000.0).round() / 1000.0;
    match (all.first(), all.last()) {
        (Some(least), Some(most)) => {
            let middle = all.len() / 2;
            let median = if all.len() % 2 == 1 { all[middle] } else { f64::midpoint(all[middle - 1], all[middle]) };
            json!({"median": round(median), "least": round(*least), "most": round(*most), "rounds": all.len()})
        }
        _ => Value::Null,
    }
}
