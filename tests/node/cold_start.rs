//! From zero: nothing runs, every webhook fails closed, and the cluster comes back by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use libtest_mimic::Trial;
use serde_json::json;

use crate::disruption::CLOSED;
use crate::harness::figures;
use crate::harness::guard::Guard;
use crate::harness::load::Load;
use crate::harness::machine::Machine;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(Switch, a_cluster_without_a_pod_starts_with_every_webhook_closed)]
}

async fn a_cluster_without_a_pod_starts_with_every_webhook_closed(machine: &'static Machine) -> Result<()> {
    let guard = Guard::installed(machine, &CLOSED).await?;
    crate::disruption::target(&guard).await?;
    closed(machine).await?;

    // Nobody makes new ones while they go, and the node is forgotten with them.
    machine.kill("controller-manager")?;
    machine.kill("scheduler")?;
    machine.kill("kubelet")?;
    let client = machine.client().await?;
    let pods: Api<Pod> = Api::all(client.clone());
    let lost = owned(&pods).await?;
    let count: usize = lost.values().sum();
    ensure!(count >= 4, "only {count} pods were there: {lost:?}");
    // Again, until none is left: one that was being made or ended at that moment is no reason to fail.
    wait_until(Duration::from_secs(30), "no pod", || async {
        let left = pods.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
        for pod in &left {
            let of: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
            let gone = of.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
            println!(
                "deleted {}: {}",
                pod.name_any(),
                gone.map_or_else(|error| error.to_string(), |_| "gone".to_owned())
            );
        }
        if left.is_empty() { Ok(()) } else { Err(format!("{} pods", left.len())) }
    })
    .await?;
    let nodes: Api<Node> = Api::all(client.clone());
    for node in nodes.list(&ListParams::default()).await? {
        nodes.delete(&node.name_any(), &DeleteParams::default()).await?;
    }
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    machine.power_cut()?;

    let began = Instant::now();
    // It waits for the node and for DNS, and does nothing for them.
    machine.up()?;
    let (node, guard) = (began.elapsed(), Guard { machine, client: machine.client().await? });
    guard.settled().await?;
    let ours = began.elapsed();
    wait_until(Duration::from_secs(60), "a refusal", || async {
        let load = Load::start(machine).await.map_err(|error| format!("{error:#}"))?;
        load.more(40).await.map_err(|error| format!("{error:#}"))?;
        let tally = load.finish().await.map_err(|error| format!("{error:#}"))?;
        if tally.lost == 0 { Ok(()) } else { Err(format!("{tally:?}")) }
    })
    .await?;
    let pods = Api::<Pod>::all(guard.client.clone());
    wait_until(Duration::from_secs(60), "as many pods of each owner as before", || async {
        let now = owned(&pods).await.map_err(|error| format!("{error:#}"))?;
        let fewer = lost.iter().find(|(owner, count)| now.get(*owner).unwrap_or(&0) < *count);
        if fewer.is_none() { Ok(()) } else { Err(format!("{lost:?} before, {now:?} now")) }
    })
    .await?;
    figures::write(
        "cold-start",
        &json!({"pods_lost": count, "node_and_dns_seconds": node.as_secs(), "guard_seconds": ours.as_secs()}),
    )
}

/// Pods that are not ending, counted by whoever makes them anew: what nobody answers for does not come back.
async fn owned(pods: &Api<Pod>) -> Result<BTreeMap<String, usize>> {
    let mut owned = BTreeMap::new();
    for pod in pods.list(&ListParams::default()).await? {
        let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
        if let (Some(owner), None) = (controller, &pod.metadata.deletion_timestamp) {
            let name = format!("{}/{} {}", pod.namespace().unwrap_or_default(), owner.kind, owner.name);
            *owned.entry(name).or_default() += 1;
        }
    }
    Ok(owned)
}

/// It is no test of closed webhooks if one is open.
async fn closed(machine: &'static Machine) -> Result<()> {
    let path = "jsonpath={.items[*].webhooks[*].failurePolicy}";
    let label = "app.kubernetes.io/name=revguard";
    let found = machine
        .kubectl(&["get", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "-l", label, "-o", path], "")
        .await?
        .passed()?;
    ensure!(!found.is_empty() && found.split(' ').all(|policy| policy == "Fail"), "{found:?}");
    Ok(())
}
