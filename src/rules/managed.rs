//! What istiod deploys for a Gateway API Gateway: Deployment, Service, HorizontalPodAutoscaler, ServiceAccount.

use super::names::if_known;
use crate::model::{GatewayConfig, Kind, Labels, Meta, Workload, key};
use crate::snapshot::{Known, Snapshot};

/// Legacy name of [`key::GATEWAY_NAME`], still written beside it.
const OLD_NAME: &str = "istio.io/gateway-name";

/// The kinds that istiod applies.
pub const KINDS: [Kind; 4] = [Kind::Deployment, Kind::Service, Kind::Hpa, Kind::ServiceAccount];

/// Name of the Gateway in the labels of what is deployed for it.
pub fn gateway_name(labels: &Labels) -> Option<&str> {
    labels.value(key::GATEWAY_NAME).or_else(|| labels.value(OLD_NAME))
}

/// The Gateway for which istiod keeps this object, if it is there and to stay. Only Deployments carry the mark of ownership
/// in every version; the rest is known by the class beside the name.
pub fn gateway_of<'a>(cluster: &'a Snapshot, kind: Kind, meta: &Meta) -> Known<Option<&'a GatewayConfig>> {
    let labels = &meta.labels;
    let Some(name) = gateway_name(labels).filter(|_| KINDS.contains(&kind)) else { return Ok(None) };
    if !labels.has(key::GATEWAY_MANAGED) && (kind == Kind::Deployment || !labels.has(key::GATEWAY_CLASS)) {
        return Ok(None);
    }
    let Some(mut all) = if_known(cluster.deployed_gateways())? else { return Ok(None) };
    // Under another class it is somebody else's by now, and what is left of the old one may go.
    let same_class = |g: &GatewayConfig| labels.value(key::GATEWAY_CLASS).is_none_or(|class| g.class == class);
    Ok(all.find(|g| g.meta.namespace == meta.namespace && g.meta.name == name && same_class(g)))
}

/// The Deployments of a Gateway.
pub fn deployments<'a>(cluster: &'a Snapshot, gateway: &'a Meta) -> impl Iterator<Item = &'a Workload> {
    let all = cluster.workloads_in(&gateway.namespace).filter(|(kind, _)| *kind == Kind::Deployment).map(|(_, w)| w);
    all.filter(|w| w.meta.labels.has(key::GATEWAY_MANAGED) && gateway_name(&w.meta.labels) == Some(&*gateway.name))
}
