//! Label sets: sorted, shared, and never larger than what was sent.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::Str;

/// A sorted set of labels (or of the annotations that a rule may read).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(Option<Arc<[(Str, Str)]>>);

impl Labels {
    /// Sorts `pairs`; a key given twice keeps its last value.
    pub fn from_pairs(mut pairs: Vec<(Str, Str)>) -> Self {
        if pairs.is_empty() {
            return Labels(None);
        }
        pairs.reverse();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|a, b| a.0 == b.0);
        Labels(Some(Arc::from(pairs)))
    }

    fn slice(&self) -> &[(Str, Str)] {
        self.0.as_deref().unwrap_or(&[])
    }

    pub fn get(&self, key: &str) -> Option<&Str> {
        let pairs = self.slice();
        let at = pairs.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        Some(&pairs[at].1)
    }

    /// The value as `&str`, which is what rules compare.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(Str::as_str)
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn is(&self, key: &str, value: &str) -> bool {
        self.value(key) == Some(value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Str, &Str)> {
        self.slice().iter().map(|(k, v)| (k, v))
    }

    pub fn len(&self) -> usize {
        self.slice().len()
    }

    pub fn is_empty(&self) -> bool {
        self.slice().is_empty()
    }

    /// The same set with `key` set.
    pub fn with(&self, key: &str, value: &str) -> Self {
        let mut pairs = self.slice().to_vec();
        pairs.push((Str::from(key), Str::from(value)));
        Labels::from_pairs(pairs)
    }

    /// The same set without `key`.
    pub fn without(&self, key: &str) -> Self {
        if !self.has(key) {
            return self.clone();
        }
        Labels::from_pairs(self.slice().iter().filter(|(k, _)| k.as_str() != key).cloned().collect())
    }

    /// Only the pairs whose key `keep` accepts.
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        Labels::from_pairs(self.slice().iter().filter(|(k, _)| keep(k)).cloned().collect())
    }

    /// How many places hold this very set; see [`Str::holders`].
    pub fn holders(&self) -> usize {
        self.0.as_ref().map_or(0, Arc::strong_count)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Labels {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Labels::from_pairs(pairs.iter().map(|(k, v)| (Str::from(*k), Str::from(*v))).collect())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (k, v)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{k}={v}")?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Labels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings to strings")
            }
            fn visit_unit<E: Error>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs: Vec<(Str, Str)> = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(pair) = map.next_entry::<Str, Str>()? {
                    pairs.push(pair);
                }
                let sent = pairs.len();
                let labels = Labels::from_pairs(pairs);
                if labels.len() != sent {
                    return Err(A::Error::custom("the same key is given twice"));
                }
                Ok(labels)
            }
        }
        d.deserialize_any(V)
    }
}
