//! # GW008 no-root-certificate
//!
//! ## What
//! The namespace of a gateway has no ConfigMap `istio-ca-root-cert`, and none of the gateway's pods is ready. Said after a
//! minute, by the audit.
//!
//! ## Why
//! Every proxy mounts that ConfigMap; without it its pods wait in `ContainerCreating` for ever. The istiod that leads writes it
//! into every namespace that it knows; a namespace that its `discoverySelectors` leave out, or a mesh in which no istiod
//! leads, has none.
//!
//! ## What to do
//! Let an istiod discover the namespace. If it should, see in istiod's log why it does not write there.
//!
//! ## When to allow
//! Where proxies take their root certificate from elsewhere; then pods are ready, and nothing is said.

use jiff::SignedDuration;

use super::if_known;
use super::traffic::ready_pods;
use crate::model::{ConfigMap, Id, Workload};
use crate::rules::{Check, Flaw, Level, Policy, Rule};
use crate::snapshot::{Known, Snapshot};

pub static RULE: Rule = Rule {
    code: "GW008",
    name: "no-root-certificate",
    summary: "a gateway's namespace has no istio-ca-root-cert, without which its pods never start",
    reads: &[],
    checks: &[Check::Audit(audit)],
    source: include_str!("gw008_no_root_certificate.rs"),
};

/// istiod writes into a new namespace within seconds.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

fn audit(cluster: &Snapshot, _: &Policy) -> Known<Vec<Flaw>> {
    let mut found = Vec::new();
    for (kind, gateway) in cluster.gateways()? {
        let (home, name) = (&gateway.meta.namespace, &gateway.meta.name);
        if gateway.wanted() == 0 || gateway.meta.deleting || !needs_it(gateway, cluster)? {
            continue;
        }
        let Some(None) = if_known(cluster.config_map(home, ConfigMap::ROOT_CERT))? else { continue };
        let id = Id { kind, namespace: home.clone(), name: name.clone() };
        if ready_pods(cluster, &id, gateway)?.is_none_or(|ready| ready.pods > 0) {
            continue;
        }
        found.push(Flaw {
            level: Level::Error,
            value: ConfigMap::ROOT_CERT.to_owned(),
            what: format!(
                "gateway {home}/{name} cannot start: namespace {home} has no ConfigMap {}.",
                ConfigMap::ROOT_CERT
            ),
            why: "every proxy mounts it, and a pod whose ConfigMap is missing waits for it for ever.".into(),
            fix: fix(home, cluster),
            object: id,
            grace: GRACE,
            repair: None,
        });
    }
    Ok(found)
}

/// Its pods mount the root certificate: the template says so, or an injector of ours adds it.
fn needs_it(gateway: &Workload, cluster: &Snapshot) -> Known<bool> {
    let mounted = gateway.template.config_maps.iter().any(|m| m.name == ConfigMap::ROOT_CERT && !m.optional);
    if mounted {
        return Ok(true);
    }
    let resolution = if_known(cluster.resolve(&gateway.meta.namespace, &gateway.template))?;
    Ok(resolution.is_some_and(|r| r.is_injected()))
}

fn fix(home: &str, cluster: &Snapshot) -> String {
    let istiods: Vec<&Workload> = cluster.istiods().into_iter().flatten().collect();
    let labels =
        format!("(with discoverySelectors in the mesh configuration: does namespace {home} match one of them?)");
    match istiods.iter().find(|w| w.ready.unwrap_or(0) > 0).or(istiods.first()) {
        Some(istiod) => {
            let (ns, name) = (&istiod.meta.namespace, &istiod.meta.name);
            format!("kubectl logs -n {ns} deployment/{name} | grep -i {home}\n{labels}")
        }
        None => format!("kubectl get deployment -A -l app=istiod\n(no istiod is there to write it)\n{labels}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::worlds::{audited, world};
    use super::*;

    const GATEWAY: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: igw, namespace: gw}, spec: {replicas: 1, \
        selector: {matchLabels: {app: igw}}, template: {metadata: {labels: {app: igw}, annotations: \
        {inject.istio.io/templates: gateway}}, spec: {containers: [{name: istio-proxy, image: 'proxyv2:1.24.1'}], \
        volumes: [{name: c, configMap: {name: istio-ca-root-cert}}]}}}, status: {readyReplicas: READY}}";
    const CERT: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio-ca-root-cert, namespace: gw}}";

    fn flaws(texts: &[&str]) -> Vec<Flaw> {
        audited(&RULE, &world(texts), "")
    }

    #[test]
    fn a_gateway_that_waits_for_the_certificate_is_named() {
        let found = flaws(&[&GATEWAY.replace("READY", "0")]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].level, found[0].grace.as_secs(), &*found[0].object.name), (Level::Error, 60, "igw"));
        assert_eq!(found[0].what, "gateway gw/igw cannot start: namespace gw has no ConfigMap istio-ca-root-cert.");
    }

    #[test]
    fn with_the_certificate_nothing_is_said() {
        assert!(flaws(&[&GATEWAY.replace("READY", "0"), CERT]).is_empty());
    }

    #[test]
    fn neither_is_of_what_is_ready_all_the_same_or_does_not_mount_it_or_is_at_zero() {
        let pod = "{apiVersion: v1, kind: Pod, metadata: {name: igw-x1-a, namespace: gw, labels: {app: igw, pod-template-hash: x1}, \
            ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: igw-x1, uid: u, controller: true}]}, spec: \
            {containers: [{name: istio-proxy, image: a}]}, status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}}";
        assert!(flaws(&[&GATEWAY.replace("READY", "1"), pod]).is_empty());
        let optional = GATEWAY.replace("istio-ca-root-cert", "istio-ca-root-cert, optional: true");
        assert!(flaws(&[&optional.replace("READY", "0")]).is_empty());
        assert!(flaws(&[&GATEWAY.replace("READY", "0").replace("replicas: 1", "replicas: 0")]).is_empty());
    }

    #[test]
    fn nothing_is_said_where_config_maps_were_not_read() {
        let read = crate::wire::manifest::read("t", &GATEWAY.replace("READY", "0"), "default").documents.remove(0);
        assert!(audited(&RULE, &Snapshot::offline().with(read.object), "").is_empty());
    }
}
