//! The week's tally: collected from every replica of the webhook, kept in a ConfigMap, read by `revguard report`.
//!
//! What a replica gives is cumulative, so that a collection that is missed loses nothing; what of it was counted before is
//! kept beside the totals, by process. A pod that ends between two collections takes a minute's counts with it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ask::{Ask, AskError, address, get};
use super::audit::Exemptions;
use super::names::Names;
use super::resource::{At, CONFIG_MAPS};
use super::send::{Method, send_with};
use super::write::{Change, Held, LONGEST, Write, WriteError, Writer};
use crate::telemetry::Heartbeat;
use crate::telemetry::metrics::Loop;
use crate::telemetry::tally::{self, Count, Line, Page};

/// Key of the ConfigMap.
pub const KEY: &str = "week.json";
/// Exemptions that are listed; more are counted.
const MOST_EXEMPTIONS: usize = 200;
/// Processes that are remembered: three replicas that are replaced a dozen times a day.
const MOST_PROCESSES: usize = 60;
/// A page of 800 lines is about 100 kB.
const MOST_BYTES: usize = 1 << 20;
/// How long a pod may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The name of the container port; see the chart.
const PORT: &str = "metrics";

/// What the ConfigMap holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Week {
    /// When it was last collected.
    pub at: String,
    pub counts: Vec<Count>,
    pub exemptions: Vec<Exempted>,
    /// Exemptions beyond those listed.
    pub more_exemptions: usize,
    /// What was counted of each process, and on which day it was last heard of.
    seen: BTreeMap<String, Seen>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    at: String,
    /// Counts by `day code end writer`: lines again would double the size.
    counts: BTreeMap<String, u64>,
}

/// An annotation `revguard.dev/allow` that stands on an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exempted {
    pub object: String,
    pub code: String,
    pub reason: String,
    /// Last day, in UTC.
    pub until: Option<String>,
    /// Why it does nothing, if it does nothing.
    pub void: Option<String>,
}

fn short(line: &Line) -> String {
    format!("{} {} {:?} {}", line.day, line.code, line.end, line.writer)
}

impl Week {
    /// Takes in what a process has counted so far.
    pub fn take(&mut self, page: &Page, now: &str) {
        let mut lines: BTreeMap<Line, u64> = self.counts.iter().map(|c| (c.line.clone(), c.count)).collect();
        let before = self.seen.remove(&page.process).unwrap_or_default();
        let mut counts = BTreeMap::new();
        for count in &page.counts {
            let key = short(&count.line);
            let more = count.count.saturating_sub(before.counts.get(&key).copied().unwrap_or(0));
            if more > 0 {
                tally::add(&mut lines, count.line.clone(), more);
            }
            counts.insert(key, count.count);
        }
        self.seen.insert(page.process.clone(), Seen { at: now.to_owned(), counts });
        while self.seen.len() > MOST_PROCESSES {
            let oldest = self.seen.iter().min_by(|a, b| a.1.at.cmp(&b.1.at)).map(|(process, _)| process.clone());
            oldest.map(|process| self.seen.remove(&process));
        }
        self.counts = tally::counts(&lines);
    }

    /// Of the ConfigMap's data. What cannot be read begins anew.
    pub fn read(object: &Value) -> Week {
        object["data"][KEY].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

/// Collects for as long as the process lives.
pub async fn run(writer: Writer, names: Names, exemptions: Exemptions, every: Duration, heartbeat: Heartbeat) {
    loop {
        heartbeat.beat();
        tokio::time::sleep(every).await;
        if writer.leadership().remaining().is_none() {
            continue;
        }
        match collect(&writer, &names, &exemptions).await {
            Err(error) if !error.is_benign() => tracing::warn!(%error, "the week's tally is not brought up to date"),
            _ => {}
        }
    }
}

async fn collect(writer: &Writer, names: &Names, exemptions: &Exemptions) -> Result<(), WriteError> {
    let failed = || writer.metrics().reconcile_error(Loop::Tally);
    let at = At::of(&CONFIG_MAPS, &names.namespace, &names.report());
    let found = writer.read(&at).await.inspect_err(|_| failed())?;
    let object = found.ok_or_else(|| WriteError::Missing { at: format!("{at} (`helm upgrade` makes it)") })?;
    let before = Week::read(&object);
    let mut week = before.clone();
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%MZ").to_string();
    for page in pages(writer, names).await.inspect_err(|_| failed())? {
        week.take(&page, &now);
    }
    let listed = exemptions.lock().unwrap_or_else(|p| p.into_inner()).clone();
    week.more_exemptions = listed.len().saturating_sub(MOST_EXEMPTIONS);
    week.exemptions = listed
        .into_iter()
        .take(MOST_EXEMPTIONS)
        .map(|e| Exempted {
            object: At::id(&e.object).to_string(),
            code: e.code,
            reason: e.reason.chars().take(200).collect(),
            until: e.until.map(|d| d.to_string()),
            void: e.void,
        })
        .collect();
    // Written when something was counted, not because time has passed.
    let same = |a: &Week, b: &Week| a.counts == b.counts && a.exemptions == b.exemptions;
    if same(&before, &week) && before.seen.keys().eq(week.seen.keys()) {
        return Ok(());
    }
    week.at = now;
    let text = serde_json::to_string(&week).expect("strings and numbers");
    let mut data = object["data"].as_object().cloned().unwrap_or_default();
    data.insert(KEY.to_owned(), json!(text));
    let operations = vec![json!({"op": "add", "path": "/data", "value": data})];
    let change = Change::Patch { operations, held: Held::of(&object) };
    writer.write(&Write { boundary: "week", by: Loop::Tally, at, change }).await.map(drop)
}

/// What every replica of the webhook has counted. One that does not answer is asked again next time.
async fn pages(writer: &Writer, names: &Names) -> Result<Vec<Page>, WriteError> {
    let path = names.webhook_pods();
    let pods = send_with(writer.client(), Method::Get, &path, None, LONGEST)
        .await
        .map_err(|trouble| WriteError::Trouble { verb: "list", at: format!("pods of {}", names.namespace), trouble })?;
    let addresses = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| address(pod, PORT))
        .filter_map(|(ip, port)| Some((ip, port?)));
    let asked = futures::future::join_all(addresses.map(|(ip, port)| async move {
        page(ip, port).await.inspect_err(|error| tracing::debug!(%ip, %error, "a replica gave no tally")).ok()
    }));
    Ok(asked.await.into_iter().flatten().collect())
}

async fn page(ip: IpAddr, port: u16) -> Result<Page, AskError> {
    let host = ip.to_string();
    let ask =
        Ask { to: (ip, port).into(), host: &host, path: "/tally", tls: false, most_bytes: MOST_BYTES, token: None };
    let said = get(&ask, PATIENCE).await?;
    if said.status != 200 {
        return Err(AskError::Unusable(format!("HTTP {}", said.status)));
    }
    serde_json::from_slice(&said.body).map_err(|e| AskError::Unusable(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tally::{End, Tally};

    #[test]
    fn what_was_counted_is_not_counted_again_and_a_new_process_adds() {
        let day = jiff::civil::date(2026, 1, 1);
        let (first, second) = (Tally::default(), Tally::default());
        let mut week = Week::default();
        first.count(day, "NS001", "jane", End::Denied);
        week.take(&first.page(), "1");
        week.take(&first.page(), "2");
        assert_eq!(week.counts[0].count, 1);
        first.count(day, "NS001", "jane", End::Denied);
        second.count(day, "NS001", "jane", End::Denied);
        week.take(&first.page(), "3");
        week.take(&second.page(), "3");
        assert_eq!((week.counts.len(), week.counts[0].count), (1, 3));
        let text = serde_json::to_string(&week).unwrap();
        assert_eq!(Week::read(&json!({"data": {KEY: text}})), week);
        assert_eq!(Week::read(&json!({})), Week::default());
        for i in 0..200 {
            week.take(&Tally::default().page(), &format!("{i:03}"));
        }
        assert_eq!(week.seen.len(), MOST_PROCESSES);
    }
}
