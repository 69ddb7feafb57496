//! # VW004 stuck-validator
//!
//! ## What
//! A validator has had `failurePolicy: Ignore` for more than ten minutes although its istiod answers and it has a CA bundle,
//! or no istiod of its revision runs any more.
//!
//! ## Why
//! Charts create validators with `Ignore`, and istiod sets `Fail` once it has seen that validation works. Until then a
//! mistake is accepted whenever the call fails, and nobody notices.
//!
//! ## What to do
//! Look into istiod's log for `validation`: it names what fails. Where the revision is gone, lead the validator to one that
//! runs: `istioctl tag set default --revision REVISION --overwrite`.
//!
//! ## When to allow
//! When `base.validationFailurePolicy: Ignore` was chosen.
//!
//! ## Who speaks
//! VW003 speaks of a label that keeps istiod away from the validator; then nothing is said here.

use super::scene::{Judge, Scene};
use super::vw003_mislabelled_validator;
use crate::model::{CaBundle, FailurePolicy};
use crate::rules::names::newest;
use crate::rules::{Check, Flaw, Level, Policy, Rule, tags};
use crate::snapshot::mesh::Answers;
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "VW004",
    name: "stuck-validator",
    summary: "a validator stays on failurePolicy Ignore",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("vw004_stuck_validator.rs"),
};

/// An istiod proves itself within seconds.
const STUCK: i64 = 600;

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    let ignored = scene.validators.iter().filter(|j| j.webhook.failure_policy == FailurePolicy::Ignore);
    Ok(ignored.filter_map(|j| flaw(&scene, j)).collect())
}

fn flaw(scene: &Scene<'_>, j: &Judge<'_>) -> Option<Flaw> {
    if vw003_mislabelled_validator::wrong(scene, j).is_some() {
        return None;
    }
    let revision = j.config.revision();
    let what = match j.answers {
        Answers::Elsewhere => return None,
        Answers::Ready(_) if j.webhook.ca == CaBundle::Empty => return None,
        Answers::Ready(_) => format!("{} stays on failurePolicy Ignore although {} answers.", j.name(), j.backend()),
        _ if revision.as_ref().is_some_and(|r| scene.is_running(r)) => return None,
        Answers::Missing | Answers::Nobody => {
            let whose =
                revision.map_or_else(|| "no revision".to_owned(), |r| format!("revision {r}, which runs nowhere"));
            format!("{} judges nothing: it belongs to {whose}, and failurePolicy is Ignore.", j.name())
        }
    };
    let fix = match scene.default().and_then(|(_, r)| r).or_else(|| newest(scene.cluster, &scene.running).cloned()) {
        Some(to) if j.webhook.is_catch_all() && j.is_dead() => tags::point(scene.cluster, "default", to.as_str()),
        _ if j.is_dead() => format!("kubectl delete validatingwebhookconfiguration {}", j.name()),
        _ => match &j.webhook.backend {
            crate::model::Backend::Service { namespace, name, .. } => {
                format!("kubectl logs -n {namespace} service/{name} | grep -i validat\n(istiod says there what fails)")
            }
            _ => format!("kubectl get validatingwebhookconfiguration {} -o yaml", j.name()),
        },
    };
    let why = "mistakes in Istio configuration are accepted, and the proxies that they break are the first to tell.";
    Some(Flaw::of(Level::Warning, j.id(), j.webhook.name.as_str()).after(STUCK).says(what, why, fix))
}
