//! Rules about the labels of a Namespace.

use super::Rule;

mod ns001_both_labels;

pub static ALL: &[&Rule] = &[&ns001_both_labels::RULE];
