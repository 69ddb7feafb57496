//! Which control plane deploys a Gateway API Gateway, and which proxies run in a namespace.

use super::{Known, Snapshot};
use crate::model::{GatewayConfig, Kind, Labels, Meta, Object, RevisionName, Str, Version, key};

/// Running proxies of one workload that one revision injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxies {
    pub workload: Str,
    pub revision: RevisionName,
    pub pods: u32,
    /// Of the oldest of them, by its image; where pods are not read whole, that of the istiod which injected them.
    pub version: Option<Version>,
}

/// The name by which a Gateway API Gateway asks for a control plane: its own label, else its namespace's, else the default
/// (`tag_watcher.go`, `IsMine`).
pub fn asked_by_gateway<'a>(gateway: &'a Meta, namespace: &'a Labels) -> &'a str {
    gateway.labels.value(key::REV).or_else(|| namespace.value(key::REV)).unwrap_or("default")
}

impl Snapshot {
    /// The revision whose istiod deploys and programs a Gateway API Gateway in a namespace of these labels.
    pub fn deployer_of(&self, gateway: &Meta, namespace: &Labels) -> Known<Option<RevisionName>> {
        let asked = asked_by_gateway(gateway, namespace);
        if asked.is_empty() {
            return Ok(None);
        }
        if let Some(revision) = self.revision_behind(asked)? {
            return Ok(Some(revision));
        }
        let revisions = self.revisions()?;
        if revisions.iter().any(|r| r.as_str() == asked) {
            return Ok(Some(RevisionName::new(asked)));
        }
        if asked != "default" {
            return Ok(None);
        }
        // Without a default tag the default validator tells whose everything unlabelled is.
        let mut defaults = self.validators()?.filter(|c| c.meta.name == "istiod-default-validator");
        Ok(defaults.find_map(|c| c.revision()).filter(|r| revisions.contains(r)))
    }

    /// Gateway API Gateways that istiod deploys.
    pub fn deployed_gateways(&self) -> Known<impl Iterator<Item = &GatewayConfig>> {
        Ok(self.gateway_configs(Kind::ApiGateway)?.filter(|g| g.is_deployed() && !g.meta.deleting))
    }

    /// What runs in a namespace, by workload and revision.
    pub fn proxies_in(&self, namespace: &str) -> Known<Vec<Proxies>> {
        let planes = self.control_planes()?;
        let found = self.runs_in(namespace).map(|(revision, workload, pods)| {
            let own = self.raw_in(Kind::Pod, namespace).filter_map(|o| match o {
                Object::Pod(p) if p.revision.as_ref() == Some(revision) && !p.meta.deleting => Some(p),
                _ => None,
            });
            let own = own.filter(|p| p.workload().is_some_and(|(_, name)| *workload == name));
            let oldest = own.filter_map(|p| p.proxy).min();
            let revision = RevisionName::new(revision);
            let version = oldest.or_else(|| planes.get(&revision).and_then(|p| p.version));
            Proxies { workload: workload.clone(), revision, pods, version }
        });
        Ok(found.collect())
    }

    /// Istio configuration of a namespace that one control plane alone reads.
    pub fn pinned_in<'a>(&'a self, namespace: &'a str, revision: &RevisionName) -> Vec<(Kind, &'a Meta)> {
        let kinds = Kind::CONFIG.into_iter().chain([Kind::HttpRoute]);
        let all = kinds.flat_map(|kind| self.raw_in(kind, namespace).map(move |o| (kind, o.meta())));
        all.filter(|(_, meta)| meta.labels.is(key::REV, revision.as_str()) && !meta.deleting).collect()
    }
}
