//! Rollouts there and back under load, with a controller that dies on the way, and revisions that are no good.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Method;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::by_hand;
use super::course::{Course, clean, spec, text};
use super::kill::Armed;
use super::stage::{self, BOTH, CUSTOM, Gateway, HELM, Listeners, NEW, OLD, SOON};
use super::traffic::{LONG, Tally, Traffic};
use super::watch::Watch;
use crate::harness::figures;
use crate::harness::guard::Guard;
use crate::harness::machine::Machine;
use crate::harness::metrics;
use crate::harness::raw::{As, send};
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(Switch, both_shapes_go_there_and_back_under_load_while_the_controller_dies)]
}

/// Where the controller dies in the short profile: each sort of write that takes something away, adds something or hands it over.
const FEW: [&str; 5] = [
    "rollout-create-canary:after",
    "rollout-autoscale:after",
    "rollout-set-apart:after",
    "rollout-drop-apart:before",
    "rollout-remember:after:4",
];

async fn both_shapes_go_there_and_back_under_load_while_the_controller_dies(machine: &'static Machine) -> Result<()> {
    Guard::installed(machine, &[]).await?;
    stage::on(machine, there_and_back(machine)).await
}

async fn there_and_back(machine: &'static Machine) -> Result<()> {
    let places: Vec<String> = FEW.iter().map(|place| (*place).to_owned()).collect();
    let control = by_hand::in_place(machine).await?;
    let armed = Armed::at(machine, &places).await?;
    let came = loaded(machine).await;
    let killed = armed.disarm().await;
    let (tally, killed) = (came?, killed?);
    moved(&tally)?;
    figures::write(
        "rollout",
        &json!({
            "rollouts": 4, "killed": killed, "places": places, "streams": tally.json(),
            "sent": tally.sent(), "lost": tally.lost(), "control_sent": control.sent(), "control_lost": control.lost(),
        }),
    )
}

async fn loaded(machine: &'static Machine) -> Result<Tally> {
    let watch = Watch::start(machine, &BOTH).await?;
    let traffic = Traffic::start(machine, &BOTH).await?;
    let came = both(tokio::join!(custom(machine, true), helm(machine)));
    let tally = traffic.finish().await?;
    tally.none_lost("both gateways there and back")?;
    came?;
    watch.held("both gateways there and back")?;
    Ok(tally)
}

/// What became of one gateway does not hide what became of the other.
pub fn both((one, other): (Result<()>, Result<()>)) -> Result<()> {
    match (one, other) {
        (Err(one), Err(other)) => Err(anyhow::anyhow!("{one:#}\n\nand {other:#}")),
        (one, other) => one.and(other),
    }
}

/// Both revisions answered on each gateway.
fn moved(tally: &Tally) -> Result<()> {
    for report in &tally.streams {
        for revision in [OLD, NEW] {
            ensure!(report.by.contains_key(revision), "{}: {revision} answered nothing: {:?}", report.name, report.by);
        }
    }
    Ok(())
}

/// There, with the original's name in the end; and back with a rollout of its own. `disturbed`: the one is paused while it drains, and the API
/// server is restarted while the other does.
pub async fn custom(machine: &'static Machine, disturbed: bool) -> Result<()> {
    let there = Course::to_new(machine, CUSTOM).await?;
    if disturbed {
        there.phase("Draining").await?;
        paused(machine, &there).await?;
    }
    let done = there.phase("Completed").await?;
    println!("{}: {}", there.name, there.seen());
    is_on(machine, CUSTOM, CUSTOM.name, NEW).await?;
    ensure!(condition(&done, "RollbackAvailable") == "True", "{}", done["status"]);
    let standby = stage::get(machine, CUSTOM.namespace, "deployment", &format!("{}-{OLD}", CUSTOM.name)).await?;
    ensure!(standby["spec"]["replicas"] == 0, "the standby has pods");
    // Nobody wants to go back to it any more: with the object goes the standby, whose name the next rollout needs.
    there.delete().await?;
    let back = Course::begin(machine, CUSTOM, &format!("{}-{OLD}", CUSTOM.name), &spec(CUSTOM, OLD)).await?;
    if disturbed {
        back.phase("Draining").await?;
        machine.restart("apiserver")?;
    }
    back.phase("Completed").await?;
    println!("{}: {}", back.name, back.seen());
    is_on(machine, CUSTOM, CUSTOM.name, OLD).await?;
    back.delete().await?;
    clean(machine, CUSTOM).await
}

/// There and back, and then revisions that are no good.
async fn helm(machine: &'static Machine) -> Result<()> {
    helm_there_and_back(machine).await?;
    refused(machine, HELM, Listeners::Rejected).await?;
    refused(machine, HELM, Listeners::Silent).await
}

/// There, under a name of its own, and back by `abort` after the end.
pub async fn helm_there_and_back(machine: &'static Machine) -> Result<()> {
    let there = Course::to_new(machine, HELM).await?;
    there.phase("Completed").await?;
    is_on(machine, HELM, &format!("{}-{NEW}", HELM.name), NEW).await?;
    there.abort().await?;
    there.phase("RolledBack").await?;
    println!("{}: {}", there.name, there.seen());
    is_on(machine, HELM, HELM.name, OLD).await?;
    clean(machine, HELM).await?;
    there.delete().await
}

/// A new revision that is no good: before anything is routed to it, it is gone again by itself.
async fn refused(machine: &'static Machine, gateway: Gateway, tells: Listeners) -> Result<()> {
    stage::istiod(machine, NEW, &[(gateway, tells)]).await?;
    let mut asked = spec(gateway, NEW);
    asked["probe"]["timeout"] = json!("20s");
    let course = Course::begin(machine, gateway, &format!("{}-{}", gateway.name, tells.as_str()), &asked).await?;
    if tells == Listeners::Rejected {
        let rejected = rejections(machine, &course).await?;
        println!("{}: lds_update_rejected {rejected}, as the probe's Envoy counts", course.name);
    }
    let over = course.phase("RolledBack").await?;
    println!("{}: {}", course.name, course.seen());
    ensure!(text(&over, "/status/rollback/reason") == "ProbeFailed", "{}", over["status"]);
    println!("{}: {}", course.name, text(&over, "/status/rollback/message"));
    is_on(machine, gateway, gateway.name, OLD).await?;
    clean(machine, gateway).await?;
    course.delete().await?;
    stage::istiod(machine, NEW, &[]).await
}

/// While it is paused nothing of the gateway is changed but that pods set apart end.
pub async fn paused(machine: &'static Machine, course: &Course) -> Result<()> {
    course.change(json!({"paused": true})).await?;
    let user = |object: &Value| {
        if text(object, "/status/pause/reason") == "User" { Ok(()) } else { Err("not paused yet".to_owned()) }
    };
    course.until("a pause", SOON, user).await?;
    let before = state(machine, course.gateway).await?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let now = state(machine, course.gateway).await?;
        ensure!(now == before, "{} is paused and goes on: {before}\n{now}", course.name);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    course.change(json!({"paused": false})).await
}

/// Specs of whatever scales or makes the gateway's pods.
async fn state(machine: &Machine, gateway: Gateway) -> Result<Value> {
    let kinds = "deployments,horizontalpodautoscalers";
    let said = machine.kubectl(&["get", kinds, "-n", gateway.namespace, "-o", "json"], "").await?.passed()?;
    let list: Value = serde_json::from_str(&said)?;
    let all = list["items"].as_array().context("items")?.iter();
    Ok(all.map(|object| json!({"name": object["metadata"]["name"], "spec": object["spec"]})).collect())
}

/// What the Envoy of the probe pod says of its listeners, asked by us.
async fn rejections(machine: &'static Machine, course: &Course) -> Result<f64> {
    let gateway = course.gateway;
    wait_until(Duration::from_secs(90), "an Envoy that rejects its listeners", || async {
        let pods =
            stage::pods(machine, gateway.namespace, "revguard.dev/rollout").await.map_err(|e| format!("{e:#}"))?;
        let names = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str());
        let probe = names.into_iter().find(|name| name.contains("-probe-")).ok_or("no probe pod")?;
        match statistic(machine, gateway, probe, "envoy_listener_manager_lds_update_rejected").await {
            Ok(count) if count > 0.0 => Ok(count),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// What a pod's Envoy counts, asked through the API server.
async fn statistic(machine: &Machine, gateway: Gateway, pod: &str, name: &str) -> Result<f64> {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}:15090/proxy/stats/prometheus", gateway.namespace);
    let answer = send(&machine.client().await?, Method::GET, &path, None, &As::default()).await?;
    ensure!(answer.ok(), "{path}: {} {}", answer.status, answer.message());
    metrics::sum(answer.message(), name, &[])
}

/// Connections that are open on a pod now.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
pub async fn connections(machine: &Machine, gateway: Gateway, pod: &str) -> Result<u64> {
    Ok(statistic(machine, gateway, pod, "envoy_server_total_connections").await? as u64)
}

/// The gateway's pods are the Deployment's, on this revision, as many as before, and the autoscaler scales it. Pods set apart may take their time.
pub async fn is_on(machine: &Machine, gateway: Gateway, deployment: &str, revision: &str) -> Result<()> {
    let what = format!("{} on {revision} by Deployment {deployment} alone", gateway.name);
    wait_until(LONG + SOON, &what, || async {
        let looked = look(machine, gateway, deployment, revision).await.map_err(|error| format!("{error:#}"));
        if looked.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        looked
    })
    .await
}

async fn look(machine: &Machine, gateway: Gateway, deployment: &str, revision: &str) -> Result<()> {
    let object = stage::get(machine, gateway.namespace, "deployment", deployment).await?;
    ensure!(
        object["status"]["readyReplicas"] == gateway.replicas && object["spec"]["replicas"] == gateway.replicas,
        "{deployment}: {}",
        object["status"]
    );
    let pods = stage::pods(machine, gateway.namespace, &format!("istio={}", gateway.name)).await?;
    let revisions: Vec<&str> = pods.iter().map(|pod| text(pod, "/metadata/annotations/istio.io~1rev")).collect();
    ensure!(
        revisions.len() == gateway.replicas && revisions.iter().all(|found| *found == revision),
        "pods: {revisions:?}"
    );
    if gateway == HELM {
        let hpa = stage::get(machine, gateway.namespace, "hpa", gateway.name).await?;
        let spec = &hpa["spec"];
        ensure!(
            spec["scaleTargetRef"]["name"] == deployment && spec["minReplicas"] == 2 && spec["maxReplicas"] == 5,
            "{spec}"
        );
    }
    Ok(())
}

fn condition<'a>(object: &'a Value, name: &str) -> &'a str {
    let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().find(|c| c["type"] == name).map_or("", |c| c["status"].as_str().unwrap_or_default())
}
