//! Everything around one gateway as it is now, once: for `plan`, which asks before a rollout begins.
//!
//! `rollout::read` says what is to be asked and what the answers mean. A kind that the cluster does not have is an empty list; one that
//! this person may not read is said to be unread.

use kube::Client;
use serde_json::Value;

use super::once::ReadError;
use super::request::{Question as Request, Trouble, encode, version_path};
use super::telemetry::Timing;
use crate::rollout::read::{Question, Raw, Row, missing};
use crate::snapshot::Snapshot;

/// Answers lead to questions, and those to no third sort.
const MOST_ROUNDS: usize = 8;

/// What a rollout would be planned from, and what only guards look at.
///
/// # Errors
/// The first list that was not answered, whatever for but missing rights.
pub async fn read_gateway(client: &Client, rollout: Value, known: &Snapshot) -> Result<Raw, ReadError> {
    let mut raw = Raw::of(rollout);
    for _ in 0..MOST_ROUNDS {
        let questions = missing(&raw, known, true);
        if questions.is_empty() {
            break;
        }
        for question in questions {
            match ask(client, &question).await {
                Ok(items) => raw.answer(question, items),
                Err(Trouble::Forbidden(why)) => raw.refuse(question, why),
                Err(trouble) => return Err(ReadError { what: question.listed.row().plural.to_owned(), trouble }),
            }
        }
    }
    Ok(raw)
}

/// One rollout as the API server holds it; `None`: it is not there, nor may its definition be.
///
/// # Errors
/// Any answer but that.
pub async fn read_rollout(client: &Client, namespace: &str, name: &str) -> Result<Option<Value>, ReadError> {
    let row = crate::rollout::read::Listed::Rollouts.row();
    let base = version_path(row.group, row.versions[0]);
    let path = format!("{base}/namespaces/{}/{}/{}", encode(namespace), row.plural, encode(name));
    let answer = match Request::json(path).ask(client, Timing::default().answer).await {
        Ok(answer) => answer.read().await,
        Err(trouble) => Err(trouble),
    };
    match answer {
        Ok(object) => Ok(Some(object)),
        // Whoever may not look at it can still plan from the file.
        Err(Trouble::NotFound | Trouble::Forbidden(_)) => Ok(None),
        Err(trouble) => Err(ReadError { what: format!("GatewayRollout {namespace}/{name}"), trouble }),
    }
}

async fn ask(client: &Client, question: &Question) -> Result<Vec<Value>, Trouble> {
    let row = question.listed.row();
    for version in row.versions {
        match list(client, row, version, question).await {
            Err(Trouble::NotFound) => {}
            other => return other,
        }
    }
    Ok(Vec::new())
}

async fn list(client: &Client, row: &Row, version: &str, question: &Question) -> Result<Vec<Value>, Trouble> {
    let timing = Timing::default();
    let base = version_path(row.group, version);
    let collection = match question.namespace.as_str() {
        "" => format!("{base}/{}", row.plural),
        namespace => format!("{base}/namespaces/{}/{}", encode(namespace), row.plural),
    };
    let of = question.name.as_ref().map(|name| format!("&fieldSelector=metadata.name%3D{}", encode(name)));
    let path = format!("{collection}?limit={}{}", timing.page, of.unwrap_or_default());
    let (mut items, mut next) = (Vec::new(), String::new());
    loop {
        let page = if next.is_empty() { path.clone() } else { format!("{path}&continue={}", encode(&next)) };
        let mut answer: Value = Request::json(page).ask(client, timing.answer).await?.read().await?;
        let version = answer["apiVersion"].clone();
        for mut item in answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
            // Items of a list do not say what they are.
            item["apiVersion"] = version.clone();
            item["kind"] = Value::from(row.kind);
            items.push(item);
        }
        match answer["metadata"]["continue"].as_str().filter(|next| !next.is_empty()) {
            None => return Ok(items),
            Some(more) => next = more.to_owned(),
        }
    }
}
