//! One connection from its first byte of HTTP to its last: hyper drives the protocol, this
//! module its timeouts and its end.
//!
//! hyper's own graceful shutdown is not used. It closes an idle connection without a last look
//! at the socket, and over TLS it may drop an answer that is not flushed; here a connection is
//! closed only after a read has found nothing, and the transport is flushed, told `close_notify`
//! and shut down in that order.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::Unread;
use super::answer;
use super::connections::{Activity, Order, Phase};
use super::settings::Settings;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{Closed, Path};

/// Largest head, and hyper's read and write buffers. The API server's heads are under 1 kB.
const MAX_BUFFER: usize = 64 << 10;
/// What is thrown away at most while lingering: one body of the default limit, and some.
const MAX_LINGER: u64 = 16 << 20;
/// `close_notify` and FIN go into an empty socket buffer; a peer that blocks even that is gone.
const MAX_SHUTDOWN: Duration = Duration::from_secs(1);

/// What every connection of a port shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) router: Router,
    /// Set when the drain begins: every answer says `Connection: close` from then on.
    pub(super) closing: AtomicBool,
    pub(super) metrics: Arc<Metrics>,
}

/// Serves HTTP/1.1 on an established transport until the connection ends, and says why it did.
pub(super) async fn serve<IO>(io: IO, activity: &Arc<Activity>, shared: &Arc<Shared>) -> Closed
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let settings = &shared.settings;
    activity.enter(Phase::Idle);
    let watched = Watched { io, activity: Arc::clone(activity) };
    let service = Observed {
        router: TowerToHyperService::new(shared.router.clone()),
        activity: Arc::clone(activity),
        shared: Arc::clone(shared),
    };
    let mut conn = http1::Builder::new()
        // It would also run while a connection is idle; see `connections`.
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(watched), service);

    let mut watchdog = Watchdog::new(settings);
    let reason = poll_fn(|cx| {
        activity.register(cx.waker());
        // First what the socket has, then the clock: a request that is here is not too late.
        if let Poll::Ready(ended) = conn.poll_without_shutdown(cx) {
            return Poll::Ready(why(&ended, activity));
        }
        watchdog.poll(cx, activity, settings)
    })
    .await;

    activity.enter(Phase::Closing);
    let io = conn.into_parts().io.into_inner().io;
    close(io, reason, activity, settings).await;
    reason
}

/// Drives a TLS handshake within its time.
pub(super) async fn handshake<T>(
    accept: impl Future<Output = io::Result<T>>,
    activity: &Activity,
    settings: &Settings,
) -> Result<T, Closed> {
    let mut accept = pin!(accept);
    let mut watchdog = Watchdog::new(settings);
    poll_fn(|cx| {
        activity.register(cx.waker());
        if let Poll::Ready(done) = accept.as_mut().poll(cx) {
            return Poll::Ready(done.map_err(|error| {
                tracing::debug!(%error, "TLS handshake failed");
                Closed::HandshakeFailed
            }));
        }
        watchdog.poll(cx, activity, settings).map(Err)
    })
    .await
}

/// One timer for all of a connection's deadlines.
struct Watchdog {
    timer: Pin<Box<Sleep>>,
}

impl Watchdog {
    fn new(settings: &Settings) -> Watchdog {
        Watchdog { timer: Box::pin(sleep(settings.idle_timeout)) }
    }

    /// Ready with the reason when the connection's deadline has passed.
    fn poll(&mut self, cx: &mut Context<'_>, activity: &Activity, settings: &Settings) -> Poll<Closed> {
        loop {
            let Some((due, reason)) = activity.deadline(settings) else {
                return Poll::Pending;
            };
            if due <= Instant::now() {
                return Poll::Ready(reason);
            }
            // Moving a timer costs more than a request's changes of phase, so one that is set
            // too early stays and is moved when it fires.
            if self.timer.is_elapsed() || self.timer.deadline() > due {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

fn why(ended: &hyper::Result<()>, activity: &Activity) -> Closed {
    match ended {
        Ok(()) if activity.has_said_close() => Closed::AfterAnswer,
        Ok(()) => Closed::ByClient,
        Err(error) if error.is_incomplete_message() || error.is_canceled() => Closed::ByClient,
        Err(error) if error.is_parse() => Closed::ProtocolError,
        Err(_) => Closed::IoError,
    }
}

async fn close<IO>(mut io: IO, reason: Closed, activity: &Activity, settings: &Settings)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // A client that does not take its answer would not take the rest either.
    if matches!(reason, Closed::SlowRead | Closed::IoError) {
        return;
    }
    let shut = tokio::time::timeout(MAX_SHUTDOWN, async {
        io.flush().await?;
        io.shutdown().await
    });
    if !matches!(shut.await, Ok(Ok(()))) {
        return;
    }
    if activity.is_unread() || reason == Closed::ProtocolError {
        let mut rest = io.take(MAX_LINGER);
        // However this ends, the socket is dropped next.
        let _ = tokio::time::timeout(settings.linger, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    }
}

/// The router, with the connection's state kept around each call.
struct Observed {
    router: TowerToHyperService<Router>,
    activity: Arc<Activity>,
    shared: Arc<Shared>,
}

impl Service<Request<Incoming>> for Observed {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.enter(Phase::Busy);
        let activity = Arc::clone(&self.activity);
        let shared = Arc::clone(&self.shared);
        let path = Path::of(request.uri().path());
        let answer = (!activity.refused).then(|| self.router.call(request));
        Box::pin(async move {
            let mut response = match answer {
                Some(answer) => answer.await?,
                None => answer::too_many_connections(&shared.metrics, path),
            };
            if response.extensions().get::<Unread>().is_some() {
                activity.left_unread();
            }
            if activity.is_unread()
                || activity.refused
                || activity.is_old()
                || activity.order() != Order::Serve
                || shared.closing.load(Ordering::Acquire)
            {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                activity.said_close();
            }
            activity.enter(Phase::Answered);
            Ok(response)
        })
    }
}

/// A transport that tells what goes through it.
struct Watched<IO> {
    io: IO,
    activity: Arc<Activity>,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.bytes_arrived();
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.activity.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
