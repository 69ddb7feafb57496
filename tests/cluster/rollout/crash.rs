//! Controllers that die, lose the lead, or are overtaken in the middle of a write: whoever goes on goes on from what is there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use jiff::Timestamp;
use kube::Client;
use libtest_mimic::Trial;
use revguard::controller::rollout::{Conductor, Pace, Settings};
use revguard::controller::write::{Side, Witness};
use revguard::controller::{Leadership, Names, Writer};
use revguard::telemetry::{Health, Metrics};
use serde_json::json;

use super::watch::Watch;
use super::{GW, Stage, WHOLE, World};
use crate::controller::{HOME, SOON};
use crate::harness::guard::Guard;
use crate::harness::raw::{As, MERGE, send};
use crate::trial::{prove, trial};

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(Controllers, killed_at_every_boundary_it_goes_on),
        trial!(Controllers, the_next_leader_goes_on),
        trial!(Controllers, overtaken_at_every_write_it_looks_again),
    ]
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/revguard-system/leases/revguard-controller";

/// Forward with promotion, and back again.
const FORWARD: [&str; 19] = [
    "hold",
    "lock",
    "copy-config",
    "create-canary",
    "create-probe",
    "drop-probe",
    "scale",
    "autoscale",
    "pin",
    "set-apart",
    "drop-apart",
    "create-standby",
    "retemplate",
    "drop-deployment",
    "relabel",
    "unlock",
    "remember",
    "status",
    "event",
];
const BACK: [&str; 4] = ["drop-config", "release", "scale", "set-apart"];

/// Names of boundaries as `--kill-at` takes them.
fn places(of: &[&str], crossing: u32) -> Vec<String> {
    let name =
        |boundary: &&str| if *boundary == "event" { (*boundary).to_owned() } else { format!("rollout-{boundary}") };
    let sides = ["before", "after"];
    of.iter().flat_map(|b| sides.iter().map(move |side| format!("{}:{side}:{crossing}", name(b)))).collect()
}

async fn killed_at_every_boundary_it_goes_on() -> Result<()> {
    let stage = Stage::of(Arc::new(World::start().await?), "killed").await?;
    let watch = Watch::start(&stage);
    let steps = json!([{"name": "one", "replicas": 1, "soak": "1s"}, {"name": "all", "weight": 100, "soak": "0s"}]);
    stage.begin(json!({"strategy": {"promotion": "PatchOriginal", "steps": steps}})).await?;
    let mut all = places(&FORWARD, 1);
    if prove() {
        all.extend(places(&["remember", "scale", "set-apart", "drop-apart", "autoscale"], 2));
    }
    let there = kill(&stage, &all, "Completed").await?;
    stage.set(json!({"abort": true})).await?;
    let back = kill(&stage, &places(&BACK, 1), "RolledBack").await?;
    stage.until("the last pod set apart", |r| r["status"]["apart"].is_null()).await?;
    watch.end().await?.kept_its_promises()?;
    stage.is_as_before().await?;
    println!("killed: {} times on the way, {} times on the way back: {:?} {:?}", there.len(), back.len(), there, back);
    Ok(())
}

/// Lets controllers die at these places, one after the other, until the rollout is in the phase; which places were hit.
async fn kill(stage: &Stage, places: &[String], phase: &str) -> Result<BTreeSet<String>> {
    let marks = stage.env().plane.folder().join(format!("marks-{phase}"));
    std::fs::create_dir_all(&marks)?;
    let (list, folder) = (places.join(","), marks.display().to_string());
    let deadline = std::time::Instant::now() + WHOLE * 2;
    loop {
        let mut controller = stage.world.candidate(&["--kill-at", &list, "--kill-marks", &folder]).await?;
        let ended = loop {
            ensure!(
                std::time::Instant::now() < deadline,
                "not {phase} in time: {}",
                stage.get(&stage.rollout()).await?
            );
            if controller.process.check().is_err() {
                break false;
            }
            let status = &stage.get(&stage.rollout()).await?["status"];
            let gateway = stage.get(&stage.deployment(GW)).await?;
            let locked = !gateway["metadata"]["annotations"]["revguard.dev/active-rollout"].is_null();
            if status["phase"] == phase && status["apart"].is_null() && !locked {
                // What follows the last phase is waited for, and may kill it once more.
                tokio::time::sleep(Duration::from_secs(2)).await;
                break controller.process.check().is_ok();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // Its Lease is not waited for: only who holds it matters here.
        let _ = stage.env().ask(Method::DELETE, LEASE, None).await?;
        if ended {
            break;
        }
    }
    let hit: BTreeSet<String> = std::fs::read_dir(&marks)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    let missed: Vec<&String> = places.iter().filter(|p| !hit.contains(&p.replace(':', "."))).collect();
    ensure!(missed.is_empty(), "never crossed: {missed:?}");
    Ok(hit)
}

async fn the_next_leader_goes_on() -> Result<()> {
    let stage = Stage::of(Arc::new(World::start().await?), "leaders").await?;
    let mut first = stage.world.controller(&[]).await?;
    let second = stage.world.candidate(&[]).await?;
    let watch = Watch::start(&stage);
    stage.begin(json!({})).await?;
    stage.until("draining", |r| r["status"]["phase"] == "Draining").await?;
    ensure!(second.metric("revguard_rollout_info", &[]).await? == 0.0, "who does not lead tells nothing");
    first.process.kill()?;
    stage.phase("Completed").await?;
    watch.end().await?.kept_its_promises()?;
    second.until(SOON, "revguard_rollout_info", &[("namespace", "leaders")], |v| v == 1.0).await.map(drop)
}

/// Changes everything in the namespace right before the first write of each sort.
struct Meddler {
    met: Mutex<BTreeSet<&'static str>>,
    work: Mutex<mpsc::Sender<mpsc::Sender<()>>>,
}

impl Witness for Meddler {
    fn crosses(&self, boundary: &'static str, side: Side) {
        if side == Side::Before && boundary.starts_with("rollout-") && self.met.lock().unwrap().insert(boundary) {
            let (done, is_done) = mpsc::channel();
            self.work.lock().unwrap().send(done).unwrap();
            // What waits behind this worker goes on elsewhere: the other side needs it.
            tokio::task::block_in_place(|| is_done.recv().unwrap());
        }
    }
}

async fn meddle(client: &Client, ns: &str, times: u32) -> Result<()> {
    for (group, plural) in [
        ("/api/v1", "pods"),
        ("/api/v1", "services"),
        ("/api/v1", "configmaps"),
        ("/apis/apps/v1", "deployments"),
        ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
        ("/apis/policy/v1", "poddisruptionbudgets"),
        ("/apis/revguard.dev/v1alpha1", "gatewayrollouts"),
    ] {
        let path = format!("{group}/namespaces/{ns}/{plural}");
        let list = send(client, Method::GET, &path, None, &As::default()).await?.expect(&path)?;
        for object in list["items"].as_array().context("items")? {
            let name = object["metadata"]["name"].as_str().context("a name")?;
            let change = json!({"metadata": {"annotations": {"example.com/meddled": times.to_string()}}});
            let path = format!("{path}/{name}");
            // A pod may have ended meanwhile.
            send(client, Method::PATCH, &path, Some((MERGE, &change)), &As::default()).await?;
        }
    }
    Ok(())
}

async fn overtaken_at_every_write_it_looks_again() -> Result<()> {
    let stage = Stage::of(Arc::new(World::start().await?), "overtaken").await?;
    let client = stage.env().plane.client();
    let live = Guard::start(&stage.env().plane.kubeconfig(), Timestamp::now).await?;
    let (begin, begun) = mpsc::channel::<mpsc::Sender<()>>();
    let meddler = Arc::new(Meddler { met: Mutex::default(), work: Mutex::new(begin) });
    let (other, ns) = (client.clone(), stage.ns.clone());
    std::thread::spawn(move || {
        for (times, done) in begun.into_iter().enumerate() {
            let meddled = crate::harness::runtime::runtime().block_on(meddle(&other, &ns, times as u32));
            if let Err(error) = meddled {
                eprintln!("meddler: {error:#}");
            }
            let _ = done.send(());
        }
    });
    let leadership = Leadership::default();
    leadership.lead_until(Some(tokio::time::Instant::now() + Duration::from_secs(3600)));
    let witness = Arc::clone(&meddler) as Arc<dyn Witness>;
    let writer = Writer::new(client, leadership, Arc::new(Metrics::new())).witnessed(witness);
    let pace = Pace::of(Duration::from_millis(200));
    let settings =
        Settings { names: Names::new(HOME, "revguard"), holder: "overtaken".to_owned(), pace, istiod_token: None };
    let conductor = Conductor::new(writer, Arc::clone(&live.shared), settings);
    let health = Health::new(&[]);
    let running = tokio::spawn(conductor.run(health.task("rollouts", None)));

    let watch = Watch::start(&stage);
    stage.begin(json!({"strategy": {"promotion": "PatchOriginal"}})).await?;
    stage.phase("Completed").await?;
    stage.set(json!({"abort": true})).await?;
    stage.phase("RolledBack").await?;
    watch.end().await?.kept_its_promises()?;
    running.abort();
    let met = meddler.met.lock().unwrap().clone();
    let moved: BTreeSet<String> = stage
        .env()
        .plane
        .audit()?
        .into_iter()
        .filter(|e| {
            e.object_ref.namespace == stage.ns && e.response_status.code == 409 && !e.request_uri.contains("dryRun")
        })
        .map(|e| format!("{} {}{}", e.verb, e.object_ref.resource, e.object_ref.subresource))
        .collect();
    println!("overtaken: at {} sorts of writes {met:?}; refused: {moved:?}", met.len());
    for expected in [
        "patch deployments",
        "patch pods",
        "patch horizontalpodautoscalers",
        "patch services",
        "patch gatewayrollouts",
        "patch gatewayrolloutsstatus",
        "delete deployments",
    ] {
        ensure!(moved.contains(expected), "{expected} was never overtaken: {moved:?}");
    }
    Ok(())
}
