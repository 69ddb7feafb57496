//! How far a gateway pod is proven to be of the revision that it should be of, and to serve.
//!
//! Readiness proves neither: a pod stays ready whose listeners are rejected. What was not asked is unknown, and never taken for good; only
//! where nothing at all could be asked, `allowDegradeTo` may be enough.

use jiff::Timestamp;

use super::seen::{ControlPlane, Evidence, Pod, Service, Stats, Synced, Verified};
use crate::api::GatewayRolloutSpec;
use crate::api::gateway_rollout::Level;
use crate::model::version::{bare, tag};

/// What pods are measured by.
#[derive(Clone, Copy, Debug)]
pub struct Measure<'a> {
    pub spec: &'a GatewayRolloutSpec,
    /// The new revision's istiod.
    pub to: &'a ControlPlane,
    /// What sends to the pod.
    pub services: &'a [Service],
}

/// How far a pod was verified.
pub fn verify(pod: &Pod, evidence: Option<&Evidence>, measure: Measure) -> Verified {
    let wanted = measure.spec.verification.level;
    // Rejected listeners count at every level: whoever asks for less asks to know less, not to be lied to.
    if let Some(why) = evidence.and_then(rejected) {
        return Verified::No(format!("pod {}: {why}", pod.name));
    }
    let not = |why: String| Verified::NotYet(format!("pod {}: {why}", pod.name));
    let mut reached = match label(pod, measure) {
        Ok(()) => Level::Label,
        Err(why) => return not(why),
    };
    for (level, check) in
        [(Level::Injected, injected as fn(&Pod, Measure) -> Result<(), String>), (Level::Discovery, discovery)]
    {
        if wanted < level {
            return Verified::Yes(reached);
        }
        match check(pod, measure) {
            Ok(()) => reached = level,
            Err(why) => return not(why),
        }
    }
    if wanted < Level::XdsConnected {
        return Verified::Yes(reached);
    }
    match connected(evidence, measure) {
        Known::Yes => Verified::Yes(Level::XdsConnected),
        Known::No(why) => not(why),
        Known::Unknown(_) if measure.spec.verification.allow_degrade_to <= reached => Verified::Yes(reached),
        Known::Unknown(why) => not(why),
    }
}

enum Known {
    Yes,
    No(String),
    /// Nobody could be asked.
    Unknown(String),
}

/// Its Envoy rejects what istiod sends, as far as is known.
fn rejected(evidence: &Evidence) -> Option<String> {
    let now = evidence.stats.as_ref().or(evidence.rejection.as_ref())?;
    let listeners = (now.lds_rejected, now.lds_success);
    let clusters = (now.cds_rejected, now.cds_success);
    let at = evidence.rejection.as_ref();
    let at_listeners = at.map(|r| (r.lds_rejected, r.lds_success));
    let at_clusters = at.map(|r| (r.cds_rejected, r.cds_success));
    for (what, now, at) in [("listeners", listeners, at_listeners), ("clusters", clusters, at_clusters)] {
        let (rejections, accepted) = now;
        // A rejection is over when something was accepted after it. Counters tell that only to whoever saw both.
        let over = at.is_some_and(|(was, before)| was == rejections && accepted > before);
        if rejections > 0 && !over {
            return Some(format!(
                "its Envoy rejected its {what} ({rejections} so far); `istioctl proxy-status` and istiod's log name the configuration"
            ));
        }
    }
    None
}

fn label(pod: &Pod, measure: Measure) -> Result<(), String> {
    let to = measure.spec.to_revision.as_str();
    match pod.revision.as_deref() {
        Some(revision) if revision == to => Ok(()),
        Some(other) => Err(format!("it is of revision {other}, not {to}")),
        None => Err("it names no revision".to_owned()),
    }
}

fn injected(pod: &Pod, measure: Measure) -> Result<(), String> {
    let (spec, image) = (measure.spec, &*pod.shows.image);
    if image == "auto" {
        return Err("its image is still \"auto\": no injector saw it".to_owned());
    }
    if let Some(by) = &pod.shows.injected_by
        && **by != *spec.to_revision
    {
        return Err(format!("it was injected by revision {by}, not {}", spec.to_revision));
    }
    wrong_version(image, spec).map_or(Ok(()), Err)
}

/// What is wrong with the version of a proxy's image, where the spec asks for one.
pub fn wrong_version(image: &str, spec: &GatewayRolloutSpec) -> Option<String> {
    let (expected, found) = (spec.to_version.as_deref()?, bare(tag(image)?));
    (found != bare(expected)).then(|| format!("its proxy is {found}, not {expected}"))
}

/// Whose istiod a host is: `istiod-<revision>.<namespace>`, with more behind it; the revision `default` has no name in it.
fn is_host_of(host: &str, measure: Measure) -> bool {
    let host = host.split(':').next().unwrap_or(host);
    let mut parts = host.split('.');
    let service = parts.next().unwrap_or("");
    let revision = measure.spec.to_revision.as_str();
    let named = service.strip_prefix("istiod-").map_or(service == "istiod" && revision == "default", |r| r == revision);
    let namespace = parts.next().is_none_or(|ns| measure.to.namespace.is_empty() || ns == &*measure.to.namespace);
    named && namespace
}

fn discovery(pod: &Pod, measure: Measure) -> Result<(), String> {
    let of = |what: &str, host: &str| match is_host_of(host, measure) {
        true => Ok(()),
        false => Err(format!("it gets its {what} from {host}, not from revision {}", measure.spec.to_revision)),
    };
    match &pod.shows.discovery {
        Some(host) => of("configuration", host)?,
        None => return Err("it does not say where it gets its configuration from".to_owned()),
    }
    // Without a word about it, certificates come from where the configuration comes from.
    pod.shows.ca.as_ref().map_or(Ok(()), |host| of("certificates", host))
}

fn connected(evidence: Option<&Evidence>, measure: Measure) -> Known {
    // Nobody has asked, which is not that nobody could be asked.
    let Some(evidence) = evidence else { return Known::No("its Envoy was not asked yet".to_owned()) };
    if let Some(closed) = &evidence.closed_ports
        && let Some(port) = closed.iter().find(|port| measure.services.iter().any(|s| s.target_ports.contains(port)))
    {
        return Known::No(format!("nothing answers on its port {port}, to which a Service sends"));
    }
    match &evidence.synced {
        Some(Synced::Elsewhere) => {
            return Known::No(
                "it is connected to an istiod of the old revision, whatever it says of itself".to_owned(),
            );
        }
        Some(Synced::Waiting(why)) => {
            return Known::No(format!("istiod of {} says that {why}", measure.spec.to_revision));
        }
        Some(Synced::Acked) | None => {}
    }
    let Some(stats) = &evidence.stats else {
        // What istiod says of it is as good, if its ports answer.
        return match (&evidence.synced, &evidence.closed_ports) {
            (Some(Synced::Acked), Some(_)) => Known::Yes,
            _ => Known::Unknown("its statistics on port 15090 cannot be read".to_owned()),
        };
    };
    if stats.state != 0 {
        return Known::No("its Envoy is not live yet".to_owned());
    }
    if stats.lds_success == 0 || stats.cds_success == 0 {
        return Known::No("its Envoy has no configuration from istiod yet".to_owned());
    }
    if stats.listeners_warming > 0 {
        return Known::No(format!("{} of its listeners are still warming", stats.listeners_warming));
    }
    match evidence.closed_ports {
        Some(_) => Known::Yes,
        None => Known::No("nobody has tried its ports yet".to_owned()),
    }
}

impl Evidence {
    /// What was asked just now, with what it makes of what was known before: the reading before it, and the reading at which a
    /// rejection was last noticed. Whoever asks keeps one `Evidence` a pod, for as long as it runs.
    #[must_use]
    pub fn after(mut self, before: Option<&Evidence>) -> Evidence {
        let noticed = before.and_then(|b| b.rejection.clone());
        let Some(now) = &self.stats else {
            self.earlier = None;
            self.rejection = noticed;
            return self;
        };
        self.earlier = before.and_then(|b| b.stats.clone());
        let (listeners, clusters) = noticed.as_ref().map_or((0, 0), |was| (was.lds_rejected, was.cds_rejected));
        let grown = now.lds_rejected != listeners || now.cds_rejected != clusters;
        self.rejection = if grown { Some(now.clone()) } else { noticed };
        self
    }

    /// Connections beyond those of a pod that nothing is routed to; `None`: they could not be counted.
    pub fn open(&self, unrouted: u64) -> Option<u64> {
        self.stats.as_ref().map(|s| s.connections.saturating_sub(unrouted))
    }

    /// Nothing was open in this reading and in the one before it, both from this moment on.
    pub fn is_idle(&self, unrouted: u64, from: Timestamp) -> bool {
        let none = |stats: &Option<Stats>| stats.as_ref().is_some_and(|s| s.connections <= unrouted && s.at >= from);
        none(&self.stats) && none(&self.earlier)
    }
}

/// Reads a page of Envoy's `/stats/prometheus`, without the time, which is for whoever asked to say; `None` where a figure is missing: a page that says nothing of rejections or
/// connections must not be taken for one that says there are none.
pub fn stats(page: &str) -> Option<Stats> {
    let of = |name: &str| {
        let mut found = None;
        for line in page.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            let rest = match rest.as_bytes().first() {
                Some(b'{') => rest.split_once('}').map(|(_, value)| value),
                Some(b' ' | b'\t') => Some(rest),
                _ => None,
            };
            // A timestamp may follow.
            let Some(value) = rest.and_then(|r| r.split_whitespace().next()) else { continue };
            found = Some(found.unwrap_or(0_u64).saturating_add(count(value)?));
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
        at: Timestamp::default(),
    })
}

/// A count, as a whole number or as a float that is one.
fn count(text: &str) -> Option<u64> {
    if let Ok(whole) = text.parse() {
        return Some(whole);
    }
    let value: f64 = text.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // looked at right before
    (value.is_finite() && (0.0..9e15).contains(&value)).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::rollout::seen::{Of, Shows, Version};

    fn spec(level: &str, degrade: &str) -> GatewayRolloutSpec {
        serde_json::from_value(json!({
            "target": {"deployment": {"name": "gw"}},
            "toRevision": "1-24",
            "toVersion": "1.24.2",
            "verification": {"level": level, "allowDegradeTo": degrade},
        }))
        .unwrap()
    }

    fn pod() -> Pod {
        Pod {
            name: "gw-1-24-abc".into(),
            held: Version::default(),
            of: Of::Canary,
            revision: Some("1-24".into()),
            template_hash: None,
            labels: BTreeMap::new(),
            created: jiff::Timestamp::UNIX_EPOCH,
            ready: true,
            containers_ready: true,
            ready_since: None,
            deleting: false,
            trouble: None,
            node: "n".into(),
            ip: None,
            apart_since: None,
            counted: true,
            deletion_cost: None,
            shows: Shows {
                image: "docker.io/istio/proxyv2:1.24.2-distroless".into(),
                injected_by: Some("1-24".into()),
                discovery: Some("istiod-1-24.istio-system.svc:15012".into()),
                ca: Some("istiod-1-24.istio-system.svc:15012".into()),
            },
        }
    }

    fn stats() -> Stats {
        Stats { lds_success: 3, cds_success: 3, listeners_active: 3, ..Stats::default() }
    }

    fn evidence(stats: Option<Stats>) -> Evidence {
        Evidence { stats, closed_ports: Some(Vec::new()), ..Evidence::default() }
    }

    fn judged(pod: &Pod, evidence: Option<&Evidence>, spec: &GatewayRolloutSpec) -> Verified {
        let to =
            ControlPlane { installed: true, ready: true, namespace: "istio-system".into(), ..ControlPlane::default() };
        let service = Service {
            name: "gw".into(),
            held: Version::default(),
            selector: BTreeMap::new(),
            local: false,
            target_ports: vec![8080],
            ingress: Vec::new(),
            endpoints: Vec::new(),
            pruned_with: None,
        };
        verify(pod, evidence, Measure { spec, to: &to, services: &[service] })
    }

    /// What a pod lacks, in words.
    fn lacks(change: impl FnOnce(&mut Pod, &mut Evidence), level: &str) -> String {
        let (mut pod, mut evidence) = (pod(), evidence(Some(stats())));
        change(&mut pod, &mut evidence);
        match judged(&pod, Some(&evidence), &spec(level, level)) {
            Verified::NotYet(why) | Verified::No(why) => why,
            Verified::Yes(level) => format!("passes as {level:?}"),
        }
    }

    #[test]
    fn figures_beyond_counting_are_as_many_as_can_be_counted() {
        let names = [
            "server_state",
            "listener_manager_lds_update_success",
            "listener_manager_lds_update_rejected",
            "cluster_manager_cds_update_success",
            "cluster_manager_cds_update_rejected",
            "listener_manager_total_listeners_active",
            "listener_manager_total_listeners_warming",
            "server_total_connections",
        ];
        let line = |name: &&str| format!("envoy_{name}{{a=\"1\"}} 18446744073709551615\nenvoy_{name}{{a=\"2\"}} 1\n");
        let page: String = names.iter().map(line).collect();
        assert_eq!(super::stats(&page).map(|s| s.connections), Some(u64::MAX));
    }

    #[test]
    fn each_level_asks_for_what_it_says() {
        let whole = spec("XdsConnected", "Discovery");
        assert_eq!(judged(&pod(), Some(&evidence(Some(stats()))), &whole), Verified::Yes(Level::XdsConnected));
        for (level, expected) in
            [("Label", Level::Label), ("Injected", Level::Injected), ("Discovery", Level::Discovery)]
        {
            assert_eq!(judged(&pod(), None, &spec(level, "Label")), Verified::Yes(expected), "{level}");
        }
        let lacks = |change: fn(&mut Pod), level: &str| lacks(|pod, _| change(pod), level);
        assert!(lacks(|p| p.revision = Some("1-23".into()), "Label").contains("of revision 1-23"));
        assert!(lacks(|p| p.revision = None, "Label").contains("names no revision"));
        assert!(lacks(|p| p.shows.image = "auto".into(), "Injected").contains("\"auto\""));
        assert!(lacks(|p| p.shows.injected_by = Some("1-23".into()), "Injected").contains("injected by revision 1-23"));
        assert!(lacks(|p| p.shows.image = "istio/proxyv2:1.23.5".into(), "Injected").contains("1.23.5, not 1.24.2"));
        assert!(lacks(|p| p.shows.image = "registry:5000/proxyv2@sha256:ab".into(), "Injected").contains("passes"));
        assert!(lacks(|p| p.shows.discovery = None, "Discovery").contains("does not say"));
        assert!(
            lacks(|p| p.shows.discovery = Some("istiod.istio-system.svc:15012".into()), "Discovery")
                .contains("istiod.istio")
        );
        assert!(
            lacks(|p| p.shows.ca = Some("istiod-1-23.istio-system.svc".into()), "Discovery").contains("certificates")
        );
        assert!(lacks(|p| p.shows.ca = Some("istiod-1-24.other.svc".into()), "Discovery").contains("certificates"));
        assert!(lacks(|p| p.shows.ca = None, "Discovery").contains("passes"));
        assert!(lacks(|p| p.shows.image = "auto".into(), "Label").contains("passes as Label"));
    }

    #[test]
    fn a_gateway_is_connected_when_its_envoy_says_so_and_its_ports_answer() {
        let lacks = |change: fn(&mut Evidence)| lacks(|_, e| change(e), "XdsConnected");
        assert!(lacks(|e| e.stats.as_mut().unwrap().lds_success = 0).contains("no configuration"));
        assert!(lacks(|e| e.stats.as_mut().unwrap().cds_success = 0).contains("no configuration"));
        assert!(lacks(|e| e.stats.as_mut().unwrap().listeners_warming = 1).contains("warming"));
        assert!(lacks(|e| e.stats.as_mut().unwrap().state = 1).contains("not live"));
        assert!(lacks(|e| e.closed_ports = Some(vec![8080])).contains("port 8080"));
        assert!(lacks(|e| e.closed_ports = Some(vec![9999])).contains("passes"), "no Service sends there");
        assert!(lacks(|e| e.closed_ports = None).contains("tried its ports"));
        assert!(
            lacks(|e| e.synced = Some(Synced::Waiting("it does not answer".into())))
                .contains("istiod of 1-24 says that it does")
        );
    }

    #[test]
    fn where_nothing_can_be_asked_less_may_be_enough_and_never_more_than_was_found() {
        let blind = evidence(None);
        let degraded = spec("XdsConnected", "Discovery");
        assert_eq!(judged(&pod(), Some(&blind), &degraded), Verified::Yes(Level::Discovery));
        assert!(matches!(judged(&pod(), None, &degraded), Verified::NotYet(_)), "nobody has asked yet");
        assert!(matches!(judged(&pod(), Some(&blind), &spec("XdsConnected", "XdsConnected")), Verified::NotYet(_)));
        let mut silent = pod();
        silent.shows.discovery = None;
        assert!(matches!(judged(&silent, Some(&blind), &degraded), Verified::NotYet(_)), "less was not found either");
        // What istiod says is as good; a closed port is known, whoever else is silent.
        let known = Evidence { synced: Some(Synced::Acked), ..blind.clone() };
        assert_eq!(
            judged(&pod(), Some(&known), &spec("XdsConnected", "XdsConnected")),
            Verified::Yes(Level::XdsConnected)
        );
        let closed = Evidence { closed_ports: Some(vec![8080]), ..blind };
        assert!(matches!(judged(&pod(), Some(&closed), &degraded), Verified::NotYet(_)));
    }

    #[test]
    fn rejected_listeners_never_count_however_ready_and_at_whatever_level() {
        let rejecting = Stats { lds_rejected: 2, ..stats() };
        for level in ["Label", "Injected", "Discovery", "XdsConnected"] {
            let found = judged(&pod(), Some(&evidence(Some(rejecting.clone()))), &spec(level, "Label"));
            assert!(
                matches!(&found, Verified::No(why) if why.contains("rejected its listeners (2 so far)")),
                "{level}: {found:?}"
            );
        }
        let clusters = Stats { cds_rejected: 1, ..stats() };
        assert!(matches!(judged(&pod(), Some(&evidence(Some(clusters))), &spec("Label", "Label")), Verified::No(_)));
        // Silence does not undo what was noticed.
        let before = evidence(Some(rejecting)).after(None);
        let silent = evidence(None).after(Some(&before));
        assert!(matches!(judged(&pod(), Some(&silent), &spec("XdsConnected", "Discovery")), Verified::No(_)));
    }

    #[test]
    fn a_rejection_is_over_when_something_was_accepted_after_it() {
        let read = |rejected: u64, accepted: u64, before: Option<&Evidence>| {
            evidence(Some(Stats { lds_rejected: rejected, lds_success: accepted, ..stats() })).after(before)
        };
        let is_fine =
            |e: &Evidence| matches!(judged(&pod(), Some(e), &spec("XdsConnected", "Label")), Verified::Yes(_));
        let first = read(1, 5, None);
        assert!(!is_fine(&first), "whether 5 came before 1 nobody knows");
        let same = read(1, 5, Some(&first));
        assert!(!is_fine(&same));
        let mended = read(1, 6, Some(&same));
        assert!(is_fine(&mended));
        let still = read(1, 6, Some(&mended));
        assert!(is_fine(&still), "and stays so");
        let again = read(2, 7, Some(&still));
        assert!(!is_fine(&again));
        // Envoy was started anew: its counters begin anew.
        assert!(is_fine(&read(0, 1, Some(&again))));
    }

    #[test]
    fn two_readings_make_a_pod_idle() {
        let open = |n: u64| Some(Stats { connections: n, ..stats() });
        let is_idle = |e: &Evidence, unrouted: u64| e.is_idle(unrouted, Timestamp::default());
        let first = evidence(open(1)).after(None);
        assert!(!is_idle(&first, 1), "one reading");
        let second = evidence(open(1)).after(Some(&first));
        assert!(is_idle(&second, 1) && !is_idle(&second, 0));
        assert!(!is_idle(&evidence(open(2)).after(Some(&second)), 1));
        let silent = evidence(None).after(Some(&second));
        assert!(!is_idle(&silent, 1));
        assert!(!is_idle(&evidence(open(0)).after(Some(&silent)), 1), "after silence it counts anew");
        assert_eq!((second.open(1), evidence(open(5)).open(2), evidence(None).open(0)), (Some(0), Some(3), None));
    }

    #[test]
    fn readings_of_before_a_pod_was_let_be_say_nothing_of_what_it_has() {
        let read = |second: i64| Some(Stats { at: Timestamp::from_second(second).unwrap(), ..stats() });
        let from = Timestamp::from_second(10).unwrap();
        let at = |earlier: i64, now: i64| evidence(read(now)).after(Some(&evidence(read(earlier)))).is_idle(0, from);
        assert!(!at(1, 6) && !at(6, 11), "Envoy may have counted before the pod had any");
        assert!(at(10, 15));
    }

    /// As Envoy 1.40 writes it, shortened.
    const PAGE: &str = "# TYPE envoy_cluster_manager_cds_update_rejected counter
envoy_cluster_manager_cds_update_rejected{} 0
envoy_cluster_manager_cds_update_success{} 3
envoy_cluster_manager_cds_update_time{} 1795225714961
envoy_listener_manager_lds_update_duration_sum{} 0
envoy_listener_manager_lds_update_rejected{} 2
envoy_listener_manager_lds_update_success{} 1
envoy_listener_manager_total_listeners_active{} 3
envoy_listener_manager_total_listeners_draining{} 9
envoy_listener_manager_total_listeners_warming{} 0
envoy_server_initialization_time_ms_sum{} 76.496732026143789084926538635045
envoy_server_state{} 0
envoy_server_total_connections{} 44
envoy_server_watchdog_miss{thread_name=\"worker_0\"} 7
";

    #[test]
    fn a_page_of_an_envoy_is_read_and_one_that_lacks_something_says_nothing() {
        let expected = Stats {
            state: 0,
            lds_success: 1,
            lds_rejected: 2,
            cds_success: 3,
            cds_rejected: 0,
            listeners_active: 3,
            listeners_warming: 0,
            connections: 44,
            at: Timestamp::default(),
        };
        assert_eq!(super::stats(PAGE), Some(expected.clone()));
        assert_eq!(super::stats(&PAGE.replace("{}", "")), Some(expected.clone()), "without labels");
        assert_eq!(super::stats(&PAGE.replace("{} 44", "{} 4.4e1 1795225714961")), Some(expected));
        for series in
            ["envoy_server_state", "envoy_server_total_connections", "envoy_listener_manager_lds_update_rejected"]
        {
            let less: String = PAGE.lines().filter(|l| !l.starts_with(series)).map(|l| format!("{l}\n")).collect();
            assert_eq!(super::stats(&less), None, "{series}");
        }
        for odd in ["NaN", "-1", "+Inf", "1e99", "x"] {
            assert_eq!(super::stats(&PAGE.replace("{} 44", &format!("{{}} {odd}"))), None, "{odd}");
        }
        assert_eq!(super::stats(""), None);
    }
}
