//! The control plane that most tests share: started by the first that asks, ended by `main`.
//!
//! A test that restarts or stops something starts its own.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use tokio::sync::Mutex;

use crate::harness::{ControlPlane, Options};

/// A failed start is kept as well: a second attempt would take a minute to fail again.
static SHARED: Mutex<Option<Result<Arc<ControlPlane>, String>>> = Mutex::const_new(None);

pub async fn shared() -> Result<Arc<ControlPlane>> {
    let mut shared = SHARED.lock().await;
    if shared.is_none() {
        let started = ControlPlane::start(Options::default()).await;
        *shared = Some(started.map(Arc::new).map_err(|error| format!("{error:#}")));
    }
    match shared.as_ref() {
        Some(Ok(plane)) => Ok(Arc::clone(plane)),
        Some(Err(error)) => Err(anyhow!("the shared control plane did not start: {error}")),
        None => unreachable!("it was set above"),
    }
}

/// Ends it. No test runs any more.
pub fn end_shared() {
    drop(SHARED.blocking_lock().take());
}
