//! How long the API server will wait, from `?timeout=`.
//!
//! The API server rounds its remaining time up to whole seconds, so what it says may be almost a
//! second too much. A review takes microseconds: what the deadline really bounds is waiting for
//! a body and for a worker.

use std::time::Duration;

/// The API server's rounding.
const ROUNDING: Duration = Duration::from_secs(1);
/// For the way back and for a busy machine.
const MARGIN: Duration = Duration::from_millis(50);

/// The time for an answer, given the query string of the request. What cannot be read counts as
/// `default`: a strange parameter is no reason to fail a user's write.
pub fn budget(query: Option<&str>, default: Duration) -> Duration {
    let said = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix("timeout="))
        .and_then(go_duration)
        .unwrap_or(default);
    // One second may mean anything from 1 ms to 1 s; a quarter is a guess that still leaves a
    // review a thousand times what it needs.
    said.saturating_sub(ROUNDING + MARGIN).max(said / 4)
}

/// Reads a Go duration such as `10s`, `1m30s`, `500ms`, `1.5s`. The API server's own value is
/// always whole seconds.
fn go_duration(text: &str) -> Option<Duration> {
    // jiff reads Go's notation but for the micro sign, which a query string would escape anyway.
    let read: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(read).ok().filter(|d| !d.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Duration = Duration::from_secs(10);

    #[test]
    fn leaves_out_rounding_and_margin() {
        for (query, millis) in [
            ("timeout=10s", 8950),
            ("timeout=30s", 28_950),
            ("timeout=2s", 950),
            ("timeout=1s", 250),
            ("timeout=1m30s", 88_950),
            ("timeout=1.5s", 450),
            ("timeout=500ms", 125),
            ("timeout=100ms", 25),
            ("a=b&timeout=3s&c", 1950),
        ] {
            assert_eq!(budget(Some(query), DEFAULT), Duration::from_millis(millis), "{query}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_the_default() {
        for query in [
            None,
            Some(""),
            Some("timeout"),
            Some("timeout="),
            Some("timeout=abc"),
            Some("timeout=-5s"),
            Some("timeout=0s"),
            Some("timeout=10"),
            Some("timeout=99999999999999999999s"),
            Some("xtimeout=2s"),
        ] {
            assert_eq!(budget(query, DEFAULT), Duration::from_millis(8950), "{query:?}");
        }
    }
}
