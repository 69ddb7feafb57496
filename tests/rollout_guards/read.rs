//! What is read of a gateway.

use revguard::model::key;
use revguard::rollout::guards::{self, Scene};
use revguard::rollout::objects::{self, Change};
use revguard::rollout::read::{Listed, Raw, missing, seen};
use revguard::rollout::seen::{Of, Version};
use revguard::rollout::step::{Step, Which};
use revguard::snapshot::Snapshot;
use serde_json::{Value, json};

use super::world::{self, ROLLOUT, World};

fn pod(world: &mut World, like: &str, name: &str) -> String {
    let mut object = world.objects[&format!("Pod/{like}")].clone();
    object["metadata"]["name"] = json!(name);
    object["metadata"]["uid"] = json!(format!("uid-{name}"));
    world.put(object);
    format!("Pod/{name}")
}

#[test]
fn an_injected_gateway() {
    let seen = world::injected().seen();
    let source = seen.source.as_ref().expect("the Deployment");
    assert_eq!(
        (&*source.name, source.replicas, source.ready, source.owner.as_ref().map(|o| o.tool)),
        ("igw", 2, 2, Some("Helm"))
    );
    assert_eq!(source.template.revision.as_deref(), Some("1-23"));
    assert!(seen.canary.is_none() && seen.standby.is_none());
    let pods: Vec<_> = seen.pods.iter().map(|p| (&*p.name, p.of, p.revision.as_deref(), p.ready, &*p.node)).collect();
    let expected = [
        ("igw-5c786b6668-a", Of::Source, Some("1-23"), true, "n1"),
        ("igw-5c786b6668-b", Of::Source, Some("1-23"), true, "n2"),
    ];
    assert_eq!(pods, expected);
    let shows = &seen.pods[0].shows;
    assert_eq!(&*shows.image, "docker.io/istio/proxyv2:1.23.5");
    assert_eq!(shows.injected_by.as_deref(), Some("1-23"));
    assert_eq!(shows.discovery.as_deref(), Some("istiod-1-23.istio-system.svc"));
    assert_eq!(shows.ca.as_deref(), Some("istiod-1-23.istio-system.svc"));
    // A proxy that is told nothing dials what it was built with.
    assert_eq!(seen.pods[1].shows.discovery.as_deref(), Some("istiod.istio-system.svc"));
    let service = &seen.services[0];
    assert_eq!(service.target_ports, [8080, 8443, 15021], "the named one is the container's");
    assert_eq!(service.ingress, ["203.0.113.7"]);
    let endpoints: Vec<&str> = service.endpoints.iter().map(|e| &**e).collect();
    assert_eq!(endpoints, ["p-a", "p-b"]);
    assert_eq!(service.pruned_with, None);
    let hpa = &seen.hpas[0];
    assert_eq!((hpa.min, hpa.max, hpa.desired, hpa.active, hpa.owned), (2, 5, 2, Some(true), false));
    assert_eq!(seen.pdbs[0].disruptions_allowed, 1);
    assert_eq!(seen.apart_key.as_deref(), Ok("app"), "istio is what Gateways select by");
    assert!(seen.to.ready && seen.from.ready && !seen.config.needed);
    assert_eq!((&*seen.to.namespace, seen.to.version.as_deref()), ("istio-system", Some("1.24.5")));
}

#[test]
fn a_gateway_that_mounts_its_configuration() {
    let mut world = world::mounted();
    let seen = world.seen();
    let source = seen.source.as_ref().expect("the Deployment");
    assert_eq!(source.template.revision.as_deref(), Some("1-23"));
    assert_eq!(source.owner, None, "istioctl stamps Helm's label and is no Helm");
    assert_eq!(seen.services[0].pruned_with.as_deref(), Some("1-23"));
    assert_eq!(seen.pods[0].shows.discovery.as_deref(), Some("istiod-1-23.istio-system.svc"), "by the copy beside it");
    assert!(seen.config.needed && seen.config.copy.is_none());
    let original = seen.config.original.clone().expect("the original");
    let mut copy = world.objects["ConfigMap/istio-system/istio-1-24"].clone();
    copy["metadata"] = json!({"name": "istio-1-24", "namespace": "default", "uid": "c", "resourceVersion": "1",
        "labels": {key::ROLLOUT: ROLLOUT}});
    world.put(copy);
    let copy = world.seen().config.copy.expect("the copy");
    assert_eq!((&copy.hash, copy.ours, copy.shared), (&original, true, false));
    world.set("Deployment/custom-gw", "/spec/template/spec/volumes/1/configMap/name", json!("istio-1-24"));
    assert!(world.seen().config.copy.expect("the copy").shared, "the original mounts it by now");
    // Beside its istiod a gateway needs none.
    for object in world.objects.values_mut().filter(|o| o["metadata"]["namespace"] == "default") {
        object["metadata"]["namespace"] = json!("istio-system");
    }
    assert!(!world.seen().config.needed);
}

#[test]
fn pods_are_told_by_who_made_them_and_by_what_we_wrote_on_them() {
    let mut world = world::injected();
    let like = "igw-5c786b6668-a";
    let canary = pod(&mut world, like, "igw-1-24-77-a");
    world.set(&canary, "/metadata/ownerReferences/0/name", json!("igw-1-24-77"));
    world.set(&canary, "/metadata/labels/pod-template-hash", json!("77"));
    world.set(&canary, "/metadata/annotations/istio.io~1rev", json!("1-24"));
    let apart = pod(&mut world, like, "left");
    world.set(&apart, "/metadata/labels/app", json!("revguard-apart"));
    world.set(&apart, "/metadata/labels/revguard.dev~1rollout", json!(ROLLOUT));
    world.set(&apart, "/metadata/annotations/revguard.dev~1apart-since", json!("2026-03-02T10:00:00Z"));
    let probe = pod(&mut world, like, "igw-probe-0f1e2d3c");
    world.set(
        &probe,
        "/metadata/ownerReferences",
        json!([{"kind": "GatewayRollout", "name": "igw-1-24", "uid": ROLLOUT}]),
    );
    world.set(&probe, "/metadata/labels/revguard.dev~1rollout", json!(ROLLOUT));
    world.set(&probe, "/metadata/labels/revguard.dev~1probe", json!("true"));
    let bare = pod(&mut world, like, "by-hand");
    world.set(&bare, "/metadata/ownerReferences", json!([]));
    let done = pod(&mut world, like, "evicted");
    world.set(&done, "/status/phase", json!("Failed"));
    let deployment = {
        let mut d = world.objects["Deployment/igw"].clone();
        d["metadata"] = json!({"name": "igw-1-24", "namespace": "gw", "uid": "d2", "labels": {key::ROLLOUT: ROLLOUT}});
        d["spec"]["selector"]["matchLabels"][key::INSTANCE] = json!("0f1e2d3c-1-24");
        d
    };
    world.put(deployment);
    let seen = world.seen();
    let of: Vec<_> = seen.pods.iter().map(|p| (&*p.name, p.of)).collect();
    let expected = [
        ("by-hand", Of::Other),
        ("igw-1-24-77-a", Of::Canary),
        ("igw-5c786b6668-a", Of::Source),
        ("igw-5c786b6668-b", Of::Source),
        ("igw-probe-0f1e2d3c", Of::Probe),
        ("left", Of::Apart),
    ];
    assert_eq!(of, expected);
    let left = seen.pods.iter().find(|p| &*p.name == "left").expect("it");
    assert_eq!(left.apart_since.map(|t| t.to_string()).as_deref(), Some("2026-03-02T10:00:00Z"));
    assert!(seen.canary.is_some());
    // Another rollout's marks are nobody's here.
    world.set("Pod/left", "/metadata/labels/revguard.dev~1rollout", json!("somebody"));
    assert!(!world.seen().pods.iter().any(|p| &*p.name == "left"));
}

/// The gateway is itself what an earlier rollout made: its selector and the new one's have no pod in common.
#[test]
fn the_next_rollout_of_what_a_rollout_made() {
    let mut world = world::injected();
    for at in ["/spec/selector/matchLabels", "/spec/template/metadata/labels"] {
        world.set("Deployment/igw", &format!("{at}/revguard.dev~1instance"), json!("11111111-1-23"));
    }
    for pod in ["Pod/igw-5c786b6668-a", "Pod/igw-5c786b6668-b"] {
        world.set(pod, "/metadata/labels/revguard.dev~1instance", json!("11111111-1-23"));
    }
    let created = objects::step(&Step::CreateCanary, &world.seen(), &world.raw()).expect("it can be made");
    let Change::Create { mut object } = created.change else { panic!("{created:?}") };
    assert_eq!(object["spec"]["selector"]["matchLabels"][key::INSTANCE], "0f1e2d3c-1-24");
    (object["apiVersion"], object["kind"]) = (json!("apps/v1"), json!("Deployment"));
    (object["metadata"]["name"], object["metadata"]["namespace"]) = (json!("igw-1-24"), json!("gw"));
    world.put(object);
    let canary = pod(&mut world, "igw-5c786b6668-a", "igw-1-24-77-a");
    world.set(&canary, "/metadata/ownerReferences/0/name", json!("igw-1-24-77"));
    world.set(&canary, "/metadata/labels/pod-template-hash", json!("77"));
    world.set(&canary, "/metadata/labels/revguard.dev~1instance", json!("0f1e2d3c-1-24"));
    let seen = world.seen();
    let of: Vec<Of> = seen.pods.iter().map(|p| p.of).collect();
    assert_eq!(of, [Of::Canary, Of::Source, Of::Source], "although the original's selector does not match it");
}

#[test]
fn what_leads_elsewhere_is_no_service_of_the_gateway() {
    let mut world = world::injected();
    world.put(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "alias", "namespace": "gw", "uid": "s9"},
        "spec": {"type": "ExternalName", "externalName": "example.com", "selector": {"app": "igw"}}}),
    );
    assert_eq!(world.seen().services.len(), 1);
}

#[test]
fn trouble_is_what_does_not_end_by_itself() {
    let mut world = world::injected();
    let path = "/status/containerStatuses";
    let mut told = |state: Value| {
        world.set("Pod/igw-5c786b6668-a", path, json!([{"name": "istio-proxy", "state": state}]));
        world.seen().pods[0].trouble.as_deref().map(str::to_owned)
    };
    assert_eq!(told(json!({"waiting": {"reason": "CrashLoopBackOff"}})).as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(told(json!({"waiting": {"reason": "ContainerCreating"}})), None);
    assert_eq!(told(json!({"running": {}})), None);
    let unschedulable = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
    world.set("Pod/igw-5c786b6668-b", "/status/conditions/-", unschedulable);
    assert_eq!(world.seen().pods[1].trouble.as_deref(), Some("Unschedulable"));
}

#[test]
fn revisions_by_annotation_then_injector_then_label_through_tags() {
    let mut world = world::injected();
    world.put(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "istiod-revision-tag-prod",
        "namespace": "istio-system", "labels": {"istio.io/tag": "prod", "istio.io/rev": "1-23"}}, "spec": {}}));
    world.set("Pod/igw-5c786b6668-a", "/metadata/annotations", json!({key::STATUS: "{\"revision\":\"1-24\"}"}));
    world.set("Pod/igw-5c786b6668-b", "/metadata/annotations", json!({}));
    world.set("Pod/igw-5c786b6668-b", "/metadata/labels/istio.io~1rev", json!("prod"));
    let revisions: Vec<_> = world.seen().pods.iter().map(|p| p.revision.as_deref().map(str::to_owned)).collect();
    assert_eq!(revisions, [Some("1-24".to_owned()), Some("1-23".to_owned())]);
}

#[test]
fn a_label_to_set_pods_apart_by_must_be_everybodys_and_nobody_elses() {
    let key = |change: &dyn Fn(&mut World)| {
        let mut world = world::injected();
        change(&mut world);
        world.seen().apart_key.map(|k| k.to_string())
    };
    let why = |change: &dyn Fn(&mut World)| key(change).expect_err("no key");
    // A Deployment that does not select by it would count the pod on.
    let said = why(&|w| w.set("Deployment/igw", "/spec/selector/matchLabels/app", Value::Null));
    assert!(said.contains("Deployment igw, which would count the pod on"), "{said}");
    // A budget by the other label: the first that leaves every budget is better.
    let tiers = |w: &mut World| {
        for at in ["/spec/selector/matchLabels/tier", "/spec/template/metadata/labels/tier"] {
            w.set("Deployment/igw", at, json!("edge"));
        }
        w.set("Service/igw", "/spec/selector/tier", json!("edge"));
        for pod in ["Pod/igw-5c786b6668-a", "Pod/igw-5c786b6668-b"] {
            w.set(pod, "/metadata/labels/tier", json!("edge"));
        }
    };
    assert_eq!(key(&tiers).as_deref(), Ok("app"));
    let by_tier = |w: &mut World| {
        tiers(w);
        w.set("PodDisruptionBudget/igw", "/spec/selector/matchLabels", json!({"tier": "edge"}));
    };
    assert_eq!(key(&by_tier).as_deref(), Ok("tier"));
    // What the injector adds is on pods only, and counts.
    let said = why(&|w| {
        w.put(json!({"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {"name": "t", "namespace": "istio-system"},
            "spec": {"selector": {"matchLabels": {"app": "igw", "service.istio.io/canonical-name": "igw"}}}}));
    });
    assert!(said.contains("Telemetry/istio-system/t selects by it"), "{said}");
    // A namespace that a peer does not reach.
    let elsewhere = |w: &mut World| {
        w.put(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n", "namespace": "apps"},
            "spec": {"podSelector": {}, "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"team": "x"}},
                "podSelector": {"matchLabels": {"app": "igw"}}}]}]}}));
    };
    assert_eq!(key(&elsewhere).as_deref(), Ok("app"));
    // What was not read rules it out.
    let said = why(&|w| w.refused = vec![Listed::WasmPlugins]);
    assert_eq!(said, "listing wasmplugins is forbidden");
    let raw = Raw::of(world::injected().raw().rollout);
    assert_eq!(
        seen(&raw, &Snapshot::whole()).expect("readable").apart_key.map(drop),
        Err("the Deployment is not there".into())
    );
}

#[test]
fn questions_follow_from_answers_and_come_to_an_end() {
    let world = world::injected();
    let known = world.known();
    let all = world.raw();
    let mut raw = Raw::of(all.rollout.clone());
    let mut asked = Vec::new();
    for _ in 0..5 {
        let questions = missing(&raw, &known, true);
        if questions.is_empty() {
            break;
        }
        for q in questions {
            let items = match (&q.name, q.namespace.as_str()) {
                (Some(name), ns) => all.get(q.listed, ns, name).into_iter().cloned().collect(),
                (None, "") => all.all(q.listed).to_vec(),
                (None, ns) => all.within(q.listed, ns).cloned().collect(),
            };
            asked.push(q.clone());
            raw.answer(q, items);
        }
    }
    assert!(missing(&raw, &known, true).is_empty(), "it ends");
    let unique: std::collections::BTreeSet<_> = asked.iter().cloned().collect();
    assert_eq!(unique.len(), asked.len(), "nothing is asked twice");
    assert_eq!(seen(&raw, &known).expect("readable"), world.seen(), "and nothing is missing");
    let few = missing(&Raw::of(all.rollout.clone()), &known, false);
    assert!(few.iter().all(|q| !matches!(q.listed, Listed::NetworkPolicies | Listed::Gateways)));
}

#[test]
fn manifests_are_read_alike() {
    let world = world::injected();
    let rollout = world.raw().rollout;
    let raw = Raw::manifests(rollout, world.objects.values().cloned());
    assert!(missing(&raw, &world.known(), true).is_empty());
    assert_eq!(seen(&raw, &world.known()).expect("readable"), world.seen());
    assert_eq!(raw.unread(Listed::NetworkPolicies), Some("the manifests hold no networkpolicies"));
}

#[test]
fn what_every_plan_needs_and_what_only_guards_look_at() {
    let mut world = world::injected();
    world.refused = vec![Listed::Pods];
    let error = seen(&world.raw(), &world.known()).expect_err("not without pods").to_string();
    assert_eq!(error, "nothing is known of pods of GatewayRollout gw/igw-1-24: listing pods is forbidden");
    world.refused = vec![Listed::Quotas];
    assert!(seen(&world.raw(), &world.known()).is_ok());
    world.set("GatewayRollout/igw-1-24", "/spec/strategy", json!({"steps": [{"name": "a", "weigth": 3}]}));
    let error = seen(&world.raw(), &world.known()).expect_err("a typo").to_string();
    assert!(error.contains("gw/igw-1-24: spec.strategy.steps") && error.contains("weigth"), "{error}");
}

#[test]
fn an_approval_counts_only_for_this_object_and_with_a_name() {
    let mut world = world::injected();
    let mut approved = |annotations: Value| {
        world.set("GatewayRollout/igw-1-24", "/metadata/annotations", annotations);
        world.seen().rollout.approval.map(|a| (a.step.to_string(), a.by.to_string()))
    };
    let step = format!("{ROLLOUT}/half");
    assert_eq!(approved(json!({key::APPROVE: step, key::APPROVED_BY: "alice"})), Some(("half".into(), "alice".into())));
    assert_eq!(approved(json!({key::APPROVE: step})), None);
    assert_eq!(approved(json!({key::APPROVE: "another/half", key::APPROVED_BY: "alice"})), None);
    assert_eq!(approved(json!({key::APPROVE: "half", key::APPROVED_BY: "alice"})), None);
}

/// Every value of an object in turn becomes something else; nothing may panic, whatever comes of it.
#[test]
fn odd_objects_are_read_as_far_as_they_can_be() {
    // The control planes are the same in both.
    let of_gateway = |o: &Value| o["metadata"]["namespace"] == "default" || o["kind"] == "GatewayRollout";
    for (mut world, all) in [(world::injected(), true), (world::mounted(), false)] {
        let known = world.known();
        let odd = [Value::Null, json!(-1), json!("\u{0}%"), json!([[]]), json!({"": {}}), json!(1e300), json!(true)];
        let mut tried = 0_usize;
        for (name, object) in world.objects.clone().into_iter().filter(|(_, o)| all || of_gateway(o)) {
            for pointer in pointers(&object) {
                let changed = world.objects.get_mut(&name).expect("it");
                *changed.pointer_mut(&pointer).expect("a place") = odd[tried % odd.len()].clone();
                tried += 1;
                survive(&world, &known);
                world.objects.insert(name.clone(), object.clone());
            }
        }
        assert!(tried > 200, "{tried}");
    }
}

fn survive(world: &World, known: &Snapshot) {
    let Some(rollout) = world.objects.values().find(|o| o["kind"] == "GatewayRollout").cloned() else { return };
    let raw = Raw::manifests(rollout, world.objects.values().cloned());
    let Ok(seen) = seen(&raw, known) else { return };
    let _ = guards::check(&Scene::of(&raw, known, &seen));
    let held = Version::default;
    for step in [
        Step::CreateCanary,
        Step::CreateStandby,
        Step::CreateProbe,
        Step::Pace { held: held(), paused: None },
        Step::Retemplate { held: held(), revision: "1-24".into() },
        Step::Scale { which: Which::Source, held: held(), to: 1 },
    ] {
        let _ = objects::step(&step, &seen, &raw);
    }
}

fn pointers(value: &Value) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = vec![(String::new(), value)];
    while let Some((at, value)) = open.pop() {
        match value {
            Value::Object(map) => {
                let escaped = |k: &String| k.replace('~', "~0").replace('/', "~1");
                open.extend(map.iter().map(|(k, v)| (format!("{at}/{}", escaped(k)), v)));
            }
            Value::Array(list) => open.extend(list.iter().enumerate().map(|(i, v)| (format!("{at}/{i}"), v))),
            _ => {}
        }
        all.push(at);
    }
    all
}
