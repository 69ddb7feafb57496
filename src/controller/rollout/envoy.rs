//! What a gateway's own Envoy says of itself: its statistics, on the port that every Istio proxy serves them on.

use std::net::IpAddr;
use std::time::Duration;

use crate::controller::ask::{Ask, AskError, get};
use crate::rollout::seen::Stats;
use crate::rollout::verify;

/// `prometheus` in the proxy's bootstrap: Envoy itself, plain HTTP, nobody is asked who they are.
pub const PORT: u16 = 15090;

const PATIENCE: Duration = Duration::from_secs(2);

/// Of what was asked for alone. Anything longer is not that.
const MOST_BYTES: usize = 256 << 10;
/// Everything that a busy gateway has: a few hundred series of each pair of services.
const MOST_BYTES_WHOLE: usize = 64 << 20;

/// By Envoy's own names, of which its `filter` is an expression; percent-encoded.
const WANTED: &str = "/stats/prometheus?filter=%5E%28server%5C.%28state%7Ctotal_connections%29%7Clistener_manager%5C.%28lds%5C.\
    update_%28success%7Crejected%29%7Ctotal_listeners_%28active%7Cwarming%29%29%7Ccluster_manager%5C.cds%5C.update_%28success%7Crejected%29%29%24";

const WHOLE: &str = "/stats/prometheus";

/// Asks the Envoy at this address. A gateway has a series for each pair of services that talk through it, so only what is needed is
/// asked for, and everything where that was not understood.
///
/// # Errors
/// It does not answer, or not with statistics.
pub async fn stats(ip: IpAddr) -> Result<Stats, AskError> {
    let asked = |path: &'static str, most_bytes| async move {
        let host = ip.to_string();
        let ask = Ask { to: (ip, PORT).into(), host: &host, path, tls: false, most_bytes, token: None };
        let said = get(&ask, PATIENCE).await?;
        if said.status != 200 {
            return Err(AskError::Unusable(format!("HTTP {}", said.status)));
        }
        let read = verify::stats(&String::from_utf8_lossy(&said.body));
        read.ok_or_else(|| AskError::Unusable("no statistics of an Envoy".to_owned()))
    };
    match asked(WANTED, MOST_BYTES).await {
        Err(AskError::Unusable(_)) => asked(WHOLE, MOST_BYTES_WHOLE).await,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_what_is_read() {
        let decoded = WANTED.replace("%5E", "^").replace("%28", "(").replace("%29", ")").replace("%7C", "|");
        let decoded = decoded.replace("%5C.", "_").replace("%24", "$");
        let names = "^(server_(state|total_connections)|listener_manager_(lds_update_(success|rejected)|total_listeners_(active|warming))|cluster_manager_cds_update_(success|rejected))$";
        assert_eq!(decoded, format!("/stats/prometheus?filter={names}"));
    }
}
