//! An AdmissionReview as the API server writes it: for the demonstration, the tests and the benches.

use std::fmt;

use serde_json::{Value, json};

use crate::model::Kind;
use crate::rules::User;
use crate::wire::row;

/// What is written.
pub enum Wanted<'a> {
    Create(&'a Value),
    Update {
        old: &'a Value,
        new: &'a Value,
    },
    Delete(&'a Value),
    /// Through the scale subresource of the object.
    Scale {
        object: &'a Value,
        replicas: u64,
    },
}

/// The body of a request. Fields stand in the API server's order, which a map of `serde_json` would not keep.
pub fn body(kind: Kind, wanted: &Wanted<'_>, user: &User, uid: &str, dry_run: bool) -> String {
    let row = row(kind);
    let stored = match wanted {
        Wanted::Create(o) | Wanted::Delete(o) => *o,
        Wanted::Update { new, .. } => *new,
        Wanted::Scale { object, .. } => *object,
    };
    let text = |path: &str| stored.pointer(path).and_then(Value::as_str).unwrap_or("").to_owned();
    let api_version = text("/apiVersion");
    let version = api_version.rsplit('/').next().unwrap_or("v1");
    let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
    let scale = |n: u64| {
        // The API server omits `replicas` when it is 0.
        let spec = if n == 0 { json!({}) } else { json!({"replicas": n}) };
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
    };
    let (operation, new, old) = match wanted {
        Wanted::Create(o) => ("CREATE", (*o).clone(), Value::Null),
        Wanted::Update { old, new } => ("UPDATE", (*new).clone(), (*old).clone()),
        Wanted::Delete(o) => ("DELETE", Value::Null, (*o).clone()),
        Wanted::Scale { object, replicas } => {
            let before = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
            ("UPDATE", scale(*replicas), scale(before))
        }
    };
    let scales = matches!(wanted, Wanted::Scale { .. });
    let gvk = if scales {
        json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
    } else {
        json!({"group": row.group, "version": version, "kind": row.name})
    };
    let gvr = json!({"group": row.group, "version": version, "resource": row.plural});
    let sub = if scales { r#","subResource":"scale""# } else { "" };
    let namespace = if kind == Kind::Namespace { &name } else { &namespace };
    let at = if namespace.is_empty() { String::new() } else { format!(r#","namespace":{}"#, json!(namespace)) };
    let user = json!({"username": user.name, "groups": user.groups});
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":{uid},"kind":{gvk},"resource":{gvr}{sub},"name":{name}{at},"operation":"{operation}","userInfo":{user},"object":{new},"oldObject":{old},"dryRun":{dry_run},"options":null}}}}"#,
        uid = json!(uid),
        name = json!(name),
        new = Ordered(&new),
        old = Ordered(&old),
    )
}

/// Where the API server's types have a field that does not stand in alphabetical order, by the order of their structs.
/// A reader that has the name of a container first can leave the rest unread, so a bench must not be kinder or harsher
/// than life.
const ORDER: [&str; 34] = [
    "kind",
    "apiVersion",
    "metadata",
    "spec",
    "status",
    "manager",
    "operation",
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "replicas",
    "selector",
    "template",
    "strategy",
    "volumes",
    "initContainers",
    "containers",
    "image",
    "command",
    "args",
    "ports",
    "env",
    "resources",
    "volumeMounts",
];

/// Prints a value with its keys in that order, then the others as they are.
struct Ordered<'a>(&'a Value);

impl fmt::Display for Ordered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Object(map) => {
                let mut pairs: Vec<_> = map.iter().collect();
                pairs.sort_by_key(|(k, _)| ORDER.iter().position(|o| o == k).unwrap_or(ORDER.len()));
                f.write_str("{")?;
                for (i, (key, value)) in pairs.into_iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{}:{}", json!(key), Ordered(value))?;
                }
                f.write_str("}")
            }
            Value::Array(all) => {
                f.write_str("[")?;
                for (i, value) in all.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{}", Ordered(value))?;
                }
                f.write_str("]")
            }
            scalar => write!(f, "{scalar}"),
        }
    }
}
