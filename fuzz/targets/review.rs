//! Any bytes in, a well-formed answer out, with the request's uid.

use std::sync::LazyLock;

use base64::Engine as _;
use revguard::admission::webhook::{Shared, Webhook};
use revguard::admission::{Endpoint, Reviewer};
use revguard::rules::Policy;
use revguard::snapshot::Snapshot;
use revguard::wire::manifest;
use serde_json::Value;

const MESH: &str = include_str!("../../src/cli/demo/mesh.yaml");

static WEBHOOK: LazyLock<Webhook> = LazyLock::new(|| {
    let read = manifest::read("mesh", MESH, "default");
    let snapshot = read.documents.into_iter().fold(Snapshot::whole(), |s, d| s.with(d.object));
    let policy = Policy::parse("mutations: {NS001: Rev, NS002: true, NS005: prod, WL004: true}").expect("a policy");
    let clock = || jiff::Timestamp::UNIX_EPOCH;
    Webhook { shared: Shared::new(snapshot, policy), clock, observe: Box::new(|_| {}) }
});

pub fn run(data: &[u8]) {
    for endpoint in [Endpoint::Validate, Endpoint::Mutate] {
        let reply = WEBHOOK.review(endpoint, data);
        match reply.status.as_u16() {
            200 => answered(data, &reply.body),
            400 => assert!(std::str::from_utf8(&reply.body).is_ok_and(|text| !text.is_empty())),
            other => panic!("status {other}: the snapshot is whole, so nothing is waited for"),
        }
    }
}

fn answered(data: &[u8], body: &[u8]) {
    let answer: Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    let response = &answer["response"];
    let uid = response["uid"].as_str().expect("a uid");
    assert!(!uid.is_empty());
    // What is not UTF-8 is no JSON for this reader, and the answer's uid was found in what could be read.
    if let Ok(sent) = serde_json::from_slice::<Value>(data) {
        assert_eq!(sent["request"]["uid"], uid);
    }
    let allowed = response["allowed"].as_bool().expect("a verdict");
    assert_eq!(allowed, response.get("status").is_none(), "a denial says why, and nothing else does");
    if !allowed {
        assert!(response["status"]["message"].as_str().is_some_and(|m| !m.is_empty()));
        assert!(matches!(response["status"]["code"].as_u64(), Some(403 | 422)));
    }
    for warning in response["warnings"].as_array().into_iter().flatten() {
        let text = warning.as_str().expect("a string");
        assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
        assert!(text.chars().count() <= 120, "{text:?}");
    }
    if let Some(patch) = response["patch"].as_str() {
        assert_eq!(response["patchType"], "JSONPatch");
        let bytes = base64::engine::general_purpose::STANDARD.decode(patch).expect("base64");
        let operations: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert!(operations.as_array().is_some_and(|all| !all.is_empty()));
    }
}
