//! Rules about control planes, tags, Istio configuration, and about exemptions themselves.

use super::Rule;

mod alw001_exemption_by_stranger;

pub static ALL: &[&Rule] = &[&alw001_exemption_by_stranger::RULE];
