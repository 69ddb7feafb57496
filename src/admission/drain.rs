//! Ending without losing a request.
//!
//! In the first phase nothing is refused: readiness is gone, endpoints go away node by node, and
//! every answer says `Connection: close` so that the API server dials somebody else next time. In
//! the second nothing new is accepted, what runs is finished, and only then silent connections
//! are closed: a pooled connection that the API server uses in that very moment is the one loss
//! that HTTP/1.1 cannot rule out, so it gets as little opportunity as possible.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::connections::Table;
use super::settings::Settings;

/// How often the second phase looks whether requests still run.
const LOOK: Duration = Duration::from_millis(20);

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut at the hard stop. Anything but 0 lost something.
    pub cut: usize,
}

/// Waits for SIGTERM (the kubelet) or SIGINT (a terminal) and says which came. Fails only if the
/// process may not have signal handlers.
pub async fn signalled() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// The second phase; the listener is closed already.
pub(super) async fn finish(table: &Arc<Table>, tasks: &mut JoinSet<()>, settings: &Settings) -> Drained {
    let hard = Instant::now() + settings.hard_stop;
    while table.busy() > 0 && Instant::now() + LOOK < hard {
        tokio::time::sleep(LOOK).await;
    }
    table.drain();
    let ended = timeout_at(hard, async { while tasks.join_next().await.is_some() {} });
    if ended.await.is_ok() {
        return Drained { cut: 0 };
    }
    let cut = table.len();
    tracing::warn!(cut, "drain took too long, connections are cut");
    tasks.shutdown().await;
    Drained { cut }
}

/// Connections that the kernel completed and nobody accepted would be reset by closing the
/// listener; there are at most as many as the backlog holds.
pub(super) fn backlog(listener: &TcpListener) -> Vec<tokio::net::TcpStream> {
    use futures::FutureExt as _;
    let mut waiting = Vec::new();
    while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
        waiting.push(stream);
    }
    waiting
}
