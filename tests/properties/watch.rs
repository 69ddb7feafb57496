//! Any order, repetition or restart of watch events that ends in the same cluster gives the same snapshot.
//!
//! A source (a kind, or whole objects of a kind in one namespace) goes through a history of clusters, by lists from the
//! beginning or by single events; the events of all sources are shuffled into one another. What comes out is compared with
//! the shortest way to the same end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::LazyLock;

use proptest::prelude::*;
use revguard::model::{ConfigMap, Id, Kind, Object, Str};
use revguard::snapshot::{Builder, Event, Snapshot};
use revguard::wire::manifest;
use serde_json::{Value, json};

use super::MESH;

/// Everything that can be asked of a snapshot, in one comparable value.
#[derive(Debug, PartialEq)]
struct Seen {
    objects: Vec<(Id, Object)>,
    known: Vec<(Kind, String)>,
    hooks: Vec<String>,
    names: Vec<String>,
    istiods: Vec<Id>,
    gateways: Vec<Id>,
    runs: Vec<(String, String, String, u32)>,
    pods: Vec<String>,
    mesh_namespaces: Vec<String>,
}

fn seen(s: &Snapshot) -> Seen {
    let kinds = || revguard::wire::KINDS.iter().map(|row| row.kind);
    let id_of = |kind: Kind, w: &revguard::model::Workload| Id {
        kind,
        namespace: w.meta.namespace.clone(),
        name: w.meta.name.clone(),
    };
    let pods = ["istio-system", "shop", "web"].into_iter().map(|ns| match s.pods_in(ns) {
        Ok(pods) => format!("{ns}: {}", pods.count()),
        Err(unknown) => format!("{ns}: {unknown}"),
    });
    Seen {
        objects: kinds().flat_map(|k| s.raw(k)).map(|o| (o.id(), o.clone())).collect(),
        known: kinds().map(|k| (k, format!("{:?}", s.knows(k, None)))).collect(),
        hooks: s.injectors().map(|i| i.hooks().map(|h| format!("{h:?}")).collect()).unwrap_or_default(),
        names: s.injectors().map(|i| i.names().all().map(Str::to_string).collect()).unwrap_or_default(),
        istiods: s.istiods().map(|all| all.map(|w| id_of(Kind::Deployment, w)).collect()).unwrap_or_default(),
        gateways: s.gateways().map(|all| all.map(|(k, w)| id_of(k, w)).collect()).unwrap_or_default(),
        runs: ["1-23", "1-24"]
            .into_iter()
            .flat_map(|r| s.runs(r).map(move |(ns, w, n)| (r.to_owned(), ns.to_string(), w.to_string(), n)))
            .collect(),
        pods: pods.collect(),
        mesh_namespaces: s.mesh_namespaces().iter().map(Str::to_string).collect(),
    }
}

/// Where two of them part, in one line: the whole is thousands long.
fn first_difference(a: &Seen, b: &Seen) -> String {
    let (a, b) = (format!("{a:#?}"), format!("{b:#?}"));
    let at = a.lines().zip(b.lines()).position(|(x, y)| x != y).unwrap_or(0);
    let around = |s: &str| s.lines().skip(at.saturating_sub(12)).take(16).collect::<Vec<_>>().join("\n");
    format!("--- one way\n{}\n--- another\n{}", around(&a), around(&b))
}

type Source = (Kind, Option<Str>);

/// One thing that may be in the cluster: on which watches it comes, and its versions as each of them sends it.
struct Thing {
    id: Id,
    versions: Vec<Vec<(Source, Object)>>,
}

fn object(kind: Kind, value: &Value) -> Object {
    manifest::typed(kind, value).expect("a readable object")
}

fn pod(ns: &str, name: &str, revision: &str, ready: bool) -> Vec<(Source, Object)> {
    let meta = json!({"name": name, "namespace": ns, "labels": {"app": name, "pod-template-hash": "x1"},
        "annotations": {"istio.io/rev": revision},
        "ownerReferences": [{"kind": "ReplicaSet", "name": format!("{name}-x1"), "controller": true}]});
    let condition = json!([{"type": "Ready", "status": if ready { "True" } else { "False" }}]);
    let whole = json!({"metadata": meta, "spec": {"containers": [{"name": "istio-proxy", "image": "proxyv2:1.23.1"}]},
        "status": {"phase": "Running", "conditions": condition}});
    // As the live watch of metadata tells of it.
    let mut outline = object(Kind::Pod, &json!({"metadata": meta}));
    if let Object::Pod(pod) = &mut outline {
        pod.outline();
    }
    vec![((Kind::Pod, None), outline), ((Kind::Pod, Some(Str::from(ns))), object(Kind::Pod, &whole))]
}

/// A pool of things: the demo's mesh (each thing there in one version) and some that change.
static POOL: LazyLock<Vec<Thing>> = LazyLock::new(|| {
    let mut pool: Vec<Thing> = Vec::new();
    let mut add = |versions: Vec<Vec<(Source, Object)>>| {
        let id = versions[0][0].1.id();
        pool.push(Thing { id, versions });
    };
    for d in manifest::read("mesh", MESH, "default").documents {
        let kind = d.object.kind();
        let source = match kind {
            Kind::ConfigMap if ConfigMap::is_mesh_config(&d.object.meta().name) => (kind, None),
            Kind::EndpointSlice | Kind::ConfigMap => (kind, Some(d.object.meta().namespace.clone())),
            _ => (kind, None),
        };
        add(vec![vec![(source, d.object)]]);
    }
    for ns in ["shop", "web"] {
        let namespace = |rev: &str| {
            let value = json!({"metadata": {"name": ns, "labels": {"istio.io/rev": rev}}});
            vec![((Kind::Namespace, None), object(Kind::Namespace, &value))]
        };
        add(vec![namespace("1-23"), namespace("prod")]);
        let deployment = |template: &str, image: &str| {
            let value = json!({"metadata": {"name": "gw", "namespace": ns}, "spec": {"template": {
                "metadata": {"labels": {"app": "gw"}, "annotations": {"inject.istio.io/templates": template}},
                "spec": {"containers": [{"name": "istio-proxy", "image": image}]}}}});
            vec![((Kind::Deployment, None), object(Kind::Deployment, &value))]
        };
        add(vec![deployment("gateway", "auto"), deployment("sidecar", "auto")]);
        for name in ["gw-1", "gw-2"] {
            add(vec![pod(ns, name, "1-23", true), pod(ns, name, "1-24", false), pod(ns, name, "1-24", true)]);
        }
    }
    pool
});

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let all: BTreeSet<Source> =
        POOL.iter().flat_map(|t| t.versions.iter().flatten()).map(|(source, _)| source.clone()).collect();
    all.into_iter().collect()
});

/// Which version of each thing exists.
type Cluster = Vec<Option<usize>>;

fn cluster() -> impl Strategy<Value = Cluster> {
    let each: Vec<_> = POOL.iter().map(|t| prop::option::weighted(0.8, 0..t.versions.len())).collect();
    each
}

/// What a source holds of a cluster.
fn held(source: &Source, cluster: &Cluster) -> BTreeMap<Id, Object> {
    let here = POOL.iter().zip(cluster).filter_map(|(thing, version)| {
        let (_, object) = thing.versions[(*version)?].iter().find(|(s, _)| s == source)?;
        Some((thing.id.clone(), object.clone()))
    });
    here.collect()
}

/// How a source gets from one cluster to the next.
#[derive(Clone, Debug)]
struct Move {
    /// By a list from the beginning, as after a lost connection; else by single events.
    relist: bool,
    /// Reverses the order, and sends everything twice.
    reversed: bool,
    twice: bool,
    /// A list that breaks off, to be begun again.
    broken: bool,
}

fn a_move() -> impl Strategy<Value = Move> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(relist, reversed, twice, broken)| Move {
        relist,
        reversed,
        twice,
        broken,
    })
}

fn events(source: &Source, from: Option<&Cluster>, to: &Cluster, how: &Move) -> Vec<Event> {
    let (before, after) = (from.map(|c| held(source, c)).unwrap_or_default(), held(source, to));
    let mut out = Vec::new();
    let send = |object: &Object, out: &mut Vec<Event>| {
        for _ in 0..if how.twice { 2 } else { 1 } {
            out.push(Event::Apply(source.clone(), Box::new(object.clone())));
        }
    };
    let mut ids: Vec<&Id> = after.keys().collect();
    if how.reversed {
        ids.reverse();
    }
    if how.relist || from.is_none() {
        if how.broken {
            out.push(Event::Listing(source.clone()));
            ids.iter().take(2).for_each(|id| send(&after[*id], &mut out));
        }
        out.push(Event::Listing(source.clone()));
        ids.iter().for_each(|id| send(&after[*id], &mut out));
        out.push(Event::Listed(source.clone()));
    } else {
        for id in before.keys().filter(|id| !after.contains_key(id)) {
            out.push(Event::Delete(source.clone(), id.clone()));
        }
        ids.iter().filter(|id| before.get(id) != after.get(id)).for_each(|id| send(&after[*id], &mut out));
    }
    out
}

/// Each source in its own order, all of them shuffled into one another.
fn interleave(mut queues: Vec<VecDeque<Event>>, picks: &[usize]) -> Vec<Event> {
    let mut out = Vec::new();
    let mut picks = picks.iter().cycle();
    while !queues.is_empty() {
        let at = picks.next().copied().unwrap_or(0) % queues.len();
        match queues[at].pop_front() {
            Some(event) => out.push(event),
            None => drop(queues.remove(at)),
        }
    }
    out
}

proptest! {
    #[test]
    fn any_way_to_the_same_cluster_gives_the_same_snapshot(
        history in prop::collection::vec(cluster(), 0..3),
        end in cluster(),
        moves in prop::collection::vec(a_move(), 40),
        picks in prop::collection::vec(0usize..64, 50),
        dropped in prop::collection::vec(prop::bool::weighted(0.2), 40),
    ) {
        // A namespace whose last gateway went is no longer watched whole.
        let is_dropped = |at: usize| SOURCES[at].1.is_some() && dropped[at];
        let mut moves = moves.iter().cycle();
        let mut queues = Vec::new();
        for (at, source) in SOURCES.iter().enumerate() {
            let mut queue = VecDeque::new();
            let mut from = None;
            for to in history.iter().chain([&end]) {
                queue.extend(events(source, from, to, moves.next().expect("endless")));
                from = Some(to);
            }
            if is_dropped(at) {
                queue.push_back(Event::Dropped(source.clone()));
            }
            queues.push(queue);
        }
        let mut long = Builder::new(Snapshot::live());
        interleave(queues, &picks).into_iter().for_each(|e| long.apply(e));

        let mut short = Builder::new(Snapshot::live());
        let plain = Move { relist: true, reversed: false, twice: false, broken: false };
        for (_, source) in SOURCES.iter().enumerate().filter(|(at, _)| !is_dropped(*at)) {
            events(source, None, &end, &plain).into_iter().for_each(|e| short.apply(e));
        }
        let (long, short) = (seen(long.snapshot()), seen(short.snapshot()));
        prop_assert!(long == short, "{}", first_difference(&long, &short));
    }
}
