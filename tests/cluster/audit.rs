//! What the audit says of injectors, counted against what the API server really does; and reports as it takes them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use revguard::audit::report::{Report, ReportApi, reports};
use revguard::rules::RULES;
use serde_json::{Value, json};

use crate::audit_table::{Case, World};
use crate::harness::crds;
use crate::harness::objects::Scope;
use crate::injection::{Labels, namespaces, observed_with, pods};
use crate::shared::shared;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ApiServer, conflicts_are_those_pods_that_the_api_server_asks_two_injectors_for),
        trial!(ApiServer, reports_are_what_their_definitions_take),
    ]
}

/// The injectors of a world, as an API server takes them.
fn injectors(world: &World) -> Vec<Value> {
    let kind = |o: &&Value| o["kind"] == "MutatingWebhookConfiguration";
    let mut all: Vec<Value> = world.objects.iter().filter(kind).cloned().collect();
    for webhook in all.iter_mut().flat_map(|c| c["webhooks"].as_array_mut().into_iter().flatten()) {
        webhook["sideEffects"] = json!("None");
        webhook["admissionReviewVersions"] = json!(["v1"]);
    }
    all
}

/// Pairs of a namespace and a pod for which more than one configuration is called.
async fn doubles(world: &World, places: &[Labels]) -> Result<usize> {
    let plane = shared().await?;
    let seen = observed_with(&plane, &injectors(world), places, &pods()).await?;
    let configs = |hooks: &[String]| -> usize {
        let names: BTreeSet<&str> = hooks.iter().filter_map(|h| h.split('/').next()).collect();
        names.len()
    };
    Ok(seen.iter().filter(|one| configs(&one.hooks) > 1).count())
}

/// For every case about two injectors: the API server asks two of them for some pod exactly where the audit says so, and
/// once the repairs are carried out it does no more.
async fn conflicts_are_those_pods_that_the_api_server_asks_two_injectors_for() -> Result<()> {
    let (mut conflicts, mut repaired) = (0, 0);
    for case in Case::all().iter().filter(|c| matches!(c.rule().as_str(), "MW001" | "MW003")) {
        let mut places = namespaces();
        for mesh in ["east", "west"] {
            let labels = [("mesh", mesh), ("istio.io/rev", "both")];
            places.push(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        }
        let says = |world: &World| {
            let audit = world.audit(&case.policy);
            audit.entries.iter().any(|e| matches!(e.rule.code, "MW001" | "MW003"))
        };
        let (said, seen) = (says(&case.world), doubles(&case.world, &places).await?);
        ensure!(said == (seen > 0), "{}: the audit says {said}, the API server asks two for {seen} pairs", case.path);
        conflicts += usize::from(said);
        let mut world = case.world.clone();
        let first = |w: &World| {
            let entries = w.audit(&case.policy).entries.into_iter();
            { entries }.filter(|e| matches!(e.rule.code, "MW001" | "MW003")).find_map(|e| e.repair)
        };
        while let Some(repair) = first(&world) {
            world.mend(&repair).map_err(anyhow::Error::msg)?;
            let left = doubles(&world, &places).await?;
            ensure!(left < seen, "{}: {} leaves {left} of {seen}", case.path, repair.says);
            ensure!(says(&world) == (left > 0), "{}: {left} are left", case.path);
            repaired += 1;
        }
    }
    println!("audit: {conflicts} meshes with two injectors for a pod, {repaired} repaired");
    ensure!(conflicts >= 3 && repaired >= 2, "{conflicts} conflicts, {repaired} repairs prove little");
    Ok(())
}

/// Entries of every level, in a namespace and without one.
fn made() -> Result<Vec<Report>> {
    let mut entries: Vec<_> = Case::all().iter().flat_map(|c| c.audit().entries).collect();
    for entry in &mut entries {
        if !entry.object.namespace.is_empty() {
            entry.object.namespace = "default".into();
        }
    }
    let made: Vec<Report> = reports(&entries)
        .into_iter()
        .filter(|r| r.namespace.as_deref().is_none_or(|namespace| namespace == "default"))
        .collect();
    ensure!(made.len() == 2, "{} reports", made.len());
    let levels: BTreeSet<_> = made.iter().flat_map(|r| r.totals.keys().copied()).collect();
    ensure!(levels.len() == 4, "only {levels:?}");
    ensure!(!RULES.is_empty());
    Ok(made)
}

async fn reports_are_what_their_definitions_take() -> Result<()> {
    let plane = shared().await?;
    let mut scope = Scope::new(&plane);
    scope.apply(&crds::reports()?).await?;
    for api in ReportApi::ALL {
        let manifests: Vec<Value> = made()?.iter().map(|r| r.manifest(api)).collect();
        // Server-side apply refuses what the schema does not know.
        scope.apply(&manifests).await.with_context(|| format!("{api:?}"))?;
    }
    scope.end().await
}
