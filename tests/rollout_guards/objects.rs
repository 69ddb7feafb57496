//! What a rollout writes: the second Deployment, the probe, the standby, and every patch, applied to the object that it is for.

use jiff::Timestamp;
use revguard::model::{Kind, Object, key};
use revguard::rollout::objects::{Change, Written, step};
use revguard::rollout::seen::{Map, Version};
use revguard::rollout::step::{Step, Which};
use revguard::wire::manifest::typed;
use serde_json::{Value, json};

use super::world::{self, ROLLOUT, World};

fn held() -> Version {
    Version { uid: "u".into(), version: "7".into() }
}

fn written(world: &World, wanted: &Step) -> Written {
    step(wanted, &world.seen(), &world.raw()).expect("it can be written")
}

fn created(world: &World, wanted: &Step) -> (String, Value) {
    let Written { name, change: Change::Create { object }, .. } = written(world, wanted) else { panic!("no creation") };
    (name.to_string(), object)
}

/// The object after the patch, as the API server would have it.
fn patched(world: &World, wanted: &Step) -> (String, Value) {
    let Written { kind, name, change: Change::Patch { operations, held: on } } = written(world, wanted) else {
        panic!("no patch")
    };
    assert_eq!(on, held(), "the version of what was seen is the precondition");
    let mut object = world.objects[&format!("{kind}/{name}")].clone();
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations)).expect("a patch");
    json_patch::patch(&mut object, &patch).expect("a patch that fits");
    (format!("{kind}/{name}"), object)
}

/// A world in which the baseline was captured, as the plan does it.
fn locked(mut world: World, gateway: &str, rollout: &str) -> World {
    let spec = world.objects[gateway]["spec"].clone();
    let baseline = json!({"deployment": {"name": "x", "template": spec["template"].to_string(),
        "strategy": spec["strategy"].to_string(), "paused": false, "minReadySeconds": spec["minReadySeconds"]}});
    world.set(rollout, "/status", json!({"fromRevision": "1-23", "baseline": baseline}));
    world
}

fn mounted() -> World {
    locked(world::mounted(), "Deployment/custom-gw", "GatewayRollout/custom-gw-1-24")
}

fn injected() -> World {
    locked(world::injected(), "Deployment/igw", "GatewayRollout/igw-1-24")
}

fn env<'a>(template: &'a Value, name: &str) -> &'a str {
    let all = template["spec"]["containers"][0]["env"].as_array().expect("variables");
    all.iter().find(|e| e["name"] == name).and_then(|e| e["value"].as_str()).unwrap_or("")
}

#[test]
fn the_second_deployment_of_a_gateway_that_mounts_its_configuration() {
    let (name, object) = created(&mounted(), &Step::CreateCanary);
    assert_eq!(name, "custom-gw-1-24");
    let spec = &object["spec"];
    assert_eq!((&spec["replicas"], &spec["minReadySeconds"]), (&json!(0), &json!(5)));
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    );
    let selector = json!({"app": "istio-ingressgateway", "istio": "custom-gw", key::INSTANCE: "0f1e2d3c-1-24"});
    assert_eq!(spec["selector"], json!({"matchLabels": selector}));
    let template = &spec["template"];
    let labels = json!({
        "app": "istio-ingressgateway",
        "istio": "custom-gw",
        "istio.io/rev": "1-24",
        "revguard.dev/instance": "0f1e2d3c-1-24",
        "service.istio.io/canonical-name": "custom-gw",
        "service.istio.io/canonical-revision": "1-24",
        "sidecar.istio.io/inject": "false",
    });
    assert_eq!(template["metadata"]["labels"], labels, "nothing of an installer's is left");
    let annotations = json!({"istio.io/rev": "1-24", "sidecar.istio.io/inject": "false"});
    assert_eq!(template["metadata"]["annotations"], annotations, "neither is a restart");
    let proxy = &template["spec"]["containers"][0];
    assert_eq!(proxy["image"], "docker.io/istio/proxyv2:1.24.5-distroless");
    assert_eq!(proxy["args"][5], "istiod-1-24.istio-system.svc:15012");
    assert_eq!(proxy["args"][3], "custom-gw", "the service cluster stays");
    assert_eq!(env(template, "CA_ADDR"), "istiod-1-24.istio-system.svc:15012");
    assert_eq!(env(template, "ISTIO_META_WORKLOAD_NAME"), "custom-gw-1-24");
    let owner = "kubernetes://apis/apps/v1/namespaces/default/deployments/custom-gw-1-24";
    assert_eq!(env(template, "ISTIO_META_OWNER"), owner);
    assert_eq!(proxy["env"][1]["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name", "what has no value keeps none");
    let volumes = &template["spec"]["volumes"];
    assert_eq!(volumes[1]["configMap"], json!({"name": "istio-1-24", "optional": false}));
    assert_eq!(volumes[0]["configMap"]["name"], "istio-ca-root-cert");
    assert_eq!(template["spec"]["serviceAccountName"], "custom-gw-service-account", "the same identity");
    let meta = &object["metadata"];
    assert_eq!(meta["labels"][key::ROLLOUT], ROLLOUT);
    assert_eq!(meta["labels"]["istio.io/rev"], "1-24");
    assert!(meta["labels"].as_object().expect("labels").keys().all(|k| !k.contains("operator.istio.io")), "{meta}");
    assert!(meta["ownerReferences"].is_null(), "garbage collection takes no gateway along");
}

#[test]
fn the_second_deployment_of_an_injected_gateway() {
    let (name, object) = created(&injected(), &Step::CreateCanary);
    assert_eq!(name, "igw-1-24");
    let template = &object["spec"]["template"];
    assert_eq!(
        template["spec"],
        world::injected().objects["Deployment/igw"]["spec"]["template"]["spec"],
        "the image stays auto"
    );
    let annotations = json!({"inject.istio.io/templates": "gateway", "sidecar.istio.io/inject": "true"});
    assert_eq!(template["metadata"]["annotations"], annotations);
    let labels = &template["metadata"]["labels"];
    assert_eq!((&labels["istio.io/rev"], &labels["sidecar.istio.io/inject"]), (&json!("1-24"), &json!("true")));
    assert!(labels["app.kubernetes.io/managed-by"].is_null());
    let own = &object["metadata"];
    assert!(
        own["annotations"].is_null() && own["labels"]["app.kubernetes.io/managed-by"].is_null(),
        "not Helm's: {own}"
    );
}

/// Labels by which a Service or the Deployment selects stay, whosever they are.
#[test]
fn what_selectors_need_is_never_left_out() {
    let mut world = injected();
    world.set("Service/igw", "/spec/selector/app.kubernetes.io~1managed-by", json!("Helm"));
    let (_, object) = created(&world, &Step::CreateCanary);
    assert_eq!(object["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/managed-by"], "Helm");
    for (world, service) in [(injected(), "Service/igw"), (mounted(), "Service/custom-gw")] {
        let (_, object) = created(&world, &Step::CreateCanary);
        let labels = &object["spec"]["template"]["metadata"]["labels"];
        let wanted = world.objects[service]["spec"]["selector"].as_object().expect("a selector");
        assert!(wanted.iter().all(|(k, v)| labels[k] == *v), "{labels}");
        let selector = object["spec"]["selector"]["matchLabels"].as_object().expect("a selector");
        assert!(selector.iter().all(|(k, v)| labels[k] == *v), "the API server wants that: {selector:?}");
    }
}

#[test]
fn addresses_change_whole_or_not_at_all() {
    let mut world = injected();
    let config =
        "discoveryAddress: istiod-1-23.istio-system.svc:15012\nother: istiod-1-23-5.istio-system.svc, x-istiod-1-23.y";
    world.set("Deployment/igw", "/spec/template/metadata/annotations/proxy.istio.io~1config", json!(config));
    let (_, object) = created(&world, &Step::CreateCanary);
    let expected =
        "discoveryAddress: istiod-1-24.istio-system.svc:15012\nother: istiod-1-23-5.istio-system.svc, x-istiod-1-23.y";
    assert_eq!(object["spec"]["template"]["metadata"]["annotations"]["proxy.istio.io/config"], expected);
    // From the revision without a name, in another namespace.
    let mut world = mounted();
    world.set("GatewayRollout/custom-gw-1-24", "/status/fromRevision", json!("default"));
    let variables = json!([{"name": "CA_ADDR", "value": "istiod.istio-old.svc:15012"}]);
    world.set("Deployment/custom-gw", "/spec/template/spec/containers/0/env", variables);
    let (_, object) = created(&world, &Step::CreateCanary);
    assert_eq!(env(&object["spec"]["template"], "CA_ADDR"), "istiod-1-24.istio-system.svc:15012");
}

#[test]
fn a_probe_is_never_an_endpoint_and_nobody_adopts_it() {
    for world in [injected(), mounted()] {
        let (name, pod) = created(&world, &Step::CreateProbe);
        assert!(name.ends_with("-probe-0f1e2d3c"), "{name}");
        let gates = json!([{"conditionType": "revguard.dev/dark"}]);
        assert_eq!(pod["spec"]["readinessGates"], gates);
        let labels = &pod["metadata"]["labels"];
        assert_eq!((&labels[key::ROLLOUT], &labels[key::PROBE]), (&json!(ROLLOUT), &json!("true")));
        assert_eq!(labels["istio.io/rev"], "1-24");
        assert!(labels["pod-template-hash"].is_null() && labels[key::INSTANCE].is_null(), "{labels}");
        let owner = &pod["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["controller"], &owner["uid"]), (&json!(false), &json!(ROLLOUT)));
        let mut whole = pod.clone();
        (whole["apiVersion"], whole["kind"]) = (json!("v1"), json!("Pod"));
        whole["metadata"]["name"] = json!(name);
        let Ok(Object::Pod(read)) = typed(Kind::Pod, &whole) else { panic!("{whole}") };
        let gateway = world.seen();
        let selects = |s: &Map| s.iter().all(|(k, v)| read.meta.labels.is(k, v));
        assert!(gateway.services.iter().all(|s| selects(&s.selector)), "Istio knows it as a pod of the Service's");
    }
    // Gates of others stay.
    let mut world = injected();
    world.set(
        "Deployment/igw",
        "/spec/template/spec/readinessGates",
        json!([{"conditionType": "target-health.example.com"}]),
    );
    assert_eq!(created(&world, &Step::CreateProbe).1["spec"]["readinessGates"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_standby_has_the_old_template_and_a_selector_of_its_own() {
    let mut world = mounted();
    // The original has moved already.
    world.set("Deployment/custom-gw", "/spec/template/metadata/labels/istio.io~1rev", json!("1-24"));
    let (name, object) = created(&world, &Step::CreateStandby);
    assert_eq!(name, "custom-gw-1-23");
    let template = &object["spec"]["template"];
    let labels = &template["metadata"]["labels"];
    assert_eq!((&labels["istio.io/rev"], &labels[key::INSTANCE]), (&json!("1-23"), &json!("0f1e2d3c-1-23")));
    assert_eq!(object["spec"]["selector"]["matchLabels"][key::INSTANCE], "0f1e2d3c-1-23");
    assert_eq!(object["spec"]["replicas"], 0);
    assert_eq!(template["spec"]["volumes"][1]["configMap"], json!({"name": "istio-1-23", "optional": true}));
    assert_eq!(env(template, "ISTIO_META_WORKLOAD_NAME"), "custom-gw-1-23");
    assert_eq!(env(template, "CA_ADDR"), "istiod-1-23.istio-system.svc:15012");
    assert!(labels["install.operator.istio.io/owning-resource"].is_null(), "no installer prunes it");
}

#[test]
fn the_original_moves_and_comes_back_the_same() {
    let world = mounted();
    let original = world.objects["Deployment/custom-gw"]["spec"]["template"].clone();
    let there = Step::Retemplate { held: held(), revision: "1-24".into() };
    let (name, moved) = patched(&world, &there);
    assert_eq!(name, "Deployment/custom-gw");
    let template = &moved["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["istio.io/rev"], "1-24");
    assert_eq!(
        template["metadata"]["labels"]["operator.istio.io/component"], "IngressGateways",
        "it stays its installer's"
    );
    assert!(template["metadata"]["labels"][key::INSTANCE].is_null(), "its selector has none");
    assert_eq!(env(template, "ISTIO_META_WORKLOAD_NAME"), "custom-gw");
    let mounts = json!({"name": "istio-1-24", "optional": true});
    assert_eq!(template["spec"]["volumes"][1]["configMap"], mounts, "no more is changed of it than is needed");
    let mut world = world;
    world.objects.insert(name, moved);
    assert_eq!(world.seen().source.expect("it").template.revision.as_deref(), Some("1-24"));
    let (_, back) = patched(&world, &Step::Retemplate { held: held(), revision: "1-23".into() });
    assert_eq!(back["spec"]["template"], original);
    // Moved twice it is the same, so that a second look changes nothing.
    assert_eq!(
        patched(&world, &there).1["spec"]["template"],
        world.objects["Deployment/custom-gw"]["spec"]["template"]
    );
}

#[test]
fn a_lost_status_is_made_up_for_by_the_annotation() {
    let mut world = mounted();
    let baseline = world.objects["GatewayRollout/custom-gw-1-24"]["status"]["baseline"].to_string();
    world.set("GatewayRollout/custom-gw-1-24", "/status", json!({"fromRevision": "1-23"}));
    let wanted = Step::Retemplate { held: held(), revision: "1-23".into() };
    let error = step(&wanted, &world.seen(), &world.raw()).expect_err("no baseline").to_string();
    assert_eq!(error, "the baseline of the rollout cannot be read: neither the status nor the Deployment has it");
    world.set("Deployment/custom-gw", "/metadata/annotations", json!({key::BASELINE: baseline}));
    let (_, back) = patched(&world, &wanted);
    assert_eq!(back["spec"]["template"], world.objects["Deployment/custom-gw"]["spec"]["template"]);
}

#[test]
fn setting_a_pod_apart_is_one_patch_that_says_everything() {
    let world = injected();
    let since: Timestamp = "2026-03-02T10:00:00Z".parse().expect("a time");
    let pod = "igw-5c786b6668-a";
    let (name, after) = patched(&world, &Step::SetApart { pod: pod.into(), held: held(), key: "app".into(), since });
    let before = &world.objects[&name];
    let meta = &after["metadata"];
    assert_eq!((&meta["labels"]["app"], &meta["labels"][key::ROLLOUT]), (&json!("revguard-apart"), &json!(ROLLOUT)));
    assert_eq!(meta["annotations"][key::APART_SINCE], "2026-03-02T10:00:00Z");
    let owners = meta["ownerReferences"].as_array().expect("owners");
    assert_eq!(owners[0], before["metadata"]["ownerReferences"][0], "its ReplicaSet lets go of it by itself");
    assert_eq!((&owners[1]["uid"], &owners[1]["controller"]), (&json!(ROLLOUT), &json!(false)));
    assert_eq!(after["spec"], before["spec"]);
    let mut world = world;
    world.objects.insert(name, after);
    let seen = world.seen();
    let apart = seen.pods.iter().find(|p| &*p.name == pod).expect("it is still seen");
    assert_eq!((apart.of, apart.apart_since), (revguard::rollout::seen::Of::Apart, Some(since)));
    // A pod without annotations or owners.
    world.set("Pod/igw-5c786b6668-b", "/metadata/annotations", Value::Null);
    world.set("Pod/igw-5c786b6668-b", "/metadata/ownerReferences", Value::Null);
    let wanted = Step::SetApart { pod: "igw-5c786b6668-b".into(), held: held(), key: "app".into(), since };
    let (_, after) = patched(&world, &wanted);
    assert_eq!(after["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1));
}

#[test]
fn locks_and_finalizers_leave_what_is_somebody_elses() {
    let mut world = injected();
    let baseline = revguard::api::rollout_status::Baseline { replicas: 2, ..Default::default() };
    let (name, after) = patched(&world, &Step::Lock { held: held(), baseline: baseline.into() });
    let annotations = &after["metadata"]["annotations"];
    assert_eq!(annotations[key::ACTIVE_ROLLOUT], ROLLOUT);
    assert!(annotations[key::BASELINE].as_str().is_some_and(|b| b.contains("\"replicas\":2")), "{annotations}");
    let before = world.objects[&name].clone();
    world.objects.insert(name.clone(), after);
    assert_eq!(patched(&world, &Step::Unlock { held: held() }).1, before);
    let rollout = "GatewayRollout/igw-1-24";
    world.set(rollout, "/metadata/finalizers", json!(["example.com/other"]));
    let (_, after) = patched(&world, &Step::Hold { held: held() });
    assert_eq!(after["metadata"]["finalizers"], json!(["example.com/other", "revguard.dev/rollout"]));
    world.objects.insert(rollout.to_owned(), after);
    assert!(world.seen().rollout.finalizer);
    let (_, after) = patched(&world, &Step::Release { held: held() });
    assert_eq!(after["metadata"]["finalizers"], json!(["example.com/other"]));
    world.set(rollout, "/metadata/annotations", json!({key::APPROVE: "x/y", key::APPROVED_BY: "a", "keep": "me"}));
    let (_, after) = patched(&world, &Step::Consume { held: held() });
    assert_eq!(after["metadata"]["annotations"], json!({"keep": "me"}));
}

#[test]
fn small_patches() {
    let world = injected();
    let of = |wanted: Step| patched(&world, &wanted).1;
    assert_eq!(of(Step::Scale { which: Which::Source, held: held(), to: 0 })["spec"]["replicas"], 0);
    let hpa = of(Step::Autoscale { name: "igw".into(), held: held(), target: "igw-1-24".into(), min: 2 });
    assert_eq!((&hpa["spec"]["minReplicas"], &hpa["spec"]["scaleTargetRef"]["name"]), (&json!(2), &json!("igw-1-24")));
    assert_eq!(hpa["spec"]["scaleTargetRef"]["kind"], "Deployment");
    let pod = of(Step::Pin { pod: "igw-5c786b6668-b".into(), held: held() });
    assert_eq!(pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"], "1000");
    let labels = Map::from([(key::REV.to_owned(), "1-24".to_owned())]);
    let service = of(Step::Relabel { kind: "Service", name: "igw".into(), held: held(), labels });
    assert_eq!(service["metadata"]["labels"], json!({"istio.io/rev": "1-24"}));
    assert_eq!(service["spec"], world.objects["Service/igw"]["spec"], "the Service itself is never written");
    let mut world = world;
    let by = |manager: &str, path: &str| json!({"manager": manager, "operation": "Update", "fieldsV1": {path: {}}});
    let (helm, spec, notes) = (by("helm", "f:spec"), by("revguard", "f:spec"), by("revguard", "f:metadata"));
    world.set("HorizontalPodAutoscaler/igw", "/metadata/managedFields", json!([helm, spec, notes]));
    assert!(world.seen().hpas[0].written);
    let let_go = Step::LetGo { kind: "HorizontalPodAutoscaler", name: "igw".into(), held: held() };
    let (name, after) = patched(&world, &let_go);
    assert_eq!(after["metadata"]["managedFields"], json!([helm, notes]));
    world.objects.insert(name, after);
    assert!(!world.seen().hpas[0].written);
    // A list that is emptied is filled again by the API server.
    world.set("HorizontalPodAutoscaler/igw", "/metadata/managedFields", json!([spec]));
    assert!(!world.seen().hpas[0].written);
    let gone = written(&world, &Step::DropApart { pod: "p".into(), held: held(), cut: 0 }).change;
    let uid_only = Version { uid: "u".into(), version: "".into() };
    assert_eq!(gone, Change::Delete { held: uid_only, foreground: false });
    let error = step(&Step::DropDeployment { which: Which::Canary, held: held() }, &world.seen(), &world.raw());
    assert_eq!(error.expect_err("none").to_string(), "the deployment of the canary is not there any more");
}

#[test]
fn an_update_in_place_gets_its_pace_and_gives_it_back() {
    let mut world = mounted();
    let before = world.objects["Deployment/custom-gw"].clone();
    let (name, after) = patched(&world, &Step::Pace { held: held(), paused: Some(true) });
    let spec = &after["spec"];
    assert_eq!((&spec["paused"], &spec["minReadySeconds"]), (&json!(true), &json!(10)));
    assert_eq!(spec["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}));
    world.objects.insert(name, after);
    let (_, back) = patched(&world, &Step::Pace { held: held(), paused: None });
    assert_eq!((&back["spec"]["strategy"], &back["spec"]["minReadySeconds"]), (&before["spec"]["strategy"], &json!(5)));
    assert_eq!(back["spec"]["paused"], false);
}

#[test]
fn a_mesh_configuration_is_copied_and_kept_current() {
    let mut world = mounted();
    let original = world.objects["ConfigMap/istio-system/istio-1-24"].clone();
    let (name, object) =
        created(&world, &Step::CopyConfig { name: "istio-1-24".into(), held: None, hash: "abc".into() });
    assert_eq!((name.as_str(), &object["data"]), ("istio-1-24", &original["data"]));
    let meta = json!({"labels": {key::ROLLOUT: ROLLOUT}, "annotations": {key::SOURCE_HASH: "abc"}});
    assert_eq!(object["metadata"], meta, "not the control plane's own labels");
    world.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-1-24", "namespace": "default",
        "labels": {key::ROLLOUT: ROLLOUT}, "annotations": {key::SOURCE_HASH: "old"}}, "data": {"mesh": "old"}, "binaryData": {"x": "eA=="}}));
    let wanted = Step::CopyConfig { name: "istio-1-24".into(), held: Some(held()), hash: "new".into() };
    let (_, after) = patched(&world, &wanted);
    assert_eq!(after["data"], original["data"]);
    assert!(after["binaryData"].is_null());
    assert_eq!(after["metadata"]["annotations"][key::SOURCE_HASH], "new");
}

#[test]
fn what_is_gone_cannot_be_written() {
    let mut world = mounted();
    world.objects.remove("Deployment/custom-gw");
    for wanted in [Step::CreateCanary, Step::CreateProbe, Step::CreateStandby, Step::Unlock { held: held() }] {
        let error = step(&wanted, &world.seen(), &world.raw()).expect_err("nothing to make it from");
        assert_eq!(error.to_string(), "Deployment default/custom-gw is not there any more");
    }
}
