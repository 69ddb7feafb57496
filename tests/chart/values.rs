//! Values: wrong ones are refused with the key's name, and each has its default, its comment and its place in the schema.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::render::{file, render, render_into};
use crate::test;

pub fn tests() -> Vec<Trial> {
    vec![
        test("values::wrong_ones_are_refused_by_name", &["helm"], wrong_ones),
        test("values::what_a_schema_cannot_say_is_said", &["helm"], what_a_schema_cannot_say),
        test("values::the_schema_knows_the_keys_of_the_policy", &[], keys_of_the_policy),
        test("values::schema_and_defaults_have_the_same_keys", &[], same_keys),
    ]
}

fn wrong_ones() -> Result<()> {
    for (set, key) in [
        ("mode=observe", "/mode"),
        ("modus=warn", "modus"),
        ("webhook.replicas=0", "/webhook/replicas"),
        ("webhook.replicas=three", "/webhook/replicas"),
        ("webhook.replica=3", "replica"),
        ("webhook.port=70000", "/webhook/port"),
        ("webhook.maxConnectionAge=600", "/webhook/maxConnectionAge"),
        ("controller.auditInterval=soon", "/controller/auditInterval"),
        ("webhooks.namespaces.failurePolicy=fail", "/webhooks/namespaces/failurePolicy"),
        ("webhooks.workloads.timeoutSeconds=10", "/webhooks/workloads/timeoutSeconds"),
        ("webhooks.pods.failurePolicy=Fail", "pods"),
        ("webhooks.excludedNamespaces[0]=Not_A_Name", "/webhooks/excludedNamespaces/0"),
        ("certificates.mode=letsencrypt", "/certificates/mode"),
        ("certificates.caBundle=x", "/certificates/caBundle"),
        ("image.digest=abc", "/image/digest"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("logFormat=xml", "/logFormat"),
        ("policy.modes=x", "modes"),
        ("policy.rules.NS004=deny", "/policy/rules/NS004"),
        ("policy.rules.NS4=Off", "NS4"),
        ("policy.canaryMinorSkip=3", "/policy/canaryMinorSkip"),
        ("serviceMonitor.enabled=maybe", "/serviceMonitor/enabled"),
        ("networkPolicy.apiServerPorts[0]=https", "/networkPolicy/apiServerPorts/0"),
        ("vap.breakGlassGroups[0]=", "/vap/breakGlassGroups/0"),
    ] {
        let error = render(&["--set", set]).err().with_context(|| format!("{set} is taken"))?.to_string();
        ensure!(error.contains("schema") && error.contains(key), "{set}: {key} is not named in {error}");
    }
    Ok(())
}

fn what_a_schema_cannot_say() -> Result<()> {
    for (namespace, set, words) in [
        ("kube-system", "mode=warn", "kube-system"),
        ("kube-monitoring", "mode=warn", "kube-monitoring"),
        ("istio-system", "mode=warn", "istio-system"),
        ("guard", "policy.mode=warn", "policy.mode"),
        ("guard", "certificates.mode=existingSecret", "certificates.caBundle"),
        ("guard", "certificates.existingSecret=mine", "certificates.mode is own"),
        ("guard", "clientCertificate.name=kube-apiserver", "clientCertificate.caConfigMap"),
        ("guard", "webhook.healthPort=8443", "webhook.healthPort"),
    ] {
        let error = render_into(namespace, &["--set", set])
            .err()
            .with_context(|| format!("{set} in {namespace} is taken"))?
            .to_string();
        ensure!(error.contains(words), "{set} in {namespace}: {error}");
    }
    Ok(())
}

fn keys_of_the_policy() -> Result<()> {
    let schema: Value = serde_json::from_str(&file("values.schema.json"))?;
    let listed = schema["properties"]["policy"]["properties"].as_object().context("policy")?;
    // The program lists what it knows when it is asked for something else.
    let error = revguard::rules::Policy::parse("nonsense: 1").err().context("nonsense is a key")?;
    let known =
        error.split_once("one of ").and_then(|(_, rest)| rest.split_once(" at line")).context("no list of keys")?.0;
    let known: Vec<&str> = known.split(", ").collect();
    ensure!(known.len() > 5, "{error}");
    let missing: Vec<&&str> = known.iter().filter(|key| !listed.contains_key(**key)).collect();
    ensure!(missing.is_empty(), "values.schema.json, policy: {missing:?} are missing");
    let extra: Vec<&String> = listed.keys().filter(|key| !known.contains(&key.as_str())).collect();
    ensure!(extra.is_empty(), "values.schema.json, policy: the program does not know {extra:?}");
    Ok(())
}

/// A key of one that the other has not is a value that nobody can set, or one without a default.
fn same_keys() -> Result<()> {
    fn walk(at: &str, schema: &Value, values: &Value, wrong: &mut Vec<String>) {
        let (Some(properties), Some(values)) = (schema["properties"].as_object(), values.as_object()) else { return };
        // Free maps, and those that are empty until somebody fills them.
        if at == ".policy" || values.is_empty() {
            return;
        }
        if schema["additionalProperties"] != Value::Bool(false) {
            wrong.push(format!("{at}: takes any key"));
        }
        for (key, inner) in properties {
            match values.get(key) {
                Some(value) => walk(&format!("{at}.{key}"), inner, value, wrong),
                None if at.is_empty() && key == "global" => {}
                None => wrong.push(format!("{at}.{key}: no default in values.yaml")),
            }
        }
    }
    let schema: Value = serde_json::from_str(&file("values.schema.json"))?;
    let values: Value = serde_saphyr::from_str(&file("values.yaml"))?;
    let mut wrong = Vec::new();
    walk("", &schema, &values, &mut wrong);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
