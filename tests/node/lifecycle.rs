//! An upgrade and the way back lose no call, and what is uninstalled is gone.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::ListParams;
use libtest_mimic::Trial;
use serde_json::json;

use crate::disruption::{CLOSED, NO_DRAIN, ready, target};
use crate::harness::figures;
use crate::harness::guard::{CONTROLLER, Guard, LATER, NAMESPACE, RELEASE, WEBHOOK, chart, helm_of};
use crate::harness::load::{Load, Tally};
use crate::harness::machine::Machine;
use crate::harness::programs;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn upgrade() -> Vec<Trial> {
    vec![trial!(Cluster, an_upgrade_and_a_rollback_lose_no_call)]
}

pub fn uninstall() -> Vec<Trial> {
    vec![trial!(Cluster, an_uninstall_needs_no_pod_and_leaves_nothing_behind)]
}

/// What the later version has and this one has not.
const MARK: &str = "A later version says it differently.";

/// The chart of a later version: another version, another image, another definition.
fn later_chart() -> Result<PathBuf> {
    let to = programs::target().join("later-chart");
    if to.exists() {
        std::fs::remove_dir_all(&to)?;
    }
    copy(&chart(), &to)?;
    let about = to.join("Chart.yaml");
    let text = std::fs::read_to_string(&about)?;
    let later = text.replace(&format!("ersion: {}\n", env!("CARGO_PKG_VERSION")), "ersion: 99.0.0\n");
    ensure!(later.matches("ersion: 99.0.0\n").count() == 2, "two versions in {text}");
    std::fs::write(about, later)?;
    let definition = to.join("templates/crds/meshstates.yaml");
    let text = std::fs::read_to_string(&definition)?;
    let begin = text.find("\"description\": \"").context("a description")? + "\"description\": \"".len();
    std::fs::write(definition, format!("{}{MARK} {}", &text[..begin], &text[begin..]))?;
    Ok(to)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

async fn marked(guard: &Guard) -> Result<bool> {
    let definitions: Api<CustomResourceDefinition> = Api::all(guard.client.clone());
    let definition = definitions.get("meshstates.revguard.dev").await?;
    Ok(serde_json::to_string(&definition.spec)?.contains(MARK))
}

/// Images of the webhook's pods that are ready, by the names that they were asked for: one image may have several.
async fn images(guard: &Guard) -> Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    for pod in guard.pods().list(&ListParams::default().labels("app.kubernetes.io/component=webhook")).await? {
        if ready(&pod) {
            found.extend(pod.spec.into_iter().flat_map(|spec| spec.containers).filter_map(|container| container.image));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// `helm upgrade` under the same load where the pods that it replaces end at once. It leaves the chart's drain behind.
async fn control(machine: &'static Machine) -> Result<(Guard, Tally)> {
    let hasty = [CLOSED, NO_DRAIN].concat();
    let guard = Guard::installed(machine, &hasty).await?;
    target(&guard).await?;
    let load = Load::start(machine).await?;
    load.more(400).await?;
    for attempt in 0..5 {
        if attempt > 0 {
            guard.upgrade(&hasty).await?;
            guard.settled().await?;
        }
        guard.upgrade(&CLOSED).await?;
        guard.settled().await?;
        if load.lost() > 0 {
            break;
        }
    }
    Ok((guard, load.finish().await?))
}

async fn an_upgrade_and_a_rollback_lose_no_call(machine: &'static Machine) -> Result<()> {
    let (guard, control) = control(machine).await?;
    control.some_lost("an upgrade of pods without a drain")?;
    ensure!(!marked(&guard).await?, "the later definition is there already");
    let before = guard.failed_calls().await?;
    let load = Load::start(machine).await?;
    load.more(400).await?;

    // Two versions beside each other, seen while Helm waits for the new one.
    let later = later_chart()?;
    let tag = format!("image.tag={LATER}");
    let values = [&CLOSED[..], &["--set", &tag]].concat();
    let upgrade = helm_of(&later, machine, &["upgrade", "--reset-values"], &values);
    let beside = wait_until(Duration::from_secs(240), "two versions side by side", || async {
        let found = images(&guard).await.map_err(|error| format!("{error:#}"))?;
        if found.len() == 2 { Ok(found) } else { Err(format!("{found:?}")) }
    });
    let (upgraded, beside) = tokio::join!(upgrade, beside);
    upgraded?.passed().context("helm upgrade")?;
    println!("side by side: {:?}", beside?);
    guard.settled().await?;
    ensure!(images(&guard).await?.iter().all(|image| image.ends_with(LATER)), "{:?}", images(&guard).await?);
    ensure!(marked(&guard).await?, "the definition has not followed the chart");
    load.more(400).await?;
    let upgraded = load.calls();

    machine.helm(&["rollback", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "4m"]).await?.passed()?;
    guard.settled().await?;
    ensure!(images(&guard).await?.iter().all(|image| !image.ends_with(LATER)), "{:?}", images(&guard).await?);
    ensure!(!marked(&guard).await?, "the definition has not come back");
    load.more(400).await?;
    let tally = load.finish().await?;
    tally.none_lost("an upgrade and a rollback")?;
    let after = guard.failed_calls().await?;
    ensure!(before == after, "the API server counts failed calls: {before:?}, then {after:?}");
    figures::write(
        "upgrade",
        &json!({
            "calls": tally.calls, "calls_until_upgraded": upgraded, "refused": tally.refused, "lost": tally.lost,
            "control_calls": control.calls, "control_lost": control.lost,
        }),
    )
}

async fn an_uninstall_needs_no_pod_and_leaves_nothing_behind(machine: &'static Machine) -> Result<()> {
    let guard = Guard::installed(machine, &CLOSED).await?;
    for deployment in [WEBHOOK, CONTROLLER] {
        guard.scale(deployment, 0).await?;
    }
    wait_until(Duration::from_secs(90), "no pod of ours", || async {
        let left = guard.pods().list(&ListParams::default()).await.map_err(|error| error.to_string())?.items.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} pods")) }
    })
    .await?;
    // Nobody answers, and the namespaces group fails closed.
    let write = ["create", "namespace", "while-away"];
    machine
        .kubectl(&["label", "namespace", "default", "istio-injection=disabled"], "")
        .await?
        .refused(&["failed calling webhook"])?;

    let began = Instant::now();
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(guard.client.clone());
    let order = async {
        // As long as the configuration is there, so is what it leads to.
        loop {
            let deployment = guard.deployments().get_opt(WEBHOOK).await?;
            // Asked second, so that a configuration which is there now was there a moment ago.
            if configurations.get_opt(RELEASE).await?.is_none() {
                return Ok(());
            }
            ensure!(deployment.is_some(), "the webhook's Deployment went before its configuration");
        }
    };
    let gone = machine.helm(&["uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "2m"]);
    let (order, gone) = tokio::join!(order, gone);
    gone?.passed().context("helm uninstall")?;
    order?;
    let uninstalled = began.elapsed();
    machine.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=180s"], "").await?.passed()?;
    let namespaces: Api<Namespace> = Api::all(guard.client.clone());
    ensure!(namespaces.get_opt(NAMESPACE).await?.is_none(), "the namespace is still there");

    machine.kubectl(&write, "").await?.passed()?;
    machine.kubectl(&["delete", "namespace", "while-away", "--timeout=60s"], "").await?.passed()?;
    let kinds = "validatingwebhookconfigurations,mutatingwebhookconfigurations,validatingadmissionpolicies,\
                 validatingadmissionpolicybindings,clusterroles,clusterrolebindings";
    let left =
        machine.kubectl(&["get", kinds, "-l", "app.kubernetes.io/name=revguard", "-o", "name"], "").await?.passed()?;
    ensure!(left.is_empty(), "left behind: {left}");
    figures::write(
        "uninstall",
        &json!({"pods": 0, "seconds": uninstalled.as_secs(), "namespace_gone_seconds": began.elapsed().as_secs()}),
    )
}
