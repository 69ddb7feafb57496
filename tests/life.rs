//! Ordinary life passes untouched: whole installations, upgrades, ways back and uninstalls, one admission request at a time,
//! in the order in which Helm, istioctl and GitOps tools really write.

#[path = "life/manifests.rs"]
mod manifests;
#[path = "life/world.rs"]
mod world;

use manifests::{
    api_gateway, app, as_helm_installs, as_helm_uninstalls, as_istioctl_uninstalls, beside, cni, config, definitions,
    deployed, gateway, istiod, namespace, rollout, tag, validator,
};
use revguard::model::{Kind, Object};
use world::World;

fn apply(world: &mut World, objects: &[Object]) {
    for object in objects {
        world.write("deployer", object.clone());
        world.settle();
    }
}

fn helm_install(world: &mut World, objects: &[Object]) {
    apply(world, &as_helm_installs(objects));
}

fn remove(world: &mut World, objects: &[Object]) {
    for object in objects {
        world.delete("deployer", object);
        world.settle();
    }
}

/// Two revisions' worth of a mesh: tags, a gateway, a namespace by revision, one by tag, one by the default injector.
fn mesh(drains: bool) -> World {
    let mut world = World { drains, ..World::default() };
    apply(&mut world, &namespace("istio-system", ""));
    apply(&mut world, &definitions());
    apply(&mut world, &cni());
    apply(&mut world, &validator("1-23"));
    helm_install(&mut world, &istiod("1-23", "1.23.2", &[]));
    apply(&mut world, &tag("prod", "1-23"));
    apply(&mut world, &tag("default", "1-23"));
    apply(&mut world, &namespace("ingress", ""));
    helm_install(&mut world, &gateway("ingress", "1-23"));
    for (name, labels) in [("a", "istio.io/rev: 1-23"), ("b", "istio.io/rev: prod"), ("c", "istio-injection: enabled")]
    {
        // Made first, labelled later.
        apply(&mut world, &namespace(name, ""));
        apply(&mut world, &namespace(name, labels));
        helm_install(&mut world, &app(name));
    }
    apply(&mut world, &config("ingress"));
    world
}

fn move_everything(world: &mut World, to: &str) {
    apply(world, &namespace("a", &format!("istio.io/rev: {to}")));
    world.restart("a");
    apply(world, &tag("prod", to));
    world.restart("b");
    helm_install(world, &gateway("ingress", to));
    apply(world, &tag("default", to));
    apply(world, &validator(to));
    world.restart("c");
}

#[test]
fn an_upgrade_by_revisions_and_the_proper_uninstall_of_the_old_one() {
    for drains in [false, true] {
        let mut world = mesh(drains);
        helm_install(&mut world, &istiod("1-24", "1.24.1", &[]));
        move_everything(&mut world, "1-24");
        remove(&mut world, &as_helm_uninstalls(&istiod("1-23", "1.23.2", &[])));
        assert_eq!(world.said, [""; 0], "drains: {drains}");
        assert!(world.judged > 40, "{}", world.judged);
    }
}

/// What revguard's controller writes is not judged.
fn controller(world: &mut World, objects: Vec<Object>) {
    world.objects.extend(objects.into_iter().map(|object| (object.id(), object)));
    world.settle();
}

/// The gateway's objects with this many replicas.
fn scaled(mut objects: Vec<Object>, replicas: u32) -> Vec<Object> {
    for object in &mut objects {
        if let Object::Workload(_, w) = object {
            w.replicas = Some(replicas);
        }
    }
    objects
}

const WAY_BACK: &str = "conditions: [{type: RollbackAvailable, status: 'True'}]";

#[test]
fn a_gateway_is_moved_by_a_rollout_while_life_goes_on() {
    let mut world = mesh(true);
    helm_install(&mut world, &istiod("1-24", "1.24.1", &[]));
    apply(&mut world, &namespace("a", "istio.io/rev: 1-24"));
    world.restart("a");
    apply(&mut world, &tag("prod", "1-24"));
    world.restart("b");
    // A person asks for it; GitOps tools apply everything again and again meanwhile.
    // The chart of a gateway with an autoscaler names no replicas: whatever Helm applies has as many as are stored.
    let around = |world: &mut World, revision: &str, replicas: u32| {
        helm_install(world, &scaled(gateway("ingress", revision), replicas));
        helm_install(world, &istiod("1-23", "1.23.2", &[]));
        helm_install(world, &app("b"));
        apply(world, &config("ingress"));
        apply(world, &namespace("ingress", ""));
    };
    apply(&mut world, &rollout("ingress", "1-23", "1-24", ""));
    around(&mut world, "1-23", 1);
    for (phase, new) in [("Preparing", 0), ("Progressing", 1), ("Draining", 1)] {
        controller(&mut world, rollout("ingress", "1-23", "1-24", &format!("phase: {phase}")));
        controller(&mut world, beside("ingress", "1-24", new));
        around(&mut world, "1-23", 1);
    }
    // Whoever owns the gateway brings it to the new revision when that is waited for, and not while its old pods serve.
    let waits = "phase: Promoting, state: AwaitingExternal, promotion: AwaitExternal";
    controller(&mut world, rollout("ingress", "1-23", "1-24", waits));
    let mut early = world.clone();
    around(&mut early, "1-24", 1);
    assert_eq!(early.said, ["D GR005: Update Deployment ingress/gw"]);
    controller(&mut world, scaled(gateway("ingress", "1-23"), 0));
    around(&mut world, "1-24", 0);
    controller(&mut world, scaled(gateway("ingress", "1-24"), 1));
    let done = format!("phase: Completed, {WAY_BACK}");
    controller(&mut world, rollout("ingress", "1-23", "1-24", &done));
    controller(&mut world, beside("ingress", "1-23", 0));
    for object in beside("ingress", "1-24", 0) {
        world.objects.remove(&object.id());
    }
    around(&mut world, "1-24", 1);
    apply(&mut world, &tag("default", "1-24"));
    apply(&mut world, &validator("1-24"));
    world.restart("c");
    assert_eq!(world.said, [""; 0]);
    assert!(world.judged > 120, "{}", world.judged);
    // The way back is open until somebody closes it; then the old control plane goes without a word.
    let mut hasty = world.clone();
    remove(&mut hasty, &as_helm_uninstalls(&istiod("1-23", "1.23.2", &[])));
    assert!(hasty.said.iter().any(|s| s == "D CP002: Delete Deployment istio-system/istiod-1-23"), "{:?}", hasty.said);
    remove(&mut world, &rollout("ingress", "1-23", "1-24", &done));
    for object in beside("ingress", "1-23", 0) {
        world.objects.remove(&object.id());
    }
    remove(&mut world, &as_helm_uninstalls(&istiod("1-23", "1.23.2", &[])));
    assert_eq!(world.said, [""; 0]);
}

#[test]
fn the_way_back_from_every_stage() {
    let mut world = mesh(true);
    helm_install(&mut world, &istiod("1-24", "1.24.1", &[]));
    move_everything(&mut world, "1-24");
    move_everything(&mut world, "1-23");
    remove(&mut world, &as_helm_uninstalls(&istiod("1-24", "1.24.1", &[])));
    assert_eq!(world.said, [""; 0]);
}

#[test]
fn an_uninstall_of_what_is_in_use_is_stopped_as_a_group() {
    let mut world = mesh(false);
    remove(&mut world, &as_helm_uninstalls(&istiod("1-23", "1.23.2", &[])));
    assert_eq!(
        world.said,
        [
            "D CP001: Delete Service istio-system/istiod-1-23",
            "D CP002: Delete Deployment istio-system/istiod-1-23",
            "D CP006: Delete RoleBinding istio-system/istiod-1-23",
            "D CP006: Delete Role istio-system/istiod-1-23",
            "D CP006: Delete ClusterRoleBinding /istiod-clusterrole-1-23-istio-system",
            "D CP006: Delete ClusterRoleBinding /istiod-gateway-controller-1-23-istio-system",
            "D CP006: Delete ClusterRole /istiod-clusterrole-1-23-istio-system",
            "D CP006: Delete ClusterRole /istiod-gateway-controller-1-23-istio-system",
            "D CP004: Delete ConfigMap istio-system/istio-1-23",
            "D CP006: Delete ServiceAccount istio-system/istiod-1-23"
        ]
    );
}

#[test]
fn a_gateway_that_istiod_deploys_is_made_moved_and_taken_away() {
    let mut world = mesh(true);
    helm_install(&mut world, &istiod("1-24", "1.24.1", &[]));
    apply(&mut world, &namespace("edge", "istio.io/rev: 1-23"));
    apply(&mut world, &api_gateway("edge", "istio.io/rev: 1-23"));
    // istiod itself writes what belongs to it, again and again.
    for _ in 0..2 {
        for object in deployed("edge", "1-23") {
            world.write("system:serviceaccount:istio-system:istiod-1-23", object);
        }
        world.settle();
    }
    // Pinned, so that the namespace moves without it.
    apply(&mut world, &namespace("edge", "istio.io/rev: 1-24"));
    assert_eq!(world.said, [""; 0]);
    apply(&mut world, &api_gateway("edge", "istio.io/rev: 1-24"));
    assert_eq!(world.said, ["W GW015: Update Gateway edge/web"]);
    world.said.clear();
    for object in deployed("edge", "1-24") {
        world.write("system:serviceaccount:istio-system:istiod-1-24", object);
    }
    world.settle();
    // The Gateway first, and what garbage collection does after it.
    remove(&mut world, &api_gateway("edge", "istio.io/rev: 1-24"));
    for object in deployed("edge", "1-24") {
        world.delete("system:serviceaccount:kube-system:generic-garbage-collector", &object);
    }
    remove(&mut world, &namespace("edge", ""));
    assert_eq!(world.said, [""; 0]);
}

#[test]
fn everything_goes_once_the_workloads_have_left() {
    let mut world = mesh(true);
    for name in ["a", "b", "c"] {
        apply(&mut world, &namespace(name, ""));
        world.restart(name);
    }
    remove(&mut world, &config("ingress"));
    remove(&mut world, &as_helm_uninstalls(&gateway("ingress", "1-23")));
    remove(&mut world, &namespace("ingress", ""));
    // Tags and the default validator go with `istioctl uninstall --purge`, in its order.
    let all = [istiod("1-23", "1.23.2", &[]), tag("prod", "1-23"), tag("default", "1-23"), validator("1-23")].concat();
    remove(&mut world, &as_istioctl_uninstalls(&all));
    remove(&mut world, &cni());
    remove(&mut world, &definitions());
    remove(&mut world, &namespace("istio-system", ""));
    assert!(denied(&world).is_empty(), "{:#?}", world.said);
    assert_eq!(
        world.snapshot().len(Kind::Deployment) + world.snapshot().len(Kind::DaemonSet),
        3,
        "the applications stay"
    );
    assert_eq!(world.snapshot().len(Kind::Crd) + world.snapshot().len(Kind::ClusterRole), 0);
}

#[test]
fn in_place_without_a_revision_and_without_versions_in_the_tags() {
    let mut world = World { drains: true, ..World::default() };
    apply(&mut world, &namespace("istio-system", ""));
    apply(&mut world, &validator(""));
    helm_install(&mut world, &istiod("", "1.23.2", &[]));
    apply(&mut world, &namespace("shop", "istio-injection: enabled"));
    helm_install(&mut world, &app("shop"));
    apply(&mut world, &namespace("ingress", ""));
    helm_install(&mut world, &gateway("ingress", ""));
    apply(&mut world, &config("ingress"));
    for image in ["1.24.1", "latest", "1.24.1-distroless", "master-alpha.0f1e2d"] {
        helm_install(&mut world, &istiod("", image, &[]));
        world.restart("shop");
        world.restart("ingress");
    }
    assert_eq!(world.said, [""; 0]);
}

#[test]
fn the_last_control_plane_goes_in_the_order_that_istio_documents() {
    let mut world = World { drains: true, ..World::default() };
    apply(&mut world, &namespace("istio-system", ""));
    let all = [istiod("", "1.23.2", &[]), tag("default", ""), validator("")].concat();
    helm_install(&mut world, &all);
    apply(&mut world, &namespace("shop", "istio-injection: enabled"));
    helm_install(&mut world, &app("shop"));
    assert_eq!(world.said, [""; 0]);
    // The applications, then everything of Istio at once, the label last.
    remove(&mut world, &app("shop"));
    remove(&mut world, &as_istioctl_uninstalls(&all));
    apply(&mut world, &namespace("shop", ""));
    assert!(world.said.iter().all(|s| s.starts_with("W ")), "{:#?}", world.said);
    assert_eq!(world.snapshot().len(Kind::Deployment) + world.snapshot().len(Kind::Service), 0);
}

/// A shuffle that is the same at every run.
fn shuffled(objects: &[Object], seed: u64) -> Vec<Object> {
    let mut all = objects.to_vec();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for i in (1..all.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.swap(i, usize::try_from(state % (i as u64 + 1)).expect("small"));
    }
    all
}

fn denied(world: &World) -> Vec<&String> {
    world.said.iter().filter(|s| s.starts_with("D ")).collect()
}

#[test]
fn everything_at_once_in_any_order_and_a_canary_beside_it() {
    for seed in 1..16 {
        let named = ["", "1-24"][usize::from(seed % 2 == 0)];
        let label = if named.is_empty() { "istio-injection: enabled" } else { "istio.io/rev: 1-24" };
        let all = [
            namespace("istio-system", ""),
            namespace("ingress", ""),
            namespace("shop", label),
            definitions(),
            cni(),
            validator(named),
            istiod(named, "1.24.1", &["prod"]),
            gateway("ingress", named),
            api_gateway("shop", if named.is_empty() { "" } else { "istio.io/rev: 1-24" }),
            app("shop"),
            config("ingress"),
        ]
        .concat();
        let mut world = World::default();
        apply(&mut world, &shuffled(&all, seed));
        assert!(denied(&world).is_empty(), "seed {seed}: {:#?}", world.said);
        // The same again, and a canary with a tag of its own: nothing at all is said.
        world.restart("ingress");
        world.said.clear();
        apply(&mut world, &shuffled(&all, seed + 1));
        apply(&mut world, &shuffled(&istiod("1-25", "1.25.0", &["canary"]), seed));
        assert_eq!(world.said, [""; 0], "seed {seed}");
    }
}

#[test]
fn a_cluster_without_istio() {
    let mut world = World::default();
    for (name, labels) in [("a", ""), ("b", "team: x"), ("kube-system", "")] {
        apply(&mut world, &namespace(name, labels));
        helm_install(&mut world, &app(name));
        remove(&mut world, &app(name));
    }
    assert_eq!(world.said, [""; 0]);
}
