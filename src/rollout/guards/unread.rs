//! What could not be looked at, and names that accept nothing.

use super::{Found, GUARDS as ALL, Guard, Scene};
use crate::rollout::read::{Listed, Row, TABLE};
use crate::rollout::seen::Severity;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "Unread",
        summary: "objects of some kind could not be read, so that what they would have told is not known",
        worst: Severity::Warn,
        acknowledge: false,
        check: unread,
    },
    Guard {
        name: "AcknowledgesNothing",
        summary: "a name in spec.acknowledge is no guard's, or that guard cannot be acknowledged",
        worst: Severity::Warn,
        acknowledge: false,
        check: nothing,
    },
];

fn unread(scene: &Scene<'_>) -> Vec<Found> {
    let missing: Vec<(&Row, &str)> =
        TABLE.iter().filter_map(|row| Some((row, scene.raw.unread(row.listed)?))).collect();
    if scene.raw.is_of_manifests() {
        return not_given(scene, &missing).into_iter().collect();
    }
    missing
        .into_iter()
        .map(|(row, why)| {
            Found::warn(scene.rollout()).says(
                format!("{} were not read: {why}.", plural(row)),
                format!("{}: that is not known now.", row.why),
                format!(
                    "kubectl auth can-i list {} -A\n(what the controller may read stands in docs/access.md)",
                    plural(row)
                ),
            )
        })
        .collect()
}

/// Kinds that manifests hold nothing of, in one finding: most clusters have none of most of them.
fn not_given(scene: &Scene<'_>, missing: &[(&Row, &str)]) -> Option<Found> {
    // The rollout itself comes from elsewhere.
    let kinds: Vec<String> =
        missing.iter().filter(|(row, _)| row.listed != Listed::Rollouts).map(|(row, _)| plural(row)).collect();
    (!kinds.is_empty()).then(|| {
        Found::warn(scene.rollout()).says(
            format!("the manifests hold no {}.", kinds.join(", ")),
            "they are taken as absent; what selects pods, limits them or scales them would be missed.",
            format!(
                "kubectl get {} -A -o yaml > more.yaml\n(and --cluster more.yaml; nothing if the cluster has none)",
                kinds.join(",")
            ),
        )
    })
}

/// As kubectl names it, also where two groups have the same.
fn plural(row: &Row) -> String {
    if row.group.is_empty() { row.plural.to_owned() } else { format!("{}.{}", row.plural, row.group) }
}

fn nothing(scene: &Scene<'_>) -> Vec<Found> {
    let accepted = &scene.seen.rollout.spec.acknowledge;
    let useless = accepted.iter().filter(|name| !ALL.iter().any(|g| g.acknowledge && g.name == name.as_str()));
    useless
        .map(|name| {
            let known = ALL.iter().any(|g| g.name == name.as_str());
            let what = if known { "cannot be accepted" } else { "is the name of no guard" };
            let nearest = ALL.iter().map(|g| (strsim::damerau_levenshtein(g.name, name), g.name)).min();
            let meant = nearest.filter(|_| !known).map(|(_, near)| format!("\n(was {near} meant?)"));
            Found::warn(scene.rollout()).says(
                format!("{name} in spec.acknowledge {what}."),
                "it changes nothing.",
                format!(
                    "kubectl edit gatewayrollout {} -n {}{}",
                    scene.seen.rollout.name,
                    scene.namespace(),
                    meant.unwrap_or_default()
                ),
            )
        })
        .collect()
}
