//! Values: wrong ones are refused with the key's name, and each has its default, its comment and its place in the schema.

use anyhow::{Context, Result, ensure};
use jiff::SignedDuration;
use libtest_mimic::Trial;
use revguard::cli::certificates::duration;
use revguard::controller::certificates::plan::Timing;
use revguard::rules::{Policy, RULES};
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use crate::render::{chart, file, find, helm, render, render_into, text, words};
use crate::test;

pub fn tests() -> Vec<Trial> {
    vec![
        test("values::wrong_ones_are_refused_by_name", &["helm"], wrong_ones),
        test("values::what_a_schema_cannot_say_is_said", &["helm"], what_a_schema_cannot_say),
        test("values::a_values_file_may_say_off_without_quotes", &["helm"], off_without_quotes),
        test("values::what_is_just_inside_the_limits_is_taken_by_both", &["helm"], just_inside),
        test("values::the_schema_names_every_rule", &[], codes_are_current),
        test("values::names_are_such_as_the_api_server_takes", &["helm"], names_are_short),
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
        ("policy.rules.NS999=Warn", "NS999"),
        ("policy.rules.NS008=true", "/policy/rules/NS008"),
        ("policy.strict[0]=NS999", "/policy/strict/0"),
        ("policy.repair.NS999=true", "/policy/repair"),
        ("policy.mutations.NS002=yes", "/policy/mutations/NS002"),
        ("policy.mutations.NS001=true", "/policy/mutations/NS001"),
        ("policy.mutations.NS005=Not_A_Name", "/policy/mutations/NS005"),
        ("policy.mutations.NS004=true", "NS004"),
        ("controller.auditInterval=0s", "/controller/auditInterval"),
        ("certificates.certValidity=0h", "/certificates/certValidity"),
        ("certificates.caValidity=99999999h", "/certificates/caValidity"),
        ("webhook.maxConnections=9999999999", "/webhook/maxConnections"),
        ("logLevel=a=b=c", "/logLevel"),
        // A target of that name, and silence from everything else.
        ("logLevel=inof", "/logLevel"),
        ("certificates.caValidity=null", "caValidity"),
        ("webhook=null", "webhook"),
        ("fullnameOverride=a.b", "/fullnameOverride"),
        ("fullnameOverride=1guard", "/fullnameOverride"),
        ("fullnameOverride=a-name-of-forty-one-letters-and-more-which-is", "/fullnameOverride"),
        ("nameOverride=a.b", "/nameOverride"),
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
        ("guard", "certificates.caValidity=720h", "certificates.certValidity 2160h is more than"),
        ("guard", "certificates.certValidity=525601m", "certificates.certValidity 525601m is more than"),
        ("guard", "certificates.overlap=731h", "certificates.overlap 731h"),
        ("guard", "certificates.mode=certManager,certificates.certManager.duration=8759h61m", "certManager.duration"),
        ("guard", "webhook.hostNetwork=true,webhook.port=443", "webhook.port 443"),
        ("guard", "webhook.hostNetwork=true,webhook.healthPort=1023", "webhook.healthPort 1023"),
        ("guard", "webhook.hostNetwork=true,webhook.port=10250", "the kubelet's"),
        ("guard", "webhook.hostNetwork=true,webhook.healthPort=10250", "the kubelet's"),
        ("guard", "policy.stale.age=179s", "policy.stale.age 179s"),
        ("guard", "policy.stale.age=2m", "policy.stale.age 2m"),
    ] {
        let error = render_into(namespace, &["--set", set])
            .err()
            .with_context(|| format!("{set} in {namespace} is taken"))?
            .to_string();
        ensure!(error.contains(words), "{set} in {namespace}: {error}");
    }
    Ok(())
}

/// Just inside every limit: the chart takes it, and so does the binary.
fn just_inside() -> Result<()> {
    for set in [
        "certificates.caValidity=720h,certificates.certValidity=720h,certificates.overlap=60h",
        "certificates.caValidity=525600m,certificates.certValidity=8760h",
        "policy.stale.age=180s,controller.auditInterval=1s",
        "policy.stale.age=3m,logLevel=warn\\,revguard=debug\\,revguard::rules=trace",
        "certificates.certManager.duration=8761h",
        "webhook.port=10250,webhook.healthPort=443",
        "webhook.maxConnectionAge=0s,certificates.overlap=0s",
    ] {
        let objects = render(&["--set", set]).with_context(|| set.to_owned())?;
        parse(text(find(&objects, "ConfigMap", "revguard-policy")?, "/data/policy.yaml"))?;
        let argument = |name: &str, flag: &str| -> Result<String> {
            let deployment = find(&objects, "Deployment", name)?;
            let all = words(&deployment["spec"]["template"]["spec"]["containers"][0]["args"]);
            all.iter().find_map(|a| Some(a.strip_prefix(flag)?.to_owned())).with_context(|| flag.to_owned())
        };
        let lasts = |flag: &str| -> Result<SignedDuration> {
            let read = duration(&argument("revguard-controller", flag)?).map_err(anyhow::Error::msg)?;
            Ok(SignedDuration::try_from(read)?)
        };
        let timing = Timing {
            ca_validity: lasts("--ca-validity=")?,
            cert_validity: lasts("--cert-validity=")?,
            overlap: lasts("--cert-overlap=")?,
        };
        timing.check().map_err(|error| anyhow::anyhow!("{set}: {error}"))?;
        EnvFilter::try_new(argument("revguard-webhook", "--log=")?)?;
    }
    Ok(())
}

/// The codes in the schema are those of the catalogue. `UPDATE=1` rewrites them.
fn codes_are_current() -> Result<()> {
    const BEGIN: &str = "\"^(ALW001";
    const END: &str = ")$\"";
    let codes: Vec<&str> = RULES.iter().map(|rule| rule.code).collect();
    let mut parts = file("values.schema.json").split(BEGIN).map(str::to_owned).collect::<Vec<_>>();
    ensure!(parts.len() == 4, "rules, strict and repair of the policy name rules: {} places", parts.len() - 1);
    for part in &mut parts[1..] {
        let (_, rest) = part.split_once(END).context("an end")?;
        *part = format!("{}{END}{rest}", codes[1..].iter().map(|code| format!("|{code}")).collect::<String>());
    }
    let wanted = parts.join(BEGIN);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(chart().join("values.schema.json"), &wanted)?;
    }
    ensure!(file("values.schema.json") == wanted, "values.schema.json: UPDATE=1 cargo test --test chart");
    Ok(())
}

/// Helm reads values files as YAML 1.1, where Off, off and no are false. `--set` does not.
fn off_without_quotes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("values.yaml");
    for (values, wanted) in [
        ("rules: {NS008: Off, NS004: \"Off\", NS001: Warn}", "rules: {NS008: \"Off\", NS004: \"Off\", NS001: Warn}"),
        ("mutations: {NS001: Off, NS002: off, NS005: Off, GW014: no}", "mutations: {}"),
        ("mutations: {NS001: \"Off\", NS002: \"Off\", NS005: \"Off\", WL004: \"Off\"}", "mutations: {}"),
        ("mutations: {NS001: Rev, WL004: on, NS005: prod}", "mutations: {NS001: Rev, WL004: true, NS005: prod}"),
    ] {
        std::fs::write(&path, format!("policy:\n  {values}\n"))?;
        let objects = render(&["-f", path.to_str().context("a path")?]).with_context(|| values.to_owned())?;
        let rendered = text(find(&objects, "ConfigMap", "revguard-policy")?, "/data/policy.yaml");
        // The program reads false as Off itself; here it is not asked to.
        ensure!(!rendered.contains(": Off") && !rendered.contains("NS001: false"), "{values}: {rendered}");
        let (policy, wanted) = (parse(rendered)?, parse(wanted)?);
        ensure!(policy.rules == wanted.rules && policy.mutations == wanted.mutations, "{values}: {rendered}");
        let mends = objects.iter().any(|o| o.to_string().contains("mutations.revguard.dev"));
        ensure!(mends == (wanted.mutations != Policy::default().mutations), "{values}: registered: {mends}");
    }
    Ok(())
}

fn parse(policy: &str) -> Result<Policy> {
    Policy::parse(policy).map_err(anyhow::Error::msg)
}

/// Every name of the chart with the longest prefix that it takes is one that the API server takes; a release may be called otherwise.
fn names_are_short() -> Result<()> {
    let longest = format!("fullnameOverride={}", "g".repeat(40));
    for object in render(&["--set", &longest, "--set", "certificates.mode=certManager"])? {
        let (kind, name) = (text(&object, "/kind"), text(&object, "/metadata/name"));
        let label = name.len() <= 63 && !name.contains('.');
        ensure!(label || kind == "CustomResourceDefinition", "{kind} {name}");
    }
    for release in ["a.b", "1st"] {
        let mut command = helm();
        command.args(["template", release]).arg(chart()).args(["--namespace", "guard"]);
        let said = String::from_utf8(command.output()?.stderr)?;
        ensure!(said.contains("Set fullnameOverride"), "{release}: {said}");
        let output = command.args(["--set", "fullnameOverride=guard"]).output()?;
        ensure!(output.status.success(), "{release}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn keys_of_the_policy() -> Result<()> {
    let schema: Value = serde_json::from_str(&file("values.schema.json"))?;
    let listed = schema["properties"]["policy"]["properties"].as_object().context("policy")?;
    // The program lists what it knows when it is asked for something else.
    let error = Policy::parse("nonsense: 1").err().context("nonsense is a key")?;
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

/// Templates use it as it is: a number, a switch, a text that cannot be empty, or what holds some of these.
fn must_be_there(schema: &Value, value: &Value) -> bool {
    match value {
        Value::Object(all) => all.iter().any(|(key, value)| match schema["properties"].get(key) {
            Some(inner) => must_be_there(inner, value),
            None => false,
        }),
        Value::Array(_) | Value::Null => false,
        Value::String(_) => !jsonschema::is_valid(schema, &json!("")),
        _ => true,
    }
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
                Some(value) => {
                    let required = words(&schema["required"]).contains(key);
                    if !required && must_be_there(inner, value) {
                        wrong
                            .push(format!("{at}.{key}: null leaves a hole in what is rendered; `required` refuses it"));
                    }
                    walk(&format!("{at}.{key}"), inner, value, wrong);
                }
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
