//! The way back from a repair: inverse patches in an annotation, copies of what was removed in a ConfigMap.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::names::Names;
use super::resource::{At, CONFIG_MAPS, Resource};
use super::write::{Change, Held, Write, WriteError, Writer};
use crate::model::text::pointed;
use crate::model::{Id, Labels, Object, key};
use crate::rules::Rule;
use crate::rules::flaw::REPAIRED;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::Loop;

/// Content of the annotation `revguard.dev/repaired`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub rule: String,
    pub at: String,
    pub undo: Undo,
}

/// What takes a repair back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Undo {
    /// Operations of a JSON patch.
    Patch(Vec<Value>),
    /// The object was made by the repair.
    #[serde(with = "delete")]
    Delete,
}

/// `"delete"`, which serde's untagged enums cannot spell by themselves.
mod delete {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("delete")
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        let word = String::deserialize(deserializer)?;
        if word == "delete" { Ok(()) } else { Err(D::Error::custom("neither a JSON patch nor \"delete\"")) }
    }
}

impl Record {
    /// Of an annotation's value.
    pub fn read(value: Option<&str>) -> Option<Record> {
        serde_json::from_str(value?).ok()
    }
}

/// The annotation's value.
pub fn record(rule: &Rule, now: Timestamp, undo: &Undo) -> String {
    let at = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let record = Record { rule: rule.code.to_owned(), at, undo: undo.clone() };
    serde_json::to_string(&record).expect("strings and JSON")
}

/// The operations of a repair, and the annotation that takes them back.
///
/// # Errors
/// Operations that do not fit the object, or that change nothing.
pub fn with_way_back(fresh: &Value, operations: Vec<Value>, rule: &Rule, now: Timestamp) -> Result<Vec<Value>, String> {
    let patch: json_patch::Patch =
        serde_json::from_value(Value::Array(operations.clone())).map_err(|e| format!("the repair is no patch: {e}"))?;
    let mut mended = fresh.clone();
    json_patch::patch(&mut mended, &patch).map_err(|e| format!("the repair does not fit the object: {e}"))?;
    if mended == *fresh {
        return Err("the repair would change nothing".to_owned());
    }
    let back = serde_json::to_value(json_patch::diff(&mended, fresh)).expect("a patch is JSON");
    let undo = guarded(&mended, back.as_array().cloned().unwrap_or_default());
    let mut operations = operations;
    operations.push(annotate(&mended, key::REPAIRED, &record(rule, now, &Undo::Patch(undo))));
    Ok(operations)
}

/// Only what the repair made is taken back: before each operation, a test that it is still there.
fn guarded(mended: &Value, back: Vec<Value>) -> Vec<Value> {
    let mut out = Vec::new();
    for operation in back {
        let path = operation["path"].as_str().unwrap_or_default().to_owned();
        // An istiod fills in its caBundle whenever it likes.
        let ours = !path.ends_with("/caBundle") && matches!(operation["op"].as_str(), Some("replace" | "remove"));
        if ours && let Some(value) = mended.pointer(&path) {
            out.push(json!({"op": "test", "path": path, "value": value}));
        }
        out.push(operation);
    }
    out
}

/// The undo operations, and the annotations as they are afterwards.
pub fn closing(mut operations: Vec<Value>) -> Vec<Value> {
    operations.push(json!({"op": "remove", "path": pointer(key::REPAIRED)}));
    operations.push(json!({"op": "replace", "path": pointer(key::REPAIR), "value": "off"}));
    operations
}

fn pointer(annotation: &str) -> String {
    format!("/metadata/annotations/{}", pointed(annotation))
}

fn annotate(object: &Value, annotation: &str, value: &str) -> Value {
    if object["metadata"]["annotations"].is_object() {
        json!({"op": "add", "path": pointer(annotation), "value": value})
    } else {
        json!({"op": "add", "path": "/metadata/annotations", "value": {annotation: value}})
    }
}

/// Objects whose last repair somebody wants taken back.
pub fn asked(snapshot: &Snapshot) -> Vec<Id> {
    let wants = |o: &&Object| {
        let annotations: &Labels = &o.meta().annotations;
        annotations.is(key::REPAIR, "undo") && !o.meta().deleting
    };
    REPAIRED.iter().flat_map(|kind| snapshot.raw(*kind)).filter(wants).map(Object::id).collect()
}

/// Copies take at most this much of the 1 MiB that an object may have.
const MOST_BYTES: usize = 600 << 10;

/// The ConfigMap with copies of what repairs removed, and with what must not be made again.
pub struct Store {
    writer: Writer,
    at: At,
}

/// The key of an object in the ConfigMap.
pub fn key_of(id: &Id) -> String {
    let plural = Resource::of(id.kind).plural;
    let key = if id.namespace.is_empty() {
        format!("{plural}.{}", id.name)
    } else {
        format!("{plural}.{}.{}", id.namespace, id.name)
    };
    // As long as a key may be, beside the prefix of `off`.
    key.chars().take(240).collect()
}

fn off_key(id: &Id) -> String {
    format!("off.{}", key_of(id))
}

impl Store {
    pub fn new(writer: Writer, names: &Names) -> Store {
        Store { writer, at: At::of(&CONFIG_MAPS, &names.namespace, &names.undo()) }
    }

    /// The command that puts a removed object back.
    pub fn command(&self, key: &str) -> String {
        format!(
            "kubectl get configmap {} -n {} -o go-template='{{{{index .data \"{key}\"}}}}' | kubectl create -f -",
            self.at.name, self.at.namespace
        )
    }

    /// Keeps a copy of what is about to be removed, before it is. The copy asks to be left alone, or putting it back would
    /// only have it removed again.
    ///
    /// # Errors
    /// A ConfigMap that is not there, cannot be written, or an object that is too large for it.
    pub async fn keep(&self, id: &Id, object: &Value, why: &str, now: Timestamp) -> Result<(), WriteError> {
        let name = key_of(id);
        let mut copy = object.clone();
        if let Some(metadata) = copy["metadata"].as_object_mut() {
            metadata.retain(|k, _| matches!(k.as_str(), "name" | "namespace" | "labels" | "annotations"));
        }
        if let Some(object) = copy.as_object_mut() {
            object.remove("status");
        }
        copy["metadata"]["annotations"][key::REPAIR] = json!("off");
        let at = now.strftime("%Y-%m-%dT%H:%M:%SZ");
        let body = serde_json::to_string_pretty(&copy).expect("JSON");
        let text = format!("# removed at {at} by revguard: {why}\n# {}\n{body}\n", self.command(&name));
        if text.len() > MOST_BYTES {
            let message = format!("a copy of it would not fit into ConfigMap {}", self.at.name);
            return Err(WriteError::Refused { verb: "patch", at: self.at.to_string(), message });
        }
        self.change("undo-copy", |data| {
            data.insert(name.clone(), text.clone());
            while data.values().map(String::len).sum::<usize>() > MOST_BYTES {
                // The oldest copy goes; the date stands at the same place in each.
                let oldest = data.iter().filter(|(k, _)| !k.starts_with("off.") && **k != name);
                let Some(oldest) = oldest.min_by_key(|(_, text)| text.get(..34)).map(|(k, _)| k.clone()) else { break };
                data.remove(&oldest);
            }
        })
        .await
    }

    /// Somebody has undone the making of this object.
    ///
    /// # Errors
    /// A ConfigMap that cannot be read.
    pub async fn is_off(&self, id: &Id) -> Result<bool, WriteError> {
        let object = self.read().await?;
        Ok(object["data"][off_key(id)].is_string())
    }

    /// Does not make this object any more.
    ///
    /// # Errors
    /// A ConfigMap that cannot be written.
    pub async fn switch_off(&self, id: &Id) -> Result<(), WriteError> {
        self.change("undo-off", |data| {
            data.insert(off_key(id), "somebody has undone its making".to_owned());
        })
        .await
    }

    /// The command that takes [`Store::switch_off`] back.
    pub fn allow_again(&self, id: &Id) -> String {
        format!(
            "kubectl patch configmap {} -n {} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/data/{}\"}}]'",
            self.at.name,
            self.at.namespace,
            off_key(id)
        )
    }

    async fn read(&self) -> Result<Value, WriteError> {
        let found = self.writer.read(&self.at).await?;
        found.ok_or_else(|| WriteError::Missing { at: format!("{} (`helm upgrade` makes it)", self.at) })
    }

    async fn change(
        &self,
        boundary: &'static str,
        change: impl FnOnce(&mut BTreeMap<String, String>),
    ) -> Result<(), WriteError> {
        let object = self.read().await?;
        let mut data: BTreeMap<String, String> = serde_json::from_value(object["data"].clone()).unwrap_or_default();
        change(&mut data);
        let operations = vec![json!({"op": "add", "path": "/data", "value": data})];
        let change = Change::Patch { operations, held: Held::of(&object) };
        self.writer.write(&Write { boundary, by: Loop::Repair, at: self.at.clone(), change }).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(object: &mut Value, operations: &[Value]) -> Result<(), String> {
        let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
        json_patch::patch(object, &patch).map_err(|e| e.to_string())
    }

    fn rule() -> &'static Rule {
        crate::rules::find("NS001").unwrap()
    }

    #[test]
    fn a_repair_can_be_taken_back_until_somebody_else_changes_what_it_made() {
        let before = json!({"metadata": {"name": "v", "labels": {"istio.io/rev": "default"}},
            "webhooks": [{"name": "w", "clientConfig": {"service": {"name": "istiod"}, "caBundle": "b2xk"}}]});
        let repair = vec![
            json!({"op": "replace", "path": "/webhooks/0/clientConfig/service/name", "value": "istiod-1-24"}),
            json!({"op": "replace", "path": "/metadata/labels/istio.io~1rev", "value": "1-24"}),
            json!({"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}),
        ];
        let operations = with_way_back(&before, repair, rule(), Timestamp::UNIX_EPOCH).unwrap();
        let mut object = before.clone();
        apply(&mut object, &operations).unwrap();
        let record = Record::read(object["metadata"]["annotations"][key::REPAIRED].as_str()).unwrap();
        assert_eq!((record.rule.as_str(), record.at.as_str()), ("NS001", "1970-01-01T00:00:00Z"));
        let Undo::Patch(undo) = record.undo else { panic!("a patch") };
        // istiod and the operator have written meanwhile.
        object["webhooks"][0]["clientConfig"]["caBundle"] = json!("bmV3");
        object["metadata"]["annotations"][key::REPAIR] = json!("undo");
        let mut foreign = object.clone();
        foreign["webhooks"][0]["clientConfig"]["service"]["name"] = json!("istiod-1-25");
        apply(&mut object, &closing(undo.clone())).unwrap();
        assert_eq!(object["webhooks"], before["webhooks"]);
        assert_eq!(object["metadata"]["labels"], before["metadata"]["labels"]);
        assert_eq!(object["metadata"]["annotations"], json!({key::REPAIR: "off"}));
        assert!(apply(&mut foreign, &closing(undo)).is_err(), "somebody else's change is not overwritten");
    }

    #[test]
    fn what_changes_nothing_is_no_repair() {
        let object = json!({"metadata": {"labels": {"a": "b"}}});
        let same = vec![json!({"op": "replace", "path": "/metadata/labels/a", "value": "b"})];
        assert!(with_way_back(&object, same, rule(), Timestamp::UNIX_EPOCH).is_err());
        let unfit = vec![json!({"op": "remove", "path": "/spec/x"})];
        assert!(with_way_back(&object, unfit, rule(), Timestamp::UNIX_EPOCH).is_err());
    }

    #[test]
    fn a_creation_is_undone_by_deletion() {
        let text = record(rule(), Timestamp::UNIX_EPOCH, &Undo::Delete);
        assert!(text.ends_with(r#""undo":"delete"}"#), "{text}");
        assert_eq!(Record::read(Some(&text)).unwrap().undo, Undo::Delete);
        assert_eq!(Record::read(Some("{}")), None);
    }
}
