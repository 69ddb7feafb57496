//! The real program beside the real API server, from end to end.
//!
//! `revguard serve --kubeconfig` runs as a process with permissions to read and nothing else. It is called
//! through a small balancer, so that it may come and go while the webhook's URL stays. People are `jane`,
//! who may do everything; the administrator only sets the stage and is not judged.

mod bad_input;
mod certificates;
mod life;
mod load;
mod outage;
mod plan;
mod rotation;
mod serving;
mod verbs;

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use libtest_mimic::Trial;
use revguard::wire::kinds::label;
use serde_json::{Value, json};

use crate::case_table::{Case, folder};
use crate::cases::{Asking, hook, world::World};
use crate::harness::balancer::Balancer;
use crate::harness::binary::{Binary, Secret};
use crate::harness::objects::{Scope, documents};
use crate::harness::raw::{As, JSON_PATCH, send};
use crate::harness::registration::{Hook, Kind as Registered, Registration, settled};
use crate::harness::{ControlPlane, Options, crds};

pub fn tests() -> Vec<Trial> {
    [
        bad_input::tests(),
        verbs::tests(),
        life::tests(),
        outage::tests(),
        plan::tests(),
        rotation::tests(),
        certificates::tests(),
        serving::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const HOOK: &str = "guard.revguard.dev";

/// What the API server puts before our words.
fn prefix() -> String {
    format!("admission webhook {HOOK:?} denied the request: ")
}

const SOON: Duration = Duration::from_secs(30);

/// jane may do everything; revguard may read everything.
const PEOPLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: people}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects:
- {kind: Group, apiGroup: rbac.authorization.k8s.io, name: people}
- {kind: ServiceAccount, namespace: kube-system, name: horizontal-pod-autoscaler}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: ['*'], resources: ['*'], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: revguard}]
";

/// A control plane, a mesh, and where revguard is called.
struct Env {
    plane: ControlPlane,
    world: World,
    balancer: Balancer,
    secret: Secret,
    jane: PathBuf,
    reader: PathBuf,
}

impl Env {
    /// `kinds`: custom resources that the cluster has from the beginning.
    async fn start(options: Options, kinds: &[&str]) -> Result<Env> {
        let plane = ControlPlane::start(options).await?;
        let mut scope = Scope::new(&plane);
        scope.apply(&documents(PEOPLE)?).await?;
        let wanted = crds::custom().filter(|row| kinds.contains(&row.name) && row.group != "gateway.networking.k8s.io");
        scope.apply(&wanted.map(crds::permissive).collect::<Vec<_>>()).await?;
        scope.leave();
        let secret = Secret::new(plane.folder())?;
        let (jane, reader) = (plane.kubeconfig_of("jane", &["people"])?, plane.kubeconfig_of("revguard", &[])?);
        let (world, balancer) = (World::new(plane.client()), Balancer::start(&[]).await?);
        Ok(Env { plane, world, balancer, secret, jane, reader })
    }

    /// A ready replica. It is called once the balancer knows it.
    async fn replica(&self, more: &[&str]) -> Result<Binary> {
        let binary = Binary::start(self.plane.folder(), &self.reader, &self.secret, more).await?;
        binary.ready().await?;
        Ok(binary)
    }

    /// Registers what calls revguard, once it can be called.
    async fn register(&self, policy: &'static str) -> Result<Registration> {
        let url = format!("https://{}/validate", self.balancer.address());
        let hook: Hook = Hook { failure_policy: policy, ..hook(HOOK, &url, self.secret.ca(), Asking::Validate) };
        Registration::create(&self.plane, Registered::Validating, "guard", &[hook]).await
    }

    /// Moves the webhook to another balancer's port, where the API server has no connection yet.
    async fn redirect(&self, balancer: &Balancer) -> Result<()> {
        let url = format!("https://{}/validate", balancer.address());
        let patch = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/url", "value": url}]);
        let at = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/guard";
        let admin = self.plane.client();
        send(&admin, Method::PATCH, at, Some((JSON_PATCH, &patch)), &As::default()).await?.expect("a new URL")?;
        settled(&admin, Registered::Validating).await
    }

    /// Brings the cluster to a case's objects, and waits until `binary` has seen them.
    async fn stage(&mut self, case: &Case, binary: &Binary) -> Result<()> {
        let place = case.request.object.id().namespace;
        self.world.reach(case.cluster.iter().map(|d| (d.object.id(), &d.raw)), &place).await?;
        for (kind, version) in self.world.versions() {
            binary.seen(label(kind), version).await?;
        }
        Ok(())
    }

    /// kubectl as jane.
    async fn jane(&self, args: &[&str], input: &str) -> Result<Said> {
        self.plane.kubectl_as(&self.jane, args, input).await.map(Said::from)
    }
}

/// A case of the table by its path, and its golden text.
fn case(path: &str) -> Result<(Case, String)> {
    let file = folder().join(path);
    let golden = std::fs::read_to_string(file.with_extension("txt")).context(path.to_owned())?;
    Ok((Case::read(&file), golden.strip_prefix("denied\n").unwrap_or(&golden).trim_end().to_owned()))
}

/// What a program answered.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Said {
    /// It was done.
    fn passed(self) -> Result<String> {
        ensure!(self.code == Some(0), "{}", self.err);
        Ok(self.out)
    }

    /// It was denied, and what a person reads ends with exactly this.
    fn denied(self, doing: &str, golden: &str) -> Result<()> {
        let wanted = format!("Error from server (Forbidden): {doing}{}{golden}", prefix());
        ensure!(
            self.code == Some(1) && self.err == wanted,
            "--- wanted\n{wanted}\n--- got {:?}\n{}",
            self.code,
            self.err
        );
        Ok(())
    }
}

fn version_of(object: &Value) -> Result<u64> {
    Ok(object["metadata"]["resourceVersion"].as_str().context("a resourceVersion")?.parse()?)
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}
