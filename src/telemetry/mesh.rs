//! Metrics of the mesh, as the last audit saw it. They are set as a whole, so that a control plane that is gone leaves no
//! series behind, and cleared on a replica that does not lead, so that a sum over replicas counts nothing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prometheus::{Gauge, IntGauge, IntGaugeVec, Opts, Registry};

use super::register::{int_gauge, int_gauges};
use super::table::*;

/// Values of a label that names something of the mesh. A mesh has a handful; a hundred thousand would be an attack.
pub const MOST: usize = 50;
/// What the rest is called.
pub const OTHER: &str = "_other";

/// One control plane.
#[derive(Clone, Debug, Default)]
pub struct RevisionFigures {
    pub name: String,
    pub version: Option<String>,
    pub ready: Option<bool>,
    pub endpoints: Option<u32>,
    pub namespaces: u32,
    pub workload_pods: u32,
    pub gateway_pods: u32,
}

/// Everything that is set after an audit.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub revisions: Vec<RevisionFigures>,
    pub pods_of_unknown_revisions: u32,
    pub pods_without_revision: u32,
    pub default_validators: u32,
    /// Name, and whether nobody answers.
    pub validators: Vec<(String, bool)>,
    pub injectors: Vec<(String, bool)>,
    pub injectors_conflicting: u32,
    /// By rule and level.
    pub findings: BTreeMap<(&'static str, &'static str), u32>,
    /// Earliest end of an exemption by rule, in seconds since 1970.
    pub exemptions: BTreeMap<&'static str, i64>,
    pub took: Duration,
    /// In seconds since 1970.
    pub at: i64,
}

/// See the module's documentation.
pub struct Mesh {
    revision_info: IntGaugeVec,
    pods: IntGaugeVec,
    namespaces: IntGaugeVec,
    endpoints: IntGaugeVec,
    default_validators: IntGauge,
    validator_dangling: IntGaugeVec,
    injector_dangling: IntGaugeVec,
    injectors_conflicting: IntGauge,
    findings: IntGaugeVec,
    duration: Gauge,
    success: IntGauge,
    exemption_expires: IntGaugeVec,
    present: IntGaugeVec,
    /// Without labels: it can be absent.
    in_force: IntGaugeVec,
}

impl Mesh {
    pub(super) fn new(registry: &Registry) -> Mesh {
        let duration = Gauge::with_opts(Opts::new(AUDIT_DURATION.name, AUDIT_DURATION.help));
        let duration = duration.expect("metric definitions are constants");
        registry.register(Box::new(duration.clone())).expect("metric names are unique");
        Mesh {
            revision_info: int_gauges(registry, REVISION_INFO),
            pods: int_gauges(registry, PODS),
            namespaces: int_gauges(registry, NAMESPACES),
            endpoints: int_gauges(registry, ENDPOINTS),
            default_validators: int_gauge(registry, DEFAULT_VALIDATORS),
            validator_dangling: int_gauges(registry, VALIDATOR_DANGLING),
            injector_dangling: int_gauges(registry, INJECTOR_DANGLING),
            injectors_conflicting: int_gauge(registry, INJECTORS_CONFLICTING),
            findings: int_gauges(registry, AUDIT_FINDINGS),
            duration,
            success: int_gauge(registry, AUDIT_SUCCESS),
            exemption_expires: int_gauges(registry, EXEMPTION_EXPIRES),
            present: int_gauges(registry, CONFIGURATION_PRESENT),
            in_force: int_gauges(registry, IN_FORCE),
        }
    }

    /// Sets everything that an audit saw.
    pub fn set(&self, seen: &Figures) {
        self.clear();
        let count = |n: u32| i64::from(n);
        let mut revisions = Names::default();
        for r in &seen.revisions {
            let name = revisions.bounded(&r.name);
            let ready = r.ready.map_or("unknown", |ready| if ready { "true" } else { "false" });
            // Of what is lumped together no version can be said.
            let version = if name == OTHER { "" } else { r.version.as_deref().unwrap_or("") };
            self.revision_info.with_label_values(&[name, version, ready]).set(1);
            self.pods.with_label_values(&[name, "workload"]).add(count(r.workload_pods));
            self.pods.with_label_values(&[name, "gateway"]).add(count(r.gateway_pods));
            self.namespaces.with_label_values(&[name]).add(count(r.namespaces));
            if let Some(endpoints) = r.endpoints {
                self.endpoints.with_label_values(&[name]).add(count(endpoints));
            }
        }
        self.pods.with_label_values(&["_unknown", "workload"]).set(count(seen.pods_of_unknown_revisions));
        self.pods.with_label_values(&["_none", "workload"]).set(count(seen.pods_without_revision));
        self.default_validators.set(count(seen.default_validators));
        for (gauge, all) in [(&self.validator_dangling, &seen.validators), (&self.injector_dangling, &seen.injectors)] {
            let mut names = Names::default();
            for (name, dangling) in all {
                let series = gauge.with_label_values(&[names.bounded(name)]);
                // One of the others is enough.
                series.set(series.get().max(i64::from(*dangling)));
            }
        }
        self.injectors_conflicting.set(count(seen.injectors_conflicting));
        for ((code, level), n) in &seen.findings {
            self.findings.with_label_values(&[code, level]).set(count(*n));
        }
        for (code, at) in &seen.exemptions {
            self.exemption_expires.with_label_values(&[code]).set(*at);
        }
        self.duration.set(seen.took.as_secs_f64());
        self.success.set(seen.at);
    }

    /// Whether a webhook configuration of ours that should be there is there; `name` is one of two.
    pub fn present(&self, name: &str, present: bool) {
        self.present.with_label_values(&[name]).set(i64::from(present));
    }

    /// Whether the admission policy refuses what it must refuse; `None`: not known.
    pub fn in_force(&self, is: Option<bool>) {
        match is {
            Some(is) => self.in_force.with_label_values::<&str>(&[]).set(i64::from(is)),
            None => self.in_force.reset(),
        }
    }

    /// Nothing is known here any more: another replica leads.
    pub fn clear(&self) {
        let all = [
            &self.revision_info,
            &self.pods,
            &self.namespaces,
            &self.endpoints,
            &self.validator_dangling,
            &self.injector_dangling,
            &self.findings,
            &self.exemption_expires,
        ];
        all.into_iter().for_each(IntGaugeVec::reset);
        self.default_validators.set(0);
        self.injectors_conflicting.set(0);
        self.success.set(0);
    }

    /// Forgets which of our webhook configurations are there: another replica tells.
    pub fn clear_present(&self) {
        self.present.reset();
    }
}

/// Keeps the values of a label within bounds.
#[derive(Default)]
struct Names<'a>(BTreeSet<&'a str>);

impl<'a> Names<'a> {
    fn bounded(&mut self, name: &'a str) -> &'a str {
        if self.0.contains(name) || self.0.len() < MOST {
            self.0.insert(name);
            name
        } else {
            OTHER
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn names_of_the_mesh_are_bounded_and_leave_with_it() {
        let metrics = Metrics::new();
        let revisions =
            (0..1000).map(|i| RevisionFigures { name: format!("r{i}"), workload_pods: 1, ..Default::default() });
        let validators = (0..1000).map(|i| (format!("v{i}"), i == 999)).collect();
        metrics.mesh.set(&Figures { revisions: revisions.collect(), validators, ..Figures::default() });
        let text = metrics.text();
        let series = |name: &str| text.lines().filter(|l| l.starts_with(name)).count();
        assert_eq!(series("revguard_namespaces{"), MOST + 1);
        assert!(text.contains("revguard_pods{kind=\"workload\",revision=\"_other\"} 950"), "{text}");
        assert!(text.contains("revguard_validator_dangling{name=\"_other\"} 1"));
        metrics.mesh.clear();
        assert!(!metrics.text().contains("revision=\"r0\""));
        for (is, line) in [(Some(false), Some(" 0")), (Some(true), Some(" 1")), (None, None)] {
            metrics.mesh.in_force(is);
            let text = metrics.text();
            let said = text.lines().find_map(|l| l.strip_prefix("revguard_admission_policy_in_force"));
            assert_eq!(said, line, "absent where it is not known");
        }
    }
}
