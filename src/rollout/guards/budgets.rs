//! Disruption budgets that count the gateway's pods.

use super::drain::is_set_apart;
use super::{Found, Guard, Scene};
use crate::rollout::read::apart::{apart, counted_by};
use crate::rollout::read::fresh::labels;
use crate::rollout::read::json::Json;
use crate::rollout::seen::Severity;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "PDBOverlap",
        summary: "several disruption budgets count the new pods, so that none of them can be evicted",
        worst: Severity::Block,
        acknowledge: true,
        check: overlap,
    },
    Guard {
        name: "PDBBlocks",
        summary: "a disruption budget allows no disruption, so that nodes cannot be drained while the rollout lasts",
        worst: Severity::Warn,
        acknowledge: false,
        check: blocks,
    },
    Guard {
        name: "PDBCountsApart",
        summary: "a disruption budget goes on counting pods that were set apart as pods that serve",
        worst: Severity::Warn,
        acknowledge: false,
        check: counts_apart,
    },
];

fn overlap(scene: &Scene<'_>) -> Vec<Found> {
    if scene.plan.is_none() {
        return Vec::new();
    }
    let budgets = counted_by(scene.raw, &labels(&scene.new.labels()));
    let names: Vec<&str> = budgets.iter().map(|(name, _)| name.as_str()).collect();
    let Some(last) = names.last().filter(|_| names.len() > 1) else { return Vec::new() };
    let namespace = scene.namespace();
    vec![Found::block(scene.object("PodDisruptionBudget", last)).says(
        format!(
            "{} disruption budgets count the pods of {namespace}/{}: {}.",
            names.len(),
            scene.gateway(),
            names.join(", ")
        ),
        "the API server refuses every eviction of a pod that more than one of them counts; nodes cannot be drained.",
        format!("kubectl delete poddisruptionbudget {last} -n {namespace}\n(keep the one that is meant)"),
    )]
}

fn blocks(scene: &Scene<'_>) -> Vec<Found> {
    let tight = scene.seen.pdbs.iter().filter(|p| p.disruptions_allowed == 0);
    tight
        .map(|budget| {
            Found::warn(scene.object("PodDisruptionBudget", &budget.name)).says(
                format!("PodDisruptionBudget {}/{} allows no disruption now.", scene.namespace(), budget.name),
                "the rollout itself evicts nothing, but nodes cannot be drained until there are more pods.",
                "nothing is to be done; once the new pods serve it allows as many",
            )
        })
        .collect()
}

fn counts_apart(scene: &Scene<'_>) -> Vec<Found> {
    let (true, Ok(key)) = (is_set_apart(scene), &scene.seen.apart_key) else { return Vec::new() };
    let Some(source) = scene.source() else { return Vec::new() };
    let own = labels(&source.template.labels);
    let counting = counted_by(scene.raw, &own).into_iter().filter(|(_, s)| s.matches(&apart(&own, key)));
    counting
        .map(|(name, _)| {
            Found::warn(scene.object("PodDisruptionBudget", &name)).says(
                format!("PodDisruptionBudget {}/{name} does not select by label {key}.", scene.namespace()),
                "a pod that was set apart still counts as one that serves, so that while pods leave, one too many may be evicted.",
                "do not drain nodes of this gateway while status.phase is Draining",
            )
        })
        .collect()
}
