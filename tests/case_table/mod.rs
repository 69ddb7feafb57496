//! Reading and running one case. Shared by the tests in process and those on a real API server.
#![allow(dead_code)] // each test target uses its own part

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use revguard::admission::compose::{self, Wanted};
use revguard::admission::webhook::{Shared, Webhook, answer, mended};
use revguard::admission::{Endpoint, Reviewer};
use revguard::model::Object;
use revguard::rules::judge::mend;
use revguard::rules::request::LazyObject;
use revguard::rules::{Operation, Policy, Request, User, judge};
use revguard::snapshot::Snapshot;
use revguard::wire::manifest::{self, Document};
use serde::Deserialize;
use serde_json::Value;

/// One file, read from top to bottom: the head, the cluster's objects, the request's object.
#[derive(Clone)]
pub struct Case {
    pub path: String,
    pub head: Head,
    pub expect: Vec<String>,
    pub warns: Vec<String>,
    pub mutate: bool,
    pub policy: Policy,
    pub cluster: Vec<Document>,
    pub request: Document,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// A sentence.
    pub case: String,
    /// Why it must be so.
    #[serde(default)]
    pub because: String,
    #[serde(default = "jane")]
    pub user: String,
    #[serde(default)]
    pub groups: Vec<String>,
    /// create, update, delete or scale.
    pub operation: String,
    /// Of a scale.
    #[serde(default)]
    pub replicas: u32,
    /// `none`: no control plane but what the case brings. Default: two revisions.
    #[serde(default)]
    pub mesh: String,
    /// The request goes to the mutating webhook.
    #[serde(default)]
    pub mutate: bool,
    #[serde(default)]
    pub policy: Value,
    /// Codes that deny.
    #[serde(default)]
    pub expect: Vec<String>,
    /// Codes that warn.
    #[serde(default)]
    pub warns: Vec<String>,
    /// Why a real API server cannot play this case; empty means that it does.
    #[serde(default)]
    pub not_live: String,
}

fn jane() -> String {
    "jane".into()
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub denied: Vec<String>,
    pub warned: Vec<String>,
    pub message: String,
    pub warnings: Vec<String>,
    pub patch: Option<Value>,
}

impl Outcome {
    /// The golden file.
    pub fn text(&self) -> String {
        let mut out =
            if self.denied.is_empty() { "allowed\n".to_owned() } else { format!("denied\n{}\n", self.message) };
        for w in &self.warnings {
            out += &format!("Warning: {w}\n");
        }
        if let Some(patch) = &self.patch {
            out += &format!("patch: {patch}\n");
        }
        out
    }
}

const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

/// Read once: every case stands on it.
static MESH: LazyLock<Vec<Document>> =
    LazyLock::new(|| manifest::read("mesh", include_str!("../../src/cli/demo/mesh.yaml"), "default").documents);

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

impl Case {
    /// Every case, sorted by path.
    pub fn all() -> Vec<Case> {
        static ALL: LazyLock<Vec<Case>> = LazyLock::new(Case::read_all);
        ALL.clone()
    }

    fn read_all() -> Vec<Case> {
        let only = std::env::var("CASE").unwrap_or_default();
        let mut files = Vec::new();
        for rule in std::fs::read_dir(folder()).expect("tests/cases") {
            for file in std::fs::read_dir(rule.expect("a folder").path()).expect("a folder of cases") {
                files.push(file.expect("a file").path());
            }
        }
        files.retain(|f| f.extension().is_some_and(|e| e == "yaml") && f.to_string_lossy().contains(&only));
        files.sort();
        files.iter().map(|f| Case::read(f)).collect()
    }

    pub fn read(file: &Path) -> Case {
        let path = file.strip_prefix(folder()).expect("below tests/cases").display().to_string();
        let text = std::fs::read_to_string(file).expect("a readable case");
        let (head, rest) = text.split_once("\n---\n").unwrap_or_else(|| panic!("{path}: a head, then objects"));
        let head: Head = manifest::from_yaml(head).unwrap_or_else(|e| panic!("{path}: {e}"));
        let read = manifest::read(&path, rest, "default");
        assert!(read.problems.is_empty(), "{path}: {:?}", read.problems);
        let mut cluster = if head.mesh == "none" { Vec::new() } else { MESH.clone() };
        let mut own = read.documents;
        let request = own.pop().unwrap_or_else(|| panic!("{path}: no object to judge"));
        // A case's own object replaces the mesh's of the same name.
        cluster.retain(|d| !own.iter().any(|o| o.object.id() == d.object.id()));
        cluster.extend(own);
        let policy = match &head.policy {
            Value::Null => Policy::default(),
            p => Policy::parse(&p.to_string()).unwrap_or_else(|e| panic!("{path}: policy: {e}")),
        };
        let (expect, warns, mutate) = (head.expect.clone(), head.warns.clone(), head.mutate);
        Case { path, head, expect, warns, mutate, policy, cluster, request }
    }

    /// The folder: the rule that the case is about.
    pub fn rule(&self) -> &str {
        self.path.split('/').next().unwrap_or("")
    }

    pub fn snapshot(&self) -> Snapshot {
        self.cluster.iter().fold(Snapshot::whole(), |s, d| s.with(d.object.clone()))
    }

    pub fn stored(&self) -> Option<&Document> {
        self.cluster.iter().rev().find(|d| d.object.id() == self.request.object.id())
    }

    pub fn user(&self) -> User {
        User { name: self.head.user.clone(), groups: self.head.groups.clone() }
    }

    pub fn now() -> jiff::Timestamp {
        "2026-06-15T12:00:00Z".parse().expect("a timestamp")
    }

    /// Depth 1: values in, verdict out.
    pub fn judge(&self) -> Outcome {
        self.judge_over(Snapshot::whole()).unwrap_or_else(|unknown| panic!("{}: {unknown}", self.path))
    }

    /// The same over the case's objects in a snapshot that knows more or less than they say. An error is what is still to
    /// come, for which the API server has to ask again.
    pub fn judge_over(&self, start: Snapshot) -> Result<Outcome, String> {
        let stored = || {
            self.stored().unwrap_or_else(|| panic!("{}: the object is not in the cluster", self.path)).object.clone()
        };
        let (operation, object, old) = match self.head.operation.as_str() {
            "create" => (Operation::Create, self.request.object.clone(), LazyObject::none()),
            "update" => (Operation::Update, self.request.object.clone(), LazyObject::ready(stored())),
            "delete" => (Operation::Delete, stored(), LazyObject::none()),
            "scale" => {
                let (Object::Workload(kind, mut new), old) = (stored(), stored()) else {
                    panic!("{}: nothing to scale", self.path)
                };
                new.replicas = Some(self.head.replicas);
                (Operation::Update, Object::Workload(kind, new), LazyObject::ready(old))
            }
            other => panic!("{}: operation {other}", self.path),
        };
        let sub_resource = if self.head.operation == "scale" { "scale".into() } else { String::new() };
        let request = Request { user: self.user(), operation, sub_resource, object, old };
        let snapshot = self.cluster.iter().fold(start, |s, d| s.with(d.object.clone()));
        if self.mutate {
            let patches = mend(&self.policy, &request, &snapshot, Self::now()).map_err(|u| u.to_string())?;
            return Ok(self.outcome(&serde_json::to_value(mended("u".into(), &patches)).unwrap()));
        }
        let verdict = judge(&self.policy, &request, &snapshot, Self::now());
        if let Some(unknown) = &verdict.not_ready {
            return Err(unknown.to_string());
        }
        Ok(self.outcome(&serde_json::to_value(answer("u".into(), &verdict, Self::now())).unwrap()))
    }

    /// Depth 2: the bytes that an API server sends, and those that it gets.
    pub fn review(&self) -> Outcome {
        let shared = Shared::new(self.snapshot(), self.policy.clone());
        let webhook = Webhook { shared, clock: Self::now, observe: Box::new(|_| {}) };
        let endpoint = if self.mutate { Endpoint::Mutate } else { Endpoint::Validate };
        let reply = webhook.review(endpoint, self.body().as_bytes());
        assert_eq!(reply.status, 200, "{}: {}", self.path, String::from_utf8_lossy(&reply.body));
        let answer: Value = serde_json::from_slice(&reply.body).expect("an AdmissionReview");
        assert_eq!(answer["response"]["uid"], UID);
        self.outcome(&answer["response"])
    }

    /// The AdmissionReview of this case.
    pub fn body(&self) -> String {
        let stored = || &self.stored().unwrap_or_else(|| panic!("{}: the object is not in the cluster", self.path)).raw;
        let wanted = match self.head.operation.as_str() {
            "create" => Wanted::Create(&self.request.raw),
            "update" => Wanted::Update { old: stored(), new: &self.request.raw },
            "delete" => Wanted::Delete(stored()),
            _ => Wanted::Scale { object: stored(), replicas: self.head.replicas.into() },
        };
        compose::body(self.request.object.kind(), &wanted, &self.user(), UID, false)
    }

    fn outcome(&self, response: &Value) -> Outcome {
        use base64::Engine as _;
        let annotations = &response["auditAnnotations"];
        let codes = |key: &str| -> Vec<String> {
            let text = annotations[key].as_str().unwrap_or("");
            text.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect()
        };
        let patch = response["patch"].as_str().map(|p| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(p).expect("base64");
            serde_json::from_slice(&bytes).expect("a JSON patch")
        });
        Outcome {
            denied: codes("denied"),
            warned: codes("warned"),
            message: response["status"]["message"].as_str().unwrap_or("").to_owned(),
            warnings: response["warnings"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|w| w.as_str().map(str::to_owned))
                .collect(),
            patch,
        }
    }

    /// Codes as written by hand, then the text as in the golden file.
    pub fn compare(&self, outcome: &Outcome) -> Result<(), String> {
        let sorted = |codes: &[String]| {
            let mut codes = codes.to_vec();
            codes.sort();
            codes.dedup();
            codes
        };
        if sorted(&self.expect) != sorted(&outcome.denied) || sorted(&self.warns) != sorted(&outcome.warned) {
            return Err(format!(
                "{}: {}\n  expected denied {:?} warned {:?}\n  got      denied {:?} warned {:?}\n{}",
                self.path,
                self.head.case,
                self.expect,
                self.warns,
                outcome.denied,
                outcome.warned,
                outcome.text()
            ));
        }
        let golden = folder().join(&self.path).with_extension("txt");
        let text = outcome.text();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&golden, &text).map_err(|e| e.to_string())?;
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        if wanted == text { Ok(()) } else { Err(format!("{}:\n--- golden\n{wanted}--- got\n{text}", self.path)) }
    }

    pub fn switch_off(&mut self, code: &str) {
        self.policy.rules.insert(code.to_owned(), revguard::rules::policy::RuleAction::Off);
    }

    /// The same case with the patched object.
    pub fn patched(&self, patch: &Value) -> Case {
        let mut raw = self.request.raw.clone();
        let patch: json_patch::Patch = serde_json::from_value(patch.clone()).expect("a JSON patch");
        json_patch::patch(&mut raw, &patch).expect("a patch that applies");
        let text = raw.to_string();
        let mut read = manifest::read(&self.path, &text, "default");
        Case { request: read.documents.remove(0), ..self.clone() }
    }
}
