//! Certificates of our own against the real API server: the loop that keeps them, replicas that read the Secret by watch
//! with no more rights than they need, and load that must not notice.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use jiff::SignedDuration;
use kube::Client;
use libtest_mimic::Trial;
use revguard::controller::certificates::plan::Timing;
use revguard::controller::certificates::{self, Mode, Settings};
use revguard::controller::resource::{MUTATING, SECRETS, VALIDATING};
use revguard::controller::{At, Change, Held, Leadership, Manager, Names, Write, Writer};
use revguard::telemetry::metrics::Loop;
use revguard::telemetry::{Health, Metrics};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::load::Load;
use super::{Env, HOOK, SOON};
use crate::cases::{Asking, hook};
use crate::harness::binary::Binary;
use crate::harness::credentials::config_of;
use crate::harness::objects::{Scope, documents};
use crate::harness::pki::Authority;
use crate::harness::raw::{As, JSON, MERGE, send};
use crate::harness::registration::{Kind as Registered, Registration, client_config, settled};
use crate::harness::wait::wait_until;
use crate::harness::{Options, metrics};
use crate::trial::{prove, trial};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ApiServer, leaf_and_authority_rotate_twice_under_load),
        trial!(ApiServer, what_others_keep_is_only_checked),
        trial!(ApiServer, what_hands_do_is_put_right_and_what_they_delete_stays_deleted),
    ]
}

const NAMESPACE: &str = "guard";
const RELEASE: &str = "revguard";

/// What the chart makes: Secrets without data, and two accounts with exactly the rights that they need. Everything but
/// Secrets may be read by replicas, as `docs/access.md` has it.
const INSTALLED: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: guard}}
---
{apiVersion: v1, kind: Secret, metadata: {name: revguard-ca, namespace: guard}}
---
{apiVersion: v1, kind: Secret, metadata: {name: revguard-webhook-tls, namespace: guard}}
---
{apiVersion: v1, kind: Secret, metadata: {name: nobodys-business, namespace: guard}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: replica}
rules:
- apiGroups: [apps, batch, discovery.k8s.io, admissionregistration.k8s.io, apiextensions.k8s.io]
  resources: ['*']
  verbs: [get, list, watch]
- apiGroups: ['']
  resources: [namespaces, pods, services, configmaps]
  verbs: [get, list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: replica}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: replica}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: replica}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: replica, namespace: guard}
rules: [{apiGroups: [''], resources: [secrets], resourceNames: [revguard-webhook-tls], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: replica, namespace: guard}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: replica}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: replica}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: keeper, namespace: guard}
rules:
- {apiGroups: [''], resources: [secrets], resourceNames: [revguard-ca, revguard-webhook-tls], verbs: [get, patch]}
- {apiGroups: [''], resources: [pods], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: keeper, namespace: guard}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: keeper}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: keeper}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: keeper}
rules:
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingwebhookconfigurations, mutatingwebhookconfigurations]
  resourceNames: [revguard]
  verbs: [get, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: keeper}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: keeper}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: keeper}]
";

/// An installation without a certificate.
struct Installed {
    /// Both configurations, which carry no bundle yet. First, because they are taken away from a control plane that runs.
    registered: Vec<Registration>,
    env: Env,
    replica: PathBuf,
    names: Names,
}

/// The loop, as the leader runs it.
struct Keeper {
    writer: Writer,
    task: JoinHandle<()>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Installed {
    async fn new() -> Result<Installed> {
        let env = Env::start(Options::with_controllers(&[]), &[]).await?;
        let mut scope = Scope::new(&env.plane);
        scope.apply(&documents(INSTALLED)?).await?;
        scope.leave();
        let replica = env.plane.kubeconfig_of("replica", &[])?;
        let mut registered = Vec::new();
        for (kind, path, asking) in
            [(Registered::Validating, "validate", Asking::Validate), (Registered::Mutating, "mutate", Asking::Mutate)]
        {
            let url = format!("https://{}/{path}", env.balancer.address());
            let name = if kind == Registered::Validating { HOOK } else { "mutations.revguard.dev" };
            let webhook = hook(name, &url, "", asking);
            let webhook = json!({
                "name": name, "clientConfig": {"url": url}, "rules": webhook.rules,
                "matchConditions": webhook.match_conditions, "failurePolicy": "Fail", "timeoutSeconds": 10,
                "sideEffects": "None", "admissionReviewVersions": ["v1"],
            });
            let configuration = json!({"metadata": {"name": RELEASE}, "webhooks": [webhook]});
            registered.extend(Registration::create_all(&env.plane, kind, vec![configuration]).await?);
        }
        Ok(Installed { registered, env, replica, names: Names::new(NAMESPACE, RELEASE) })
    }

    /// A replica that reads the Secret by watch, and a pod that says where it is.
    async fn replica(&self, name: &str) -> Result<Binary> {
        let arguments = ["--tls-secret", "revguard-webhook-tls", "--namespace", NAMESPACE, "--drain", "0"];
        let binary = Binary::bare(self.env.plane.folder(), &self.replica, &arguments).await?;
        let labels = json!({"app.kubernetes.io/name": "revguard", "app.kubernetes.io/component": "webhook"});
        let port = json!({"name": "https", "containerPort": binary.address.port()});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "revguard", "image": "revguard", "ports": [port]}]},
        });
        let (admin, path) = (self.env.plane.client(), format!("/api/v1/namespaces/{NAMESPACE}/pods"));
        send(&admin, Method::POST, &path, Some((JSON, &pod)), &As::default()).await?.expect("a pod")?;
        let ip = binary.address.ip().to_string();
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
        let path = format!("{path}/{name}/status");
        send(&admin, Method::PATCH, &path, Some((MERGE, &status)), &As::default()).await?.expect("its address")?;
        Ok(binary)
    }

    async fn keeper(&self, timing: Timing) -> Result<Keeper> {
        self.keeper_in(Mode::Own, timing).await
    }

    async fn keeper_in(&self, mode: Mode, timing: Timing) -> Result<Keeper> {
        let mut config = config_of(&self.env.plane.kubeconfig_of("keeper", &[])?).await?;
        config.default_retry = false;
        let leadership = Leadership::default();
        leadership.lead_until(Some(tokio::time::Instant::now() + Duration::from_secs(3600)));
        let writer = Writer::new(Client::try_from(config)?, leadership, Arc::new(Metrics::new()));
        let settings = Settings {
            names: self.names.clone(),
            secret: self.names.tls(),
            mode,
            timing,
            further: vec!["127.0.0.1".to_owned()],
            pause: Duration::from_millis(300),
        };
        let heartbeat = Health::new(&[]).task("certificates", None);
        let task = tokio::spawn(certificates::run(settings, writer.clone(), heartbeat));
        Ok(Keeper { writer, task })
    }

    async fn get(&self, at: &At) -> Result<Option<Value>> {
        let answer = send(&self.env.plane.client(), Method::GET, &at.path(), None, &As::default()).await?;
        Ok((answer.status != 404).then_some(answer.body))
    }

    async fn patch(&self, at: &At, patch: &Value) -> Result<Value> {
        let admin = self.env.plane.client();
        send(&admin, Method::PATCH, &at.path(), Some((MERGE, patch)), &As::default()).await?.expect("a patch")
    }

    fn ca(&self) -> At {
        At::of(&SECRETS, NAMESPACE, &self.names.ca())
    }

    fn tls(&self) -> At {
        At::of(&SECRETS, NAMESPACE, &self.names.tls())
    }

    async fn data(&self, at: &At, key: &str) -> Result<String> {
        let object = self.get(at).await?.context("the Secret")?;
        Ok(String::from_utf8(STANDARD.decode(object["data"][key].as_str().unwrap_or_default())?)?)
    }

    async fn bundle(&self) -> Result<String> {
        let object = self.get(&At::of(&VALIDATING, "", RELEASE)).await?.context("the configuration")?;
        let text = object["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default();
        Ok(String::from_utf8(STANDARD.decode(text)?)?)
    }
}

fn seconds(ca: u64, cert: u64, overlap: u64) -> Timing {
    let s = |n: u64| SignedDuration::from_secs(i64::try_from(n).expect("seconds"));
    Timing { ca_validity: s(ca), cert_validity: s(cert), overlap: s(overlap) }
}

fn number_of_cas(bundle: &str) -> usize {
    bundle.matches("BEGIN CERTIFICATE").count()
}

/// Without the right to look at configurations a certificate is renewed all the same.
async fn blindly(installed: &Installed, keeper: &Keeper) -> Result<()> {
    let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/keeper";
    send(&installed.env.plane.client(), Method::DELETE, binding, None, &As::default()).await?.expect("deleted")?;
    let errors = || metrics::sum(&keeper.writer.metrics().text(), "revguard_reconcile_errors_total", &[]);
    let before = errors()?;
    wait_until(SOON, "a loop that sees nothing", || async {
        match errors() {
            Ok(now) if now > before => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let before = installed.data(&installed.tls(), "tls.crt").await?;
    wait_until(Duration::from_secs(120), "a certificate that is renewed blindly", || async {
        let now = installed.data(&installed.tls(), "tls.crt").await.map_err(|error| format!("{error:#}"))?;
        if now == before { Err("the old one".to_owned()) } else { Ok(()) }
    })
    .await
}

async fn failed_open(env: &Env) -> Result<f64> {
    env.plane.metric("apiserver_admission_webhook_fail_open_count", &[]).await
}

async fn leaf_and_authority_rotate_twice_under_load() -> Result<()> {
    let installed = Installed::new().await?;
    let (one, two) = (installed.replica("one").await?, installed.replica("two").await?);
    // Nobody made a certificate yet: listening, and not ready.
    let (status, why) = one.get("/readyz").await?;
    ensure!(status == 503 && why.contains("certificate: Secret guard/revguard-webhook-tls"), "{status} {why}");

    // A year in a minute: a CA is renewed after 40 s, a certificate after 13.
    let timing = if prove() { seconds(180, 60, 10) } else { seconds(60, 20, 3) };
    timing.check().map_err(anyhow::Error::msg)?;
    let keeper = installed.keeper(timing).await?;
    for replica in [&one, &two] {
        replica.ready().await?;
    }
    installed.env.balancer.set(&[one.address, two.address]);
    settled(&installed.env.plane.client(), Registered::Validating).await?;
    settled(&installed.env.plane.client(), Registered::Mutating).await?;
    ensure!(number_of_cas(&installed.bundle().await?) == 1, "one CA is published at first");

    let load = Load::start(&installed.env).await?;
    let rotations = tokio::sync::Mutex::new((BTreeSet::new(), BTreeSet::new(), 0));
    let rotated = wait_until(Duration::from_secs(400), "two new authorities, each alone in the end", || async {
        let look = async {
            let mut seen = rotations.lock().await;
            seen.0.insert(installed.data(&installed.ca(), "ca.crt").await?);
            seen.1.insert(installed.data(&installed.tls(), "tls.crt").await?);
            let published = number_of_cas(&installed.bundle().await?);
            seen.2 = published.max(seen.2);
            anyhow::Ok((seen.0.len(), seen.1.len(), published))
        };
        match look.await {
            Ok((cas, leaves, 1)) if cas >= 3 && leaves >= 5 => Ok(()),
            other => Err(format!("authorities, certificates, published now: {other:?}")),
        }
    })
    .await;
    rotated?;
    blindly(&installed, &keeper).await?;
    let (cas, leaves, most) = rotations.into_inner();
    load.more(if prove() { 2_500 } else { 500 }).await?;
    let tally = load.finish().await?;
    println!(
        "{} authorities and {} certificates under load: {} calls, {} lost",
        cas.len(),
        leaves.len(),
        tally.calls,
        tally.lost
    );
    ensure!(tally.lost == 0 && failed_open(&installed.env).await? == 0.0, "{tally:#?}");
    ensure!(most == 2, "old and new were never published together: {most}");
    for replica in [&one, &two] {
        let reloads = replica.metric("revguard_certificate_reloads_total", &[]).await?;
        ensure!(reloads >= 4.0 && installed.env.balancer.handed_to(replica.address) > 0, "{reloads} reloads");
        ensure!(replica.metric("revguard_certificate_reload_errors_total", &[]).await? == 0.0);
    }
    let text = keeper.writer.metrics().text();
    for kind in [VALIDATING.kind, MUTATING.kind] {
        ensure!(metrics::sum(&text, "revguard_ca_bundle_current", &[("name", kind)])? == 1.0, "{text}");
    }
    ensure!(metrics::sum(&text, "revguard_ca_not_after_seconds", &[])? > 0.0);
    ensure!(metrics::sum(&text, "revguard_ca_bundle_restored_total", &[])? == 0.0, "nobody has edited anything");
    drop(keeper);

    // The control: another authority's certificate, and nobody was told.
    let load = Load::start(&installed.env).await?;
    load.more(100).await?;
    let stranger = Authority::new("without overlap")?.server(&["127.0.0.1"])?;
    let pair = json!({"tls.crt": STANDARD.encode(&stranger.certificate), "tls.key": STANDARD.encode(&stranger.key)});
    installed.patch(&installed.tls(), &json!({"data": pair})).await?;
    wait_until(SOON, "a lost call", || async {
        if load.lost() > 0 { Ok(()) } else { Err(format!("{} calls, none lost", load.done())) }
    })
    .await?;
    let tally = load.finish().await?;
    println!("control, an authority swapped without overlap: {} calls, {} lost", tally.calls, tally.lost);
    ensure!(tally.examples.iter().any(|why| why.contains("x509")), "{tally:?}");
    for registration in installed.registered {
        registration.remove().await?;
    }
    Ok(())
}

/// A Secret and a bundle that somebody else keeps, as cert-manager does.
async fn what_others_keep_is_only_checked() -> Result<()> {
    let installed = Installed::new().await?;
    let replica = installed.replica("one").await?;
    let keeper = installed.keeper_in(Mode::External, seconds(3600, 1200, 3)).await?;
    let other = Authority::new("cert-manager")?;
    let pair = other.server(&["127.0.0.1"])?;
    let data = json!({"tls.crt": STANDARD.encode(&pair.certificate), "tls.key": STANDARD.encode(&pair.key)});
    let secret = installed.patch(&installed.tls(), &json!({"data": data})).await?;
    replica.ready().await?;
    let current = |wanted: f64| {
        let metrics = Arc::clone(keeper.writer.metrics());
        wait_until(SOON, "what the metrics say of the bundle", move || {
            let text = metrics.text();
            async move {
                let of = |name, labels| metrics::sum(&text, name, labels).map_err(|error| format!("{error:#}"));
                let current = of("revguard_ca_bundle_current", &[("name", VALIDATING.kind)])?;
                let known = of("revguard_certificate_not_after_seconds", &[])? > 0.0;
                if known && current == wanted { Ok(()) } else { Err(format!("{current} {known}")) }
            }
        })
    };
    current(0.0).await?;
    let at = At::of(&VALIDATING, "", RELEASE);
    let mut webhooks = installed.get(&at).await?.context("the configuration")?["webhooks"].clone();
    let url = webhooks[0]["clientConfig"]["url"].as_str().unwrap_or_default().to_owned();
    webhooks[0]["clientConfig"] = client_config(&url, other.pem());
    let configuration = installed.patch(&at, &json!({"webhooks": webhooks})).await?;
    current(1.0).await?;
    let now = installed.get(&at).await?.context("the configuration")?;
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    ensure!(version(&now) == version(&configuration), "the configuration was written");
    let now = installed.get(&installed.tls()).await?.context("the Secret")?;
    ensure!(version(&now) == version(&secret), "the Secret was written");
    ensure!(installed.data(&installed.ca(), "ca.crt").await?.is_empty(), "a CA was made");
    Ok(())
}

async fn what_hands_do_is_put_right_and_what_they_delete_stays_deleted() -> Result<()> {
    let installed = Installed::new().await?;
    let replica = installed.replica("one").await?;
    let keeper = installed.keeper(seconds(3600, 1200, 3)).await?;
    replica.ready().await?;
    installed.env.balancer.set(&[replica.address]);
    settled(&installed.env.plane.client(), Registered::Validating).await?;
    let load = Load::start(&installed.env).await?;
    load.more(50).await?;

    // A key of another certificate: the old pair stays, is told, and the loop puts a fitting one there.
    let before = installed.data(&installed.tls(), "tls.crt").await?;
    let foreign = Authority::new("foreign")?.server(&["127.0.0.1"])?;
    let key = json!({"data": {"tls.key": STANDARD.encode(&foreign.key)}});
    installed.patch(&installed.tls(), &key).await?;
    wait_until(SOON, "a refused pair", || async {
        let refused = replica.metric("revguard_certificate_reload_errors_total", &[]).await;
        match refused.map_err(|error| format!("{error:#}"))? {
            1.0 => Ok(()),
            other => Err(format!("{other} were refused")),
        }
    })
    .await?;
    let said = replica.said()?;
    ensure!(said.contains("the private key in tls.key of Secret guard/revguard-webhook-tls does not belong"), "{said}");
    let after = wait_until(SOON, "a pair that fits", || async {
        let now = installed.data(&installed.tls(), "tls.crt").await.map_err(|error| format!("{error:#}"))?;
        if now == before { Err("the old one".to_owned()) } else { Ok(now) }
    })
    .await?;
    ensure!(after != before && replica.get("/readyz").await?.0 == 200);
    load.more(200).await?;
    let tally = load.finish().await?;
    ensure!(tally.lost == 0, "{tally:#?}");

    // A caBundle that somebody has edited.
    let bundle = installed.bundle().await?;
    let at = At::of(&VALIDATING, "", RELEASE);
    let object = installed.get(&at).await?.context("the configuration")?;
    let mut webhooks = object["webhooks"].clone();
    let url = webhooks[0]["clientConfig"]["url"].as_str().unwrap_or_default().to_owned();
    webhooks[0]["clientConfig"] = client_config(&url, Authority::new("somebody")?.pem());
    installed.patch(&at, &json!({"webhooks": webhooks})).await?;
    wait_until(SOON, "the bundle put back", || async {
        let now = installed.bundle().await.map_err(|error| format!("{error:#}"))?;
        let restored = metrics::sum(&keeper.writer.metrics().text(), "revguard_ca_bundle_restored_total", &[]);
        match restored {
            Ok(1.0) if now == bundle => Ok(()),
            other => Err(format!("restored {other:?}")),
        }
    })
    .await?;
    // What is ours is the bundle and nothing else.
    let object = installed.get(&at).await?.context("the configuration")?;
    let managed = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let ours: Vec<&Value> = managed.filter(|m| m["manager"] == Manager::Ca.as_str()).collect();
    let key = format!("k:{}", json!({"name": HOOK}));
    let wanted = json!({"f:webhooks": {key: {".": {}, "f:clientConfig": {"f:caBundle": {}}, "f:name": {}}}});
    ensure!(ours.len() == 1 && ours[0]["operation"] == "Apply" && ours[0]["fieldsV1"] == wanted, "{ours:?}");

    // A configuration that somebody has deleted, also between our look and our write.
    let held = Held::of(&object);
    for resource in [&VALIDATING, &MUTATING] {
        let at = At::of(resource, "", RELEASE);
        send(&installed.env.plane.client(), Method::DELETE, &at.path(), None, &As::default())
            .await?
            .expect("deleted")?;
    }
    let late = Write {
        boundary: "certificates.publish",
        by: Loop::Certificates,
        at: at.clone(),
        change: Change::Apply {
            object: json!({"webhooks": [{"name": HOOK, "clientConfig": {"caBundle": STANDARD.encode(&bundle)}}]}),
            manager: Manager::Ca,
            held: Some(held.any_version()),
        },
    };
    let refused = keeper.writer.write(&late).await;
    ensure!(refused.as_ref().is_err_and(revguard::controller::WriteError::is_benign), "{refused:?}");
    // The loop has looked at least three times since.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for resource in [&VALIDATING, &MUTATING] {
        ensure!(installed.get(&At::of(resource, "", RELEASE)).await?.is_none(), "{} was made again", resource.kind);
    }
    ensure!(!keeper.task.is_finished(), "the loop has ended");
    Ok(())
}
