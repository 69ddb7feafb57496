//! What a client may send wrongly, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use revguard::admission::{Endpoint, Reply, Settings};
use revguard::telemetry::metrics::{Closed, Outcome, Path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::{By, JSON, Server, echo, ok, soon};

const MULTI: usize = 8 << 20;

async fn to_the_end(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    // A reset at the end of a cut connection is an end as well.
    let _ = soon("the end", stream.read_to_end(&mut all)).await;
    String::from_utf8(all).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn both_endpoints_reach_the_reviewer() {
    let server = Server::start(
        Settings::default(),
        Arc::new(By(|endpoint, body: &[u8]| ok(format!("{endpoint:?} {}", body.len()).as_bytes()))),
    );
    let mut client = server.client().await;
    let answer = client.post("/validate?timeout=10s", "12345").await.unwrap();
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "Validate 5"));
    assert_eq!(answer.header("content-type"), Some(JSON));
    let answer = client.post("/mutate?timeout=10s", vec![b'x'; 3 << 20]).await.unwrap();
    assert_eq!(answer.text(), format!("Mutate {}", 3 << 20));
    assert!(!answer.closes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn wrong_requests_are_told_what_is_wrong() {
    let server = Server::start(Settings::default(), echo());
    let cases = [
        (Method::GET, "/validate", Some(JSON), 405),
        (Method::PUT, "/mutate", Some(JSON), 405),
        (Method::HEAD, "/mutate", Some(JSON), 405),
        (Method::POST, "/", Some(JSON), 404),
        (Method::POST, "/validate/x", Some(JSON), 404),
        (Method::GET, "/metrics", None, 404),
        (Method::POST, "/validate", None, 415),
        (Method::POST, "/validate", Some("text/plain"), 415),
        (Method::POST, "/validate", Some("application/jsonx"), 415),
        (Method::POST, "/validate", Some("application/json"), 200),
        (Method::POST, "/validate", Some("Application/JSON; charset=utf-8"), 200),
    ];
    for (method, path, kind, status) in cases {
        let mut request = Request::builder().method(method.clone()).uri(path).header("host", "revguard");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let answer = server.client().await.send(request.body(Full::new(Bytes::from("{}"))).unwrap()).await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{method} {path} {kind:?}");
        if status != 200 && method != Method::HEAD {
            assert!(answer.text().ends_with('\n'), "{:?}", answer.text());
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        }
    }
    for (path, outcome, count) in [
        (Path::Validate, Outcome::WrongMethod, 1),
        (Path::Mutate, Outcome::WrongMethod, 2),
        (Path::Other, Outcome::NotFound, 3),
        (Path::Validate, Outcome::WrongType, 3),
    ] {
        assert_eq!(server.metrics.requests(path, outcome), count, "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let server = Server::start(Settings::default(), echo());
    // The whole body is sent, as a client that does not read while it writes would do.
    let answer = server.client().await.post("/validate", vec![b' '; MULTI + 1]).await.unwrap();
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.closes());

    // Only announced: refused without a byte of it.
    let mut stream = server.raw().await;
    let head =
        format!("POST /validate HTTP/1.1\r\nhost: r\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n", MULTI + 1);
    stream.write_all(head.as_bytes()).await.unwrap();
    let text = to_the_end(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");

    // In chunks, without an announcement.
    let mut stream = server.raw().await;
    let head =
        format!("POST /validate HTTP/1.1\r\nhost: r\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    for _ in 0..9 {
        stream.write_all(&chunk).await.unwrap();
    }
    let text = to_the_end(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");

    assert_eq!(server.metrics.requests(Path::Validate, Outcome::TooLarge), 3);
    let exact = server.client().await.post("/validate", vec![b' '; MULTI]).await.unwrap();
    assert_eq!(exact.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_client_that_dribbles_its_head_is_cut() {
    let settings = Settings { head_timeout: Duration::from_millis(300), ..Settings::default() };
    let server = Server::start(settings, echo());
    let (mut read, mut write) = tokio::io::split(server.raw().await);
    let dribble = tokio::spawn(async move {
        // Each byte on time, the head never complete.
        let _ = write.write_all(b"POST /validate HTTP/1.1\r\nx: ").await;
        while write.write_all(b"a").await.is_ok() && write.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(to_the_end(&mut read).await, "");
    crate::kit::until("the count", || server.closed(Closed::SlowHead) == 1).await;
    soon("the dribbler", dribble).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_stalled_handshake_is_cut_and_garbage_is_refused() {
    let settings = Settings { handshake_timeout: Duration::from_millis(200), ..Settings::default() };
    let server = Server::start(settings, echo());
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    let mut byte = [0];
    let _ = soon("the cut", silent.read(&mut byte)).await;
    crate::kit::until("the count", || server.closed(Closed::HandshakeTimeout) == 1).await;

    let mut garbage = TcpStream::connect(server.addr).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    crate::kit::until("the count", || server.closed(Closed::HandshakeFailed) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_body_that_does_not_come_is_answered_and_cut() {
    let settings = Settings { body_timeout: Duration::from_millis(200), ..Settings::default() };
    let server = Server::start(settings, echo());
    let head = format!("POST /validate?timeout=10s HTTP/1.1\r\nhost: r\r\ncontent-type: {JSON}\r\n");
    for announced in ["content-length: 100\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n"] {
        let mut stream = server.raw().await;
        stream.write_all(format!("{head}{announced}").as_bytes()).await.unwrap();
        let text = to_the_end(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
        assert!(text.contains("connection: close"), "{text}");
    }
    assert_eq!(server.metrics.requests(Path::Validate, Outcome::SlowBody), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_deadline_bounds_the_body_too() {
    let server = Server::start(Settings::default(), echo());
    let mut stream = server.raw().await;
    let head =
        format!("POST /mutate?timeout=200ms HTTP/1.1\r\nhost: r\r\ncontent-type: {JSON}\r\ncontent-length: 9\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let text = to_the_end(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_quarter_of_a_body_is_counted_as_a_client_that_left() {
    let server = Server::start(Settings::default(), echo());
    let mut stream = server.raw().await;
    let head = format!(
        "POST /validate HTTP/1.1\r\nhost: r\r\ncontent-type: {JSON}\r\ncontent-length: 100\r\n\r\n{}",
        "x".repeat(25)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    drop(stream);
    crate::kit::until("the count", || {
        server.metrics.requests(Path::Validate, Outcome::BadRequest)
            + server.metrics.requests(Path::Validate, Outcome::ClientGone)
            == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_is_not_http_is_refused() {
    let server = Server::start(Settings::default(), echo());
    let mut stream = server.raw().await;
    stream.write_all(b"\x00\x01\x02 nonsense\r\n\r\n").await.unwrap();
    let text = to_the_end(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    drop(stream);
    crate::kit::until("the count", || server.closed(Closed::ProtocolError) == 1).await;

    // Without its end: one that arrives whole is read, whatever its length.
    let mut stream = server.raw().await;
    let head = format!("POST /validate HTTP/1.1\r\nx: {}", "y".repeat(300 << 10));
    stream.write_all(head.as_bytes()).await.unwrap();
    let text = to_the_end(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_panic_fails_one_request_and_not_the_next() {
    let server = Server::start(
        Settings::default(),
        Arc::new(By(|_: Endpoint, body: &[u8]| {
            assert_ne!(body, b"boom", "a panic that the test asked for");
            ok(body)
        })),
    );
    let mut client = server.client().await;
    let answer = client.post("/validate", "boom").await.unwrap();
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    // The same connection goes on.
    let answer = client.post("/validate", "fine").await.unwrap();
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "fine"));
    assert_eq!(server.metrics.panics(), 1);
    assert_eq!(server.metrics.requests(Path::Validate, Outcome::Panicked), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_the_reviewer_cannot_answer_is_passed_on() {
    let server = Server::start(
        Settings::default(),
        Arc::new(By(|_: Endpoint, body: &[u8]| Reply {
            status: StatusCode::from_bytes(body).unwrap(),
            body: b"not yet".to_vec(),
            retry_after: (body == b"503").then_some(Duration::from_millis(1)),
        })),
    );
    let mut client = server.client().await;
    let answer = client.post("/mutate", "503").await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.text(), "not yet");
    let answer = client.post("/mutate", "400").await.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.header("retry-after"), None);
    for outcome in [Outcome::Unavailable, Outcome::BadRequest] {
        assert_eq!(server.metrics.requests(Path::Mutate, outcome), 1);
    }
}
