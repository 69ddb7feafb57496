//! Rules about gateways: who renders them, which control plane they attach to, what still serves.

use super::Rule;

pub static ALL: &[&Rule] = &[];
