//! Waiting for something to become true, with a deadline and a reason.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// How often a condition is looked at. Short against everything that is waited for here (an API
/// server notices a new webhook configuration after 5 to 100 ms), long against one request (2 ms).
const POLL: Duration = Duration::from_millis(15);

/// Asks `probe` until it answers `Ok`, at most for `limit`. An `Err` is the reason why not yet: the
/// last one is in the error. A probe that hangs is cut off by the same deadline.
pub async fn wait_until<T, F, W>(limit: Duration, what: &str, mut probe: F) -> Result<T>
where
    F: FnMut() -> W,
    W: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + limit;
    let mut last = "it was never answered".to_owned();
    loop {
        match tokio::time::timeout_at(deadline, probe()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(reason)) => last = reason,
            Err(_) => bail!("{what}: not within {limit:?}; last seen: {last}"),
        }
        if Instant::now() + POLL >= deadline {
            bail!("{what}: not within {limit:?}; last seen: {last}");
        }
        sleep(POLL).await;
    }
}
