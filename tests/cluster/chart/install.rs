//! Installed, upgraded and removed by Helm.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::render::{NAMESPACE, RELEASE, chart, helm, render};
use crate::harness::objects::Scope;
use crate::harness::wait::wait_until;
use crate::harness::{ControlPlane, Options};

/// Definitions of what the chart speaks of and no cluster has by itself. Their schemas take anything: the real ones are those of
/// the Prometheus operator and cert-manager.
pub(super) fn foreign() -> Vec<Value> {
    let of = |group: &str, kind: &str, plural: &str| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
            },
        })
    };
    vec![
        of("monitoring.coreos.com", "ServiceMonitor", "servicemonitors"),
        of("monitoring.coreos.com", "PrometheusRule", "prometheusrules"),
        of("cert-manager.io", "Certificate", "certificates"),
        of("cert-manager.io", "Issuer", "issuers"),
    ]
}

/// Every shape of the chart that differs in kinds of objects.
const SHAPES: &[&[&str]] = &[
    &[],
    &["--set", "mode=audit"],
    &["--set", "webhook.port=443,controller.healthPort=80,podSecurityContext.runAsUser=null"],
    &["--set", "webhook.hostNetwork=true,policy.mutations.NS002=true,clientCertificate.caConfigMap=ca"],
    &["--set", "certificates.mode=certManager,serviceMonitor.enabled=true,prometheusRule.enabled=true"],
    &[
        "--set",
        "networkPolicy.enabled=false,dashboard.enabled=false,vap.enabled=false,priorityClassName=,tests.enabled=false",
    ],
];

/// The API server's own schemas, admission and validation, field by field.
pub async fn every_rendered_object_is_valid() -> Result<()> {
    // Names of the release are the same for everybody: nobody else may be here.
    let plane = ControlPlane::start(Options::default()).await?;
    let mut scope = Scope::new(&plane);
    scope.apply(&foreign()).await?;
    scope.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})]).await?;
    scope.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}})]).await?;
    for shape in SHAPES {
        let objects = render(shape)?;
        let text: Vec<String> = objects.iter().map(ToString::to_string).collect();
        let input = text.join("\n---\n");
        // strict: a misspelt field is an error and not dropped.
        let apply = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"];
        let output = plane.kubectl_as(&plane.kubeconfig(), &apply, &input).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !said.contains("arning"), "{shape:?}: {said}");
    }
    Ok(())
}

pub(super) async fn run(plane: &ControlPlane, arguments: &[&str]) -> Result<String> {
    let mut command = helm();
    command.env("KUBECONFIG", plane.kubeconfig()).args(arguments).args(["--namespace", NAMESPACE]);
    let line = arguments.join(" ");
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "helm {line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

pub(super) async fn ours(plane: &ControlPlane) -> Result<Vec<Value>> {
    const KINDS: &str = "deployments,services,serviceaccounts,secrets,configmaps,poddisruptionbudgets,networkpolicies,\
                         resourcequotas,roles,rolebindings,clusterroles,clusterrolebindings,\
                         validatingwebhookconfigurations,mutatingwebhookconfigurations,validatingadmissionpolicies,\
                         validatingadmissionpolicybindings,servicemonitors,prometheusrules,namespaces";
    let list = ["get", KINDS, "-A", "-l", "app.kubernetes.io/name=revguard", "-o", "json"];
    let output = plane.kubectl(&list).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// What a person does: install, change the mode, go back, remove. What others wrote into our objects stays meanwhile.
pub async fn installed_upgraded_and_gone() -> Result<()> {
    // Names of the release are the same for everybody: nobody else may be here.
    let plane = ControlPlane::start(Options::default()).await?;
    let mut scope = Scope::new(&plane);
    scope.apply(&foreign()).await?;
    let chart = chart();
    let chart = chart.to_str().context("a path")?;
    // Nothing may be called: no pod runs here.
    let ignore = "webhooks.namespaces.failurePolicy=Ignore,webhooks.controlPlane.failurePolicy=Ignore,\
                  webhooks.gateways.failurePolicy=Ignore";
    let notes = run(&plane, &["install", RELEASE, chart, "--create-namespace", "--set", ignore]).await?;
    ensure!(
        notes.contains("in mode enforce") && notes.contains("kubectl delete validatingwebhookconfigurations"),
        "{notes}"
    );
    let installed = ours(&plane).await?;
    for kind in ["ServiceMonitor", "PrometheusRule", "ValidatingWebhookConfiguration", "NetworkPolicy"] {
        ensure!(installed.iter().any(|object| object["kind"] == kind), "{kind} is not there");
    }
    for object in &installed {
        ensure!(object["metadata"].get("finalizers").is_none(), "{} would hang: {object}", object["metadata"]["name"]);
    }

    // The controller publishes its CA by server-side apply, and Helm leaves that alone.
    let ca = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t";
    let webhooks =
        installed.iter().find(|object| object["kind"] == "ValidatingWebhookConfiguration").context("webhooks")?;
    let named = webhooks["webhooks"].as_array().context("webhooks")?;
    // A real certificate, because the API server reads what it is given.
    let pem = revguard::admission::self_signed::Authority::new(std::time::Duration::from_secs(3600))?;
    let bundle = json!(k8s_openapi::ByteString(pem.pem().as_bytes().to_vec()));
    ensure!(bundle.as_str().is_some_and(|text| text.starts_with(&ca[..20])), "not in base64");
    let published: Vec<Value> =
        named.iter().map(|hook| json!({"name": hook["name"], "clientConfig": {"caBundle": bundle}, "sideEffects": "None", "admissionReviewVersions": ["v1"]})).collect();
    let apply = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": RELEASE}, "webhooks": published});
    let apply_as = ["apply", "--server-side", "--field-manager=revguard-ca", "-f", "-"];
    let output = plane.kubectl_as(&plane.kubeconfig(), &apply_as, &apply.to_string()).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let secret =
        ["patch", "secret", "revguard-webhook-tls", "-n", NAMESPACE, "-p", "{\"stringData\":{\"tls.crt\":\"x\"}}"];
    ensure!(plane.kubectl(&secret).await?.status.success(), "no Secret to write into");

    run(&plane, &["upgrade", RELEASE, chart, "--set", ignore, "--set", "mode=warn,webhook.replicas=2"]).await?;
    let kept = |objects: &[Value]| -> Result<()> {
        let of = |kind: &str, name: &str| {
            objects
                .iter()
                .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
                .cloned()
                .context(kind.to_owned())
        };
        for hook in of("ValidatingWebhookConfiguration", RELEASE)?["webhooks"].as_array().context("webhooks")? {
            ensure!(hook["clientConfig"]["caBundle"] == bundle, "Helm took the CA out of {}", hook["name"]);
        }
        ensure!(of("Secret", "revguard-webhook-tls")?["data"]["tls.crt"] == "eA==", "Helm emptied the Secret");
        Ok(())
    };
    let upgraded = ours(&plane).await?;
    kept(&upgraded)?;
    let policy = upgraded.iter().find(|o| o["metadata"]["name"] == "revguard-policy").context("the policy")?;
    ensure!(policy["data"]["policy.yaml"].as_str().is_some_and(|text| text.contains("mode: warn")), "{policy}");
    run(&plane, &["rollback", RELEASE, "1"]).await?;
    kept(&ours(&plane).await?)?;

    run(&plane, &["uninstall", RELEASE]).await?;
    wait_until(std::time::Duration::from_secs(20), "everything of the release gone", || async {
        let left = ours(&plane).await.map_err(|error| error.to_string())?;
        let names: Vec<String> = left.iter().map(|o| format!("{} {}", o["kind"], o["metadata"]["name"])).collect();
        if names.is_empty() { Ok(()) } else { Err(format!("left: {names:?}")) }
    })
    .await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    scope.apply(&[namespace]).await?;
    Ok(())
}
