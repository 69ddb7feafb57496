//! More work than there are workers, bytes or places for.

use std::time::Duration;

use http::StatusCode;
use revguard::admission::{Settings, bind::bind, probes};
use revguard::telemetry::Condition;
use revguard::telemetry::metrics::{Outcome, Path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::{Latch, OpenOnDrop, Server, echo, soon, until};

fn one_at_a_time(queue: Duration) -> Settings {
    Settings { concurrency: 1, queue, ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_full_queue_is_answered_429_with_retry_after() {
    let latch = Latch::default();
    let _open = OpenOnDrop(latch.clone());
    let server = Server::start(one_at_a_time(Duration::from_millis(20)), latch.reviewer());
    let mut first = server.client().await;
    let held = tokio::spawn(async move { first.post("/validate", "wait").await });
    until("the first review", || latch.inside() == 1).await;

    let mut second = server.client().await;
    for _ in 0..3 {
        let answer = second.post("/validate?timeout=10s", "{}").await.unwrap();
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.header("retry-after"), Some("1"));
        // The body was read, so the connection stays in the pool.
        assert!(!answer.closes());
    }
    assert_eq!(latch.inside(), 1, "all answers came while it was busy");
    latch.open();
    assert_eq!(held.await.unwrap().unwrap().status, StatusCode::OK);
    let answer = second.post("/validate?timeout=10s", "{}").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(server.metrics.requests(Path::Validate, Outcome::Overloaded), 3);
    assert!(server.metrics.text().contains("revguard_admission_rejected_total{full=\"workers\"} 3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_wait_ends_before_the_deadline_however_long_the_queue_may_be() {
    let latch = Latch::default();
    let _open = OpenOnDrop(latch.clone());
    // The queue alone would wait longer than the test's watchdog.
    let server = Server::start(one_at_a_time(Duration::from_secs(3600)), latch.reviewer());
    let mut first = server.client().await;
    let held = tokio::spawn(async move { first.post("/validate", "wait").await });
    until("the first review", || latch.inside() == 1).await;
    let mut second = server.client().await;
    let answer = second.post("/validate?timeout=1s", "{}").await.unwrap();
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    latch.open();
    held.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_turn_that_comes_in_time_is_taken() {
    let latch = Latch::default();
    let _open = OpenOnDrop(latch.clone());
    let server = Server::start(one_at_a_time(Duration::from_secs(3600)), latch.reviewer());
    let mut first = server.client().await;
    let mut second = server.client().await;
    let held = tokio::spawn(async move { first.post("/validate", "wait").await });
    until("the first review", || latch.inside() == 1).await;
    let waiting = tokio::spawn(async move { second.post("/validate?timeout=60s", "{}").await });
    until("the second request", || server.metrics.text().contains("revguard_admission_in_flight 2")).await;
    latch.open();
    assert_eq!(held.await.unwrap().unwrap().status, StatusCode::OK);
    assert_eq!(waiting.await.unwrap().unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn bodies_together_have_a_budget() {
    let settings = Settings { body_memory: 1 << 20, ..Settings::default() };
    let server = Server::start(settings, echo());
    let mut client = server.client().await;
    let answer = client.post("/validate", vec![b' '; 2 << 20]).await.unwrap();
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.closes());
    // What was taken is given back.
    for _ in 0..3 {
        let answer = server.client().await.post("/validate", vec![b' '; 1 << 20]).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn with_no_idle_connection_the_newest_is_told_to_try_again() {
    let latch = Latch::default();
    let _open = OpenOnDrop(latch.clone());
    let settings = Settings { max_connections: 1, max_refusals: 1, ..one_at_a_time(Duration::from_millis(20)) };
    let server = Server::start(settings, latch.reviewer());
    let mut first = server.client().await;
    let held = tokio::spawn(async move { first.post("/validate", "wait").await });
    until("the first review", || latch.inside() == 1).await;

    let answer = server.client().await.post("/validate", "{}").await.unwrap();
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.closes());
    latch.open();
    assert_eq!(held.await.unwrap().unwrap().status, StatusCode::OK);
}

async fn get(addr: std::net::SocketAddr, path: &str) -> String {
    soon("a probe", async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: r\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_while_every_worker_is_busy() {
    let latch = Latch::default();
    let _open = OpenOnDrop(latch.clone());
    let server = Server::start(one_at_a_time(Duration::from_millis(20)), latch.reviewer());
    let listener = bind("127.0.0.1:0".parse().unwrap(), "--health-listen").unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = probes::spawn(listener, server.health.clone(), server.metrics.clone(), async {
        let _ = stopped.await;
    })
    .unwrap();
    until("readiness", || server.health.is_ready()).await;

    let mut first = server.client().await;
    let held = tokio::spawn(async move { first.post("/validate", "wait").await });
    until("the first review", || latch.inside() == 1).await;
    for (path, status, text) in [
        ("/healthz", "200", "alive"),
        ("/readyz", "200", "ready"),
        ("/metrics", "200", "revguard_admission_in_flight 1"),
        ("/validate", "404", ""),
    ] {
        let said = get(addr, path).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        assert!(said.contains(text), "{said}");
    }
    server.health.set(Condition::State, Err("the first list of Pods is not complete".into()));
    let said = get(addr, "/readyz").await;
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert!(said.contains("state: the first list of Pods is not complete\n"), "{said}");
    assert!(get(addr, "/metrics").await.contains("revguard_ready 0"));

    // A task that dies is what a restart is for.
    drop(server.health.task("watch", None));
    let said = get(addr, "/healthz").await;
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert!(said.contains("watch: the task ended"), "{said}");

    latch.open();
    held.await.unwrap().unwrap();
    let _ = stop.send(());
    tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
}
