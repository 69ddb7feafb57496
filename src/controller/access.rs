//! Everything that the webhook and the controller may do in a cluster, and why. The roles in the chart and docs/access.md
//! are made from this table; a test compares it with what the two processes really ask for.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::resource::{
    CLUSTER_POLICY_REPORTS, CONFIG_MAPS, DEPLOYMENTS, EVENTS, GUARD_PARAMETERS, HPAS, LEASES, MESH_STATES, MUTATING,
    OPEN_CLUSTER_REPORTS, OPEN_REPORTS, PDBS, PODS, POLICY_REPORTS, PROMETHEUS_SOURCES, ROLLOUTS, Resource, SECRETS,
    SERVICES, VALIDATING,
};
use crate::rollout;
use crate::wire::kinds::{KINDS, Watch};

/// Who is granted something, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The webhook, in the whole cluster.
    Webhook,
    /// The webhook, in the namespace that it is installed in.
    WebhookNamespace,
    /// The controller, in the whole cluster.
    Controller,
    /// The controller, in the namespace that it is installed in.
    ControllerNamespace,
    /// The controller, in the whole cluster, where policy allows repairs.
    Repairs,
    /// The controller, in the namespaces of gateways that rollouts may move.
    Rollouts,
}

impl Role {
    pub const ALL: [Role; 6] = [
        Role::Webhook,
        Role::WebhookNamespace,
        Role::Controller,
        Role::ControllerNamespace,
        Role::Repairs,
        Role::Rollouts,
    ];

    /// Its file below `charts/revguard/files`.
    pub const fn file(self) -> &'static str {
        match self {
            Role::Webhook => "webhook-rules.yaml",
            Role::WebhookNamespace => "webhook-namespace-rules.yaml",
            Role::Controller => "controller-rules.yaml",
            Role::ControllerNamespace => "controller-namespace-rules.yaml",
            Role::Repairs => "controller-repair-rules.yaml",
            Role::Rollouts => "controller-rollout-rules.yaml",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Role::Webhook => "The webhook, in the whole cluster",
            Role::WebhookNamespace => "The webhook, in its own namespace",
            Role::Controller => "The controller, in the whole cluster",
            Role::ControllerNamespace => "The controller, in its own namespace",
            Role::Repairs => "The controller, in the whole cluster, only where policy allows a repair",
            Role::Rollouts => {
                "The controller, in the namespaces that the chart's `rollouts` names; by default in all of them"
            }
        }
    }
}

/// One line of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub role: Role,
    pub group: &'static str,
    /// With its subresource, as RBAC writes it.
    pub resource: String,
    /// Suffixes of the release's name; empty: any object.
    pub names: &'static [&'static str],
    pub verbs: &'static [&'static str],
    pub why: String,
}

/// Stands for the release's full name in the generated files.
pub const FULLNAME: &str = "FULLNAME";

fn grant(
    role: Role,
    resource: &Resource,
    names: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &str,
) -> Grant {
    Grant { role, group: resource.group, resource: resource.plural.to_owned(), names, verbs, why: why.to_owned() }
}

const WATCHED: &[&str] = &["list", "watch"];

/// Every grant, in the order of the roles.
pub fn grants() -> Vec<Grant> {
    use Role::{Controller, ControllerNamespace, Repairs, Rollouts, Webhook, WebhookNamespace};
    let mut all = Vec::new();
    for role in [Webhook, Controller] {
        for row in KINDS.iter().filter(|r| r.watch != Watch::Never) {
            let (group, resource) = (row.group, row.plural.to_owned());
            all.push(Grant {
                role,
                group,
                resource,
                names: &[],
                verbs: WATCHED,
                why: format!("{}: {}", how(row.watch), row.why),
            });
        }
    }
    all.push(grant(WebhookNamespace, &SECRETS, &["-webhook-tls"], WATCHED, "the serving certificate"));
    for (resource, why) in [
        (
            &VALIDATING,
            "puts the CA into our own configuration, and looks whether it is still there; reports belong to it",
        ),
        (&MUTATING, "the same"),
    ] {
        all.push(grant(Controller, resource, &[""], &["get", "patch"], why));
    }
    all.push(grant(Controller, &EVENTS, &[], &["create"], "Events on objects with findings and on what was repaired"));
    all.push(grant(Controller, &MESH_STATES, &[], &["get", "create"], "the one MeshState, `mesh`"));
    all.push(Grant {
        resource: "meshstates/status".to_owned(),
        ..grant(Controller, &MESH_STATES, &[], &["patch"], "what the last audit saw")
    });
    for resource in [&POLICY_REPORTS, &CLUSTER_POLICY_REPORTS, &OPEN_REPORTS, &OPEN_CLUSTER_REPORTS] {
        let why = "findings as reports, in whichever of the two APIs the cluster has";
        all.push(grant(Controller, resource, &[], &["list", "create", "patch", "delete"], why));
    }
    all.push(grant(ControllerNamespace, &LEASES, &["-controller"], &["get", "update"], "one replica leads"));
    all.push(grant(
        ControllerNamespace,
        &LEASES,
        &[],
        &["create"],
        "the Lease, when it is not there; RBAC cannot name what is created",
    ));
    all.push(grant(
        ControllerNamespace,
        &CONFIG_MAPS,
        &["-report", "-undo"],
        &["get", "patch"],
        "the week's tally, copies of what repairs removed",
    ));
    all.push(grant(
        ControllerNamespace,
        &GUARD_PARAMETERS,
        &[""],
        &["get", "patch"],
        "what the admission policy over webhook configurations is told",
    ));
    all.push(grant(
        ControllerNamespace,
        &GUARD_PARAMETERS,
        &[],
        &["create"],
        "the same, when it is not there: Helm cannot make an object of a kind that comes with the same release",
    ));
    let why = "where alerts and metrics that guard a rollout are asked for";
    all.push(grant(Controller, &PROMETHEUS_SOURCES, &[], &["get"], why));
    let why = "the bearer tokens of PrometheusSources, if somebody has put any there";
    all.push(grant(ControllerNamespace, &SECRETS, &["-prometheus"], &["get"], why));
    all.push(grant(
        ControllerNamespace,
        &SECRETS,
        &["-ca", "-webhook-tls"],
        &["get", "patch"],
        "keeps the CA and the serving certificate",
    ));
    for (resource, why) in [
        (&MUTATING, "retargets, deactivates or removes injectors and tags, completes a half-made tag"),
        (&VALIDATING, "retargets or relabels the validator, removes leftovers"),
        (&SERVICES, "completes or removes a half-made tag"),
    ] {
        all.push(grant(Repairs, resource, &[], &["get", "create", "patch", "delete"], why));
    }
    rollouts(&mut all, Controller, Rollouts);
    all.sort_by_key(|g| g.role);
    all
}

/// What gateway rollouts need: to be found, to be looked at, to say how they stand, and, in the namespaces of gateways alone, to write.
fn rollouts(all: &mut Vec<Grant>, anywhere: Role, here: Role) {
    let of = |role, group, resource: &str, verbs, why: &str| Grant {
        role,
        group,
        resource: resource.to_owned(),
        names: &[],
        verbs,
        why: why.to_owned(),
    };
    for row in rollout::read::TABLE {
        let listed = all.iter().any(|g| g.role == anywhere && g.group == row.group && g.resource == row.plural);
        if !listed {
            all.push(of(anywhere, row.group, row.plural, &["list"], &format!("gateway rollouts: {}", row.why)));
        }
    }
    let group = ROLLOUTS.group;
    let status = "how a rollout stands, also where it may not write anything else";
    all.push(of(anywhere, group, "gatewayrollouts/status", &["patch"], status));
    for (resource, verbs, why) in [
        (&ROLLOUTS, &["patch", "delete"][..], "the finalizer; finished ones, when their time is over"),
        (
            &DEPLOYMENTS,
            &["create", "patch", "delete"],
            "the Deployment beside a gateway's own, and replicas, template and annotations of that one",
        ),
        (
            &PODS,
            &["create", "patch", "delete"],
            "the probe, and the dry-run of one through the injector; setting pods apart, and the end of those",
        ),
        (&CONFIG_MAPS, &["create", "patch", "delete"], "the mesh configuration of the new revision beside a gateway"),
        (&HPAS, &["patch"], "which Deployment the gateway's autoscaler scales, and how far down; a label at the end"),
        (&SERVICES, &["patch"], "a label at the end, never the spec"),
        (&PDBS, &["patch"], "a label at the end"),
    ] {
        all.push(grant(here, resource, &[], verbs, why));
    }
}

fn how(watch: Watch) -> String {
    match watch {
        Watch::Whole => "whole objects, read leanly".to_owned(),
        Watch::Metadata => "metadata".to_owned(),
        Watch::MetadataWhere(label) => format!("metadata of those labelled `{label}`"),
        Watch::InMesh("") => "whole objects, only in namespaces with an istiod or a gateway".to_owned(),
        Watch::InMesh(label) => format!("those labelled `{label}`, only in namespaces with an istiod or a gateway"),
        Watch::MetadataAndInMesh => "metadata; whole objects in namespaces with an istiod or a gateway".to_owned(),
        Watch::Never => "never".to_owned(),
    }
}

/// The rules of a role, for the chart: resources of a group with the same verbs and names in one rule.
pub fn rules(role: Role) -> String {
    type Key = (&'static str, &'static [&'static str], &'static [&'static str]);
    let mut rules: BTreeMap<Key, Vec<String>> = BTreeMap::new();
    for g in grants().into_iter().filter(|g| g.role == role) {
        rules.entry((g.group, g.names, g.verbs)).or_default().push(g.resource);
    }
    let mut out =
        String::from("# Written by the program from src/controller/access.rs; `make docs` writes it again.\n");
    for ((group, names, verbs), resources) in rules {
        let _ = writeln!(out, "- apiGroups: [\"{group}\"]\n  resources: [{}]", resources.join(", "));
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|n| format!("{FULLNAME}{n}")).collect();
            let _ = writeln!(out, "  resourceNames: [{}]", names.join(", "));
        }
        let _ = writeln!(out, "  verbs: [{}]", verbs.join(", "));
    }
    out
}

/// docs/access.md.
pub fn docs() -> String {
    let mut out = String::from(
        "# Access\n\nWhat revguard may do in a cluster, and why. The roles of the chart are made from the same table, and a test\n\
         compares it with what the processes really ask for. `F` is the release's full name. The webhook writes nothing.\n",
    );
    for role in Role::ALL {
        let _ =
            write!(out, "\n## {}\n\n| group | resource | names | verbs | why |\n|---|---|---|---|---|\n", role.title());
        for g in grants().into_iter().filter(|g| g.role == role) {
            let group = if g.group.is_empty() { "core" } else { g.group };
            let names: Vec<String> = g.names.iter().map(|n| format!("`F{n}`")).collect();
            let names = if names.is_empty() { "any".to_owned() } else { names.join(", ") };
            let _ = writeln!(out, "| {group} | {} | {names} | {} | {} |", g.resource, g.verbs.join(", "), g.why);
        }
    }
    out.push_str(
        "\nWithout a role of this table the program says which verb and resource it misses, what depends on it is unknown, and\n\
         the rest works. Discovery and `/version` are open to everybody who is authenticated.\n",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_webhook_only_reads_and_nobody_reads_all_secrets() {
        for g in grants() {
            if matches!(g.role, Role::Webhook | Role::WebhookNamespace) {
                assert_eq!(g.verbs, WATCHED, "{}", g.resource);
            }
            if g.resource == "secrets" {
                assert!(!g.names.is_empty() && matches!(g.role, Role::WebhookNamespace | Role::ControllerNamespace));
            }
            assert!(!g.verbs.contains(&"*") && !g.resource.contains('*') && g.group != "*");
        }
        let repaired: Vec<&str> = crate::rules::flaw::REPAIRED.iter().map(|k| crate::wire::row(*k).plural).collect();
        let granted: Vec<String> =
            grants().into_iter().filter(|g| g.role == Role::Repairs).map(|g| g.resource).collect();
        assert_eq!(granted, repaired);
    }

    #[test]
    fn a_rule_names_what_it_may() {
        let rules = rules(Role::ControllerNamespace);
        assert!(rules.contains("resourceNames: [FULLNAME-ca, FULLNAME-webhook-tls]"), "{rules}");
        assert!(rules.contains("- apiGroups: [\"coordination.k8s.io\"]"));
    }
}
