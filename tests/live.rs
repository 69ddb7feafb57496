//! The live state against a small API server that fails on command.

mod fake_api;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake_api::{FakeApi, Fault};
use revguard::admission::webhook::Shared;
use revguard::cluster::{self, Handle, Pods, Readiness, Telemetry, Timing, Trouble, Verb, source_name};
use revguard::model::{Kind, Object};
use revguard::rules::Policy;
use revguard::snapshot::{Snapshot, Source, WhyUnknown};
use serde_json::{Value, json};

#[derive(Default)]
struct Seen {
    versions: BTreeMap<(Kind, bool), u64>,
    troubles: Vec<(String, &'static str, &'static str)>,
    listings: BTreeMap<String, usize>,
    unreadable: Vec<String>,
    beyond: Option<(usize, usize)>,
}

#[derive(Default)]
struct Notes(Mutex<Seen>);

impl Telemetry for Notes {
    fn trouble(&self, source: &Source, verb: Verb, trouble: &Trouble) {
        self.0.lock().unwrap().troubles.push((source_name(source), verb.word(), trouble.word()));
    }
    fn listing(&self, source: &Source) {
        *self.0.lock().unwrap().listings.entry(source_name(source)).or_default() += 1;
    }
    fn unreadable(&self, _: Kind, name: &str, error: &str) {
        self.0.lock().unwrap().unreadable.push(format!("{name}: {error}"));
    }
    fn seen(&self, kind: Kind, in_mesh: bool, version: u64) {
        self.0.lock().unwrap().versions.insert((kind, in_mesh), version);
    }
    fn too_many_mesh_namespaces(&self, found: usize, read: usize) {
        self.0.lock().unwrap().beyond = Some((found, read));
    }
}

struct Live {
    shared: Arc<Shared>,
    notes: Arc<Notes>,
    handle: Handle,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Durations for tests; only durations differ from those of a release.
fn quick() -> Timing {
    Timing {
        answer: ms(400),
        watch: Duration::from_secs(60),
        idle: ms(600),
        backoff: ms(20),
        most_backoff: ms(100),
        forbidden: ms(150),
        doubt: ms(60),
        publish: ms(5),
        hold: ms(300),
        settle: [ms(5), ms(50), ms(100), ms(200), ms(400)],
        ..Timing::default()
    }
}

fn run(api: &FakeApi, timing: Timing) -> Live {
    let shared = Shared::new(Snapshot::live(), Policy::default());
    let notes = Arc::new(Notes::default());
    let handle = cluster::start(api.client(), shared.clone(), notes.clone(), timing);
    Live { shared, notes, handle }
}

impl Live {
    fn snapshot(&self) -> Snapshot {
        self.shared.state.load().snapshot.clone()
    }

    /// Waits for a state, never for a time; says what it waited for if it does not come.
    async fn until(&self, what: &str, test: impl Fn(&Snapshot) -> bool) {
        for _ in 0..1000 {
            if test(&self.shared.state.load().snapshot) {
                return;
            }
            tokio::time::sleep(ms(10)).await;
        }
        panic!("{what} did not come; {}; {:?}", self.handle.ready(), self.notes.0.lock().unwrap().troubles);
    }

    async fn ready(&self) {
        self.until("readiness", |_| self.handle.ready() == Readiness::Ready).await;
    }

    async fn noted(&self, what: &str, test: impl Fn(&Seen) -> bool) {
        self.until(what, |_| test(&self.notes.0.lock().unwrap())).await;
    }

    fn has(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        self.snapshot().get(kind, namespace, name).is_some()
    }
}

fn namespace(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, "istio.io/rev": "1-24"}}})
}

fn deployment(namespace: &str, name: &str, gateway: bool) -> Value {
    let annotations = if gateway { json!({"inject.istio.io/templates": "gateway"}) } else { json!({}) };
    json!({
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}, "annotations": annotations}}},
    })
}

fn pod(namespace: &str, name: &str, ready: bool) -> Value {
    json!({
        "metadata": {
            "namespace": namespace, "name": name,
            "labels": {"app": "gw", "pod-template-hash": "5d8"},
            "annotations": {"istio.io/rev": "1-24", "sidecar.istio.io/status": "{}"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "gw-5d8", "controller": true}],
        },
        "spec": {"containers": [{"name": "istio-proxy", "image": "istio/proxyv2:1.24.2"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })
}

fn as_pod(snapshot: &Snapshot, namespace: &str, name: &str) -> Option<revguard::model::Pod> {
    match snapshot.get(Kind::Pod, namespace, name) {
        Some(Object::Pod(p)) => Some(p.clone()),
        _ => None,
    }
}

async fn mesh() -> FakeApi {
    let api = FakeApi::start().await;
    for ns in ["shop", "edge"] {
        api.put("/namespaces", namespace(ns));
    }
    api.put("apps/deployments", deployment("shop", "cart", false));
    api.put("apps/deployments", deployment("edge", "gw", true));
    api.put("/pods", pod("shop", "cart-1", true));
    api.put("/pods", pod("edge", "gw-1", true));
    api
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_listed_and_what_changes_is_seen_streamed_or_in_pages() {
    for streams in [true, false] {
        let api = mesh().await;
        if !streams {
            api.no_streams();
        }
        let live = run(&api, Timing { page: 1, ..quick() });
        live.ready().await;
        assert!(live.has(Kind::Namespace, "", "shop") && live.has(Kind::Deployment, "edge", "gw"));
        assert_eq!(live.snapshot().len(Kind::Pod), 2);
        // Kinds that the cluster does not have are known to be empty.
        assert!(live.snapshot().knows(Kind::IstioOperator, None).is_ok());
        assert_eq!(!api.asked("continue=1").is_empty(), !streams, "pages of one object");

        let version = api.put("/namespaces", namespace("new"));
        live.noted("the version of the write", |n| n.versions.get(&(Kind::Namespace, false)) >= Some(&version)).await;
        assert!(live.has(Kind::Namespace, "", "new"), "what was reported as seen must be published");
        let version = api.delete("/namespaces", "", "shop");
        live.noted("the version of the delete", |n| n.versions.get(&(Kind::Namespace, false)) >= Some(&version)).await;
        assert!(!live.has(Kind::Namespace, "", "shop"));
        assert!(live.handle.alive().is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_as_a_stream_that_is_answered_with_an_error_becomes_pages() {
    for (status, asked) in [
        // An etcd before 3.4.31 or 3.5.13, or one whose version cannot be read.
        (json!({"code": 500, "reason": "InternalError", "message": "the required storage feature is disabled"}), 1),
        (json!({"code": 504, "reason": "Timeout", "message": "no time left"}), 1),
        // A cache that never catches up, and a queue that never empties.
        (json!({"code": 504, "reason": "Timeout", "details": {"retryAfterSeconds": 1}}), 3),
        (json!({"code": 429, "reason": "TooManyRequests"}), 3),
        // A proxy's page.
        (json!("<html>"), 1),
    ] {
        let api = mesh().await;
        api.streams_end_with(status.clone());
        let live = run(&api, quick());
        live.ready().await;
        assert_eq!(
            api.asked("/cronjobs?watch=1").iter().filter(|q| q.contains("sendInitial")).count(),
            asked,
            "{status}"
        );
        // What changes is watched all the same.
        api.put("/namespaces", namespace("new"));
        live.until("the write", |s| s.get(Kind::Namespace, "", "new").is_some()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookmarks_alone_keep_the_view_fresh() {
    let api = mesh().await;
    let live = run(&api, quick());
    live.ready().await;
    let first = live.shared.state.load().heard.values().copied().min().unwrap();
    live.until("a fresher view", |_| live.shared.state.load().heard.values().copied().min().unwrap() > first).await;
    let version = api.put("apps/deployments", deployment("shop", "later", false));
    live.noted("a bookmark of another kind", |n| n.versions.get(&(Kind::Namespace, false)) >= Some(&version)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_restored_from_a_backup_is_seen_as_it_is() {
    for streams in [true, false] {
        let api = mesh().await;
        if !streams {
            api.no_streams();
        }
        // A watch is ended by the API server, in order, before its silence is called dead.
        let timing = Timing { watch: Duration::from_secs(1), idle: Duration::from_secs(5), proof: ms(500), ..quick() };
        let live = run(&api, timing);
        live.ready().await;
        for n in 0..50 {
            api.put("/namespaces", namespace(&format!("late-{n}")));
        }
        live.until("the last write", |s| s.get(Kind::Namespace, "", "late-49").is_some()).await;
        api.restore(100, "/namespaces", vec![namespace("shop"), namespace("older")]);
        live.until("what the backup holds", |s| s.get(Kind::Namespace, "", "older").is_some()).await;
        // A list is taken in object by object, and what it does not name goes at its end.
        live.until("the end of what it does not hold", |s| s.get(Kind::Namespace, "", "late-0").is_none()).await;
        api.put("/namespaces", namespace("new"));
        live.until("what comes after it", |s| s.get(Kind::Namespace, "", "new").is_some()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_a_word_makes_no_view_fresh() {
    let api = mesh().await;
    let live = run(&api, Timing { watch: Duration::from_secs(1), idle: Duration::from_secs(5), ..quick() });
    live.ready().await;
    api.put("/namespaces", namespace("late"));
    live.until("the last write", |s| s.get(Kind::Namespace, "", "late").is_some()).await;
    api.restore(100, "/namespaces", vec![namespace("older")]);
    live.noted("the cut", |n| n.troubles.contains(&("namespaces".into(), "watch", "unreachable"))).await;
    let heard = || live.shared.state.load().heard[&(Kind::Namespace, false)];
    let (before, watches) = (heard(), || api.asked("/api/v1/namespaces?watch").len());
    let begun = watches();
    live.until("watches that say nothing", |_| watches() >= begun + 2).await;
    assert_eq!(heard(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_of_which_nothing_is_said_is_asked_for_its_version_and_not_listed_again() {
    let api = mesh().await;
    api.no_bookmarks();
    let timing = Timing { watch: Duration::from_secs(1), idle: Duration::from_secs(5), proof: ms(500), ..quick() };
    let live = run(&api, timing);
    live.ready().await;
    let first = live.shared.state.load().heard[&(Kind::Namespace, false)];
    live.until("a fresher view", |_| live.shared.state.load().heard[&(Kind::Namespace, false)] > first).await;
    assert!(!api.asked("/api/v1/namespaces?limit=1").is_empty());
    assert_eq!(live.notes.0.lock().unwrap().listings["namespaces"], 1);
    assert_eq!(live.notes.0.lock().unwrap().troubles, []);
    api.put("/namespaces", namespace("new"));
    live.until("the write", |s| s.get(Kind::Namespace, "", "new").is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_cut_in_the_middle_of_a_line_goes_on_without_a_new_list() {
    let api = mesh().await;
    let live = run(&api, quick());
    live.ready().await;
    let lists = live.notes.0.lock().unwrap().listings.clone();
    for round in 0..3 {
        api.cut_watches();
        let name = format!("after-{round}");
        api.put("/namespaces", namespace(&name));
        live.until("the write after the cut", |s| s.get(Kind::Namespace, "", &name).is_some()).await;
    }
    assert_eq!(live.notes.0.lock().unwrap().listings, lists);
    assert_eq!(live.handle.ready(), Readiness::Ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_config_maps_istios_own_are_kept_by_name_and_the_rest_passes_by() {
    for streams in [true, false] {
        let api = mesh().await;
        if !streams {
            api.no_streams();
        }
        let map = |ns: &str, name: &str| json!({"metadata": {"name": name, "namespace": ns}, "data": {"config": "templates: {custom: a}"}});
        for (ns, name) in [
            ("shop", "istio-1-24"),
            ("shop", "istio-ca-root-cert"),
            ("shop", "settings"),
            ("edge", "istio-ca-root-cert"),
            ("edge", "istio-sidecar-injector-1-24"),
            ("edge", "settings"),
        ] {
            api.put("/configmaps", map(ns, name));
        }
        let live = run(&api, quick());
        live.ready().await;
        let snapshot = live.snapshot();
        let known = |ns, name| snapshot.config_map(ns, name).map(|c| c.is_some());
        // A copy that somebody made has no label, and its namespace need not hold a gateway yet.
        assert_eq!((known("shop", "istio-1-24"), known("edge", "istio-1-24")), (Ok(true), Ok(false)));
        assert_eq!(known("edge", "istio-ca-root-cert"), Ok(true));
        assert_eq!(known("shop", "istio-ca-root-cert").unwrap_err().why, WhyUnknown::NotWatched);
        let injector = snapshot.config_map("edge", "istio-sidecar-injector-1-24").unwrap().unwrap();
        assert_eq!(injector.injection_templates.as_deref(), Some(&["custom".into()][..]));
        assert_eq!(snapshot.len(Kind::ConfigMap), 3);
        // What one watch no longer has does not take what only the other has.
        let version = api.put("/configmaps", map("edge", "settings"));
        live.noted("the write", |n| n.versions.get(&(Kind::ConfigMap, false)) >= Some(&version)).await;
        api.delete("/configmaps", "shop", "istio-1-24");
        live.until("the end of the copy", |s| s.len(Kind::ConfigMap) == 2).await;
        api.compact();
        api.cut_watches();
        api.put("/configmaps", map("edge", "istio-1-24"));
        live.until("the next copy", |s| s.len(Kind::ConfigMap) == 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_history_is_listed_again_and_what_it_no_longer_names_is_gone() {
    for streams in [true, false] {
        let api = mesh().await;
        if !streams {
            api.no_streams();
        }
        let live = run(&api, quick());
        live.ready().await;
        for (resource, ns, name) in
            [("/namespaces", "", "shop"), ("/pods", "shop", "cart-1"), ("/pods", "edge", "gw-1")]
        {
            api.delete_untold(resource, ns, name);
        }
        api.put("/namespaces", namespace("new"));
        // Everything is known throughout: a second list does not make the view unready.
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (shared, done) = (live.shared.clone(), stop.clone());
        let witness = tokio::spawn(async move {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                assert!(shared.state.load().snapshot.knows(Kind::Namespace, None).is_ok());
                tokio::time::sleep(ms(1)).await;
            }
        });
        api.compact();
        api.cut_watches();
        // The watch knew a version before the compaction only if it heard no bookmark since.
        live.until("the loss", |s| {
            s.get(Kind::Namespace, "", "shop").is_none() || {
                api.compact();
                api.cut_watches();
                api.delete_untold("/namespaces", "", "edge");
                api.put("/namespaces", namespace("edge"));
                false
            }
        })
        .await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        witness.await.unwrap();
        live.until("pods", |s| s.len(Kind::Pod) == 0).await;
        assert!(live.has(Kind::Namespace, "", "new"));
        assert!(live.notes.0.lock().unwrap().troubles.iter().any(|t| t.2 == "gone"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_cut_half_way_begins_again() {
    for streams in [true, false] {
        let api = mesh().await;
        if !streams {
            api.no_streams();
        }
        for cut in [10, 200, 400] {
            api.fail(if streams { "/v1/pods?watch" } else { "/v1/pods?limit" }, Fault::Cut(cut));
        }
        let live = run(&api, quick());
        live.ready().await;
        assert_eq!(live.snapshot().len(Kind::Pod), 2);
        // Three were cut, some of them before their head was out.
        assert!(api.asked("/v1/pods?").len() >= 4);
        assert!(live.notes.0.lock().unwrap().troubles.iter().any(|t| t.0 == "pods" && t.2 == "unreachable"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rbac_refuses_is_unknown_and_the_rest_works_until_it_is_granted() {
    let api = mesh().await;
    api.fail("/daemonsets", Fault::Status(403, None));
    api.fail("/namespaces/edge/configmaps", Fault::Status(403, None));
    let live = run(&api, quick());
    live.ready().await;
    let why = |kind, ns| live.snapshot().knows(kind, ns).unwrap_err().why;
    assert_eq!(why(Kind::DaemonSet, None), WhyUnknown::Forbidden);
    assert_eq!(why(Kind::ConfigMap, Some("edge")), WhyUnknown::Forbidden);
    assert!(live.snapshot().knows(Kind::Deployment, None).is_ok());
    live.noted("the refusal", |n| n.troubles.contains(&("daemonsets.apps".into(), "watch", "forbidden"))).await;
    // While it is tried again it stays refused; it never turns into "being listed", which would stop requests.
    for _ in 0..30 {
        assert_eq!(why(Kind::DaemonSet, None), WhyUnknown::Forbidden);
        tokio::time::sleep(ms(10)).await;
    }
    api.heal("/daemonsets");
    live.until("the grant", |s| s.knows(Kind::DaemonSet, None).is_ok()).await;
    // And taken away again.
    api.fail("/daemonsets", Fault::Status(403, None));
    api.cut_watches();
    live.until("the second refusal", |s| s.knows(Kind::DaemonSet, None).is_err()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crd_that_arrives_is_read_and_one_that_leaves_empties_its_kind() {
    let api = mesh().await;
    let live = run(&api, quick());
    live.ready().await;
    for _ in 0..2 {
        api.install("sailoperator.io", &[("v1alpha1", &["istios"]), ("v1", &["istios"])]);
        api.put("sailoperator.io/istios", json!({"metadata": {"name": "default"}, "spec": {"version": "v1.24.2"}}));
        live.until("the Istio", |s| s.get(Kind::SailIstio, "", "default").is_some()).await;
        assert_eq!(live.handle.ready(), Readiness::Ready);
        api.uninstall("sailoperator.io");
        live.until("its end", |s| s.len(Kind::SailIstio) == 0 && s.knows(Kind::SailIstio, None).is_ok()).await;
    }
    assert!(!api.asked("/sailoperator.io/v1alpha1/istios?").is_empty(), "the cluster's preferred version");
    assert!(api.asked("/sailoperator.io/v1/istios?").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crd_that_is_served_only_later_than_it_is_announced_is_found() {
    let api = mesh().await;
    let live = run(&api, quick());
    live.ready().await;
    let crd = json!({"metadata": {"name": "istiooperators.install.istio.io"}});
    api.put("apiextensions.k8s.io/customresourcedefinitions", crd);
    live.until("a look", |_| api.asked("/apis/install.istio.io").len() >= 2).await;
    api.install("install.istio.io", &[("v1alpha1", &["istiooperators"])]);
    api.put("install.istio.io/istiooperators", json!({"metadata": {"namespace": "istio-system", "name": "main"}}));
    live.until("the operator", |s| s.len(Kind::IstioOperator) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_starts_and_refuses_everything_makes_nothing_unknown() {
    let api = mesh().await;
    let live = run(&api, Timing { doubt: Duration::from_secs(60), ..quick() });
    live.ready().await;
    let before = live.snapshot();
    api.fail("/deployments", Fault::Status(403, None));
    api.cut_watches();
    live.noted("refusals", |n| {
        n.troubles.iter().filter(|t| t.0 == "deployments.apps" && t.2 == "forbidden").count() > 3
    })
    .await;
    assert!(live.snapshot().knows(Kind::Deployment, None).is_ok());
    assert_eq!(live.snapshot().len(Kind::Deployment), before.len(Kind::Deployment));
    api.heal("/deployments");
    api.put("apps/deployments", json!({"metadata": {"namespace": "shop", "name": "late"}}));
    live.until("what came later", |s| s.len(Kind::Deployment) == before.len(Kind::Deployment) + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_in_unknown_versions_is_unknown_not_empty() {
    let api = mesh().await;
    api.install("install.istio.io", &[("v7", &["istiooperators"])]);
    let live = run(&api, quick());
    live.ready().await;
    assert_eq!(live.snapshot().knows(Kind::IstioOperator, None).unwrap_err().why, WhyUnknown::Forbidden);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_of_the_mesh_are_read_whole_as_gateways_come_and_go() {
    let api = mesh().await;
    let live = run(&api, quick());
    live.ready().await;
    // Readiness waited for the whole pods of the namespace that had a gateway from the start.
    let edge = as_pod(&live.snapshot(), "edge", "gw-1").unwrap();
    assert!(edge.status.unwrap().ready && edge.template.is_none());
    assert_eq!(edge.proxy.unwrap().to_string(), "1.24");
    assert!(edge.meta.labels.is("app", "gw"));
    let shop = as_pod(&live.snapshot(), "shop", "cart-1").unwrap();
    assert_eq!((shop.status, shop.meta.labels.is_empty()), (None, true));
    assert_eq!(shop.revision.as_deref(), Some("1-24"));
    assert_eq!(shop.workload(), Some(("Deployment", "gw")));
    assert_eq!(live.snapshot().knows(Kind::Pod, Some("shop")).unwrap_err().why, WhyUnknown::NotWatched);

    api.put("apps/deployments", deployment("shop", "gw", true));
    live.until("whole pods", |s| s.knows(Kind::Pod, Some("shop")).is_ok()).await;
    assert!(as_pod(&live.snapshot(), "shop", "cart-1").unwrap().status.unwrap().ready);
    api.put("/pods", pod("shop", "cart-1", false));
    live.until("unready", |s| as_pod(s, "shop", "cart-1").unwrap().status.is_some_and(|s| !s.ready)).await;
    assert_eq!(live.handle.ready(), Readiness::Ready);

    // One that leaves and comes back within the hold is not let go.
    api.delete("apps/deployments", "shop", "gw");
    live.until("no gateway", |s| s.get(Kind::Deployment, "shop", "gw").is_none()).await;
    api.put("apps/deployments", deployment("shop", "gw", true));
    tokio::time::sleep(ms(400)).await;
    assert_eq!(live.notes.0.lock().unwrap().listings["pods in shop"], 1);

    api.delete("apps/deployments", "shop", "gw");
    live.until("let go", |s| s.knows(Kind::Pod, Some("shop")).is_err()).await;
    let shop = as_pod(&live.snapshot(), "shop", "cart-1").unwrap();
    assert_eq!((shop.status, shop.proxy), (None, None));
    api.delete("/pods", "shop", "cart-1");
    live.until("its metadata watch", |s| s.get(Kind::Pod, "shop", "cart-1").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_mesh_namespaces_than_the_limit_are_unknown_and_said() {
    let api = mesh().await;
    api.put("apps/deployments", deployment("shop", "gw", true));
    let live = run(&api, Timing { mesh_namespaces: 1, ..quick() });
    live.ready().await;
    assert_eq!(live.notes.0.lock().unwrap().beyond, Some((2, 1)));
    let known = ["edge", "shop"].map(|ns| live.snapshot().knows(Kind::Pod, Some(ns)).is_ok());
    assert_eq!(known.iter().filter(|k| **k).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_waits_for_the_last_list_says_which_and_stays() {
    let api = mesh().await;
    api.fail("/namespaces/edge/pods", Fault::Status(403, None));
    for _ in 0..20 {
        api.fail("/cronjobs", Fault::Status(500, None));
    }
    let live = run(&api, quick());
    live.noted("troubles", |n| n.troubles.iter().filter(|t| t.0 == "cronjobs.batch").count() > 3).await;
    let text = live.handle.ready().to_string();
    assert_eq!(text, "waiting for the first list of cronjobs.batch");
    assert!(live.shared.state.load().snapshot.knows(Kind::Namespace, None).is_err(), "nothing half is published");
    live.ready().await;
    api.cut_watches();
    api.fail("/cronjobs", Fault::Status(500, None));
    tokio::time::sleep(ms(100)).await;
    assert_eq!(live.handle.ready(), Readiness::Ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_watch_is_given_up() {
    let api = mesh().await;
    let live = run(&api, quick());
    live.ready().await;
    // The next watch of namespaces never answers; the one after it does.
    api.fail("/api/v1/namespaces?watch", Fault::Silence);
    api.cut_watches();
    api.put("/namespaces", namespace("new"));
    live.until("the write", |s| s.get(Kind::Namespace, "", "new").is_some()).await;
    assert!(live.notes.0.lock().unwrap().troubles.contains(&("namespaces".into(), "watch", "silent")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_list_waits_as_long_as_it_is_told() {
    let api = mesh().await;
    api.fail("/cronjobs", Fault::Status(429, Some(1)));
    let begun = std::time::Instant::now();
    let live = run(&api, quick());
    live.ready().await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(api.asked("/cronjobs").len(), 2);
    assert!(live.notes.0.lock().unwrap().troubles.contains(&("cronjobs.batch".into(), "watch", "throttled")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_cannot_be_read_hides_nothing_else() {
    for streams in [true, false] {
        let api = mesh().await;
        if !streams {
            api.no_streams();
        }
        api.put("apps/deployments", json!({"metadata": {"namespace": "shop", "name": "bad", "labels": {"x": [1]}}}));
        let live = run(&api, quick());
        live.ready().await;
        assert_eq!(live.snapshot().len(Kind::Deployment), 2);
        let said = live.notes.0.lock().unwrap().unreadable.clone();
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("shop/bad: metadata.labels"), "{said:?}");
        // One that turns bad is left out, as after a restart.
        api.put(
            "apps/deployments",
            json!({"metadata": {"namespace": "shop", "name": "cart"}, "spec": {"replicas": "many"}}),
        );
        let version = api.put("apps/deployments", deployment("shop", "good", false));
        live.noted("the write", |n| n.versions.get(&(Kind::Deployment, false)) >= Some(&version)).await;
        assert!(live.has(Kind::Deployment, "shop", "good") && !live.has(Kind::Deployment, "shop", "cart"));
        api.put("apps/deployments", deployment("shop", "cart", false));
        live.until("its repair", |s| s.get(Kind::Deployment, "shop", "cart").is_some()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_pod_leaves() {
    let api = mesh().await;
    let live = run(&api, quick());
    live.ready().await;
    let asked = api.asked("/pods?watch");
    assert!(asked.iter().all(|q| q.contains("fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_reading_sees_what_the_live_view_sees() {
    let api = mesh().await;
    api.fail("/daemonsets", Fault::Status(403, None));
    api.fail("/cronjobs", Fault::Status(429, Some(1)));
    api.put("apps/deployments", json!({"metadata": {"namespace": "shop", "name": "bad", "labels": {"x": [1]}}}));
    let reading = cluster::read_once(&api.client(), Pods::Metadata).await.unwrap();
    let snapshot = &reading.snapshot;
    assert_eq!((snapshot.len(Kind::Deployment), snapshot.len(Kind::Pod), snapshot.len(Kind::Namespace)), (2, 2, 2));
    assert!(snapshot.knows(Kind::Pod, Some("edge")).is_ok() && snapshot.knows(Kind::IstioOperator, None).is_ok());
    assert!(as_pod(snapshot, "edge", "gw-1").unwrap().status.unwrap().ready);
    assert_eq!(as_pod(snapshot, "shop", "cart-1").unwrap().template, None);
    assert_eq!(reading.problems.len(), 2, "{:?}", reading.problems);
    let whole = cluster::read_once(&api.client(), Pods::Whole).await.unwrap();
    assert!(as_pod(&whole.snapshot, "shop", "cart-1").unwrap().template.is_some());
    assert!(api.asked("/pods?watch").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_away_is_named() {
    let api = mesh().await;
    let mut gone = api.clone();
    gone.url = "http://127.0.0.1:9".to_owned();
    let error = cluster::read_once(&gone.client(), Pods::Metadata).await.err().unwrap().to_string();
    assert!(error.contains("cannot reach the API server") && error.contains("Connection refused"), "{error}");
    let live = run(&gone, quick());
    live.noted("troubles", |n| n.troubles.iter().any(|t| t.1 == "discover" && t.2 == "unreachable")).await;
    assert!(matches!(live.handle.ready(), Readiness::Waiting(_)) && live.handle.alive().is_ok());
    assert!(live.handle.ready().to_string().starts_with("waiting for the first list of "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_panics_is_reported_by_its_name() {
    struct Panics;
    impl Telemetry for Panics {
        fn listing(&self, source: &Source) {
            assert!(source.0 != Kind::CronJob, "the test wants it");
        }
    }
    let api = mesh().await;
    let shared = Shared::new(Snapshot::live(), Policy::default());
    let handle = cluster::start(api.client(), shared, Arc::new(Panics), quick());
    let died = tokio::time::timeout(Duration::from_secs(10), handle.join()).await.unwrap();
    assert_eq!(died.to_string(), "the watch of cronjobs.batch has died: panic: the test wants it");
    assert_eq!(handle.alive(), Err(died));
    assert_ne!(handle.ready(), Readiness::Ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_handle_ends_every_request() {
    let api = mesh().await;
    let live = run(&api, quick());
    live.ready().await;
    drop(live);
    tokio::time::sleep(ms(100)).await;
    let asked = api.asked("").len();
    api.cut_watches();
    tokio::time::sleep(ms(300)).await;
    assert_eq!(api.asked("").len(), asked);
}
