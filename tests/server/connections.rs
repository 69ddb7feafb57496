//! Idle connections: kept long, closed for room, never closed under a request. Old ones end with an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use http::StatusCode;
use revguard::admission::Settings;
use revguard::telemetry::metrics::{Closed, Port};
use tokio::io::AsyncReadExt;

use crate::kit::{Client, Error, Server, client_config, echo, soon, tls, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn idle_is_not_slow() {
    let settings = Settings {
        head_timeout: Duration::from_millis(50),
        body_timeout: Duration::from_millis(50),
        write_timeout: Duration::from_millis(50),
        handshake_timeout: Duration::from_secs(10),
        ..Settings::default()
    };
    let server = Server::start(settings, echo());
    let mut used = server.client().await;
    // Go's transport dials ahead, so one that was never used must wait as well.
    let mut unused = server.client().await;
    assert_eq!(used.post("/validate", "1").await.unwrap().status, StatusCode::OK);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(used.post("/validate", "2").await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(unused.post("/validate", "3").await.unwrap().status, StatusCode::OK);
    assert_eq!(server.metrics.connections_open(Port::Admission), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_idle_connection_ends_at_last() {
    let settings = Settings { idle_timeout: Duration::from_millis(100), ..Settings::default() };
    let server = Server::start(settings, echo());
    let mut stream = server.raw().await;
    // A clean end: close_notify, not a reset.
    assert_eq!(soon("the end", stream.read(&mut [0])).await.unwrap(), 0);
    until("the count", || server.closed(Closed::Idle) == 1).await;
}

/// The same in real time; the API server's transport keeps a connection for 90 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_connection_that_was_idle_for_95_seconds_works() {
    if std::env::var_os("REVGUARD_PROVE").is_none() {
        eprintln!("skipped: takes 95 s, set REVGUARD_PROVE=1");
        return;
    }
    let server = Server::start(Settings::default(), echo());
    let mut client = server.client().await;
    assert_eq!(client.post("/validate", "1").await.unwrap().status, StatusCode::OK);
    tokio::time::sleep(Duration::from_secs(95)).await;
    assert_eq!(client.post("/validate", "2").await.unwrap().status, StatusCode::OK);
}

/// `REVGUARD_IDLE_CONNECTIONS` makes it 10,000 where the descriptors allow it.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn more_idle_connections_than_the_limit_keep_nobody_out() {
    let limit = 256;
    let many = std::env::var("REVGUARD_IDLE_CONNECTIONS").ok().map_or(2_000, |value| value.parse().unwrap());
    let settings = Settings { max_connections: limit, ..Settings::default() };
    let server = Server::start(settings, echo());
    let config = client_config(&server.ca, rustls::ALL_VERSIONS);
    let idle: Vec<_> = futures::stream::iter(0..many)
        .map(|_| tls(server.addr, &config))
        .buffer_unordered(32)
        .map(|connected| connected.expect("every newcomer is let in"))
        .collect()
        .await;
    let open = server.metrics.connections_open(Port::Admission);
    // A newcomer is counted from its accept, before it has a place.
    assert!(open <= limit as i64 + 1, "{open} connections are open");

    let mut client = server.client().await;
    for _ in 0..3 {
        assert_eq!(client.post("/validate", "1").await.unwrap().status, StatusCode::OK);
    }
    let evicted = server.closed(Closed::Evicted);
    assert!(evicted as usize > many - limit, "{evicted} were evicted");
    assert_eq!(server.closed(Closed::Refused), 0);
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_longest_idle_makes_room() {
    let settings = Settings { max_connections: 2, ..Settings::default() };
    let server = Server::start(settings, echo());
    let mut old = server.client().await;
    let mut young = server.client().await;
    for client in [&mut old, &mut young] {
        assert_eq!(client.post("/validate", "1").await.unwrap().status, StatusCode::OK);
        // The table's clock ticks in milliseconds.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut new = server.client().await;
    assert_eq!(new.post("/validate", "1").await.unwrap().status, StatusCode::OK);
    assert_eq!(young.post("/validate", "1").await.unwrap().status, StatusCode::OK);
    assert!(old.post("/validate", "1").await.is_err());
    until("the count", || server.closed(Closed::Evicted) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_old_connection_ends_with_its_answer_and_never_without() {
    let settings = Settings { connection_age: Some(Duration::from_millis(100)), ..Settings::default() };
    let server = Server::start(settings, echo());
    let mut client = server.client().await;
    assert!(!client.post("/validate", "1").await.unwrap().closes(), "it is young");
    // Twice its age, and nobody has spoken: a request could be on its way at any moment.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.metrics.connections_open(Port::Admission), 1);
    let answer = client.post("/validate", "2").await.unwrap();
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "2"));
    assert!(answer.closes());
    assert!(client.post("/validate", "3").await.is_err(), "it is closed");
    until("the count", || server.closed(Closed::AfterAnswer) == 1).await;
}

/// Eight callers that each keep a connection as long as they may and never try a call twice. They dial when only the first replica is
/// there, and after a while both are. Answers of each replica from then on, and calls that were lost.
async fn answers_of_each(age: Option<Duration>) -> ([usize; 2], usize) {
    let settings = Settings { connection_age: age, ..Settings::default() };
    let replicas = [Server::start(settings.clone(), echo()), Server::start(settings, echo())];
    let targets: [(SocketAddr, String); 2] = [0, 1].map(|i| (replicas[i].addr, replicas[i].ca.clone()));
    let (both, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let dials = Arc::new(AtomicUsize::new(0));
    let answers = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let lost = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (targets, both, stop) = (targets.clone(), Arc::clone(&both), Arc::clone(&stop));
            let (dials, answers, lost) = (Arc::clone(&dials), Arc::clone(&answers), Arc::clone(&lost));
            tokio::spawn(async move {
                let mut kept: Option<(usize, Client)> = None;
                while !stop.load(Ordering::Acquire) {
                    let outcome = async {
                        let (to, mut client) = match kept.take() {
                            Some(kept) => kept,
                            None => {
                                // As a Service spreads what is dialled.
                                let dial = dials.fetch_add(1, Ordering::Relaxed);
                                let to = if both.load(Ordering::Acquire) { dial % 2 } else { 0 };
                                (to, Client::connect(targets[to].0, &targets[to].1).await?)
                            }
                        };
                        let answer = client.post("/validate", "1").await?;
                        answers[to].fetch_add(1, Ordering::Relaxed);
                        if !answer.closes() {
                            kept = Some((to, client));
                        }
                        Ok::<_, Error>(answer.status)
                    }
                    .await;
                    if !matches!(outcome, Ok(StatusCode::OK)) {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let count = || [0, 1].map(|i| answers[i].load(Ordering::Relaxed));
    until("answers of the one", || count()[0] > 500).await;
    both.store(true, Ordering::Release);
    // Long enough for every connection of before to have grown old, if they do at all.
    tokio::time::sleep(age.unwrap_or(Duration::from_millis(200))).await;
    let before = count();
    until("answers", || count().iter().sum::<usize>() > before.iter().sum::<usize>() + 2_000).await;
    let after = count();
    stop.store(true, Ordering::Release);
    for caller in callers {
        caller.await.unwrap();
    }
    ([after[0] - before[0], after[1] - before[1]], lost.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_comes_later_gets_its_share_and_no_call_is_lost() {
    let (each, lost) = answers_of_each(Some(Duration::from_millis(100))).await;
    let all: usize = each.iter().sum();
    assert_eq!(lost, 0, "of {all} calls");
    assert!(each.iter().all(|of| of * 5 >= all), "{each:?}");

    // The control: connections that live for ever never lead to it.
    let (each, lost) = answers_of_each(None).await;
    assert_eq!((each[1], lost), (0, 0), "{each:?}");
}
