//! `revguard controller` beside the real API server: who leads, what is reported and mended, what it may do.
//!
//! It runs with the roles that the chart gives it and nothing else. The mesh is that of the demonstration; nobody runs its
//! istiods, so what they would do is done by hand.

mod access;
mod adoption;
mod external;
mod guard;
mod leading;
mod mending;
mod trouble;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use libtest_mimic::Trial;
use revguard::controller::access::{FULLNAME, Role, rules};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::binary::PROGRAM;
use crate::harness::objects::{Scope, documents};
use crate::harness::process::Process;
use crate::harness::raw::{Answer, As, JSON, JSON_PATCH, MERGE, send};
use crate::harness::wait::wait_until;
use crate::harness::{ControlPlane, Options, crds, metrics};

pub fn tests() -> Vec<Trial> {
    [
        leading::tests(),
        mending::tests(),
        trouble::tests(),
        guard::tests(),
        access::tests(),
        adoption::tests(),
        external::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Findings have a grace of a minute, and a loaded machine is slow.
pub(crate) const LATER: Duration = Duration::from_secs(150);
pub(crate) const HOME: &str = "revguard-system";
const MESH: &str = include_str!("../../../src/cli/demo/mesh.yaml");
const VALIDATORS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const INJECTORS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const STATE: &str = "/apis/revguard.dev/v1alpha1/meshstates/mesh";
const PARAMETERS: &str = "/apis/revguard.dev/v1alpha1/namespaces/revguard-system/guardparameters/revguard";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// What the chart installs beside the Deployments.
const INSTALLED: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: revguard-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: revguard-controller, namespace: revguard-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: revguard-webhook, namespace: revguard-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: revguard-report, namespace: revguard-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: revguard-undo, namespace: revguard-system}
---
apiVersion: v1
kind: Secret
metadata: {name: revguard-ca, namespace: revguard-system}
---
apiVersion: v1
kind: Secret
metadata: {name: revguard-webhook-tls, namespace: revguard-system}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: revguard}
webhooks:
- name: namespaces.revguard.dev
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  clientConfig: {service: {name: revguard-webhook, namespace: revguard-system, path: /validate}}
  objectSelector: {matchLabels: {nobody: has-this}}
  rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [namespaces]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: people}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: Group, apiGroup: rbac.authorization.k8s.io, name: people}]
";

/// A role of the chart and its binding.
fn role(role: Role, left_out: &str) -> Result<Vec<Value>> {
    let text = rules(role).replace(FULLNAME, "revguard");
    let mut rules: Vec<Value> = serde_saphyr::from_str(&text)?;
    for rule in &mut rules {
        rule["resources"].as_array_mut().context("resources")?.retain(|r| r != left_out);
    }
    rules.retain(|rule| rule["resources"].as_array().is_some_and(|all| !all.is_empty()));
    let (namespaced, account) = match role {
        Role::Webhook => (false, "revguard-webhook"),
        Role::WebhookNamespace => (true, "revguard-webhook"),
        Role::Controller | Role::Repairs | Role::Rollouts => (false, "revguard-controller"),
        Role::ControllerNamespace => (true, "revguard-controller"),
    };
    let kind = if namespaced { "Role" } else { "ClusterRole" };
    let name = role.file().trim_end_matches(".yaml");
    let mut metadata = json!({"name": name});
    if namespaced {
        metadata["namespace"] = json!(HOME);
    }
    let api = "rbac.authorization.k8s.io";
    Ok(vec![
        json!({"apiVersion": format!("{api}/v1"), "kind": kind, "metadata": metadata, "rules": rules}),
        json!({
            "apiVersion": format!("{api}/v1"), "kind": format!("{kind}Binding"), "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": HOME}],
        }),
    ])
}

/// A definition of a kind of reports that takes anything.
fn reports(group: &str, version: &str, kind: &str, plural: &str, namespaced: bool) -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": any}}],
        },
    })
}

fn policy_reports() -> Vec<Value> {
    let (group, version) = ("wgpolicyk8s.io", "v1alpha2");
    vec![
        reports(group, version, "PolicyReport", "policyreports", true),
        reports(group, version, "ClusterPolicyReport", "clusterpolicyreports", false),
    ]
}

/// A cluster with a mesh and with what the chart installs.
pub(crate) struct Env {
    pub(crate) plane: ControlPlane,
    pub(crate) account: PathBuf,
}

impl Env {
    pub(crate) async fn start() -> Result<Env> {
        Env::start_without("", Options::with_controllers(&[])).await
    }

    /// Without the right to one resource.
    pub(crate) async fn start_without(left_out: &str, options: Options) -> Result<Env> {
        let plane = ControlPlane::start(options).await?;
        let mut scope = Scope::new(&plane);
        scope.apply(&documents(INSTALLED)?).await?;
        for one in Role::ALL {
            scope.apply(&role(one, left_out)?).await?;
        }
        let mut kinds: Vec<Value> = crds::custom().map(crds::permissive).collect();
        for kind in kinds.iter_mut().filter(|k| k["spec"]["group"] == "gateway.networking.k8s.io") {
            // The API server wants to know who approved a group below k8s.io.
            kind["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, a test"});
        }
        scope.apply(&kinds).await?;
        scope.apply(&policy_reports()).await?;
        scope.apply(&documents(MESH)?).await?;
        scope.leave();
        let account = plane.kubeconfig_of_service_account(HOME, "revguard-controller").await?;
        let env = Env { plane, account };
        env.define_own().await?;
        Ok(env)
    }

    /// Our own kinds.
    async fn define_own(&self) -> Result<()> {
        let mut scope = Scope::new(&self.plane);
        let own: Vec<Value> = revguard::api::definitions().into_iter().map(|(_, definition)| definition).collect();
        scope.apply(&own).await?;
        scope.leave();
        Ok(())
    }

    pub(crate) async fn apply(&self, text: &str) -> Result<()> {
        let mut scope = Scope::new(&self.plane);
        scope.apply(&documents(text)?).await?;
        scope.leave();
        Ok(())
    }

    /// A controller with short durations; it may not lead yet.
    pub(crate) async fn controller(&self, policy: &str, more: &[&str]) -> Result<Controller> {
        Controller::start(self.plane.folder(), &self.account, policy, more).await
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<(&str, Value)>) -> Result<Answer> {
        let body = body.as_ref().map(|(content, value)| (*content, value));
        send(&self.plane.client(), method, path, body, &As::default()).await
    }

    /// The object, or the API server's words.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, None).await?.expect(path)
    }

    pub(crate) async fn patch(&self, path: &str, operations: Value) -> Result<Value> {
        self.ask(Method::PATCH, path, Some((JSON_PATCH, operations))).await?.expect(path)
    }

    pub(crate) async fn merge(&self, path: &str, change: Value) -> Result<Value> {
        self.ask(Method::PATCH, path, Some((MERGE, change))).await?.expect(path)
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.ask(Method::DELETE, path, None).await?.expect(path).map(drop)
    }

    pub(crate) async fn create(&self, path: &str, object: Value) -> Result<Value> {
        self.ask(Method::POST, path, Some((JSON, object))).await?.expect(path)
    }

    /// Waits until the object at `path` is as `is` says; the error is the object.
    pub(crate) async fn until(
        &self,
        limit: Duration,
        path: &str,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        wait_until(limit, what, || async {
            let answer = self.ask(Method::GET, path, None).await.map_err(|e| format!("{e:#}"))?;
            if answer.ok() && is(&answer.body) { Ok(answer.body) } else { Err(answer.body.to_string()) }
        })
        .await
    }

    /// Waits until there is nothing at `path`.
    pub(crate) async fn until_gone(&self, limit: Duration, path: &str) -> Result<()> {
        wait_until(limit, &format!("the end of {path}"), || async {
            let answer = self.ask(Method::GET, path, None).await.map_err(|e| format!("{e:#}"))?;
            if answer.status == 404 { Ok(()) } else { Err(answer.body.to_string()) }
        })
        .await
    }

    /// Writes of revguard's controller to a resource so far, by verb.
    pub(crate) fn writes(&self, resource: &str) -> Result<Vec<String>> {
        let by = format!("system:serviceaccount:{HOME}:revguard-controller");
        let reads = ["get", "list", "watch"];
        let entries = self.plane.audit()?.into_iter().filter(|e| {
            e.user().username == by && e.object_ref.resource == resource && !reads.contains(&e.verb.as_str())
        });
        Ok(entries.map(|e| format!("{} {}", e.verb, e.response_status.code)).collect())
    }

    /// Notes of our Events about an object of this name.
    pub(crate) async fn events(&self, name: &str) -> Result<Vec<String>> {
        let list = self.get("/apis/events.k8s.io/v1/events").await?;
        let ours = list["items"].as_array().context("items")?.iter().filter(|e| e["regarding"]["name"] == name);
        Ok(ours
            .map(|e| format!("{}: {}", e["reason"].as_str().unwrap_or(""), e["note"].as_str().unwrap_or("")))
            .collect())
    }
}

/// A running `revguard controller`.
pub(crate) struct Controller {
    pub(crate) process: Process,
    pub(crate) health: SocketAddr,
    log: PathBuf,
    pub policy: PathBuf,
}

impl Controller {
    pub(crate) async fn start(folder: &Path, kubeconfig: &Path, policy: &str, more: &[&str]) -> Result<Controller> {
        let name = format!("controller-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let file = folder.join(format!("{name}.policy.yaml"));
        std::fs::write(&file, policy)?;
        let mut command = Command::new(PROGRAM);
        command.env_clear().current_dir(folder).args(["controller", "--namespace", HOME, "--pod", &name]);
        command.arg("--kubeconfig").arg(kubeconfig).arg("--config").arg(&file);
        command.args(["--health-listen", "127.0.0.1:0", "--log-format", "json", "--log", "info,revguard=debug"]);
        command.args(["--lease-duration", "3s", "--tally-interval", "300ms"]);
        if !more.contains(&"--audit-interval") {
            command.args(["--audit-interval", "1s"]);
        }
        command.args(more);
        let log = folder.join(format!("{name}.log"));
        let mut process = Process::spawn(&name, command, log.clone())?;
        let health = wait_until(SOON, "where the controller listens", || {
            let (ended, found) = (process.check().err(), listening(&log));
            async move {
                match (ended, found) {
                    (Some(ended), _) => Ok(Err(ended)),
                    (None, Some(found)) => Ok(Ok(found)),
                    (None, None) => Err("nothing about it in its log".to_owned()),
                }
            }
        })
        .await??;
        Ok(Controller { process, health, log, policy: file })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.health).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: revguard\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let (head, body) = text.split_once("\r\n\r\n").context("an answer")?;
        Ok((head.split(' ').nth(1).context("a status")?.parse()?, body.to_owned()))
    }

    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let (status, text) = self.get("/metrics").await?;
        ensure!(status == 200, "/metrics answers {status}");
        metrics::sum(&text, name, labels)
    }

    /// Waits until a metric is as `is` says.
    pub(crate) async fn until(
        &self,
        limit: Duration,
        name: &str,
        labels: &[(&str, &str)],
        is: impl Fn(f64) -> bool,
    ) -> Result<f64> {
        wait_until(limit, &format!("{name}{labels:?}"), || async {
            let value = self.metric(name, labels).await.map_err(|e| format!("{e:#}"))?;
            if is(value) { Ok(value) } else { Err(format!("{value}")) }
        })
        .await
    }

    pub(crate) async fn leads(&self) -> Result<()> {
        self.until(SOON, "revguard_leader", &[], |v| v == 1.0).await.map(drop)
    }

    /// Waits until so many more audits have ended.
    pub(crate) async fn audits(&self, more: usize) -> Result<()> {
        for _ in 0..more {
            let before = self.metric("revguard_audit_last_success_seconds", &[]).await?;
            self.until(SOON, "revguard_audit_last_success_seconds", &[], |v| v > before).await?;
        }
        Ok(())
    }

    pub(crate) fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }
}

fn listening(log: &Path) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(log).ok()?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut lines = lines.filter(|line| line["message"] == "controlling");
    lines.next()?["health_listen"].as_str()?.parse().ok()
}
