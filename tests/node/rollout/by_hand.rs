//! The bench itself: the same load over an update in place, which must lose, and over pods that somebody sets apart with kubectl, which
//! must not. No controller has a hand in it.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::stage::{self, BOTH, CUSTOM, Gateway, HELM, NEW, SOON};
use super::traffic::{LONG, Tally, Traffic};
use crate::harness::figures;
use crate::harness::machine::Machine;
use crate::harness::wait::wait_until;
use crate::trial::{prove, trial};

pub fn tests() -> Vec<Trial> {
    // `moves` has the same control; the short profile counts it once.
    if !prove() {
        return Vec::new();
    }
    vec![trial!(Cluster, in_place_loses_long_requests_and_set_apart_by_hand_loses_none)]
}

async fn in_place_loses_long_requests_and_set_apart_by_hand_loses_none(machine: &'static Machine) -> Result<()> {
    stage::on(machine, on_stage(machine)).await
}

async fn on_stage(machine: &'static Machine) -> Result<()> {
    let control = in_place(machine).await?;
    let gateways: &[Gateway] = if prove() { &BOTH } else { &[HELM] };
    let mut apart = Vec::new();
    for gateway in gateways {
        apart.push(set_apart(machine, *gateway).await?);
    }
    let lost: u64 = apart.iter().map(Tally::lost).sum();
    figures::write(
        "rollout-by-hand",
        &json!({
            "gateways": gateways.len(), "sent": apart.iter().map(Tally::sent).sum::<u64>(), "lost": lost,
            "control_sent": control.sent(), "control_lost": control.lost(), "control_lost_long": control.only("long").lost(),
        }),
    )
}

/// Both gateways restart their Deployments, as `helm upgrade` and `kubectl apply` of a new revision do.
pub async fn in_place(machine: &'static Machine) -> Result<Tally> {
    let traffic = Traffic::start(machine, &BOTH).await?;
    for gateway in BOTH {
        let name = format!("deployment/{}", gateway.name);
        machine.kubectl(&["rollout", "restart", &name, "-n", gateway.namespace], "").await?.passed()?;
    }
    for gateway in BOTH {
        stage::settled(machine, gateway).await?;
    }
    // Each of the former pods drains after its hook, and then cuts what is left.
    wait_until(SOON, "a loss on each gateway", || async {
        let reports = traffic.reports().await.map_err(|error| format!("{error:#}"))?;
        let long = reports.iter().filter(|report| report.name.ends_with("/long"));
        let lost: Vec<u64> = long.map(|report| report.lost).collect();
        if lost.iter().all(|lost| *lost > 0) { Ok(()) } else { Err(format!("lost: {lost:?}")) }
    })
    .await?;
    let tally = traffic.finish().await?;
    tally.some_lost("an update in place")?;
    Ok(tally)
}

/// A second Deployment on the new revision, then the old pods leave the Service, finish, and are deleted.
async fn set_apart(machine: &'static Machine, gateway: Gateway) -> Result<Tally> {
    let Gateway { namespace, name, .. } = gateway;
    let traffic = Traffic::start(machine, &[gateway]).await?;
    let old = stage::pods(machine, namespace, &format!("istio={name}")).await?;
    ensure!(old.len() == gateway.replicas, "{} pods", old.len());

    if gateway == CUSTOM {
        stage::copy_config(machine, NEW).await?;
    }
    let canary = canary(&stage::get(machine, namespace, "deployment", name).await?, gateway)?;
    machine.kubectl(&["apply", "-f", "-"], &canary.to_string()).await?.passed()?;
    let other = format!("deployment/{name}-{NEW}");
    machine.kubectl(&["rollout", "status", &other, "-n", namespace, "--timeout=120s"], "").await?.passed()?;
    wait_until(SOON, "answers of the new revision", || async {
        let reports = traffic.reports().await.map_err(|error| format!("{error:#}"))?;
        if reports[0].by.contains_key(NEW) { Ok(()) } else { Err(format!("{:?}", reports[0].by)) }
    })
    .await?;

    let names: Vec<&str> = old.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    for pod in &names {
        let label = ["label", "pod", pod, "-n", namespace, "app=set-apart", "--overwrite"];
        machine.kubectl(&label, "").await?.passed()?;
    }
    let all = ["scale", &format!("deployment/{name}"), "-n", namespace, "--replicas=0"];
    machine.kubectl(&all, "").await?.passed()?;
    // What was under way when they left takes as long as it takes.
    tokio::time::sleep(LONG + LONG / 5).await;
    let delete = [&["delete", "pod", "-n", namespace, "--timeout=60s"], &names[..]].concat();
    machine.kubectl(&delete, "").await?.passed()?;
    let tally = traffic.finish().await?;
    tally.none_lost(&format!("{name}: pods set apart by hand"))?;
    let by_new: u64 = tally.streams.iter().filter_map(|report| report.by.get(NEW)).sum();
    ensure!(by_new > 0, "the new revision answered nothing");
    Ok(tally)
}

/// The second Deployment as a person writes it: another name, a selector that selects its own pods only, the new revision.
fn canary(source: &Value, gateway: Gateway) -> Result<Value> {
    let text = source["spec"]["template"].to_string().replace("1-23", NEW).replace("1.23.0", "1.24.0");
    let mut template: Value = serde_json::from_str(&text)?;
    let mut selector = source["spec"]["selector"]["matchLabels"].as_object().context("a selector")?.clone();
    selector.insert("by-hand".to_owned(), json!(NEW));
    template["metadata"]["labels"]["by-hand"] = json!(NEW);
    Ok(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": format!("{}-{NEW}", gateway.name), "namespace": gateway.namespace},
        "spec": {"replicas": gateway.replicas, "selector": {"matchLabels": selector}, "template": template},
    }))
}
