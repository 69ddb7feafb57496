//! One leader at a time: two processes, a dead holder, a lease given back, and a write that is overtaken.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use revguard::controller::resource::CONFIG_MAPS;
use revguard::controller::write::{Change, Held, Manager, Side, Witness, Write, WriteError};
use revguard::controller::{At, Candidate, Terms, Writer};
use revguard::telemetry::metrics::Loop;
use revguard::telemetry::{Health, Metrics};
use serde_json::json;

use super::{Env, PARAMETERS, SOON};
use crate::harness::ControlPlane;
use crate::harness::Options;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ApiServer, two_controllers_have_one_leader),
        trial!(ApiServer, a_leader_that_is_overtaken_changes_nothing),
        trial!(ApiServer, a_leader_without_an_api_server_knows_it),
        trial!(ApiServer, one_renewal_without_an_answer_costs_nothing),
    ]
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/revguard-system/leases/revguard-controller";

async fn two_controllers_have_one_leader() -> Result<()> {
    let env = Env::start().await?;
    let mut first = env.controller("", &["--certificates", "external"]).await?;
    first.leads().await?;
    let mut second = env.controller("", &["--certificates", "external"]).await?;
    second.until(SOON, "revguard_ready", &[], |v| v == 1.0).await?;
    first.audits(3).await?;
    ensure!(second.metric("revguard_leader", &[]).await? == 0.0, "two leaders");
    ensure!(second.metric("revguard_audit_last_success_seconds", &[]).await? == 0.0, "both audit");
    ensure!(second.metric("revguard_default_validators", &[]).await? == 0.0, "a sum over replicas counts twice");

    // Killed: the Lease has a dead holder, and is taken once it has run out, not before.
    let holder = env.get(LEASE).await?["spec"]["holderIdentity"].clone();
    let began = Instant::now();
    first.process.kill()?;
    second.leads().await?;
    let took = began.elapsed();
    ensure!(took > Duration::from_secs(1) && took < Duration::from_secs(15), "a dead holder's lease after {took:?}");
    let lease = env.get(LEASE).await?;
    ensure!(lease["spec"]["holderIdentity"] != holder && lease["spec"]["leaseTransitions"] == 1, "{lease}");

    // Asked to end: the Lease is free at once.
    let third = env.controller("", &["--certificates", "external"]).await?;
    third.until(SOON, "revguard_ready", &[], |v| v == 1.0).await?;
    second.process.terminate(Duration::from_secs(20)).await?;
    let began = Instant::now();
    third.leads().await?;
    let took = began.elapsed();
    ensure!(took < Duration::from_secs(3), "a lease that was given back after {took:?}");
    println!("leading: the lease of a dead holder is taken, one that is given back after {took:?}");
    third.audits(1).await
}

/// Takes the Lease and changes the object while the write is on its way.
struct Overtaking {
    work: Mutex<Option<std::sync::mpsc::Sender<()>>>,
    done: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Witness for Overtaking {
    fn crosses(&self, boundary: &'static str, side: Side) {
        if boundary == "overtaken"
            && side == Side::Before
            && let Some(begin) = self.work.lock().unwrap().take()
        {
            begin.send(()).unwrap();
            self.done.lock().unwrap().recv().unwrap();
        }
    }
}

fn terms(holder: &str) -> Terms {
    let terms = Terms::new("default", "overtaken", holder.to_owned());
    let ms = Duration::from_millis;
    Terms { duration: ms(1500), leads: ms(900), period: ms(300), answer: ms(400), ..terms }
}

async fn a_leader_that_is_overtaken_changes_nothing() -> Result<()> {
    let plane = Arc::new(ControlPlane::start(Options::with_controllers(&[])).await?);
    let client = plane.client();
    let health = Health::new(&[]);
    let candidate = Candidate::new(client.clone(), terms("first"));
    let leadership = candidate.leadership();
    let task = tokio::spawn(candidate.run(std::future::pending(), health.task("first", None)));
    leadership.gained().await;
    let at = At::of(&CONFIG_MAPS, "default", "shared");
    let metrics = Arc::new(Metrics::new());
    let writer = Writer::new(client.clone(), leadership.clone(), Arc::clone(&metrics));
    let write = |boundary, change| Write { boundary, by: Loop::Guard, at: at.clone(), change };
    let made = writer.write(&write("make", Change::Create { object: json!({"data": {"by": "first"}}) })).await?;
    let held = Held::of(&made);

    let ((begin, begun), (done, is_done)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let witness = Overtaking { work: Mutex::new(Some(begin)), done: Mutex::new(is_done) };
    let (other, at_other) = (client.clone(), at.clone());
    let overtaking = tokio::spawn(async move {
        tokio::task::spawn_blocking(move || begun.recv()).await.unwrap().unwrap();
        // The first one stands still: its lease runs out and another leads.
        task.abort();
        let second = Candidate::new(other.clone(), terms("second"));
        let leads = second.leadership();
        let health = Health::new(&[]);
        let second = tokio::spawn(second.run(std::future::pending(), health.task("second", None)));
        leads.gained().await;
        let writer = Writer::new(other, leads, Arc::new(Metrics::new()));
        let object = json!({"data": {"by": "second"}});
        let change = Change::Apply { object, manager: Manager::Controller, held: None };
        let write = Write { boundary: "second", by: Loop::Guard, at: at_other, change };
        let written = writer.write(&write).await;
        done.send(()).unwrap();
        (written, second)
    });
    let witnessed = writer.clone().witnessed(Arc::new(witness));
    let operations = vec![json!({"op": "replace", "path": "/data/by", "value": "first again"})];
    let late = witnessed.write(&write("overtaken", Change::Patch { operations, held: held.clone() })).await;
    let (written, second) = overtaking.await?;
    written?;
    ensure!(matches!(late, Err(WriteError::Moved { .. })), "{late:?}");
    ensure!(leadership.remaining().is_none(), "it still believes that it leads");
    for change in [
        Change::Delete { held: held.clone(), foreground: false },
        Change::Apply { object: json!({"data": {"by": "x"}}), manager: Manager::Controller, held: None },
    ] {
        let refused = writer.write(&write("late", change)).await;
        ensure!(matches!(refused, Err(WriteError::NotLeader { .. })), "{refused:?}");
    }
    let now = writer.read(&at).await?.unwrap_or_default();
    ensure!(now["data"]["by"] == "second", "{now}");
    ensure!(metrics.reconcile_errors(Loop::Guard) == 0, "to be overtaken is no error");
    // A uid that is gone is refused as well, whatever else fits.
    let leader = Writer::new(client, leadership.clone(), metrics);
    leadership.lead_until(Some(tokio::time::Instant::now() + SOON));
    let stranger = Held { uid: "00000000-0000-0000-0000-000000000000".to_owned(), version: String::new() };
    for change in [
        Change::Delete { held: stranger.clone(), foreground: false },
        Change::Apply { object: json!({"data": {"by": "x"}}), manager: Manager::Controller, held: Some(stranger) },
    ] {
        let refused = leader.write(&write("stranger", change)).await;
        ensure!(matches!(refused, Err(WriteError::Moved { .. })), "{refused:?}");
    }
    second.abort();
    Ok(())
}

async fn one_renewal_without_an_answer_costs_nothing() -> Result<()> {
    let plane = ControlPlane::start(Options::with_controllers(&[])).await?;
    let terms = Terms::new("default", "unanswered", "first".to_owned());
    let (lasting, answer) = (terms.leads, terms.answer);
    let candidate = Candidate::new(plane.client(), terms);
    let leadership = candidate.leadership();
    let task = tokio::spawn(candidate.run(std::future::pending(), Health::new(&[]).task("first", None)));
    leadership.gained().await;
    // From one renewal until the next one was given up.
    let left = || leadership.remaining().unwrap_or_default();
    wait_until(SOON, "a renewal", || async {
        (left() > lasting - Duration::from_millis(300)).then_some(()).ok_or(format!("{:?}", left()))
    })
    .await?;
    plane.freeze_apiserver().await;
    tokio::time::sleep(Duration::from_secs(3) + answer - Duration::from_millis(100)).await;
    plane.thaw_apiserver().await;
    let mut changes = leadership.changes();
    changes.borrow_and_update();
    let lost = tokio::time::timeout(Duration::from_secs(8), changes.changed()).await;
    task.abort();
    ensure!(lost.is_err(), "leadership was lost: {:?} left", left());
    ensure!(left() > Duration::from_secs(4), "it was not renewed: {:?} left", left());
    Ok(())
}

async fn a_leader_without_an_api_server_knows_it() -> Result<()> {
    let env = Env::start().await?;
    let controller = env.controller("", &["--certificates", "external"]).await?;
    controller.leads().await?;
    controller.audits(1).await?;
    env.plane.stop_apiserver().await?;
    let began = Instant::now();
    controller.until(SOON, "revguard_leader", &[], |v| v == 0.0).await?;
    ensure!(began.elapsed() < Duration::from_secs(4), "it took {:?} to notice", began.elapsed());
    let (status, said) = controller.get("/healthz").await?;
    ensure!(status == 200, "a restart would not bring the API server back: {said}");
    wait_until(SOON, "a word in the log", || async {
        let log = controller.log().map_err(|e| e.to_string())?;
        log.contains("no longer leading: the lease could not be renewed").then_some(()).ok_or(log)
    })
    .await?;
    env.plane.start_apiserver().await?;
    controller.leads().await?;
    controller.audits(2).await?;
    env.until(SOON, PARAMETERS, "parameters", |m| m["spec"]["validators"][0] == "istiod-default-validator")
        .await
        .map(drop)
}
