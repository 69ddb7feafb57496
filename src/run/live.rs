//! A live cluster's state, watched.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::admission::webhook::Shared;
use crate::telemetry::{Health, Metrics};

/// Starts the watches; readiness follows them.
///
/// # Errors
/// A cluster that cannot be found at all.
pub async fn start(
    _kubeconfig: Option<PathBuf>,
    _context: Option<String>,
    _shared: &Arc<Shared>,
    _metrics: &Arc<Metrics>,
    _health: &Arc<Health>,
    _stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    anyhow::bail!("not merged yet")
}
