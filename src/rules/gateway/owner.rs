//! Whose gateway it is: the owner labels that istioctl and the operator stamp on everything they render, and what a
//! custom resource is meant to install.
//!
//! Since 1.24 no IstioOperator is in the cluster any more, so the labels are the only trace of the file behind a gateway.
//! Nothing here decides; the rules do.

use super::if_known;
use crate::model::{Kind, Labels, Operator, Rendered, RevisionName, Str, Workload, key};
use crate::rules::View;
use crate::snapshot::{Known, Snapshot};

/// Where istioctl puts a custom resource that names no namespace.
const HOME: &str = "istio-system";

/// The custom resource that an object's labels name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub name: Str,
    /// Not every version labels it.
    pub namespace: Option<Str>,
}

impl Owner {
    /// `None` where nobody in particular owns the object: no label, `unknown` (`manifest generate`, Helm), or istioctl's
    /// own record of an unnamed installation.
    pub fn of(labels: &Labels) -> Option<Owner> {
        let named = |k: &str| labels.get(k).filter(|v| !v.is_empty() && **v != "unknown").cloned();
        let name = named(key::OWNER).filter(|n| !n.starts_with("installed-state"))?;
        Some(Owner { name, namespace: named(key::OWNER_NAMESPACE) })
    }

    /// It is this custom resource.
    pub fn is(&self, operator: &Operator) -> bool {
        self.name == operator.meta.name && self.namespace.as_ref().is_none_or(|ns| *ns == home(operator))
    }

    /// The same owner, as far as both labels tell.
    pub fn same(&self, other: &Owner) -> bool {
        let differ = |(a, b): (&Str, &Str)| a != b;
        self.name == other.name && !self.namespace.as_ref().zip(other.namespace.as_ref()).is_some_and(differ)
    }

    /// `istio-system/gateways`
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace.as_deref().unwrap_or(HOME), self.name)
    }
}

/// Namespace of a custom resource.
pub fn home(operator: &Operator) -> &str {
    if operator.meta.namespace.is_empty() { HOME } else { &operator.meta.namespace }
}

/// `istio-system/gateways`, or what to call one without a name.
pub fn path(operator: &Operator) -> String {
    if operator.meta.name.is_empty() {
        return "without a name".to_owned();
    }
    format!("{}/{}", home(operator), operator.meta.name)
}

/// `IstioOperator gateways`: short enough for a warning.
pub fn title(operator: &Operator) -> String {
    if operator.meta.name.is_empty() {
        return "this IstioOperator".to_owned();
    }
    format!("IstioOperator {}", operator.meta.name)
}

/// How kubectl finds a custom resource.
pub fn kubectl(operator: &Operator) -> String {
    let row = crate::wire::row(crate::model::Kind::IstioOperator);
    format!("{} -n {} {}", row.kubectl(), home(operator), operator.meta.name)
}

/// Labels everything that a file renders for one gateway: each object carries the owner's label, and istioctl deletes by it.
/// Accounts and rights are called as Istio's charts call them.
pub fn relabel(cluster: &Snapshot, (namespace, name): (&str, &str), label: &str) -> String {
    let mut objects = vec![
        format!("deployment/{name}"),
        format!("service/{name}"),
        format!("serviceaccount/{name}-service-account"),
        format!("role/{name}-sds"),
        format!("rolebinding/{name}-sds"),
    ];
    // Not every gateway has them.
    for (kind, short) in [(Kind::Hpa, "hpa"), (Kind::Pdb, "pdb")] {
        if cluster.knows(kind, Some(namespace)).is_err() || cluster.get(kind, namespace, name).is_some() {
            objects.push(format!("{short}/{name}"));
        }
    }
    format!("kubectl label -n {namespace} {} {label}", objects.join(" "))
}

/// The profile is a file or an address, and what it says is not known here.
pub fn has_own_profile(operator: &Operator) -> bool {
    operator.profile().contains(['/', '.'])
}

/// Every gateway that a custom resource renders for certain: with a profile of its own only those that it lists.
pub fn rendered(operator: &Operator, view: &View<'_>) -> Vec<Rendered> {
    let merge = view.cluster().list_merge(operator, view.policy.gateway_lists.into());
    let mut all = operator.gateways(merge);
    all.retain(|g| g.listed || !has_own_profile(operator));
    all
}

/// What a custom resource is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It installs gateways next to a control plane that something else installs.
    Gateways,
    /// It speaks only of gateways, but its profile installs istiod, and nothing tells whether that is meant.
    Unclear,
    /// It installs a control plane, or parts of one.
    ControlPlane,
}

/// Components besides istiod that a custom resource may install itself.
const PARTS: [&str; 4] = ["base", "cni", "ztunnel", "istiodRemote"];

/// What a custom resource is for, judged by what it says, what it would install, and what is installed.
pub fn role(operator: &Operator, view: &View<'_>) -> Known<Role> {
    let lists_gateway = operator.ingress.iter().chain(&operator.egress).any(|g| g.enabled != Some(false));
    if !operator.has_pilot() {
        let parts = operator.speaks_of.iter().any(|s| PARTS.contains(&s.as_str()));
        return Ok(if lists_gateway && !parts { Role::Gateways } else { Role::ControlPlane });
    }
    if !operator.speaks_only_of_gateways() || has_own_profile(operator) {
        return Ok(Role::ControlPlane);
    }
    let cluster = view.cluster();
    let istiods: Option<Vec<&Workload>> = if_known(cluster.istiods())?.map(Iterator::collect);
    let standing: Vec<Standing> = istiods.iter().flatten().map(|w| standing(w, operator)).collect();
    if standing.contains(&Standing::Own) {
        return Ok(Role::ControlPlane);
    }
    let mut others = if_known(cluster.operators())?.into_iter().flatten();
    if others.any(|o| o.has_pilot() && !o.is_inert() && !o.meta.deleting) {
        return Ok(Role::Gateways);
    }
    Ok(match istiods {
        None => Role::Unclear,
        Some(_) if standing.contains(&Standing::PerhapsOwn) => Role::Unclear,
        Some(_) if standing.contains(&Standing::Foreign) => Role::Gateways,
        Some(_) => Role::ControlPlane,
    })
}

/// How an installed istiod stands to a custom resource that would install one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Own,
    /// It is of the revision that the custom resource would install, and nobody says who installed it.
    PerhapsOwn,
    Foreign,
}

fn standing(istiod: &Workload, operator: &Operator) -> Standing {
    let labels = &istiod.meta.labels;
    match Owner::of(labels) {
        Some(owner) if owner.is(operator) => Standing::Own,
        Some(_) => Standing::Foreign,
        None if istiod.meta.annotations.has(key::HELM_RELEASE) => Standing::Foreign,
        None if istiod.istiod_revision() == Some(revision(operator)) => Standing::PerhapsOwn,
        None => Standing::Foreign,
    }
}

/// The revision that a custom resource installs.
pub fn revision(operator: &Operator) -> RevisionName {
    RevisionName::new(operator.revision.as_deref().unwrap_or(""))
}
