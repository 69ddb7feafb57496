//! Writes that lead others to another control plane: a namespace's labels, a tag that is pointed elsewhere.
//!
//! What such a write means for proxies, gateways and configuration is what several rules judge.

use super::View;
use super::managed;
use crate::model::injection::requested;
use crate::model::{GatewayConfig, Kind, Namespace, RevisionName, Sail, Service, Workload, key, resolve};
use crate::snapshot::attach::asked_by_gateway;
use crate::snapshot::{Known, Snapshot};

/// A workload whose next pods come to another control plane.
pub struct Moved<'a> {
    pub kind: Kind,
    pub workload: &'a Workload,
    pub from: Option<RevisionName>,
    pub to: RevisionName,
}

/// Workloads that the new labels of their namespace lead elsewhere. What is not running, runs only once, or is an istiod
/// is left alone.
pub fn by_namespace<'a>(new: &Namespace, old: &Namespace, view: &'a View<'_>) -> Known<Vec<Moved<'a>>> {
    let (before, after) = (old.seen_labels(), new.seen_labels());
    if is_same(&before, &after) {
        return Ok(Vec::new());
    }
    let cluster = view.before();
    let injectors = cluster.injectors()?;
    let moved = cluster.workloads_in(view.name()).filter_map(|(kind, workload)| {
        if kind == Kind::Job || workload.wanted() == 0 || workload.is_istiod() || workload.meta.deleting {
            return None;
        }
        let name = &new.meta.name;
        let to = resolve(injectors, name, &after, &workload.template).revision().cloned()?;
        let from = resolve(injectors, name, &before, &workload.template).revision().cloned();
        (from.as_ref() != Some(&to)).then_some(Moved { kind, workload, from, to })
    });
    Ok(moved.collect())
}

/// Neither label that decides about injection differs.
pub fn is_same(before: &crate::model::Labels, after: &crate::model::Labels) -> bool {
    [key::INJECTION, key::REV].iter().all(|k| before.get(k) == after.get(k))
}

/// A Gateway API Gateway that comes to another control plane, at once.
pub struct MovedGateway {
    pub namespace: String,
    pub name: String,
    pub from: RevisionName,
    pub to: RevisionName,
}

/// Gateways without a label of their own that the new labels of their namespace lead elsewhere.
pub fn gateways_by_namespace(new: &Namespace, old: &Namespace, view: &View<'_>) -> Known<Vec<MovedGateway>> {
    let (before, after) = (old.seen_labels(), new.seen_labels());
    if before.get(key::REV) == after.get(key::REV) {
        return Ok(Vec::new());
    }
    let cluster = view.before();
    let mut moved = Vec::new();
    for gateway in cluster.deployed_gateways()?.filter(|g| g.meta.namespace == new.meta.name && runs(cluster, g)) {
        let from = cluster.deployer_of(&gateway.meta, &before)?;
        let to = cluster.deployer_of(&gateway.meta, &after)?;
        if let (Some(from), Some(to)) = (from, to)
            && from != to
        {
            moved.push(MovedGateway {
                namespace: gateway.meta.namespace.to_string(),
                name: gateway.meta.name.to_string(),
                from,
                to,
            });
        }
    }
    Ok(moved)
}

/// istiod has deployed it: there is something to move.
fn runs(cluster: &Snapshot, gateway: &GatewayConfig) -> bool {
    managed::deployments(cluster, &gateway.meta).next().is_some()
}

/// A tag that is pointed to another revision.
pub struct Retarget {
    pub tag: String,
    pub from: RevisionName,
    pub to: RevisionName,
    pub field: String,
    /// The tag's webhooks lead there already: refusing the rest would leave the tag half made.
    pub is_half_done: bool,
}

impl Retarget {
    /// `istioctl tag set` and Helm write the tag's Service.
    pub fn of_service(new: &Service, old: Option<&Service>, view: &View<'_>) -> Option<Retarget> {
        let (labels, before) = (&new.meta.labels, &old?.meta.labels);
        let tag = labels.value(key::TAG).filter(|tag| before.is(key::TAG, tag))?;
        // What Sail makes of its IstioRevisionTag was judged with that.
        if new.meta.owner.as_deref().is_some_and(|o| o.kind == "IstioRevisionTag") {
            return None;
        }
        let (from, to) = (before.value(key::REV)?, labels.value(key::REV)?);
        let mut webhooks = view.before().injector_configs().map(|c| &c.meta.labels);
        let is_half_done = webhooks.any(|l| l.is(key::TAG, tag) && l.is(key::REV, to));
        let field = super::finding::label(key::REV);
        let retarget = Retarget {
            tag: tag.to_owned(),
            from: RevisionName::new(from),
            to: RevisionName::new(to),
            field,
            is_half_done,
        };
        (retarget.from != retarget.to).then_some(retarget)
    }

    /// Sail's `IstioRevisionTag`.
    pub fn of_sail(new: &Sail, old: Option<&Sail>, view: &View<'_>) -> Option<Retarget> {
        let old = old.filter(|o| view.kind() == Kind::SailTag && o.target != new.target)?;
        let cluster = view.before();
        let from = old.active.as_deref().map(RevisionName::new).or_else(|| target(old, cluster))?;
        let to = target(new, cluster)?;
        let (tag, field) = (new.meta.name.to_string(), "spec.targetRef.name".to_owned());
        (from != to).then_some(Retarget { tag, from, to, field, is_half_done: false })
    }

    /// Workloads whose next pods come to another control plane by it. The tag's own webhooks may be there already, so that
    /// what is asked for counts.
    pub fn workloads<'a>(&self, cluster: &'a Snapshot) -> Known<Vec<(Kind, &'a Workload)>> {
        cluster.injectors()?;
        let asks = |w: &Workload| {
            let namespace = cluster.namespace_labels(&w.meta.namespace);
            requested(&namespace, &w.template.labels) == Some(self.tag.as_str())
                && cluster.resolve(&w.meta.namespace, &w.template).is_ok_and(|r| r.is_injected())
        };
        let all = cluster.workloads().filter(|(kind, w)| *kind != Kind::Job && w.wanted() > 0 && !w.is_istiod());
        Ok(all.filter(|(_, w)| !w.meta.deleting && asks(w)).collect())
    }

    /// Gateway API Gateways that follow the tag.
    pub fn gateways(&self, cluster: &Snapshot) -> Known<Vec<MovedGateway>> {
        let all = cluster.deployed_gateways()?.filter(|g| {
            let namespace = cluster.namespace_labels(&g.meta.namespace);
            asked_by_gateway(&g.meta, &namespace) == self.tag && runs(cluster, g)
        });
        let moved = all.map(|g| MovedGateway {
            namespace: g.meta.namespace.to_string(),
            name: g.meta.name.to_string(),
            from: self.from.clone(),
            to: self.to.clone(),
        });
        Ok(moved.collect())
    }
}

/// The revision that a tag of Sail names.
fn target(tag: &Sail, cluster: &Snapshot) -> Option<RevisionName> {
    let (kind, name) = tag.target.as_ref()?;
    if *kind == "IstioRevision" {
        return Some(RevisionName::new(name));
    }
    let istio = cluster.sails(Kind::SailIstio).find(|s| s.meta.name == *name)?;
    istio.active.as_deref().map(RevisionName::new)
}

/// `2 Gateway API gateways (web, api) move`
pub fn count(moved: &[MovedGateway]) -> String {
    let names: Vec<&str> = moved.iter().map(|g| g.name.as_str()).collect();
    let (some, moves) = if moved.len() == 1 { ("gateway", "moves") } else { ("gateways", "move") };
    format!("{} Gateway API {some} ({}) {moves}", moved.len(), super::names::few(&names))
}

/// How gateways stay where they are for now.
pub fn stay(moved: &[MovedGateway]) -> String {
    let kind = crate::wire::row(Kind::ApiGateway).kubectl();
    let mut lines: Vec<String> = moved
        .iter()
        .take(3)
        .map(|g| format!("kubectl label {kind} -n {} {} {}={} --overwrite", g.namespace, g.name, key::REV, g.from))
        .collect();
    if moved.len() > lines.len() {
        lines.push(format!("(and {} more of the same kind)", moved.len() - lines.len()));
    }
    lines.push("(first that; then move them one after the other)".to_owned());
    lines.join("\n")
}
