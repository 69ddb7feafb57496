//! One controller leads; when it is gone another does, and a Lease of somebody who is dead is taken.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::harness::figures;
use crate::harness::guard::{CONTROLLER, Guard, NAMESPACE};
use crate::harness::machine::Machine;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(Cluster, a_deleted_leader_is_replaced_and_a_dead_holder_loses_the_lease)]
}

/// A Lease lasts 15 s, and the other looks every 3 s.
const TAKEN: Duration = Duration::from_secs(60);

fn leases(guard: &Guard) -> Api<Lease> {
    Api::namespaced(guard.client.clone(), NAMESPACE)
}

async fn holder(guard: &Guard) -> Result<String> {
    let lease = leases(guard).get(CONTROLLER).await?;
    lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .filter(|holder| !holder.is_empty())
        .context("nobody holds the Lease")
}

/// The leader, and the pod that it is called by: one that is there, and not one that an upgrade has just ended.
async fn leader(guard: &Guard) -> Result<(String, String)> {
    wait_until(TAKEN, "a leader that lives", || async {
        let holder = holder(guard).await.map_err(|error| format!("{error:#}"))?;
        // A holder is called by its pod and a number of its process.
        let pod = holder.split('_').next().unwrap_or_default().to_owned();
        match guard.pods().get(&pod).await {
            Ok(found) if found.metadata.deletion_timestamp.is_none() => Ok((holder, pod)),
            other => Err(format!("{holder}: {:?}", other.map(|pod| pod.metadata.deletion_timestamp))),
        }
    })
    .await
}

/// Waits until somebody leads who is not `former`, and says how long that took.
async fn next(guard: &Guard, former: &str) -> Result<(String, Duration)> {
    let began = Instant::now();
    let holder = wait_until(TAKEN, "another leader", || async {
        match holder(guard).await {
            Ok(holder) if holder != former => Ok(holder),
            Ok(holder) => Err(holder),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await?;
    Ok((holder, began.elapsed()))
}

async fn a_deleted_leader_is_replaced_and_a_dead_holder_loses_the_lease(machine: &'static Machine) -> Result<()> {
    let guard = Guard::installed(machine, &[]).await?;
    let (first, pod) = leader(&guard).await?;
    // It gives the Lease back when it is asked to end.
    guard.pods().delete(&pod, &DeleteParams::default().grace_period(0)).await.with_context(|| first.clone())?;
    let (second, deleted) = next(&guard, &first).await?;
    ensure!(!second.starts_with(&pod), "{first} was replaced by {second}");

    // A machine that died with the Lease: nobody of that name will ever renew it.
    guard.scale(CONTROLLER, 0).await?;
    let now = k8s_openapi::jiff::Timestamp::now();
    let dead = json!({"spec": {"holderIdentity": "dead_0", "leaseDurationSeconds": 15, "renewTime": format!("{now:.6}"), "acquireTime": format!("{now:.6}")}});
    leases(&guard).patch(CONTROLLER, &PatchParams::default(), &Patch::Merge(&dead)).await?;
    let began = Instant::now();
    guard.scale(CONTROLLER, 2).await?;
    let (third, _) = next(&guard, "dead_0").await?;
    let taken = began.elapsed();
    ensure!(third.starts_with(CONTROLLER), "{third}");
    figures::write(
        "leader",
        &json!({"deleted_replaced_seconds": deleted.as_secs(), "dead_replaced_seconds": taken.as_secs()}),
    )
}
