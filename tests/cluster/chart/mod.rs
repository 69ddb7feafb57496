//! The chart on a real API server: what it asks to be sent, and whether it can be installed at all.
//!
//! Rendered by the real Helm. Webhooks are registered as the chart says it, selectors, conditions and all; only where to call is
//! ours, because no pod runs here.

mod calls;
mod install;
mod leave;
mod monitoring;
#[path = "../../chart/panels.rs"]
mod panels;
#[path = "../../chart/render.rs"]
pub mod render;
#[path = "../../chart/tools.rs"]
pub mod tools;

use anyhow::{Context, Result};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cases::Stage;
use crate::harness::registration::{Kind, Registration, client_config};
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(Helm, calls::every_finding_is_asked_for),
        trial!(Helm, calls::what_no_rule_looks_at_makes_no_call),
        trial!(Helm, install::every_rendered_object_is_valid),
        trial!(Helm, install::installed_upgraded_and_gone),
        trial!(Helm, leave::a_newer_chart_is_installed_by_the_command_of_the_pages),
        trial!(Helm, leave::the_ways_out_of_the_runbook_leave_nothing),
        trial!(Prometheus, monitoring::a_dangling_validator_is_alerted_of_and_every_panel_shows_something),
    ]
}

/// The chart's webhook configurations, calling our server. `besides` is one more condition.
pub async fn register(stage: &Stage, arguments: &[&str], besides: Option<Value>) -> Result<Vec<Registration>> {
    let objects = render::render(arguments)?;
    let mut registered = Vec::new();
    for (kind, endpoint) in [(Kind::Mutating, "mutate"), (Kind::Validating, "validate")] {
        let name = match kind {
            Kind::Mutating => "MutatingWebhookConfiguration",
            Kind::Validating => "ValidatingWebhookConfiguration",
        };
        let mut configuration = render::find(&objects, name, render::RELEASE)?.clone();
        for webhook in configuration["webhooks"].as_array_mut().context("webhooks")? {
            webhook["clientConfig"] = client_config(&stage.guard.url(endpoint), stage.guard.ca());
            // A call that fails must not look like one that was not made.
            webhook["failurePolicy"] = json!("Fail");
            let conditions = webhook["matchConditions"].as_array_mut().context("matchConditions")?;
            conditions.extend(besides.clone());
        }
        registered.extend(Registration::create_all(&stage.plane, kind, vec![configuration]).await?);
    }
    Ok(registered)
}
