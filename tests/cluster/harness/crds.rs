//! Definitions of the custom resources that rules look at.
//!
//! Istio's and the Gateway API's are the public ones, schema and all, out of the Go modules that
//! `tools/crds/go.mod` pins; nothing of them is committed. The rest takes any `spec`: IstioOperator's real
//! definition (Istio up to 1.23) does that as well, Sail's is in no module that the public proxy serves, and
//! Gloo's is not public. Whoever has them names a folder of YAML files in `REVGUARD_TEST_CRDS`, and they are taken. Without Go
//! every other kind takes any `spec`. Our own are the program's, wherever this runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use revguard::wire::{KINDS, KindRow, Scope};
use serde_json::{Value, json};

/// Modules, and where their definitions stand in them.
const PUBLIC: [(&str, &str); 2] = [
    ("istio.io/api", "kubernetes/customresourcedefinitions.gen.yaml"),
    ("sigs.k8s.io/gateway-api", "config/crd/standard"),
];

/// Groups whose definitions are the public ones wherever there is Go.
pub const PUBLIC_GROUPS: [&str; 5] = [
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
    "gateway.networking.k8s.io",
];

/// The definition of every custom kind of the product's table.
pub fn all() -> Result<Vec<Value>> {
    let (public, given, own) = (public()?, given()?, own());
    let of = |row: &KindRow| {
        let name = name(row);
        own.get(&name).or_else(|| public.get(&name)).or_else(|| given.get(&name)).cloned()
    };
    Ok(custom().map(|row| of(row).unwrap_or_else(|| permissive(row))).collect())
}

/// Our own definitions by name.
fn own() -> BTreeMap<String, Value> {
    let all = revguard::api::definitions().into_iter();
    all.map(|(_, definition)| (definition["metadata"]["name"].as_str().unwrap_or("").to_owned(), definition)).collect()
}

/// The module of openreports.io's definitions, and where they stand in it.
const OPEN_REPORTS: (&str, &str) = ("github.com/openreports/reports-api", "config/crd");

/// Definitions of the reports that an audit writes: openreports.io's own where there is Go. Those of wgpolicyk8s.io are in no
/// module that the public proxy serves; what stands here for them is as strict as they were in 2022.
pub fn reports() -> Result<Vec<Value>> {
    let mut all = vec![policy_report("PolicyReport", "Namespaced"), policy_report("ClusterPolicyReport", "Cluster")];
    if !has_go() {
        for (kind, scope) in [("Report", "Namespaced"), ("ClusterReport", "Cluster")] {
            let mut stand_in = policy_report(kind, scope);
            let plural = format!("{}s", kind.to_lowercase());
            stand_in["metadata"]["name"] = json!(format!("{plural}.openreports.io"));
            stand_in["spec"]["group"] = json!("openreports.io");
            let version = &mut stand_in["spec"]["versions"][0];
            version["name"] = json!("v1alpha1");
            version["schema"]["openAPIV3Schema"]["properties"]["source"] = json!({"type": "string"});
            let results = &mut version["schema"]["openAPIV3Schema"]["properties"]["results"];
            results["items"]["properties"]["severity"]["enum"] = json!(["critical", "high", "medium", "low", "info"]);
            all.push(stand_in);
        }
        return Ok(all);
    }
    let folder = module_folder(OPEN_REPORTS.0)?.join(OPEN_REPORTS.1);
    for plural in ["reports", "clusterreports"] {
        let file = folder.join(format!("openreports.io_{plural}.yaml"));
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        all.push(serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?);
    }
    Ok(all)
}

/// `wgpolicyk8s.io/v1alpha2`, as far as it is used here.
fn policy_report(kind: &str, scope: &str) -> Value {
    let text = json!({"type": "string"});
    let any = json!({"type": "object", "additionalProperties": text});
    let count = json!({"type": "integer"});
    let result = json!({
        "type": "object", "required": ["policy"],
        "properties": {
            "source": text, "policy": text, "rule": text, "category": text, "message": text, "scored": {"type": "boolean"},
            "result": {"type": "string", "enum": ["pass", "fail", "warn", "error", "skip"]},
            "severity": {"type": "string", "enum": ["high", "medium", "low"]},
            "properties": any,
            "resources": {"type": "array", "items": {"type": "object", "properties":
                {"apiVersion": text, "kind": text, "namespace": text, "name": text, "uid": text}}},
        },
    });
    let summary = json!({"pass": count, "fail": count, "warn": count, "error": count, "skip": count});
    let plural = format!("{}s", kind.to_lowercase());
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.wgpolicyk8s.io")},
        "spec": {
            "group": "wgpolicyk8s.io", "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{"name": "v1alpha2", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "results": {"type": "array", "items": result},
                    "summary": {"type": "object", "properties": summary},
                },
            }}}],
        },
    })
}

/// The definition of one kind that takes any `spec`.
pub fn permissive(row: &KindRow) -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let versions: Vec<Value> = row
        .versions
        .iter()
        .enumerate()
        .map(|(i, version)| {
            json!({
                "name": version, "served": true, "storage": i == 0, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": any, "status": any}}},
            })
        })
        .collect();
    let scope = if row.scope == Scope::Cluster { "Cluster" } else { "Namespaced" };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name(row)},
        "spec": {
            "group": row.group, "scope": scope, "versions": versions,
            "names": {"kind": row.name, "plural": row.plural, "singular": row.name.to_lowercase()},
        },
    })
}

fn name(row: &KindRow) -> String {
    format!("{}.{}", row.plural, row.group)
}

/// Kinds that a cluster does not have by itself.
pub fn custom() -> impl Iterator<Item = &'static KindRow> {
    KINDS.iter().filter(|row| {
        row.group.contains('.') && !row.group.ends_with(".k8s.io") || row.group == "gateway.networking.k8s.io"
    })
}

/// Definitions of the folder `REVGUARD_TEST_CRDS`, by name.
pub fn given() -> Result<BTreeMap<String, Value>> {
    let Some(folder) = std::env::var_os("REVGUARD_TEST_CRDS").filter(|folder| !folder.is_empty()) else {
        return Ok(BTreeMap::new());
    };
    let folder = PathBuf::from(folder);
    let files = std::fs::read_dir(&folder).with_context(|| format!("REVGUARD_TEST_CRDS: {}", folder.display()))?;
    read(&files.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?)
}

/// Public definitions by name; empty where there is no Go.
pub fn public() -> Result<&'static BTreeMap<String, Value>> {
    static PUBLIC: OnceLock<Result<BTreeMap<String, Value>, String>> = OnceLock::new();
    let read = PUBLIC.get_or_init(|| read_public().map_err(|error| format!("{error:#}")));
    read.as_ref().map_err(|error| anyhow::anyhow!("public schemas: {error}"))
}

fn read_public() -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    if !has_go() {
        return Ok(found);
    }
    for (module, place) in PUBLIC {
        let place = module_folder(module)?.join(place);
        let files = if place.is_dir() {
            std::fs::read_dir(&place)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?
        } else {
            vec![place]
        };
        found.extend(read(&files)?);
    }
    let missing = |row: &&KindRow| PUBLIC_GROUPS.contains(&row.group) && !found.contains_key(&name(row));
    let missing: Vec<String> = custom().filter(missing).map(name).collect();
    ensure!(missing.is_empty(), "the pinned modules have no {missing:?}");
    Ok(found)
}

/// What files of YAML define of the product's kinds.
fn read(files: &[PathBuf]) -> Result<BTreeMap<String, Value>> {
    let wanted: Vec<String> = custom().map(name).collect();
    let mut found = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        // Ten thousands of lines: only what is wanted is parsed.
        for document in text.split("\n---\n").filter(|part| wanted.iter().any(|name| is_of(part, name))) {
            let definition: Value = serde_saphyr::from_str(document).with_context(|| file.display().to_string())?;
            let name = definition["metadata"]["name"].as_str().context("a definition without a name")?;
            found.insert(name.to_owned(), definition);
        }
    }
    Ok(found)
}

fn has_go() -> bool {
    Command::new("go").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn is_of(document: &str, name: &str) -> bool {
    document.lines().any(|line| line.strip_prefix("  name: ") == Some(name))
}

/// Where a pinned module lies in Go's cache; fetched if it is not there yet.
fn module_folder(module: &str) -> Result<PathBuf> {
    let pins = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/tools/crds");
    let output = Command::new("go")
        .args(["mod", "download", "-json", module])
        .current_dir(pins)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=readonly")
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "go mod download {module}: {error}{}", String::from_utf8_lossy(&output.stdout));
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    Ok(answer["Dir"].as_str().context("a module's folder")?.into())
}
