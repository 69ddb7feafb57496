//! What Prometheus is asked, and what its answers mean: the alert gate and the metric checks of a rollout.
//!
//! An answer that is not whole, empty where it must not be, or no number is never taken for a good one. Nothing here sends a query:
//! it makes their texts and judges the answers' bytes.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::digest;
use super::seen::{Alert, Gate, MetricResult, Outcome};
use crate::api::gateway_rollout::{Alerts, Metric};
use crate::model::text::brief;

/// Alerts of ours carry it: a rollout that is paused must not be what pauses it.
const OWN: &str = r#"revguard!="true""#;

/// Labels that change when a pod is replaced: they tell no alert from another.
const FLEETING: [&str; 6] = ["pod", "instance", "endpoint", "container", "uid", "alertstate"];

/// So many refusals to answer in a row are trouble; one is a hiccup.
pub const UNKNOWN_IN_A_ROW: u32 = 3;

/// The query for alerts that fire, in PromQL.
pub fn alerts_query(alerts: &Alerts) -> String {
    let mut matchers = vec![r#"alertstate="firing""#, OWN];
    matchers.extend(alerts.matchers.iter().map(String::as_str));
    format!("ALERTS{{{}}}", matchers.join(","))
}

/// The query whose answer must not be empty.
pub fn heartbeat_query(name: &str) -> String {
    format!(r#"ALERTS{{alertname={},alertstate="firing"}}"#, Value::from(name))
}

/// The query string of Alertmanager's `/api/v2/alerts`, one matcher a filter.
pub fn alertmanager_filters(matchers: &[String]) -> Vec<String> {
    std::iter::once(OWN.to_owned()).chain(matchers.iter().cloned()).collect()
}

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    #[error("it answers: {0}")]
    Refused(String),
    #[error("the answer is not whole: {0}")]
    Partial(String),
}

/// One series of an instant query.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

#[derive(Deserialize)]
struct Response {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

type Point = (f64, String);

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: std::collections::BTreeMap<String, String>,
    value: Point,
}

/// Reads the answer to an instant query.
///
/// # Errors
/// See [`NoAnswer`].
pub fn samples(body: &[u8], partial_is_enough: bool) -> Result<Vec<Sample>, NoAnswer> {
    let response: Response = serde_json::from_slice(body).map_err(|e| NoAnswer::Unreadable(e.to_string()))?;
    if response.status != "success" {
        return Err(NoAnswer::Refused(brief(&response.error)));
    }
    if let Some(warning) = response.warnings.first()
        && !partial_is_enough
    {
        return Err(NoAnswer::Partial(brief(warning)));
    }
    // Prometheus writes `NaN`, `+Inf`, `-Inf`.
    let number = |text: &str| text.parse::<f64>().map_err(|_| NoAnswer::Unreadable(format!("{text:?} is no number")));
    let Some(data) = response.data else { return Err(NoAnswer::Unreadable("it holds no data".to_owned())) };
    let unreadable = |e: serde_json::Error| NoAnswer::Unreadable(e.to_string());
    match data.result_type.as_str() {
        "scalar" => {
            let (_, value): Point = serde_json::from_value(data.result).map_err(unreadable)?;
            Ok(vec![Sample { labels: Vec::new(), value: number(&value)? }])
        }
        "vector" => {
            let all: Vec<Series> = serde_json::from_value(data.result).map_err(unreadable)?;
            let sample = |s: Series| Ok(Sample { labels: s.metric.into_iter().collect(), value: number(&s.value.1)? });
            all.into_iter().map(sample).collect()
        }
        other => Err(NoAnswer::Refused(format!("a {}, where a number or a vector was asked for", brief(other)))),
    }
}

/// Reads Alertmanager's list of alerts.
///
/// # Errors
/// See [`NoAnswer`].
pub fn alertmanager(body: &[u8]) -> Result<Vec<Sample>, NoAnswer> {
    #[derive(Deserialize)]
    struct One {
        labels: std::collections::BTreeMap<String, String>,
    }
    let all: Vec<One> = serde_json::from_slice(body).map_err(|e| NoAnswer::Unreadable(e.to_string()))?;
    Ok(all.into_iter().map(|a| Sample { labels: a.labels.into_iter().collect(), value: 1.0 }).collect())
}

/// The alerts among these that hold a rollout: each once, by its fingerprint.
pub fn firing(samples: &[Sample], exclude: &[String]) -> Vec<Alert> {
    let mut alerts: Vec<Alert> = samples.iter().map(alert).filter(|a| !exclude.contains(&a.name)).collect();
    alerts.sort();
    alerts.dedup();
    alerts
}

fn alert(sample: &Sample) -> Alert {
    let label = |name: &str| sample.labels.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v);
    let lasting = sample.labels.iter().filter(|(k, _)| k != "__name__" && !FLEETING.contains(&k.as_str()));
    let mut text: Vec<String> = lasting.map(|(k, v)| format!("{k}={v}")).collect();
    text.sort();
    Alert {
        name: label("alertname").to_owned(),
        severity: label("severity").to_owned(),
        fingerprint: format!("{:016x}", digest::fed(digest::OFFSET, text.join("\u{0}").as_bytes())),
        aborts: label("revguard_action") == "abort",
    }
}

/// What one look at the alerts gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    Alerts(Vec<Alert>),
    /// It could not be asked, is not to be believed, or its heartbeat is missing.
    Unknown(String),
}

/// Remembers, from look to look, since when it is quiet and how often it was unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    quiet_since: Option<Timestamp>,
    unknown: u32,
}

impl Watch {
    /// Takes a look; alerts of these fingerprints do not count.
    pub fn note(&mut self, reading: Reading, ignored: &[String], now: Timestamp) -> Gate {
        match reading {
            Reading::Unknown(why) => {
                self.unknown += 1;
                // What was quiet may not be any more; whether it is, only an answer can say.
                self.quiet_since = self.quiet_since.filter(|_| self.unknown < UNKNOWN_IN_A_ROW);
                Gate::Unknown { why, times: self.unknown }
            }
            Reading::Alerts(mut alerts) => {
                self.unknown = 0;
                alerts.retain(|a| !ignored.contains(&a.fingerprint));
                if alerts.is_empty() {
                    Gate::Quiet(*self.quiet_since.get_or_insert(now))
                } else {
                    self.quiet_since = None;
                    Gate::Firing(alerts)
                }
            }
        }
    }
}

/// What stands for the names in a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    pub namespace: &'a str,
    pub new_workload: &'a str,
    pub old_workload: &'a str,
}

/// A query with its names filled in. Names are those of Kubernetes objects, which need no quoting in PromQL.
pub fn filled(query: &str, metric: &Metric, names: &Names<'_>) -> String {
    let window = format!("{}ms", metric.window.signed().as_millis());
    let all = [
        ("namespace", names.namespace),
        ("newWorkload", names.new_workload),
        ("oldWorkload", names.old_workload),
        ("window", window.as_str()),
    ];
    all.iter().fold(query.to_owned(), |text, (name, value)| text.replace(&format!("{{{{.{name}}}}}"), value))
}

/// Judges one check: its value, and how much was measured where that was asked for.
pub fn judged(
    metric: &Metric,
    value: Result<Vec<Sample>, String>,
    measured: Option<Result<Vec<Sample>, String>>,
    at: Timestamp,
) -> MetricResult {
    let result = |outcome, value, message: String| MetricResult {
        name: metric.name.clone(),
        outcome,
        value,
        message: brief(&message),
        at,
    };
    if let Some(measured) = measured {
        match measured.and_then(|samples| single(&samples)) {
            Ok(n) if n < metric.min_samples => {
                let text = format!("too few samples: {} of {}", round(n), round(metric.min_samples));
                return result(Outcome::Inconclusive, None, text);
            }
            Ok(_) => {}
            Err(why) => return result(Outcome::Inconclusive, None, format!("minSamplesQuery: {why}")),
        }
    }
    match value.and_then(|samples| single(&samples)) {
        Err(why) => result(Outcome::Inconclusive, None, why),
        Ok(n) => match (metric.max.filter(|max| n > *max), metric.min.filter(|min| n < *min)) {
            (Some(max), _) => result(Outcome::Failed, Some(n), format!("{} is more than {}", round(n), round(max))),
            (_, Some(min)) => result(Outcome::Failed, Some(n), format!("{} is less than {}", round(n), round(min))),
            _ => result(Outcome::Passed, Some(n), round(n)),
        },
    }
}

/// The one number of an answer.
fn single(samples: &[Sample]) -> Result<f64, String> {
    match samples {
        [one] if one.value.is_finite() => Ok(one.value),
        [one] => Err(format!("the answer is {}", one.value)),
        [] => Err("the answer is empty: does the metric exist, and are the labels right?".to_owned()),
        many => Err(format!("{} series instead of one: add sum() or max()", many.len())),
    }
}

fn round(n: f64) -> String {
    let text = format!("{n:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alerts() -> Alerts {
        Alerts { matchers: vec![r#"severity="page""#.into()], ..Alerts::default() }
    }

    fn vector(series: &str) -> Vec<u8> {
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}"#).into_bytes()
    }

    fn metric(json: &str) -> Metric {
        serde_json::from_str(json).expect("a metric")
    }

    #[test]
    fn queries_leave_our_own_alerts_out_and_quote_what_people_name() {
        assert_eq!(alerts_query(&alerts()), r#"ALERTS{alertstate="firing",revguard!="true",severity="page"}"#);
        assert_eq!(heartbeat_query(r#"a"b"#), r#"ALERTS{alertname="a\"b",alertstate="firing"}"#);
        assert_eq!(alertmanager_filters(&alerts().matchers), [r#"revguard!="true""#, r#"severity="page""#]);
        let m = metric(r#"{"name": "n", "query": "x", "window": "2m"}"#);
        let names = Names { namespace: "ns", new_workload: "gw-1-24", old_workload: "gw" };
        let query = r#"rate(x{ns="{{.namespace}}",new="{{.newWorkload}}",old="{{.oldWorkload}}"}[{{.window}}])"#;
        assert_eq!(filled(query, &m, &names), r#"rate(x{ns="ns",new="gw-1-24",old="gw"}[120000ms])"#);
    }

    #[test]
    fn an_answer_that_is_not_whole_is_none() {
        let read = |text: &str| samples(text.as_bytes(), false);
        assert!(
            matches!(read(r#"{"status":"error","error":"bad query"}"#), Err(NoAnswer::Refused(e)) if e == "bad query")
        );
        let partial =
            r#"{"status":"success","warnings":["a store is away"],"data":{"resultType":"vector","result":[]}}"#;
        assert!(matches!(read(partial), Err(NoAnswer::Partial(_))));
        assert_eq!(samples(partial.as_bytes(), true), Ok(Vec::new()));
        assert!(matches!(read("<html>"), Err(NoAnswer::Unreadable(_))));
        assert!(matches!(read(r#"{"status":"success"}"#), Err(NoAnswer::Unreadable(_))));
        assert!(matches!(
            read(r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#),
            Err(NoAnswer::Refused(_))
        ));
        let scalar = read(r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"0.25"]}}"#).unwrap();
        assert_eq!(scalar[0].value, 0.25);
    }

    #[test]
    fn an_alert_is_told_by_what_outlives_its_pod() {
        let one = |pod: &str| {
            format!(
                r#"{{"metric":{{"__name__":"ALERTS","alertname":"Down","severity":"page","pod":"{pod}"}},"value":[1,"1"]}}"#
            )
        };
        let other = r#"{"metric":{"alertname":"Watchdog"},"value":[1,"1"]}"#;
        let found =
            samples(&vector(&[&one("a"), &one("b"), other].map(|s: &str| s.to_owned()).join(",")), false).unwrap();
        let alerts = firing(&found, &["Watchdog".to_owned()]);
        assert_eq!(alerts.len(), 1);
        assert_eq!((alerts[0].name.as_str(), alerts[0].aborts), ("Down", false));
        let aborting =
            alertmanager(br#"[{"labels":{"alertname":"X","revguard_action":"abort"},"status":{}}]"#).unwrap();
        assert!(firing(&aborting, &[])[0].aborts);
    }

    #[test]
    fn quiet_counts_from_the_last_alert_and_does_not_outlast_silence() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let alert =
            firing(&samples(&vector(r#"{"metric":{"alertname":"Down"},"value":[1,"1"]}"#), false).unwrap(), &[]);
        let mut watch = Watch::default();
        assert_eq!(watch.note(Reading::Alerts(Vec::new()), &[], at(1)), Gate::Quiet(at(1)));
        assert_eq!(watch.note(Reading::Alerts(Vec::new()), &[], at(9)), Gate::Quiet(at(1)));
        let away = || Reading::Unknown("away".into());
        assert_eq!(watch.note(away(), &[], at(10)), Gate::Unknown { why: "away".into(), times: 1 });
        assert_eq!(watch.note(Reading::Alerts(Vec::new()), &[], at(11)), Gate::Quiet(at(1)), "one hiccup is none");
        for s in 12..15 {
            watch.note(away(), &[], at(s));
        }
        assert_eq!(watch.note(Reading::Alerts(Vec::new()), &[], at(15)), Gate::Quiet(at(15)));
        assert_eq!(watch.note(Reading::Alerts(alert.clone()), &[], at(16)), Gate::Firing(alert.clone()));
        let ignored = [alert[0].fingerprint.clone()];
        assert_eq!(watch.note(Reading::Alerts(alert), &ignored, at(17)), Gate::Quiet(at(17)));
    }

    #[test]
    fn only_one_finite_number_of_enough_samples_passes_or_fails() {
        let m = metric(r#"{"name": "errors", "query": "x", "max": 0.01, "minSamples": 200}"#);
        let at = Timestamp::UNIX_EPOCH;
        let of = |v: f64| Ok(vec![Sample { labels: Vec::new(), value: v }]);
        let judge = |value, measured| judged(&m, value, measured, at);
        assert_eq!(judge(of(0.005), Some(of(300.0))).outcome, Outcome::Passed);
        let failed = judge(of(0.02), None);
        assert_eq!((failed.outcome, failed.message.as_str()), (Outcome::Failed, "0.02 is more than 0.01"));
        let few = judge(of(0.5), Some(of(3.0)));
        assert_eq!((few.outcome, few.message.as_str()), (Outcome::Inconclusive, "too few samples: 3 of 200"));
        for odd in [Ok(Vec::new()), of(f64::NAN), of(f64::INFINITY), Err("away".to_owned())] {
            assert_eq!(judge(odd, None).outcome, Outcome::Inconclusive);
        }
        let two = Ok([of(1.0), of(2.0)].into_iter().flat_map(Result::unwrap).collect());
        assert!(judge(two, None).message.starts_with("2 series"));
        let least = metric(r#"{"name": "rate", "query": "x", "min": 5}"#);
        assert_eq!(judged(&least, of(4.0), None, at).outcome, Outcome::Failed);
    }
}
