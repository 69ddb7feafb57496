//! Rules about versions and the order of an upgrade.

use super::Rule;

pub static ALL: &[&Rule] = &[];
