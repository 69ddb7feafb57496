//! Properties that hold for any input, each against a reference that is written in another way.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use revguard::admission::webhook::{Shared, Webhook};
use revguard::admission::{Endpoint, Reviewer, review};
use revguard::model::{Labels, Selector, Str, Template, resolve};
use revguard::rules::Policy;
use revguard::snapshot::Snapshot;
use revguard::wire::manifest;
use serde_json::{Value, json};

#[path = "properties/watch.rs"]
mod watch;

const MESH: &str = include_str!("../src/cli/demo/mesh.yaml");

fn mesh() -> Snapshot {
    manifest::read("mesh", MESH, "default").documents.into_iter().fold(Snapshot::whole(), |s, d| s.with(d.object))
}

fn labels(pairs: &BTreeMap<String, String>) -> Labels {
    Labels::from_pairs(pairs.iter().map(|(k, v)| (Str::from(k.as_str()), Str::from(v.as_str()))).collect())
}

// ---- Selectors ----

/// "The requirements are ANDed: they must all be satisfied in order to match" (Kubernetes, Labels and Selectors).
fn matches_by_the_book(
    exact: &[(String, String)],
    expressions: &[(String, u8, Vec<String>)],
    labels: &[(String, String)],
) -> bool {
    for (key, value) in exact {
        if !labels.iter().any(|(k, v)| k == key && v == value) {
            return false;
        }
    }
    for (key, operator, values) in expressions {
        let mut present = false;
        let mut listed = false;
        for (k, v) in labels {
            if k == key {
                present = true;
                for wanted in values {
                    if wanted == v {
                        listed = true;
                    }
                }
            }
        }
        let satisfied = match operator {
            0 => present && listed,
            // "… as well as all resources with no labels with the tier key."
            1 => !present || !listed,
            2 => present,
            _ => !present,
        };
        if !satisfied {
            return false;
        }
    }
    true
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "istio.io/rev", "istio-injection", ""]).prop_map(str::to_owned)
}

fn key() -> impl Strategy<Value = String> {
    word().prop_filter("keys are not empty", |k| !k.is_empty())
}

proptest! {
    #[test]
    fn selectors_match_by_the_book(
        exact in prop::collection::btree_map(key(), word(), 0..2),
        expressions in prop::collection::vec((key(), 0u8..4, prop::collection::vec(word(), 1..3)), 0..4),
        set in prop::collection::btree_map(key(), word(), 0..4),
    ) {
        let mut selector = Selector::exact(&labels(&exact));
        for (key, operator, values) in &expressions {
            let name = ["In", "NotIn", "Exists", "DoesNotExist"][usize::from(*operator)];
            let values = if *operator < 2 { values.iter().map(|v| Str::from(v.as_str())).collect() } else { Vec::new() };
            selector.require(Str::from(key.as_str()), name, values).expect("a valid requirement");
        }
        let exact: Vec<_> = exact.into_iter().collect();
        let pairs: Vec<_> = set.clone().into_iter().collect();
        prop_assert_eq!(selector.matches(&labels(&set)), matches_by_the_book(&exact, &expressions, &pairs));
    }
}

// ---- Who injects: the closed form of Istio's selectors ----

/// The name that is asked for; `default*` is the default injector.
fn asked<'a>(ns: &'a BTreeMap<String, String>, pod: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let inject = pod.get("sidecar.istio.io/inject").map(String::as_str);
    if inject == Some("false") {
        return None;
    }
    if let Some(value) = ns.get("istio-injection") {
        return (value == "enabled").then_some("default*");
    }
    if let Some(name) = ns.get("istio.io/rev") {
        return Some(name);
    }
    if let Some(name) = pod.get("istio.io/rev") {
        return Some(name);
    }
    (inject == Some("true")).then_some("default*")
}

#[test]
fn resolution_agrees_with_the_closed_form_for_all_labels() {
    let mesh = mesh();
    let injectors = mesh.injectors().expect("known");
    let names = [None, Some(""), Some("1-23"), Some("1-24"), Some("prod"), Some("default"), Some("ghost")];
    let injection = [None, Some("enabled"), Some("disabled"), Some(""), Some("true"), Some("Enabled")];
    let inject = [None, Some("true"), Some("false"), Some(""), Some("True"), Some("no")];
    let serves: BTreeMap<&str, (&str, &str)> = [
        ("1-23", ("istio-sidecar-injector-1-23", "1-23")),
        ("1-24", ("istio-sidecar-injector-1-24", "1-24")),
        ("prod", ("istio-revision-tag-prod", "1-23")),
        ("default", ("istio-revision-tag-default", "1-23")),
        ("default*", ("istio-revision-tag-default", "1-23")),
    ]
    .into();
    let set = |pairs: [(&str, Option<&str>); 2]| -> BTreeMap<String, String> {
        pairs.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect()
    };
    let mut combinations = 0;
    for (a, b) in injection.iter().flat_map(|a| names.iter().map(move |b| (*a, *b))) {
        let ns = set([("istio-injection", a), ("istio.io/rev", b)]);
        for (c, d) in inject.iter().flat_map(|c| names.iter().map(move |d| (*c, *d))) {
            let pod = set([("sidecar.istio.io/inject", c), ("istio.io/rev", d)]);
            combinations += 1;
            let template = Template { labels: labels(&pod), ..Template::default() };
            let namespace = labels(&ns).with("kubernetes.io/metadata.name", "shop");
            let got = resolve(injectors, "shop", &namespace, &template);
            let name = asked(&ns, &pod);
            let expected = name.and_then(|n| serves.get(n));
            let hooks: Vec<&str> = got.hooks.iter().map(|h| h.config.as_str()).collect();
            assert_eq!(hooks, expected.map(|e| e.0).into_iter().collect::<Vec<_>>(), "{ns:?} {pod:?}");
            assert_eq!(got.revision().map(|r| r.as_str()), expected.map(|e| e.1), "{ns:?} {pod:?}");
            assert_eq!(got.requested.as_deref(), name.map(|n| n.trim_end_matches('*')), "{ns:?} {pod:?}");
            assert!(!got.because.is_empty());
        }
    }
    assert_eq!(combinations, 6 * 7 * 6 * 7);
}

// ---- Any bytes ----

fn envelope() -> Value {
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "u-1", "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
            "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
            "name": "api", "namespace": "shop", "operation": "UPDATE",
            "userInfo": {"username": "jane", "groups": ["dev"]},
            "object": {"metadata": {"name": "api", "namespace": "shop", "labels": {"a": "b"}},
                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "api"}},
                    "template": {"metadata": {"labels": {"app": "api", "istio.io/rev": "ghost"}},
                        "spec": {"containers": [{"name": "istio-proxy", "image": "auto"}]}}}},
            "oldObject": {"metadata": {"name": "api", "namespace": "shop"}, "spec": {"template": {}}},
            "dryRun": false
        }
    })
}

/// Every place of a JSON value, as a pointer.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(k, v)| places(v, &format!("{at}/{}", k.replace('~', "~0").replace('/', "~1")), out));
        }
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| places(v, &format!("{at}/{i}"), out)),
        _ => {}
    }
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("x"),
        json!([]),
        json!([null]),
        json!({}),
        json!({"a": 1}),
        json!("CREATE"),
        json!("DELETE"),
        json!({"group": "", "version": "v1", "kind": "Namespace"}),
        json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}),
    ])
}

/// Judges a body and checks the answer; the uid must be there if a plain JSON reader finds one.
fn answers_well(body: &[u8]) -> Result<(), TestCaseError> {
    let webhook = Webhook {
        shared: SHARED.clone(),
        clock: || "2026-06-15T12:00:00Z".parse().expect("a timestamp"),
        observe: Box::new(|_| {}),
    };
    let findable = serde_json::from_slice::<Value>(body).ok().and_then(|v| {
        let is_review = v["apiVersion"] == "admission.k8s.io/v1" && v["kind"] == "AdmissionReview";
        v["request"]["uid"].as_str().filter(|uid| is_review && !uid.is_empty()).map(str::to_owned)
    });
    for endpoint in [Endpoint::Validate, Endpoint::Mutate] {
        let reply = webhook.review(endpoint, body);
        match reply.status.as_u16() {
            200 => {
                let answer: Value = serde_json::from_slice(&reply.body).expect("JSON");
                prop_assert_eq!(&answer["apiVersion"], "admission.k8s.io/v1");
                prop_assert_eq!(&answer["kind"], "AdmissionReview");
                let response = &answer["response"];
                let uid = response["uid"].as_str().unwrap_or_default();
                prop_assert!(!uid.is_empty());
                prop_assert!(response["allowed"].is_boolean());
                prop_assert_eq!(response["allowed"] == false, response["status"]["message"].is_string());
                if let Some(expected) = &findable {
                    prop_assert_eq!(uid, expected);
                }
                for warning in response["warnings"].as_array().into_iter().flatten() {
                    let warning = warning.as_str().expect("a string");
                    prop_assert!(warning.chars().count() <= 120 && !warning.contains(char::is_control), "{}", warning);
                }
            }
            400 => prop_assert_eq!(&findable, &None, "{}", String::from_utf8_lossy(&reply.body)),
            other => prop_assert!(false, "status {other}"),
        }
    }
    Ok(())
}

static SHARED: LazyLock<std::sync::Arc<Shared>> = LazyLock::new(|| Shared::new(mesh(), Policy::default()));

proptest! {
    #[test]
    fn any_bytes_are_answered(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = review::read(&body);
        answers_well(&body)?;
    }

    #[test]
    fn a_broken_review_is_answered_with_its_uid(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(odd_value())), 1..4),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        flip in prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut value = envelope();
        for (at, with) in changes {
            let mut all = Vec::new();
            places(&value, "", &mut all);
            let place = &all[at.index(all.len())];
            match (with, place.rsplit_once('/')) {
                (Some(with), _) => *value.pointer_mut(place).expect("a place") = with,
                (None, Some((parent, key))) => {
                    let key = key.replace("~1", "/").replace("~0", "~");
                    if let Some(Value::Object(map)) = value.pointer_mut(parent) {
                        map.remove(&key);
                    }
                }
                (None, None) => {}
            }
        }
        let mut body = serde_json::to_vec(&value).expect("JSON");
        if let Some((at, byte)) = flip {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        answers_well(&body)?;
    }
}
