//! Who else writes the gateway's objects.

use std::collections::BTreeSet;

use serde_json::Value;

use super::selectors::acknowledged;
use super::target::changes_original;
use super::{Found, Guard, Scene};
use crate::api::gateway_rollout::{Flavor, Promotion};
use crate::model::{ListMerge, RevisionName, key};
use crate::rollout::read::Listed;
use crate::rollout::read::json::Json;
use crate::rollout::read::workload::{owns, tool};
use crate::rollout::seen::Severity;

pub(super) const GUARDS: &[Guard] = &[
    Guard {
        name: "InPlaceBounce",
        summary: "the gateway is being moved in place already, or an IstioOperator of the new revision renders it and would move it at once",
        worst: Severity::Block,
        acknowledge: true,
        check: in_place,
    },
    Guard {
        name: "TwoInstallers",
        summary: "several installers write the gateway's Deployment: each undoes what the other one did",
        worst: Severity::Block,
        acknowledge: true,
        check: installers,
    },
    Guard {
        name: "FieldContested",
        summary: "a GitOps tool puts fields back that the rollout has to change",
        worst: Severity::Block,
        acknowledge: true,
        check: contested,
    },
];

fn in_place(scene: &Scene<'_>) -> Vec<Found> {
    let Some(plan) = &scene.plan else { return Vec::new() };
    let source = plan.source;
    let (name, namespace, to) = (scene.gateway(), scene.namespace(), scene.to());
    let mut found = Vec::new();
    let ours = source.annotations.get(key::ACTIVE_ROLLOUT).is_some_and(|u| **u == *scene.seen.rollout.held.uid);
    let old = scene.ready().any(|p| p.revision.as_deref().is_some_and(|r| r != to));
    // What a tag, a namespace or the default injector leads to by now is no change of the template, and cannot be undone there.
    let says = plan.flavor == Flavor::ConfigMapMount || source.template.labels.get(key::REV).is_some_and(|l| l == to);
    let moved = says && source.template.revision.as_deref() == Some(to);
    if !ours && old && moved {
        found.push(Found::block(scene.named()).says(
            format!("the template of {namespace}/{name} is of revision {to} already, and pods of the old one still serve."),
            "an update in place is under way: it takes old pods away without waiting for what they have, and without a way back.",
            format!(
                "kubectl rollout undo deployment/{name} -n {namespace}\n(then this rollout moves it; or let it end: kubectl rollout status \
                 deployment/{name} -n {namespace})"
            ),
        ));
    }
    let Ok(operators) = scene.known.operators() else { return found };
    for operator in operators.filter(|o| !o.is_inert() && !o.meta.deleting) {
        let revision = RevisionName::new(operator.revision.as_deref().unwrap_or(""));
        let merge = operator.version().map_or(ListMerge::Replace, ListMerge::of);
        let renders = operator.gateways(merge).iter().any(|g| g.namespace == namespace && g.name == name);
        if revision.as_str() == to && renders {
            let (file, home) = (&operator.meta.name, &operator.meta.namespace);
            found.push(Found::block(format!("IstioOperator/{home}/{file}")).says(
                format!("IstioOperator {home}/{file} of revision {to} renders gateway {namespace}/{name}."),
                "whenever it is applied, the gateway's own Deployment becomes the new revision's in place, all pods at once.",
                format!("kubectl edit istiooperator {file} -n {home}\n(take the gateway out of it: profile minimal for the control plane)"),
            ));
        }
    }
    found
}

fn installers(scene: &Scene<'_>) -> Vec<Found> {
    let object = scene.deployment();
    let template = object["metadata"].list("managedFields").iter().filter(|w| owns(w, &["f:spec", "f:template"]));
    // Helm and Flux's helm-controller are one tool by two names.
    let family = |writer: &Value| {
        let manager = writer.text("manager");
        match tool(writer) {
            Some(tool) if tool.to_lowercase().contains("helm") => Some("Helm"),
            Some(tool) => Some(tool),
            None if manager.starts_with("istio-operator") || manager.starts_with("istioctl") => Some("istioctl"),
            None => None,
        }
    };
    let writers: BTreeSet<&str> = template.filter_map(family).collect();
    if writers.len() < 2 {
        return Vec::new();
    }
    let (name, namespace) = (scene.gateway(), scene.namespace());
    let all: Vec<&str> = writers.into_iter().collect();
    vec![Found::block(scene.named()).says(
        format!("the template of {namespace}/{name} is written by {}.", all.join(" and by ")),
        "whoever applies next moves the gateway to what it knows, in place and while the rollout lasts.",
        format!(
            "kubectl get deployment {name} -n {namespace} --show-managed-fields -o yaml | grep -A2 manager:\n\
             (leave the gateway to one of them; if the other one has let go of it, accept it: {})",
            acknowledged("TwoInstallers")
        ),
    )]
}

/// A field that the rollout writes, of which object, and as a pointer.
struct Field {
    listed: Listed,
    name: String,
    path: &'static [&'static str],
    pointer: &'static str,
}

/// What a rollout changes of objects that are there already.
fn fields(scene: &Scene<'_>) -> Vec<Field> {
    let deployment =
        |path, pointer| Field { listed: Listed::Deployments, name: scene.gateway().to_owned(), path, pointer };
    let mut all = vec![deployment(&["f:spec", "f:replicas"], "/spec/replicas")];
    let changes = changes_original(scene);
    if changes && !awaits(scene) {
        all.push(deployment(&["f:spec", "f:template"], "/spec/template"));
    }
    for hpa in scene.seen.hpas.iter().filter(|h| !h.owned) {
        let autoscaler = |path, pointer| Field { listed: Listed::Hpas, name: hpa.name.to_string(), path, pointer };
        all.push(autoscaler(&["f:spec", "f:minReplicas"], "/spec/minReplicas"));
        all.push(autoscaler(&["f:spec", "f:scaleTargetRef"], "/spec/scaleTargetRef"));
    }
    all
}

/// The template is its owner's to move: whoever was told to leave it alone would never do so.
fn awaits(scene: &Scene<'_>) -> bool {
    match scene.seen.rollout.spec.strategy.promotion {
        Promotion::AwaitExternal => true,
        Promotion::Auto => scene.source().is_some_and(|s| s.owner.is_some()),
        _ => false,
    }
}

/// What Flux is told to leave alone.
fn is_let_go(object: &Value) -> bool {
    let said = |key: &str, values: &[&str]| {
        let value = object.annotation(key).or_else(|| object.label(key)).unwrap_or("");
        values.iter().any(|v| v.eq_ignore_ascii_case(value))
    };
    said("kustomize.toolkit.fluxcd.io/ssa", &["IfNotPresent", "Ignore"])
        || said("kustomize.toolkit.fluxcd.io/reconcile", &["disabled"])
}

fn contested(scene: &Scene<'_>) -> Vec<Found> {
    if scene.plan.is_none() {
        return Vec::new();
    }
    let mut by: Vec<(&'static str, Field)> = Vec::new();
    for field in fields(scene) {
        let Some(object) = scene.raw.get(field.listed, scene.namespace(), &field.name) else { continue };
        let writers = object["metadata"].list("managedFields").iter().filter(|w| owns(w, field.path));
        let tools: Vec<&'static str> = writers.filter_map(tool).collect();
        // Helm writes when somebody runs it, and Flux's helm-controller corrects drift only where it is told to.
        let again =
            tools.into_iter().find(|t| matches!(*t, "Argo CD" | "Flux (kustomize-controller)" | "kapp" | "OLM"));
        if let Some(tool) = again.filter(|_| !is_let_go(object)) {
            by.push((tool, field));
        }
    }
    let tools: BTreeSet<&'static str> = by.iter().map(|(tool, _)| *tool).collect();
    tools
        .into_iter()
        .map(|tool| {
            let fields: Vec<&Field> = by.iter().filter(|(t, _)| *t == tool).map(|(_, f)| f).collect();
            told(scene, tool, &fields)
        })
        .collect()
}

fn told(scene: &Scene<'_>, tool: &str, fields: &[&Field]) -> Found {
    let named: Vec<String> =
        fields.iter().map(|f| format!("{} {} {}", f.listed.row().kind, f.name, f.pointer)).collect();
    let fix = match tool {
        "Argo CD" => argo(scene, fields),
        "Flux (kustomize-controller)" => flux(scene, fields),
        _ => "pause it for these fields while the rollout lasts".to_owned(),
    };
    Found::block(scene.named()).says(
        format!("{tool} writes {}.", named.join(", ")),
        "the rollout has to change them, and would be undone within minutes: pods that left would come back, and new ones go.",
        format!("{fix}\n(then accept it, because the record of who wrote stays: {})", acknowledged("FieldContested")),
    )
}

/// The Application's own `ignoreDifferences`, which is the one place where Argo CD can be told.
fn argo(scene: &Scene<'_>, fields: &[&Field]) -> String {
    let tracked = scene.deployment().annotation("argocd.argoproj.io/tracking-id").and_then(|id| id.split(':').next());
    let application =
        tracked.or_else(|| scene.deployment().label("argocd.argoproj.io/instance")).unwrap_or("APPLICATION");
    let mut objects: Vec<(Listed, &str)> = fields.iter().map(|f| (f.listed, f.name.as_str())).collect();
    objects.dedup();
    let entries: Vec<Value> = objects
        .into_iter()
        .map(|(listed, name)| {
            let own = fields.iter().filter(|f| f.listed == listed && f.name == name);
            let pointers: Vec<&str> = own.map(|f| f.pointer).collect();
            serde_json::json!({
                "group": listed.row().group,
                "kind": listed.row().kind,
                "name": name,
                "namespace": scene.namespace(),
                "jsonPointers": pointers,
            })
        })
        .collect();
    let patch = serde_json::json!({"spec": {
        "ignoreDifferences": entries,
        "syncPolicy": {"syncOptions": ["RespectIgnoreDifferences=true"]},
    }});
    format!(
        "kubectl patch applications.argoproj.io {application} -n argocd --type merge -p '{patch}'\n\
         (a merge patch replaces both lists: keep what else stands in them; if the Application is in Git, put it there)"
    )
}

fn flux(scene: &Scene<'_>, fields: &[&Field]) -> String {
    let mut objects: Vec<String> =
        fields.iter().map(|f| format!("{}/{}", f.listed.row().kind.to_lowercase(), f.name)).collect();
    objects.dedup();
    // Flux leaves alone the whole object, and so the template that is waited for.
    let later = if awaits(scene) && fields.iter().any(|f| f.listed == Listed::Deployments) {
        "; when the rollout's state is AwaitingExternal, take it off there together with the new revision"
    } else {
        ""
    };
    format!(
        "kubectl annotate {} -n {} kustomize.toolkit.fluxcd.io/ssa=IfNotPresent --overwrite\n(and in Git, or it is taken off again{later})",
        objects.join(" "),
        scene.namespace()
    )
}
