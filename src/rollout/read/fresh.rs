//! The control planes, injectors and Services of what was read right now, as a snapshot, so that the same questions are asked of
//! them as everywhere else.

use crate::model::{Kind, Labels, Selector, Str};
use crate::rollout::seen::Map;
use crate::snapshot::Snapshot;
use crate::wire::manifest::typed;
use crate::wire::webhook::LabelSelector;

use super::raw::{Listed, Raw};

/// What a snapshot understands of what was listed. Objects that it cannot read are left out: the API server holds none.
const UNDERSTOOD: [(Listed, Kind); 5] = [
    (Listed::Deployments, Kind::Deployment),
    (Listed::Services, Kind::Service),
    (Listed::EndpointSlices, Kind::EndpointSlice),
    (Listed::ConfigMaps, Kind::ConfigMap),
    (Listed::Injectors, Kind::MutatingWebhook),
];

/// The cluster that holds exactly what was listed, with the namespaces that are known.
pub fn fresh(raw: &Raw, known: &Snapshot) -> Snapshot {
    // Manifests without EndpointSlices leave it to the status of Deployments who is ready.
    let mut all = if raw.is_of_manifests() { Snapshot::offline() } else { Snapshot::whole() };
    known.raw(Kind::Namespace).cloned().for_each(|namespace| all.put(namespace));
    for (listed, kind) in UNDERSTOOD {
        raw.all(listed).iter().filter_map(|object| typed(kind, object).ok()).for_each(|object| all.put(object));
    }
    all
}

/// Labels of our own maps, for selectors.
pub fn labels(map: &Map) -> Labels {
    Labels::from_pairs(map.iter().map(|(k, v)| (Str::from(k.as_str()), Str::from(v.as_str()))).collect())
}

/// A label selector as JSON; `None` if there is none, or one that the API server would refuse.
pub fn selector(value: &serde_json::Value) -> Option<Selector> {
    if value.is_null() {
        return None;
    }
    serde_json::from_value::<LabelSelector>(value.clone()).ok()?.compile().ok()
}

/// Exact pairs, as in a Service.
pub fn pairs(map: &Map) -> Selector {
    Selector::exact(&labels(map))
}
