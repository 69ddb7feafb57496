//! The case table of guards: `cases.yaml`, one world and a few changes a case, and the texts that people read beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use revguard::rollout::guards::{self, GUARDS, Scene};
use revguard::rollout::read::{Listed, seen};
use revguard::rollout::seen::{DryRun, Finding, Severity};
use serde::Deserialize;
use serde_json::{Value, json};

use super::world::{self, World};

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    guard: String,
    case: String,
    world: String,
    #[serde(default)]
    set: BTreeMap<String, BTreeMap<String, Value>>,
    #[serde(default)]
    put: Vec<Value>,
    #[serde(default)]
    remove: Vec<String>,
    #[serde(default)]
    refuse: Vec<String>,
    /// What the API server says to a dry-run of this object.
    #[serde(default)]
    dry_runs: BTreeMap<String, String>,
    /// `Block`, `Warn` or `none`: what this guard says.
    expect: String,
    /// What others say of the same world.
    #[serde(default)]
    also: Vec<String>,
}

fn cases() -> Vec<Case> {
    static CASES: LazyLock<Vec<Case>> =
        LazyLock::new(|| revguard::wire::manifest::from_yaml(include_str!("cases.yaml")).expect("cases.yaml"));
    CASES.clone()
}

fn build(case: &Case) -> World {
    let mut world = match case.world.as_str() {
        "injected" => world::injected(),
        "mounted" => world::mounted(),
        other => panic!("no world {other}"),
    };
    for (object, fields) in &case.set {
        fields.iter().for_each(|(pointer, value)| world.set(object, pointer, value.clone()));
    }
    for name in &case.remove {
        assert!(world.objects.remove(name).is_some(), "{}: no {name} in this world", case.case);
    }
    case.put.iter().for_each(|o| world.put(o.clone()));
    world.refused = case.refuse.iter().map(|k| kind(k)).collect();
    world
}

fn kind(name: &str) -> Listed {
    revguard::rollout::read::TABLE.iter().find(|r| r.kind == name).expect("a kind of the table").listed
}

fn found(case: &Case) -> Vec<Finding> {
    let world = build(case);
    let (raw, known) = (world.raw(), world.known());
    let mut seen = seen(&raw, &known).expect("a world that can be read");
    if !case.dry_runs.is_empty() {
        let run = |(object, why): (&String, &String)| DryRun { object: object.clone(), refused: Some(why.clone()) };
        seen.dry_runs = Some(case.dry_runs.iter().map(run).collect());
    }
    guards::check(&Scene::of(&raw, &known, &seen))
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Block => "Block",
        Severity::Warn => "Warn",
    }
}

#[test]
fn a_gateway_in_order_is_told_nothing() {
    for world in [world::injected(), world::mounted()] {
        let (raw, known) = (world.raw(), world.known());
        let seen = seen(&raw, &known).expect("readable");
        assert_eq!(guards::check(&Scene::of(&raw, &known, &seen)), []);
    }
}

#[test]
fn every_case_is_told_as_it_expects_and_nothing_else() {
    let mut wrong = Vec::new();
    for case in cases() {
        let found = found(&case);
        let own: Vec<&str> = found.iter().filter(|f| f.guard == case.guard).map(|f| word(f.severity)).collect();
        let worst = own.iter().min().copied().unwrap_or("none");
        let others: BTreeSet<&str> = found.iter().map(|f| f.guard).filter(|g| *g != case.guard).collect();
        let also: BTreeSet<&str> = case.also.iter().map(String::as_str).collect();
        if worst != case.expect || others != also {
            wrong.push(format!("{}: {}: {worst}, beside {others:?}\n{found:#?}", case.guard, case.case));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_guard_has_a_case_that_fires_and_one_that_nearly_does() {
    let cases = cases();
    let mut missing = Vec::new();
    for guard in GUARDS.iter() {
        let own: Vec<&Case> = cases.iter().filter(|c| c.guard == guard.name).collect();
        let worst = word(guard.worst);
        if !own.iter().any(|c| c.expect == worst) {
            missing.push(format!("{}: no case with {worst}", guard.name));
        }
        if !own.iter().any(|c| c.expect == "none") {
            missing.push(format!("{}: no case with none", guard.name));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    for case in &cases {
        assert!(GUARDS.iter().any(|g| g.name == case.guard), "{} is no guard", case.guard);
    }
}

#[test]
fn what_can_be_accepted_becomes_a_warning_and_nothing_else_does() {
    for case in cases().iter_mut().filter(|c| c.expect == "Block") {
        let guard = guards::find(&case.guard).expect("a guard");
        let rollout =
            if case.world == "injected" { "GatewayRollout/igw-1-24" } else { "GatewayRollout/custom-gw-1-24" };
        let accepted = Value::from(vec![case.guard.clone()]);
        case.set.entry(rollout.to_owned()).or_default().insert("/spec/acknowledge".to_owned(), accepted);
        let found = found(case);
        let own: Vec<&Finding> = found.iter().filter(|f| f.guard == case.guard).collect();
        let blocks = own.iter().any(|f| f.severity == Severity::Block);
        assert_eq!(blocks, !guard.acknowledge, "{}: {}", case.guard, case.case);
        assert!(!own.is_empty(), "{}: it is still said", case.guard);
        let told = found.iter().any(|f| f.guard == "AcknowledgesNothing");
        assert_eq!(told, !guard.acknowledge, "{}: whoever accepts in vain is told", case.guard);
    }
}

#[test]
fn the_texts_that_people_read() {
    let mut out = String::new();
    for case in cases().iter().filter(|c| c.expect != "none") {
        let _ = writeln!(out, "## {} — {}\n", case.guard, case.case);
        for f in found(case).iter().filter(|f| f.guard == case.guard) {
            let fix = f.fix.replace('\n', "\n          ");
            let _ = writeln!(
                out,
                "{} {}\n  {}\n  why:    {}\n  fix:    {fix}\n",
                word(f.severity),
                f.object,
                f.what,
                f.why
            );
        }
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rollout_guards/findings.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &out).expect("findings.txt");
    }
    let stored = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(out, stored, "UPDATE=1 cargo test --test rollout_guards rewrites findings.txt");
}

#[test]
fn words_are_whole() {
    for case in cases().iter().filter(|c| c.expect != "none") {
        for f in found(case) {
            assert!(f.what.ends_with('.') && f.why.ends_with('.'), "{f:#?}");
            assert!(!f.fix.is_empty() && !f.fix.contains("{}"), "{f:#?}");
            assert!(f.object.contains('/'), "{f:#?}");
        }
    }
}

#[test]
fn what_an_injector_made_of_a_dry_run_is_looked_at() {
    let pod = |image: &str, annotations: Value| json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "istio-proxy", "image": image}]}});
    let why = |pod: &Value| guards::wrongly_injected(pod, "1-24");
    assert_eq!(why(&pod("proxyv2:1.24.5", json!({"istio.io/rev": "1-24"}))), None);
    assert_eq!(why(&pod("proxyv2:1.24.5", json!({"sidecar.istio.io/status": "{\"revision\":\"1-24\"}"}))), None);
    let other = why(&pod("proxyv2:1.23.5", json!({"istio.io/rev": "1-23"})));
    assert_eq!(other.as_deref(), Some("it was injected by revision 1-23, not 1-24"));
    assert!(why(&pod("auto", json!({}))).is_some_and(|w| w.contains("nothing injected it")));
    assert_eq!(why(&json!({"spec": {"containers": []}})).as_deref(), Some("it has no proxy"));
}
