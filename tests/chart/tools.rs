//! Where Helm, Prometheus and promtool come from: `tests/cluster/tools/build.sh`, once per pin.
#![allow(dead_code)] // each test target uses its own part

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// build.sh ends with this when there is no Go, and with anything else when a build went wrong.
const NO_GO: i32 = 3;

/// The folder with a component's programs, built if it is not there yet; or how to get it.
///
/// # Panics
/// When a build fails: skipping tests then would hide the mistake.
pub fn folder(component: &str) -> Result<PathBuf, String> {
    static FOUND: Mutex<BTreeMap<String, Result<PathBuf, String>>> = Mutex::new(BTreeMap::new());
    // Held while it builds: whoever comes second waits for the result.
    let mut found = FOUND.lock().expect("no build panicked");
    found.entry(component.to_owned()).or_insert_with(|| build(component)).clone()
}

fn build(component: &str) -> Result<PathBuf, String> {
    let how = || format!("install Go 1.26, with which {component} is then built once");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/tools/build.sh");
    let target =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's temporary folder is in the target folder");
    let output = Command::new(&script)
        .arg(component)
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{} cannot run ({error}); {}", script.display(), how()))?;
    if output.status.code() == Some(NO_GO) {
        return Err(how());
    }
    assert!(output.status.success(), "{} {component} failed; its own words are above", script.display());
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end()))
}

/// A program of a component.
///
/// # Panics
/// Where it cannot be had; a test names what it needs.
pub fn program(component: &str, name: &str) -> Command {
    let folder = folder(component).unwrap_or_else(|why| panic!("{name}: {why}"));
    let mut command = Command::new(folder.join(name));
    command.stdin(Stdio::null());
    command
}
