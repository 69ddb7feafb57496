//! The two control planes of a rollout: whether there is one, whether it can take proxies, and its version.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::json::Json;
use super::raw::{Listed, Raw};
use crate::api::gateway_rollout::Flavor;
use crate::model::version::{bare, tag};
use crate::model::workload::DISCOVERY;
use crate::model::{CaBundle, Injection, RevisionName, Template};
use crate::rollout::seen::ControlPlane;
use crate::snapshot::Snapshot;
use crate::snapshot::mesh::Answers;

/// What a gateway asks of a control plane.
pub struct Asking<'a> {
    pub revision: &'a str,
    pub flavor: Option<Flavor>,
    /// A template whose pods ask for that revision.
    pub template: &'a Template,
}

/// Looks at a control plane as it is now.
pub fn read(raw: &Raw, fresh: &Snapshot, asking: &Asking<'_>) -> ControlPlane {
    let revision = RevisionName::new(asking.revision);
    let istiod = istiod(raw, &revision, fresh);
    let injected = fresh.injector_configs().any(|c| c.is_canonical() && c.revision().as_ref() == Some(&revision));
    let namespace = istiod.map(|d| d.namespace().to_owned()).or_else(|| home(fresh, &revision)).unwrap_or_default();
    let installed = istiod.is_some() || injected;
    let why = if installed { unready(raw, fresh, asking).err() } else { Some(missing(fresh, &revision)) };
    ControlPlane {
        installed,
        ready: why.is_none(),
        why: why.unwrap_or_default(),
        namespace: Arc::from(namespace),
        version: istiod.and_then(version).map(Arc::from),
    }
}

fn missing(fresh: &Snapshot, revision: &RevisionName) -> String {
    format!("no istiod of revision {revision} is installed {}", fresh.name_list())
}

/// The Deployment of a revision's istiod, one that is not being deleted.
fn istiod<'a>(raw: &'a Raw, revision: &RevisionName, fresh: &Snapshot) -> Option<&'a Value> {
    let mut all = fresh.istiods().ok()?.filter(|w| w.istiod_revision().as_ref() == Some(revision) && !w.meta.deleting);
    let found = all.next()?;
    raw.get(Listed::Deployments, &found.meta.namespace, &found.meta.name)
}

/// Where the injector of a revision sends its calls, for an istiod that is no Deployment here.
fn home(fresh: &Snapshot, revision: &RevisionName) -> Option<String> {
    let mut hooks =
        fresh.injector_configs().flat_map(|c| c.hooks.iter()).filter(|h| h.revision.as_ref() == Some(revision));
    hooks.find_map(|h| match &h.backend {
        crate::model::Backend::Service { namespace, .. } => Some(namespace.to_string()),
        _ => None,
    })
}

/// The version of an istiod, by its image.
fn version(istiod: &Value) -> Option<String> {
    let containers = istiod["spec"]["template"]["spec"].list("containers");
    let image = containers.iter().find(|c| c.text("name") == DISCOVERY)?.text("image");
    tag(image).map(|tag| bare(tag).to_owned())
}

/// Why proxies cannot be taken now: nobody answers behind the Service that they dial, or nobody injects them.
fn unready(raw: &Raw, fresh: &Snapshot, asking: &Asking<'_>) -> Result<(), String> {
    serves(fresh, &RevisionName::new(asking.revision))?;
    if asking.flavor == Some(Flavor::ConfigMapMount) { Ok(()) } else { injects(raw, fresh, asking) }
}

/// Whether somebody answers where the proxies of a revision dial.
///
/// # Errors
/// Why not.
pub fn serves(fresh: &Snapshot, revision: &RevisionName) -> Result<(), String> {
    match fresh.ready_endpoints(revision) {
        Ok(Some(0)) => Err(format!("Service {} has no ready endpoint", revision.istiod())),
        Ok(Some(_)) => Ok(()),
        // An istiod outside of the cluster has no Service here; then its injector has to say where it is.
        Ok(None) if injector_is_elsewhere(fresh, revision) => Ok(()),
        Ok(None) => Err(format!("Service {} is not there", revision.istiod())),
        Err(unknown) => Err(unknown.to_string()),
    }
}

/// What istiod calls the port of its metrics and debug pages, and its number where a Service does not lead there.
const MONITORING: (&str, u16) = ("http-monitoring", 15014);

/// Where the pods that are ready behind the Service of a revision's istiod tell about themselves: address and port.
pub fn monitoring(raw: &Raw, namespace: &str, revision: &str) -> BTreeSet<(String, u16)> {
    let service = RevisionName::new(revision).istiod();
    let own = |s: &&Value| s.label("kubernetes.io/service-name") == Some(&*service);
    let mut all = BTreeSet::new();
    for slice in raw.within(Listed::EndpointSlices, namespace).filter(own) {
        let named = slice.list("ports").iter().find(|p| p.text("name") == MONITORING.0);
        let number = named.and_then(|p| u16::try_from(p["port"].as_u64()?).ok()).unwrap_or(MONITORING.1);
        let ready = slice.list("endpoints").iter().filter(|e| e["conditions"]["ready"] != Value::Bool(false));
        // The addresses of one endpoint are one pod's.
        let addresses = ready.filter_map(|e| e.list("addresses").first()?.as_str());
        all.extend(addresses.map(|address| (address.to_owned(), number)));
    }
    all
}

fn injector_is_elsewhere(fresh: &Snapshot, revision: &RevisionName) -> bool {
    let mut hooks =
        fresh.injector_configs().flat_map(|c| c.hooks.iter()).filter(|h| h.revision.as_ref() == Some(revision));
    hooks.any(|h| matches!(fresh.answers(&h.backend), Ok(Answers::Elsewhere)))
}

/// Whether the injector of the revision makes the proxies of these pods.
///
/// # Errors
/// Why not.
pub fn injects(raw: &Raw, fresh: &Snapshot, asking: &Asking<'_>) -> Result<(), String> {
    let resolution = fresh.resolve(raw.rollout.namespace(), asking.template).map_err(|e| e.to_string())?;
    let hook = match &resolution.injection {
        Injection::One(hook) => hook,
        Injection::Conflict(hooks) => {
            let configs: Vec<&str> = hooks.iter().map(|h| h.config.as_str()).collect();
            return Err(format!("{} injectors answer to its pods: {}", hooks.len(), configs.join(", ")));
        }
        Injection::None(_) => return Err(format!("no injector makes its proxies: {}", resolution.because)),
    };
    if hook.revision.as_ref().is_some_and(|r| r.as_str() != asking.revision) {
        let other = hook.revision.as_ref().map_or("", |r| r.as_str());
        return Err(format!("its proxies would come from revision {other}: {}", resolution.because));
    }
    if !matches!(hook.ca, CaBundle::Of(_)) && !matches!(hook.backend, crate::model::Backend::Url(_)) {
        return Err(format!(
            "the caBundle of injector {} holds no certificate, so that it cannot be called",
            hook.config
        ));
    }
    match fresh.answers(&hook.backend) {
        Ok(Answers::Ready(_) | Answers::Elsewhere) => Ok(()),
        Ok(Answers::Missing) => Err(format!("injector {} leads to a Service that is not there", hook.config)),
        Ok(Answers::Nobody) => Err(format!("nobody answers behind injector {}", hook.config)),
        Err(unknown) => Err(unknown.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(name: &str, (namespace, service): (&str, &str), ports: Value, endpoints: Value) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "ports": ports, "endpoints": endpoints,
            "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
        })
    }

    #[test]
    fn istiods_are_those_that_are_ready_behind_their_own_service() {
        let https = || json!([{"name": "https-webhook", "port": 15017}]);
        let moved = json!([{"name": "https-webhook", "port": 15017}, {"name": "http-monitoring", "port": 9093}]);
        let several = json!([
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true}},
            {"addresses": ["10.0.0.3", "10.0.0.4"]},
            {},
        ]);
        let (new, old) = (("istio-system", "istiod-1-24"), ("istio-system", "istiod-1-23"));
        let raw = Raw::manifests(
            Value::Null,
            [
                slice("a", new, https(), several),
                slice("b", new, Value::Null, json!([{"addresses": ["fd00::1"]}])),
                slice("c", old, moved, json!([{"addresses": ["10.0.0.5"]}])),
                slice("d", ("elsewhere", "istiod-1-24"), https(), json!([{"addresses": ["10.0.0.6"]}])),
            ],
        );
        let found = |revision: &str| -> Vec<String> {
            monitoring(&raw, "istio-system", revision).iter().map(|(ip, port)| format!("{ip} {port}")).collect()
        };
        assert_eq!(found("1-24"), ["10.0.0.1 15014", "10.0.0.3 15014", "fd00::1 15014"]);
        assert_eq!(found("1-23"), ["10.0.0.5 9093"]);
        assert!(found("default").is_empty());
    }
}
