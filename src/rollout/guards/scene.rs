//! What guards look at: everything that was read, and what would come of it.

use serde_json::Value;

use crate::model::{self, Labels};
use crate::rollout::objects::Plan;
use crate::rollout::objects::template::relabelled;
use crate::rollout::read::fresh::{fresh, labels};
use crate::rollout::read::json::Json;
use crate::rollout::read::{self, Listed, Raw, workload};
use crate::rollout::seen::{Deployment, Of, Pod, Seen};
use crate::snapshot::Snapshot;

/// See the module's documentation.
pub struct Scene<'a> {
    pub raw: &'a Raw,
    /// The mesh as it was a moment ago.
    pub known: &'a Snapshot,
    /// Control planes and injectors as they are now.
    pub fresh: Snapshot,
    pub seen: &'a Seen,
    pub from: Option<String>,
    /// What would be made; `None` where the gateway is not there or is none.
    pub plan: Option<Plan<'a>>,
    /// The second Deployment's template; null without a plan.
    pub new: Value,
    /// The same as the rules read it.
    pub template: model::Template,
}

impl<'a> Scene<'a> {
    pub fn of(raw: &'a Raw, known: &'a Snapshot, seen: &'a Seen) -> Scene<'a> {
        let from = read::from_revision(seen, raw);
        let plan = Plan::of(seen, from.as_deref());
        let new = plan.as_ref().map(Plan::canary).unwrap_or_default();
        Scene { raw, known, fresh: fresh(raw, known), seen, from, template: workload::model(&new), plan, new }
    }

    pub fn namespace(&self) -> &'a str {
        &self.seen.rollout.namespace
    }

    pub fn to(&self) -> &'a str {
        &self.seen.rollout.spec.to_revision
    }

    /// Name of the gateway's Deployment.
    pub fn gateway(&self) -> &'a str {
        read::target(&self.seen.rollout.spec)
    }

    pub fn source(&self) -> Option<&'a Deployment> {
        self.seen.source.as_ref()
    }

    /// The gateway's Deployment as it was read; null where it is not there.
    pub fn deployment(&self) -> &'a Value {
        self.raw.get(Listed::Deployments, self.namespace(), self.gateway()).unwrap_or(&Value::Null)
    }

    /// `Deployment/namespace/name`
    pub fn named(&self) -> String {
        self.object("Deployment", self.gateway())
    }

    /// `GatewayRollout/namespace/name`
    pub fn rollout(&self) -> String {
        self.object("GatewayRollout", &self.seen.rollout.name)
    }

    /// `Kind/namespace/name` of the gateway's namespace.
    pub fn object(&self, kind: &str, name: &str) -> String {
        format!("{kind}/{}/{name}", self.namespace())
    }

    /// Changes the spec of the rollout by a merge patch.
    pub fn respec(&self, spec: &str) -> String {
        let (name, namespace) = (&self.seen.rollout.name, self.namespace());
        format!("kubectl patch gatewayrollout {name} -n {namespace} --type merge -p '{{\"spec\":{spec}}}'")
    }

    /// The rollout once more with another spec, because that field cannot be changed.
    pub fn anew(&self, from: &str, to: &str) -> String {
        let (name, namespace) = (&self.seen.rollout.name, self.namespace());
        format!(
            "kubectl get gatewayrollout {name} -n {namespace} -o yaml | sed 's/{from}/{to}/' | kubectl replace --force -f -"
        )
    }

    /// Ready pods of the gateway's own Deployment.
    pub fn ready(&self) -> impl Iterator<Item = &'a Pod> {
        self.seen.pods.iter().filter(|p| p.of == Of::Source && p.ready && !p.deleting)
    }

    /// Labels of old pods and of the new ones in their place: of the templates, and of the pods that there are, to which the injector adds
    /// some.
    pub fn shapes(&self) -> Vec<(Labels, Labels)> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let mut all = vec![(labels(&plan.source.template.labels), labels(&self.new.labels()))];
        for pod in self.ready() {
            let mut old = pod.labels.clone();
            old.remove("pod-template-hash");
            all.push((labels(&old), labels(&relabelled(&old, &plan.going_to_canary()))));
        }
        all.sort();
        all.dedup();
        all
    }
}
