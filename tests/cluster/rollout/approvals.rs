//! Who may approve, asked of a real API server: two people, the chart's own webhooks and admission policy, and our server behind
//! them. What revguard's own controller writes is neither asked about nor refused.

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::cases::Stage;
use crate::cases::world::World;
use crate::chart::register;
use crate::chart::render::{NAMESPACE, render};
use crate::harness::guard::{Asked, Guard};
use crate::harness::objects::{Scope, documents};
use crate::harness::raw::{Answer, As, JSON, MERGE, send};
use crate::harness::registration::Registration;
use crate::harness::wait::wait_until;
use crate::harness::{ControlPlane, Options};

/// bob looks after rollouts, alice may approve as well.
const PEOPLE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: edge}
---
apiVersion: v1
kind: Namespace
metadata: {name: revguard-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: editor, namespace: edge}
rules:
- {apiGroups: [revguard.dev], resources: [gatewayrollouts], verbs: [get, create, update, patch, delete]}
- {apiGroups: [apps], resources: [deployments], verbs: [get, create, update, patch, delete]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: approver, namespace: edge}
rules:
- {apiGroups: [revguard.dev], resources: [gatewayrollouts], verbs: [approve]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: editors, namespace: edge}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: editor}
subjects:
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: bob}
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: alice}
- {kind: ServiceAccount, name: revguard-controller, namespace: revguard-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: approvers, namespace: edge}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: approver}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: alice}]
";

const GATEWAY: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: igw, namespace: edge, labels: {operator.istio.io/component: IngressGateways}}
spec:
  replicas: 2
  selector: {matchLabels: {app: igw}}
  template:
    metadata: {labels: {app: igw, istio.io/rev: '1-23'}}
    spec: {containers: [{name: istio-proxy, image: proxy}]}
";

const AT: &str = "/apis/revguard.dev/v1alpha1/namespaces/edge/gatewayrollouts";
const ONE: &str = "/apis/revguard.dev/v1alpha1/namespaces/edge/gatewayrollouts/public";
const GATE: &str = "/apis/apps/v1/namespaces/edge/deployments/igw";

fn rollout(name: &str) -> Value {
    json!({
        "apiVersion": "revguard.dev/v1alpha1", "kind": "GatewayRollout", "metadata": {"name": name, "namespace": "edge"},
        "spec": {"target": {"deployment": {"name": "igw"}}, "fromRevision": "1-23", "toRevision": "1-24", "strategy": {"steps": [
            {"name": "half", "weight": 50, "approval": "Required"},
            {"name": "most", "weight": 75, "approval": "Required"},
            {"name": "all", "weight": 100},
        ]}},
    })
}

struct Desk {
    stage: Stage,
    registered: Vec<Registration>,
}

impl Desk {
    async fn open() -> Result<Desk> {
        // Webhooks and policies concern everybody: nobody else may be here.
        let plane = ControlPlane::start(Options::with_controllers(&[])).await?;
        let mut scope = Scope::new(&plane);
        let own: Vec<Value> = revguard::api::definitions().into_iter().map(|(_, definition)| definition).collect();
        scope.apply(&own).await?;
        scope.apply(&documents(PEOPLE)?).await?;
        scope.apply(&documents(GATEWAY)?).await?;
        let rendered = render(&[])?;
        let policy: Vec<Value> =
            rendered.into_iter().filter(|object| object["metadata"]["name"] == "revguard-approvals").collect();
        ensure!(policy.len() == 2, "an admission policy and its binding: {policy:?}");
        scope.apply(&policy).await?;
        scope.leave();
        let guard = Guard::start(&plane.kubeconfig(), crate::case_table::Case::now).await?;
        let stage = Stage { world: World::new(plane.client()), plane, guard };
        let registered = register(&stage, &[], None).await?;
        let desk = Desk { stage, registered };
        desk.judge(Asked::Mutate);
        Ok(desk)
    }

    /// Only one of the two endpoints speaks with the product's words at a time.
    fn judge(&self, asked: Asked) {
        self.stage.guard.ask(asked, revguard::rules::Policy::default());
    }

    async fn send(&self, who: &str, method: Method, at: &str, body: Value) -> Result<Answer> {
        let groups: &[&str] = if who.starts_with("system:serviceaccount:") {
            &["system:serviceaccounts", "system:authenticated"]
        } else {
            &["system:authenticated"]
        };
        let who = As { user: who.into(), groups: groups.iter().map(|&g| g.to_owned()).collect() };
        let content = if method == Method::PATCH { MERGE } else { JSON };
        send(&self.stage.plane.client(), method, at, Some((content, &body)), &who).await
    }

    /// Where the rollout stands, as a controller would have written it.
    async fn stands(&self, status: Value) -> Result<()> {
        let who = As { user: "controller".into(), groups: vec!["system:masters".to_owned()] };
        let (at, body) = (format!("{ONE}/status"), json!({"status": status}));
        let answer = send(&self.stage.plane.client(), Method::PATCH, &at, Some((MERGE, &body)), &who).await?;
        answer.expect("a status").map(drop)
    }

    /// Annotations of the rollout, `approve` and `approved-by`; an empty text takes one off, none leaves it.
    async fn annotate(&self, who: &str, approve: Option<&str>, by: Option<&str>) -> Result<Answer> {
        let mut marks = json!({});
        for (key, text) in [("revguard.dev/approve", approve), ("revguard.dev/approved-by", by)] {
            if let Some(text) = text {
                marks[key] = if text.is_empty() { Value::Null } else { json!(text) };
            }
        }
        self.send(who, Method::PATCH, ONE, json!({"metadata": {"annotations": marks}})).await
    }
}

/// What is stored: the approval and its mark.
fn marks(answer: Answer, what: &str) -> Result<(String, String)> {
    let stored = answer.expect(what)?;
    let of = |key: &str| stored["metadata"]["annotations"][key].as_str().unwrap_or("").to_owned();
    Ok((of("revguard.dev/approve"), of("revguard.dev/approved-by")))
}

fn refused(answer: &Answer, what: &str, words: &[&str]) -> Result<()> {
    ensure!(!answer.ok(), "{what}: it passed");
    for word in words {
        ensure!(answer.message().contains(word), "{what}: no {word:?} in {} {}", answer.status, answer.message());
    }
    Ok(())
}

pub async fn only_who_may_approves_and_nobody_in_anothers_name() -> Result<()> {
    let desk = Desk::open().await?;
    let made = desk.send("bob", Method::POST, AT, rollout("public")).await?.expect("bob creates it")?;
    let uid = made["metadata"]["uid"].as_str().context("a uid")?.to_owned();
    let (half, most) = (format!("{uid}/half"), format!("{uid}/most"));
    wait_until(std::time::Duration::from_secs(20), "the admission policy in force", || async {
        let answer = desk.annotate("bob", Some(&half), None).await.map_err(|e| format!("{e:#}"))?;
        if answer.ok() {
            desk.annotate("bob", Some(""), None).await.map_err(|e| format!("{e:#}"))?;
            return Err("bob may approve".to_owned());
        }
        Ok(())
    })
    .await?;
    by_people(&desk, &half, &most).await?;
    gates_stay(&desk).await?;
    by_the_controller(&desk, &half).await?;
    without_a_webhook(desk, &half, &most).await
}

async fn by_people(desk: &Desk, half: &str, most: &str) -> Result<()> {
    let answer = desk.annotate("bob", Some(half), None).await?;
    let may_not =
        ["[GR008 bad-approval] bob may not approve GatewayRollout edge/public", "why:", "fix: kubectl auth can-i"];
    refused(&answer, "bob approves", &may_not)?;
    println!("{}", answer.message());
    refused(&desk.annotate("bob", Some(half), Some("alice")).await?, "bob approves as alice", &may_not)?;
    let all = marks(desk.annotate("alice", Some(half), None).await?, "alice approves")?;
    ensure!(all == (half.to_owned(), "alice".to_owned()), "{all:?}");
    // Whatever else is said of who it was is put right.
    for (who, by) in [("bob", "bob"), ("bob", "carol"), ("alice", "bob")] {
        let all = marks(desk.annotate(who, None, Some(by)).await?, "the mark alone")?;
        ensure!(all == (half.to_owned(), "alice".to_owned()), "{who} writes {by}: {all:?}");
    }
    let all = marks(desk.annotate("alice", Some(most), Some("bob")).await?, "alice approves in bob's name")?;
    ensure!(all == (most.to_owned(), "alice".to_owned()), "{all:?}");
    // The same by the words of the command line: the step that waits now, or one by its name.
    let plane = &desk.stage.plane;
    let (bobs, alices) = (plane.kubeconfig_of("bob", &[])?, plane.kubeconfig_of("alice", &[])?);
    let (taken, said) = super::typed(&alices, "edge", "approve public").await?;
    ensure!(
        !taken && said.contains("no step of public waits for an approval now; the next one that will is \"half\""),
        "{said}"
    );
    let waits = json!({"index": 0, "name": "half", "display": "1/3 half", "hash": "h", "stage": "AwaitingApproval"});
    desk.stands(json!({"phase": "Draining", "state": "AwaitingApproval", "step": waits})).await?;
    let (taken, said) = super::typed(&bobs, "edge", "approve public").await?;
    ensure!(!taken && said.contains("bob may not approve GatewayRollout edge/public"), "{said}");
    let (taken, said) = super::typed(&alices, "edge", "approve public --step most").await?;
    ensure!(taken && said.contains("step most approved"), "{said}");
    let (taken, said) = super::typed(&alices, "edge", "approve public").await?;
    ensure!(taken && said.contains("step half approved"), "{said}");
    let all = marks(desk.annotate("bob", None, None).await?, "what the command line wrote")?;
    ensure!(all == (half.to_owned(), "alice".to_owned()), "{all:?}");
    // Nobody leads, so that it stands as it was written: over, and with nothing to go back to.
    let gone = json!([{"type": "RollbackAvailable", "status": "False", "reason": "Removed", "message": "revision 1-23 was removed",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    desk.stands(json!({"phase": "Completed", "state": "Completed", "conditions": gone})).await?;
    let (taken, said) = super::typed(&bobs, "edge", "abort public").await?;
    ensure!(!taken && said.contains("public has completed and cannot go back: revision 1-23 was removed"), "{said}");
    desk.stands(json!({"phase": "Pending", "state": "Pending", "conditions": []})).await?;
    // bob may take it off; the mark goes along.
    let all = marks(desk.annotate("bob", Some(""), None).await?, "it is taken off")?;
    ensure!(all == (String::new(), String::new()), "{all:?}");
    let mut approved = rollout("other");
    approved["metadata"]["annotations"] = json!({"revguard.dev/approve": most, "revguard.dev/approved-by": "alice"});
    refused(&desk.send("bob", Method::POST, AT, approved.clone()).await?, "born approved", &["bob may not approve"])?;
    let who = marks(desk.send("alice", Method::POST, AT, approved).await?, "born approved by alice")?.1;
    ensure!(who == "alice", "{who}");
    desk.send("alice", Method::DELETE, &format!("{AT}/other"), json!({})).await?.expect("its end")?;
    // What approves nothing is said by the webhook that judges.
    desk.judge(Asked::Validate);
    let both = desk.annotate("alice", Some(&half.replace("half", "halv")), Some("alice")).await?;
    refused(&both, "an unknown step", &["[GR008 bad-approval] GatewayRollout edge/public has no step \"halv\"", half])?;
    desk.judge(Asked::Mutate);
    Ok(())
}

/// Whoever may not approve must not do without either.
async fn gates_stay(desk: &Desk) -> Result<()> {
    let steps = |steps: Value| json!({"spec": {"strategy": {"steps": steps}}});
    let (all, most) =
        (json!({"name": "all", "weight": 100}), json!({"name": "most", "weight": 75, "approval": "Required"}));
    let lowered = steps(json!([{"name": "half", "weight": 50}, most, all]));
    let dropped = steps(json!([most, all]));
    for change in [&lowered, &dropped] {
        let answer = desk.send("bob", Method::PATCH, ONE, change.clone()).await?;
        refused(&answer, "bob lowers a gate", &["bob may not let step half of GatewayRollout edge/public pass"])?;
    }
    let more = steps(json!([
        {"name": "half", "weight": 50, "approval": "Required"}, most, {"name": "all", "weight": 100, "approval": "Required"}]));
    desk.send("bob", Method::PATCH, ONE, more).await?.expect("bob adds a gate")?;
    desk.send("bob", Method::PATCH, ONE, json!({"spec": {"paused": true}})).await?.expect("bob pauses")?;
    desk.send("alice", Method::PATCH, ONE, lowered).await?.expect("alice lowers gates")?;
    let back = rollout("public")["spec"]["strategy"].clone();
    desk.send("bob", Method::PATCH, ONE, json!({"spec": {"strategy": back, "paused": false}}))
        .await?
        .expect("bob puts it back")?;
    Ok(())
}

async fn by_the_controller(desk: &Desk, half: &str) -> Result<()> {
    let own = format!("system:serviceaccount:{NAMESPACE}:revguard-controller");
    marks(desk.annotate("alice", Some(half), None).await?, "alice approves")?;
    // It has used the approval.
    desk.judge(Asked::Mutate);
    let all = marks(desk.annotate(&own, Some(""), Some("")).await?, "the controller takes it off")?;
    ensure!(all == (String::new(), String::new()) && desk.stage.guard.calls() == 0, "{all:?}");
    // The gateway is in its hands, and in nobody else's.
    let active = json!({"status": {"phase": "Progressing", "state": "Scaling"}});
    let admin = As::default();
    send(&desk.stage.plane.client(), Method::PATCH, &format!("{ONE}/status"), Some((MERGE, &active)), &admin)
        .await?
        .expect("its status")?;
    desk.judge(Asked::Validate);
    let to = |revision: &str| json!({"spec": {"template": {"metadata": {"labels": {"istio.io/rev": revision}}}}});
    wait_until(std::time::Duration::from_secs(20), "the rollout is seen to be active", || async {
        let at = format!("{GATE}?dryRun=All");
        let answer = desk.send("bob", Method::PATCH, &at, to("1-24")).await.map_err(|e| format!("{e:#}"))?;
        if answer.message().contains("[GR005 gateway-under-way]") { Ok(()) } else { Err(answer.message().to_owned()) }
    })
    .await?;
    desk.judge(Asked::Validate);
    desk.send(&own, Method::PATCH, GATE, to("1-24")).await?.expect("the controller changes the template")?;
    desk.send(&own, Method::DELETE, GATE, json!({})).await?.expect("the controller deletes it")?;
    ensure!(desk.stage.guard.calls() == 0, "{} calls about what the controller writes", desk.stage.guard.calls());
    let done = json!({"status": {"phase": "RolledBack", "state": "RolledBack"}});
    send(&desk.stage.plane.client(), Method::PATCH, &format!("{ONE}/status"), Some((MERGE, &done)), &admin)
        .await?
        .expect("its status")?;
    desk.judge(Asked::Mutate);
    Ok(())
}

/// In modes that only look, an approval may meet no webhook of ours. Then it is not marked, and nobody marks it for somebody else.
async fn without_a_webhook(desk: Desk, half: &str, most: &str) -> Result<()> {
    let Desk { stage, registered } = desk;
    for registration in registered {
        registration.remove().await?;
    }
    let desk = Desk { stage, registered: Vec::new() };
    refused(&desk.annotate("bob", Some(half), None).await?, "bob approves", &["bob may not approve"])?;
    let all = marks(desk.annotate("alice", Some(half), None).await?, "alice approves")?;
    ensure!(all == (half.to_owned(), String::new()), "{all:?}");
    let as_bob = ["alice may not mark GatewayRollout edge/public as approved by bob"];
    refused(&desk.annotate("alice", Some(most), Some("bob")).await?, "alice approves in bob's name", &as_bob)?;
    let as_alice = ["bob may not mark GatewayRollout edge/public as approved by alice"];
    refused(&desk.annotate("bob", None, Some("alice")).await?, "bob marks it", &as_alice)?;
    let all = marks(desk.annotate("alice", Some(most), Some("alice")).await?, "alice marks it herself")?;
    ensure!(all == (most.to_owned(), "alice".to_owned()), "{all:?}");
    refused(
        &desk.annotate("bob", None, Some("bob")).await?,
        "bob renames it",
        &["bob may not mark GatewayRollout edge/public as approved by bob"],
    )
}
