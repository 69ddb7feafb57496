//! Clusters from manifests, as the controller would have listed them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use revguard::rollout::read::{Listed, Question, Raw, TABLE, seen};
use revguard::rollout::seen::Seen;
use revguard::snapshot::Snapshot;
use revguard::wire::{find_kind, manifest};
use serde_json::Value;

const PLANES: &str = include_str!("planes.yaml");
const INJECTED: &str = include_str!("injected.yaml");
const MOUNTED: &str = include_str!("mounted.yaml");

/// Uid of the rollout that each world is about.
pub const ROLLOUT: &str = "0f1e2d3c-4b5a";

/// Objects by `Kind/name`; those of another namespace than the gateway's by `Kind/namespace/name`.
#[derive(Clone)]
pub struct World {
    pub objects: BTreeMap<String, Value>,
    pub refused: Vec<Listed>,
}

pub fn injected() -> World {
    static WORLD: LazyLock<World> = LazyLock::new(|| World::of(&[PLANES, INJECTED]));
    WORLD.clone()
}

pub fn mounted() -> World {
    static WORLD: LazyLock<World> = LazyLock::new(|| World::of(&[PLANES, MOUNTED]));
    WORLD.clone()
}

fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---\n").filter(|p| p.lines().any(|l| !l.trim().is_empty() && !l.starts_with('#')));
    parts.map(|p| manifest::from_yaml::<Value>(p).unwrap_or_else(|e| panic!("{e}: {p}"))).collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

impl World {
    pub fn of(texts: &[&str]) -> World {
        let mut world = World { objects: BTreeMap::new(), refused: Vec::new() };
        texts.iter().flat_map(|t| documents(t)).for_each(|o| world.put(o));
        world
    }

    pub fn put(&mut self, object: Value) {
        let (kind, namespace, name) =
            (text(&object, "/kind"), text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        let key = if namespace.is_empty() || matches!(namespace, "gw" | "default") {
            format!("{kind}/{name}")
        } else {
            format!("{kind}/{namespace}/{name}")
        };
        self.objects.insert(key, object);
    }

    /// Sets a field of an object; null takes it away.
    pub fn set(&mut self, object: &str, pointer: &str, value: Value) {
        let found = self.objects.get_mut(object).unwrap_or_else(|| panic!("no {object} in this world"));
        let mut parts: Vec<String> =
            pointer.split('/').skip(1).map(|p| p.replace("~1", "/").replace("~0", "~")).collect();
        let last = parts.pop().expect("a field");
        let parent = parts.into_iter().fold(found, |at, part| match at {
            Value::Array(all) => &mut all[part.parse::<usize>().expect("an index")],
            other => &mut other[part],
        });
        match (parent, value) {
            (Value::Array(all), Value::Null) => {
                all.remove(last.parse().expect("an index"));
            }
            (Value::Array(all), value) if last == "-" => all.push(value),
            (Value::Array(all), value) => all[last.parse::<usize>().expect("an index")] = value,
            (Value::Object(map), Value::Null) => {
                map.remove(&last).unwrap_or_else(|| panic!("{object} has no {pointer}"));
            }
            (other, value) => other[last] = value,
        }
    }

    /// As the controller lists it: whole, by kind.
    pub fn raw(&self) -> Raw {
        let of = |o: &Value| {
            let version = text(o, "/apiVersion");
            Listed::of(version.rsplit_once('/').map_or("", |(g, _)| g), text(o, "/kind"))
        };
        let rollout = self.objects.values().find(|o| text(o, "/metadata/uid") == ROLLOUT).expect("the rollout");
        let mut raw = Raw::of(rollout.clone());
        for row in TABLE {
            let question = Question { listed: row.listed, namespace: String::new(), name: None };
            if self.refused.contains(&row.listed) {
                raw.refuse(question, format!("listing {} is forbidden", row.plural));
                continue;
            }
            let items = self.objects.values().filter(|o| of(o) == Some(row.listed)).cloned().collect();
            raw.answer(question, items);
        }
        raw
    }

    /// The mesh as it is watched.
    pub fn known(&self) -> Snapshot {
        self.objects.values().fold(Snapshot::whole(), |known, object| {
            let version = text(object, "/apiVersion");
            let group = version.rsplit_once('/').map_or("", |(g, _)| g);
            match find_kind(group, text(object, "/kind")) {
                Some(kind) => known.with(manifest::typed(kind, object).unwrap_or_else(|e| panic!("{e}: {object}"))),
                None => known,
            }
        })
    }

    pub fn seen(&self) -> Seen {
        seen(&self.raw(), &self.known()).expect("a world that can be read")
    }
}
