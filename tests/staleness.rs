//! A view that is old: what the policy makes of it, who is told, and what stays as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use revguard::admission::webhook::answer;
use revguard::model::Kind;
use revguard::rules::judge::mend;
use revguard::rules::request::LazyObject;
use revguard::rules::{Operation, Policy, Request, User, Verdict, judge};
use revguard::snapshot::Snapshot;
use revguard::wire::manifest;

const GOOD: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/rev: prod}}}";
const BAD: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/rev: ghost}}}";
const BLIND: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: maybe}}}";

fn now() -> Timestamp {
    "2026-11-21T06:00:00Z".parse().unwrap()
}

/// The demonstration's mesh, in which every kind was heard of a second ago but these, so many seconds ago.
fn mesh(old: &[(Kind, i64)]) -> Snapshot {
    let documents = manifest::read("mesh", include_str!("../src/cli/demo/mesh.yaml"), "default").documents;
    let snapshot = documents.into_iter().fold(Snapshot::whole(), |s, d| s.with(d.object));
    let kinds = revguard::wire::KINDS.iter().map(|row| row.kind);
    let mut heard: BTreeMap<Kind, Timestamp> = kinds.map(|kind| (kind, now() - SignedDuration::from_secs(1))).collect();
    heard.extend(old.iter().map(|(kind, age)| (*kind, now() - SignedDuration::from_secs(*age))));
    snapshot.heard_at(Arc::new(heard))
}

fn request(yaml: &str, stored: Option<&str>) -> Request<'static> {
    let read = |yaml: &str| manifest::read("object", yaml, "default").documents.remove(0).object;
    let old = stored.map_or_else(LazyObject::none, |yaml| LazyObject::ready(read(yaml)));
    let operation = if stored.is_some() { Operation::Update } else { Operation::Create };
    let user = User { name: "jane".into(), groups: Vec::new() };
    Request { user, operation, sub_resource: String::new(), object: read(yaml), old }
}

fn verdict(policy: &str, yaml: &str, old: &[(Kind, i64)]) -> Verdict {
    judge(&Policy::parse(policy).unwrap(), &request(yaml, None), &mesh(old), now())
}

const INJECTORS: (Kind, i64) = (Kind::MutatingWebhook, 432);

/// Codes that deny, codes that warn, whether the write passes.
fn outcome(policy: &str, yaml: &str, old: &[(Kind, i64)]) -> (Vec<&'static str>, Vec<&'static str>, bool) {
    let verdict = verdict(policy, yaml, old);
    let denied = verdict.denied().map(|j| j.rule.code).collect();
    (denied, verdict.warnings().map(|j| j.rule.code).collect(), verdict.is_allowed())
}

#[test]
fn the_policy_says_what_an_old_view_means() {
    let none: Vec<&str> = Vec::new();
    for (policy, old, yaml, denied, warned, passes) in [
        // Fresh, and one second before the limit.
        ("", 1, BAD, vec!["NS004"], none.clone(), false),
        ("", 300, BAD, vec!["NS004"], none.clone(), false),
        ("", 1, GOOD, none.clone(), none.clone(), true),
        // Warn, which is the default.
        ("", 301, BAD, none.clone(), vec!["NS004"], true),
        ("", 301, GOOD, none.clone(), none.clone(), true),
        ("stale: {namespaces: warn}", 301, BAD, none.clone(), vec!["NS004"], true),
        // Allow and annotate.
        ("stale: {namespaces: allow}", 301, BAD, none.clone(), none.clone(), true),
        // Deny: findings stand, and nobody says yes.
        ("stale: {namespaces: deny}", 301, BAD, vec!["NS004"], none.clone(), false),
        ("stale: {namespaces: deny}", 301, GOOD, none.clone(), none.clone(), false),
        ("stale: {namespaces: deny}", 300, GOOD, none.clone(), none.clone(), true),
        // Another group's choice, and another age.
        (
            "stale: {workloads: deny, gateways: deny, controlPlane: deny, config: deny}",
            301,
            GOOD,
            none.clone(),
            none.clone(),
            true,
        ),
        ("stale: {namespaces: deny, age: 10m}", 301, GOOD, none.clone(), none.clone(), true),
        ("stale: {namespaces: deny, age: 10m}", 601, GOOD, none.clone(), none.clone(), false),
        // The mode caps it as it caps everything.
        ("{mode: warn, stale: {namespaces: deny}}", 301, GOOD, none.clone(), none.clone(), true),
        ("{mode: audit, stale: {namespaces: deny}}", 301, BAD, none.clone(), none.clone(), true),
    ] {
        let found = outcome(policy, yaml, &[(Kind::MutatingWebhook, old)]);
        assert_eq!(found, (denied, warned, passes), "{policy} {old} {yaml}");
    }
}

#[test]
fn only_what_a_rule_looks_at_makes_its_verdict_old() {
    let strict = "stale: {namespaces: deny, workloads: deny, gateways: deny, controlPlane: deny, config: deny}";
    // No rule needs a gateway to judge a namespace that asks for a revision.
    assert!(outcome(strict, GOOD, &[(Kind::IstioGateway, 10_000)]).2);
    // A value that is wrong by itself is wrong in any cluster.
    let (denied, ..) = outcome("stale: {namespaces: warn}", BLIND, &[(Kind::Crd, 10_000)]);
    assert_eq!(denied, ["NS003"]);
    // An update that leaves alone what rules read is nobody's business, however old the view is.
    let team = GOOD.replace("istio.io/rev: prod", "istio.io/rev: prod, team: a");
    let policy = Policy::parse(strict).unwrap();
    let untouched = judge(&policy, &request(&team, Some(GOOD)), &mesh(&[INJECTORS]), now());
    assert!(untouched.is_allowed() && untouched.stale.is_none());
    let touched = judge(&policy, &request(GOOD, Some(BAD)), &mesh(&[INJECTORS]), now());
    assert!(!touched.is_allowed());
    // Manifests have no age.
    let whole = mesh(&[]).heard_at(Arc::default());
    let offline = judge(&policy, &request(GOOD, None), &whole, now());
    assert!(offline.is_allowed() && offline.oldest.is_none());
}

#[test]
fn people_read_what_is_old_and_the_audit_log_names_the_oldest_kind() {
    let old = [INJECTORS, (Kind::IstioGateway, 9_000)];
    let note = |response: &revguard::admission::response::Response, key: &str| {
        response.audit_annotations.iter().find(|(k, _)| *k == key).map(|(_, v)| v.clone())
    };
    let denied = answer("u".into(), &verdict("stale: {namespaces: deny}", GOOD, &old), now());
    let status = denied.status.as_ref().expect("a denial");
    assert_eq!(status.code, 403);
    assert!(
        status
            .message
            .starts_with("[stale-view] the view of mutatingwebhookconfigurations is 7m12s old (the policy allows 5m)"),
        "{}",
        status.message
    );
    assert_eq!(status.message.lines().count(), 5, "{}", status.message);
    let age = "mutatingwebhookconfigurations.admissionregistration.k8s.io 432.000s";
    assert_eq!(note(&denied, "snapshot-age").as_deref(), Some(age));
    assert!(note(&denied, "snapshot-stale").is_some_and(|text| text.starts_with("deny: the view of mutating")));

    let warned = answer("u".into(), &verdict("", GOOD, &old), now());
    assert!(warned.allowed && warned.warnings.len() == 1, "{:?}", warned.warnings);
    assert!(warned.warnings[0].starts_with("[stale-view] the view of mutating") && warned.warnings[0].len() <= 120);

    let silent = answer("u".into(), &verdict("stale: {namespaces: allow}", BAD, &old), now());
    assert!(silent.allowed && silent.warnings.is_empty());
    assert!(note(&silent, "snapshot-stale").is_some_and(|text| text.starts_with("allow: ")));
    assert_eq!(note(&silent, "audited").as_deref(), Some("NS004"));

    // A view that is not old is named as well, so that a log tells how fresh a denial was.
    let fresh = answer("u".into(), &verdict("", BAD, &[]), now());
    assert!(note(&fresh, "snapshot-age").is_some_and(|text| text.ends_with(" 1.000s")));
    assert_eq!(note(&fresh, "snapshot-stale"), None);
}

#[test]
fn nothing_is_mended_by_an_old_view() {
    let policy = Policy::parse("mutations: {NS001: Rev}").unwrap();
    let both = GOOD.replace("istio.io/rev: prod", "istio.io/rev: prod, istio-injection: enabled");
    let patches = |old: &[(Kind, i64)]| mend(&policy, &request(&both, None), &mesh(old), now()).unwrap().len();
    assert_eq!(patches(&[]), 1);
    assert_eq!(patches(&[INJECTORS]), 0);
}

#[test]
fn an_age_that_a_healthy_view_reaches_is_refused() {
    for (age, says) in [
        ("1m", "1m is less than 3m"),
        ("179s", "about once a minute"),
        ("soon", "is no duration"),
        ("-5m", "less than 3m"),
    ] {
        let error = Policy::parse(&format!("stale: {{age: {age}}}")).unwrap_err();
        assert!(error.contains("stale.age") && error.contains(says), "{error}");
    }
    assert_eq!(Policy::parse("stale: {age: 3m}").unwrap().stale.age.0, SignedDuration::from_mins(3));
    assert!(Policy::parse("stale: {age: 5m, pods: deny}").unwrap_err().contains("pods"));
    assert!(Policy::parse("stale: {namespaces: refuse}").is_err());
}
