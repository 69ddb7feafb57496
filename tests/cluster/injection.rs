//! Which injector does the API server call for a pod?
//!
//! [`observed`] asks the only authority there is: it gives every webhook of a mesh's
//! MutatingWebhookConfigurations a path of its own on a recorder, creates a pod for every combination
//! of labels (dry-run), and reads off who was called, in order. It says nothing about what an injector
//! would then do to the pod.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use libtest_mimic::Trial;
use revguard::model::{self as product, Str, Template, resolve};
use revguard::snapshot::Snapshot;
use revguard::wire::manifest::typed;
use serde_json::{Value, json};

use crate::dice::{Dice, KEYS, SEED};
use crate::harness::ControlPlane;
use crate::harness::objects::{Scope, documents};
use crate::harness::recorder::Recorder;
use crate::harness::registration::{Kind, Registration, client_config};
use crate::shared::shared;
use crate::trial::{prove, trial};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ApiServer, api_server_calls_what_the_closed_form_and_resolve_say),
        trial!(ApiServer, resolve_says_whom_the_api_server_calls_for_any_selectors),
    ]
}

/// Dry-runs at a time. More do not end sooner on two cores.
const AT_ONCE: usize = 16;

pub type Labels = BTreeMap<String, String>;

/// One pod and the webhooks that were called for it, as `CONFIGURATION/WEBHOOK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub namespace: Labels,
    pub pod: Labels,
    pub hooks: Vec<String>,
}

const INJECTION: &str = "istio-injection";
const REV: &str = "istio.io/rev";
const INJECT: &str = "sidecar.istio.io/inject";

/// The configurations of `mesh.yaml`.
pub fn mesh() -> Result<Vec<Value>> {
    documents(include_str!("mesh.yaml"))
}

/// Every namespace of the question: each value of `istio-injection` with each of `istio.io/rev`,
/// among them values that no injector knows, and the empty one, which is there and matches nothing.
pub fn namespaces() -> Vec<Labels> {
    let injection = [None, Some("enabled"), Some("disabled"), Some(""), Some("true")];
    let rev = [None, Some("1-23"), Some("1-24"), Some("prod"), Some("default"), Some("ghost"), Some("")];
    product((INJECTION, &injection), (REV, &rev))
}

/// Every pod of the question.
pub fn pods() -> Vec<Labels> {
    let inject = [None, Some("true"), Some("false")];
    let rev = [None, Some("1-23"), Some("prod"), Some("ghost")];
    product((INJECT, &inject), (REV, &rev))
}

type Axis<'a> = (&'a str, &'a [Option<&'a str>]);

fn product(one: Axis, other: Axis) -> Vec<Labels> {
    let label = |key: &str, value: Option<&str>| value.map(|value| (key.to_owned(), value.to_owned()));
    let mut all = Vec::new();
    for &first in one.1 {
        for &second in other.1 {
            all.push(label(one.0, first).into_iter().chain(label(other.0, second)).collect());
        }
    }
    all
}

/// Registers `mesh` and observes every pod in every namespace of the question.
pub async fn observed(plane: &ControlPlane, mesh: &[Value]) -> Result<Vec<Observation>> {
    observed_with(plane, mesh, &namespaces(), &pods()).await
}

/// The same for other labels.
pub async fn observed_with(
    plane: &ControlPlane,
    mesh: &[Value],
    namespaces: &[Labels],
    pods: &[Labels],
) -> Result<Vec<Observation>> {
    static RUN: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("injection-{}-", RUN.fetch_add(1, Ordering::Relaxed));
    let recorder = Recorder::start().await?;
    let mut scope = Scope::new(plane);

    let objects: Vec<Value> = namespaces
        .iter()
        .enumerate()
        .map(|(number, labels)| {
            json!({"apiVersion": "v1", "kind": "Namespace",
                   "metadata": {"name": format!("{prefix}{number}"), "labels": labels}})
        })
        .collect();
    scope.apply(&objects).await?;
    let redirected = mesh.iter().map(|one| redirect(one, &recorder, &prefix));
    let registrations = Registration::create_all(plane, Kind::Mutating, redirected.collect::<Result<_>>()?).await?;

    stream::iter((0..namespaces.len()).flat_map(|n| (0..pods.len()).map(move |p| (n, p))))
        .map(|(n, p)| create(plane, format!("{prefix}{n}"), p, &pods[p]))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;

    let mut called: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for call in recorder.calls() {
        let key = (call.text("/namespace").to_owned(), call.text("/name").to_owned());
        called.entry(key).or_default().push(call.hook);
    }
    for registration in registrations {
        registration.remove().await?;
    }
    scope.end().await?;

    let mut observations = Vec::new();
    for (n, namespace) in namespaces.iter().enumerate() {
        for (p, pod) in pods.iter().enumerate() {
            let hooks = called.remove(&(format!("{prefix}{n}"), format!("pod-{p}")));
            observations.push(Observation {
                namespace: namespace.clone(),
                pod: pod.clone(),
                hooks: hooks.unwrap_or_default(),
            });
        }
    }
    ensure!(called.is_empty(), "calls for pods that nobody created: {called:?}");
    Ok(observations)
}

/// The same configuration, its webhooks reached at the recorder under `CONFIGURATION/WEBHOOK`, and
/// asked about our namespaces only: other tests create pods at the same time. A match condition does
/// that without touching the selectors that are observed; the API server looks at it after them.
fn redirect(configuration: &Value, recorder: &Recorder, prefix: &str) -> Result<Value> {
    let mut configuration = configuration.clone();
    let name = configuration["metadata"]["name"].as_str().context("a configuration without a name")?.to_owned();
    let ours = format!("has(request.namespace) && request.namespace.startsWith('{prefix}')");
    for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
        let hook = format!("{name}/{}", webhook["name"].as_str().unwrap_or_default());
        webhook["clientConfig"] = client_config(&recorder.url(&hook), recorder.ca());
        webhook["matchConditions"] = json!([{"name": "ours", "expression": ours}]);
    }
    Ok(configuration)
}

async fn create(plane: &ControlPlane, namespace: String, number: usize, labels: &Labels) -> Result<()> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": format!("pod-{number}"), "labels": labels},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    }))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    Api::namespaced(plane.client(), &namespace)
        .create(&dry_run, &pod)
        .await
        .with_context(|| format!("a pod with {labels:?} in {namespace}"))?;
    Ok(())
}

/// What Istio's documentation says about this mesh, case by case and without a selector: the slow
/// reference. The last two arms are surprising and true: a label that is present but names nobody
/// still switches off everything below it.
fn expected(namespace: &Labels, pod: &Labels) -> Vec<String> {
    let hook =
        |configuration: &str, webhook: &str| vec![format!("{configuration}/{webhook}.sidecar-injector.istio.io")];
    let serving = |name: &str| match name {
        "1-23" => Some("istio-sidecar-injector-1-23"),
        "1-24" => Some("istio-sidecar-injector-1-24"),
        "prod" => Some("istio-revision-tag-prod"),
        "default" => Some("istio-revision-tag-default"),
        _ => None,
    };
    let get = |labels: &Labels, key: &str| labels.get(key).cloned();
    if get(pod, INJECT).as_deref() == Some("false") {
        return vec![];
    }
    match (get(namespace, INJECTION).as_deref(), get(namespace, REV), get(pod, REV)) {
        (Some("enabled"), _, _) => hook("istio-revision-tag-default", "namespace"),
        (Some(_), _, _) => vec![],
        (None, Some(name), _) => serving(&name).map_or(vec![], |at| hook(at, "rev.namespace")),
        (None, None, Some(name)) => serving(&name).map_or(vec![], |at| hook(at, "rev.object")),
        (None, None, None) if get(pod, INJECT).as_deref() == Some("true") => {
            hook("istio-revision-tag-default", "object")
        }
        (None, None, None) => vec![],
    }
}

/// What the product says of the same mesh, from the same manifests.
fn resolved(snapshot: &Snapshot, namespace: &Labels, pod: &Labels) -> Vec<String> {
    // What the API server adds to every namespace. Its value differs, but nobody here selects on it.
    let named = [("kubernetes.io/metadata.name".to_owned(), "shop".to_owned())];
    let namespace = product::Labels::from_pairs(namespace.clone().into_iter().chain(named).map(pair).collect());
    let labels = product::Labels::from_pairs(pod.clone().into_iter().map(pair).collect());
    let template = Template { labels, ..Template::default() };
    let injectors = snapshot.injectors().expect("the manifests hold injectors");
    let resolution = resolve(injectors, "shop", &namespace, &template);
    resolution.hooks.iter().map(|hook| format!("{}/{}", hook.config, hook.name)).collect()
}

fn pair((key, value): (String, String)) -> (Str, Str) {
    (Str::from(key.as_str()), Str::from(value.as_str()))
}

fn snapshot(mesh: &[Value]) -> Result<Snapshot> {
    mesh.iter().try_fold(Snapshot::whole(), |snapshot, document| {
        let object = typed(product::Kind::MutatingWebhook, document).map_err(anyhow::Error::msg)?;
        Ok(snapshot.with(object))
    })
}

fn differences(seen: &[Observation], says: impl Fn(&Observation) -> Vec<String>) -> Vec<String> {
    let wrong = seen.iter().filter(|one| one.hooks != says(one));
    wrong.map(|one| format!("{one:?}, expected {:?}", says(one))).collect()
}

async fn api_server_calls_what_the_closed_form_and_resolve_say() -> Result<()> {
    let plane = shared().await?;
    let mesh = mesh()?;
    let observations = observed(&plane, &mesh).await?;
    assert_eq!(observations.len(), 35 * 12);
    let snapshot = snapshot(&mesh)?;
    let wrong = differences(&observations, |seen| expected(&seen.namespace, &seen.pod));
    assert!(wrong.is_empty(), "the closed form, {}:\n{}", wrong.len(), wrong.join("\n"));
    let wrong = differences(&observations, |seen| resolved(&snapshot, &seen.namespace, &seen.pod));
    assert!(wrong.is_empty(), "resolve, {}:\n{}", wrong.len(), wrong.join("\n"));

    // The comparison can fail: with one webhook's selector changed, resolve is wrong about some pods.
    let mut other = mesh;
    other[0]["webhooks"][0]["objectSelector"] = json!({"matchLabels": {INJECT: "true"}});
    let other = self::snapshot(&other)?;
    ensure!(!differences(&observations, |seen| resolved(&other, &seen.namespace, &seen.pod)).is_empty());
    Ok(())
}

/// Mixes that no chart renders, from a seed that is printed: any operator over any of these labels, on
/// namespaces and on pods, several webhooks a configuration, rules that name pods in every way there is,
/// and rules that do not.
async fn resolve_says_whom_the_api_server_calls_for_any_selectors() -> Result<()> {
    let rounds = if prove() { 20 } else { 3 };
    let plane = shared().await?;
    let (mut calls, mut pairs) = (0, 0);
    for round in 0..rounds {
        let mut dice = Dice(SEED + round);
        let mesh: Vec<Value> = (0..6).map(|n| dice.configuration(n)).collect();
        let namespaces: Vec<Labels> = (0..24).map(|_| dice.labels(&KEYS[..4])).collect();
        let pods: Vec<Labels> = (0..10).map(|_| dice.labels(&KEYS[1..])).collect();
        let observations = observed_with(&plane, &mesh, &namespaces, &pods).await?;
        let snapshot = snapshot(&mesh)?;
        let wrong = differences(&observations, |seen| resolved(&snapshot, &seen.namespace, &seen.pod));
        ensure!(wrong.is_empty(), "seed {}: {} differ:\n{}\n{mesh:#?}", SEED + round, wrong.len(), wrong.join("\n"));
        calls += observations.iter().map(|seen| seen.hooks.len()).sum::<usize>();
        pairs += observations.len();
    }
    println!("injection: {pairs} random pairs of {rounds} meshes agree, {calls} webhook calls (first seed {SEED})");
    // Where nobody is called, everything agrees.
    ensure!(calls > pairs / 4, "{calls} calls for {pairs} pods prove little");
    Ok(())
}
