//! Rules about gateways: who renders them, which control plane they attach to, what still serves.

use super::Rule;
use super::names::if_known;

mod owner;
pub(super) mod traffic;

mod gw001_owner_changed;
mod gw002_rendered_twice;
mod gw003_mixed_operator;
mod gw004_underspecified_operator;
mod gw006_gateway_ahead;
mod gw007_no_mesh_config;
mod gw008_no_root_certificate;
mod gw009_gateway_to_zero;
mod gw010_gateway_in_use;
mod gw011_gateway_service_cut;
mod gw012_same_selector;
mod gw014_abrupt_stop;
mod gw015_gateway_revision;
mod gw016_managed_by_istiod;
mod gw017_selects_nothing;
mod gw018_second_autoscaler;
mod gw019_config_left_behind;
mod gw020_gateway_pruned;

#[cfg(test)]
mod unknown;
#[cfg(test)]
mod worlds;

pub static ALL: &[&Rule] = &[
    &gw001_owner_changed::RULE,
    &gw002_rendered_twice::RULE,
    &gw003_mixed_operator::RULE,
    &gw004_underspecified_operator::RULE,
    &gw006_gateway_ahead::RULE,
    &gw007_no_mesh_config::RULE,
    &gw008_no_root_certificate::RULE,
    &gw009_gateway_to_zero::RULE,
    &gw010_gateway_in_use::RULE,
    &gw011_gateway_service_cut::RULE,
    &gw012_same_selector::RULE,
    &gw014_abrupt_stop::RULE,
    &gw015_gateway_revision::RULE,
    &gw016_managed_by_istiod::RULE,
    &gw017_selects_nothing::RULE,
    &gw018_second_autoscaler::RULE,
    &gw019_config_left_behind::RULE,
    &gw020_gateway_pruned::RULE,
];
