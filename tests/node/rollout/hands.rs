//! The full profile: a controller that dies at every write boundary, an API server that restarts, pods that are evicted, people who pause,
//! abort and delete in every phase, and a revision that turns bad once it serves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::EvictParams;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::by_hand;
use super::course::{Course, clean, spec, text};
use super::kill::Armed;
use super::moves::{self, is_on, paused};
use super::stage::{self, BOTH, CUSTOM, Gateway, HELM, Listeners, NEW, OLD, SOON};
use super::traffic::{Tally, Traffic};
use super::watch::Watch;
use crate::harness::figures;
use crate::harness::guard::Guard;
use crate::harness::machine::Machine;
use crate::harness::wait::wait_until;
use crate::trial::{prove, trial};

pub fn tests() -> Vec<Trial> {
    if !prove() {
        return Vec::new();
    }
    vec![
        trial!(Switch, a_controller_killed_at_every_boundary_loses_nothing),
        trial!(Switch, a_restarted_api_server_loses_nothing_and_an_eviction_no_more_than_it_does_alone),
        trial!(Cluster, pause_abort_and_delete_in_every_phase_lose_nothing),
        trial!(Cluster, a_revision_that_turns_bad_holds_the_rollout),
        trial!(Cluster, in_place_loses_no_short_request),
    ]
}

/// Every write of a rollout that is not one of an update in place.
const BOUNDARIES: [&str; 22] = [
    "rollout-hold",
    "rollout-release",
    "rollout-lock",
    "rollout-unlock",
    "rollout-copy-config",
    "rollout-drop-config",
    "rollout-create-canary",
    "rollout-create-standby",
    "rollout-drop-deployment",
    "rollout-scale",
    "rollout-retemplate",
    "rollout-create-probe",
    "rollout-drop-probe",
    "rollout-pin",
    "rollout-set-apart",
    "rollout-drop-apart",
    "rollout-autoscale",
    "rollout-relabel",
    "rollout-let-go",
    "rollout-drop-rollout",
    "rollout-remember",
    "rollout-status",
];

/// Both sides of each, and what comes in the middle of a batch or a phase: 52 places in all.
fn places() -> Vec<String> {
    let sides = BOUNDARIES.iter().flat_map(|name| ["before", "after"].map(|side| format!("{name}:{side}")));
    let later = [
        "rollout-scale:before:2",
        "rollout-scale:after:2",
        "rollout-set-apart:before:2",
        "rollout-pin:after:2",
        "rollout-remember:before:2",
        "rollout-remember:after:2",
        "rollout-remember:before:3",
        "rollout-remember:after:3",
    ];
    sides.chain(later.map(str::to_owned)).collect()
}

/// On a stage with a controller that was just installed; the test is given what the same load loses in place.
async fn begin(machine: &'static Machine, test: impl AsyncFnOnce(Tally) -> Result<()>) -> Result<()> {
    Guard::installed(machine, &[]).await?;
    stage::on(machine, async { test(by_hand::in_place(machine).await?).await }).await
}

fn write(name: &str, tally: &Tally, control: &Tally, more: Value) -> Result<()> {
    let mut all = json!({
        "streams": tally.json(), "sent": tally.sent(), "lost": tally.lost(),
        "control_sent": control.sent(), "control_lost": control.lost(),
    });
    if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    figures::write(name, &all)
}

async fn a_controller_killed_at_every_boundary_loses_nothing(machine: &'static Machine) -> Result<()> {
    begin(machine, async |control| killed(machine, &control).await).await
}

async fn killed(machine: &'static Machine, control: &Tally) -> Result<()> {
    let places = places();
    ensure!(places.len() == 52, "{} places", places.len());
    let armed = Armed::at(machine, &places).await?;
    let came = until_used(machine, &armed).await;
    let killed = armed.disarm().await;
    let ((tally, rollouts), killed) = (came?, killed?);
    write("rollout-killed", &tally, control, json!({"rollouts": rollouts, "killed": killed, "places": places}))
}

/// There and back until every place was used; what came of the load, and how many rollouts it was.
async fn until_used(machine: &'static Machine, armed: &Armed) -> Result<(Tally, u32)> {
    let watch = Watch::start(machine, &BOTH).await?;
    let traffic = Traffic::start(machine, &BOTH).await?;
    let mut rollouts = 0;
    // Each process passes by places that an earlier one has used; so it goes there and back until none is left.
    for _ in 0..6 {
        moves::both(tokio::join!(moves::custom(machine, false), moves::helm_there_and_back(machine)))?;
        moves::both(tokio::join!(expires(machine, CUSTOM), expires(machine, HELM)))?;
        rollouts += 5;
        if armed.left()?.is_empty() {
            break;
        }
    }
    let tally = traffic.finish().await?;
    tally.none_lost("killed at every boundary")?;
    watch.held("killed at every boundary")?;
    Ok((tally, rollouts))
}

/// A rollout that ends where it began and then goes by itself.
async fn expires(machine: &'static Machine, gateway: Gateway) -> Result<()> {
    let mut asked = spec(gateway, NEW);
    asked["ttlAfterFinished"] = json!("1s");
    let course = Course::begin(machine, gateway, &format!("{}-expires", gateway.name), &asked).await?;
    course.phase("Probing").await?;
    course.abort().await?;
    gone(machine, gateway, &course.name).await?;
    clean(machine, gateway).await
}

async fn gone(machine: &Machine, gateway: Gateway, name: &str) -> Result<()> {
    wait_until(SOON, &format!("the end of {name}"), || async {
        let said = machine.kubectl(&["get", "gatewayrollout", name, "-n", gateway.namespace], "").await;
        let said = said.map_err(|error| format!("{error:#}"))?;
        if said.err.contains("NotFound") { Ok(()) } else { Err(said.out) }
    })
    .await
}

async fn a_restarted_api_server_loses_nothing_and_an_eviction_no_more_than_it_does_alone(
    machine: &'static Machine,
) -> Result<()> {
    begin(machine, async |control| restarted_and_evicted(machine, &control).await).await
}

async fn restarted_and_evicted(machine: &'static Machine, control: &Tally) -> Result<()> {
    let watch = Watch::start(machine, &BOTH).await?;
    let traffic = Traffic::start(machine, &BOTH).await?;
    let there = Course::to_new(machine, CUSTOM).await?;
    let beside = Course::to_new(machine, HELM).await?;
    let mut restarts = 0;
    for phase in ["Probing", "Progressing", "Draining", "Promoting"] {
        there.phase(phase).await?;
        machine.restart("apiserver")?;
        restarts += 1;
    }
    there.phase("Completed").await?;
    beside.phase("Completed").await?;
    there.abort().await?;
    there.phase("RolledBack").await?;
    there.delete().await?;
    beside.abort().await?;
    beside.phase("RolledBack").await?;
    beside.delete().await?;
    let tally = traffic.finish().await?;
    tally.none_lost("an API server that restarts")?;
    watch.held("an API server that restarts")?;
    write("rollout-api-server", &tally, control, json!({"rollouts": 2, "restarts": restarts}))?;
    evictions(machine, control).await
}

/// An old pod and a new one are evicted in the middle. Whoever evicts a pod ends it as a Deployment does: what it then loses are the long
/// requests that this pod had, within its own drain. Nothing else may be lost.
async fn evictions(machine: &'static Machine, control: &Tally) -> Result<()> {
    let watch = Watch::start(machine, &[HELM]).await?;
    let traffic = Traffic::start(machine, &[HELM]).await?;
    let there = Course::to_new(machine, HELM).await?;
    let mut evictions = Vec::new();
    for (phase, revision) in [("Progressing", OLD), ("Draining", NEW)] {
        there.phase(phase).await?;
        evictions.push(evict(machine, &there, revision).await?);
    }
    there.phase("Completed").await?;
    println!("{}: {}", there.name, there.seen());
    there.abort().await?;
    there.phase("RolledBack").await?;
    is_on(machine, HELM, HELM.name, OLD).await?;
    there.delete().await?;
    clean(machine, HELM).await?;
    let tally = traffic.finish().await?;
    tally.only("short").none_lost("evictions")?;
    tally.only("kept").none_lost("evictions")?;
    watch.held_but_for_evictions("evictions")?;
    let long = tally.only("long");
    long.print("evictions");
    for told in long.streams.iter().flat_map(|report| &report.told) {
        let at = ended(told).with_context(|| format!("of a request that was lost: {told}"))?;
        let by_eviction = evictions.iter().any(|evicted| since(*evicted, at) <= CUT);
        ensure!(by_eviction, "lost, and no pod was evicted just before: {told}");
    }
    write(
        "rollout-evicted",
        &tally,
        control,
        json!({"rollouts": 1, "evictions": 2, "lost": tally.lost() - long.lost(), "cut_by_evictions": long.lost()}),
    )
}

/// An evicted pod has cut what it had: its own drain of 5 s after it was told to end, and what a busy machine needs.
const CUT: Duration = Duration::from_secs(9);

/// Of the day, as the load tells it.
fn ended(told: &str) -> Result<Duration> {
    let (began, rest) = told.split_once(" after ").context("a time")?;
    let (took, _) = rest.split_once(" ms").context("a duration")?;
    let began: jiff::civil::Time = began.parse()?;
    let began = began - jiff::civil::Time::midnight();
    Ok(Duration::try_from(began.to_duration(jiff::SpanRelativeTo::days_are_24_hours())?)?
        + Duration::from_millis(took.parse()?))
}

fn since(earlier: Duration, later: Duration) -> Duration {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    if later >= earlier { later - earlier } else { later + DAY - earlier }
}

/// Evicts a ready pod of the revision, and says when, as time of the day.
async fn evict(machine: &'static Machine, course: &Course, revision: &str) -> Result<Duration> {
    let gateway = course.gateway;
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        ready
            && text(pod, "/metadata/annotations/istio.io~1rev") == revision
            && pod["metadata"]["labels"]["app"] == "igw"
    };
    let pod = wait_until(SOON, "a ready pod", || async {
        let pods = stage::pods(machine, gateway.namespace, "istio=igw").await.map_err(|error| format!("{error:#}"))?;
        pods.into_iter().find(ready).ok_or_else(|| format!("none of {revision}"))
    })
    .await?;
    let name = text(&pod, "/metadata/name").to_owned();
    let connections = moves::connections(machine, gateway, &name).await?;
    let pods: Api<Pod> = Api::namespaced(machine.client().await?, gateway.namespace);
    wait_until(SOON, "an eviction", || async {
        pods.evict(&name, &EvictParams::default()).await.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    println!("{}: {name} of {revision} is evicted with some {connections} connections", course.name);
    let now = jiff::Timestamp::now().as_millisecond().rem_euclid(24 * 3600 * 1000);
    Ok(Duration::from_millis(now.unsigned_abs()))
}

async fn pause_abort_and_delete_in_every_phase_lose_nothing(machine: &'static Machine) -> Result<()> {
    begin(machine, async |control| every_hand(machine, &control).await).await
}

async fn every_hand(machine: &'static Machine, control: &Tally) -> Result<()> {
    let watch = Watch::start(machine, &BOTH).await?;
    let traffic = Traffic::start(machine, &BOTH).await?;
    let (custom, helm) = tokio::join!(every_phase(machine, CUSTOM), every_phase(machine, HELM));
    let tally = traffic.finish().await?;
    tally.none_lost("paused, aborted and deleted in every phase")?;
    let rollouts = custom.as_ref().unwrap_or(&0) + helm.as_ref().unwrap_or(&0);
    moves::both((custom.map(drop), helm.map(drop)))?;
    watch.held("paused, aborted and deleted in every phase")?;
    write("rollout-hands", &tally, control, json!({"rollouts": rollouts}))
}

/// Every hand in every phase, one rollout after another; how many there were. The gateway is on the old revision before and after.
async fn every_phase(machine: &'static Machine, gateway: Gateway) -> Result<u32> {
    let mut asked = spec(gateway, NEW);
    // With every phase there is.
    asked["strategy"]["promotion"] = json!("PatchOriginal");
    let mut rollouts = 0;
    for phase in ["Probing", "Draining", "Promoting"] {
        for verb in ["abort", "delete"] {
            let name = format!("{}-{verb}-{}", gateway.name, phase.to_lowercase());
            let course = Course::begin(machine, gateway, &name, &asked).await?;
            course.phase(phase).await?;
            if verb == "abort" {
                course.abort().await?;
                course.phase("RolledBack").await?;
            }
            course.delete().await?;
            println!("{}: {}", course.name, course.seen());
            is_on(machine, gateway, gateway.name, OLD).await.context(name.clone())?;
            clean(machine, gateway).await.context(name)?;
            rollouts += 1;
        }
    }
    // Paused in each of them, and aborted after its end.
    let course = Course::begin(machine, gateway, &format!("{}-paused", gateway.name), &asked).await?;
    for phase in ["Probing", "Draining", "Promoting"] {
        course.phase(phase).await?;
        paused(machine, &course).await?;
    }
    course.phase("Completed").await?;
    course.change(json!({"paused": true})).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(text(&course.object().await?, "/status/phase") == "Completed", "a pause after the end changes something");
    course.change(json!({"paused": false, "abort": true})).await?;
    course.phase("RolledBack").await?;
    println!("{}: {}", course.name, course.seen());
    is_on(machine, gateway, gateway.name, OLD).await?;
    course.delete().await?;
    clean(machine, gateway).await?;
    // Deleted after its end: it stays where it is, and goes back with another.
    let course = Course::begin(machine, gateway, &format!("{}-deleted", gateway.name), &asked).await?;
    course.phase("Completed").await?;
    course.delete().await?;
    is_on(machine, gateway, gateway.name, NEW).await?;
    clean(machine, gateway).await?;
    asked["toRevision"] = json!(OLD);
    let back = Course::begin(machine, gateway, &format!("{}-back", gateway.name), &asked).await?;
    back.phase("Completed").await?;
    back.delete().await?;
    is_on(machine, gateway, gateway.name, OLD).await?;
    clean(machine, gateway).await?;
    Ok(rollouts + 3)
}

async fn a_revision_that_turns_bad_holds_the_rollout(machine: &'static Machine) -> Result<()> {
    begin(machine, async |control| turns_bad(machine, &control).await).await
}

async fn turns_bad(machine: &'static Machine, control: &Tally) -> Result<()> {
    let watch = Watch::start(machine, &BOTH).await?;
    let traffic = Traffic::start(machine, &BOTH).await?;
    for gateway in BOTH {
        let mut asked = spec(gateway, NEW);
        asked["strategy"]["steps"][0]["soak"] = json!("30s");
        let course = Course::begin(machine, gateway, &format!("{}-turns-bad", gateway.name), &asked).await?;
        let soaks = |object: &Value| {
            if text(object, "/status/state") == "Soaking" { Ok(()) } else { Err(object["status"].to_string()) }
        };
        course.until("the first soak", SOON, soaks).await?;
        // Its pods are ready and stay so, whatever they are told from now on.
        stage::istiod(machine, NEW, &[(gateway, Listeners::Rejected)]).await?;
        let held = |object: &Value| {
            let reason = text(object, "/status/pause/reason");
            if reason == "ListenersRejected" { Ok(()) } else { Err(format!("{reason:?}")) }
        };
        course.until("a pause because of rejected listeners", SOON, held).await?;
        course.abort().await?;
        course.phase("RolledBack").await?;
        println!("{}: {}", course.name, course.seen());
        is_on(machine, gateway, gateway.name, OLD).await?;
        course.delete().await?;
        clean(machine, gateway).await?;
        stage::istiod(machine, NEW, &[]).await?;
    }
    let tally = traffic.finish().await?;
    tally.none_lost("a revision that turns bad")?;
    watch.held("a revision that turns bad")?;
    write("rollout-turns-bad", &tally, control, json!({"rollouts": 2}))
}

/// In place, step by step, and back; what it promises is the pods' own drain.
async fn in_place_loses_no_short_request(machine: &'static Machine) -> Result<()> {
    Guard::installed(machine, &[]).await?;
    stage::on(machine, in_place(machine)).await
}

async fn in_place(machine: &'static Machine) -> Result<()> {
    let watch = Watch::start(machine, &BOTH).await?;
    let traffic = Traffic::start(machine, &BOTH).await?;
    for gateway in BOTH {
        let mut asked = spec(gateway, NEW);
        asked["strategy"]["type"] = json!("PausedRolling");
        asked["strategy"]["promotion"] = json!("Auto");
        let course = Course::begin(machine, gateway, &format!("{}-in-place", gateway.name), &asked).await?;
        course.phase("Completed").await?;
        is_on(machine, gateway, gateway.name, NEW).await?;
        course.abort().await?;
        course.phase("RolledBack").await?;
        println!("{}: {}", course.name, course.seen());
        is_on(machine, gateway, gateway.name, OLD).await?;
        course.delete().await?;
        clean(machine, gateway).await?;
    }
    let tally = traffic.finish().await?;
    tally.only("short").none_lost("in place")?;
    tally.only("kept").none_lost("in place")?;
    watch.held("in place")?;
    let long = tally.only("long");
    long.some_lost("in place, step by step")?;
    figures::write(
        "rollout-in-place",
        &json!({
            "rollouts": 2, "sent": tally.sent() - long.sent(), "lost": tally.lost() - long.lost(),
            "control_sent": long.sent(), "control_lost": long.lost(),
        }),
    )
}
