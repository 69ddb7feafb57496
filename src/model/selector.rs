//! Label selectors with the meaning that the API server gives them.

use std::sync::Arc;

use super::{Labels, Str};

/// A compiled label selector, whose clone is a reference count. The empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector(Arc<Vec<Requirement>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Requirement {
    key: Str,
    op: Op,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Op {
    In(Vec<Str>),
    NotIn(Vec<Str>),
    Exists,
    DoesNotExist,
}

/// A selector that the API server would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("operator {operator} of key {key} needs at least one value")]
    NoValues { key: Str, operator: Str },
    #[error("operator {operator} of key {key} takes no values")]
    Values { key: Str, operator: Str },
    #[error("{operator:?} of key {key} is none of In, NotIn, Exists, DoesNotExist")]
    Operator { key: Str, operator: Str },
    #[error("a requirement without a key")]
    NoKey,
}

impl Selector {
    /// A selector of exact pairs, as in a Service's `spec.selector`.
    pub fn exact(labels: &Labels) -> Self {
        let all = labels.iter().map(|(k, v)| Requirement { key: k.clone(), op: Op::In(vec![v.clone()]) });
        Selector(Arc::new(all.collect()))
    }

    /// Adds one `matchExpressions` entry.
    ///
    /// # Errors
    /// Whatever the API server's own validation refuses.
    pub fn require(&mut self, key: Str, operator: &str, values: Vec<Str>) -> Result<(), SelectorError> {
        if key.is_empty() {
            return Err(SelectorError::NoKey);
        }
        let named = |key: &Str| (key.clone(), Str::from(operator));
        let op = match (operator, values.is_empty()) {
            ("In", false) => Op::In(values),
            ("NotIn", false) => Op::NotIn(values),
            ("Exists", true) => Op::Exists,
            ("DoesNotExist", true) => Op::DoesNotExist,
            ("In" | "NotIn", true) => {
                let (key, operator) = named(&key);
                return Err(SelectorError::NoValues { key, operator });
            }
            ("Exists" | "DoesNotExist", false) => {
                let (key, operator) = named(&key);
                return Err(SelectorError::Values { key, operator });
            }
            _ => {
                let (key, operator) = named(&key);
                return Err(SelectorError::Operator { key, operator });
            }
        };
        Arc::make_mut(&mut self.0).push(Requirement { key, op });
        Ok(())
    }

    /// Replaces every string by an equal one, so that equal strings can be held once.
    pub fn share(&mut self, held: &mut dyn FnMut(&Str) -> Str) {
        for r in Arc::make_mut(&mut self.0) {
            r.key = held(&r.key);
            if let Op::In(values) | Op::NotIn(values) = &mut r.op {
                values.iter_mut().for_each(|v| *v = held(v));
            }
        }
    }

    /// How many places hold this very selector; see [`Str::holders`].
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|r| {
            let value = labels.get(&r.key);
            match &r.op {
                Op::In(values) => value.is_some_and(|v| values.contains(v)),
                // An absent key satisfies NotIn.
                Op::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
                Op::Exists => value.is_some(),
                Op::DoesNotExist => value.is_none(),
            }
        })
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Values that an `In` on `key` accepts (a `matchLabels` pair is an `In` of one).
    pub fn accepted(&self, key: &str) -> impl Iterator<Item = &Str> {
        let key = key.to_owned();
        self.0.iter().filter(move |r| r.key == key.as_str()).flat_map(|r| match &r.op {
            Op::In(values) => values.as_slice(),
            _ => &[],
        })
    }

    /// Keys that the selector looks at, in its order.
    pub fn keys(&self) -> impl Iterator<Item = &Str> {
        self.0.iter().map(|r| &r.key)
    }
}
