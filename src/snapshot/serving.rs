//! Which pods a Service really sends traffic to, and what counts pods: autoscalers, disruption budgets.

use super::{Known, Snapshot, Unknown, WhyUnknown};
use crate::model::{Hpa, Id, Kind, Labels, Object, Pdb, Pod, Service, Workload};

impl Snapshot {
    /// Pods that serve a selector in a namespace: it matches them, they are ready and stay.
    pub fn serving<'a>(&'a self, namespace: &'a str, selector: &Labels) -> Known<Vec<&'a Pod>> {
        if selector.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = crate::model::Selector::exact(selector);
        let pods = self.pods_in(namespace)?.filter(|p| wanted.matches(&p.meta.labels) && !p.meta.deleting);
        let mut serving = Vec::new();
        for pod in pods {
            match pod.status {
                Some(s) if s.ready && !s.over => serving.push(pod),
                Some(_) => {}
                None => return Err(Unknown { kind: Kind::Pod, why: WhyUnknown::Listing }),
            }
        }
        Ok(serving)
    }

    /// How many pods serve a selector once `except` has none; where no pods were read, by the workloads' own status.
    pub fn serving_without(&self, namespace: &str, selector: &Labels, except: Option<&Id>) -> Known<usize> {
        match self.serving(namespace, selector) {
            Ok(pods) => Ok(pods.iter().filter(|p| except.is_none_or(|id| !belongs(p, id))).count()),
            Err(unknown) => {
                let wanted = crate::model::Selector::exact(selector);
                let mut total = 0;
                for (kind, w) in self.workloads_in(namespace) {
                    let same = except.is_some_and(|id| id.kind == kind && id.name == w.meta.name);
                    if !same && wanted.matches(&w.template.labels) {
                        total += w.ready.ok_or_else(|| unknown.clone())?;
                    }
                }
                // A pod of its own could still serve; without pods that cannot be excluded.
                if total == 0 && self.is_offline() {
                    Ok(0)
                } else if total == 0 {
                    Err(unknown)
                } else {
                    Ok(total as usize)
                }
            }
        }
    }

    /// Autoscalers of a namespace.
    pub fn hpas_in<'a>(&'a self, namespace: &'a str) -> Known<impl Iterator<Item = &'a Hpa>> {
        self.knows(Kind::Hpa, Some(namespace))?;
        Ok(self.raw_in(Kind::Hpa, namespace).filter_map(|o| match o {
            Object::Hpa(h) => Some(&**h),
            _ => None,
        }))
    }

    /// Disruption budgets of a namespace.
    pub fn pdbs_in<'a>(&'a self, namespace: &'a str) -> Known<impl Iterator<Item = &'a Pdb>> {
        self.knows(Kind::Pdb, Some(namespace))?;
        Ok(self.raw_in(Kind::Pdb, namespace).filter_map(|o| match o {
            Object::Pdb(p) => Some(&**p),
            _ => None,
        }))
    }

    /// Services in its namespace that select a workload's pods.
    pub fn services_of<'a>(&'a self, workload: &'a Workload) -> Known<Vec<&'a Service>> {
        let all = self.services_in(&workload.meta.namespace)?;
        Ok({ all }.filter(|s| s.selects(&workload.template.labels)).collect())
    }
}

/// The pod was made by this workload.
pub fn belongs(pod: &Pod, id: &Id) -> bool {
    // One that lost its Deployment (`--cascade=orphan`) still has pods that are labelled with a template's hash.
    if id.kind == Kind::ReplicaSet {
        let owner = pod.meta.owner.as_deref();
        return pod.meta.namespace == id.namespace
            && owner.is_some_and(|o| o.kind == "ReplicaSet" && o.name == id.name);
    }
    let kind = crate::wire::row(id.kind).name;
    pod.meta.namespace == id.namespace && pod.workload().is_some_and(|(k, name)| k == kind && id.name == name)
}
