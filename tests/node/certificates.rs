//! Certificates and CA are renewed while the API server calls, and no call is lost.

use std::collections::BTreeSet;
use std::time::Duration;

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
use crate::harness::guard::{Guard, NAMESPACE};
use crate::harness::load::Load;
use crate::harness::machine::Machine;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(Cluster, leaf_and_authority_are_renewed_under_load)]
}

/// Two thirds of a life pass before a renewal: a leaf's after a minute, the CA's after two, and its successor signs 10 s later.
const LIVES: &str = "certificates.caValidity=180s,certificates.certValidity=90s,certificates.overlap=10s";

const TLS: &str = "revguard-webhook-tls";

/// Serial number and issuer of the certificate that is to be served, and when it ends.
async fn leaf(guard: &Guard) -> Result<(String, String, i64)> {
    let secrets: Api<Secret> = Api::namespaced(guard.client.clone(), NAMESPACE);
    let data = secrets.get(TLS).await?.data.unwrap_or_default();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&data.get("tls.crt").context("tls.crt")?.0)?;
    let certificate = pem.parse_x509()?;
    let ends = certificate.validity().not_after.timestamp();
    Ok((certificate.raw_serial_as_string(), certificate.issuer().to_string(), ends))
}

/// Waits until every replica serves the certificate that ends then.
async fn served(guard: &Guard, ends: i64) -> Result<()> {
    wait_until(Duration::from_secs(30), "replicas with the new certificate", || async {
        let found = guard.metric_of_each("revguard_certificate_not_after_seconds", &[]).await;
        let found = found.map_err(|error| format!("{error:#}"))?;
        // Seconds of this century are exact in a float.
        if found.values().all(|at| *at == ends as f64) { Ok(()) } else { Err(format!("{found:?}, wanted {ends}")) }
    })
    .await
}

async fn leaf_and_authority_are_renewed_under_load(machine: &'static Machine) -> Result<()> {
    // A CA that is there already would live on for years.
    let guard = Guard::fresh(machine, &[&CLOSED[..], &["--set", LIVES]].concat()).await?;
    target(&guard).await?;
    let before = guard.failed_calls().await?;
    let load = Load::start(machine).await?;
    let (mut leaves, mut authorities) = (BTreeSet::new(), BTreeSet::new());
    let began = tokio::time::Instant::now();
    while authorities.len() < 2 || leaves.len() < 3 {
        ensure!(began.elapsed() < Duration::from_secs(360), "leaves {leaves:?} of {authorities:?} in six minutes");
        let (serial, issuer, ends) = leaf(&guard).await?;
        if leaves.insert(serial) {
            println!("a leaf of {issuer}");
            served(&guard, ends).await?;
        }
        authorities.insert(issuer);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // The API server dials all the time, so that it has to believe the newest.
    load.more(1_000).await?;
    let tally = load.finish().await?;
    tally.none_lost("renewals of leaf and CA")?;
    let after = guard.failed_calls().await?;
    ensure!(before == after, "the API server counts failed calls: {before:?}, then {after:?}");

    // The control: a certificate that the API server has no reason to believe, until the controller puts it right.
    let load = Load::start(machine).await?;
    load.more(400).await?;
    let stranger = rcgen::generate_simple_self_signed(vec![format!("revguard-webhook.{NAMESPACE}.svc")])?;
    let pair = json!({"data": {
        "tls.crt": STANDARD.encode(stranger.cert.pem()), "tls.key": STANDARD.encode(stranger.signing_key.serialize_pem()),
    }});
    let secrets: Api<Secret> = Api::namespaced(guard.client.clone(), NAMESPACE);
    secrets.patch(TLS, &PatchParams::default(), &Patch::Merge(&pair)).await?;
    wait_until(Duration::from_secs(60), "a loss", || async {
        if load.lost() > 0 { Ok(()) } else { Err(format!("{} calls, none lost", load.calls())) }
    })
    .await?;
    let control = load.finish().await?;
    control.some_lost("a certificate of a stranger")?;
    guard.settled().await?;
    figures::write(
        "certificates",
        &json!({
            "calls": tally.calls, "refused": tally.refused, "lost": tally.lost,
            "leaves": leaves.len(), "authorities": authorities.len(),
            "control_calls": control.calls, "control_lost": control.lost,
        }),
    )
}
