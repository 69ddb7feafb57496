//! How a gateway gets its proxy, told by its pod template.

use super::seen::Template;
use crate::api::gateway_rollout::Flavor;
use crate::model::key;

/// The container of the proxy.
const PROXY: &str = "istio-proxy";

/// See the module's documentation.
pub fn of(template: &Template) -> Flavor {
    if template.labels.contains_key(key::GATEWAY_MANAGED) {
        return Flavor::GatewayAPI;
    }
    let containers = template.body["spec"]["containers"].as_array().map_or(&[][..], Vec::as_slice);
    let proxy = containers.iter().find(|c| c["name"] == PROXY);
    // The injector replaces this word by its image; nobody else knows it.
    if proxy.is_some_and(|c| c["image"] == "auto") { Flavor::Injected } else { Flavor::ConfigMapMount }
}
