//! Reading and running one case of what exists: a mesh, what is different in it, what the audit says.
#![allow(dead_code)] // each test target uses its own part

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use revguard::audit::{self, Audit, Entry};
use revguard::model::{Id, Kind, Object, key};
use revguard::rules::{Change, Policy, Repair};
use revguard::snapshot::Snapshot;
use revguard::wire::{find_kind, manifest, read_str, row};
use serde::Deserialize;
use serde_json::{Value, json};

/// One file: the head, then objects that are there besides the mesh's.
pub struct Case {
    pub path: String,
    pub head: Head,
    pub policy: Policy,
    pub world: World,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// A sentence.
    pub case: String,
    /// Why it must be so.
    #[serde(default)]
    pub because: String,
    /// `none`: nothing but what the case brings; else a mesh of two revisions and two tags; or a file beside the case.
    #[serde(default)]
    pub mesh: String,
    /// `KIND NAME` or `KIND NAMESPACE/NAME` of the mesh that are not there.
    #[serde(default)]
    pub without: Vec<String>,
    #[serde(default)]
    pub change: Vec<Edit>,
    /// As charts render them: without CA bundles, and not known to be all that there is.
    #[serde(default)]
    pub rendered: bool,
    #[serde(default)]
    pub policy: Value,
    /// `CODE KIND/NAME level` or `CODE KIND/NAMESPACE/NAME level`, in any order.
    #[serde(default)]
    pub expect: Vec<String>,
}

/// What is different about an object of the mesh.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    pub object: String,
    pub patch: Value,
}

/// Objects as an API server holds them.
#[derive(Clone, PartialEq)]
pub struct World {
    pub objects: Vec<Value>,
    pub rendered: bool,
}

/// What a CA bundle looks like.
pub fn ca(name: &str) -> String {
    use base64::Engine as _;
    let pem = format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n");
    base64::engine::general_purpose::STANDARD.encode(pem)
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit")
}

pub fn now() -> jiff::Timestamp {
    "2026-06-15T12:00:00Z".parse().expect("a timestamp")
}

impl Case {
    /// Every case, sorted by path.
    pub fn all() -> &'static [Case] {
        static ALL: LazyLock<Vec<Case>> = LazyLock::new(Case::read_all);
        &ALL
    }

    fn read_all() -> Vec<Case> {
        let only = std::env::var("CASE").unwrap_or_default();
        let mut files = Vec::new();
        for rule in std::fs::read_dir(folder()).expect("tests/audit") {
            for file in std::fs::read_dir(rule.expect("a folder").path()).expect("a folder of cases") {
                files.push(file.expect("a file").path());
            }
        }
        files.retain(|f| f.extension().is_some_and(|e| e == "yaml") && f.to_string_lossy().contains(&only));
        files.sort();
        files.iter().map(|f| Case::read(f)).collect()
    }

    fn read(file: &Path) -> Case {
        let path = file.strip_prefix(folder()).expect("below tests/audit").display().to_string();
        let text = std::fs::read_to_string(file).expect("a readable case");
        let (head, rest) = text.split_once("\n---\n").unwrap_or((&text, ""));
        let head: Head = manifest::from_yaml(head).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mesh = match head.mesh.as_str() {
            "none" => String::new(),
            "" => include_str!("../../src/cli/demo/mesh.yaml").to_owned(),
            name => std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit_table").join(name))
                .unwrap_or_else(|e| panic!("{path}: {name}: {e}")),
        };
        let mut objects = documents(&path, &mesh);
        if !head.rendered {
            objects.iter_mut().for_each(fill);
        }
        for name in &head.without {
            let before = objects.len();
            objects.retain(|o| shown(o) != *name);
            assert!(objects.len() < before, "{path}: there is no {name}");
        }
        for edit in &head.change {
            let object = objects.iter_mut().find(|o| shown(o) == edit.object);
            let object = object.unwrap_or_else(|| panic!("{path}: there is no {}", edit.object));
            apply(object, &edit.patch).unwrap_or_else(|e| panic!("{path}: {}: {e}", edit.object));
        }
        for own in documents(&path, rest) {
            objects.retain(|o| shown(o) != shown(&own));
            objects.push(own);
        }
        let mut policy = match &head.policy {
            Value::Null => json!({}),
            p => p.clone(),
        };
        if policy.get("repair").is_none() {
            policy["repair"] = json!("all");
        }
        let policy = Policy::parse(&policy.to_string()).unwrap_or_else(|e| panic!("{path}: policy: {e}"));
        let world = World { objects, rendered: head.rendered };
        Case { path, head, policy, world }
    }

    /// The folder: the rule that the case is about.
    pub fn rule(&self) -> String {
        self.path.split('/').next().unwrap_or("").to_uppercase()
    }

    pub fn audit(&self) -> Audit {
        self.world.audit(&self.policy)
    }
}

fn documents(path: &str, text: &str) -> Vec<Value> {
    let read = manifest::read(path, text, "default");
    assert!(read.problems.is_empty(), "{path}: {:?}", read.problems);
    read.documents.into_iter().map(|d| d.raw).collect()
}

/// istiod has been at work: its webhooks trust it.
fn fill(object: &mut Value) {
    for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
        if webhook["clientConfig"].get("caBundle").is_none() {
            webhook["clientConfig"]["caBundle"] = json!(ca("mesh"));
        }
    }
}

/// Applies operations of a JSON patch.
pub fn apply(object: &mut Value, operations: &Value) -> Result<(), String> {
    let patch: json_patch::Patch = serde_json::from_value(operations.clone()).map_err(|e| e.to_string())?;
    json_patch::patch(object, &patch).map_err(|e| e.to_string())
}

/// `KIND NAMESPACE/NAME` or `KIND NAME`.
fn shown(object: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let (kind, meta) = (text(&object["kind"]), &object["metadata"]);
    match text(&meta["namespace"]) {
        ns if ns.is_empty() => format!("{kind} {}", text(&meta["name"])),
        ns => format!("{kind} {ns}/{}", text(&meta["name"])),
    }
}

fn id(object: &Value) -> Option<Id> {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let version = text(&object["apiVersion"]);
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let kind = find_kind(group, &text(&object["kind"]))?;
    let (namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    Some(Id { kind, namespace: namespace.into(), name: name.into() })
}

impl World {
    pub fn snapshot(&self) -> Snapshot {
        let start = if self.rendered { Snapshot::offline() } else { Snapshot::whole() };
        self.objects.iter().fold(start, |snapshot, raw| {
            let Some(id) = id(raw) else { return snapshot };
            let mut object = read_str(id.kind, &raw.to_string()).unwrap_or_else(|e| panic!("{e}\n{raw:#}"));
            if let Object::Namespace(ns) = &mut object {
                ns.meta.labels = ns.meta.labels.with(key::NAMESPACE_NAME, &id.name);
            }
            snapshot.with(object)
        })
    }

    pub fn audit(&self, policy: &Policy) -> Audit {
        audit::run(policy, &self.snapshot(), now())
    }

    /// Carries a repair out, as the API server would.
    pub fn mend(&mut self, repair: &Repair) -> Result<(), String> {
        let at = self.objects.iter().position(|o| id(o).as_ref() == Some(&repair.object));
        match (&repair.change, at) {
            (Change::Create(manifest), None) => {
                if id(manifest).as_ref() != Some(&repair.object) {
                    return Err(format!("makes something else than it says: {manifest}"));
                }
                self.objects.push(manifest.clone());
            }
            (Change::Patch(operations), Some(at)) => {
                let before = self.objects[at].clone();
                apply(&mut self.objects[at], &serde_json::to_value(operations).expect("JSON"))?;
                if self.objects[at] == before {
                    return Err("changes nothing".into());
                }
            }
            (Change::Delete, Some(at)) => {
                self.objects.remove(at);
            }
            (change, at) => return Err(format!("{change:?} of an object that is there: {}", at.is_some())),
        }
        Ok(())
    }

    /// What every istiod does about the configurations that carry its revision: it fills in its CA, and sets a validator to
    /// `Fail` once it works.
    pub fn settle(&mut self) {
        let snapshot = self.snapshot();
        for object in &mut self.objects {
            let Some(id) = id(object) else { continue };
            let Some(rev) = object["metadata"]["labels"]["istio.io/rev"].as_str().map(str::to_owned) else { continue };
            for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
                let service = &webhook["clientConfig"]["service"];
                let (namespace, name) = (service["namespace"].as_str(), service["name"].as_str());
                let (Some(namespace), Some(name)) = (namespace, name) else { continue };
                let backend =
                    revguard::model::Backend::Service { namespace: namespace.into(), name: name.into(), port: 443 };
                let serving = snapshot.serving_revision(&backend).filter(|r| r.as_str() == rev);
                let ready = matches!(snapshot.answers(&backend), Ok(revguard::snapshot::mesh::Answers::Ready(_)));
                if serving.is_none() || !ready {
                    continue;
                }
                webhook["clientConfig"]["caBundle"] = json!(ca("mesh"));
                if id.kind == Kind::ValidatingWebhook {
                    webhook["failurePolicy"] = json!("Fail");
                }
            }
        }
    }
}

/// `CODE KIND/NAME level`.
pub fn line(entry: &Entry) -> String {
    let kind = row(entry.object.kind).name;
    let place = match entry.object.namespace.as_str() {
        "" => entry.object.name.to_string(),
        ns => format!("{ns}/{}", entry.object.name),
    };
    format!("{} {kind}/{place} {}", entry.rule.code, entry.level.as_str())
}

/// The golden text of an audit.
pub fn text(audit: &Audit) -> String {
    let mut out = String::new();
    for e in &audit.entries {
        out += &format!("{} ({})\n  {}\n  why:    {}\n", line(e), e.rule.name, e.what, e.why);
        out += &format!("  fix:    {}\n", e.fix.replace('\n', "\n          "));
        out += &format!("  after:  {} s\n", e.grace.as_secs());
        if let Some(repair) = &e.repair {
            out += &format!("  repair: {}\n", repair.says);
            let change = match &repair.change {
                Change::Patch(operations) => {
                    operations.iter().map(|o| serde_json::to_string(o).expect("JSON")).collect::<Vec<_>>()
                }
                Change::Delete => vec!["delete".to_owned()],
                Change::Create(manifest) => vec![format!("create {manifest}")],
            };
            change.iter().for_each(|c| out += &format!("          {c}\n"));
        }
    }
    for u in &audit.unknown {
        out += &format!("unknown: {u}\n");
    }
    for e in &audit.exemptions {
        let until = e.until.map_or_else(String::new, |d| format!(" until {d}"));
        let void = e.void.as_deref().map_or_else(String::new, |v| format!(" ({v})"));
        out += &format!("exempt: {} {}{until}: {}{void}\n", e.object.name, e.code, e.reason);
    }
    if out.is_empty() { "nothing\n".to_owned() } else { out }
}
