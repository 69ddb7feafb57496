//! `check -o sarif` against the public JSON schema of SARIF 2.1.0.
//!
//! The schema is not copied here: the crate `serde-sarif` carries it in its package, where cargo has put it for this build.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

const DENIED: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {istio-injection: enabled, istio.io/rev: prod}\n";
const UNKNOWN: &str = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: cart, labels: {istio.io/rev: nowhere}}\n";
const UNREADABLE: &str = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: bad, labels: {a: [1]}}\n";

fn sarif(manifests: &str) -> Value {
    let mesh = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/demo/mesh.yaml");
    let mut child = Command::new(env!("CARGO_BIN_EXE_revguard"))
        .args(["check", "-", "-o", "sarif", "--cluster"])
        .arg(mesh)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().expect("piped").write_all(manifests.as_bytes()).expect("the child reads");
    let output = child.wait_with_output().expect("the child ends");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The platform that this was compiled on, in rustc's words.
fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|l| l.strip_prefix("host: ")).expect("a line of `rustc -vV`").to_owned()
}

/// Where cargo keeps the schema.
fn schema() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Packages of other platforms were never fetched, and are not asked for.
    let platform = format!("--filter-platform={}", host());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["metadata", "--format-version=1", "--offline", "--locked", &platform])
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    let package = metadata["packages"].as_array().into_iter().flatten().find(|p| p["name"] == "serde-sarif");
    let manifest =
        PathBuf::from(package.expect("a dependency of this test")["manifest_path"].as_str().expect("a path"));
    let file = manifest.with_file_name("src").join("schema.json");
    let text = std::fs::read_to_string(file).expect("the package holds the schema");
    // One pattern of the published schema has a bracket too many, which a strict reader of patterns refuses.
    const ERRATUM: &str = "^[a-zA-Z]{2}|^[a-zA-Z]{2}-[a-zA-Z]{2}]?$";
    assert!(text.contains(ERRATUM));
    serde_json::from_str(&text.replace(ERRATUM, "^[a-zA-Z]{2}(-[a-zA-Z]{2})?$")).expect("JSON")
}

#[test]
fn every_report_is_valid_sarif() {
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let fine = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/rev: prod}}\n";
    for (manifests, results) in [
        (fine.to_owned(), 0),
        (DENIED.to_owned(), 1),
        (format!("{DENIED}{UNKNOWN}"), 2),
        (format!("{DENIED}{UNREADABLE}"), 1),
    ] {
        let report = sarif(&manifests);
        let errors: Vec<String> =
            validator.iter_errors(&report).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{}\n{report:#}", errors.join("\n"));
        let read: serde_sarif::sarif::Sarif = serde_json::from_value(report.clone()).expect("SARIF");
        let found: usize = read.runs.iter().map(|r| r.results.as_ref().map_or(0, Vec::len)).sum();
        assert_eq!(found, results, "{report:#}");
    }
}

#[test]
fn the_validator_refuses_what_is_no_sarif() {
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let mut report = sarif(DENIED);
    report["runs"][0]["results"][0]["level"] = "deny".into();
    assert!(!validator.is_valid(&report));
}
