//! Patches of objects that are there already, each with the version of what it changes.
//!
//! Operations are those that fit the object as it was read: its version is the precondition, so that an `add` never replaces a map that
//! came in between.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::made::owner;
use super::{Change, Impossible, Parts, baseline, body, deployment, plan, source};
use crate::api::rollout_status::Baseline;
use crate::model::key;
use crate::model::text::pointed;
use crate::rollout::names::APART;
use crate::rollout::read::json::Json;
use crate::rollout::read::pods::DELETION_COST;
use crate::rollout::read::raw::mesh_config;
use crate::rollout::read::workload::is_ours;
use crate::rollout::read::{self, FINALIZER, Listed, Raw};
use crate::rollout::seen::{Map, Seen, Version};
use crate::rollout::step::Which;

/// Cost of deleting an old pod, so that its ReplicaSet takes a replacement, which has none, when both are there.
const DEAR: &str = "1000";

/// Seconds for which a pod of an update in place has to be ready before the next one starts: long enough for a controller that looks every few
/// seconds to pause the update in time.
const PACE: i32 = 10;

pub(super) struct Writer<'a> {
    pub seen: &'a Seen,
    pub raw: &'a Raw,
}

fn patch(kind: &'static str, name: &Arc<str>, held: &Version, operations: Vec<Value>) -> Parts {
    (kind, name.clone(), Change::Patch { operations, held: held.clone() })
}

/// Sets entries of a map that may not be there yet.
fn set(object: &Value, map: &str, entries: &[(&str, &str)]) -> Vec<Value> {
    if object.pointer(map).is_none_or(|m| !m.is_object()) {
        let all: Map = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        return vec![json!({"op": "add", "path": map, "value": all})];
    }
    let one = |(k, v): &(&str, &str)| json!({"op": "add", "path": format!("{map}/{}", pointed(k)), "value": v});
    entries.iter().map(one).collect()
}

/// Takes entries out of a map, those that are there.
fn unset(object: &Value, map: &str, keys: &[&str]) -> Vec<Value> {
    let there = |key: &&&str| object.pointer(map).and_then(|m| m.get(**key)).is_some();
    let one = |key: &&str| json!({"op": "remove", "path": format!("{map}/{}", pointed(key))});
    keys.iter().filter(there).map(one).collect()
}

impl Writer<'_> {
    fn object(&self, listed: Listed, name: &str) -> Result<&Value, Impossible> {
        let namespace = &self.seen.rollout.namespace;
        let missing = || Impossible::Missing(format!("{} {namespace}/{name}", listed.row().kind));
        self.raw.get(listed, namespace, name).ok_or_else(missing)
    }

    pub fn name(&self, which: Which) -> Result<Arc<str>, Impossible> {
        let found = deployment(self.seen, which).map(|d| d.name.clone());
        found.ok_or_else(|| Impossible::Missing(format!("the Deployment of the {which:?}").to_lowercase()))
    }

    pub fn finalizer(&self, held: &Version, on: bool) -> Parts {
        let all = self.raw.rollout["metadata"].list("finalizers");
        let others = all.iter().filter(|f| *f != FINALIZER).cloned();
        let wanted: Vec<Value> = others.chain(on.then(|| json!(FINALIZER))).collect();
        // An empty list is dropped by the API server, as if it had been removed.
        let operations = vec![json!({"op": "add", "path": "/metadata/finalizers", "value": wanted})];
        patch("GatewayRollout", &self.seen.rollout.name, held, operations)
    }

    pub fn lock(&self, held: &Version, baseline: &Baseline) -> Result<Parts, Impossible> {
        let name = source(self.seen)?.name.clone();
        let text = serde_json::to_string(baseline).map_err(|e| Impossible::Baseline(e.to_string()))?;
        let entries = [(key::ACTIVE_ROLLOUT, &*self.seen.rollout.held.uid), (key::BASELINE, text.as_str())];
        let operations = set(self.object(Listed::Deployments, &name)?, "/metadata/annotations", &entries);
        Ok(patch("Deployment", &name, held, operations))
    }

    pub fn unlock(&self, held: &Version) -> Result<Parts, Impossible> {
        let name = source(self.seen)?.name.clone();
        let object = self.object(Listed::Deployments, &name)?;
        let operations = unset(object, "/metadata/annotations", &[key::ACTIVE_ROLLOUT, key::BASELINE]);
        Ok(patch("Deployment", &name, held, operations))
    }

    /// The copy of the mesh configuration: what the original holds, its hash, and our label. It does not get the revision's label, which would
    /// make it look like the control plane's own part.
    pub fn copy(&self, name: &Arc<str>, held: Option<&Version>, hash: &str) -> Result<Parts, Impossible> {
        let plane = &self.seen.to.namespace;
        let config = mesh_config(&self.seen.rollout.spec.to_revision);
        let missing = || Impossible::Missing(format!("ConfigMap {plane}/{config}"));
        let original = self.raw.get(Listed::ConfigMaps, plane, &config).ok_or_else(missing)?;
        let parts = ["data", "binaryData"];
        let Some(held) = held else {
            let mut object = json!({"metadata": {
                "labels": {key::ROLLOUT: &*self.seen.rollout.held.uid},
                "annotations": {key::SOURCE_HASH: hash},
            }});
            for part in parts.iter().filter(|p| !original[**p].is_null()) {
                object[*part] = original[*part].clone();
            }
            return Ok(("ConfigMap", name.clone(), Change::Create { object }));
        };
        let copy = self.object(Listed::ConfigMaps, name)?;
        let mut operations = set(copy, "/metadata/annotations", &[(key::SOURCE_HASH, hash)]);
        for part in parts {
            match (&original[part], &copy[part]) {
                (Value::Null, Value::Null) => {}
                (Value::Null, _) => operations.push(json!({"op": "remove", "path": format!("/{part}")})),
                (data, _) => operations.push(json!({"op": "add", "path": format!("/{part}"), "value": data})),
            }
        }
        Ok(patch("ConfigMap", name, held, operations))
    }

    pub fn scale(&self, which: Which, held: &Version, to: u32) -> Result<Parts, Impossible> {
        let operations = vec![json!({"op": "add", "path": "/spec/replicas", "value": to})];
        Ok(patch("Deployment", &self.name(which)?, held, operations))
    }

    /// The original's template, always from what it was at first: there and back it is the same again.
    pub fn retemplate(&self, held: &Version, revision: &str) -> Result<Parts, Impossible> {
        let before = body(&baseline(self.seen, self.raw)?)?;
        let moves = revision == self.seen.rollout.spec.to_revision;
        let template = if moves { plan(self.seen, self.raw)?.promoted(&before) } else { before };
        let operations = vec![json!({"op": "replace", "path": "/spec/template", "value": template})];
        Ok(patch("Deployment", &source(self.seen)?.name, held, operations))
    }

    pub fn consume(&self, held: &Version) -> Parts {
        let operations = unset(&self.raw.rollout, "/metadata/annotations", &[key::APPROVE, key::APPROVED_BY]);
        patch("GatewayRollout", &self.seen.rollout.name, held, operations)
    }

    /// Pace of an update in place; `None` puts back what the baseline says.
    pub fn pace(&self, held: &Version, paused: Option<bool>) -> Result<Parts, Impossible> {
        let name = source(self.seen)?.name.clone();
        let set = |field: &str, value: Value| json!({"op": "add", "path": format!("/spec/{field}"), "value": value});
        let operations = match paused {
            Some(paused) => {
                let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
                vec![
                    set("paused", json!(paused)),
                    set("minReadySeconds", json!(source(self.seen)?.min_ready_seconds.unwrap_or(0).max(PACE))),
                    set("strategy", rolling),
                ]
            }
            None => {
                let before = baseline(self.seen, self.raw)?.deployment;
                let strategy = match before.strategy.as_str() {
                    "" => Value::Null,
                    text => serde_json::from_str(text).map_err(|e| Impossible::Baseline(e.to_string()))?,
                };
                let strategy = if strategy.is_null() { json!({"type": "RollingUpdate"}) } else { strategy };
                vec![
                    set("paused", json!(before.paused)),
                    set("minReadySeconds", json!(before.min_ready_seconds.unwrap_or(0))),
                    set("strategy", strategy),
                ]
            }
        };
        Ok(patch("Deployment", &name, held, operations))
    }

    pub fn pin(&self, pod: &Arc<str>, held: &Version) -> Result<Parts, Impossible> {
        let operations = set(self.object(Listed::Pods, pod)?, "/metadata/annotations", &[(DELETION_COST, DEAR)]);
        Ok(patch("Pod", pod, held, operations))
    }

    /// One patch that is its own record: the pod leaves its Services and its ReplicaSet, says since when and for whom, and goes with the
    /// rollout at the latest.
    pub fn set_apart(
        &self,
        pod: &Arc<str>,
        held: &Version,
        (key, since): (&Arc<str>, Timestamp),
    ) -> Result<Parts, Impossible> {
        let object = self.object(Listed::Pods, pod)?;
        let uid = &*self.seen.rollout.held.uid;
        let mut operations = set(object, "/metadata/labels", &[(key, APART), (key::ROLLOUT, uid)]);
        let since = since.to_string();
        operations.extend(set(object, "/metadata/annotations", &[(key::APART_SINCE, &since)]));
        let owners = object["metadata"].list("ownerReferences");
        if !owners.iter().any(|o| o.text("uid") == uid) {
            let owners: Vec<Value> = owners.iter().cloned().chain([owner(self.seen)]).collect();
            operations.push(json!({"op": "add", "path": "/metadata/ownerReferences", "value": owners}));
        }
        Ok(patch("Pod", pod, held, operations))
    }

    /// One write for both: between two of them an autoscaler would scale the wrong Deployment to the right number.
    pub fn autoscale(&self, name: &Arc<str>, held: &Version, (target, min): (&Arc<str>, u32)) -> Parts {
        let operations = vec![
            json!({"op": "add", "path": "/spec/minReplicas", "value": min}),
            json!({"op": "replace", "path": "/spec/scaleTargetRef/name", "value": target}),
        ];
        patch("HorizontalPodAutoscaler", name, held, operations)
    }

    /// The values stay, and are nobody's: whoever applies them next owns them.
    pub fn let_go(&self, (kind, name): (&'static str, &Arc<str>), held: &Version) -> Result<Parts, Impossible> {
        let object = self.of(kind, name)?;
        let others = object["metadata"].list("managedFields").iter().filter(|w| !is_ours(w));
        let others: Vec<&Value> = others.collect();
        Ok(patch(kind, name, held, vec![json!({"op": "replace", "path": "/metadata/managedFields", "value": others})]))
    }

    fn of(&self, kind: &'static str, name: &str) -> Result<&Value, Impossible> {
        match read::TABLE.iter().find(|r| r.kind == kind).map(|r| r.listed) {
            Some(listed) => self.object(listed, name),
            None => Err(Impossible::Missing(format!("kind {kind}"))),
        }
    }

    pub fn relabel(
        &self,
        (kind, name): (&'static str, &Arc<str>),
        held: &Version,
        labels: &Map,
    ) -> Result<Parts, Impossible> {
        let object = self.of(kind, name)?;
        let entries: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        Ok(patch(kind, name, held, set(object, "/metadata/labels", &entries)))
    }
}
