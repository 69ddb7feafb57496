//! How the real program behaves when it is overloaded, not ready, told another policy, stuck, or called by a stranger,
//! with the real API server as the one who asks.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Method;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::load::Load;
use super::{Env, HOOK, SOON, case, namespace, prefix};
use crate::cases::{Asking, hook};
use crate::harness::Options;
use crate::harness::balancer::Balancer;
use crate::harness::binary::{Binary, Secret, connect};
use crate::harness::pki::Authority;
use crate::harness::raw::{As, JSON, send};
use crate::harness::registration::{Kind as Registered, Registration};
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ApiServer, too_many_at_once_are_told_to_try_again_and_none_is_lost),
        trial!(ApiServer, what_is_asked_before_the_first_lists_is_answered_after_them),
        trial!(ApiServer, another_policy_is_in_force_without_a_restart),
        trial!(ApiServer, mutations_change_what_the_api_server_stores),
        trial!(ApiServer, only_the_api_server_may_call),
        trial!(Nothing, a_stuck_task_ends_the_process_by_its_name),
    ]
}

const CREATE: [&str; 3] = ["create", "-f", "-"];
const CREATING: &str = "error when creating \"STDIN\": ";

/// 429 with `Retry-After`, which the API server takes as advice.
async fn too_many_at_once_are_told_to_try_again_and_none_is_lost() -> Result<()> {
    let env = Env::start(Options::with_controllers(&[]), &[]).await?;
    let binary = env.replica(&["--concurrency", "1", "--queue-ms", "0"]).await?;
    env.balancer.set(&[binary.address]);
    let registration = env.register("Fail").await?;
    let load = Load::start(&env).await?;
    wait_until(Duration::from_secs(120), "calls that were told to try again", || async {
        let told = binary.metric("revguard_admission_rejected_total", &[("full", "workers")]).await;
        let told = told.map_err(|error| format!("{error:#}"))?;
        if told >= 3.0 { Ok(()) } else { Err(format!("{told} of {}", load.done())) }
    })
    .await?;
    let tally = load.finish().await?;
    let told = binary.metric("revguard_admission_rejected_total", &[]).await?;
    println!("overload: {} calls, {told} told to try again, {} lost", tally.calls, tally.lost);
    ensure!(tally.lost == 0, "{tally:#?}");
    registration.remove().await
}

/// 503 with `Retry-After` while first lists run: the API server asks again within the webhook's timeout.
async fn what_is_asked_before_the_first_lists_is_answered_after_them() -> Result<()> {
    let env = Env::start(Options::with_controllers(&[]), &[]).await?;
    // Between the replica and its API server, with nobody behind it yet.
    let gate = Balancer::start(&[]).await?;
    let api: std::net::SocketAddr = env.plane.url().trim_start_matches("https://").parse()?;
    let text = std::fs::read_to_string(&env.reader)?.replace(&api.to_string(), &gate.address().to_string());
    let kubeconfig = env.plane.folder().join("gated.kubeconfig");
    std::fs::write(&kubeconfig, text)?;
    let binary = Binary::start(env.plane.folder(), &kubeconfig, &env.secret, &[]).await?;
    let (status, why) = binary.get("/readyz").await?;
    ensure!(status == 503 && why.contains("state: waiting for the first list of"), "{status} {why}");
    env.balancer.set(&[binary.address]);
    let registration = env.register("Fail").await?;

    let object = namespace("early", json!({"istio-injection": "enabled", "istio.io/rev": "x"})).to_string();
    let asked = Instant::now();
    let answer = async {
        let said = env.jane(&CREATE, &object).await?;
        anyhow::Ok((said, asked.elapsed()))
    };
    let unavailable = [("endpoint", "validate"), ("outcome", "unavailable")];
    let opened = async {
        wait_until(SOON, "a call that came too early", || async {
            let told = binary.metric("revguard_admission_requests_total", &unavailable).await;
            let told = told.map_err(|error| format!("{error:#}"))?;
            if told >= 1.0 { Ok(()) } else { Err(format!("{told}")) }
        })
        .await?;
        gate.set(&[api]);
        anyhow::Ok(())
    };
    let ((said, took), ()) = tokio::try_join!(answer, opened)?;
    let words = format!("Error from server (Forbidden): {CREATING}{}[NS001 ", prefix());
    ensure!(said.err.starts_with(&words), "after {took:?}: {}", said.err);
    ensure!(took >= Duration::from_millis(900), "it was not told to wait: {took:?}");
    let told = binary.metric("revguard_admission_requests_total", &unavailable).await?;
    println!("before the first lists: {told} times told to wait, denied after {took:?}");
    binary.ready().await?;
    registration.remove().await
}

async fn another_policy_is_in_force_without_a_restart() -> Result<()> {
    let mut env = Env::start(Options::with_controllers(&[]), &[]).await?;
    let file = env.plane.folder().join("policy.yaml");
    std::fs::write(&file, "mode: enforce\n")?;
    let path = file.to_str().context("a path in UTF-8")?.to_owned();
    let mut binary = env.replica(&["--config", &path]).await?;
    env.balancer.set(&[binary.address]);
    let (both, golden) = case("ns001/both.yaml")?;
    env.stage(&both, &binary).await?;
    let registration = env.register("Fail").await?;
    let text = both.request.raw.to_string();
    let dry = ["create", "--dry-run=server", "-f", "-"];
    env.jane(&dry, &text).await?.denied(CREATING, &golden)?;

    std::fs::write(&file, "mode: warn\n")?;
    wait_until(SOON, "the new policy", || async {
        let said = env.jane(&dry, &text).await.map_err(|error| format!("{error:#}"))?;
        if said.code == Some(0) && said.err.contains("Warning: [NS001 ") { Ok(()) } else { Err(said.err) }
    })
    .await?;
    // One that nobody can read changes nothing, and is counted.
    std::fs::write(&file, "mode: sometimes\n")?;
    wait_until(SOON, "a refused policy", || async {
        let refused = binary.metric("revguard_policy_reload_errors_total", &[]).await;
        if refused.map_err(|error| format!("{error:#}"))? == 1.0 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await?;
    env.jane(&dry, &text).await?.passed()?;
    ensure!(binary.metric("revguard_policy_last_reload_success", &[]).await? == 0.0);
    ensure!(binary.said()?.contains("the new policy is refused, the old one stays in force"));
    std::fs::write(&file, "mode: enforce\n")?;
    wait_until(SOON, "the old policy again", || async {
        let said = env.jane(&dry, &text).await.map_err(|error| format!("{error:#}"))?;
        if said.code == Some(1) { Ok(()) } else { Err(said.err) }
    })
    .await?;
    binary.process.check()?;
    registration.remove().await
}

async fn mutations_change_what_the_api_server_stores() -> Result<()> {
    let mut env = Env::start(Options::with_controllers(&[]), &[]).await?;
    let file = env.plane.folder().join("policy.yaml");
    std::fs::write(&file, "mutations: {NS001: Rev, WL004: true}\n")?;
    let path = file.to_str().context("a path in UTF-8")?.to_owned();
    let binary = env.replica(&["--config", &path]).await?;
    env.balancer.set(&[binary.address]);
    let (both, _) = case("ns001/both.yaml")?;
    env.stage(&both, &binary).await?;
    let registration = env.register("Fail").await?;
    let url = format!("https://{}/mutate", env.balancer.address());
    let mutating = hook("mutations.revguard.dev", &url, env.secret.ca(), Asking::Mutate);
    let mutations = Registration::create(&env.plane, Registered::Mutating, "mutations", &[mutating]).await?;

    let jane = env.plane.user("jane", &["people"]).await?;
    let object = namespace("mended", json!({"istio-injection": "enabled", "istio.io/rev": "prod"}));
    let answer = send(&jane, Method::POST, "/api/v1/namespaces", Some((JSON, &object)), &As::default()).await?;
    let stored = answer.expect("a namespace that is mended before it is judged")?;
    let wanted = json!({"istio.io/rev": "prod", "kubernetes.io/metadata.name": "mended"});
    ensure!(stored["metadata"]["labels"] == wanted, "{stored}");

    // Without the switch the same write is denied: it was the mutation that let it pass.
    std::fs::write(&file, "mode: enforce\n")?;
    let other = namespace("not-mended", json!({"istio-injection": "enabled", "istio.io/rev": "prod"})).to_string();
    wait_until(SOON, "a policy without mutations", || async {
        let said = env.jane(&["create", "--dry-run=server", "-f", "-"], &other).await;
        let said = said.map_err(|error| format!("{error:#}"))?;
        if said.err.contains("[NS001 ") { Ok(()) } else { Err(said.out) }
    })
    .await?;
    let patched = binary.metric("revguard_admission_requests_total", &[("endpoint", "mutate"), ("outcome", "patched")]);
    ensure!(patched.await? >= 1.0);
    mutations.remove().await?;
    registration.remove().await
}

/// The API server's own client certificate, as `docs/certificates.md` configures it.
fn callers(folder: &Path, callers: &Authority) -> Result<String> {
    let pair = callers.client("kube-apiserver", None)?;
    let at = |name: &str| folder.join(name);
    std::fs::write(at("caller.crt"), &pair.certificate)?;
    std::fs::write(at("caller.key"), &pair.key)?;
    let user = json!({"client-certificate": at("caller.crt"), "client-key": at("caller.key")});
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "users": [{"name": "*", "user": user}]});
    std::fs::write(at("webhooks.kubeconfig"), kubeconfig.to_string())?;
    let plugin = |name: &str| -> Value {
        json!({"name": name, "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": at("webhooks.kubeconfig"),
        }})
    };
    let admission = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [plugin("ValidatingAdmissionWebhook"), plugin("MutatingAdmissionWebhook")],
    });
    std::fs::write(at("admission.yaml"), admission.to_string())?;
    Ok(format!("--admission-control-config-file={}", at("admission.yaml").display()))
}

async fn only_the_api_server_may_call() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("callers")?;
    let mut options = Options::with_controllers(&[]);
    options.apiserver.push(callers(folder.path(), &authority)?);
    let mut env = Env::start(options, &[]).await?;
    let ca = folder.path().join("callers.pem");
    std::fs::write(&ca, authority.pem())?;
    let ca = ca.to_str().context("a path in UTF-8")?.to_owned();
    let binary = env.replica(&["--client-ca", &ca, "--client-name", "kube-apiserver"]).await?;
    env.balancer.set(&[binary.address]);
    let (both, golden) = case("ns001/both.yaml")?;
    env.stage(&both, &binary).await?;
    let registration = env.register("Fail").await?;
    let text = both.request.raw.to_string();
    env.jane(&CREATE, &text).await?.denied(CREATING, &golden)?;

    // Whoever shows nothing is not answered. TLS 1.3 tells a client so with its first read.
    let mut stranger = connect(binary.address, &env.secret).await?;
    let asked = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        stranger.write_all(b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await?;
        let mut answer = Vec::new();
        stranger.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(SOON, asked).await?;
    ensure!(answer.as_ref().is_err_and(|error| error.to_string().contains("CertificateRequired")), "{answer:?}");

    // Nor is an API server of another name.
    let other = env.replica(&["--client-ca", &ca, "--client-name", "another-apiserver"]).await?;
    let next = Balancer::start(&[other.address]).await?;
    env.redirect(&next).await?;
    let refused = env.jane(&CREATE, &namespace("fine", json!({"team": "a"})).to_string()).await?;
    let words = format!("failed calling webhook {HOOK:?}");
    ensure!(refused.code == Some(1) && refused.err.contains(&words), "{}", refused.err);
    ensure!(other.said()?.contains("a client's certificate carries another name"), "{}", other.said()?);
    registration.remove().await
}

/// A policy file that never ends keeps its task, and with it a worker, for ever. (A FIFO, because it is the one file
/// that a test can make so.)
async fn a_stuck_task_ends_the_process_by_its_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let secret = Secret::new(folder.path())?;
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&policy, "mode: warn\n")?;
    let mesh = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/demo/mesh.yaml");
    let arguments = ["--drain", "0", "--config", policy.to_str().context("a path in UTF-8")?];
    let mut binary = Binary::standalone(folder.path(), &mesh, &secret, &arguments).await?;
    binary.ready().await?;
    ensure!(binary.get("/healthz").await?.0 == 200);

    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status()?;
    ensure!(made.success(), "mkfifo");
    std::fs::rename(&pipe, &policy)?;
    let stuck = Instant::now();
    let unhealthy = wait_until(Duration::from_secs(60), "a liveness probe that fails", || async {
        match binary.get("/healthz").await {
            Ok((503, why)) => Ok(why),
            // Gone before it could be asked: the log tells.
            Err(_) => Ok(String::new()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    ensure!(unhealthy.is_empty() || unhealthy.contains("policy: no heartbeat for 30"), "{unhealthy}");
    let status = binary.process.end(Duration::from_secs(60)).await?;
    ensure!(status.code() == Some(3), "it ended with {status} after {:?}", stuck.elapsed());
    let said = binary.said()?;
    ensure!(
        said.trim_end().ends_with("s (limit 30.0 s)") && said.contains("error: ended because of a task: policy"),
        "{said}"
    );
    Ok(())
}
