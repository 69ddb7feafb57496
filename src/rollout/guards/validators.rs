//! Validators of Istio's configuration, as the rules about them judge: a rollout adds that it would begin in such a cluster.

use super::{Found, Guard, Scene};
use crate::rollout::seen::Severity;
use crate::rules::{Check, Flaw, Level, Policy};

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "TwoDefaultValidators",
        summary: "several validators judge Istio's configuration: what the new control plane needs, another may refuse (VW001, VW006)",
        worst: Severity::Block,
        acknowledge: true,
        check: two,
    },
    Guard {
        name: "ValidatorDangling",
        summary: "a validator refuses every write of Istio's configuration, because nobody answers behind it (VW002)",
        worst: Severity::Block,
        acknowledge: true,
        check: dangling,
    },
];

/// What a rule's audit finds in the mesh; nothing where the mesh is not known.
fn audited(scene: &Scene<'_>, code: &str, least: Level) -> Vec<Flaw> {
    let Some(rule) = crate::rules::find(code) else { return Vec::new() };
    let policy = Policy::default();
    let audits = rule.checks.iter().filter_map(|check| match check {
        Check::Audit(audit) => Some(audit),
        _ => None,
    });
    let flaws = audits.filter_map(|audit| audit(scene.known, &policy).ok()).flatten();
    flaws.filter(|f| f.level >= least).collect()
}

fn found(flaw: Flaw, code: &str, why: &str) -> Found {
    let kind = crate::wire::row(flaw.object.kind).name;
    Found::block(format!("{kind}/{}", flaw.object.name)).says(
        flaw.what,
        format!("{} {why}", flaw.why),
        format!("{}\n(revguard explain {code})", flaw.fix),
    )
}

fn two(scene: &Scene<'_>) -> Vec<Found> {
    let why = "Configuration that the new gateway needs could not be written while both run.";
    let of =
        |code: &'static str| audited(scene, code, Level::Error).into_iter().map(move |flaw| found(flaw, code, why));
    of("VW001").chain(of("VW006")).collect()
}

fn dangling(scene: &Scene<'_>) -> Vec<Found> {
    let why = "Nothing could be mended in Gateways or VirtualServices while the gateway moves.";
    audited(scene, "VW002", Level::Critical).into_iter().map(|flaw| found(flaw, "VW002", why)).collect()
}
