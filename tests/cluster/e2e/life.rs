//! The ordinary life of a cluster goes on: nothing here is ever blocked.

use anyhow::{Context, Result, ensure};
use http::Method;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use libtest_mimic::Trial;
use revguard::model::{Id, Kind, Str};
use serde_json::json;

use super::{Env, SOON, case, namespace, prefix};
use crate::harness::Options;
use crate::harness::raw::{As, MERGE, send};
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(Controllers, people_and_controllers_are_not_in_the_way)]
}

const HPA: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: fresh}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
";

async fn people_and_controllers_are_not_in_the_way() -> Result<()> {
    let mut env = Env::start(Options::default(), &[]).await?;
    let (staged, _) = case("cp002/scaled.yaml")?;
    let binary = env.replica(&[]).await?;
    env.balancer.set(&[binary.address]);
    env.stage(&staged, &binary).await?;
    let registration = env.register("Fail").await?;

    people(&env).await?;
    autoscaler(&env).await?;
    garbage_collector(&mut env).await?;
    env.stage(&staged, &binary).await?;
    namespace_controller(&env).await?;
    registration.remove().await
}

/// A namespace is made first and labelled later, and its workload restarted to follow.
async fn people(env: &Env) -> Result<()> {
    env.jane(&["create", "namespace", "fresh"], "").await?.passed()?;
    env.jane(&["apply", "-f", "-"], WEB).await?.passed()?;
    env.jane(&["label", "namespace", "fresh", "istio.io/rev=prod"], "").await?.passed()?;
    env.jane(&["rollout", "restart", "deployment/web", "-n", "fresh"], "").await?.passed()?;
    env.jane(&["label", "namespace", "fresh", "istio.io/rev=1-24", "--overwrite"], "").await?.passed()?;
    env.jane(&["delete", "deployment/web", "-n", "fresh"], "").await?.passed()?;
    Ok(())
}

/// The autoscaler scales an istiod in use as it likes; a person may not scale it to zero.
async fn autoscaler(env: &Env) -> Result<()> {
    let path = "/apis/apps/v1/namespaces/istio-system/deployments/istiod-1-23/scale";
    for replicas in [3, 1] {
        let body = json!({"spec": {"replicas": replicas}});
        let hpa = As { user: HPA.to_owned(), groups: Vec::new() };
        send(&env.plane.client(), Method::PATCH, path, Some((MERGE, &body)), &hpa).await?.expect("scaling")?;
    }
    denied(env, &["scale", "deployment/istiod-1-23", "-n", "istio-system", "--replicas=0"]).await
}

async fn denied(env: &Env, args: &[&str]) -> Result<()> {
    let said = env.jane(args, "").await?;
    let words = format!("Error from server (Forbidden): {}[CP002 ", prefix());
    ensure!(said.code == Some(1) && said.err.starts_with(&words), "{args:?}: {:?} {}", said.code, said.err);
    Ok(())
}

/// Who owns an istiod in use is deleted: the collector takes it, which a person may not.
async fn garbage_collector(env: &mut Env) -> Result<()> {
    let client = env.plane.client();
    let owners: Api<ConfigMap> = Api::namespaced(client.clone(), "istio-system");
    let mut owner = ConfigMap::default();
    owner.metadata.name = Some("release".to_owned());
    let owner = owners.create(&PostParams::default(), &owner).await?;
    let deployments: Api<Deployment> = Api::namespaced(client, "istio-system");
    let owned = json!({"metadata": {"ownerReferences": [owner.owner_ref(&()).context("an owner")?]}});
    deployments.patch("istiod-1-23", &PatchParams::default(), &Patch::Merge(&owned)).await?;
    denied(env, &["delete", "deployment/istiod-1-23", "-n", "istio-system"]).await?;
    let (kind, namespace, name) = (Kind::Deployment, Str::from("istio-system"), Str::from("istiod-1-23"));
    env.world.touched(&Id { kind, namespace, name }, &json!({"apiVersion": "apps/v1"}), true);
    owners.delete("release", &DeleteParams::background()).await?;
    wait_until(SOON, "the end of what was owned", || async {
        match deployments.get_opt("istiod-1-23").await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("it is there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

/// A namespace's DELETE is accepted; what is in it then goes, whatever uses it.
async fn namespace_controller(env: &Env) -> Result<()> {
    denied(env, &["delete", "deployment/istiod-1-23", "-n", "istio-system"]).await?;
    env.jane(&["delete", "namespace", "istio-system", "--wait=false"], "").await?.passed()?;
    let namespaces: Api<Namespace> = Api::all(env.plane.client());
    wait_until(SOON, "the end of the namespace of an istiod in use", || async {
        match namespaces.get_opt("istio-system").await {
            Ok(None) => Ok(()),
            Ok(Some(left)) => Err(format!("{:?}", left.status.and_then(|status| status.conditions))),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    // And it can be made anew.
    env.jane(&["create", "-f", "-"], &namespace("istio-system", json!({})).to_string()).await?.passed().map(drop)
}
