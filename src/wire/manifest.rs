//! Manifests: YAML of many documents, JSON, `List`s.
//!
//! Takes text, not paths: whoever calls it has read the file. Every problem names the file, the document and the line;
//! a document that cannot be read never hides the others.

use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed};
use serde_json::Value;

use super::tree::Tree;
use super::{OfKind, find_kind, row};
use crate::model::{Kind, Object, Str};

/// One object of a manifest.
#[derive(Clone, Debug)]
pub struct Document {
    pub source: Source,
    pub api_version: String,
    /// `kind` as written.
    pub kind: String,
    pub object: Object,
    /// The manifest itself, for what has to be sent to an API server.
    pub raw: Value,
}

/// Where an object stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub file: String,
    /// Counted from 1.
    pub document: usize,
    /// First line of the document, counted from 1.
    pub line: usize,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub source: Source,
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Source { file, document, line } = &self.source;
        write!(f, "{file}:{line}: document {document}: {}", self.message)
    }
}

/// What a file held.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    pub documents: Vec<Document>,
    pub problems: Vec<Problem>,
    /// Objects of kinds that no rule looks at, as they are written.
    pub other: Vec<Value>,
}

/// Reads a whole file. `home` is the namespace of namespaced objects that name none, as with `kubectl -n`.
pub fn read(file: &str, text: &str, home: &str) -> Manifest {
    let mut out = Manifest::default();
    if text.trim_start().starts_with(['{', '['])
        && let Ok(Tree(value)) = json(text)
    {
        let source = Source { file: file.to_owned(), document: 1, line: 1 };
        take(value, &source, home, &mut out);
        return out;
    }
    for (i, (first_line, part)) in split(text).into_iter().enumerate() {
        let source = Source { file: file.to_owned(), document: i + 1, line: first_line };
        match yaml_error_line(from_yaml_located::<Tree>(part), first_line) {
            Ok(Tree(Value::Null)) => {}
            Ok(Tree(value)) => take(value, &source, home, &mut out),
            Err((line, message)) => out.problems.push(Problem { source: Source { line, ..source }, message }),
        }
    }
    out
}

fn json(text: &str) -> Result<Tree, serde_json::Error> {
    serde_json::from_str(text)
}

fn take(value: Value, source: &Source, home: &str, out: &mut Manifest) {
    let problem = |message: String| Problem { source: source.clone(), message };
    let Value::Object(map) = &value else {
        out.problems.push(problem("not an object: expected apiVersion, kind and metadata".into()));
        return;
    };
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let (api_version, kind_name) = (text("apiVersion"), text("kind"));
    if api_version.is_empty() || kind_name.is_empty() {
        out.problems.push(problem("apiVersion and kind are needed".into()));
        return;
    }
    if kind_name.ends_with("List")
        && let Some(Value::Array(items)) = map.get("items")
    {
        // Items of a typed list (`DeploymentList`) may leave out their own kind.
        let item_kind = kind_name.trim_end_matches("List");
        for mut item in items.iter().cloned() {
            if let Value::Object(item) = &mut item
                && !item_kind.is_empty()
            {
                item.entry("apiVersion").or_insert_with(|| Value::String(api_version.clone()));
                item.entry("kind").or_insert_with(|| Value::String(item_kind.to_owned()));
            }
            take(item, source, home, out);
        }
        return;
    }
    let group = api_version.rsplit_once('/').map_or("", |(g, _)| g);
    let Some(kind) = find_kind(group, &kind_name) else {
        out.other.push(value);
        return;
    };
    match typed(kind, &value) {
        Ok(mut object) => {
            if let Err(message) = complete(kind, &mut object, home) {
                out.problems.push(problem(message));
                return;
            }
            out.documents.push(Document { source: source.clone(), api_version, kind: kind_name, object, raw: value });
        }
        Err(message) => out.problems.push(problem(format!("{kind_name}: {message}"))),
    }
}

/// Reads one value as an object of this kind; the error names the field.
///
/// # Errors
/// A field of the wrong type.
pub fn typed(kind: Kind, value: &Value) -> Result<Object, String> {
    OfKind(kind).deserialize(value).map_err(|plain| {
        let mut track = serde_path_to_error::Track::new();
        let again = OfKind(kind).deserialize(serde_path_to_error::Deserializer::new(value, &mut track));
        let path = track.path().to_string();
        match again {
            Err(e) if path != "." => format!("{path}: {e}"),
            _ => plain.to_string(),
        }
    })
}

/// Adds what the API server would: the namespace's name label, the namespace of an object that names none.
fn complete(kind: Kind, object: &mut Object, home: &str) -> Result<(), String> {
    let meta = object.meta_mut();
    // istioctl reads IstioOperators without a name, and rules judge them; everything else needs one.
    if meta.name.is_empty() && kind != Kind::IstioOperator {
        return Err("metadata.name is needed".into());
    }
    match row(kind).scope {
        super::Scope::Cluster => meta.namespace = Str::default(),
        super::Scope::Namespaced if meta.namespace.is_empty() && kind != Kind::IstioOperator => {
            meta.namespace = Str::from(home)
        }
        super::Scope::Namespaced => {}
    }
    if kind == Kind::Namespace {
        let name = meta.name.clone();
        meta.labels = meta.labels.with(crate::model::key::NAMESPACE_NAME, &name);
    }
    Ok(())
}

/// Documents and the line that each begins on. Lines that start with `---` separate, as in kubectl.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 1, 0);
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let is_mark =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_mark {
            parts.push((first_line, &text[start..at]));
            start = at + line.len();
            first_line = i + 2;
        }
        at += line.len();
    }
    parts.push((first_line, &text[start..]));
    parts.retain(|(_, part)| {
        part.lines().any(|l| {
            let l = l.trim_start();
            !l.is_empty() && !l.starts_with('#')
        })
    });
    parts
}

/// Limits for one document: a dump of a whole mesh fits, a bomb of aliases does not.
fn options() -> serde_saphyr::Options {
    let mut budget = serde_saphyr::budget::Budget::default();
    budget.max_events = 50_000_000;
    budget.max_nodes = 20_000_000;
    budget.max_total_scalar_bytes = 1 << 30;
    // Schemas of custom resource definitions nest deeper than the default of 64.
    budget.max_depth = 256;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.with_snippet = false;
    options
}

fn from_yaml_located<T: DeserializeOwned>(text: &str) -> Result<T, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, options())
}

fn yaml_error_line<T>(read: Result<T, serde_saphyr::Error>, first_line: usize) -> Result<T, (usize, String)> {
    read.map_err(|e| {
        let line =
            e.location().map_or(first_line, |l| first_line + usize::try_from(l.line()).unwrap_or(1).saturating_sub(1));
        (line, e.without_snippet().to_string())
    })
}

/// Reads YAML (or JSON) text into any type; the error names line and column.
///
/// # Errors
/// Text that is not YAML, a key given twice, a field of the wrong type or an unknown one where the type refuses those.
pub fn from_yaml<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, String> {
    from_yaml_located(text).map_err(|e| e.without_snippet().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_lists_and_json_are_read_and_bad_ones_do_not_hide_the_rest() {
        let text = "# a comment\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: b\n  labels: {x: [1]}\n---\nkind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: s}}\n- {apiVersion: v1, kind: Secret, metadata: {name: s}}\n---\na: [\n";
        let m = read("f.yaml", text, "home");
        let names: Vec<_> = m.documents.iter().map(|d| d.object.id()).collect();
        assert_eq!(names.len(), 2, "{:?}", m.problems);
        assert_eq!(names[1].namespace, "home");
        assert_eq!(m.other.len(), 1);
        assert_eq!(m.problems.len(), 2, "{:?}", m.problems);
        assert_eq!(m.problems[0].source, Source { file: "f.yaml".into(), document: 2, line: 7 });
        assert!(m.problems[0].message.contains("metadata.labels"), "{}", m.problems[0].message);
        assert!(m.problems[1].source.line >= 18, "{:?}", m.problems[1]);
    }

    #[test]
    fn a_key_given_twice_is_refused_in_yaml_and_in_json() {
        for text in
            ["apiVersion: v1\nkind: Namespace\nkind: Pod\n", r#"{"apiVersion":"v1","kind":"Namespace","kind":"Pod"}"#]
        {
            let m = read("f", text, "default");
            assert_eq!(m.problems.len(), 1, "{text}: {:?}", m.documents);
        }
    }
}
