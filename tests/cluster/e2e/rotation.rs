//! Certificates and replicas change while the API server calls, and no call is lost. Each count of losses
//! has a control in the same run that must lose, so that a count that cannot count is noticed.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;

use super::load::{Load, Tally};
use super::{Env, HOOK, SOON};
use crate::harness::Options;
use crate::harness::balancer::Balancer;
use crate::harness::binary::{Binary, Secret};
use crate::harness::wait::wait_until;
use crate::trial::{prove, trial};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ApiServer, a_certificate_is_swapped_twice_under_load),
        trial!(ApiServer, a_replica_ends_under_load_and_another_takes_over),
    ]
}

/// Answers before and after each event.
fn calls() -> u64 {
    if prove() { 2_500 } else { 1_000 }
}

/// How long the first phase of the drain lasts. What ships is 12 s.
fn drain() -> &'static str {
    if prove() { "12" } else { "2" }
}

async fn failed_open(env: &Env) -> Result<f64> {
    env.plane.metric("apiserver_admission_webhook_fail_open_count", &[("name", HOOK)]).await
}

fn none_lost(what: &str, tally: &Tally) -> Result<()> {
    println!("{what}: {} calls, {} lost", tally.calls, tally.lost);
    ensure!(tally.lost == 0, "{what}: {tally:#?}");
    Ok(())
}

async fn new_serial(binary: &Binary, secret: &Secret, old: &[String]) -> Result<String> {
    wait_until(SOON, "a new certificate", || async {
        match binary.serial(secret).await {
            Ok(serial) if !old.contains(&serial) => Ok(serial),
            Ok(serial) => Err(serial),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

async fn a_certificate_is_swapped_twice_under_load() -> Result<()> {
    let mut env = Env::start(Options::with_controllers(&[]), &[]).await?;
    let binary = env.replica(&[]).await?;
    env.balancer.set(&[binary.address]);
    let registration = env.register("Fail").await?;
    let load = Load::start(&env).await?;
    load.more(calls()).await?;
    // Open connections are cut with their balancer, so it stays.
    let mut ports = Vec::new();
    let mut serials = vec![binary.serial(&env.secret).await?];
    for _ in 0..2 {
        env.secret.swap()?;
        serials.push(new_serial(&binary, &env.secret, &serials).await?);
        load.more(calls()).await?;
        // A port that it has no connection to makes the API server itself dial, and believe the new one.
        let next = Balancer::start(&[binary.address]).await?;
        env.redirect(&next).await?;
        load.more(calls()).await?;
        ensure!(next.handed_to(binary.address) > 0, "the API server has not dialled");
        ports.push(next);
    }
    let tally = load.finish().await?;
    none_lost("certificate swapped twice", &tally)?;
    ensure!(tally.calls >= 3 * calls() && failed_open(&env).await? == 0.0);
    println!("certificate swapped twice: serials {}", serials.join(", "));
    ensure!(binary.metric("revguard_certificate_reloads_total", &[]).await? >= 2.0);

    // The control: a certificate that the API server has no reason to believe.
    let load = Load::start(&env).await?;
    load.more(calls() / 4).await?;
    env.secret = Secret::new(env.plane.folder())?;
    let stranger = env.replica(&[]).await?;
    let next = Balancer::start(&[stranger.address]).await?;
    env.redirect(&next).await?;
    load.more(calls()).await?;
    let tally = load.finish().await?;
    println!("control, another authority: {} calls, {} lost", tally.calls, tally.lost);
    let unknown = tally.examples.iter().any(|why| why.contains("x509: certificate signed by unknown authority"));
    ensure!(tally.lost > 0 && unknown, "calls to a stranger were not noticed: {tally:?}");
    registration.remove().await
}

async fn a_replica_ends_under_load_and_another_takes_over() -> Result<()> {
    let env = Env::start(Options::with_controllers(&[]), &[]).await?;
    let mut leaving = env.replica(&["--drain", drain()]).await?;
    let mut staying = env.replica(&[]).await?;
    env.balancer.set(&[leaving.address, staying.address]);
    let registration = env.register("Fail").await?;
    let load = Load::start(&env).await?;
    load.more(calls()).await?;
    let share = [env.balancer.handed_to(leaving.address), env.balancer.handed_to(staying.address)];
    ensure!(share.iter().all(|&part| part * 5 >= share.iter().sum()), "connections went {share:?}");

    leaving.process.signal(Signal::TERM);
    wait_until(SOON, "an unready replica", || async {
        match leaving.get("/readyz").await {
            Ok((503, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    // It is called for a while after it said so, as everywhere; then the endpoint goes.
    load.more(calls() / 4).await?;
    env.balancer.set(&[staying.address]);
    let ended = leaving.process.terminate(Duration::from_secs(60)).await?;
    ensure!(ended.success(), "it ended with {ended}");
    load.more(calls()).await?;
    let tally = load.finish().await?;
    none_lost("a replica ended by SIGTERM", &tally)?;
    ensure!(failed_open(&env).await? == 0.0);

    // The control: no drain, ended with calls in hand. It is stopped first, so that there are some.
    let mut cut = env.replica(&["--drain", "0"]).await?;
    env.balancer.set(&[cut.address, staying.address]);
    let load = Load::start(&env).await?;
    load.more(calls()).await?;
    cut.process.signal(Signal::STOP);
    // Longer than a busy machine takes for any call.
    load.stuck(Duration::from_secs(2)).await?;
    cut.process.kill()?;
    load.more(calls()).await?;
    let tally = load.finish().await?;
    println!("control, killed without a drain: {} calls, {} lost", tally.calls, tally.lost);
    ensure!(tally.lost > 0, "cut calls were not noticed: {tally:?}");
    staying.process.check()?;
    registration.remove().await
}
