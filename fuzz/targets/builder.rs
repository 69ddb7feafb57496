//! Any sequence of watch events that ends in a cluster gives that cluster's snapshot: repeated, late, lost in a list that began
//! again, it does not matter.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use revguard::model::{Id, Kind, Object};
use revguard::snapshot::{Builder, Event, Snapshot};
use revguard::wire::read_json;
use serde_json::{Value, json};

const KINDS: [Kind; 5] = [Kind::Namespace, Kind::Deployment, Kind::Service, Kind::Pod, Kind::MutatingWebhook];
const NAMES: [&str; 3] = ["one", "two", "three"];
const REVISIONS: [&str; 3] = ["1-23", "1-24", "prod"];

/// Bytes as choices; zeros for ever when they are used up.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % n
    }
}

/// What the API server would hold.
type Cluster = BTreeMap<Id, Object>;

pub fn run(data: &[u8]) {
    let mut choose = Choices(data.iter());
    let mut builder = Builder::new(Snapshot::live());
    let mut cluster = Cluster::new();
    // Each step takes at most five bytes.
    for _ in 0..data.len().min(512) {
        let kind = KINDS[choose.below(KINDS.len())];
        let source = || (kind, None);
        match choose.below(8) {
            0..=2 => {
                let object = object(kind, &mut choose);
                cluster.insert(object.id(), object.clone());
                for _ in 0..=choose.below(2) {
                    builder.apply(Event::Apply(source(), Box::new(object.clone())));
                }
            }
            3 => {
                let id = object(kind, &mut choose).id();
                cluster.remove(&id);
                builder.apply(Event::Delete(source(), id));
            }
            4 => list(&mut builder, &cluster, kind),
            // A list that breaks off: what it brought is true, what it did not bring is not yet gone.
            5 => {
                builder.apply(Event::Listing(source()));
                for object in cluster.values().filter(|o| o.kind() == kind).take(choose.below(3)) {
                    builder.apply(Event::Apply(source(), Box::new(object.clone())));
                }
            }
            6 => {
                cluster.retain(|id, _| id.kind != kind);
                builder.apply(Event::NotInstalled(kind));
            }
            // Changes that nobody told of; the next list does.
            _ => {
                let object = object(kind, &mut choose);
                if choose.below(2) == 0 {
                    cluster.insert(object.id(), object);
                } else {
                    cluster.remove(&object.id());
                }
            }
        }
    }
    for kind in KINDS {
        list(&mut builder, &cluster, kind);
    }
    let mut fresh = Builder::new(Snapshot::live());
    for kind in KINDS.into_iter().rev() {
        list(&mut fresh, &cluster, kind);
    }
    assert_eq!(facts(builder.snapshot()), facts(fresh.snapshot()));
}

fn list(builder: &mut Builder, cluster: &Cluster, kind: Kind) {
    builder.apply(Event::Listing((kind, None)));
    for object in cluster.values().filter(|o| o.kind() == kind) {
        builder.apply(Event::Apply((kind, None), Box::new(object.clone())));
    }
    builder.apply(Event::Listed((kind, None)));
}

fn object(kind: Kind, choose: &mut Choices<'_>) -> Object {
    let (name, namespace, revision) =
        (NAMES[choose.below(3)], NAMES[choose.below(3)], REVISIONS[choose.below(REVISIONS.len())]);
    let labels = json!({"istio.io/rev": revision, "app": name});
    let json: Value = match kind {
        Kind::Namespace => json!({"metadata": {"name": name, "labels": labels}}),
        Kind::Deployment => {
            let container = if revision == "prod" { "discovery" } else { "istio-proxy" };
            json!({"metadata": {"name": name, "namespace": namespace, "labels": {"app": "istiod", "istio.io/rev": revision}},
                "spec": {"template": {"metadata": {"labels": {"app": "istiod", "istio": "ingressgateway"}},
                    "spec": {"containers": [{"name": container, "image": "docker.io/istio/pilot:1.24.2"}]}}}})
        }
        Kind::Pod => json!({"metadata": {"name": name, "namespace": namespace, "labels": labels,
            "annotations": {"istio.io/rev": revision},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "api-1", "controller": true}]}}),
        Kind::MutatingWebhook => json!({"metadata": {"name": name, "labels": labels},
            "webhooks": [{"name": "rev.namespace.sidecar-injector.istio.io",
                "clientConfig": {"service": {"name": "istiod", "namespace": "istio-system"}},
                "namespaceSelector": {"matchLabels": {"istio.io/rev": revision}}}]}),
        _ => {
            json!({"metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": {"selector": {"app": name}}})
        }
    };
    read_json(kind, json.to_string().as_bytes()).expect("an object")
}

/// Everything that can be asked of a snapshot of these kinds.
fn facts(snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for kind in KINDS {
        let _ = writeln!(out, "{kind:?} {:?}", snapshot.knows(kind, None));
        for object in snapshot.raw(kind) {
            let _ = writeln!(out, "  {object:?}");
        }
    }
    let _ = writeln!(out, "{:?}", snapshot.injectors().map(|all| all.hooks().collect::<Vec<_>>()));
    let _ = writeln!(out, "{:?}", snapshot.istiods().map(|all| all.map(|w| w.meta.clone()).collect::<Vec<_>>()));
    for revision in REVISIONS {
        let _ = writeln!(out, "{revision} {:?}", snapshot.runs(revision).collect::<Vec<_>>());
    }
    out
}
