//! The one reader: admission bytes, watch streams and manifests become model objects here.
//!
//! Types are lean: what no rule reads is skipped without being stored. Reading is total: bytes
//! give an object or an error that names the field, never a panic and never a half-read object.
//! Nothing here decides anything.

pub mod config;
pub mod control_plane;
pub mod core;
pub mod kinds;
pub mod manifest;
pub mod meta;
pub mod rollout;
pub mod tree;
pub mod webhook;
pub mod workload;

use serde::Deserializer;
use serde::de::DeserializeSeed;

use crate::model::{Kind, Object};

pub use kinds::{KINDS, KindRow, Reader, Scope, find_kind, row};

/// Reads one object of a known kind from any serde source.
#[derive(Clone, Copy)]
pub struct OfKind(pub Kind);

impl<'de> DeserializeSeed<'de> for OfKind {
    type Value = Object;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Object, D::Error> {
        row(self.0).reader.read(self.0, d)
    }
}

/// Reads one object of a known kind from JSON; the error names the field, line and column.
///
/// # Errors
/// A field of the wrong type, a key given twice, or bytes that are not JSON.
pub fn read_json(kind: Kind, json: &[u8]) -> Result<Object, String> {
    // Checked once as a whole, which takes a tenth of what checking string by string does.
    read_str(kind, std::str::from_utf8(json).map_err(|e| format!("invalid UTF-8 at byte {}", e.valid_up_to()))?)
}

/// The same of text.
///
/// # Errors
/// See [`read_json`].
pub fn read_str(kind: Kind, json: &str) -> Result<Object, String> {
    let mut d = serde_json::Deserializer::from_str(json);
    let read = OfKind(kind).deserialize(&mut d).and_then(|o| d.end().map(|()| o));
    read.map_err(|plain| named(kind, json).unwrap_or_else(|| plain.to_string()))
}

/// Reads again, only to name the field in the message.
fn named(kind: Kind, json: &str) -> Option<String> {
    let mut d = serde_json::Deserializer::from_str(json);
    let mut track = serde_path_to_error::Track::new();
    let error = OfKind(kind).deserialize(serde_path_to_error::Deserializer::new(&mut d, &mut track)).err()?;
    let path = track.path().to_string();
    Some(if path == "." { error.to_string() } else { format!("{path}: {error}") })
}
