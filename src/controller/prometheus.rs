//! Asks Prometheus or Alertmanager what holds a rollout, and keeps what has to be known from one question to the next.
//!
//! What is asked and what an answer means is decided in `rollout::gate`. Here a question has a time limit and a bound on its answer, is
//! asked no more often than is useful, and is never repeated by itself: the next look asks again.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use kube::client::Body;
use kube::{Client, Config};
use serde_json::Value;
use tokio::time::Instant;

use super::resource::{At, PROMETHEUS_SOURCES, SECRETS};
use super::{Names, Writer};
use crate::api::gateway_rollout::{Alerts, Guardrails, Metric};
use crate::api::prometheus_source::{Partial, PrometheusSourceSpec, SourceType};
use crate::api::rollout_status::Stage;
use crate::cluster::request::encode;
use crate::rollout::gate::{self, NoAnswer, Reading, Sample};
use crate::rollout::seen::{Gate, MetricResult};
use crate::rollout::{Memory, after};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Asked, Source};

/// Between two looks at the alerts, where nothing shorter is asked for: rules are evaluated no faster.
const PERIOD: Duration = Duration::from_secs(15);
/// A look is never more often than this.
const SHORTEST: Duration = Duration::from_secs(1);
/// The source itself is read again after so long.
const AGAIN: Duration = Duration::from_secs(60);
/// The longest that one answer is waited for, whatever the source says: a turn of the rollout waits as long, and with it whoever aborts.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest answer: ten thousand alerts.
const MOST_BYTES: usize = 8 << 20;

/// One server that can be asked.
struct Server {
    client: Client,
    spec: PrometheusSourceSpec,
}

/// Why there is no server to be asked.
#[derive(Debug, thiserror::Error)]
enum NoServer {
    #[error("PrometheusSource {0} is not there; `kubectl get prometheussources` lists them")]
    Missing(String),
    #[error("PrometheusSource {0} cannot be read: {1}")]
    Unreadable(String, String),
    #[error("the Secret {secret} has no key {key:?}, which PrometheusSource {name} asks for; put the token there")]
    NoToken { name: String, secret: String, key: String },
    #[error("{0} cannot be believed without spec.caBundle, because the image carries no authority's certificate: {1}")]
    NoAuthority(String, String),
    #[error("{0:?} is no URL of a server: {1}")]
    Url(String, String),
}

/// What holds one rollout, from look to look.
#[derive(Default)]
pub struct Guard {
    server: Option<(Guardrails, Instant, Result<Server, String>)>,
    watch: gate::Watch,
    /// The last look at the alerts.
    last: Option<(Instant, Gate)>,
    /// When each metric was last asked for, and in which step.
    asked: BTreeMap<String, (usize, Instant)>,
}

/// What a look is about.
pub struct About<'a> {
    pub guardrails: &'a Guardrails,
    pub memory: &'a Memory,
    /// Namespace and workloads, as queries name them.
    pub names: gate::Names<'a>,
    pub now: Timestamp,
}

impl Guard {
    /// What the alerts say, and every metric check that is due. Metrics are asked for while a step soaks, once its own window has
    /// passed: before that an answer would still be about the step before it.
    pub async fn look(&mut self, writer: &Writer, names: &Names, about: &About<'_>) -> (Gate, Vec<MetricResult>) {
        let guardrails = about.guardrails;
        if guardrails.source.is_none() || guardrails.alerts.is_none() && guardrails.metrics.is_empty() {
            return (Gate::Off, Vec::new());
        }
        self.connect(writer, names, guardrails).await;
        let counted = writer.metrics();
        let due = self.due(about);
        // All at a time: together they take no longer than one of them may.
        let metrics = futures::future::join_all(due.into_iter().map(|metric| self.metric(counted, metric, about)));
        let (reading, metrics) = tokio::join!(self.reading(guardrails.alerts.as_ref(), counted), metrics);
        if let Some(reading) = reading {
            let gate = self.watch.note(reading, &about.memory.ignored_alerts, about.now);
            self.last = Some((Instant::now(), gate));
        }
        let known = self.last.as_ref().filter(|_| guardrails.alerts.is_some());
        (known.map_or(Gate::Off, |(_, gate)| gate.clone()), metrics)
    }

    /// What alerts say, where they are asked for and a look is due.
    async fn reading(&self, alerts: Option<&Alerts>, counted: &Metrics) -> Option<Reading> {
        let alerts = alerts?;
        let pause = alerts.resume_after.signed().unsigned_abs() / 3;
        let recent = |at: &Instant| at.elapsed() < pause.clamp(SHORTEST, PERIOD);
        if self.last.as_ref().is_some_and(|(at, _)| recent(at)) {
            return None;
        }
        Some(match self.server() {
            Ok(server) => server.alerts(alerts, counted).await,
            Err(why) => Reading::Unknown(why),
        })
    }

    fn server(&self) -> Result<&Server, String> {
        match &self.server {
            Some((_, _, server)) => server.as_ref().map_err(String::clone),
            None => Err("there is no source".to_owned()),
        }
    }

    async fn connect(&mut self, writer: &Writer, names: &Names, guardrails: &Guardrails) {
        let fresh =
            self.server.as_ref().is_some_and(|(of, at, _)| of.source == guardrails.source && at.elapsed() < AGAIN);
        if !fresh {
            let server = find(writer, names, guardrails).await.map_err(|e| e.to_string());
            self.server = Some((guardrails.clone(), Instant::now(), server));
        }
    }

    /// Metric checks that are due now; they count as asked.
    fn due<'a>(&mut self, about: &About<'a>) -> Vec<&'a Metric> {
        let soaking = about.memory.step.as_ref().filter(|step| step.stage == Stage::Soaking);
        let (Some(step), Some(since)) = (soaking, about.memory.since) else { return Vec::new() };
        let mut due = Vec::new();
        for metric in &about.guardrails.metrics {
            let interval = metric.interval.signed().unsigned_abs().max(SHORTEST);
            let asked = self.asked.get(&metric.name);
            let waits = asked.is_some_and(|(index, at)| *index == step.index && at.elapsed() < interval);
            if waits || about.now < after(since, metric.window.signed()) {
                continue;
            }
            self.asked.insert(metric.name.clone(), (step.index, Instant::now()));
            due.push(metric);
        }
        due
    }

    async fn metric(&self, counted: &Metrics, metric: &Metric, about: &About<'_>) -> MetricResult {
        let ask = |query: String| async move {
            match self.server() {
                Ok(server) => server.instant(&query, counted).await,
                Err(why) => Err(why),
            }
        };
        let measured = async {
            match &metric.min_samples_query {
                Some(query) => Some(ask(gate::filled(query, metric, &about.names)).await),
                None => None,
            }
        };
        let (measured, value) = tokio::join!(measured, ask(gate::filled(&metric.query, metric, &about.names)));
        gate::judged(metric, value, measured, about.now)
    }
}

/// The server that a rollout names.
async fn find(writer: &Writer, names: &Names, guardrails: &Guardrails) -> Result<Server, NoServer> {
    let source = guardrails.source.clone().unwrap_or_default();
    let Some(reference) = source.prometheus_ref else {
        let url = source.url.unwrap_or_default();
        let spec =
            serde_json::from_value(serde_json::json!({"url": url})).map_err(|e| NoServer::Url(url, e.to_string()))?;
        return Server::new(spec, None);
    };
    let name = reference.name;
    let unreadable = |e: String| NoServer::Unreadable(name.clone(), e);
    let found = writer.read(&At::of(&PROMETHEUS_SOURCES, "", &name)).await.map_err(|e| unreadable(e.to_string()))?;
    let object = found.ok_or_else(|| NoServer::Missing(name.clone()))?;
    let spec: PrometheusSourceSpec =
        serde_json::from_value(object["spec"].clone()).map_err(|e| unreadable(e.to_string()))?;
    let token = match &spec.bearer_token_key {
        None => None,
        Some(key) => {
            let at = At::of(&SECRETS, &names.namespace, &names.prometheus());
            let secret = writer.read(&at).await.map_err(|e| unreadable(e.to_string()))?.unwrap_or(Value::Null);
            let token = secret["data"][key.as_str()].as_str().and_then(|text| STANDARD.decode(text).ok());
            let token = token.and_then(|bytes| String::from_utf8(bytes).ok()).map(|text| text.trim().to_owned());
            let missing = || NoServer::NoToken { name: name.clone(), secret: names.prometheus(), key: key.clone() };
            Some(token.filter(|t| !t.is_empty()).ok_or_else(missing)?)
        }
    };
    Server::new(spec, token)
}

impl Server {
    fn new(spec: PrometheusSourceSpec, token: Option<String>) -> Result<Server, NoServer> {
        let wrong = |e: String| NoServer::Url(spec.url.clone(), e);
        let url: http::Uri =
            spec.url.trim_end_matches('/').parse().map_err(|e: http::uri::InvalidUri| wrong(e.to_string()))?;
        let plain = url.scheme_str() == Some("http");
        // The client that talks to the API server speaks to any HTTP server, with the same TLS.
        let mut config = Config::new(url);
        let timeout = spec.timeout.signed().unsigned_abs();
        (config.connect_timeout, config.read_timeout, config.write_timeout) = (Some(timeout), None, Some(timeout));
        config.default_retry = false;
        if let Some(bundle) = &spec.ca_bundle {
            let pems = x509_parser::pem::Pem::iter_from_buffer(bundle.as_bytes());
            let certificates: Result<Vec<Vec<u8>>, _> = pems.map(|pem| pem.map(|p| p.contents)).collect();
            config.root_cert = Some(certificates.map_err(|e| wrong(format!("caBundle: {e}")))?);
        } else if plain {
            // Nobody's certificate is looked at. Without a list the system's would be, and the image has none, which is an error.
            config.root_cert = Some(Vec::new());
        }
        for header in &spec.headers {
            let name =
                header.name.parse().map_err(|e: http::header::InvalidHeaderName| wrong(format!("headers: {e}")))?;
            let value =
                header.value.parse().map_err(|e: http::header::InvalidHeaderValue| wrong(format!("headers: {e}")))?;
            config.headers.push((name, value));
        }
        if let Some(token) = token {
            config.auth_info.token = Some(token.into());
        }
        let client = Client::try_from(config).map_err(|e| match spec.ca_bundle {
            None if !plain => NoServer::NoAuthority(spec.url.clone(), e.to_string()),
            _ => wrong(e.to_string()),
        })?;
        Ok(Server { client, spec })
    }

    async fn alerts(&self, alerts: &Alerts, counted: &Metrics) -> Reading {
        let answer = async {
            match self.spec.type_ {
                SourceType::Prometheus => self.instant(&gate::alerts_query(alerts), counted).await,
                SourceType::Alertmanager => self.alertmanager(&alerts.matchers, counted).await,
            }
        };
        let beat = async {
            let name = alerts.heartbeat.as_str();
            match self.spec.type_ {
                _ if name.is_empty() => None,
                SourceType::Prometheus => Some(self.instant(&gate::heartbeat_query(name), counted).await),
                SourceType::Alertmanager => {
                    Some(self.alertmanager(&[format!("alertname={}", Value::from(name))], counted).await)
                }
            }
        };
        let (answer, beat) = tokio::join!(answer, beat);
        match beat {
            Some(Ok(found)) if found.is_empty() => {
                let name = &alerts.heartbeat;
                return Reading::Unknown(format!("the heartbeat {name} does not fire: rules are not evaluated"));
            }
            Some(Err(why)) => return Reading::Unknown(why),
            Some(Ok(_)) | None => {}
        }
        match answer {
            Ok(found) => Reading::Alerts(gate::firing(&found, &alerts.exclude)),
            Err(why) => Reading::Unknown(why),
        }
    }

    /// The answer to an instant query.
    async fn instant(&self, query: &str, counted: &Metrics) -> Result<Vec<Sample>, String> {
        // A query may be longer than a URL.
        let form = format!("query={}", encode(query));
        let request = http::Request::post("/api/v1/query")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.into_bytes()));
        let partial = self.spec.partial_response == Partial::Allow;
        self.ask(request, counted, |body| gate::samples(body, partial)).await
    }

    async fn alertmanager(&self, matchers: &[String], counted: &Metrics) -> Result<Vec<Sample>, String> {
        let mut path = "/api/v2/alerts?active=true&silenced=false&inhibited=false".to_owned();
        for filter in gate::alertmanager_filters(matchers) {
            path.push_str(&format!("&filter={}", encode(&filter)));
        }
        let request = http::Request::get(path).body(Body::empty());
        self.ask(request, counted, gate::alertmanager).await
    }

    async fn ask(
        &self,
        request: http::Result<http::Request<Body>>,
        counted: &Metrics,
        read: impl Fn(&[u8]) -> Result<Vec<Sample>, NoAnswer>,
    ) -> Result<Vec<Sample>, String> {
        let url = &self.spec.url;
        let patience = self.patience();
        let answer = tokio::time::timeout(patience, self.exchange(request)).await;
        let (asked, answer) = match answer {
            Err(_) => (Asked::Timeout, Err(format!("{url} did not answer within {} s", patience.as_secs_f32()))),
            Ok(Err(why)) => (Asked::Error, Err(format!("{url} cannot be asked: {why}"))),
            // What a server says of a query it does not understand stands in the body as well.
            Ok(Ok((status, body))) => match read(&body) {
                Ok(found) if status.is_success() && found.is_empty() => (Asked::Empty, Ok(found)),
                Ok(found) if status.is_success() => (Asked::Ok, Ok(found)),
                Ok(_) => (Asked::Error, Err(format!("{url} answers {status}"))),
                Err(NoAnswer::Unreadable(_)) if !status.is_success() => {
                    (Asked::Error, Err(format!("{url} answers {status}")))
                }
                Err(e @ NoAnswer::Partial(_)) => (Asked::Partial, Err(format!("{url}: {e}"))),
                Err(e) => (Asked::Error, Err(format!("{url}: {e}"))),
            },
        };
        counted.rollouts.asked(self.source(), asked);
        answer
    }

    /// How long one answer is waited for.
    fn patience(&self) -> Duration {
        self.spec.timeout.signed().unsigned_abs().min(LONGEST)
    }

    fn source(&self) -> Source {
        match self.spec.type_ {
            SourceType::Prometheus => Source::Prometheus,
            SourceType::Alertmanager => Source::Alertmanager,
        }
    }

    async fn exchange(
        &self,
        request: http::Result<http::Request<Body>>,
    ) -> Result<(http::StatusCode, bytes::Bytes), String> {
        let request = request.map_err(|e| e.to_string())?;
        let response = self.client.send(request).await.map_err(|e| crate::cluster::client::chain(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(|e| e.to_string())?;
        Ok((status, body.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A turn of a rollout waits for it, and whoever wants to abort waits for the turn.
    #[tokio::test]
    async fn one_that_says_nothing_takes_no_longer_than_one_question() {
        crate::cluster::install_crypto();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let metric =
            |name: &str| json!({"name": name, "query": "up", "max": 1, "minSamplesQuery": "up", "minSamples": 1});
        let guardrails: Guardrails = serde_json::from_value(json!({
            "source": {"url": url}, "alerts": {"heartbeat": "Watchdog"}, "metrics": [metric("a"), metric("b"), metric("c")],
        }))
        .unwrap();
        let spec = serde_json::from_value(json!({"url": url, "timeout": "300ms"})).unwrap();
        let server = Server::new(spec, None).map_err(|e| e.to_string());
        let mut guard = Guard { server: Some((guardrails.clone(), Instant::now(), server)), ..Guard::default() };
        let now = Timestamp::now();
        let mut step = crate::rollout::steps::begin(&crate::api::gateway_rollout::Strategy::default().steps, 0);
        step.stage = Stage::Soaking;
        let memory = Memory { step: Some(step), since: Some(Timestamp::UNIX_EPOCH), ..Memory::default() };
        let names = gate::Names { namespace: "edge", new_workload: "gw-1-24", old_workload: "gw" };
        let about = About { guardrails: &guardrails, memory: &memory, names, now };
        let writer = Writer::new(guard.server().unwrap().client.clone(), Default::default(), Default::default());
        let began = Instant::now();
        let (gate, metrics) = guard.look(&writer, &Names::new("guard", "revguard"), &about).await;
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        assert!(matches!(gate, Gate::Unknown { .. }), "{gate:?}");
        assert_eq!(metrics.len(), 3);
    }

    #[tokio::test]
    async fn nobody_is_waited_for_as_long_as_a_turn_may_take() {
        crate::cluster::install_crypto();
        let spec = serde_json::from_value(json!({"url": "http://127.0.0.1:1", "timeout": "99999h"})).unwrap();
        assert_eq!(Server::new(spec, None).map(|s| s.patience()).ok(), Some(LONGEST));
    }
}
