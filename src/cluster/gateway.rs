//! Everything around one gateway as it is now: whole lists from the API server, none from a cache of ours. The controller plans each step
//! from it, and `plan` asks before a rollout begins.
//!
//! `rollout::read` says what is to be asked and what the answers mean; here they are fetched, page by page and several at a time. A kind
//! that the cluster does not have is an empty list, one that may not be read is said to be unread, and any other trouble ends the look: a
//! plan is never made from half of what there is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use kube::Client;
use serde_json::Value;

use super::once::ReadError;
use super::request::{Question as Request, Trouble, encode, version_path};
use crate::rollout::read::{Listed, Question, Raw, Row, missing};
use crate::snapshot::Snapshot;

/// Lists on their way at a time.
const AT_ONCE: usize = 6;
/// Objects a page. A page is held whole, and whole objects are large: with what managers of fields say of them, Deployments of
/// 50 kB are usual.
const PAGE: u32 = 100;
const _: () = assert!(super::stream::MOST_BYTES / PAGE as usize > 150 << 10, "three times that fits into an answer");
/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Answers lead to questions, and those to no third sort.
const MOST_ROUNDS: usize = 8;

/// Reads, and remembers which version of a kind the cluster serves.
pub struct GatewayReader {
    client: Client,
    served: Mutex<BTreeMap<Listed, &'static str>>,
}

impl GatewayReader {
    pub fn new(client: Client) -> GatewayReader {
        GatewayReader { client, served: Mutex::default() }
    }

    /// Puts everything into `raw` that a rollout is planned from, and with `guards` what only guards look at.
    ///
    /// # Errors
    /// The first list that was not answered, whatever for but missing rights.
    pub async fn fill(&self, mut raw: Raw, known: &Snapshot, guards: bool) -> Result<Raw, ReadError> {
        for _ in 0..MOST_ROUNDS {
            let questions = missing(&raw, known, guards);
            if questions.is_empty() {
                return Ok(raw);
            }
            let mut asked = Vec::new();
            for question in questions {
                asked.push(async move {
                    let answer = self.ask(&question).await;
                    (question, answer)
                });
            }
            let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
            for (question, answer) in answers {
                match answer {
                    Ok(items) => raw.answer(question, items),
                    Err(Trouble::Forbidden(why)) => raw.refuse(question, why),
                    Err(trouble) => return Err(ReadError { what: name(&question), trouble }),
                }
            }
        }
        let what = format!("what {} depends on", raw.rollout["metadata"]["name"]);
        Err(ReadError { what, trouble: Trouble::Invalid(format!("more than {MOST_ROUNDS} rounds of questions")) })
    }

    /// The answer to one question. What names no version that the cluster serves is empty.
    async fn ask(&self, question: &Question) -> Result<Vec<Value>, Trouble> {
        let row = question.listed.row();
        let known = self.served().get(&question.listed).copied();
        if let Some(version) = known {
            match self.list(row, version, question).await {
                // The definition is gone, or serves another version now.
                Err(Trouble::NotFound) => {
                    self.served().remove(&question.listed);
                }
                other => return other,
            }
        }
        for version in row.versions {
            match self.list(row, version, question).await {
                Err(Trouble::NotFound) => {}
                other => {
                    if other.is_ok() {
                        self.served().insert(question.listed, version);
                    }
                    return other;
                }
            }
        }
        Ok(Vec::new())
    }

    async fn list(&self, row: &Row, version: &str, question: &Question) -> Result<Vec<Value>, Trouble> {
        let base = version_path(row.group, version);
        let path = match question.namespace.as_str() {
            "" => format!("{base}/{}", row.plural),
            namespace => format!("{base}/namespaces/{}/{}", encode(namespace), row.plural),
        };
        // One object by its name is a list of one: whoever may list needs no other right.
        let of = question.name.as_ref().map(|name| format!("&fieldSelector=metadata.name%3D{}", encode(name)));
        list(&self.client, &format!("{path}?limit={PAGE}{}", of.unwrap_or_default()), row.kind).await
    }

    fn served(&self) -> MutexGuard<'_, BTreeMap<Listed, &'static str>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One rollout as the API server holds it; `None`: it is not there, nor may its definition be.
///
/// # Errors
/// Any answer but that.
pub async fn read_rollout(client: &Client, namespace: &str, name: &str) -> Result<Option<Value>, ReadError> {
    let row = Listed::Rollouts.row();
    let base = version_path(row.group, row.versions[0]);
    match get(client, format!("{base}/namespaces/{}/{}/{}", encode(namespace), row.plural, encode(name))).await {
        Ok(object) => Ok(Some(object)),
        // Whoever may not look at it can still plan from the file.
        Err(Trouble::NotFound | Trouble::Forbidden(_)) => Ok(None),
        Err(trouble) => Err(ReadError { what: format!("GatewayRollout {namespace}/{name}"), trouble }),
    }
}

/// Every item of a list, page by page. Items of a list do not say what they are; ours do.
///
/// # Errors
/// Whatever the API server says instead.
pub async fn list(client: &Client, path: &str, kind: &str) -> Result<Vec<Value>, Trouble> {
    'whole: loop {
        let (mut items, mut next) = (Vec::new(), String::new());
        loop {
            let page = if next.is_empty() { path.to_owned() } else { format!("{path}&continue={}", encode(&next)) };
            let mut answer = match get(client, page).await {
                // The page after this one is of a version that is too old by now.
                Err(Trouble::Gone) if !next.is_empty() => continue 'whole,
                other => other?,
            };
            let version = answer["apiVersion"].clone();
            for mut item in answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
                item["apiVersion"] = version.clone();
                item["kind"] = Value::from(kind);
                items.push(item);
            }
            match answer["metadata"]["continue"].as_str().filter(|next| !next.is_empty()) {
                None => return Ok(items),
                Some(more) => next = more.to_owned(),
            }
        }
    }
}

/// One limit over the whole exchange: an answer that trickles in is as late as one that does not come.
async fn get(client: &Client, path: String) -> Result<Value, Trouble> {
    let exchange = async { Request::json(path).ask(client, PATIENCE).await?.read().await };
    tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| Trouble::Silent(PATIENCE))?
}

fn name(question: &Question) -> String {
    let row = question.listed.row();
    match question.namespace.as_str() {
        "" => row.plural.to_owned(),
        namespace => format!("{} in {namespace}", row.plural),
    }
}
