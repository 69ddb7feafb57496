//! Certificates that somebody else keeps: what the controller says of them is what the API server does.

use anyhow::{Context, Result};
use http::Method;
use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;
use revguard::controller::certificates::issue::{self, Pair};
use serde_json::{Value, json};

use super::{Controller, Env, HOME, SOON, VALIDATORS};
use crate::chart::render::{find, render, words};
use crate::harness::binary::Binary;
use crate::harness::objects::Scope;
use crate::harness::raw::JSON;
use crate::harness::wait::wait_until;
use crate::trial::trial;

pub fn tests() -> Vec<Trial> {
    vec![trial!(Helm, what_somebody_else_keeps_is_looked_at_where_it_is)]
}

const LIFE: SignedDuration = SignedDuration::from_hours(1000);

fn base64(text: &str) -> Value {
    json!(k8s_openapi::ByteString(text.as_bytes().to_vec()))
}

/// The Secret as kubectl makes it of two files: it has no ca.crt.
async fn keep(env: &Env, pair: &Pair) -> Result<()> {
    let secrets = format!("/api/v1/namespaces/{HOME}/secrets");
    let data = json!({"tls.crt": base64(&pair.certificate), "tls.key": base64(&pair.key)});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "mine"}, "data": data});
    if env.get(&format!("{secrets}/mine")).await.is_ok() {
        return env.merge(&format!("{secrets}/mine"), json!({"data": data})).await.map(drop);
    }
    env.create(&secrets, secret).await.map(drop)
}

/// Our own configuration, which calls the replica.
async fn trust(env: &Env, binary: &Binary, bundle: &str) -> Result<()> {
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["namespaces"]});
    let url = format!("https://{}/validate", binary.address);
    let hook = json!({
        "name": "namespaces.revguard.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
        "clientConfig": {"url": url, "caBundle": base64(bundle)}, "rules": [rule],
    });
    env.merge(&format!("{VALIDATORS}/revguard"), json!({"webhooks": [hook]})).await.map(drop)
}

/// What the API server makes of a call: it is answered, or the certificate is not believed.
async fn called(env: &Env, believed: bool) -> Result<()> {
    let both = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "both",
        "labels": {"istio-injection": "enabled", "istio.io/rev": "prod"}}});
    wait_until(SOON, if believed { "a verdict" } else { "a certificate that is not believed" }, || async {
        let answer = env.ask(Method::POST, "/api/v1/namespaces?dryRun=All", Some((JSON, both.clone()))).await;
        let said = answer.map_err(|error| format!("{error:#}"))?.body["message"].to_string();
        let (verdict, doubt) = (said.contains("NS001"), said.contains("x509: "));
        if verdict == believed && doubt != believed { Ok(()) } else { Err(said) }
    })
    .await
}

/// Rights and arguments are those of the chart.
async fn installed(env: &Env, bundle: &str) -> Result<(Vec<String>, Binary)> {
    let bundle = format!("certificates.caBundle={bundle}");
    let mode = "certificates.mode=existingSecret,certificates.existingSecret=mine";
    let objects = render(&["--set", mode, "--set", &bundle])?;
    let mut scope = Scope::new(&env.plane);
    for component in ["revguard-webhook", "revguard-controller"] {
        scope
            .apply(&[find(&objects, "Role", component)?.clone(), find(&objects, "RoleBinding", component)?.clone()])
            .await?;
    }
    scope.leave();
    let of = |component: &str, flags: &[&str]| -> Result<Vec<String>> {
        let all = &find(&objects, "Deployment", component)?["spec"]["template"]["spec"]["containers"][0]["args"];
        Ok(words(all).into_iter().filter(|a| flags.iter().any(|flag| a.starts_with(flag))).collect())
    };
    let account = env.plane.kubeconfig_of_service_account(HOME, "revguard-webhook").await?;
    let more = of("revguard-webhook", &["--tls-secret=", "--namespace="])?;
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let binary = Binary::bare(env.plane.folder(), &account, &more).await?;
    Ok((of("revguard-controller", &["--certificates=", "--tls-secret="])?, binary))
}

async fn what_somebody_else_keeps_is_looked_at_where_it_is() -> Result<()> {
    let env = Env::start().await?;
    let now = Timestamp::now();
    let (ca, other) = (issue::authority(now, LIFE)?, issue::authority(now, LIFE)?);
    let names = ["127.0.0.1".to_owned()];
    let signed = issue::leaf(&ca, now + LIFE, &names, (now, LIFE))?;
    // What cert-manager's SelfSigned issuer makes: no CA, and its own bundle.
    let alone = rcgen::generate_simple_self_signed(names.to_vec())?;
    let alone = Pair { certificate: alone.cert.pem(), key: alone.signing_key.serialize_pem() };

    keep(&env, &signed).await?;
    let (arguments, binary) = installed(&env, &ca.certificate).await?;
    binary.ready().await?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let controller: Controller = env.controller("", &arguments).await?;
    controller.leads().await?;
    for (what, served, bundle, believed) in [
        ("signed by the CA of the bundle", &signed, &ca.certificate, true),
        ("signed by another CA", &signed, &other.certificate, false),
        ("its own bundle", &alone, &alone.certificate, true),
        // Not the first CA: the API server may have a connection open that was believed then.
        ("its own, in a bundle of another's", &alone, &other.certificate, false),
    ] {
        keep(&env, served).await?;
        trust(&env, &binary, bundle).await?;
        called(&env, believed).await.context(what)?;
        let labels = [("name", "ValidatingWebhookConfiguration")];
        let wanted = f64::from(u8::from(believed));
        controller.until(SOON, "revguard_ca_bundle_current", &labels, |v| v == wanted).await.context(what)?;
    }
    let log = controller.log()?;
    anyhow::ensure!(log.contains("\"secret\":\"mine\"") && !log.contains("revguard-webhook-tls"), "{log}");
    Ok(())
}
