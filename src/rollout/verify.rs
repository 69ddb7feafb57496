//! How far a gateway pod is proven to be of the revision that it should be of, and to serve.
//!
//! Readiness proves neither: a pod stays ready whose listeners are rejected. What was not asked is unknown, and never taken for good; only
//! where nothing at all could be asked, `allowDegradeTo` may be enough.

use super::seen::{ControlPlane, Evidence, Pod, Service, Stats, Verified};
use crate::api::GatewayRolloutSpec;
use crate::api::gateway_rollout::Level;

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
                "its Envoy rejected its {what} {rejections} times; `istioctl proxy-status` and istiod's log name the configuration"
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

/// The version in an image: what follows the last colon, without digest and variant.
fn image_version(image: &str) -> Option<&str> {
    let image = image.split('@').next()?;
    let (_, tag) = image.rsplit_once(':')?;
    (!tag.contains('/')).then(|| tag.trim_end_matches("-distroless").trim_end_matches("-debug"))
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
    let (expected, found) = (spec.to_version.as_deref()?, image_version(image)?);
    let other = found != expected.trim_end_matches("-distroless").trim_end_matches("-debug");
    other.then(|| format!("its proxy is {found}, not {expected}"))
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
        false => Err(format!("it gets its {what} of {host}, not of revision {}", measure.spec.to_revision)),
    };
    match &pod.shows.discovery {
        Some(host) => of("configuration", host)?,
        None => return Err("it does not say whom it gets its configuration of".to_owned()),
    }
    // Without a word about it, certificates come from where the configuration comes from.
    pod.shows.ca.as_ref().map_or(Ok(()), |host| of("certificates", host))
}

fn connected(evidence: Option<&Evidence>, measure: Measure) -> Known {
    // Nobody has asked, which is not that nobody could be asked.
    let Some(evidence) = evidence else { return Known::No("it was not asked yet".to_owned()) };
    if let Some(closed) = &evidence.closed_ports
        && let Some(port) = closed.iter().find(|port| measure.services.iter().any(|s| s.target_ports.contains(port)))
    {
        return Known::No(format!("nothing answers on its port {port}, to which a Service sends"));
    }
    if evidence.synced == Some(false) {
        return Known::No(format!("istiod of {} does not know it, or waits for its answer", measure.spec.to_revision));
    }
    let Some(stats) = &evidence.stats else {
        // What istiod says of it is as good, if its ports answer.
        return match (evidence.synced, &evidence.closed_ports) {
            (Some(true), Some(_)) => Known::Yes,
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

    /// Nothing was open in this reading and in the one before it.
    pub fn is_idle(&self, unrouted: u64) -> bool {
        let none = |stats: &Option<Stats>| stats.as_ref().is_some_and(|s| s.connections <= unrouted);
        none(&self.stats) && none(&self.earlier)
    }
}

/// Reads a page of Envoy's `/stats/prometheus`; `None` where a figure is missing: a page that says nothing of rejections or
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
            found = Some(found.unwrap_or(0) + count(value)?);
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

/// A count, as a whole number or as a float that is one.
fn count(text: &str) -> Option<u64> {
    if let Ok(whole) = text.parse() {
        return Some(whole);
    }
    let value: f64 = text.parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // looked at right before
    (value.is_finite() && (0.0..9e15).contains(&value)).then_some(value as u64)
}
