//! The admission policy over webhook configurations, as the chart has it: what it refuses, and everything that must pass.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::{Env, HOME, INJECTORS, LATER, PARAMETERS, SOON, STATE, VALIDATORS};
use crate::case_table::Case;
use crate::harness::Options;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial!(ApiServer, the_policy_refuses_what_would_break_the_mesh_and_nothing_else),
        trial!(ApiServer, the_policy_refuses_again_after_it_was_gone),
        trial!(ApiServer, what_nobody_renews_says_its_age_and_can_be_put_aside),
    ]
}

const TEMPLATE: &str = include_str!("../../../charts/revguard/templates/validatingadmissionpolicy.yaml");

/// The template with its few actions filled in; what Helm makes of it, the tests of the chart compare.
pub fn rendered() -> Result<String> {
    let mut out = String::new();
    let body = TEMPLATE.split_once("*/ -}}\n").context("a head")?.1;
    for line in body.lines() {
        let action = line.trim();
        if action.starts_with("{{-") {
            continue;
        }
        out.push_str(
            &line
                .replace("{{ $fullname }}", "revguard")
                .replace("{{ .Release.Namespace }}", HOME)
                .replace("{{ .Values.vap.breakGlassGroups | toJson }}", r#"["system:masters"]"#),
        );
        out.push('\n');
    }
    ensure!(!out.contains("{{"), "an action that this does not know:\n{out}");
    Ok(out)
}

const USERS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: default}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api, istio.io/rev: '1-23'}}
    spec: {containers: [{name: api, image: api}]}
";

/// jane, who may do everything but is in no break-glass group.
struct Jane<'a>(&'a Env, std::path::PathBuf);

impl Jane<'_> {
    async fn run(&self, args: &[&str], input: &str) -> Result<(bool, String)> {
        let output = self.0.plane.kubectl_as(&self.1, args, input).await?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), said))
    }

    async fn passes(&self, args: &[&str], input: &str) -> Result<()> {
        let (ok, said) = self.run(args, input).await?;
        ensure!(ok, "{args:?}: {said}");
        Ok(())
    }

    /// It comes to be let through.
    async fn until_passed(&self, what: &str, args: &[&str]) -> Result<()> {
        wait_until(SOON, what, || async {
            let (ok, said) = self.run(args, "").await.map_err(|e| format!("{e:#}"))?;
            if ok { Ok(()) } else { Err(said) }
        })
        .await
    }

    /// It comes to be refused with this word. An API server looks every 30 seconds which kinds there are.
    async fn until_denied(&self, what: &str, args: &[&str], word: &str) -> Result<()> {
        wait_until(LATER, what, || async {
            let (ok, said) = self.run(args, "").await.map_err(|e| format!("{e:#}"))?;
            if !ok && said.contains(word) { Ok(()) } else { Err(said) }
        })
        .await
    }

    /// It is refused with all of these words.
    async fn denied(&self, args: &[&str], input: &str, words: &[&str]) -> Result<String> {
        let (ok, said) = self.run(args, input).await?;
        ensure!(
            !ok && said.contains("ValidatingAdmissionPolicy 'revguard-webhook-configurations'"),
            "{args:?}: {said}"
        );
        for word in words {
            ensure!(said.contains(word), "{args:?}: no {word:?} in {said}");
        }
        Ok(said)
    }
}

fn patch(name: &str, operations: &Value) -> Vec<String> {
    let kind = if name.contains("valid") { "validatingwebhookconfiguration" } else { "mutatingwebhookconfiguration" };
    ["patch", kind, name, "--type=json", "-p"].map(str::to_owned).into_iter().chain([operations.to_string()]).collect()
}

fn args(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

const VWC: &str = "validatingwebhookconfiguration";
const MWC: &str = "mutatingwebhookconfiguration";
const POLICY: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/revguard-webhook-configurations";
const BINDING: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/revguard-webhook-configurations";
const SERVICE: &str = "/webhooks/0/clientConfig/service/name";

fn validator(name: &str, selector: &Value, hook: &str) -> String {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{
            "name": hook, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
            "clientConfig": {"service": {"name": "istiod-1-24", "namespace": "istio-system"}},
            "objectSelector": selector,
            "rules": [{"apiGroups": ["networking.istio.io"], "apiVersions": ["*"], "operations": ["CREATE"],
                "resources": ["*"]}],
        }],
    })
    .to_string()
}

async fn the_policy_refuses_what_would_break_the_mesh_and_nothing_else() -> Result<()> {
    let env = Env::start().await?;
    env.apply(USERS).await?;
    env.apply(&rendered()?).await?;
    let jane = Jane(&env, env.plane.kubeconfig_of("jane", &["people"])?);
    // Without parameters nothing is refused.
    jane.passes(&["delete", MWC, "istio-revision-tag-prod", "--dry-run=server"], "").await?;
    let controller = env.controller("", &["--certificates", "external"]).await?;
    controller.leads().await?;
    let default = ["delete", VWC, "istiod-default-validator", "--dry-run=server"];
    jane.until_denied("the policy in force", &default, "[VW010").await?;
    let policy = env.get(POLICY).await?;
    ensure!(policy["spec"]["failurePolicy"] == "Ignore", "{policy}");

    // VW010: the approved validator.
    let words = ["[VW010 validator-taken-away]", "why:", "fix:", "more: revguard explain VW010"];
    let said = jane.denied(&["delete", VWC, "istiod-default-validator"], "", &words).await?;
    println!("{}", said.trim_end());
    let astray =
        patch("istiod-default-validator", &json!([{"op": "replace", "path": SERVICE, "value": "istiod-1-99"}]));
    jane.denied(&args(&astray), "", &["would be led to Service istio-system/istiod-1-99", "why:", "fix:"]).await?;
    let cut = [
        json!([{"op": "replace", "path": "/webhooks/0/objectSelector", "value": {"matchLabels": {"never": "match"}}}]),
        json!([{"op": "replace", "path": "/webhooks/0/rules/0/apiGroups", "value": ["telemetry.istio.io"]}]),
        json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["CREATE"]}]),
        json!([{"op": "add", "path": "/webhooks/0/namespaceSelector", "value": {"matchLabels": {"a": "b"}}}]),
        json!([{"op": "remove", "path": "/webhooks/0"}]),
    ];
    for operations in &cut {
        jane.denied(&args(&patch("istiod-default-validator", operations)), "", &["would no longer validate it"])
            .await?;
    }
    for selector in [json!({}), json!({"matchExpressions": [{"key": "istio.io/rev", "operator": "DoesNotExist"}]})] {
        let second = validator("copy", &selector, "validation.istio.io");
        jane.denied(
            &["create", "-f", "-"],
            &second,
            &["copy would be a second webhook", "beside istiod-default-validator"],
        )
        .await?;
    }
    // VW011: injectors and validators of what is in use.
    let said =
        jane.denied(&["delete", MWC, "istio-revision-tag-default"], "", &["[VW011 injector-in-use]", "namespace shop"]);
    println!("{}", said.await?.trim_end());
    jane.denied(&["delete", MWC, "istio-sidecar-injector-1-23"], "", &["Deployment default/api asks for 1-23"]).await?;
    jane.denied(&["delete", VWC, "istio-validator-1-23-istio-system"], "", &["[VW011"]).await?;
    let said = jane.denied(&["delete", MWC, "--all"], "", &["[VW011"]).await?;
    ensure!(env.get(&format!("{INJECTORS}/istio-sidecar-injector-1-23")).await?["kind"].is_string(), "{said}");
    let tag = patch("istio-revision-tag-default", &json!([{"op": "replace", "path": SERVICE, "value": "istiod-1-99"}]));
    jane.denied(&args(&tag), "", &["istiod-1-99, which is missing or has no ready endpoint", "would not start"])
        .await?;

    // Ordinary life. (Tags and injectors of nobody went with --all; the mesh is put back as Helm would.)
    env.apply(super::MESH).await?;
    let ca = json!([
        {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": null},
        {"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"},
    ]);
    for name in ["istiod-default-validator", "istio-validator-1-23-istio-system", "istio-sidecar-injector-1-23"] {
        jane.passes(&args(&patch(name, &ca)), "").await.context("an istiod's own patch")?;
    }
    jane.passes(&["apply", "--server-side", "--force-conflicts", "-f", "-"], super::MESH)
        .await
        .context("helm upgrade")?;
    let of_revision = json!({"matchExpressions": [{"key": "istio.io/rev", "operator": "In", "values": ["1-25"]}]});
    let next = validator("istio-validator-1-25-istio-system", &of_revision, "rev.validation.istio.io");
    jane.passes(&["create", "-f", "-"], &next).await.context("helm install of another revision")?;
    jane.passes(&["delete", VWC, "istio-validator-1-25-istio-system"], "").await.context("and its uninstall")?;
    jane.passes(&["delete", MWC, "istio-revision-tag-prod"], "").await.context("istioctl tag remove prod")?;
    let label = json!([{"op": "replace", "path": "/metadata/labels/istio.io~1rev", "value": "1-24"}]);
    for name in ["istio-revision-tag-default", "istiod-default-validator"] {
        let mut operations = label.as_array().cloned().unwrap_or_default();
        let hooks = if name == "istiod-default-validator" { 1 } else { 4 };
        for i in 0..hooks {
            let path = format!("/webhooks/{i}/clientConfig/service/name");
            operations.push(json!({"op": "replace", "path": path, "value": "istiod-1-24"}));
        }
        jane.passes(&args(&patch(name, &json!(operations))), "").await.context("istioctl tag set default")?;
    }

    // After the move the same command passes.
    jane.denied(&["delete", MWC, "istio-sidecar-injector-1-23"], "", &["[VW011"]).await?;
    let moved = json!({"spec": {"template": {"metadata": {"labels": {"istio.io/rev": "1-24"}}}}}).to_string();
    jane.passes(&["patch", "deployment", "-n", "default", "api", "-p", &moved], "").await?;
    jane.until_passed("the same command", &["delete", MWC, "istio-sidecar-injector-1-23"]).await?;
    // In case of fire.
    jane.denied(&["delete", VWC, "istiod-default-validator"], "", &["[VW010"]).await?;
    env.delete(&format!("{VALIDATORS}/istiod-default-validator")).await.context("break glass")?;
    every_case_of_the_table(&env, &jane).await
}

/// Whatever went and came back, the policy is in force again, and by what is true then. (An API server that has ConfigMaps for
/// parameters would refuse nothing, or what it had last read: kubernetes/kubernetes#130887.)
async fn the_policy_refuses_again_after_it_was_gone() -> Result<()> {
    // With the collector of what belongs to nobody.
    let env = Env::start_without("", Options::with_controllers(&["garbage-collector-controller"])).await?;
    env.apply(USERS).await?;
    env.apply(&rendered()?).await?;
    let jane = Jane(&env, env.plane.kubeconfig_of("jane", &["people"])?);
    let more = ["--certificates", "external", "--admission-policy-interval", "1s"];
    let controller = env.controller("", &more).await?;
    controller.leads().await?;
    let (default, prod) = ("istio-revision-tag-default", "istio-revision-tag-prod");
    let [default, prod] = [default, prod].map(|name| ["delete", MWC, name, "--dry-run=server"]);
    jane.until_denied("the policy in force", &default, "[VW011").await?;
    jane.passes(&prod, "").await?;
    // The controller has seen it as well, and says so.
    let says = |is: f64| controller.until(SOON, "revguard_admission_policy_in_force", &[], move |v| v == is);
    let in_force = |state: &Value, is: &str| {
        let all = state["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().any(|c| c["type"] == "GuardInForce" && c["status"] == is)
    };
    says(1.0).await?;
    env.until(SOON, STATE, "GuardInForce", |s| in_force(s, "True")).await?;

    // Deleted and made again, by an uninstall and an installation, by the break glass and its end.
    let (both, binding): (&[&str], &[&str]) = (&[BINDING, POLICY], &[BINDING]);
    for (round, gone) in [both, binding, both, binding, both, &[POLICY], both].into_iter().enumerate() {
        let namespace = format!("asks-{round}");
        for path in gone {
            env.delete(path).await?;
        }
        jane.until_passed("nothing refused", &default).await?;
        if round == 1 {
            says(0.0).await?;
            env.until(SOON, STATE, "GuardInForce", |s| in_force(s, "False")).await?;
        }
        // What changes meanwhile is known afterwards.
        env.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{istio.io/rev: prod}}}}}}"
        ))
        .await?;
        env.apply(&rendered()?).await?;
        jane.until_denied("the policy in force again", &prod, &format!("namespace {namespace}")).await?;
        jane.denied(&default, "", &["[VW011"]).await?;
        env.merge(&format!("/api/v1/namespaces/{namespace}"), json!({"metadata": {"labels": {"istio.io/rev": null}}}))
            .await?;
        jane.until_passed("a tag that nobody asks for", &prod).await?;
    }

    says(1.0).await?;
    env.until(SOON, STATE, "GuardInForce", |s| in_force(s, "True")).await?;

    // Its kind goes and comes back.
    env.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/guardparameters.revguard.dev").await?;
    jane.until_passed("nothing refused", &default).await?;
    says(0.0).await?;
    env.define_own().await?;
    jane.until_denied("the policy in force with its kind", &default, "[VW011").await?;
    says(1.0).await?;

    // What an installation knew goes with it, and the next one knows for itself.
    let release = format!("/api/v1/namespaces/{HOME}/configmaps/revguard-report");
    env.delete(&release).await?;
    env.until_gone(LATER, PARAMETERS).await?;
    jane.until_passed("nothing refused", &default).await?;
    env.create(&format!("/api/v1/namespaces/{HOME}/configmaps"), json!({"metadata": {"name": "revguard-report"}}))
        .await?;
    jane.until_denied("the policy in force in a new installation", &default, "[VW011").await
}

/// While no controller runs the policy refuses by what was known last. It says of when that is and how to be rid of it, and
/// that helps.
async fn what_nobody_renews_says_its_age_and_can_be_put_aside() -> Result<()> {
    let env = Env::start().await?;
    env.apply(USERS).await?;
    env.apply(&rendered()?).await?;
    let jane = Jane(&env, env.plane.kubeconfig_of("jane", &["people"])?);
    let mut controller = env.controller("", &["--certificates", "external"]).await?;
    controller.leads().await?;
    let default = ["delete", MWC, "istio-revision-tag-default", "--dry-run=server"];
    jane.until_denied("the policy in force", &default, "[VW011").await?;
    controller.process.terminate(Duration::from_secs(20)).await?;
    let as_of = env.get(PARAMETERS).await?["spec"]["asOf"].as_str().context("asOf")?.to_owned();
    let age = Timestamp::now().duration_since(as_of.parse()?);
    ensure!(age.as_secs() < 360, "{as_of} is not when it was last seen to be so");

    // The next revision is there and answers, but nobody looks.
    env.apply(NEXT).await?;
    let tag = patch("istio-revision-tag-prod", &json!([{"op": "replace", "path": SERVICE, "value": "istiod-1-25"}]));
    let tag = args(&tag);
    let away = format!("as of {as_of}; a controller that runs renews this every 5 minutes");
    let command = format!("kubectl delete guardparameters revguard -n {HOME}");
    let words = ["istio-system/istiod-1-25, which is missing", &away, &command];
    let said = jane.denied(&tag, "", &words).await?;
    println!("{}", said.trim_end());
    jane.denied(&default, "", &["[VW011", &away, &command]).await?;
    jane.passes(&["delete", "guardparameters", "revguard", "-n", HOME], "").await?;
    jane.until_passed("the move of a tag", &tag).await?;
    jane.passes(&default, "").await?;

    // The next leader knows again, and knows better.
    let controller = env.controller("", &["--certificates", "external"]).await?;
    controller.leads().await?;
    jane.until_denied("the policy in force again", &default, "[VW011").await?;
    let back = patch("istio-revision-tag-prod", &json!([{"op": "replace", "path": SERVICE, "value": "istiod-1-24"}]));
    jane.passes(&args(&back), "").await?;
    jane.passes(&tag, "").await.context("a Service that answers")
}

/// A control plane that comes while nobody looks.
const NEXT: &str = "
apiVersion: v1
kind: Service
metadata: {name: istiod-1-25, namespace: istio-system, labels: {app: istiod, istio.io/rev: 1-25}}
spec: {ports: [{name: https-webhook, port: 443, targetPort: 15017}], selector: {app: istiod, istio.io/rev: 1-25}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: istiod-1-25-a, namespace: istio-system, labels: {kubernetes.io/service-name: istiod-1-25}}
addressType: IPv4
ports: [{name: https-webhook, port: 15017}]
endpoints: [{addresses: [10.0.0.25], conditions: {ready: true}}]
";

/// The cases of both rules say the same through the policy as they do in process.
async fn every_case_of_the_table(env: &Env, jane: &Jane<'_>) -> Result<()> {
    for case in Case::all().into_iter().filter(|c| c.path.starts_with("vw01")) {
        for name in ["shop", "plain"] {
            let _ = env
                .ask(http::Method::DELETE, &format!("/apis/apps/v1/namespaces/{name}/deployments/web"), None)
                .await?;
            let labels = json!({"metadata": {"labels": {"istio-injection": null, "istio.io/rev": null}}});
            let _ = env
                .ask(
                    http::Method::PATCH,
                    &format!("/api/v1/namespaces/{name}"),
                    Some((crate::harness::raw::MERGE, labels)),
                )
                .await?;
        }
        let _ = env.ask(http::Method::DELETE, "/apis/apps/v1/namespaces/default/deployments/api", None).await?;
        let cluster: Vec<Value> = case.cluster.iter().map(|d| d.raw.clone()).collect();
        let mut scope = crate::harness::objects::Scope::new(&env.plane);
        scope.apply(&cluster).await?;
        scope.leave();
        let kind = case.request.raw["kind"].as_str().unwrap_or("").to_lowercase();
        let name = case.request.raw["metadata"]["name"].as_str().unwrap_or("");
        let command = ["delete", &kind, name, "--dry-run=server"];
        wait_until(SOON, &case.path, || async {
            let (ok, said) = jane.run(&command, "").await.map_err(|e| format!("{e:#}"))?;
            let right = match case.expect.first() {
                Some(code) => !ok && said.contains(&format!("[{code} ")),
                None => ok,
            };
            if right { Ok(()) } else { Err(said) }
        })
        .await?;
        println!("  {}: as expected", case.path);
    }
    Ok(())
}
