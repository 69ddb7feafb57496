//! Rules about webhook configurations. The API server sends writes of those to no webhook, so these rules judge what
//! exists.

use super::Rule;

pub const ALL: &[&Rule] = &[];
