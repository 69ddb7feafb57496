//! Idle connections: kept long, closed for room, never closed under a request.

use std::time::Duration;

use futures::StreamExt;
use http::StatusCode;
use revguard::admission::Settings;
use revguard::telemetry::metrics::{Closed, Port};
use tokio::io::AsyncReadExt;

use crate::kit::{Server, client_config, echo, soon, tls, until};

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
