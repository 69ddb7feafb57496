//! Serde helpers for values whose shape the API leaves open.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::model::Str;

/// Any scalar as text: `tag: 1.24`, `tag: "1.24"` and `tag: latest` are all read.
#[derive(Clone, Debug, Default)]
pub struct Scalar(pub Str);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match Value::deserialize(d)? {
            Value::String(s) => Ok(Scalar(s.into())),
            Value::Null => Ok(Scalar::default()),
            Value::Array(_) | Value::Object(_) => Err(serde::de::Error::custom("invalid type: expected a scalar")),
            other => Ok(Scalar(other.to_string().into())),
        }
    }
}

/// A JSON value in which no key is given twice.
#[derive(Clone, Debug)]
pub struct Tree(pub Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
                Ok(Value::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
                Ok(Value::Number(v.into()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
                Ok(Value::Number(v.into()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
                Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
            }
            fn visit_str<E>(self, v: &str) -> Result<Value, E> {
                Ok(Value::String(v.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
                Tree::deserialize(d).map(|t| t.0)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut all = Vec::new();
                while let Some(Tree(v)) = seq.next_element()? {
                    all.push(v);
                }
                Ok(Value::Array(all))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut all = Map::new();
                while let Some((key, Tree(v))) = map.next_entry::<String, Tree>()? {
                    if all.contains_key(&key) {
                        return Err(serde::de::Error::custom(format!("key {key:?} is given twice")));
                    }
                    all.insert(key, v);
                }
                Ok(Value::Object(all))
            }
        }
        d.deserialize_any(V).map(Tree)
    }
}

/// `null` where a list may stand is the empty list.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(d).map(Option::unwrap_or_default)
}

/// `null` where a struct may stand is the default.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}

/// A string that borrows from the input where the source allows. (`Cow` alone always copies.)
#[derive(Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub std::borrow::Cow<'a, str>);

impl Text<'_> {
    pub fn owned(&self) -> Str {
        Str::from(&*self.0)
    }
}

/// Keys met so far; the API server's own reader would silently keep the last of two.
#[derive(Default)]
pub struct Seen(u32);

impl Seen {
    /// # Errors
    /// The key was met before.
    pub fn once<E: serde::de::Error>(&mut self, bit: u32, key: &'static str) -> Result<(), E> {
        if self.0 & (1 << bit) != 0 {
            return Err(E::duplicate_field(key));
        }
        self.0 |= 1 << bit;
        Ok(())
    }
}

/// Reads a list element by element and keeps what `keep` makes of them; `null` is the empty list.
pub fn kept<'de, D: Deserializer<'de>, T: Deserialize<'de>, K>(
    d: D,
    keep: impl Fn(T) -> Option<K>,
) -> Result<Vec<K>, D::Error> {
    struct V<T, F>(F, std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>, K, F: Fn(T) -> Option<K>> Visitor<'de> for V<T, F> {
        type Value = Vec<K>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_unit<E>(self) -> Result<Vec<K>, E> {
            Ok(Vec::new())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<K>, A::Error> {
            let mut all = Vec::new();
            while let Some(element) = seq.next_element::<T>()? {
                all.extend((self.0)(element));
            }
            Ok(all)
        }
    }
    d.deserialize_any(V(keep, std::marker::PhantomData))
}
