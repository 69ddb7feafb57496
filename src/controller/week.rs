//! The week's tally: collected from every replica of the webhook, kept in a ConfigMap, read by `revguard report`.
//!
//! What a replica gives is cumulative, so that a collection that is missed loses nothing; what of it was counted before is
//! kept beside the totals, by process. A pod that ends between two collections takes a minute's counts with it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
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
/// A process of which nothing was heard for so long has ended. One that is heard is noted …
const ENDED: SignedDuration = SignedDuration::from_hours(48);
/// … this often at least, even if it has counted nothing.
const NOTED: SignedDuration = SignedDuration::from_hours(12);
/// The text takes at most this much of the 1 MiB that an object may have.
const MOST_TEXT: usize = 700 << 10;
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
    /// Counts by `day code end writer`: lines again would double the size. `None`: there was no room. What such a process says
    /// next is taken as counted: a little is missing then, where it would be counted again each time.
    counts: Option<BTreeMap<String, u64>>,
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

/// A time as it is kept. Such texts are ordered as their times are.
fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%MZ").to_string()
}

fn short(line: &Line) -> String {
    format!("{} {} {:?} {}", line.day, line.code, line.end, line.writer)
}

impl Week {
    /// Takes in what a process has counted so far.
    pub fn take(&mut self, page: &Page, now: Timestamp) {
        let mut lines: BTreeMap<Line, u64> = self.counts.iter().map(|c| (c.line.clone(), c.count)).collect();
        let before = self.seen.remove(&page.process).map_or_else(|| Some(BTreeMap::new()), |seen| seen.counts);
        let mut counts = BTreeMap::new();
        for count in &page.counts {
            let key = short(&count.line);
            let known = before.as_ref().map_or(count.count, |before| before.get(&key).copied().unwrap_or(0));
            let more = count.count.saturating_sub(known);
            if more > 0 {
                tally::add(&mut lines, count.line.clone(), more);
            }
            counts.insert(key, count.count);
        }
        self.seen.insert(page.process.clone(), Seen { at: minute(now), counts: Some(counts) });
        self.counts = tally::counts(&lines);
    }

    /// Forgets what is of no use any more, after every process that answers was heard. Days that are no longer kept are not
    /// counted again, and a process that was not heard for two days has ended.
    fn tidy(&mut self, now: Timestamp) {
        let mut days: Vec<&str> = self.counts.iter().map(|c| c.line.day.as_str()).collect();
        days.dedup();
        // Only then is an older one not taken in; see `tally::add`.
        if let Some(oldest) = days.first().filter(|_| days.len() >= tally::DAYS) {
            for counts in self.seen.values_mut().filter_map(|seen| seen.counts.as_mut()) {
                counts.retain(|key, _| key.as_str() >= *oldest);
            }
        }
        let ended = minute(now.saturating_sub(ENDED).unwrap_or(now));
        self.seen.retain(|_, seen| seen.at >= ended);
        while self.seen.len() > MOST_PROCESSES {
            let Some(oldest) = self.longest_unheard(|_| true) else { break };
            self.seen.remove(&oldest);
        }
    }

    /// As it is written, within what a ConfigMap takes. What is remembered of processes goes first: of those that were not heard
    /// this time all of it, of the others what they have counted.
    fn text(&mut self) -> String {
        loop {
            let text = serde_json::to_string(self).expect("strings and numbers");
            if text.len() <= MOST_TEXT {
                return text;
            }
            let Some(process) = self.longest_unheard(|seen| seen.counts.is_some()) else { return text };
            let heard = self.seen.get_mut(&process).filter(|seen| seen.at == self.at);
            tracing::warn!(
                process,
                bytes = text.len(),
                "the week's tally is too large: what a process counted is forgotten"
            );
            match heard {
                Some(seen) => seen.counts = None,
                None => drop(self.seen.remove(&process)),
            }
        }
    }

    fn longest_unheard(&self, of: impl Fn(&Seen) -> bool) -> Option<String> {
        let all = self.seen.iter().filter(|(_, seen)| of(seen));
        all.min_by(|a, b| a.1.at.cmp(&b.1.at)).map(|(process, _)| process.clone())
    }

    /// Some process was last noted so long ago that it would soon look as if it had ended.
    fn is_due(&self, now: Timestamp) -> bool {
        let due = minute(now.saturating_sub(NOTED).unwrap_or(now));
        self.seen.values().any(|seen| seen.at < due)
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
    let now = Timestamp::now();
    for page in pages(writer, names).await.inspect_err(|_| failed())? {
        week.take(&page, now);
    }
    week.tidy(now);
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
    if same(&before, &week) && before.seen.keys().eq(week.seen.keys()) && !before.is_due(now) {
        return Ok(());
    }
    week.at = minute(now);
    let text = week.text();
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
        let at = |minutes| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        first.count(day, "NS001", "jane", End::Denied);
        week.take(&first.page(), at(1));
        week.take(&first.page(), at(2));
        assert_eq!(week.counts[0].count, 1);
        first.count(day, "NS001", "jane", End::Denied);
        second.count(day, "NS001", "jane", End::Denied);
        week.take(&first.page(), at(3));
        week.take(&second.page(), at(3));
        assert_eq!((week.counts.len(), week.counts[0].count), (1, 3));
        let text = serde_json::to_string(&week).unwrap();
        assert_eq!(Week::read(&json!({"data": {KEY: text}})), week);
        assert_eq!(Week::read(&json!({})), Week::default());
        for i in 0..200 {
            week.take(&Tally::default().page(), at(i));
        }
        week.tidy(at(200));
        assert_eq!(week.seen.len(), MOST_PROCESSES);
    }

    /// A webhook with forty writers of long names each day, and every rule.
    fn busy(day: jiff::civil::Date) -> Tally {
        let tally = Tally::default();
        for writer in 0..tally::WRITERS {
            let writer = format!("system:serviceaccount:{}:{writer}", "team-of-a-very-long-name-".repeat(4));
            for code in 0..20 {
                tally.count(day, &format!("NS{code:03}"), &writer, End::Denied);
            }
        }
        tally
    }

    #[test]
    fn however_many_processes_come_and_go_it_fits_into_its_object_and_counts_on() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let day = jiff::civil::date(2026, 1, 1);
        let mut week = Week::default();
        // Sixty processes within a day, one after another.
        for i in 0..60 {
            let now = start + SignedDuration::from_mins(i * 20);
            week.take(&busy(day).page(), now);
            week.tidy(now);
            week.at = minute(now);
            let text = week.text();
            assert!(text.len() <= MOST_TEXT, "{} after {i}", text.len());
            week = Week::read(&json!({"data": {KEY: text}}));
        }
        let total = |week: &Week| week.counts.iter().map(|c| c.count).sum::<u64>();
        assert_eq!(total(&week), 60 * 800);
        // As many at once: not all can be remembered, and none is counted again each minute.
        let many: Vec<Tally> = (0..12).map(|_| busy(day)).collect();
        let mut round = |minutes: i64| {
            let now = start + SignedDuration::from_hours(21) + SignedDuration::from_mins(minutes);
            many.iter().for_each(|tally| week.take(&tally.page(), now));
            week.tidy(now);
            week.at = minute(now);
            let text = week.text();
            assert!(text.len() <= MOST_TEXT, "{}", text.len());
            week = Week::read(&json!({"data": {KEY: text}}));
            total(&week)
        };
        let first = round(0);
        assert_eq!(first, (60 + 12) * 800);
        assert_eq!(round(1), first);
        assert_eq!(round(2), first);
    }

    #[test]
    fn days_that_are_not_kept_and_processes_that_have_ended_are_forgotten() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let (ended, lasting) = (Tally::default(), Tally::default());
        let mut week = Week::default();
        ended.count(jiff::civil::date(2026, 1, 1), "NS001", "jane", End::Denied);
        week.take(&ended.page(), start);
        for d in 0..20 {
            let now = start + SignedDuration::from_hours(24 * d);
            let day = jiff::civil::date(2026, 1, 1 + i8::try_from(d).unwrap());
            lasting.count(day, "NS001", "jane", End::Denied);
            week.take(&lasting.page(), now);
            week.tidy(now);
        }
        assert_eq!(week.seen.len(), 1);
        let counts = week.seen.values().next().unwrap().counts.as_ref().unwrap();
        assert_eq!(counts.len(), tally::DAYS);
        assert_eq!(week.counts.iter().map(|c| c.count).sum::<u64>(), tally::DAYS as u64);
        // One that counts nothing is noted all the same, or it would be taken for ended.
        assert!(!week.is_due(start + SignedDuration::from_hours(24 * 19 + 12)));
        assert!(week.is_due(start + SignedDuration::from_hours(24 * 19 + 13)));
    }
}
