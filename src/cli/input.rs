//! Manifests from paths, and the cluster that they make.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Failure;
use crate::model::{Id, Kind};
use crate::snapshot::Snapshot;
use crate::wire::manifest::{self, Document, Problem, Source};

/// Everything that the paths hold.
#[derive(Default)]
pub struct Input {
    pub documents: Vec<Document>,
    pub problems: Vec<Problem>,
    /// Objects of kinds that no rule looks at, as they are written.
    pub other: Vec<Value>,
}

/// Reads files, folders (recursively, sorted by name) and `-` (stdin).
///
/// # Errors
/// A path that cannot be read at all. What stands in a file and cannot be read is a [`Problem`].
pub fn read(paths: &[PathBuf], home: &str) -> anyhow::Result<Input> {
    let mut input = Input::default();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes)?;
            take("stdin", &bytes, home, &mut input);
            continue;
        }
        let mut files = Vec::new();
        collect(path, &mut files)?;
        if files.is_empty() {
            anyhow::bail!("{}: no manifest there (.yaml, .yml or .json)", path.display());
        }
        for file in files {
            let bytes = std::fs::read(&file).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
            take(&file.display().to_string(), &bytes, home, &mut input);
        }
    }
    refuse_doubles(&mut input);
    Ok(input)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let meta = std::fs::metadata(path).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
    if !meta.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .and_then(|dir| dir.map(|e| e.map(|e| e.path())).collect())
        .map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
    entries.sort();
    for entry in entries {
        let hidden = entry.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        let manifest = entry.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if !hidden && (entry.is_dir() || manifest) {
            collect(&entry, files)?;
        }
    }
    Ok(())
}

fn take(file: &str, bytes: &[u8], home: &str, input: &mut Input) {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(e) => {
            let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count();
            let source = Source { file: file.to_owned(), document: 1, line };
            input.problems.push(Problem { source, message: "not UTF-8".into() });
            return;
        }
    };
    let read = manifest::read(file, text, home);
    input.documents.extend(read.documents);
    input.problems.extend(read.problems);
    input.other.extend(read.other);
}

/// One object may be given twice only if both are the same.
fn refuse_doubles(input: &mut Input) {
    let mut first: BTreeMap<Id, usize> = BTreeMap::new();
    let mut doubles = Vec::new();
    for (i, document) in input.documents.iter().enumerate() {
        let id = document.object.id();
        // Files for istioctl are often unnamed, and every one is a custom resource of its own.
        if id.kind == Kind::IstioOperator && id.name.is_empty() {
            continue;
        }
        match first.get(&id) {
            None => {
                first.insert(id, i);
            }
            Some(&earlier) => {
                let other = &input.documents[earlier];
                if other.raw != document.raw {
                    let Source { file, line, .. } = &other.source;
                    let message =
                        format!("{} {} is given twice: here and at {file}:{line}", document.kind, display(&id));
                    input.problems.push(Problem { source: document.source.clone(), message });
                }
                doubles.push(i);
            }
        }
    }
    let mut at = 0;
    input.documents.retain(|_| {
        at += 1;
        doubles.binary_search(&(at - 1)).is_err()
    });
}

/// `namespace/name`, or the name alone.
pub fn display(id: &Id) -> String {
    if id.namespace.is_empty() { id.name.to_string() } else { format!("{}/{}", id.namespace, id.name) }
}

/// The cluster that manifests make.
pub fn cluster(input: &Input) -> Snapshot {
    input.documents.iter().fold(Snapshot::offline(), |s, d| s.with(d.object.clone()))
}

/// The cluster that manifests describe, and whether some of them could not be read; those are named on stderr.
///
/// # Errors
/// A path that cannot be read at all.
pub fn described(paths: &[PathBuf]) -> Result<(Snapshot, bool), Failure> {
    let input = read(paths, "default")?;
    for problem in &input.problems {
        super::fail(&problem.to_string());
    }
    Ok((cluster(&input), !input.problems.is_empty()))
}
