//! What `check` reports, in the shape of its JSON.

use clap::ValueEnum;
use serde::Serialize;

use crate::wire::manifest::Document;

#[derive(Clone, Copy, Default, ValueEnum, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
    Sarif,
    Junit,
    Github,
}

/// What `check` found.
#[derive(Serialize)]
pub struct Report {
    pub results: Vec<Finding>,
    pub errors: Vec<Error>,
    pub summary: Summary,
}

/// One finding on one object.
#[derive(Serialize)]
pub struct Finding {
    pub code: &'static str,
    pub name: &'static str,
    pub action: &'static str,
    pub object: ObjectRef,
    pub source: SourceRef,
    pub operation: &'static str,
    pub field: String,
    pub what: String,
    pub why: String,
    pub fix: String,
    /// The text of a denial.
    #[serde(skip)]
    pub block: String,
    #[serde(skip)]
    pub line: usize,
}

#[derive(Serialize, Clone)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Serialize)]
pub struct SourceRef {
    pub file: String,
    pub document: usize,
}

/// Input that could not be read.
#[derive(Serialize)]
pub struct Error {
    pub file: String,
    pub document: usize,
    pub line: usize,
    pub message: String,
}

#[derive(Serialize, Default)]
pub struct Summary {
    /// Objects judged.
    pub objects: usize,
    /// Objects of kinds that no rule looks at.
    pub skipped: usize,
    pub deny: usize,
    pub warn: usize,
    pub audit: usize,
    pub errors: usize,
}

impl ObjectRef {
    pub fn of(document: &Document) -> Self {
        let meta = document.object.meta();
        ObjectRef {
            api_version: document.api_version.clone(),
            kind: document.kind.clone(),
            namespace: meta.namespace.to_string(),
            name: meta.name.to_string(),
        }
    }

    /// `Deployment shop/web`.
    pub fn display(&self) -> String {
        let name = if self.name.is_empty() { "(unnamed)" } else { &self.name };
        if self.namespace.is_empty() {
            format!("{} {name}", self.kind)
        } else {
            format!("{} {}/{name}", self.kind, self.namespace)
        }
    }
}
