//! Which control plane a write brings to which version; UP002 and UP003 judge the step.
//!
//! Versions come from image tags and from the tag or version of a custom resource, never from names or chart labels. What
//! has no version makes no move, so that the rules stay silent.

use crate::model::object::Installation;
use crate::model::{Backend, Kind, Lifecycle, Object, Operator, RevisionName, Sail, Version, Workload};
use crate::rules::View;
use crate::snapshot::{Known, Snapshot};

/// One control plane that is installed or changed.
pub struct Move {
    pub revision: RevisionName,
    pub to: Version,
    /// What runs under this revision now; `None` if nothing does.
    pub from: Option<Version>,
    pub field: &'static str,
    /// The other control planes that are live and their versions; `None` if one of them is unknown.
    pub others: Option<Vec<(RevisionName, Version)>>,
}

/// A move of one revision; none if it is live at a version that nobody knows.
fn step(revision: RevisionName, to: Version, field: &'static str, cluster: &Snapshot) -> Known<Option<Move>> {
    let planes = cluster.control_planes()?;
    let own = planes.get(&revision).filter(|p| p.installed);
    if own.is_some_and(|p| p.version.is_none()) {
        return Ok(None);
    }
    let from = own.and_then(|p| p.version);
    let live = planes.iter().filter(|(r, p)| p.installed && **r != revision);
    let mut others: Option<Vec<(RevisionName, Version)>> = live.map(|(r, p)| Some((r.clone(), p.version?))).collect();
    // An istiod outside the cluster is live as well, and its version is not to be seen here.
    if cluster.injectors()?.hooks().any(|h| h.istio && matches!(h.backend, Backend::Url(_))) {
        others = None;
    }
    Ok(Some(Move { revision, to, from, field, others }))
}

pub fn of_operator(new: &Operator, old: Option<&Operator>, view: &View<'_>) -> Known<Option<Move>> {
    let revision = |o: &Operator| RevisionName::new(o.revision.as_deref().unwrap_or(""));
    let Some(to) = new.version().filter(|_| new.has_pilot() && !new.is_inert()) else { return Ok(None) };
    let same = |o: &Operator| o.has_pilot() && o.version() == Some(to) && revision(o) == revision(new);
    if old.is_some_and(same) {
        return Ok(None);
    }
    // What Gloo makes of an installation was judged with its lifecycle manager.
    if is_gloos(view.cluster(), &revision(new), to) {
        return Ok(None);
    }
    step(revision(new), to, "spec.tag", view.cluster())
}

/// The revision that a Sail resource installs (`pkg/revision` of the operator).
pub fn sail_revision(kind: Kind, sail: &Sail) -> Option<RevisionName> {
    match (kind, sail.strategy.as_deref(), &sail.version) {
        (Kind::SailRevision, _, _) => Some(RevisionName::new(&sail.meta.name)),
        (Kind::SailIstio, Some("RevisionBased"), Some(version)) => {
            Some(RevisionName::new(&format!("{}-{}", sail.meta.name, version.replace('.', "-"))))
        }
        (Kind::SailIstio, _, _) => Some(RevisionName::new(&sail.meta.name)),
        _ => None,
    }
}

fn sail_version(sail: &Sail) -> Option<Version> {
    sail.version.as_deref().and_then(Version::parse)
}

pub fn of_sail(new: &Sail, old: Option<&Sail>, view: &View<'_>) -> Known<Option<Move>> {
    let kind = view.kind();
    let (Some(revision), Some(to)) = (sail_revision(kind, new), sail_version(new)) else { return Ok(None) };
    if old.is_some_and(|o| sail_version(o) == Some(to) && sail_revision(kind, o).as_ref() == Some(&revision)) {
        return Ok(None);
    }
    let cluster = view.cluster();
    // What the operator makes of an Istio was judged with the Istio.
    let owner = new.meta.owner.as_deref().filter(|o| o.kind == "Istio");
    if owner
        .is_some_and(|o| cluster.sails(Kind::SailIstio).any(|s| s.meta.name == o.name && sail_version(s) == Some(to)))
    {
        return Ok(None);
    }
    step(revision, to, "spec.version", cluster)
}

/// An istiod's Deployment. Where a custom resource names the same version for it, that one was judged already.
pub fn of_istiod(new: &Workload, old: Option<&Workload>, view: &View<'_>) -> Known<Option<Move>> {
    let (Some(revision), Some(to)) = (new.istiod_revision(), new.istiod_version()) else { return Ok(None) };
    let cluster = view.cluster();
    if is_announced(cluster, &revision, to) {
        return Ok(None);
    }
    const FIELD: &str = "spec.template.spec.containers[discovery].image";
    if let Some(before) = old.filter(|o| o.istiod_revision().as_ref() == Some(&revision)) {
        let Some(from) = before.istiod_version().filter(|from| *from != to) else { return Ok(None) };
        return Ok(step(revision, to, FIELD, cluster)?.map(|m| Move { from: Some(from), ..m }));
    }
    // A second Deployment of a revision is a spare one or a tenant's own; neither moves what is there.
    Ok(step(revision, to, FIELD, cluster)?.filter(|m| m.from.is_none()))
}

fn is_announced(cluster: &Snapshot, revision: &RevisionName, version: Version) -> bool {
    let operators = cluster.raw(Kind::IstioOperator).any(|o| {
        matches!(o, Object::Operator(o) if o.has_pilot() && !o.is_inert() && o.version() == Some(version)
            && RevisionName::new(o.revision.as_deref().unwrap_or("")) == *revision)
    });
    let sail = [Kind::SailRevision, Kind::SailIstio].into_iter().any(|kind| {
        let mut all = cluster.sails(kind);
        all.any(|s| sail_revision(kind, s).as_ref() == Some(revision) && sail_version(s) == Some(version))
    });
    operators || sail || is_gloos(cluster, revision, version)
}

/// An installation of Gloo's lifecycle manager names this version for the revision.
fn is_gloos(cluster: &Snapshot, revision: &RevisionName, version: Version) -> bool {
    let wanted = Some((revision.clone(), version));
    cluster.raw(Kind::IstioLifecycle).any(|o| match o {
        Object::Lifecycle(_, l) => l.installations.iter().any(|i| entry(i) == wanted),
        _ => false,
    })
}

fn entry(installation: &Installation) -> Option<(RevisionName, Version)> {
    let version = installation.tag.as_deref().and_then(Version::parse)?;
    Some((RevisionName::new(installation.revision.as_deref().unwrap_or("")), version))
}

/// Gloo installs into many clusters, and this one may be none of them: only its own former entries are evidence.
pub fn of_lifecycle(new: &Lifecycle, old: &Lifecycle) -> Vec<Move> {
    let before: Vec<Option<(RevisionName, Version)>> = old.installations.iter().map(entry).collect();
    let known: Vec<(RevisionName, Version)> = before.iter().flatten().cloned().collect();
    let changed = new.installations.iter().filter_map(entry).filter(|e| !known.contains(e));
    changed
        .map(|(revision, to)| {
            let from = known.iter().find(|(r, _)| *r == revision).map(|(_, v)| *v);
            let others = before.iter().cloned().collect::<Option<Vec<_>>>();
            let others = others.map(|all| all.into_iter().filter(|(r, _)| *r != revision).collect());
            Move { revision, to, from, field: "spec.installations", others }
        })
        .collect()
}
