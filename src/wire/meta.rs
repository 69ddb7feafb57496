//! `metadata`, reduced to what rules read.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::tree::Text;
use crate::model::{Labels, Meta, Owner, Str};

/// `metadata` of any object. `managedFields`, usually its largest part, is skipped.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    pub name: Str,
    pub generate_name: Str,
    pub namespace: Str,
    /// Kept of GatewayRollouts alone.
    pub uid: Str,
    pub labels: Labels,
    pub annotations: Annotations,
    pub owner_references: Option<Vec<OwnerReference>>,
    pub deletion_timestamp: Option<IgnoredAny>,
    pub finalizers: Option<Vec<IgnoredAny>>,
    pub resource_version: Str,
}

#[derive(Deserialize)]
pub struct OwnerReference {
    kind: Str,
    name: Str,
    controller: Option<bool>,
}

impl From<ObjectMeta> for Meta {
    fn from(m: ObjectMeta) -> Meta {
        let owner = m.owner_references.and_then(|all| all.into_iter().find(|o| o.controller == Some(true)));
        Meta {
            namespace: m.namespace,
            name: if m.name.is_empty() { m.generate_name } else { m.name },
            labels: m.labels,
            annotations: m.annotations.0,
            owner: owner.map(|o| Box::new(Owner { kind: o.kind, name: o.name })),
            deleting: m.deletion_timestamp.is_some(),
            finalized: m.finalizers.is_some_and(|f| !f.is_empty()),
        }
    }
}

/// Annotations that some rule reads; the others are never stored.
#[derive(Default)]
pub struct Annotations(pub Labels);

/// Keys of Istio, revguard and Helm.
fn is_read(key: &str) -> bool {
    key.contains("istio.io/") || key.starts_with("revguard.dev/") || key.starts_with("meta.helm.sh/")
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        pairs(d, is_read).map(Annotations)
    }
}

/// Reads a map of strings, keeping only the pairs whose key `keep` accepts. Values that are not kept may be large, but must
/// still be strings: the API server would refuse anything else.
pub fn pairs<'de, D: serde::Deserializer<'de>>(d: D, keep: fn(&str) -> bool) -> Result<Labels, D::Error> {
    struct V(fn(&str) -> bool);
    impl<'de> serde::de::Visitor<'de> for V {
        type Value = Labels;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a map of strings to strings")
        }
        fn visit_unit<E>(self) -> Result<Labels, E> {
            Ok(Labels::default())
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
            let mut pairs = Vec::new();
            while let Some(key) = map.next_key::<Text<'de>>()? {
                if (self.0)(&key.0) {
                    pairs.push((key.owned(), map.next_value::<Str>()?));
                } else {
                    map.next_value::<Skipped>()?;
                }
            }
            let sent = pairs.len();
            let labels = Labels::from_pairs(pairs);
            if labels.len() != sent {
                return Err(serde::de::Error::custom("the same key is given twice"));
            }
            Ok(labels)
        }
    }
    d.deserialize_any(V(keep))
}

/// A string that is checked and dropped.
struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl serde::de::Visitor<'_> for V {
            type Value = Skipped;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, _: &str) -> Result<Skipped, E> {
                Ok(Skipped)
            }
            fn visit_unit<E>(self) -> Result<Skipped, E> {
                Ok(Skipped)
            }
        }
        d.deserialize_any(V)
    }
}
