//! JSON patches: as small as the change, and the same again on a patched object: nothing.

use serde::Serialize;

use crate::model::text::pointed;

/// One operation of a JSON patch (RFC 6902).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Patch {
    Add { path: String, value: serde_json::Value },
    Remove { path: String },
    Replace { path: String, value: serde_json::Value },
}

impl Patch {
    /// Removes a key of a map that stands at `parent`, a JSON pointer.
    pub fn remove(parent: &str, key: &str) -> Self {
        Patch::Remove { path: format!("{parent}/{}", pointed(key)) }
    }

    /// Sets a key of a map that stands at `parent`, whether or not the key is there. `empty` tells that the map has no
    /// key yet and may be missing altogether.
    pub fn set(parent: &str, key: &str, value: &str, empty: bool) -> Self {
        if empty {
            return Patch::Add { path: parent.to_owned(), value: serde_json::json!({ key: value }) };
        }
        Patch::Add { path: format!("{parent}/{}", pointed(key)), value: serde_json::json!(value) }
    }
}
