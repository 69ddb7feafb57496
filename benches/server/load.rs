//! The load generator: keep-alive connections over TLS 1.3, written to as the API server's HTTP client writes.
//!
//! One thread, and no HTTP library: what it spends must not be what limits the server. A job comes as a line of JSON, then
//! `go`; what was measured goes back as a line.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::BufRead;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::common;

/// Requests of each connection before anything is counted.
const WARM: usize = 50;
/// Bodies that differ in names, so that a branch predictor cannot learn one by heart.
const BODIES: usize = 32;
/// Go's HTTP client writes the head and the start of the body from a buffer of this size, then the rest at once.
const FIRST_WRITE: usize = 4096;

struct Job {
    addr: String,
    tls: TlsConnector,
    requests: Vec<Vec<u8>>,
    next: Cell<usize>,
    seconds: Duration,
    connections: usize,
    most: usize,
    rate: f64,
    seen: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    sent: usize,
    accepted: Vec<u32>,
    refused: Vec<u32>,
    failed: usize,
    /// Arrivals that found no free connection, with all that it may have open.
    unsent: usize,
    opened: usize,
}

pub fn main() {
    let mut lines = std::io::stdin().lock().lines();
    let mut line = || lines.next().expect("a line").expect("UTF-8");
    let spec: Value = serde_json::from_str(&line()).expect("a job");
    if let Some(core) = spec["core"].as_u64() {
        crate::serve::pin(core as usize);
    }
    let job = Rc::new(Job::new(&spec));
    let open = spec["mode"] == "open";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    let seconds = local.block_on(&runtime, async {
        let mut pool = VecDeque::new();
        for _ in 0..job.connections {
            let mut connection = job.connect().await.expect("the server listens");
            for _ in 0..if open { 1 } else { WARM } {
                let status = connection.call(job.request()).await.expect("an answer");
                assert_eq!(status, 200);
            }
            pool.push_back(connection);
        }
        println!("\"ready\"");
        // Waits for `go`; nothing else runs.
        line();
        let begun = Instant::now();
        if open {
            job.open(pool).await
        } else {
            job.closed(pool).await
        }
        begun.elapsed().as_secs_f64()
    });
    let mut seen = job.seen.borrow_mut();
    let (accepted, refused) = (quantiles(&mut seen.accepted), quantiles(&mut seen.refused));
    println!(
        "{}",
        json!({"seconds": seconds, "offered": seen.sent + seen.unsent, "sent": seen.sent, "accepted": seen.accepted.len(),
            "refused": seen.refused.len(), "failed": seen.failed, "unsent": seen.unsent, "opened": seen.opened,
            "latency_us": accepted, "refused_latency_us": refused})
    );
}

fn quantiles(all: &mut [u32]) -> Value {
    all.sort_unstable();
    let at = |q: f64| all.get(((all.len() as f64 * q) as usize).min(all.len().saturating_sub(1)));
    json!({"p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "most": all.last()})
}

impl Job {
    fn new(spec: &Value) -> Job {
        let bytes = spec["bytes"].as_u64().expect("a size") as usize;
        let text = |path: &str| spec.pointer(path).and_then(Value::as_str).expect("a string").to_owned();
        let make = if spec["operation"] == "create" { common::create_named } else { common::update_named };
        let requests = (0..BODIES).map(|n| {
            let body = make(bytes, &format!("ns-{}", n * 7), &format!("new-{n}"));
            let mut request = format!(
                "POST /validate?timeout=10s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: kube-apiserver-admission\r\nContent-Length: {}\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n",
                body.len()
            )
            .into_bytes();
            request.extend_from_slice(&body);
            request
        });
        Job {
            addr: text("/at/addr"),
            tls: connector(&text("/at/ca")),
            requests: requests.collect(),
            next: Cell::new(0),
            seconds: Duration::from_secs_f64(spec["seconds"].as_f64().expect("a number")),
            connections: spec["connections"].as_u64().expect("a number") as usize,
            most: spec["most_connections"].as_u64().unwrap_or(0) as usize,
            rate: spec["rate"].as_f64().unwrap_or(0.0),
            seen: RefCell::default(),
        }
    }

    fn request(&self) -> &[u8] {
        let n = self.next.get();
        self.next.set(n + 1);
        &self.requests[n % self.requests.len()]
    }

    async fn connect(&self) -> std::io::Result<Connection> {
        let tcp = TcpStream::connect(&self.addr).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = self.tls.connect(name, tcp).await?;
        self.seen.borrow_mut().opened += 1;
        Ok(Connection { stream, buffer: vec![0; 16 << 10] })
    }

    /// Each connection sends its next request when the last is answered.
    async fn closed(self: &Rc<Self>, pool: VecDeque<Connection>) {
        let until = Instant::now() + self.seconds;
        let tasks: Vec<_> = pool
            .into_iter()
            .map(|mut connection| {
                let job = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    while Instant::now() < until {
                        job.counted(&mut connection).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("a loop");
        }
    }

    /// Requests come at their rate, whatever became of those before.
    async fn open(self: &Rc<Self>, pool: VecDeque<Connection>) {
        let pool = Rc::new(RefCell::new(pool));
        let existing = Rc::new(Cell::new(self.connections));
        let begun = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut arrived = 0;
        let mut tasks = tokio::task::JoinSet::new();
        while begun.elapsed() < self.seconds {
            tick.tick().await;
            let due = (begun.elapsed().as_secs_f64() * self.rate) as usize;
            for _ in arrived..due {
                let free = pool.borrow_mut().pop_front();
                if free.is_none() && existing.get() >= self.most {
                    self.seen.borrow_mut().unsent += 1;
                    continue;
                }
                if free.is_none() {
                    existing.set(existing.get() + 1);
                }
                let (job, pool, existing) = (Rc::clone(self), Rc::clone(&pool), Rc::clone(&existing));
                tasks.spawn_local(async move {
                    let connection = match free {
                        Some(connection) => Ok(connection),
                        None => job.connect().await,
                    };
                    let Ok(mut connection) = connection else {
                        let mut seen = job.seen.borrow_mut();
                        seen.sent += 1;
                        seen.failed += 1;
                        existing.set(existing.get() - 1);
                        return;
                    };
                    if job.counted(&mut connection).await {
                        pool.borrow_mut().push_back(connection);
                    } else {
                        existing.set(existing.get() - 1);
                    }
                });
            }
            arrived = due;
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
    }

    /// One request, timed from its first byte; `false` if the connection cannot be used again.
    async fn counted(&self, connection: &mut Connection) -> bool {
        self.seen.borrow_mut().sent += 1;
        let begun = Instant::now();
        let status = connection.call(self.request()).await;
        let took = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
        let mut seen = self.seen.borrow_mut();
        match status {
            Ok(200) => seen.accepted.push(took),
            Ok(429) => seen.refused.push(took),
            _ => seen.failed += 1,
        }
        status.is_ok()
    }
}

struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    async fn call(&mut self, request: &[u8]) -> std::io::Result<u16> {
        let (first, rest) = request.split_at(FIRST_WRITE.min(request.len()));
        self.stream.write_all(first).await?;
        self.stream.flush().await?;
        self.stream.write_all(rest).await?;
        self.stream.flush().await?;
        let mut length = 0;
        loop {
            let n = self.stream.read(&mut self.buffer[length..]).await?;
            if n == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            length += n;
            let answer = &self.buffer[..length];
            let Some(head) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&answer[..head]).map_err(std::io::Error::other)?;
            let body = text
                .lines()
                .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:").map(|v| v.trim().parse::<usize>()))
                .and_then(Result::ok)
                .ok_or(std::io::ErrorKind::InvalidData)?;
            if length >= head + 4 + body {
                return text[9..12].parse().map_err(std::io::Error::other);
            }
        }
    }
}

fn connector(ca: &str) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}
