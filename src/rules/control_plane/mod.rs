//! Rules about control planes, tags, Istio configuration, and about exemptions themselves.

use super::Rule;

mod alw001_exemption_by_stranger;
mod alw002_exemption_without_effect;
mod cfg001_ignored_config;
mod cfg002_unowned_gateway;
mod cp001_service_in_use;
mod cp002_istiod_in_use;
mod cp003_installation_in_use;
mod cp004_config_map_in_use;
mod cp005_definition_in_use;
mod cp006_access_in_use;
mod cp007_node_agent_in_use;
pub(super) mod in_use;
mod tag001_broken_tag;
mod tag002_long_tag;
mod tag003_gateways_at_once;

pub static ALL: &[&Rule] = &[
    &alw001_exemption_by_stranger::RULE,
    &alw002_exemption_without_effect::RULE,
    &cfg001_ignored_config::RULE,
    &cfg002_unowned_gateway::RULE,
    &cp001_service_in_use::RULE,
    &cp002_istiod_in_use::RULE,
    &cp003_installation_in_use::RULE,
    &cp004_config_map_in_use::RULE,
    &cp005_definition_in_use::RULE,
    &cp006_access_in_use::RULE,
    &cp007_node_agent_in_use::RULE,
    &tag001_broken_tag::RULE,
    &tag002_long_tag::RULE,
    &tag003_gateways_at_once::RULE,
];
