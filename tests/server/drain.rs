//! SIGTERM under load, with a second replica to go to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use revguard::admission::Settings;
use revguard::admission::drain::Drained;
use revguard::telemetry::metrics::{Closed, Port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::{By, Client, JSON, Latch, OpenOnDrop, Server, echo, ok, soon, until};

fn quick() -> Settings {
    Settings {
        drain: Duration::from_millis(400),
        quiet: Duration::from_millis(50),
        hard_stop: Duration::from_secs(30),
        ..Settings::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn first_it_is_not_ready_and_still_serves() {
    let settings = Settings { drain: Duration::from_secs(3600), ..quick() };
    let mut server = Server::start(settings, echo());
    let mut pooled = server.client().await;
    assert!(!pooled.post("/validate", "1").await.unwrap().closes());
    until("readiness", || server.health.is_ready()).await;
    server.begin_shutdown();
    until("unreadiness", || !server.health.is_ready()).await;
    assert_eq!(server.health.ready(), Err("not ready\nrunning: shutting down\n".to_owned()));
    // The pooled connection and a new one: served, and told to go elsewhere.
    for client in [&mut pooled, &mut server.client().await] {
        let answer = client.post("/validate", "1").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.closes());
        assert!(client.post("/validate", "1").await.is_err(), "it is closed");
    }
    until("the count", || server.closed(Closed::AfterAnswer) == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_runs_is_finished_and_silent_connections_go_last() {
    let latch = Latch::default();
    let _open = OpenOnDrop(latch.clone());
    let settings = Settings { drain: Duration::ZERO, ..quick() };
    let mut server = Server::start(settings, latch.reviewer());
    let mut silent = server.raw().await;
    let mut busy = server.client().await;
    let held = tokio::spawn(async move { busy.post("/validate", "wait").await });
    until("the review", || latch.inside() == 1).await;
    server.begin_shutdown();
    until("the second phase", || server.health.ready().is_err_and(|why| why.contains("listener: closed"))).await;
    assert!(Client::connect(server.addr, &server.ca).await.is_err());
    // Well beyond `quiet`: the silent one stays while something runs, and may still be used.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.closed(Closed::Drained), 0);
    let request =
        format!("POST /validate HTTP/1.1\r\nhost: r\r\ncontent-type: {JSON}\r\ncontent-length: 2\r\n\r\n{{}}");
    silent.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    soon("the answer", silent.read_to_string(&mut text)).await.expect("a clean end after the answer");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert!(text.contains("connection: close"), "{text}");

    latch.open();
    let answer = held.await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.closes());
    assert_eq!(server.drained().await, Drained { cut: 0 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_hard_stop_cuts_what_does_not_end() {
    let settings = Settings { drain: Duration::ZERO, hard_stop: Duration::from_millis(200), ..quick() };
    let mut server = Server::start(settings, echo());
    let mut stuck = server.raw().await;
    let head = format!("POST /validate HTTP/1.1\r\nhost: r\r\ncontent-type: {JSON}\r\ncontent-length: 9\r\n\r\n");
    stuck.write_all(head.as_bytes()).await.unwrap();
    until("the request", || server.metrics.text().contains("revguard_admission_in_flight 1")).await;
    let idle = server.raw().await;
    server.begin_shutdown();
    let metrics = Arc::clone(&server.metrics);
    let drained = server.drained().await;
    assert!(drained.cut >= 1, "{drained:?}");
    assert_eq!(metrics.connections_open(Port::Admission), 0);
    assert!(metrics.connections_closed(Port::Admission, Closed::Cut) >= 1);
    drop(idle);
}

/// Two replicas behind endpoints that learn of a drain a while after readiness is gone. Clients
/// pool a connection each and do not retry. Returns calls, lost calls and the drain.
async fn replicas_under_load(settings: Settings) -> (usize, usize, Drained) {
    const PROPAGATION: Duration = Duration::from_millis(150);
    let reviewer = || {
        Arc::new(By(|_, body: &[u8]| {
            std::thread::sleep(Duration::from_micros(300));
            ok(body)
        }))
    };
    let mut going = Server::start(settings, reviewer());
    let staying = Server::start(Settings::default(), reviewer());
    let gone = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicUsize::new(0));
    let lost = Arc::new(AtomicUsize::new(0));

    let targets: [(SocketAddr, String); 2] = [(going.addr, going.ca.clone()), (staying.addr, staying.ca.clone())];
    let clients: Vec<_> = (0..8_usize)
        .map(|n| {
            let targets = targets.clone();
            let (gone, stop) = (Arc::clone(&gone), Arc::clone(&stop));
            let (calls, lost) = (Arc::clone(&calls), Arc::clone(&lost));
            tokio::spawn(async move {
                let mut turn = n;
                let mut pooled: Option<Client> = None;
                // Pools are renewed all the time, so that there are dials at every moment.
                let mut used = 0;
                while !stop.load(Ordering::Acquire) {
                    calls.fetch_add(1, Ordering::Relaxed);
                    let outcome = async {
                        let mut client = match pooled.take() {
                            Some(client) => client,
                            None => {
                                used = 0;
                                turn += 1;
                                let to = if gone.load(Ordering::Acquire) { 1 } else { turn % 2 };
                                Client::connect(targets[to].0, &targets[to].1).await?
                            }
                        };
                        let answer = client.post("/validate?timeout=10s", "1").await?;
                        used += 1;
                        if !answer.closes() && used < 6 {
                            pooled = Some(client);
                        }
                        Ok::<_, crate::kit::Error>(answer.status)
                    }
                    .await;
                    if !matches!(outcome, Ok(StatusCode::OK)) {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();

    until("load", || calls.load(Ordering::Relaxed) > 200).await;
    going.begin_shutdown();
    until("unreadiness", || !going.health.is_ready()).await;
    tokio::time::sleep(PROPAGATION).await;
    gone.store(true, Ordering::Release);
    let drained = going.drained().await;
    let before = calls.load(Ordering::Relaxed);
    until("load on the other", || calls.load(Ordering::Relaxed) > before + 100).await;
    stop.store(true, Ordering::Release);
    for client in clients {
        client.await.unwrap();
    }
    (calls.load(Ordering::Relaxed), lost.load(Ordering::Relaxed), drained)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_goes_loses_nothing_and_without_the_drain_it_would() {
    let (calls, lost, drained) = replicas_under_load(quick()).await;
    assert_eq!((lost, drained), (0, Drained { cut: 0 }), "of {calls} calls");

    // The control: if this loses nothing, the test above measures nothing.
    let without =
        Settings { drain: Duration::ZERO, quiet: Duration::ZERO, hard_stop: Duration::ZERO, ..Settings::default() };
    let (calls, lost, _) = replicas_under_load(without).await;
    assert!(lost > 0, "none of {calls} calls lost without a drain");
}
