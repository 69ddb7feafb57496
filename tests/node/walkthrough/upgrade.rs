//! The upgrade itself: a new revision, an old one that may not go yet, namespaces that move, and gateways that move one pod at a time.

use anyhow::{Context, Result};
use serde_json::json;

use super::terminal::Terminal;
use crate::harness::machine::Machine;
use crate::harness::wait::wait_until;
use crate::rollout::stage::{BOTH, SOON};

const SOURCE: &str = "
apiVersion: revguard.dev/v1alpha1
kind: PrometheusSource
metadata: {name: default}
spec:
  url: http://prometheus.monitoring:9090
";

pub async fn tell(machine: &'static Machine, t: &mut Terminal) -> Result<()> {
    arrives(machine, t).await.context("the new revision")?;
    too_early(t).await.context("too early")?;
    namespaces(t).await.context("namespaces")?;
    gateways(t).await.context("gateways")
}

async fn arrives(machine: &Machine, t: &mut Terminal) -> Result<()> {
    t.page.say("## The new revision arrives\n\nBeside the old one, as a release of its own.");
    let told = machine
        .kubectl(&["get", "deployment", "istiod-1-23", "-n", "istio-system", "-o", "json"], "")
        .await?
        .passed()?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let environment = told["spec"]["template"]["spec"]["containers"][0]["env"].as_array().context("an environment")?;
    let gateways =
        environment.iter().find(|variable| variable["name"] == "GATEWAYS").context("gateways")?["value"].as_str();
    let gateways: serde_json::Value = serde_json::from_str(gateways.unwrap_or_default())?;
    let values = json!({
        "revision": "1-24", "image": "revguard.local/pilot:1.24.0", "proxyImage": "revguard.local/proxyv2:1.24.0", "gateways": gateways,
    });
    // JSON is YAML.
    t.keep("istiod-1-24.yaml", &values.to_string())?;
    t.types("helm install istiod-1-24 istio/istiod -n istio-system -f istiod-1-24.yaml").await?;
    t.rolled_out("istio-system", "istiod-1-24").await?;
    t.until("revguard status", &["1-24"]).await?;
    Ok(())
}

async fn too_early(t: &mut Terminal) -> Result<()> {
    t.page.say("## Too early\n\nMay the old one go? Who still uses it:");
    t.refused("revguard uninstall-check 1-23", &["still used"]).await?;
    t.page.say("Helm is told the same by the API server, object by object (it shows the reasons only with `--debug`):");
    t.refused("helm uninstall istiod-1-23 -n istio-system", &["failed to delete release"]).await?;
    t.page.say("Everything runs on. Helm does not stop at the first refusal, and what nobody needs to run has gone; it comes back with");
    t.types("helm rollback istiod-1-23 1 -n istio-system").await?;
    Ok(())
}

async fn namespaces(t: &mut Terminal) -> Result<()> {
    t.page.say("## Namespaces move\n\nThose that follow a tag move with it, the others by their label. Pods follow when they start again.");
    t.types("istioctl tag set prod --revision 1-24 --overwrite").await?;
    for namespace in ["payments", "legacy"] {
        t.types(&format!("kubectl label namespace {namespace} istio.io/rev=1-24 --overwrite")).await?;
    }
    for namespace in ["shop", "payments", "legacy"] {
        t.types(&format!("kubectl rollout restart -n {namespace} deployment/web")).await?;
        t.rolled_out(namespace, "web").await?;
    }
    t.page.say("What names no revision follows with the tag `default`, its validator included:");
    t.types("istioctl tag set default --revision 1-24 --overwrite").await?;
    Ok(())
}

async fn gateways(t: &mut Terminal) -> Result<()> {
    t.page.say("## Gateways move\n\nWhere alerts come from, once for the cluster:");
    t.file("prometheus-source.yaml", SOURCE)?;
    t.types("kubectl apply -f prometheus-source.yaml").await?;
    t.page.say("The gateway that Helm has installed. What would be done, before anything is:");
    t.file("rollout.yaml", include_str!("rollout.yaml"))?;
    t.types("revguard plan -f rollout.yaml").await?;
    held(t).await?;
    back(t).await?;
    through(t).await?;
    second(t).await
}

/// An alert holds it.
async fn held(t: &mut Terminal) -> Result<()> {
    t.types("kubectl apply -f rollout.yaml").await?;
    t.page.say("It is under way, and somebody stops payments, which pages:");
    t.until("kubectl get gatewayrollout igw-1-24 -n gw -o jsonpath='{.status.phase}{\"\\n\"}'", &["Progressing"])
        .await?;
    t.types("kubectl scale -n payments deployment/web --replicas=0").await?;
    t.page.say("The rollout holds, and says why:");
    t.once("revguard rollout get igw-1-24 -n gw", &["held by AlertFiring"]).await?;
    t.page.say("Payments come back, and it goes on by itself:");
    t.types("kubectl scale -n payments deployment/web --replicas=2").await?;
    wait_until(SOON, "a rollout that goes on", || async {
        let said = t.quietly("revguard rollout get igw-1-24 -n gw").await.map_err(|error| format!("{error:#}"))?;
        if said.out.contains("held by") { Err(said.out) } else { Ok(()) }
    })
    .await
}

/// A person sends it back.
async fn back(t: &mut Terminal) -> Result<()> {
    t.page.say("Second thoughts. Back to the old revision, from wherever it is:");
    t.types("revguard rollout abort igw-1-24 -n gw").await?;
    t.watches("revguard rollout get igw-1-24 -n gw --watch", "RolledBack").await?;
    t.types("kubectl delete gatewayrollout igw-1-24 -n gw").await?;
    Ok(())
}

/// The same again, to its end.
async fn through(t: &mut Terminal) -> Result<()> {
    t.page.say("And once more, to the end. Helm owns this gateway, so the rollout waits until Helm says the new revision, too:");
    t.types("kubectl apply -f rollout.yaml").await?;
    let said = t.once("revguard rollout get igw-1-24 -n gw", &["AwaitingExternal"]).await?;
    t.page.say("The command that it printed:");
    let command = said.lines().map(str::trim).find(|line| line.starts_with("helm upgrade")).context("a command")?;
    t.types(command).await?;
    t.watches("revguard rollout get igw-1-24 -n gw --watch", "Completed").await?;
    Ok(())
}

/// The gateway of the IstioOperator file.
async fn second(t: &mut Terminal) -> Result<()> {
    t.page.say("The gateway of the IstioOperator file, which has the mesh configuration of its revision beside it:");
    t.file("custom-rollout.yaml", include_str!("custom-rollout.yaml"))?;
    t.types("kubectl apply -f custom-rollout.yaml").await?;
    t.watches("revguard rollout get custom-gw-1-24 --watch", "Completed").await?;
    t.until("kubectl get gatewayrollouts -A", &["Completed"]).await?;
    t.page.say("Helm is the only owner of its release again:");
    t.types("helm upgrade igw istio/gateway -n gw --reuse-values --set autoscaling.minReplicas=3").await?;
    t.page.say("As long as a rollout can go back, the old revision counts as used. Nobody wants to:");
    for gateway in BOTH {
        t.types(&format!("kubectl delete gatewayrollout {}-1-24 -n {}", gateway.name, gateway.namespace)).await?;
    }
    Ok(())
}
