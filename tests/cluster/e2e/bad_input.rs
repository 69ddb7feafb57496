//! What no API server would send, sent to the real program; and more connections than it has places.
//!
//! Whoever asks again afterwards is answered as before: every bad body is followed by a good one on a
//! connection of its own.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use crate::harness::binary::{Binary, Secret, connect};
use crate::harness::wait::wait_until;
use crate::trial::{prove, trial};

pub fn tests() -> Vec<Trial> {
    vec![trial!(Nothing, every_bad_body_is_answered_as_it_should_be), trial!(Nothing, more_connections_than_places)]
}

const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

fn mesh() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/demo/mesh.yaml")
}

/// The review of a namespace's creation.
fn review(object: &str) -> String {
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"{UID}","kind":{{"group":"","version":"v1","kind":"Namespace"}},"resource":{{"group":"","version":"v1","resource":"namespaces"}},"name":"shop","operation":"CREATE","userInfo":{{"username":"jane","groups":["dev"]}},"object":{object},"oldObject":null,"dryRun":false,"options":null}}}}"#
    )
}

fn namespace(labels: &str) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"shop","labels":{labels}}}}}"#)
}

/// Status and body of one POST on a connection of its own.
async fn post(binary: &Binary, secret: &Secret, body: &[u8]) -> Result<(u16, String)> {
    let mut stream = connect(binary.address, secret).await?;
    ask(&mut stream, body, "close").await?;
    let mut answer = Vec::new();
    // Without a close_notify the end is an error, and an end all the same.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("an answer: {answer:?}"))?;
    Ok((head.split(' ').nth(1).context("a status")?.parse()?, body.to_owned()))
}

async fn ask<S: AsyncWriteExt + Unpin>(stream: &mut S, body: &[u8], connection: &str) -> Result<()> {
    let mut head =
        "POST /validate?timeout=10s HTTP/1.1\r\nHost: revguard\r\nContent-Type: application/json\r\n".to_owned();
    write!(head, "Connection: {connection}\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    Ok(())
}

/// What must come back.
enum Want {
    /// No review: the call fails, and `failurePolicy` decides.
    NotAReview,
    /// A review of this uid whose object cannot be read: denied with 422, naming this.
    Unreadable(&'static str),
    Allowed,
    Denied(&'static str),
}

async fn every_bad_body_is_answered_as_it_should_be() -> Result<()> {
    use Want::{Allowed, Denied, NotAReview, Unreadable};
    let folder = tempfile::tempdir()?;
    let secret = Secret::new(folder.path())?;
    let mut binary = Binary::standalone(folder.path(), &mesh(), &secret, &[]).await?;
    binary.ready().await?;

    let good = review(&namespace(r#"{"team":"a"}"#));
    let deep = |open: &str, close: &str| open.repeat(1000) + "1" + &close.repeat(1000);
    let mut not_utf8 = review(&namespace(r#"{"team":"?"}"#)).into_bytes();
    let at = not_utf8.iter().position(|byte| *byte == b'?').context("the mark")?;
    not_utf8[at] = 0xFF;
    let bodies: Vec<(&str, Vec<u8>, Want)> = vec![
        ("a good one", good.clone().into(), Allowed),
        (
            "both labels",
            review(&namespace(r#"{"istio-injection":"enabled","istio.io/rev":"1-24"}"#)).into(),
            Denied("NS001"),
        ),
        ("nothing", Vec::new(), NotAReview),
        ("malformed", b"{\"kind\":".to_vec(), NotAReview),
        ("no object at all", b"[]".to_vec(), NotAReview),
        ("a quarter", good.as_bytes()[..good.len() / 4].to_vec(), NotAReview),
        ("all but the last byte", good.as_bytes()[..good.len() - 1].to_vec(), NotAReview),
        ("something after its end", format!("{good}x").into(), NotAReview),
        ("v1beta1", good.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1").into(), NotAReview),
        ("no apiVersion", good.replace(r#""apiVersion":"admission.k8s.io/v1","#, "").into(), NotAReview),
        ("another kind", good.replace("AdmissionReview", "TokenReview").into(), NotAReview),
        ("no uid", good.replace(&format!(r#""uid":"{UID}","#), "").into(), NotAReview),
        ("an empty uid", good.replace(UID, "").into(), NotAReview),
        ("a uid that is a number", good.replace(&format!("\"{UID}\""), "7").into(), NotAReview),
        ("no request", br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#.to_vec(), NotAReview),
        (
            "request null",
            br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":null}"#.to_vec(),
            NotAReview,
        ),
        (
            "two uids",
            good.replacen(r#""kind":{"#, &format!(r#""uid":"{UID}","kind":{{"#), 1).into(),
            Unreadable("duplicate field `uid`"),
        ),
        ("object null", review("null").into(), Unreadable("is null")),
        ("an object that is text", review("\"shop\"").into(), Unreadable("Namespace")),
        ("a label that is a number", review(&namespace(r#"{"team":7}"#)).into(), Unreadable("metadata.labels")),
        ("labels that are a list", review(&namespace("[]")).into(), Unreadable("metadata.labels")),
        ("a label given twice", review(&namespace(r#"{"team":"a","team":"b"}"#)).into(), Unreadable("given twice")),
        (
            "metadata given twice",
            review(r#"{"metadata":{"name":"a"},"metadata":{"name":"b"}}"#).into(),
            Unreadable("metadata"),
        ),
        ("lists 1,000 deep where labels are", review(&namespace(&deep("[", "]"))).into(), Unreadable("Namespace")),
        (
            "objects 1,000 deep where no rule looks",
            review(&format!(r#"{{"metadata":{{"name":"shop"}},"spec":{}}}"#, deep(r#"{"a":"#, "}"))).into(),
            Allowed,
        ),
        ("a byte that is no UTF-8", not_utf8, NotAReview),
    ];
    let mut wrong = Vec::new();
    for (what, body, want) in &bodies {
        let (status, text) = post(&binary, &secret, body).await.with_context(|| (*what).to_owned())?;
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let response = &answer["response"];
        let (uid, code) = (response["uid"] == UID, &response["status"]["code"]);
        let message = response["status"]["message"].as_str().unwrap_or_default();
        let right = match want {
            NotAReview => status == 400 && answer.is_null() && !text.is_empty(),
            Unreadable(word) => {
                status == 200 && uid && response["allowed"] == false && code == &json!(422) && message.contains(word)
            }
            Allowed => status == 200 && uid && response["allowed"] == true,
            Denied(rule) => status == 200 && uid && code == &json!(403) && message.starts_with(&format!("[{rule} ")),
        };
        if !right {
            wrong.push(format!("{what}: {status} {text}"));
        }
        let (status, text) = post(&binary, &secret, good.as_bytes()).await.with_context(|| format!("after {what}"))?;
        ensure!(status == 200 && text.contains("\"allowed\":true"), "after {what}: {status} {text}");
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), bodies.len(), wrong.join("\n"));
    ensure!(binary.metric("revguard_admission_panics_total", &[]).await? == 0.0, "a panic");
    println!("bad input: {} bodies answered as they should be", bodies.len());
    binary.process.check()
}

/// Resident memory of the process in MiB.
fn resident(binary: &Binary) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", binary.process.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().next().context("a number")?.parse::<u64>()? / 1024)
}

/// Each idle, each having been answered once: that is what holds memory. The longest idle make room.
async fn more_connections_than_places() -> Result<()> {
    let (wanted, places) = if prove() { (10_000, 1_024) } else { (600, 128) };
    // Sockets of ours, those of other tests beside it, and some to spare.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    ensure!(limit.is_none_or(|limit| limit > wanted + 1_000), "needs `ulimit -n` above {}", wanted + 1_000);
    let folder = tempfile::tempdir()?;
    let secret = Secret::new(folder.path())?;
    let most = places.to_string();
    let mut binary = Binary::standalone(folder.path(), &mesh(), &secret, &["--max-connections", &most]).await?;
    binary.ready().await?;
    let good = review(&namespace(r#"{"team":"a"}"#));
    let before = (Instant::now(), resident(&binary)?);
    let open = |_| async {
        let mut stream = connect(binary.address, &secret).await?;
        ask(&mut stream, good.as_bytes(), "keep-alive").await?;
        let mut first = [0; 15];
        stream.read_exact(&mut first).await?;
        ensure!(&first == b"HTTP/1.1 200 OK", "{:?}", String::from_utf8_lossy(&first));
        Ok(stream)
    };
    let held: Vec<TlsStream<_>> = stream::iter(0..wanted).map(open).buffer_unordered(16).try_collect().await?;
    let took = before.0.elapsed();
    assert_eq!(held.len() as u64, wanted);
    let connections = || binary.metric("revguard_connections_open", &[("port", "admission")]);
    wait_until(Duration::from_secs(20), "no more connections than places", || async {
        match connections().await {
            Ok(open) if open <= f64::from(places) && open > 0.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    // There is still room for who has something to say.
    let (status, text) = post(&binary, &secret, good.as_bytes()).await?;
    ensure!(status == 200 && text.contains("\"allowed\":true"), "{status} {text}");
    let grown = resident(&binary)?.saturating_sub(before.1);
    println!("idle connections: {wanted} in {took:?} on {places} places, memory grew by {grown} MiB");
    // 35 kB each after a review, were nothing ever given back; twice that.
    ensure!(grown < 10 + u64::from(places as u32) * 70 / 1024, "memory grew by {grown} MiB");
    drop(held);
    binary.process.check()
}
