//! Pods come and go while the API server calls, and no call is lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{EvictParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use libtest_mimic::Trial;
use serde_json::json;

use crate::harness::figures;
use crate::harness::guard::{Guard, WEBHOOK};
use crate::harness::load::{Load, TARGET, Tally};
use crate::harness::machine::Machine;
use crate::harness::wait::wait_until;
use crate::trial::{prove, trial};

pub fn tests() -> Vec<Trial> {
    vec![trial!(Cluster, rolling_restarts_and_evictions_lose_no_call)]
}

/// Calls to be made in all, at least.
fn calls() -> u64 {
    if prove() { 100_000 } else { 10_000 }
}

fn restarts() -> u32 {
    if prove() { 20 } else { 3 }
}

/// Every group fails closed, so that a lost call cannot pass unseen.
pub const CLOSED: [&str; 2] = [
    "--set",
    "webhooks.namespaces.failurePolicy=Fail,webhooks.workloads.failurePolicy=Fail,webhooks.gateways.failurePolicy=Fail,\
     webhooks.controlPlane.failurePolicy=Fail,webhooks.config.failurePolicy=Fail,webhooks.mutations.failurePolicy=Fail",
];

/// What updates are tried on.
pub async fn target(guard: &Guard) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(guard.client.clone());
    if namespaces.get_opt(TARGET).await?.is_none() {
        let metadata = ObjectMeta { name: Some(TARGET.to_owned()), ..ObjectMeta::default() };
        namespaces.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await?;
    }
    Ok(())
}

async fn rolling_restarts_and_evictions_lose_no_call(machine: &'static Machine) -> Result<()> {
    let guard = Guard::installed(machine, &CLOSED).await?;
    target(&guard).await?;
    let before = guard.failed_calls().await?;
    let load = Load::start(machine).await?;

    let shares = spread(&guard, &load, 2_000).await?;
    for _ in 0..restarts() {
        restart(&guard).await?;
        guard.settled().await?;
    }
    let after_restarts = load.calls();
    let evicted = evict_all(&guard).await?;
    // The rest in quiet, so that the sum is what is claimed.
    load.until(calls()).await?;
    let last = spread(&guard, &load, 2_000).await?;
    let tally = load.finish().await?;
    tally.none_lost("rolling restarts and evictions")?;
    let after = guard.failed_calls().await?;
    ensure!(before == after, "the API server counts failed calls: {before:?}, then {after:?}");

    let control = control(machine, &guard).await?;
    control.some_lost("a rolling restart without a drain")?;
    figures::write(
        "disruption",
        &json!({
            "calls": tally.calls, "refused": tally.refused, "lost": tally.lost,
            "rolling_restarts": restarts(), "calls_during_restarts": after_restarts, "evictions": evicted,
            "smallest_share": shares.min(last),
            "control_calls": control.calls, "control_lost": control.lost,
        }),
    )
}

/// As `kubectl rollout restart` does.
async fn restart(guard: &Guard) -> Result<()> {
    let stamp = guard.machine.kubectl(&["-n", "revguard-system", "rollout", "restart", "deployment", WEBHOOK], "");
    stamp.await?.passed().map(drop)
}

/// The smallest part of so many calls that a replica has answered. Each must answer a fifth at least: the API server dials anew, and the
/// Service spreads what it dials.
async fn spread(guard: &Guard, load: &Load, calls: u64) -> Result<f64> {
    let before = guard.answers().await?;
    let mut smallest = 0.0;
    // Connections live for a while, so that chance needs more than one of them a place.
    for _ in 0..5 {
        load.more(calls).await?;
        let after = guard.answers().await?;
        ensure!(before.keys().eq(after.keys()), "other replicas: {before:?}, {after:?}");
        let counts: Vec<f64> = after.iter().map(|(pod, count)| count - before[pod]).collect();
        smallest = counts.iter().copied().fold(f64::INFINITY, f64::min) / counts.iter().sum::<f64>();
        println!("answers of each replica: {counts:?}");
        if smallest >= 0.2 {
            break;
        }
    }
    ensure!(smallest >= 0.2, "a replica answered less than a fifth: {smallest}");
    Ok(smallest)
}

/// As `kubectl drain` does, on the one node that there is: nothing new is put on it, a pod is evicted, a second one is refused, and the
/// node takes pods again.
async fn evict_all(guard: &Guard) -> Result<u32> {
    let mut evicted = 0;
    for pod in guard.replicas().await? {
        cordon(guard, true).await?;
        let done = evict(guard, &pod).await;
        // Whatever came of it: nothing starts on a node that stays cordoned.
        cordon(guard, false).await?;
        done?;
        evicted += 1;
        guard.settled().await?;
    }
    Ok(evicted)
}

async fn evict(guard: &Guard, pod: &Pod) -> Result<()> {
    // The budget may not have counted yet who is ready again; a drain asks again as well.
    wait_until(Duration::from_secs(60), "an eviction", || async {
        let evicted = guard.pods().evict(&pod.name_any(), &EvictParams::default()).await;
        evicted.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    let other = guard.replicas().await?.into_iter().find(|other| ready(other) && other.uid() != pod.uid());
    let other = other.context("another replica that is ready")?;
    match guard.pods().evict(&other.name_any(), &EvictParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 429 => {
            ensure!(status.message.contains("disruption budget"), "{}", status.message);
            Ok(())
        }
        other => anyhow::bail!("a second eviction was not refused: {other:?}"),
    }
}

pub fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn cordon(guard: &Guard, unschedulable: bool) -> Result<()> {
    let nodes: Api<Node> = Api::all(guard.client.clone());
    for node in nodes.list(&ListParams::default()).await? {
        let patch = json!({"spec": {"unschedulable": unschedulable}});
        nodes.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    Ok(())
}

/// Pods that end at once.
pub const NO_DRAIN: [&str; 2] = ["--set", "webhook.drainSeconds=0"];

/// The same load over a rolling restart of pods that end at once. They are left so: the next test is of an upgrade, and its control
/// needs them.
async fn control(machine: &'static Machine, guard: &Guard) -> Result<Tally> {
    guard.upgrade(&[CLOSED, NO_DRAIN].concat()).await?;
    guard.settled().await?;
    let load = Load::start(machine).await?;
    load.more(400).await?;
    wait_until(Duration::from_secs(300), "a loss", || async {
        restart(guard).await.map_err(|error| format!("{error:#}"))?;
        guard.settled().await.map_err(|error| format!("{error:#}"))?;
        if load.lost() > 0 { Ok(()) } else { Err(format!("{} calls, none lost", load.calls())) }
    })
    .await?;
    load.finish().await
}
