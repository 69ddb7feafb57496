//! Rules about versions and the order of an upgrade.

use super::Rule;

mod moves;
mod one_active;
mod up001_bad_revision_name;
mod up002_version_skip;
mod up003_proxy_newer;
mod up005_gateway_order;
mod up006_base_first;
mod up008_canary_required;
mod up009_one_default_revision;
mod up010_one_active_gateway;
mod up012_in_place;

pub static ALL: &[&Rule] = &[
    &up001_bad_revision_name::RULE,
    &up002_version_skip::RULE,
    &up003_proxy_newer::RULE,
    &up005_gateway_order::RULE,
    &up006_base_first::RULE,
    &up008_canary_required::RULE,
    &up009_one_default_revision::RULE,
    &up010_one_active_gateway::RULE,
    &up012_in_place::RULE,
];
