//! The story's steps, as written in `story.yaml`.

use serde::Deserialize;
use serde_json::Value;

use crate::wire::manifest::from_yaml;

/// One write, or something that the cluster does by itself.
pub struct Step {
    pub title: String,
    /// What a person would type.
    pub types: String,
    pub write: Write,
    /// Codes of the rules that deny it.
    pub expect: Vec<String>,
}

pub enum Write {
    Create(Value),
    /// Changes, merged into the stored object.
    Update(Value),
    Delete(Value),
    Scale(Value, u64),
    /// Changes that nobody asks us about.
    Event(Vec<Value>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    title: String,
    #[serde(default)]
    types: String,
    create: Option<Value>,
    update: Option<Value>,
    delete: Option<Value>,
    scale: Option<Value>,
    #[serde(default)]
    replicas: u64,
    event: Option<Vec<Value>>,
    #[serde(default)]
    expect: Vec<String>,
}

/// Every step, in order.
///
/// # Errors
/// A step that says nothing or two things.
pub fn steps() -> Result<Vec<Step>, String> {
    let written: Vec<Written> = from_yaml(include_str!("story.yaml"))?;
    written
        .into_iter()
        .map(|w| {
            let write = match (w.create, w.update, w.delete, w.scale, w.event) {
                (Some(o), None, None, None, None) => Write::Create(o),
                (None, Some(o), None, None, None) => Write::Update(o),
                (None, None, Some(o), None, None) => Write::Delete(o),
                (None, None, None, Some(o), None) => Write::Scale(o, w.replicas),
                (None, None, None, None, Some(all)) => Write::Event(all),
                _ => return Err(format!("step {:?} is not one write", w.title)),
            };
            Ok(Step { title: w.title, types: w.types, write, expect: w.expect })
        })
        .collect()
}
