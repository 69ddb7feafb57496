//! Rules about pod templates.

use super::Rule;

pub static ALL: &[&Rule] = &[];
