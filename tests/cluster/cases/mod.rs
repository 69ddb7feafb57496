//! The case table, depth 3: the same files as in process, on a real API server with our server registered.
//!
//! A case's objects are in the cluster, the product's own watches have seen them, and the case's user makes
//! its request. What that user is told must be the golden text, word for word, between what the API server
//! adds. One case at a time, on a control plane of its own: cases say what the whole cluster holds.
//!
//! No controller runs. Cases hold pods of ReplicaSets that do not exist and istiods that are ready without a
//! kubelet; a controller would tidy all that up.
//!
//! `CASE=part-of-a-path` plays only those.

pub mod world;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use kube::Client;
use libtest_mimic::Trial;
use revguard::model::Kind;
use revguard::wire::{KINDS, row};
use serde_json::{Value, json};
use world::{World, path};

use crate::case_table::{Case, Outcome, folder};
use crate::harness::guard::{Asked, Guard};
use crate::harness::objects::{Scope, documents};
use crate::harness::raw::{Answer, As, JSON, MERGE, send};
use crate::harness::registration::{Hook, Kind as Registered, Registration};
use crate::harness::{ControlPlane, Options, crds};
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(ApiServer, every_case_on_a_real_api_server), trial!(ApiServer, schemas_are_the_public_ones)]
}

const HOOK: &str = "cases.revguard.dev";

/// Cases that a real API server cannot play; each says why in its head. More would be a hole.
const MOST_NOT_LIVE: usize = 19;

/// On average. A single case may wait for a busy machine.
const MOST_A_CASE: Duration = Duration::from_secs(1);

/// Kinds that no webhook is ever asked about.
const NEVER_SENT: [Kind; 2] = [Kind::MutatingWebhook, Kind::ValidatingWebhook];

/// What a webhook is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    Validate,
    Mutate,
}

/// Everything that a rule may look at. The administrator sets the stage, and is not judged.
pub fn hook(name: &str, url: &str, ca: &str, asking: Asking) -> Hook {
    let operations = if asking == Asking::Mutate { &["CREATE", "UPDATE"][..] } else { &["CREATE", "UPDATE", "DELETE"] };
    let rules = KINDS.iter().filter(|row| !NEVER_SENT.contains(&row.kind)).map(|row| {
        let scale = matches!(row.kind, Kind::Deployment | Kind::StatefulSet | Kind::ReplicaSet);
        let scale = scale.then(|| format!("{}/scale", row.plural));
        let resources: Vec<String> = [row.plural.to_owned()].into_iter().chain(scale).collect();
        json!({"apiGroups": [row.group], "apiVersions": ["*"], "resources": resources, "operations": operations})
    });
    let mut hook = Hook::new(name, url, ca, rules.collect());
    hook.match_conditions = json!([{"name": "not-the-stage", "expression": "request.userInfo.username != 'admin'"}]);
    hook
}

/// A control plane of its own, with our server beside it.
pub struct Stage {
    pub plane: ControlPlane,
    pub guard: Guard,
    pub world: World,
}

impl Stage {
    /// Nothing is registered yet.
    pub async fn set() -> Result<Stage> {
        let mut options = Options::with_controllers(&[]);
        // A cluster that lets an autoscaler go to zero has this on.
        options.apiserver.push("--feature-gates=HPAScaleToZero=true".to_owned());
        let plane = ControlPlane::start(options).await?;
        let mut scope = Scope::new(&plane);
        scope.apply(&documents(EVERYBODY_MAY_DO_EVERYTHING)?).await?;
        scope.leave();
        install(&plane.client()).await?;
        let guard = Guard::start(&plane.kubeconfig(), Case::now).await?;
        Ok(Stage { world: World::new(plane.client()), plane, guard })
    }
}

async fn every_case_on_a_real_api_server() -> Result<()> {
    let all = Case::all();
    let total = all.len();
    let (mut live, left_out): (Vec<Case>, Vec<Case>) = all.into_iter().partition(|case| case.head.not_live.is_empty());
    // Neighbours share their cluster, so that little is written between them.
    live.sort_by_key(|case| case.head.mesh.clone());
    println!("cases: {total}, of which a real API server cannot play {}:", left_out.len());
    for case in &left_out {
        println!("  {}: {}", case.path, case.head.not_live);
    }
    ensure!(left_out.len() <= MOST_NOT_LIVE, "{} cases are not live", left_out.len());

    let mut stage = Stage::set().await?;
    let Stage { plane, guard, .. } = &stage;
    let mutating = Registration::create(
        plane,
        Registered::Mutating,
        "cases",
        &[hook(HOOK, &guard.url("mutate"), guard.ca(), Asking::Mutate)],
    )
    .await?;
    let validating = Registration::create(
        plane,
        Registered::Validating,
        "cases",
        &[hook(HOOK, &guard.url("validate"), guard.ca(), Asking::Validate)],
    )
    .await?;

    let (mut failures, mut slowest, begin) = (Vec::new(), (Duration::ZERO, String::new()), Instant::now());
    for case in &live {
        let start = Instant::now();
        if let Err(error) = play(&mut stage, case).await {
            failures.push(format!("{}: {}\n{error:#}", case.path, case.head.case));
        }
        slowest = slowest.max((start.elapsed(), case.path.clone()));
    }
    let average = begin.elapsed() / u32::try_from(live.len().max(1))?;
    println!("cases: {} played, {average:?} each, {:?} for {}", live.len(), slowest.0, slowest.1);
    validating.remove().await?;
    mutating.remove().await?;
    ensure!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), live.len(), failures.join("\n\n"));
    ensure!(average < MOST_A_CASE, "a case takes {average:?}");
    Ok(())
}

/// Whether somebody may is not what a case is about.
const EVERYBODY_MAY_DO_EVERYTHING: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: everybody}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: Group, apiGroup: rbac.authorization.k8s.io, name: 'system:authenticated'}]
";

/// Every custom resource, and waits until they are served.
pub async fn install(client: &Client) -> Result<()> {
    let made = crds::all()?.into_iter().map(|definition| async move {
        let at = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        send(client, Method::POST, at, Some((JSON, &definition)), &As::default())
            .await?
            .expect("a definition")
            .map(drop)
    });
    stream::iter(made).buffer_unordered(4).try_collect::<Vec<()>>().await?;
    for row in crds::custom() {
        let at = format!("/apis/{}/{}", row.api_version(), row.plural);
        crate::harness::wait::wait_until(Duration::from_secs(60), &at, || async {
            match send(client, Method::GET, &at, None, &As::default()).await {
                Ok(answer) if answer.ok() => Ok(()),
                Ok(answer) => Err(answer.message().to_owned()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
    }
    Ok(())
}

/// Plays one case; an error is what differs from its golden text.
pub async fn play(stage: &mut Stage, case: &Case) -> Result<()> {
    let Stage { plane, guard, world } = stage;
    let place = case.request.object.id().namespace;
    world.reach(case.cluster.iter().map(|d| (d.object.id(), &d.raw)), &place).await.context("the stage")?;
    world.seen(&guard.shared).await?;
    guard.ask(if case.mutate { Asked::Mutate } else { Asked::Validate }, case.policy.clone());
    let who = As { user: case.user().name, groups: case.user().groups };
    let answer = request(&plane.client(), case, world, &who).await?;
    if answer.ok() && case.request.object.kind() != Kind::Crd {
        let id = case.request.object.id();
        world.touched(&id, &case.request.raw, case.head.operation == "delete");
    }
    ensure!(guard.calls() > 0, "nobody asked us: {} {}", answer.status, answer.message());
    let golden = world.given_text(&std::fs::read_to_string(folder().join(&case.path).with_extension("txt"))?);
    if case.mutate {
        compare_object(case, world.given(&case.request.raw)?, &golden, answer)
    } else {
        compare_text(&golden, &answer)
    }
}

/// The case's verb, as the case's user.
async fn request(client: &Client, case: &Case, world: &World, who: &As) -> Result<Answer> {
    let id = case.request.object.id();
    let version = &case.request.api_version;
    let one = path(&id, version, &id.name);
    let mut document = world.given(&case.request.raw)?;
    if !id.namespace.is_empty() {
        document["metadata"]["namespace"] = json!(&*id.namespace);
    }
    let strict = "?fieldValidation=Strict";
    match case.head.operation.as_str() {
        "create" => {
            let at = format!("{}{strict}", path(&id, version, ""));
            send(client, Method::POST, &at, Some((JSON, &document)), who).await
        }
        "update" => {
            let stored = send(client, Method::GET, &one, None, &As::default()).await?.expect("the stored object")?;
            // The API server's own, which a person who edits leaves as they are.
            for own in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"] {
                document["metadata"][own] = stored["metadata"][own].clone();
            }
            send(client, Method::PUT, &format!("{one}{strict}"), Some((JSON, &document)), who).await
        }
        // A definition takes every object of its kind along, and cases share them; a dry run is judged like any other.
        "delete" if id.kind == Kind::Crd => send(client, Method::DELETE, &format!("{one}?dryRun=All"), None, who).await,
        "delete" => send(client, Method::DELETE, &one, None, who).await,
        "scale" => {
            let replicas = json!({"spec": {"replicas": case.head.replicas}});
            send(client, Method::PATCH, &format!("{one}/scale"), Some((MERGE, &replicas)), who).await
        }
        other => anyhow::bail!("operation {other}"),
    }
}

/// What the user reads, but for the API server's own words around it.
fn compare_text(golden: &str, answer: &Answer) -> Result<()> {
    // Whichever of our webhooks was asked.
    let own = |rest: &'_ str| rest.split_once("revguard.dev\" denied the request: ").map(|(_, ours)| ours.to_owned());
    let message = match answer.message().strip_prefix("admission webhook \"").and_then(own) {
        Some(message) if !answer.ok() => {
            let (code, reason) = (answer.status, answer.body["reason"].as_str());
            ensure!(code == 403 && reason == Some("Forbidden"), "denied with {code} {reason:?}");
            message
        }
        _ if answer.ok() => String::new(),
        _ => anyhow::bail!("the API server itself refuses: {} {}", answer.status, answer.message()),
    };
    let denied = if answer.ok() { Vec::new() } else { vec![String::new()] };
    // Those that begin otherwise are the API server's own: a field that it would rather not have.
    let warnings = answer.warnings.iter().filter(|text| text.starts_with('[')).cloned().collect();
    let text = Outcome { denied, warned: Vec::new(), message, warnings, patch: None }.text();
    ensure!(text == golden, "--- golden\n{golden}--- got\n{text}");
    Ok(())
}

/// The object that was stored is the one that was sent, with the golden patch and nothing else changed
/// where a mutation might reach.
fn compare_object(case: &Case, mut wanted: Value, golden: &str, answer: Answer) -> Result<()> {
    let stored = answer.expect("a mutated request")?;
    let patch = golden.lines().find_map(|line| line.strip_prefix("patch: "));
    if let Some(patch) = patch {
        let patch: json_patch::Patch = serde_json::from_str(patch)?;
        json_patch::patch(&mut wanted, &patch)?;
    }
    let template =
        if case.request.object.kind() == Kind::CronJob { "/spec/jobTemplate/spec/template" } else { "/spec/template" };
    for place in ["", template] {
        for field in ["labels", "annotations"] {
            let at = format!("{place}/metadata/{field}");
            let of = |object: &Value| -> Vec<(String, Value)> {
                let map = object.pointer(&at).and_then(Value::as_object).cloned().unwrap_or_default();
                // The API server's own.
                map.into_iter().filter(|(key, _)| key != "kubernetes.io/metadata.name").collect()
            };
            let (stored, wanted) = (of(&stored), of(&wanted));
            ensure!(stored == wanted, "{at}: stored {stored:?}, wanted {wanted:?}\n{golden}");
        }
    }
    let hooks = |object: &Value| -> Vec<Value> {
        let containers = object.pointer(&format!("{template}/spec/containers")).and_then(Value::as_array);
        containers.into_iter().flatten().map(|c| c["lifecycle"].clone()).collect()
    };
    let (stored, wanted) = (hooks(&stored), hooks(&wanted));
    ensure!(stored == wanted, "lifecycle: stored {stored:?}, wanted {wanted:?}\n{golden}");
    Ok(())
}

async fn schemas_are_the_public_ones() -> Result<()> {
    let public = crds::public()?;
    if public.is_empty() {
        println!("schemas: no Go here, so every custom kind takes any spec");
        return Ok(());
    }
    let of = |group: &str| crds::custom().filter(|row| row.group == group).count();
    let expected: usize = crds::PUBLIC_GROUPS.iter().map(|group| of(group)).sum();
    let given = crds::given()?.keys().filter(|name| !public.contains_key(*name)).count();
    let any = crds::all()?.len() - public.len() - given;
    println!("schemas: {} public, {given} of REVGUARD_TEST_CRDS, {any} that take any spec", public.len());
    assert_eq!(public.len(), expected);
    ensure!(public.keys().all(|name| !name.starts_with(row(Kind::IstioOperator).plural)));
    Ok(())
}
