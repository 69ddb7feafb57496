//! Rules about versions and the order of an upgrade.

use super::Rule;

mod moves;
mod up001_bad_revision_name;
mod up002_version_skip;
mod up003_proxy_newer;

pub static ALL: &[&Rule] = &[&up001_bad_revision_name::RULE, &up002_version_skip::RULE, &up003_proxy_newer::RULE];
