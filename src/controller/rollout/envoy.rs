//! What a gateway's own Envoy says of itself: its statistics, on the port that every Istio proxy serves them on.

use std::net::IpAddr;
use std::time::Duration;

use super::wire::{Ask, AskError, get};
use crate::rollout::seen::Stats;

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
        let ask = Ask { to: (ip, PORT).into(), host: &host, path, tls: false, most_bytes };
        let said = get(&ask, PATIENCE).await?;
        if said.status != 200 {
            return Err(AskError::Unusable(format!("HTTP {}", said.status)));
        }
        let read = read(&String::from_utf8_lossy(&said.body));
        read.ok_or_else(|| AskError::Unusable("no statistics of an Envoy".to_owned()))
    };
    match asked(WANTED, MOST_BYTES).await {
        Err(AskError::Unusable(_)) => asked(WHOLE, MOST_BYTES_WHOLE).await,
        other => other,
    }
}

/// The series that verification and draining need, out of a page in the text format of Prometheus; `None` where any is missing: a page
/// that says nothing of connections must not be taken for one that says there are none.
pub fn read(text: &str) -> Option<Stats> {
    let of = |name: &str| {
        let mut found = None;
        for line in text.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            let value = match rest.as_bytes().first() {
                Some(b'{') => rest.split_once('}').map(|(_, value)| value),
                Some(b' ' | b'\t') => Some(rest),
                _ => None,
            };
            // A timestamp may follow.
            let Some(value) = value.and_then(|v| v.split_whitespace().next()) else { continue };
            let value: f64 = value.parse().ok().filter(|v: &f64| v.is_finite() && *v >= 0.0)?;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts
            let value = value as u64;
            found = Some(found.unwrap_or(0) + value);
        }
        found
    };
    Some(Stats {
        state: of("envoy_server_state")?,
        lds_success: of("envoy_listener_manager_lds_update_success")?,
        lds_rejected: of("envoy_listener_manager_lds_update_rejected")?,
        cds_success: of("envoy_cluster_manager_cds_update_success")?,
        cds_rejected: of("envoy_cluster_manager_cds_update_rejected")?,
        listeners_active: of("envoy_listener_manager_total_listeners_active")?,
        listeners_warming: of("envoy_listener_manager_total_listeners_warming")?,
        connections: of("envoy_server_total_connections")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Envoy 1.40 writes it.
    const PAGE: &str = "# TYPE envoy_cluster_manager_cds_update_rejected counter
envoy_cluster_manager_cds_update_rejected{} 0
# TYPE envoy_cluster_manager_cds_update_success counter
envoy_cluster_manager_cds_update_success{} 3
envoy_listener_manager_lds_update_rejected{} 2
envoy_listener_manager_lds_update_success{} 1
envoy_listener_manager_lds_update_success_of_something_else{} 99
envoy_listener_manager_total_listeners_active{} 3
envoy_listener_manager_total_listeners_warming{} 0
envoy_server_state{} 0
envoy_server_total_connections{} 4.4e1
";

    #[test]
    fn a_page_of_envoy_is_read() {
        let expected = Stats {
            state: 0,
            lds_success: 1,
            lds_rejected: 2,
            cds_success: 3,
            cds_rejected: 0,
            listeners_active: 3,
            listeners_warming: 0,
            connections: 44,
        };
        assert_eq!(read(PAGE), Some(expected.clone()));
        assert_eq!(read(&PAGE.replace("{}", "")), Some(expected), "without labels, as other versions write it");
    }

    #[test]
    fn a_page_that_lacks_something_says_nothing() {
        assert_eq!(read(""), None);
        for series in ["envoy_server_total_connections", "envoy_server_state", "envoy_listener_manager_lds_update_rejected"] {
            let less: String = PAGE.lines().filter(|l| !l.starts_with(series)).map(|l| format!("{l}\n")).collect();
            assert_eq!(read(&less), None, "{series}");
        }
        assert_eq!(read(&PAGE.replace("4.4e1", "NaN")), None);
    }

    #[test]
    fn the_question_names_what_is_read() {
        let decoded = WANTED.replace("%5E", "^").replace("%28", "(").replace("%29", ")").replace("%7C", "|");
        let decoded = decoded.replace("%5C.", "_").replace("%24", "$");
        let names = "^(server_(state|total_connections)|listener_manager_(lds_update_(success|rejected)|total_listeners_(active|warming))|cluster_manager_cds_update_(success|rejected))$";
        assert_eq!(decoded, format!("/stats/prometheus?filter={names}"));
    }
}
