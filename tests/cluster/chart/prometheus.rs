//! A real Prometheus beside a test, with the chart's rules; only durations are shorter than what ships.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::render::file;
use super::tools::program;
use crate::harness::process::Process;
use crate::harness::wait::wait_until;

/// It reads its rules, on a machine that does other things as well.
const START: Duration = Duration::from_secs(60);

pub struct Prometheus {
    port: u16,
    pub process: Process,
}

/// The rules that ship, each waiting for a second only.
fn rules() -> String {
    let shorter = |line: &str| {
        let wait = line.trim_start().strip_prefix("for: ").is_some();
        if wait { format!("{}for: 1s", &line[..line.len() - line.trim_start().len()]) } else { line.to_owned() }
    };
    file("files/alerts.yaml").lines().map(shorter).collect::<Vec<_>>().join("\n")
}

/// A port that nobody listens on right now: Prometheus does not say which one it was given.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Prometheus {
    /// Scrapes every second, as `scrapes` says (`scrape_configs`).
    pub async fn start(folder: &Path, scrapes: Value) -> Result<Prometheus> {
        std::fs::write(folder.join("alerts.yaml"), rules())?;
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yaml"],
            "scrape_configs": scrapes,
        });
        std::fs::write(folder.join("prometheus.yml"), config.to_string())?;
        let port = free_port()?;
        let mut command = program("prometheus", "prometheus");
        command.current_dir(folder).args(["--config.file=prometheus.yml", "--storage.tsdb.path=prometheus"]);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::spawn("prometheus", command, folder.join("prometheus.log"))?;
        let mut prometheus = Prometheus { port, process };
        let ready = wait_until(START, "an answer of Prometheus", || async {
            prometheus.get("/-/ready").await.map(drop).map_err(|error| format!("{error:#}"))
        })
        .await;
        ready.or_else(|late| prometheus.process.check().and(Err(late)))?;
        Ok(prometheus)
    }

    /// Names of alerts that fire.
    pub async fn firing(&self) -> Result<Vec<String>, String> {
        let answer = self.get("/api/v1/alerts").await.and_then(|text| Ok(serde_json::from_str::<Value>(&text)?));
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        let alerts = answer["data"]["alerts"].as_array().ok_or("no alerts")?;
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        Ok(firing.filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect())
    }

    /// What a query returns now, one value for each series.
    pub async fn values(&self, query: &str) -> Result<Vec<f64>> {
        let mut path = "/api/v1/query?query=".to_owned();
        query.bytes().try_for_each(|byte| write!(path, "%{byte:02X}"))?;
        let answer: Value = serde_json::from_str(&self.get(&path).await?)?;
        let series = answer["data"]["result"].as_array().with_context(|| format!("{query}: {answer}"))?;
        series.iter().map(|one| Ok(one["value"][1].as_str().context("a value")?.parse()?)).collect()
    }

    async fn get(&self, path: &str) -> Result<String> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request =
            http::Request::get(path).header("host", "prometheus").body(http_body_util::Empty::<bytes::Bytes>::new())?;
        let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8(body.to_vec())?)
    }
}
