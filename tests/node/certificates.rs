//! Certificates and CA are renewed while the API server calls, also with other lives under way, and no call is lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::disruption::{CLOSED, target};
use crate::harness::figures;
use crate::harness::guard::{CONTROLLER, Guard, NAMESPACE};
use crate::harness::load::{Load, Tally};
use crate::harness::machine::Machine;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(Cluster, leaf_and_authority_are_renewed_under_load)]
}

/// Two thirds of a life pass before a renewal: a leaf's after 39 s, the CA's after 78, and its successor signs 10 s later. All of it has to be
/// done within the third that is left, 20 s of a leaf: enough for a busy machine.
const LIVES: &str = "certificates.caValidity=120s,certificates.certValidity=60s,certificates.overlap=10s";

const TLS: &str = "revguard-webhook-tls";

/// A serving certificate.
struct Leaf {
    serial: String,
    issuer: String,
    /// Seconds since 1970.
    ends: i64,
}

/// The one that is to be served.
async fn leaf(guard: &Guard) -> Result<Leaf> {
    let secrets: Api<Secret> = Api::namespaced(guard.client.clone(), NAMESPACE);
    let data = secrets.get(TLS).await?.data.unwrap_or_default();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&data.get("tls.crt").context("tls.crt")?.0)?;
    let certificate = pem.parse_x509()?;
    Ok(Leaf {
        serial: certificate.raw_serial_as_string(),
        issuer: certificate.issuer().to_string(),
        ends: certificate.validity().not_after.timestamp(),
    })
}

/// Waits until every replica serves what is to be served then.
async fn served(guard: &Guard) -> Result<()> {
    wait_until(Duration::from_secs(60), "replicas with the new certificate", || async {
        let look = async {
            let found = guard.metric_of_each("revguard_certificate_not_after_seconds", &[]).await?;
            anyhow::Ok((found, leaf(guard).await?.ends))
        };
        let (found, ends) = look.await.map_err(|error| format!("{error:#}"))?;
        // Seconds of this century are exact in a float.
        if found.values().all(|at| *at == ends as f64) { Ok(()) } else { Err(format!("{found:?}, wanted {ends}")) }
    })
    .await
}

/// What was served so far.
#[derive(Debug, Default)]
struct Renewals {
    leaves: BTreeSet<String>,
    authorities: BTreeSet<String>,
}

impl Renewals {
    /// Looks until there has been enough; each new leaf is served by every replica before the next look.
    async fn watch(&mut self, guard: &Guard, enough: impl Fn(&Renewals, &Leaf) -> bool) -> Result<()> {
        let began = tokio::time::Instant::now();
        loop {
            let leaf = leaf(guard).await?;
            if self.leaves.insert(leaf.serial.clone()) {
                println!("after {} s a leaf of {}", began.elapsed().as_secs(), leaf.issuer);
                served(guard).await?;
            }
            self.authorities.insert(leaf.issuer.clone());
            if enough(self, &leaf) {
                return Ok(());
            }
            ensure!(began.elapsed() < Duration::from_secs(360), "{self:?} in six minutes");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn leaf_and_authority_are_renewed_under_load(machine: &'static Machine) -> Result<()> {
    // A CA that is there already would live on for years.
    let guard = Guard::fresh(machine, &[&CLOSED[..], &["--set", LIVES]].concat()).await?;
    target(&guard).await?;
    let before = guard.failed_calls().await?;
    let load = Load::start(machine).await?;
    let mut renewals = Renewals::default();
    renewals.watch(&guard, |seen, _| seen.authorities.len() >= 2 && seen.leaves.len() >= 3).await?;
    // The chart's own lives under way: the overlap is now longer than anything that is served will live, and the controller a new one.
    guard.upgrade(&CLOSED).await?;
    let tomorrow = k8s_openapi::jiff::Timestamp::now().as_second() + 86_400;
    renewals.watch(&guard, |_, leaf| leaf.ends > tomorrow).await?;
    // The API server dials all the time, so that it has to believe the newest.
    load.more(1_000).await?;
    let tally = load.finish().await?;
    tally.none_lost("renewals of leaf and CA")?;
    let after = guard.failed_calls().await?;
    ensure!(before == after, "the API server counts failed calls: {before:?}, then {after:?}");

    let (control, mended) = control(machine, &guard).await?;
    control.some_lost("a certificate of a stranger")?;
    figures::write(
        "certificates",
        &json!({
            "calls": tally.calls, "refused": tally.refused, "lost": tally.lost,
            "leaves": renewals.leaves.len(), "authorities": renewals.authorities.len(),
            "control_calls": control.calls, "control_lost": control.lost, "mended_seconds": mended.as_secs_f64(),
        }),
    )
}

/// The same load, and a certificate that the API server has no reason to believe, while there is no controller to put it right. Also how
/// long the next one takes for that, from its start.
async fn control(machine: &'static Machine, guard: &Guard) -> Result<(Tally, Duration)> {
    guard.scale(CONTROLLER, 0).await?;
    let load = Load::start(machine).await?;
    load.more(400).await?;
    let stranger = rcgen::generate_simple_self_signed(vec![format!("revguard-webhook.{NAMESPACE}.svc")])?;
    let pair = json!({"data": {
        "tls.crt": STANDARD.encode(stranger.cert.pem()), "tls.key": STANDARD.encode(stranger.signing_key.serialize_pem()),
    }});
    let secrets: Api<Secret> = Api::namespaced(guard.client.clone(), NAMESPACE);
    secrets.patch(TLS, &PatchParams::default(), &Patch::Merge(&pair)).await?;
    served(guard).await?;
    wait_until(Duration::from_secs(60), "a loss", || async {
        if load.lost() > 0 { Ok(()) } else { Err(format!("{} calls, none lost", load.calls())) }
    })
    .await?;
    let tally = load.finish().await?;

    let began = Instant::now();
    guard.scale(CONTROLLER, 2).await?;
    wait_until(Duration::from_secs(90), "a certificate of ours", || async {
        let leaf = leaf(guard).await.map_err(|error| format!("{error:#}"))?;
        if leaf.issuer.contains("revguard CA ") { Ok(()) } else { Err(leaf.issuer) }
    })
    .await?;
    served(guard).await?;
    let mended = began.elapsed();
    guard.settled().await?;
    Ok((tally, mended))
}
