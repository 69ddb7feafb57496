//! What cannot be known is at most a warning, and a first list that runs is waited for. Cases of the table know everything,
//! so these stand here.

use crate::model::Object;
use crate::rules::request::LazyObject;
use crate::rules::{Action, Operation, Policy, Request, User, Verdict, judge};
use crate::snapshot::{Event, Snapshot, builder::Builder};
use crate::wire::manifest;

const GATEWAY: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: igw, namespace: gw}, spec: {replicas: 2, selector: {matchLabels: {app: igw}}, template: {metadata: {labels: {app: igw}, annotations: {inject.istio.io/templates: gateway}}}}, status: {readyReplicas: 2}}";
const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: igw, namespace: gw}, spec: {type: LoadBalancer, selector: {app: igw}}}";
const CONFIG: &str = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g, namespace: gw}, spec: {selector: {app: igw}}}";
const FORGOT_ITS_PROFILE: &str = "{apiVersion: install.istio.io/v1alpha1, kind: IstioOperator, metadata: {name: gateways}, spec: {components: {ingressGateways: [{name: a, enabled: true}]}}}";

fn objects(texts: &[&str]) -> Vec<Object> {
    let read = |t: &&str| manifest::read("t", t, "default").documents.remove(0).object;
    texts.iter().map(read).collect()
}

fn object(text: &str) -> Object {
    objects(&[text]).remove(0)
}

fn offline(texts: &[&str]) -> Snapshot {
    objects(texts).into_iter().fold(Snapshot::offline(), |s, o| s.with(o))
}

fn verdict(snapshot: &Snapshot, operation: Operation, object: Object, old: Option<Object>) -> Verdict {
    let old = old.map_or_else(LazyObject::none, LazyObject::ready);
    let request = Request { user: User::default(), operation, sub_resource: String::new(), object, old };
    judge(&Policy::default(), &request, snapshot, jiff::Timestamp::UNIX_EPOCH)
}

fn outcome(verdict: &Verdict) -> Vec<(&'static str, Action)> {
    verdict.judged.iter().filter(|j| j.rule.code.starts_with("GW")).map(|j| (j.rule.code, j.action)).collect()
}

#[test]
fn without_deployments_a_file_that_forgot_its_profile_is_a_warning() {
    let found = verdict(&Snapshot::offline(), Operation::Create, object(FORGOT_ITS_PROFILE), None);
    assert_eq!(outcome(&found), [("GW004", Action::Warn)]);
}

#[test]
fn without_pods_a_gateway_at_zero_is_a_warning() {
    let cluster = offline(&[GATEWAY, SERVICE]);
    let zero = object(&GATEWAY.replace("replicas: 2", "replicas: 0"));
    let found = verdict(&cluster, Operation::Update, zero, Some(object(GATEWAY)));
    assert_eq!(outcome(&found), [("GW009", Action::Warn)]);
}

#[test]
fn without_pods_a_cut_service_is_a_warning() {
    let cluster = offline(&[GATEWAY, SERVICE]);
    let cut = object(&SERVICE.replace("app: igw", "app: other"));
    let found = verdict(&cluster, Operation::Update, cut, Some(object(SERVICE)));
    assert_eq!(outcome(&found), [("GW011", Action::Warn)]);
}

#[test]
fn without_gateways_nobody_knows_who_uses_what_is_deleted() {
    let found = |texts: &[&str]| outcome(&verdict(&offline(texts), Operation::Delete, object(GATEWAY), None));
    assert_eq!(found(&[GATEWAY, SERVICE]), []);
    assert_eq!(found(&[GATEWAY, SERVICE, CONFIG]), [("GW010", Action::Warn)]);
}

#[test]
fn while_a_first_list_runs_the_request_is_to_come_again() {
    let mut builder = Builder::new(Snapshot::live());
    builder.apply(Event::Listing((crate::model::Kind::Deployment, None)));
    let found = verdict(builder.snapshot(), Operation::Create, object(FORGOT_ITS_PROFILE), None);
    assert!(found.not_ready.is_some());
}
