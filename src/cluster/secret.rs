//! One Secret, followed by list and watch with `metadata.name` as field selector, so that a role may grant it by
//! `resourceNames` and nothing else of the namespace is ever read.
//!
//! The kubelet brings a changed Secret to a mounted file up to a minute later, and a rotation would have to wait for that.
//! What the Secret means is the listener's business; here it is only told as it is, and while the API server is away
//! nothing is told.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use kube::Client;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::{Question, Status, Trouble, encode};
use super::stream::Lines;
use super::telemetry::{Timing, essential, jitter};
use crate::telemetry::Heartbeat;

/// Which Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub namespace: String,
    pub name: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What the API server says of it.
#[derive(Debug)]
pub enum Told {
    /// The Secret as it is now.
    Data(BTreeMap<String, ByteString>),
    /// There is none.
    Missing,
    /// It cannot be read for now; what was told before may still hold.
    Trouble(Trouble),
}

#[derive(Deserialize)]
struct List {
    metadata: Meta,
    #[serde(default)]
    items: Vec<Secret>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Meta {
    #[serde(rename = "resourceVersion")]
    version: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Secret {
    metadata: Meta,
    data: Option<BTreeMap<String, ByteString>>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    what: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// Tells `listen` of the Secret, first as it is and then as it changes, until the task is dropped.
pub async fn follow(client: Client, place: Place, timing: Timing, heartbeat: Heartbeat, mut listen: impl FnMut(Told)) {
    let mut failures = 0;
    loop {
        let trouble = match once(&client, &place, &timing, &heartbeat, &mut listen, &mut failures).await {
            // The API server ends every watch after some time.
            Ok(()) => continue,
            Err(trouble) => trouble,
        };
        heartbeat.beat();
        let wait = essential(&timing, failures, &trouble);
        failures += 1;
        listen(Told::Trouble(trouble));
        tokio::time::sleep(wait).await;
    }
}

/// A list and the watch behind it.
async fn once(
    client: &Client,
    place: &Place,
    timing: &Timing,
    heartbeat: &Heartbeat,
    listen: &mut impl FnMut(Told),
    failures: &mut u32,
) -> Result<(), Trouble> {
    let path = format!(
        "/api/v1/namespaces/{}/secrets?fieldSelector=metadata.name%3D{}",
        encode(&place.namespace),
        encode(&place.name)
    );
    // Without a resourceVersion the list is what etcd holds now: a replica that starts during a rotation must not begin
    // with the pair before.
    let list: List = Question::json(path.clone()).ask(client, timing.answer).await?.read().await?;
    heartbeat.beat();
    let version = list.metadata.version;
    listen(list.items.into_iter().next().map_or(Told::Missing, |secret| Told::Data(secret.data.unwrap_or_default())));

    let seconds = (jitter(timing.watch / 2) + timing.watch.mul_f64(0.75)).as_secs().max(1);
    let watch = format!(
        "{path}&watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={}",
        encode(&version)
    );
    let mut answer =
        Question { path: watch, accept: "application/json", plain: true }.ask(client, timing.answer).await?;
    answer.patience = timing.idle;
    let begun = tokio::time::Instant::now();
    let mut lines = Lines::default();
    let mut told = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        heartbeat.beat();
        lines.feed(&chunk, |line| told.push(read(line)))?;
        for line in told.drain(..) {
            if let Some(told) = line? {
                listen(told);
            }
        }
    }
    // A watch that ends at once would otherwise be asked for without a pause.
    if begun.elapsed() < timing.essential[0] {
        return Err(Trouble::Closed);
    }
    *failures = 0;
    Ok(())
}

/// What one line of the watch tells.
fn read(bytes: &[u8]) -> Result<Option<Told>, Trouble> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let unreadable = |e: serde_json::Error| Trouble::from(super::stream::Malformed::List(e.to_string()));
    let line: Line<'_> = serde_json::from_slice(bytes).map_err(unreadable)?;
    if line.what == "ERROR" {
        let status: Status = serde_json::from_str(line.object.get()).unwrap_or_default();
        return Err(status.trouble(None));
    }
    let secret: Secret = serde_json::from_str(line.object.get()).map_err(unreadable)?;
    Ok(match &*line.what {
        "ADDED" | "MODIFIED" => Some(Told::Data(secret.data.unwrap_or_default())),
        "DELETED" => Some(Told::Missing),
        _ => None,
    })
}
