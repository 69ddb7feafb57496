//! The API server's audit log: who asked for what, and which annotations webhooks left.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Everything that people and tests do, after it is answered. The API server's own upkeep and health
/// questions are left out: they are most of the volume, and no test looks at them.
pub const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:apiserver]
- level: None
  nonResourceURLs: ['*']
- level: None
  resources: [{group: coordination.k8s.io, resources: [leases]}]
  namespaces: [kube-system]
- level: Metadata
";

/// One answered request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub verb: String,
    /// Path and query.
    #[serde(default, rename = "requestURI")]
    pub request_uri: String,
    pub user: User,
    #[serde(default)]
    pub impersonated_user: Option<User>,
    #[serde(default)]
    pub object_ref: ObjectRef,
    #[serde(default)]
    pub response_status: Status,
    /// Keys of webhooks are `WEBHOOK NAME/KEY`.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Entry {
    /// The user that admission saw.
    pub fn user(&self) -> &User {
        self.impersonated_user.as_ref().unwrap_or(&self.user)
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct User {
    pub username: String,
    #[serde(default)]
    pub groups: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectRef {
    pub api_group: String,
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub subresource: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub code: u16,
}

/// Reads the log. Its last line may be half written; whoever misses an entry asks again.
pub fn read(log: &Path) -> Result<Vec<Entry>> {
    let text = std::fs::read_to_string(log).with_context(|| format!("the audit log {}", log.display()))?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(|line| serde_json::from_str(line).with_context(|| format!("an audit entry: {line}"))).collect()
}
