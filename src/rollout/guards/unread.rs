//! What could not be looked at, and names that accept nothing.

use super::{Found, GUARDS as ALL, Guard, Scene};
use crate::rollout::read::TABLE;
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
    let missing = TABLE.iter().filter_map(|row| Some((row, scene.raw.unread(row.listed)?)));
    missing
        .map(|(row, why)| {
            let plural = if row.group.is_empty() { row.plural.to_owned() } else { format!("{}.{}", row.plural, row.group) };
            let fix = if scene.raw.is_of_manifests() {
                format!("kubectl get {plural} -A -o yaml >> cluster.yaml\n(not needed if the cluster has none)")
            } else {
                format!("kubectl auth can-i list {plural} --as=system:serviceaccount:revguard:revguard-controller\n(docs/access.md)")
            };
            Found::warn(scene.rollout()).says(format!("{plural} were not read: {why}."), format!("{}: that is not known now.", row.why), fix)
        })
        .collect()
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
