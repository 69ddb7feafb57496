//! Our process or the API server is away, and comes back.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{Env, HOOK, SOON, case, namespace, prefix, version_of};
use crate::harness::Options;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ApiServer, killed_and_restarted_under_fail_and_ignore),
        trial!(ApiServer, the_api_server_restarts_while_we_serve),
    ]
}

const CREATE: [&str; 3] = ["create", "-f", "-"];
const CREATING: &str = "error when creating \"STDIN\": ";

async fn killed_and_restarted_under_fail_and_ignore() -> Result<()> {
    let mut env = Env::start(Options::with_controllers(&[]), &[]).await?;
    let (bad, golden) = case("ns001/both.yaml")?;
    let bad_text = bad.request.raw.to_string();
    let mut binary = env.replica(&[]).await?;
    env.balancer.set(&[binary.address]);
    env.stage(&bad, &binary).await?;

    let registration = env.register("Fail").await?;
    env.jane(&CREATE, &bad_text).await?.denied(CREATING, &golden)?;
    binary.process.kill()?;
    let good = |name: &str| namespace(name, json!({"team": "a"})).to_string();
    let refused = env.jane(&CREATE, &good("meanwhile")).await?;
    let words = format!(
        "Error from server (InternalError): {CREATING}Internal error occurred: failed calling webhook {HOOK:?}: failed to call webhook: Post "
    );
    ensure!(refused.code == Some(1) && refused.err.starts_with(&words), "{}", refused.err);

    let mut binary = env.replica(&[]).await?;
    env.balancer.set(&[binary.address]);
    env.jane(&CREATE, &good("meanwhile")).await?.passed()?;
    env.jane(&CREATE, &bad_text).await?.denied(CREATING, &golden)?;
    registration.remove().await?;

    let registration = env.register("Ignore").await?;
    env.jane(&CREATE, &bad_text).await?.denied(CREATING, &golden)?;
    let open = [("name", HOOK), ("type", "validating")];
    let before = env.plane.metric("apiserver_admission_webhook_fail_open_count", &open).await?;
    ensure!(before == 0.0, "{before} calls failed open while we served");
    binary.process.kill()?;
    env.jane(&CREATE, &good("unguarded")).await?.passed()?;
    env.jane(&CREATE, &bad_text).await?.passed()?;
    let after = env.plane.metric("apiserver_admission_webhook_fail_open_count", &open).await?;
    ensure!(after == 2.0, "{after} calls failed open, two were made");

    let binary = env.replica(&[]).await?;
    env.balancer.set(&[binary.address]);
    // The namespace is there now, with both labels: saying so again introduces nothing.
    let again = ["label", "namespace", "shop", "team=b"];
    env.jane(&again, "").await?.passed()?;
    let other = bad_text.replace("\"shop\"", "\"shop-two\"");
    let denied = env.jane(&CREATE, &other).await?;
    ensure!(denied.err.contains(&format!("{}[NS001 ", prefix())), "{}", denied.err);
    let after = env.plane.metric("apiserver_admission_webhook_fail_open_count", &open).await?;
    ensure!(after == 2.0, "{after} calls failed open");
    registration.remove().await
}

async fn the_api_server_restarts_while_we_serve() -> Result<()> {
    let mut env = Env::start(Options::with_controllers(&[]), &[]).await?;
    let (staged, _) = case("ns001/both.yaml")?;
    let binary = env.replica(&[]).await?;
    env.balancer.set(&[binary.address]);
    env.stage(&staged, &binary).await?;
    let registration = env.register("Fail").await?;
    // Nobody asks for 1-24 yet.
    let delete = ["delete", "deployment", "istiod-1-24", "-n", "istio-system", "--dry-run=server"];
    env.jane(&delete, "").await?.passed()?;

    env.plane.restart_apiserver().await?;
    // RBAC and webhook configurations are read again before it is ready, so this is judged.
    let late = namespace("late", json!({"istio.io/rev": "1-24"})).to_string();
    let made = env.jane(&["create", "-o", "json", "-f", "-"], &late).await?.passed()?;
    let made: Value = serde_json::from_str(&made)?;
    binary.seen("namespaces", version_of(&made)?).await?;
    let denied = env.jane(&delete, "").await?;
    let words = format!("Error from server (Forbidden): {}[CP002 ", prefix());
    ensure!(denied.err.starts_with(&words) && denied.err.contains("namespace late asks for 1-24"), "{}", denied.err);
    // It was ready all the time: an old view is a view.
    let (status, why) = binary.get("/readyz").await?;
    ensure!(status == 200, "{why}");
    wait_until(SOON, "a counted watch error", || async {
        let errors = binary.metric("revguard_watch_errors_total", &[]).await.map_err(|error| format!("{error:#}"))?;
        if errors > 0.0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await?;
    registration.remove().await
}
