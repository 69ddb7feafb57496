//! `revguard report`: what replicas count reaches a person, once, and exemptions with it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Env, HOME, SOON};
use crate::harness::binary::{Binary, PROGRAM, Secret, connect};
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(ApiServer, a_week_is_counted_once_and_reported)]
}

/// A namespace with both labels, as the API server would ask about it.
fn review(user: &str, dry_run: bool) -> String {
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "4b7e1d5c-0000-4000-8000-000000000000",
            "kind": {"group": "", "version": "v1", "kind": "Namespace"},
            "resource": {"group": "", "version": "v1", "resource": "namespaces"},
            "name": "both", "operation": "CREATE", "userInfo": {"username": user}, "dryRun": dry_run,
            "object": {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "both",
                "labels": {"istio-injection": "enabled", "istio.io/rev": "prod"}}},
        },
    })
    .to_string()
}

async fn ask(binary: &Binary, secret: &Secret, body: &str) -> Result<Value> {
    let mut stream = connect(binary.address, secret).await?;
    let head = format!(
        "POST /validate HTTP/1.1\r\nHost: revguard\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(serde_json::from_str(text.split_once("\r\n\r\n").context("an answer")?.1)?)
}

/// The pod that a replica would be.
async fn pod(env: &Env, name: &str, binary: &Binary) -> Result<()> {
    let pods = format!("/api/v1/namespaces/{HOME}/pods");
    let ports = json!([
        {"name": "https", "containerPort": binary.address.port()},
        {"name": "metrics", "containerPort": binary.health.port()},
    ]);
    let labels = json!({"app.kubernetes.io/name": "revguard", "app.kubernetes.io/component": "webhook"});
    env.create(
        &pods,
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "revguard", "image": "revguard", "ports": ports}]},
        }),
    )
    .await?;
    let status = json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    env.merge(&format!("{pods}/{name}/status"), status).await.map(drop)
}

const EXEMPT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: legacy, annotations: {revguard.dev/allow: 'NS001: until the team is back until=2099-01-31'}}
";

async fn a_week_is_counted_once_and_reported() -> Result<()> {
    let env = Env::start().await?;
    env.apply(EXEMPT).await?;
    let secret = Secret::new(env.plane.folder())?;
    let account = env.plane.kubeconfig_of_service_account(HOME, "revguard-webhook").await?;
    let audit = env.plane.folder().join("audit-mode.yaml");
    std::fs::write(&audit, "mode: audit\n")?;
    let enforcing = Binary::start(env.plane.folder(), &account, &secret, &[]).await?;
    let config = audit.to_string_lossy().into_owned();
    let recording = Binary::start(env.plane.folder(), &account, &secret, &["--config", &config]).await?;
    for (name, binary) in [("one", &enforcing), ("two", &recording)] {
        binary.ready().await?;
        pod(&env, name, binary).await?;
    }
    ensure!(ask(&enforcing, &secret, &review("jane", false)).await?["response"]["allowed"] == false, "not denied");
    ensure!(ask(&enforcing, &secret, &review("jane", true)).await?["response"]["allowed"] == false, "not denied");
    for _ in 0..3 {
        ensure!(ask(&recording, &secret, &review("argo", false)).await?["response"]["allowed"] == true, "denied");
    }
    let controller = env.controller("", &["--certificates", "external"]).await?;
    controller.leads().await?;
    let map = format!("/api/v1/namespaces/{HOME}/configmaps/revguard-report");
    let week = |m: &Value| -> Value {
        serde_json::from_str(m["data"]["week.json"].as_str().unwrap_or("{}")).unwrap_or_default()
    };
    env.until(SOON, &map, "both replicas and the exemption", |m| {
        week(m)["counts"].as_array().is_some_and(|c| c.len() == 2) && week(m)["exemptions"][0]["code"] == "NS001"
    })
    .await?;
    ask(&recording, &secret, &review("argo", false)).await?;
    let after = env
        .until(SOON, &map, "another one", |m| {
            week(m)["counts"].as_array().is_some_and(|c| c.iter().any(|c| c["writer"] == "argo" && c["count"] == 4))
        })
        .await?;
    // Some collections later nothing has been counted twice, and nothing was written for nothing.
    controller.audits(2).await?;
    ensure!(
        env.get(&map).await?["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"],
        "written again"
    );

    let run = |more: &[&str]| -> Result<String> {
        let kubeconfig = env.plane.kubeconfig();
        let output = Command::new(PROGRAM).arg("report").arg("--kubeconfig").arg(kubeconfig).args(more).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let text = run(&[])?;
    println!("{}", text.trim_end());
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = text.lines().map(words).collect();
    for line in [
        "NS001 both-labels 1 0 0 0 jane",
        "NS001 both-labels 0 4 0 0 argo",
        "2099-01-31 NS001 Namespace legacy until the team is back",
    ] {
        ensure!(lines.iter().any(|l| l == line), "no {line:?} in\n{text}");
    }
    let value: Value = serde_json::from_str(&run(&["-o", "json"])?)?;
    ensure!(value["counts"].as_array().is_some_and(|c| c.len() == 2), "{value}");
    let mut command = Command::new(PROGRAM);
    command.arg("report").arg("--kubeconfig").arg(env.plane.kubeconfig()).args(["-n", "default"]);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && said.contains("--namespace and --release"), "{said}");
    Ok(())
}
