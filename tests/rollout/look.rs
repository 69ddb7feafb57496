//! What a leader reads of the model world. Strings and maps are shared, because this is done at every edge of the search.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use revguard::model::key;
use revguard::rollout::seen::{
    Alert, Approval, Config as MeshConfig, ControlPlane, Copy, Deployment, DryRun, Evidence, Finding, Former,
    Gate as SeenGate, Hpa, Map, MetricResult, Of, Outcome, Pod, Rollout, Seen, Service, Severity, Shows, Stats,
    Version,
};
use revguard::rollout::step::Which;
use serde_json::{Value, json};

use super::config::{Broken, Rev};
use super::world::{Gate, Say, World, at, name};

/// Shared values.
struct Shared {
    numbers: Vec<Arc<str>>,
    pods: Vec<Arc<str>>,
    words: BTreeMap<&'static str, Arc<str>>,
    paced: Arc<Value>,
    plain: Arc<Value>,
    shows: Shows,
    ours: Map,
    foreign: Map,
}

thread_local! {
    static SHARED: RefCell<Shared> = RefCell::new(Shared {
        numbers: Vec::new(),
        pods: Vec::new(),
        words: BTreeMap::new(),
        paced: Arc::new(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})),
        plain: Arc::new(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})),
        shows: Shows::default(),
        ours: Map::from([(key::ROLLOUT.to_owned(), "rollout".to_owned())]),
        foreign: Map::new(),
    });
}

impl Shared {
    fn number(&mut self, n: u16) -> Arc<str> {
        while self.numbers.len() <= usize::from(n) {
            self.numbers.push(Arc::from(self.numbers.len().to_string()));
        }
        Arc::clone(&self.numbers[usize::from(n)])
    }

    fn pod(&mut self, n: u16) -> Arc<str> {
        while self.pods.len() <= usize::from(n) {
            self.pods.push(Arc::from(format!("p{}", self.pods.len())));
        }
        Arc::clone(&self.pods[usize::from(n)])
    }

    fn word(&mut self, word: &'static str) -> Arc<str> {
        Arc::clone(self.words.entry(word).or_insert_with(|| Arc::from(word)))
    }

    fn held(&mut self, uid: Arc<str>, version: u16) -> Version {
        Version { uid, version: self.number(version) }
    }
}

impl World {
    /// Everything, read just now. `None`: there is nothing left to plan for.
    pub fn seen(&self) -> Option<Seen> {
        SHARED.with_borrow_mut(|shared| self.read(shared))
    }

    fn read(&self, s: &mut Shared) -> Option<Seen> {
        let config = &self.config;
        let rollout = self.rollout.as_ref()?;
        let spec = Arc::clone(config.spec(rollout.bits));
        let pods: Vec<Pod> = self.pods.iter().map(|p| self.read_pod(p, s)).collect();
        let endpoints = self.pods.iter().filter(|p| p.endpoint).map(|p| s.pod(p.id)).collect();
        let plane = |installed: bool, ready: bool, s: &mut Shared| ControlPlane {
            installed,
            ready,
            why: String::new(),
            namespace: s.word("istio-system"),
            version: None,
        };
        let finding = || Finding {
            guard: "ImageAuto",
            severity: Severity::Block,
            object: "Deployment/ns/gw".to_owned(),
            what: "x".to_owned(),
            why: "x".to_owned(),
            fix: "x".to_owned(),
        };
        let dry_run = || DryRun { object: "Pod/gw".to_owned(), refused: Some("no".to_owned()) };
        Some(Seen {
            rollout: Rollout {
                namespace: s.word("ns"),
                name: s.word("move"),
                held: Version { uid: s.word("rollout"), version: s.number(rollout.version) },
                generation: i64::from(rollout.generation),
                created: at(0),
                deleting: rollout.deleting,
                finalizer: rollout.finalizer,
                spec,
                approval: rollout.approval.map(|say| Approval {
                    step: s.word(match say {
                        Say::Resume => "resume",
                        Say::Step => "half",
                        Say::Nonsense => "nonsense",
                    }),
                    by: s.word("alice"),
                }),
            },
            source: self.read_deployment(Which::Source, s),
            canary: self.read_deployment(Which::Canary, s),
            standby: self.read_deployment(Which::Standby, s),
            services: vec![Service {
                name: s.word("gw"),
                held: Version { uid: s.word("service"), version: s.number(1) },
                selector: if self.narrowed { s.ours.clone() } else { Map::new() },
                local: false,
                target_ports: Vec::new(),
                ingress: Vec::new(),
                endpoints,
                pruned_with: self.pruned.then(|| s.word("old")),
            }],
            hpas: self.read_hpa(s).into_iter().collect(),
            pdbs: Vec::new(),
            config: MeshConfig {
                needed: config.config_map,
                name: s.word("istio-new"),
                original: config.config_map.then(|| s.number(u16::from(self.original))),
                copy: self.copy.as_ref().map(|c| Copy {
                    held: Version { uid: s.word("copy"), version: s.number(c.version) },
                    hash: s.number(u16::from(c.hash)),
                    ours: true,
                    shared: false,
                }),
                former: self.former.filter(|_| !self.is_old_kept()).map(|version| Former {
                    name: s.word("istio-old"),
                    held: Version { uid: s.word("former"), version: s.number(version) },
                    ending: self.is_old_mounted(),
                }),
            },
            from: plane(self.from_installed, self.from_ready && self.from_installed, s),
            to: plane(true, self.to_ready, s),
            findings: Some(if self.blocked || self.refused { vec![finding()] } else { Vec::new() }),
            dry_runs: Some(if self.refused { vec![dry_run()] } else { Vec::new() }),
            evidence: self.pods.iter().filter_map(|p| Some((s.pod(p.id), self.evidence(p)?))).collect(),
            gate: self.read_gate(),
            metrics: self.read_metrics(),
            watched: None,
            apart_key: if self.key_lost { Err("a Gateway selects by it".to_owned()) } else { Ok(s.word("app")) },
            others: Vec::new(),
            pods,
        })
    }

    fn read_pod(&self, pod: &super::world::Pod, s: &mut Shared) -> Pod {
        let name = s.pod(pod.id);
        let sick = self.sick && self.config.told && pod.rev == Rev::New;
        Pod {
            held: s.held(Arc::clone(&name), pod.version),
            name,
            of: if self.config.broken == Broken::ApartUnseen && pod.of == Of::Apart { Of::Other } else { pod.of },
            revision: self.config.templates[pod.rev as usize].revision.clone(),
            template_hash: None,
            labels: Map::new(),
            created: at(pod.since),
            ready: pod.ready && pod.of != Of::Probe,
            containers_ready: pod.ready,
            ready_since: pod.ready.then(|| at(pod.since)),
            deleting: pod.deleting,
            trouble: (sick && !pod.ready).then(|| s.word("ImagePullBackOff")),
            node: s.word("node"),
            ip: None,
            apart_since: pod.apart.map(at),
            counted: pod.of != Of::Apart || pod.counted.is_some(),
            deletion_cost: pod.pinned.then_some(1000),
            shows: s.shows.clone(),
        }
    }

    fn evidence(&self, pod: &super::world::Pod) -> Option<Evidence> {
        let stats = match pod.of {
            // Envoy counts now and then: what it says at first is of before the pod had anything.
            Of::Apart => {
                let lag = u32::from(self.config.broken == Broken::OldReadings);
                let counted = pod.busy && pod.apart.is_none_or(|since| self.clock > since + lag);
                Stats { connections: if counted { 3 } else { 0 }, at: at(self.clock), ..Stats::default() }
            }
            Of::Canary | Of::Source | Of::Probe if pod.rev == Rev::New && self.rejects => {
                Stats { lds_rejected: 1, lds_success: 1, ..Stats::default() }
            }
            _ => return None,
        };
        if self.config.broken == Broken::RejectionsUnseen && pod.of != Of::Apart {
            return None;
        }
        let (earlier, stats) = (Some(stats.clone()), Some(stats));
        Some(Evidence { stats, earlier, ..Evidence::default() })
    }

    fn read_deployment(&self, which: Which, s: &mut Shared) -> Option<Deployment> {
        let d = self.deployment(which)?;
        let ours = d.ours || self.config.broken == Broken::ForeignIsOurs;
        let mut annotations = Map::new();
        if which == Which::Source && self.lock {
            annotations.insert(key::ACTIVE_ROLLOUT.to_owned(), "rollout".to_owned());
            if let Some(kept) = self.kept.as_ref().filter(|_| self.memory().is_some_and(|m| m.baseline.is_none())) {
                annotations.insert(key::BASELINE.to_owned(), kept.to_string());
            }
        }
        let count =
            |f: fn(&&super::world::Pod) -> bool| u32::try_from(self.alive(which).filter(f).count()).expect("few");
        Some(Deployment {
            name: s.word(name(which)),
            held: {
                let uid = s.number(d.uid);
                s.held(uid, d.version)
            },
            labels: if which != Which::Source && ours { s.ours.clone() } else { s.foreign.clone() },
            annotations,
            generation: i64::from(d.generation),
            observed: i64::from(d.observed),
            selector: Map::new(),
            replicas: u32::from(d.replicas),
            total: count(|_| true),
            updated: 0,
            ready: count(|p| p.ready),
            paused: d.paused,
            template: Arc::clone(&self.config.templates[d.rev as usize]),
            strategy: Arc::clone(if d.paced { &s.paced } else { &s.plain }),
            min_ready_seconds: None,
            owner: None,
            written: which == Which::Source && self.written,
            deleting: false,
        })
    }

    fn read_hpa(&self, s: &mut Shared) -> Option<Hpa> {
        let hpa = self.hpa.as_ref()?;
        Some(Hpa {
            name: s.word("hpa"),
            held: Version { uid: s.word("hpa"), version: s.number(hpa.version) },
            target: s.word(name(hpa.target)),
            min: u32::from(hpa.min),
            max: 20,
            // One whose Deployment has no pods rests.
            desired: self.deployment(hpa.target).filter(|d| d.replicas > 0).map_or(0, |_| u32::from(hpa.desired)),
            active: Some(true),
            owned: false,
            written: hpa.written,
            pruned_with: None,
        })
    }

    fn read_gate(&self) -> SeenGate {
        match self.gate {
            Gate::Off => SeenGate::Off,
            Gate::Quiet => SeenGate::Quiet(at(self.quiet)),
            Gate::Firing => SeenGate::Firing(vec![Alert {
                name: "Down".to_owned(),
                severity: "page".to_owned(),
                fingerprint: "f".to_owned(),
                aborts: false,
            }]),
            Gate::Unknown => SeenGate::Unknown { why: "no answer".to_owned(), times: 3 },
        }
    }

    fn read_metrics(&self) -> Vec<MetricResult> {
        if self.config.spec["guardrails"]["metrics"].is_null() {
            return Vec::new();
        }
        let outcome = [Outcome::Passed, Outcome::Failed, Outcome::Inconclusive][usize::from(self.metric)];
        let at = self.now() + SignedDuration::ZERO;
        vec![MetricResult { name: "errors".to_owned(), outcome, value: None, message: String::new(), at }]
    }
}
