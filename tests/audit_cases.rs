//! The table of what exists: every file under `tests/audit`, and what carrying the repairs out comes to.
//!
//! `UPDATE=1` rewrites the golden texts, never the expected lines. `CASE=part-of-a-path` runs only those.

#[path = "audit_table/mod.rs"]
mod audit_table;

use std::collections::BTreeSet;

use audit_table::{Case, World, folder, line, text};
use revguard::rules::policy::RuleAction;
use revguard::rules::{Check, Level, Policy, RULES, Rule};

fn auditing() -> impl Iterator<Item = &'static Rule> {
    let audits = |r: &&Rule| r.checks.iter().all(|c| matches!(c, Check::Audit(_)));
    RULES.iter().copied().filter(audits)
}

#[test]
fn every_case_says_what_is_expected() {
    let mut failures = Vec::new();
    let all = Case::all();
    for case in all {
        let audit = case.audit();
        let mut expected = case.head.expect.clone();
        expected.sort();
        let mut found: Vec<String> = audit.entries.iter().map(line).collect();
        found.sort();
        let got = text(&audit);
        if expected != found {
            failures
                .push(format!("{}: {}\n  expected {expected:#?}\n  got {found:#?}\n{got}", case.path, case.head.case));
            continue;
        }
        let golden = folder().join(&case.path).with_extension("txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&golden, &got).unwrap();
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        if wanted != got {
            failures.push(format!("{}:\n--- golden\n{wanted}--- got\n{got}", case.path));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), all.len(), failures.join("\n"));
}

#[test]
fn every_rule_finds_something_and_lets_near_misses_be() {
    for rule in auditing() {
        let own: Vec<&Case> = Case::all().iter().filter(|c| c.rule() == rule.code).collect();
        let speaks = |c: &&&Case| c.head.expect.iter().any(|e| e.starts_with(rule.code));
        let (loud, quiet) = (own.iter().filter(speaks).count(), own.iter().filter(|c| !speaks(c)).count());
        assert!(loud >= 1, "{}: no flawed world", rule.code);
        assert!(quiet >= 2, "{}: needs a clean world and a near miss, has {quiet}", rule.code);
    }
}

#[test]
fn a_rule_switched_off_says_nothing() {
    for case in Case::all() {
        let codes: BTreeSet<String> =
            case.head.expect.iter().filter_map(|e| e.split(' ').next().map(str::to_owned)).collect();
        for code in codes {
            let mut policy = case.policy.clone();
            policy.rules.insert(code.clone(), RuleAction::Off);
            let left = case.world.audit(&policy);
            assert!(left.entries.iter().all(|e| e.rule.code != code), "{}: {code} is off", case.path);
        }
    }
}

#[test]
fn without_a_policy_nothing_is_repaired() {
    for case in Case::all() {
        let audit = case.world.audit(&Policy::default());
        assert!(audit.entries.iter().all(|e| e.repair.is_none()), "{}", case.path);
    }
}

/// Repairs until none is offered. No world may come back, and in the end there is nothing critical that was not there
/// before, nor an error, unless something critical that covered it is gone: whether a validator belongs to the control plane
/// that injects is only asked where somebody injects. (On the way there may be more: a tag is two objects, and is moved in
/// two writes.)
pub fn converge(world: &World, policy: &Policy) -> Result<World, String> {
    let mut now = world.clone();
    now.settle();
    let severe = |w: &World, level: Level| -> BTreeSet<(String, String)> {
        let audit = w.audit(policy);
        let bad = audit.entries.into_iter().filter(|e| e.level >= level);
        bad.map(|e| (e.rule.code.to_owned(), e.object.name.to_string())).collect()
    };
    // How bad a finding about a namespace is follows from what else there is: one that was there is not new.
    let (critical, before) = (severe(&now, Level::Critical), severe(&now, Level::Info));
    let mut seen = vec![now.clone()];
    let mut steps = Vec::new();
    for _ in 0..40 {
        let audit = now.audit(policy);
        let Some(entry) = audit.entries.iter().find(|e| e.repair.is_some()) else {
            let left = severe(&now, Level::Critical);
            let new: Vec<_> = severe(&now, Level::Error).difference(&before).cloned().collect();
            let covered = left.len() < critical.len() && new.iter().all(|(code, _)| code == "VW005");
            if left.is_subset(&critical) && (new.is_empty() || covered) {
                return Ok(now);
            }
            return Err(format!("{steps:#?} leave {new:?}\n{}", text(&audit)));
        };
        let repair = entry.repair.as_ref().expect("a repair");
        steps.push(format!("{}: {}", line(entry), repair.says));
        now.mend(repair).map_err(|e| format!("{steps:#?}: {e}"))?;
        now.settle();
        if seen.contains(&now) {
            return Err(format!("{steps:#?}: has been there before"));
        }
        seen.push(now.clone());
    }
    Err("does not come to an end".into())
}

#[test]
fn repairs_of_every_case_come_to_an_end() {
    let mut failures = Vec::new();
    for case in Case::all().iter().filter(|c| !c.head.rendered) {
        if let Err(e) = converge(&case.world, &case.policy) {
            failures.push(format!("{}: {e}", case.path));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

mod random {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::audit_table::{World, ca};
    use super::{Policy, converge};

    /// A control plane: is its Deployment there, its Service, is it ready; its injector (none, live, switched off); its
    /// validator.
    #[derive(Clone, Debug)]
    struct Plane {
        deployment: bool,
        service: bool,
        ready: bool,
        injector: u8,
        validator: bool,
        minor: u16,
    }

    /// Which revision each half of a tag leads to, if it is there; does anybody ask for it.
    #[derive(Clone, Debug)]
    struct Tag {
        hooks: Option<usize>,
        service: Option<usize>,
        asked: bool,
    }

    #[derive(Clone, Debug)]
    struct Default {
        /// What its Service, its label are of.
        service: usize,
        label: usize,
        ignore: bool,
        selector: bool,
        ca: u8,
    }

    const NAMES: [&str; 4] = ["default", "1-23", "1-24", "ghost"];

    fn istiod(revision: usize) -> String {
        if revision == 0 { "istiod".into() } else { format!("istiod-{}", NAMES[revision]) }
    }

    fn suffix(revision: usize) -> String {
        if revision == 0 { String::new() } else { format!("-{}", NAMES[revision]) }
    }

    fn plane() -> impl Strategy<Value = Plane> {
        (any::<bool>(), any::<bool>(), prop::bool::weighted(0.8), 0..4u8, prop::bool::weighted(0.8), 9..30u16).prop_map(
            |(deployment, service, ready, injector, validator, minor)| Plane {
                deployment,
                service: service || deployment,
                ready,
                injector,
                validator,
                minor,
            },
        )
    }

    fn half() -> impl Strategy<Value = Option<usize>> {
        prop::option::weighted(0.7, 0..4usize)
    }

    fn tag() -> impl Strategy<Value = Tag> {
        (half(), half(), any::<bool>()).prop_map(|(hooks, service, asked)| Tag { hooks, service, asked })
    }

    fn default_validator() -> impl Strategy<Value = Option<Default>> {
        let one = (0..4usize, 0..4usize, any::<bool>(), any::<bool>(), 0..3u8);
        prop::option::weighted(
            0.8,
            one.prop_map(|(service, label, ignore, selector, ca)| Default { service, label, ignore, selector, ca }),
        )
    }

    fn hook(name: &str, service: &str, namespaces: Value, objects: Value) -> Value {
        json!({
            "name": format!("{name}sidecar-injector.istio.io"),
            "clientConfig": {"service": {"name": service, "namespace": "istio-system", "path": "/inject", "port": 443},
                             "caBundle": ca("mesh")},
            "failurePolicy": "Fail", "namespaceSelector": namespaces, "objectSelector": objects,
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        })
    }

    fn hooks(name: &str, service: &str, default: bool) -> Vec<Value> {
        let allowed =
            json!({"matchExpressions": [{"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}]});
        let asks = json!({"matchExpressions": [
            {"key": "istio.io/rev", "operator": "In", "values": [name]}, {"key": "istio-injection", "operator": "DoesNotExist"}]});
        let mut all = vec![hook("rev.namespace.", service, asks, allowed.clone())];
        if default {
            all.push(hook("namespace.", service, json!({"matchLabels": {"istio-injection": "enabled"}}), allowed));
        }
        all
    }

    fn judge(name: &str, service: &str, policy: &str, ca: Option<String>, selector: Value) -> Value {
        let mut client = json!({"service": {"name": service, "namespace": "istio-system", "path": "/validate"}});
        if let Some(ca) = ca {
            client["caBundle"] = json!(ca);
        }
        json!({
            "name": name, "clientConfig": client, "failurePolicy": policy, "objectSelector": selector,
            "rules": [{"apiGroups": ["networking.istio.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["*"]}],
        })
    }

    fn config(kind: &str, name: &str, labels: Value, webhooks: Vec<Value>) -> Value {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
               "metadata": {"name": name, "labels": labels}, "webhooks": webhooks})
    }

    fn service(name: &str, labels: Value, selector: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Service",
               "metadata": {"name": name, "namespace": "istio-system", "labels": labels},
               "spec": {"selector": selector, "ports": [{"port": 443}]}})
    }

    const VALIDATING: &str = "ValidatingWebhookConfiguration";
    const MUTATING: &str = "MutatingWebhookConfiguration";

    fn selector(revision: usize) -> Value {
        json!({"app": "istiod", "istio.io/rev": NAMES[revision]})
    }

    fn planes(all: &[Plane], objects: &mut Vec<Value>) {
        for (r, plane) in all.iter().enumerate() {
            let (name, labels) = (istiod(r), json!({"app": "istiod", "istio.io/rev": NAMES[r]}));
            if plane.deployment {
                objects.push(json!({
                    "apiVersion": "apps/v1", "kind": "Deployment",
                    "metadata": {"name": name, "namespace": "istio-system", "labels": labels},
                    "spec": {"selector": {"matchLabels": labels}, "template": {
                        "metadata": {"labels": labels},
                        "spec": {"containers": [{"name": "discovery", "image": format!("istio/pilot:1.{}.0", plane.minor)}]}}},
                    "status": {"readyReplicas": u8::from(plane.ready)},
                }));
            }
            if plane.service {
                objects.push(service(&name, labels.clone(), &selector(r)));
                objects.push(json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": {"name": format!("{name}-x"), "namespace": "istio-system", "labels": {"kubernetes.io/service-name": name}},
                    "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": plane.ready && plane.deployment}}],
                }));
            }
            let labels = json!({"istio.io/rev": NAMES[r]});
            if plane.injector > 0 {
                let mut webhooks = hooks(NAMES[r], &name, r == 0);
                if plane.injector == 1 {
                    for webhook in &mut webhooks {
                        webhook["namespaceSelector"] = json!({"matchLabels": {"istio.io/deactivated": "never-match"}});
                    }
                }
                objects.push(config(
                    MUTATING,
                    &format!("istio-sidecar-injector{}", suffix(r)),
                    labels.clone(),
                    webhooks,
                ));
            }
            if plane.validator {
                let own =
                    json!({"matchExpressions": [{"key": "istio.io/rev", "operator": "In", "values": [NAMES[r]]}]});
                let webhook = judge("rev.validation.istio.io", &name, "Fail", Some(ca("mesh")), own);
                objects.push(config(
                    VALIDATING,
                    &format!("istio-validator{}-istio-system", suffix(r)),
                    labels,
                    vec![webhook],
                ));
            }
        }
    }

    fn tags(all: &[(&str, Tag)], objects: &mut Vec<Value>) {
        for (name, tag) in all {
            let labels = |r: usize| json!({"istio.io/rev": NAMES[r], "istio.io/tag": name, "app": "istiod"});
            if let Some(r) = tag.hooks {
                let webhooks = hooks(name, &istiod(r), *name == "default");
                objects.push(config(MUTATING, &format!("istio-revision-tag-{name}"), labels(r), webhooks));
            }
            if let Some(r) = tag.service {
                objects.push(service(&format!("istiod-revision-tag-{name}"), labels(r), &selector(r)));
            }
            if tag.asked {
                let labels = if *name == "default" {
                    json!({"istio-injection": "enabled"})
                } else {
                    json!({"istio.io/rev": name})
                };
                objects.push(json!({"apiVersion": "v1", "kind": "Namespace",
                                    "metadata": {"name": format!("asks-{name}"), "labels": labels}}));
            }
        }
    }

    fn validators(default: &Option<Default>, legacy: bool, objects: &mut Vec<Value>) {
        let bundle = |n: u8| match n {
            0 => None,
            1 => Some(ca("other")),
            _ => Some(ca("mesh")),
        };
        if let Some(d) = default {
            let selector = if d.selector {
                json!({"matchExpressions": [{"key": "istio.io/rev", "operator": "DoesNotExist"}]})
            } else {
                json!({})
            };
            let policy = if d.ignore { "Ignore" } else { "Fail" };
            let webhook = judge("validation.istio.io", &istiod(d.service), policy, bundle(d.ca), selector);
            let labels = json!({"istio.io/rev": NAMES[d.label]});
            objects.push(config(VALIDATING, "istiod-default-validator", labels, vec![webhook]));
        }
        if legacy {
            let webhook = judge("validation.istio.io", "istiod", "Fail", Some(ca("mesh")), json!({}));
            objects.push(config(VALIDATING, "istiod-istio-system", json!({"app": "istiod"}), vec![webhook]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

        /// Of any mesh, however broken: repairs come to an end, none is offered twice for the same thing, no two undo each
        /// other, and nothing is wrong in the end that was not wrong before.
        #[test]
        fn repairs_of_any_mesh_come_to_an_end_and_break_nothing(
            all in prop::collection::vec(plane(), 3),
            prod in tag(),
            default in tag(),
            like in prop::option::weighted(0.1, tag()),
            validator in default_validator(),
            legacy in prop::bool::weighted(0.2),
        ) {
            let mut objects = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}})];
            planes(&all, &mut objects);
            let mut named = vec![("prod", prod), ("default", default)];
            named.extend(like.map(|t| ("1-24", t)));
            tags(&named, &mut objects);
            validators(&validator, legacy, &mut objects);
            let world = World { objects, rendered: false };
            let policy = Policy::parse("repair: all").unwrap();
            if let Err(e) = converge(&world, &policy) {
                prop_assert!(false, "{e}");
            }
        }
    }
}
