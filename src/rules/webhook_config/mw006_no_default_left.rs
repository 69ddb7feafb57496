//! # MW006 no-default-left
//!
//! ## What
//! The injector of the unnamed revision was switched off by istioctl, and the tag `default` for which that was done is not
//! there: nobody answers for `istio-injection=enabled` and `sidecar.istio.io/inject=true`.
//!
//! ## Why
//! Pods of all namespaces with `istio-injection=enabled` start without a sidecar, silently.
//!
//! ## What to do
//! `istioctl tag set default --revision default` makes the tag again. To have the injector itself back, install the control
//! plane again: the chart writes its own selectors.
//!
//! ## When to allow
//! When nobody uses `istio-injection=enabled` any more.

use super::scene::{Scene, injector};
use crate::rules::{Check, Flaw, Level, Policy, Rule};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "MW006",
    name: "no-default-left",
    summary: "the injector of the unnamed revision is switched off and there is no default tag",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("mw006_no_default_left.rs"),
};

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let scene = Scene::of(cluster)?;
    if scene.injectors.default_hook().is_some() {
        return Ok(Vec::new());
    }
    let off = cluster.injector_configs().filter(|c| {
        let mut own = c.hooks.iter().filter(|h| h.istio).peekable();
        let unnamed = c.revision().is_some_and(|r| r.is_default());
        unnamed && c.is_canonical() && own.peek().is_some() && { own }.all(|h| h.is_deactivated())
    });
    Ok({ off }
        .map(|config| {
            let asking = cluster.asking_for("default").uses.len();
            let users = match asking {
                0 => String::new(),
                1 => "; 1 namespace or workload asks for it".to_owned(),
                n => format!("; {n} namespaces and workloads ask for it"),
            };
            Flaw::of(Level::Error, injector(&config.meta.name), "deactivated").says(
                format!("{} is switched off, and no tag default answers in its place{users}.", config.meta.name),
                "pods of namespaces with istio-injection=enabled start without a sidecar, outside of mTLS.",
                "istioctl tag set default --revision default",
            )
        })
        .collect())
}
