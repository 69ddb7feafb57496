//! Chance from a seed, and webhook configurations made by it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::injection::Labels;

/// Printed with what was made of it; a failure is repeated by the same one.
pub const SEED: u64 = 0x1571_0001;

/// The labels that decide, and two that mean nothing.
pub const KEYS: [&str; 5] = ["team", "istio-injection", "istio.io/rev", "istio.io/tag", "sidecar.istio.io/inject"];

/// Few, so that they meet; one is empty, which is present all the same.
const VALUES: [&str; 4] = ["enabled", "1-23", "false", ""];

/// Operations, group, version, resources, scope.
type Rule = (&'static [&'static str], &'static str, &'static str, &'static [&'static str], &'static str);

/// Ways to name the creation of pods, and others that nearly do.
const RULES: [Rule; 12] = [
    (&["CREATE"], "", "v1", &["pods"], "*"),
    (&["CREATE", "UPDATE"], "", "*", &["pods"], "Namespaced"),
    (&["*"], "*", "*", &["*"], "*"),
    (&["CREATE"], "", "v1", &["*/*"], "*"),
    (&["CREATE"], "", "v1", &["pods/*"], "*"),
    (&["CREATE"], "", "v1", &["services", "pods"], "*"),
    (&["CREATE"], "", "v1", &["*/status"], "*"),
    (&["CREATE"], "", "v1", &["pods/status"], "*"),
    (&["UPDATE"], "", "v1", &["pods"], "*"),
    (&["CREATE"], "apps", "v1", &["*"], "*"),
    (&["CREATE"], "", "v1", &["pods"], "Cluster"),
    (&["CREATE"], "", "v2", &["pods"], "*"),
];

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Each key with an even chance.
    pub fn labels(&mut self, keys: &[&str]) -> Labels {
        let mut labels = BTreeMap::new();
        for key in keys {
            if self.below(2) == 0 {
                labels.insert((*key).to_owned(), self.one(&VALUES).to_owned());
            }
        }
        labels
    }

    fn selector(&mut self) -> Value {
        let mut expressions = Vec::new();
        for _ in 0..self.below(3) {
            let (key, operator) = (self.one(&KEYS), self.one(&["In", "NotIn", "Exists", "DoesNotExist"]));
            let values = if operator.ends_with("In") { vec![self.one(&VALUES), self.one(&VALUES)] } else { vec![] };
            expressions.push(json!({"key": key, "operator": operator, "values": values}));
        }
        let labels = if self.below(4) == 0 { self.labels(&KEYS[..2]) } else { Labels::new() };
        json!({"matchLabels": labels, "matchExpressions": expressions})
    }

    /// Names are not in the order of their making, as the API server's order is by name.
    pub fn configuration(&mut self, number: usize) -> Value {
        let webhooks: Vec<Value> = (0..=self.below(3))
            .map(|n| {
                // The first ways really are pods.
                let (operations, group, version, resources, scope) =
                    if self.below(3) > 0 { RULES[self.below(6)] } else { self.one(&RULES) };
                json!({
                    "name": format!("h{n}.sidecar-injector.istio.io"),
                    "namespaceSelector": self.selector(), "objectSelector": self.selector(),
                    "rules": [{"operations": operations, "apiGroups": [group], "apiVersions": [version],
                               "resources": resources, "scope": scope}],
                    "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 10,
                    "admissionReviewVersions": ["v1"],
                })
            })
            .collect();
        let name = format!("dice-{}-{number}", ["c", "a", "d", "b"][self.below(4)]);
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name}, "webhooks": webhooks,
        })
    }
}
