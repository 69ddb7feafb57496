//! An AdmissionReview as the API server writes it: for the demonstration, the tests and the benches.

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
    )
}
