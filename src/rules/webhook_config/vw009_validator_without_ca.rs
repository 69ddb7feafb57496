//! # VW009 validator-without-ca
//!
//! ## What
//! A validator that is served inside the cluster has no CA bundle, one that holds no certificate, or another one than the
//! injector of the same istiod. A `url` may have a certificate that everybody trusts, and manifests as charts render them
//! have no bundles at all: nothing is said of either.
//!
//! ## Why
//! The API server does not trust the istiod behind it: with `Fail` every write is refused, with `Ignore` nothing is judged.
//!
//! ## What to do
//! The istiod whose revision is the label of the configuration fills the bundle in, within seconds. If it does not, its log
//! says why; VW003 names a label that keeps it away.
//!
//! ## When to allow
//! Never for long; a rotation of the CA is over within minutes.

use super::scene::{Judge, Scene};
use super::vw003_mislabelled_validator;
use crate::model::{Backend, CaBundle};
use crate::rules::{Check, Flaw, Level, Policy, Rule};
use crate::snapshot::mesh::Answers;
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "VW009",
    name: "validator-without-ca",
    summary: "the API server cannot trust the istiod behind a validator",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("vw009_validator_without_ca.rs"),
};

/// A CA that is rotated, or an istiod that starts, is through by then.
const SETTLED: i64 = 120;

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    if !scene.tells_ca() {
        return Ok(Vec::new());
    }
    let served = scene.validators.iter().filter(|j| matches!(j.answers, Answers::Ready(_)));
    Ok(served.filter_map(|j| flaw(&scene, j)).collect())
}

fn flaw(scene: &Scene<'_>, j: &Judge<'_>) -> Option<Flaw> {
    let home = j.serving.as_ref().and_then(|r| scene.home(r)).map(|home| home.ca);
    let (value, is) = match (j.webhook.ca, home) {
        // No istiod fills it in while the label is wrong, and that is what VW003 says.
        (CaBundle::Empty, _) if vw003_mislabelled_validator::wrong(scene, j).is_some() => return None,
        (CaBundle::Empty, _) => ("empty", "has no CA bundle".to_owned()),
        (CaBundle::Broken, _) => ("broken", "has a CA bundle without a certificate in it".to_owned()),
        (CaBundle::Of(own), Some(CaBundle::Of(other))) if own != other => {
            ("other", format!("has another CA bundle than the injector of {}", j.serving.as_ref()?))
        }
        (CaBundle::Of(_), _) => return None,
    };
    let Backend::Service { namespace, name, .. } = &j.webhook.backend else { return None };
    Some(Flaw::of(Level::Error, j.id(), format!("{} {value}", j.webhook.name)).after(SETTLED).says(
        format!("{} {is}.", j.name()),
        "the API server does not trust the istiod behind it: with Fail every write is refused, with Ignore nothing is judged.",
        format!(
            "kubectl logs -n {namespace} service/{name} | grep -i webhook\n\
             (istiod fills the bundle in and says there why it could not)"
        ),
    ))
}
