//! Fields of JSON objects, read without a complaint: what is not there, or is something else, is empty.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::rollout::seen::{Map, Version};

/// See the module's documentation.
pub trait Json {
    /// A text; empty if there is none.
    fn text(&self, key: &str) -> &str;
    /// A text, or another where it is empty.
    fn text_or<'a>(&'a self, key: &str, other: &'a str) -> &'a str;
    /// A list; empty if there is none.
    fn list(&self, key: &str) -> &[Value];
    /// Texts by their keys.
    fn map(&self, key: &str) -> Map;
    /// A count; `None` if there is none.
    fn count(&self, key: &str) -> Option<u32>;
    fn yes(&self, key: &str) -> bool;

    fn name(&self) -> &str;
    fn namespace(&self) -> &str;
    fn label(&self, key: &str) -> Option<&str>;
    fn annotation(&self, key: &str) -> Option<&str>;
    fn labels(&self) -> Map;
    /// uid and resourceVersion.
    fn held(&self) -> Version;
    /// `metadata.deletionTimestamp` is set.
    fn is_deleting(&self) -> bool;
    /// The owner that is its controller: kind, name and uid.
    fn controller(&self) -> Option<(&str, &str, &str)>;
    /// A condition of its status: `True`, `False` or `Unknown`, and since when.
    fn condition(&self, of: &str) -> Option<(&str, Option<Timestamp>)>;
}

impl Json for Value {
    fn text(&self, key: &str) -> &str {
        self[key].as_str().unwrap_or("")
    }

    fn text_or<'a>(&'a self, key: &str, other: &'a str) -> &'a str {
        match self.text(key) {
            "" => other,
            text => text,
        }
    }

    fn list(&self, key: &str) -> &[Value] {
        self[key].as_array().map_or(&[], Vec::as_slice)
    }

    fn map(&self, key: &str) -> Map {
        let pairs = self[key].as_object().into_iter().flatten();
        pairs.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
    }

    fn count(&self, key: &str) -> Option<u32> {
        self[key].as_u64().map(|n| u32::try_from(n).unwrap_or(u32::MAX))
    }

    fn yes(&self, key: &str) -> bool {
        self[key] == Value::Bool(true)
    }

    fn name(&self) -> &str {
        self["metadata"].text("name")
    }

    fn namespace(&self) -> &str {
        self["metadata"].text("namespace")
    }

    fn label(&self, key: &str) -> Option<&str> {
        self["metadata"]["labels"][key].as_str()
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self["metadata"]["annotations"][key].as_str()
    }

    fn labels(&self) -> Map {
        self["metadata"].map("labels")
    }

    fn held(&self) -> Version {
        let meta = &self["metadata"];
        Version { uid: Arc::from(meta.text("uid")), version: Arc::from(meta.text("resourceVersion")) }
    }

    fn is_deleting(&self) -> bool {
        !self["metadata"].text("deletionTimestamp").is_empty()
    }

    fn controller(&self) -> Option<(&str, &str, &str)> {
        let owner = self["metadata"].list("ownerReferences").iter().find(|o| o.yes("controller"))?;
        Some((owner.text("kind"), owner.text("name"), owner.text("uid")))
    }

    fn condition(&self, of: &str) -> Option<(&str, Option<Timestamp>)> {
        let found = self["status"].list("conditions").iter().find(|c| c.text("type") == of)?;
        Some((found.text("status"), time(found.text("lastTransitionTime"))))
    }
}

/// A timestamp of RFC 3339.
pub fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}
