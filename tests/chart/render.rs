//! The chart as Helm renders it.
#![allow(dead_code)] // each test target uses its own part

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::tools::program;

pub const RELEASE: &str = "revguard";
pub const NAMESPACE: &str = "revguard-system";

pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/revguard")
}

/// A file of the chart.
pub fn file(path: &str) -> String {
    let path = chart().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Helm, with nothing of the person's own.
pub fn helm() -> Command {
    let mut command = program("helm", "helm");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm");
    for (key, folder) in
        [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data"), ("HOME", "home")]
    {
        command.env(key, home.join(folder));
    }
    // A cluster that answers would make `lookup` and capabilities depend on it.
    command.env("KUBECONFIG", "/dev/null");
    command
}

/// Renders without a cluster; what Helm says is the error.
pub fn render_into(namespace: &str, arguments: &[&str]) -> Result<Vec<Value>> {
    let output = helm()
        .args(["template", RELEASE])
        .arg(chart())
        .args(["--namespace", namespace, "--kube-version", "1.36.0"])
        .args(arguments)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    documents(std::str::from_utf8(&output.stdout)?)
}

pub fn render(arguments: &[&str]) -> Result<Vec<Value>> {
    render_into(NAMESPACE, arguments)
}

/// Every document of a stream of YAML.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for part in format!("\n{text}").split("\n---") {
        // Helm writes `--- ` and a comment before each.
        let value: Value = serde_saphyr::from_str(part).with_context(|| part.to_owned())?;
        if !value.is_null() {
            all.push(value);
        }
    }
    Ok(all)
}

/// The objects of a kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The object of a kind and name.
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let named = |object: &&&Value| object["metadata"]["name"] == name;
    of_kind(objects, kind).iter().find(named).copied().with_context(|| format!("no {kind} {name}"))
}

/// A text of an object, by JSON pointer.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The words of a list.
pub fn words(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}
