//! An alert from end to end: a validator that really dangles, the real controller with the rights that the chart gives it, a real
//! Prometheus with the chart's rules. Only durations are shorter than what ships.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::render::{NAMESPACE, RELEASE, chart, file, helm};
use super::tools::program;
use crate::harness::binary::PROGRAM;
use crate::harness::objects::Scope;
use crate::harness::process::Process;
use crate::harness::wait::wait_until;
use crate::harness::{ControlPlane, Options};

/// Audit, scrape, evaluation and a `for` of one second each, and a machine that does other things as well.
const SOON: Duration = Duration::from_secs(90);

/// A port that nobody listens on right now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The rules that ship, each waiting for a second only.
fn rules() -> String {
    let shorter = |line: &str| {
        let wait = line.trim_start().strip_prefix("for: ").is_some();
        if wait { format!("{}for: 1s", &line[..line.len() - line.trim_start().len()]) } else { line.to_owned() }
    };
    file("files/alerts.yaml").lines().map(shorter).collect::<Vec<_>>().join("\n")
}

/// The default validator as an upgrade leaves it behind: closed, and its control plane gone.
fn left_behind() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "istiod-default-validator", "labels": {"app": "istiod", "istio": "istiod", "istio.io/rev": "default"}},
        "webhooks": [{
            "name": "validation.istio.io", "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "istiod-1-22", "namespace": "istio-system", "path": "/validate"}},
            "rules": [{"apiGroups": ["networking.istio.io", "security.istio.io", "telemetry.istio.io", "extensions.istio.io"],
                "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["*"]}],
            "objectSelector": {"matchExpressions": [{"key": "istio.io/rev", "operator": "DoesNotExist"}]},
        }],
    })
}

/// Names of alerts that fire.
async fn firing(port: u16) -> Result<Vec<String>, String> {
    let answer = get(port, "/api/v1/alerts").await.map_err(|error| format!("{error:#}"))?;
    let answer: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
    let alerts = answer["data"]["alerts"].as_array().ok_or("no alerts")?;
    let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
    Ok(firing.filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect())
}

async fn get(port: u16, path: &str) -> Result<String> {
    use http_body_util::BodyExt;
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request =
        http::Request::get(path).header("host", "prometheus").body(http_body_util::Empty::<bytes::Bytes>::new())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}

pub async fn a_dangling_validator_is_alerted_of() -> Result<()> {
    let plane = ControlPlane::start(Options::default()).await?;
    let folder = plane.folder().to_owned();
    let mut install = helm();
    install.env("KUBECONFIG", plane.kubeconfig()).args(["install", RELEASE]).arg(chart());
    install.args(["--namespace", NAMESPACE, "--create-namespace", "--set", "mode=audit"]);
    let installed = tokio::task::spawn_blocking(move || install.output()).await??;
    ensure!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));

    let (metrics, web) = (free_port()?, free_port()?);
    let policy = folder.join("policy.yaml");
    std::fs::write(&policy, "mode: audit\n")?;
    let mut command = Command::new(PROGRAM);
    command.env_clear().current_dir(&folder).args(["controller", "--namespace", NAMESPACE, "--release", RELEASE]);
    command.arg("--kubeconfig").arg(plane.kubeconfig_of_service_account(NAMESPACE, "revguard-controller").await?);
    command.arg("--config").arg(&policy).args(["--certificates", "external", "--audit-interval", "1s"]);
    command.args(["--health-listen", &format!("127.0.0.1:{metrics}"), "--log-format", "json"]);
    let mut controller = Process::spawn("controller", command, folder.join("controller.log"))?;

    std::fs::write(folder.join("alerts.yaml"), rules())?;
    let config = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [{"job_name": "revguard", "static_configs": [
            {"targets": [format!("127.0.0.1:{metrics}")], "labels": {"component": "controller"}}]}],
    });
    std::fs::write(folder.join("prometheus.yml"), config.to_string())?;
    let mut command = program("prometheus", "prometheus");
    command.current_dir(&folder).args(["--config.file=prometheus.yml", "--storage.tsdb.path=prometheus"]);
    command.arg(format!("--web.listen-address=127.0.0.1:{web}"));
    let mut prometheus = Process::spawn("prometheus", command, folder.join("prometheus.log"))?;

    // Before: the controller leads and audits, and nothing is said of validators.
    let query =
        "/api/v1/query?query=revguard_audit_last_success_seconds%20%3E%200%20and%20revguard_leader%20%3D%3D%201";
    let running =
        |controller: &mut Process, prometheus: &mut Process| controller.check().and_then(|()| prometheus.check());
    wait_until(SOON, "an answer of Prometheus", || async {
        get(web, "/-/ready").await.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await
    .or_else(|late| running(&mut controller, &mut prometheus).and(Err(late)))?;
    running(&mut controller, &mut prometheus)?;
    wait_until(SOON, "an audit that Prometheus has seen", || async {
        let seen = get(web, query).await.map_err(|error| format!("{error:#}"))?;
        if seen.contains("\"value\"") { Ok(()) } else { Err(seen) }
    })
    .await?;
    let before = firing(web).await.map_err(anyhow::Error::msg)?;
    ensure!(!before.iter().any(|name| name == ALERT), "it fires before there is a reason: {before:?}");

    let mut scope = Scope::new(&plane);
    scope.apply(&[left_behind()]).await?;
    wait_until(SOON, "the alert", || async {
        let firing = firing(web).await?;
        if firing.iter().any(|name| name == ALERT) { Ok(()) } else { Err(format!("{firing:?}")) }
    })
    .await?;
    // And it was right: nobody can write Istio configuration any more.
    let gone = plane.kubectl(&["delete", "validatingwebhookconfiguration", "istiod-default-validator"]).await?;
    ensure!(gone.status.success(), "{}", String::from_utf8_lossy(&gone.stderr));
    wait_until(SOON, "the end of the alert", || async {
        let firing = firing(web).await?;
        if firing.iter().any(|name| name == ALERT) { Err(format!("{firing:?}")) } else { Ok(()) }
    })
    .await?;
    running(&mut controller, &mut prometheus).context("both still run")
}

const ALERT: &str = "RevguardValidatorDangling";
