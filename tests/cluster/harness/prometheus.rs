//! A real Prometheus beside a test. Its rules are what the test says, and may be others while it runs.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::chart::tools::program;
use crate::harness::process::Process;
use crate::harness::wait::wait_until;

/// It reads its rules, on a machine that does other things as well.
const START: Duration = Duration::from_secs(60);
const RULES: &str = "rules.yaml";

pub struct Prometheus {
    port: u16,
    folder: PathBuf,
    pub process: Process,
}

/// A port that nobody listens on right now: Prometheus does not say which one it was given.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Prometheus {
    /// Evaluates these rules and scrapes every second, as `scrapes` says (`scrape_configs`).
    pub async fn start(folder: &Path, rules: &str, scrapes: Value) -> Result<Prometheus> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join(RULES), rules)?;
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [RULES],
            "scrape_configs": scrapes,
        });
        std::fs::write(folder.join("prometheus.yml"), config.to_string())?;
        let port = free_port()?;
        let process = Prometheus::run(folder, port)?;
        let mut prometheus = Prometheus { port, folder: folder.to_owned(), process };
        prometheus.answers().await?;
        Ok(prometheus)
    }

    fn run(folder: &Path, port: u16) -> Result<Process> {
        let mut command = program("prometheus", "prometheus");
        command.current_dir(folder).args(["--config.file=prometheus.yml", "--storage.tsdb.path=prometheus"]);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--web.enable-lifecycle");
        Process::spawn("prometheus", command, folder.join("prometheus.log"))
    }

    async fn answers(&mut self) -> Result<()> {
        let ready = wait_until(START, "an answer of Prometheus", || async {
            self.get("/-/ready").await.map(drop).map_err(|error| format!("{error:#}"))
        })
        .await;
        ready.or_else(|late| self.process.check().and(Err(late)))
    }

    /// Its base.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Other rules from now on.
    pub async fn rules(&self, text: &str) -> Result<()> {
        std::fs::write(self.folder.join(RULES), text)?;
        let answer = self.ask(Method::POST, "/-/reload").await?;
        ensure!(answer.is_empty(), "{answer}");
        Ok(())
    }

    /// Ends it. It may be started again where it was.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.terminate(START).await.map(drop)
    }

    /// Starts it again at the same address, with what it knew.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = Prometheus::run(&self.folder, self.port)?;
        self.answers().await
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
        self.ask(Method::GET, path).await
    }

    async fn ask(&self, method: Method, path: &str) -> Result<String> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = http::Request::builder().method(method).uri(path).header("host", "prometheus");
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new())?;
        let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8(body.to_vec())?)
    }
}
