//! A label selector means what the API server's documentation says, compared with an obvious slow reading of it.

use std::collections::BTreeMap;

use revguard::model::Labels;
use revguard::wire::webhook::LabelSelector;
use serde_json::{Value, json};

/// Small alphabets, so that keys and values meet.
const KEYS: [&str; 5] = ["a", "b", "istio.io/rev", "istio-injection", ""];
const VALUES: [&str; 4] = ["", "x", "y", "1-24"];
const OPERATORS: [&str; 5] = ["In", "NotIn", "Exists", "DoesNotExist", "in"];

/// Bytes as choices; zeros for ever when they are used up.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % n
    }
}

struct Expression {
    key: &'static str,
    operator: &'static str,
    values: Vec<&'static str>,
}

impl Expression {
    fn is_valid(&self) -> bool {
        let arity = match self.operator {
            "In" | "NotIn" => !self.values.is_empty(),
            "Exists" | "DoesNotExist" => self.values.is_empty(),
            _ => false,
        };
        !self.key.is_empty() && arity
    }

    fn holds(&self, labels: &BTreeMap<&str, &str>) -> bool {
        let listed = labels.get(self.key).map(|value| self.values.contains(value));
        match self.operator {
            "In" => listed == Some(true),
            "NotIn" => listed != Some(true),
            "Exists" => listed.is_some(),
            _ => listed.is_none(),
        }
    }
}

pub fn run(data: &[u8]) {
    let mut choose = Choices(data.iter());
    let pairs = |choose: &mut Choices<'_>| -> BTreeMap<&'static str, &'static str> {
        // Never the empty key: the API server has refused it long before.
        (0..choose.below(4)).map(|_| (KEYS[choose.below(4)], VALUES[choose.below(4)])).collect()
    };
    let exact = pairs(&mut choose);
    let expressions: Vec<Expression> = (0..choose.below(4))
        .map(|_| {
            let (key, operator) = (KEYS[choose.below(KEYS.len())], OPERATORS[choose.below(OPERATORS.len())]);
            let values = (0..choose.below(3)).map(|_| VALUES[choose.below(4)]).collect();
            Expression { key, operator, values }
        })
        .collect();
    let written: Vec<Value> =
        expressions.iter().map(|e| json!({"key": e.key, "operator": e.operator, "values": e.values})).collect();
    let text = json!({"matchLabels": exact, "matchExpressions": written}).to_string();
    let read: LabelSelector = serde_json::from_str(&text).expect("a selector");
    let compiled = match read.compile() {
        Ok(compiled) => compiled,
        Err(error) => {
            assert!(expressions.iter().any(|e| !e.is_valid()), "{text}: {error}");
            return;
        }
    };
    assert!(expressions.iter().all(Expression::is_valid), "{text}: compiled");
    for _ in 0..8 {
        let set = pairs(&mut choose);
        let labels = Labels::from_pairs(set.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
        let expected = exact.iter().all(|(k, v)| set.get(k) == Some(v)) && expressions.iter().all(|e| e.holds(&set));
        assert_eq!(compiled.matches(&labels), expected, "{text} on {set:?}");
    }
}
