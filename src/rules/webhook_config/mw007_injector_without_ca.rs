//! # MW007 injector-without-ca
//!
//! ## What
//! An injector or a tag that is served inside the cluster has no CA bundle, or one that holds no certificate. Manifests as
//! charts render them have none at all: nothing is said of those.
//!
//! ## Why
//! The API server does not trust the istiod behind it: with `Fail`, no pod that asks for it starts.
//!
//! ## What to do
//! The istiod whose revision is the label of the configuration fills the bundle in, within seconds. If it does not, its log
//! says why: usually the label names another revision.
//!
//! ## When to allow
//! When the certificate comes from a CA that the API server knows by itself.

use super::scene::{Scene, injector};
use crate::model::{Backend, CaBundle};
use crate::rules::{Check, Flaw, Level, Policy, Rule};
use crate::snapshot::mesh::Answers;
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "MW007",
    name: "injector-without-ca",
    summary: "the API server cannot trust the istiod behind an injector",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("mw007_injector_without_ca.rs"),
};

/// A CA that is rotated, or an istiod that starts, is through by then.
const SETTLED: i64 = 120;

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    if !scene.tells_ca() {
        return Ok(Vec::new());
    }
    let live = scene.injectors.live();
    let mut flaws = Vec::new();
    for config in cluster.injector_configs().filter(|c| live.contains(&c.meta.name)) {
        let name = config.meta.name.as_str();
        for hook in config.hooks.iter().filter(|h| h.istio && !h.is_deactivated()) {
            let (value, is) = match hook.ca {
                CaBundle::Of(_) => continue,
                CaBundle::Empty => ("empty", "has no CA bundle"),
                CaBundle::Broken => ("broken", "has a CA bundle without a certificate in it"),
            };
            let Backend::Service { namespace, name: service, .. } = &hook.backend else { continue };
            if !matches!(cluster.answers(&hook.backend)?, Answers::Ready(_)) {
                continue;
            }
            let flaw = Flaw::of(Level::Warning, injector(name), value).after(SETTLED).says(
                format!("{name} {is}."),
                "the API server does not trust the istiod behind it, and with Fail no pod that asks for it starts.",
                format!(
                    "kubectl logs -n {namespace} service/{service} | grep -i webhook\n\
                     (istiod fills the bundle in and says there why it could not)"
                ),
            );
            if !flaws.contains(&flaw) {
                flaws.push(flaw);
            }
        }
    }
    Ok(flaws)
}
