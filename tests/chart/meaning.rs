//! What the rendered chart means, compared with the code: arguments, ports, rights, policy, what is sent to us.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use revguard::admission::Settings;
use revguard::controller::Names;
use revguard::controller::resource::GUARD_PARAMETERS;
use revguard::model::{Kind, key};
use revguard::rules::{Check, Mode, Policy, RULES};
use revguard::wire::kinds::Watch;
use revguard::wire::{KINDS, row};
use serde_json::{Value, json};

use crate::render::{NAMESPACE, RELEASE, file, find, of_kind, render, text, words};
use crate::test;

pub fn tests() -> Vec<Trial> {
    vec![
        test("meaning::pods_are_hardened_and_spread", &["helm"], pods_are_hardened),
        test("meaning::the_security_context_is_what_is_asked_for", &["helm"], security_context),
        test("meaning::low_ports_can_be_opened", &["helm"], low_ports),
        test("meaning::arguments_are_those_of_the_binary", &["helm"], arguments_parse),
        test("meaning::the_admission_policy_reads_what_the_controller_writes", &["helm"], parameters_agree),
        test("meaning::ports_are_the_same_everywhere", &["helm"], ports_agree),
        test("meaning::external_certificates_are_looked_at_where_they_are", &["helm"], external_certificates),
        test("meaning::the_controller_reaches_every_replica", &["helm"], replicas_are_reached),
        test("meaning::the_drain_fits_into_the_grace_period", &["helm"], drain_fits),
        test("meaning::rights_are_the_generated_ones", &["helm"], rights_are_generated),
        test("meaning::rollouts_may_write_where_they_are_let", &["helm"], rollouts_are_bound),
        test("meaning::istiods_are_asked_with_a_token_of_theirs", &["helm"], istiods_are_asked),
        test("meaning::the_policy_is_one_that_the_binary_reads", &["helm"], policy_parses),
        test("meaning::webhooks_ask_for_every_kind_that_rules_judge", &["helm"], webhooks_ask),
        test("meaning::webhooks_cannot_lock_a_cluster", &["helm"], webhooks_cannot_lock),
        test("meaning::nobody_else_owns_what_the_controller_writes", &["helm"], no_second_owner),
        test("meaning::names_labels_and_versions", &["helm"], names_and_labels),
        test("meaning::monitoring_comes_with_its_api", &["helm"], monitoring),
        test("meaning::images_and_placement_are_values", &["helm"], images),
        test("meaning::rendered_twice_it_is_the_same", &["helm"], the_same_twice),
    ]
}

/// Values that make different objects.
const MATRIX: &[&[&str]] = &[
    &[],
    &[
        "--set",
        "mode=audit,webhook.hostNetwork=true,webhook.port=10260,webhook.healthPort=10261,webhook.drainSeconds=40",
    ],
    &["--set", "mode=warn,certificates.mode=certManager,controller.healthPort=9090,logFormat=text"],
    &["--set", "clientCertificate.caConfigMap=client-ca,clientCertificate.name=kube-apiserver"],
    &[
        "--set",
        "rollouts.clusterWide=false,rollouts.namespaces={edge,outer-edge},networkPolicy.gatewayPorts={15090,8443}",
    ],
    &["--set", "policy.mutations.NS002=true,policy.strict[0]=NS002,policy.exempt.writers[0]=me,fullnameOverride=guard"],
    &[
        "--set",
        "certificates.mode=existingSecret,certificates.existingSecret=mine,priorityClassName=",
        "--set",
        "certificates.caBundle=-----BEGIN CERTIFICATE-----",
    ],
];

fn pod(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]
}

fn arguments(deployment: &Value) -> Vec<String> {
    words(&pod(deployment)["containers"][0]["args"])
}

/// The value of `--flag=value`.
fn argument(deployment: &Value, flag: &str) -> Result<String> {
    let prefix = format!("--{flag}=");
    let found = arguments(deployment).into_iter().find_map(|a| a.strip_prefix(&prefix).map(str::to_owned));
    found.with_context(|| format!("no --{flag}"))
}

fn pods_are_hardened() -> Result<()> {
    for values in MATRIX {
        let objects = render(values)?;
        let test = of_kind(&objects, "Pod");
        let specs = of_kind(&objects, "Deployment").into_iter().map(pod).chain(test.iter().map(|p| &p["spec"]));
        for spec in specs {
            ensure!(spec["securityContext"]["runAsNonRoot"] == true, "{spec}");
            ensure!(spec["securityContext"]["runAsUser"] == 65532, "{spec}");
            ensure!(text(spec, "/securityContext/seccompProfile/type") == "RuntimeDefault", "{spec}");
            for container in spec["containers"].as_array().context("containers")? {
                let own = &container["securityContext"];
                ensure!(own["allowPrivilegeEscalation"] == false && own["readOnlyRootFilesystem"] == true, "{own}");
                ensure!(words(&own["capabilities"]["drop"]) == ["ALL"] && own["runAsNonRoot"] == true, "{own}");
                ensure!(container["resources"]["limits"]["memory"].is_string(), "{container}");
                ensure!(
                    container["resources"]["limits"].get("cpu").is_none(),
                    "a CPU limit slows reviews: {container}"
                );
            }
        }
        for deployment in of_kind(&objects, "Deployment") {
            let spec = &deployment["spec"];
            // A node's ports are there once: with a replica on each node one more would wait for ever.
            let host = pod(deployment)["hostNetwork"] == true;
            let wanted = json!({"maxSurge": u8::from(!host), "maxUnavailable": u8::from(host)});
            ensure!(spec["strategy"]["rollingUpdate"] == wanted, "{}", spec["strategy"]);
            ensure!(pod(deployment)["topologySpreadConstraints"].as_array().is_some_and(|c| c.len() == 2), "{spec}");
            let name = text(deployment, "/metadata/name");
            let budget = find(&objects, "PodDisruptionBudget", name)?;
            ensure!(budget["spec"]["selector"] == spec["selector"], "{name}: its budget is of other pods");
            let container = &pod(deployment)["containers"][0];
            for (probe, path) in
                [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"), ("startupProbe", "/healthz")]
            {
                ensure!(text(container, &format!("/{probe}/httpGet/path")) == path, "{name}: {probe}");
            }
            let of = |key: &str| container["livenessProbe"][key].as_u64().unwrap_or(1);
            ensure!(of("periodSeconds") * of("failureThreshold") >= 60, "{name}: restarts too soon");
        }
    }
    Ok(())
}

/// The pod's security context in everything that the chart runs; a key that is there twice is no YAML that could be read.
fn security_context() -> Result<()> {
    let contexts = |set: &str| -> Result<Vec<Value>> {
        let objects = render(&["--set", set]).with_context(|| set.to_owned())?;
        let deployments = of_kind(&objects, "Deployment").into_iter().map(pod);
        let specs = deployments.chain(of_kind(&objects, "Pod").into_iter().map(|p| &p["spec"]));
        Ok(specs.map(|spec| spec["securityContext"].clone()).collect())
    };
    let ours = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    let with = |more: Value| {
        let mut all = ours.clone();
        all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        all
    };
    let user = json!({"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532});
    for (set, wanted) in [
        ("mode=enforce", with(user.clone())),
        ("podSecurityContext=null", ours.clone()),
        (
            "podSecurityContext.runAsUser=null,podSecurityContext.runAsGroup=null,podSecurityContext.fsGroup=null",
            ours.clone(),
        ),
        ("podSecurityContext.runAsUser=null", with(json!({"runAsGroup": 65532, "fsGroup": 65532}))),
        ("podSecurityContext.runAsNonRoot=false", {
            let mut all = with(user.clone());
            all["runAsNonRoot"] = json!(false);
            all
        }),
        ("podSecurityContext.seccompProfile.type=Localhost", {
            let mut all = with(user.clone());
            all["seccompProfile"]["type"] = json!("Localhost");
            all
        }),
        ("podSecurityContext.seccompProfile=null", {
            let mut all = with(user.clone());
            all.as_object_mut().context("an object")?.remove("seccompProfile");
            all
        }),
    ] {
        let all = contexts(set)?;
        ensure!(all.len() == 3 && all.iter().all(|context| *context == wanted), "{set}: {all:?}");
    }
    Ok(())
}

/// We are not root and have no capabilities: the pod's own sysctl lets us have a low port.
fn low_ports() -> Result<()> {
    let sysctls = |component: &str, set: &str| -> Result<Value> {
        let objects = render(&["--set", set])?;
        Ok(pod(find(&objects, "Deployment", component)?)["securityContext"]["sysctls"].clone())
    };
    let (webhook, controller) = ("revguard-webhook", "revguard-controller");
    let from = |port: &str| json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": port}]);
    ensure!(sysctls(webhook, "webhook.port=443")? == from("443"));
    ensure!(sysctls(webhook, "webhook.port=443,webhook.healthPort=80")? == from("80"));
    ensure!(sysctls(controller, "controller.healthPort=80")? == from("80"));
    let theirs = "podSecurityContext.sysctls[0].name=net.ipv4.ip_unprivileged_port_start,podSecurityContext.sysctls[0].value='0'";
    ensure!(sysctls(webhook, &format!("webhook.port=443,{theirs}"))?.as_array().is_some_and(|all| all.len() == 1));
    for (component, set) in
        [(controller, "webhook.port=443"), (webhook, "webhook.port=1024"), (webhook, "controller.healthPort=80")]
    {
        ensure!(sysctls(component, set)?.is_null(), "{component}, {set}: a sysctl that nobody needs");
    }
    Ok(())
}

fn arguments_parse() -> Result<()> {
    for values in MATRIX {
        let objects = render(values)?;
        let deployments = of_kind(&objects, "Deployment").into_iter().map(arguments);
        let test = of_kind(&objects, "Pod").into_iter().map(|p| words(&p["spec"]["containers"][0]["args"]));
        let mut seen = 0;
        for arguments in deployments.chain(test) {
            let line = ["revguard".to_owned()].into_iter().chain(arguments.clone());
            revguard::cli::command()
                .try_get_matches_from(line)
                .map_err(|error| anyhow::anyhow!("{arguments:?}: {error}"))?;
            seen += 1;
        }
        ensure!(seen == 3, "{seen} command lines");
    }
    Ok(())
}

fn parameters_agree() -> Result<()> {
    for values in MATRIX {
        let objects = render(values)?;
        let asks = |p: &&&Value| p["spec"]["paramKind"].is_object();
        let policies = of_kind(&objects, "ValidatingAdmissionPolicy");
        let policy = *policies.iter().find(asks).context("a policy with parameters")?;
        let kind = json!({"apiVersion": GUARD_PARAMETERS.api_version(), "kind": GUARD_PARAMETERS.kind});
        ensure!(policy["spec"]["paramKind"] == kind, "{}", policy["spec"]["paramKind"]);
        let deployments = of_kind(&objects, "Deployment");
        let controller = deployments.into_iter().find(|d| text(d, "/metadata/name").ends_with("-controller"));
        let controller = controller.context("a controller")?;
        let (name, namespace) = (argument(controller, "release")?, argument(controller, "namespace")?);
        let binding = find(&objects, "ValidatingAdmissionPolicyBinding", text(policy, "/metadata/name"))?;
        // Who has not spoken yet locks nobody out.
        let wanted = json!({"name": name, "namespace": namespace, "parameterNotFoundAction": "Allow"});
        ensure!(binding["spec"]["paramRef"] == wanted, "{}", binding["spec"]["paramRef"]);
        ensure!(binding["spec"]["policyName"] == policy["metadata"]["name"], "{binding}");
        // What the controller tries is what the policy speaks of.
        ensure!(text(policy, "/metadata/name") == Names::new(&namespace, &name).policy(), "{policy}");
        let tried = text(policy, "/spec/validations/0/expression");
        ensure!(tried.contains(&format!("'{name}'")) && tried.contains(&format!("'{}'", key::REFUSE)), "{tried}");
        argument(controller, "admission-policy-interval")?;
    }
    let without = render(&["--set", "vap.enabled=false"])?;
    ensure!(of_kind(&without, "ValidatingAdmissionPolicy").is_empty());
    let controller = find(&without, "Deployment", "revguard-controller")?;
    ensure!(argument(controller, "admission-policy-interval").is_err(), "what is not there would be missed");
    Ok(())
}

fn ports_agree() -> Result<()> {
    let port_of = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse::<u64>().ok());
    for values in MATRIX {
        let objects = render(values)?;
        for deployment in of_kind(&objects, "Deployment") {
            let name = text(deployment, "/metadata/name");
            let container = &pod(deployment)["containers"][0];
            let of = |port: &str| {
                let all = container["ports"].as_array().into_iter().flatten();
                all.into_iter().find(|p| p["name"] == port).and_then(|p| p["containerPort"].as_u64())
            };
            ensure!(of("metrics") == port_of(&argument(deployment, "health-listen")?), "{name}: metrics");
            let mut open: BTreeSet<u64> = of("metrics").into_iter().collect();
            let mut served = vec![("metrics".to_owned(), 8080)];
            if name.ends_with("-webhook") {
                ensure!(of("https") == port_of(&argument(deployment, "listen")?), "{name}: https");
                open.extend(of("https"));
                served.push(("https".to_owned(), 443));
            }
            let service = find(&objects, "Service", name)?;
            for (port, number) in served {
                let ports = service["spec"]["ports"].as_array().context("ports")?;
                let there = ports.iter().any(|p| p["port"] == number && p["targetPort"] == port.as_str());
                ensure!(there, "{name}: Service port {number} does not lead to {port}");
            }
            let policy = find(&objects, "NetworkPolicy", name)?;
            let let_in: BTreeSet<u64> = policy["spec"]["ingress"]
                .as_array()
                .context("ingress")?
                .iter()
                .filter_map(|rule| rule["ports"].as_array())
                .flatten()
                .filter_map(|p| p["port"].as_u64())
                .collect();
            ensure!(let_in == open, "{name}: NetworkPolicy lets in {let_in:?}, open are {open:?}");
            ensure!(policy["spec"]["podSelector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"]);
            ensure!(service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]);
        }
    }
    Ok(())
}

/// Both processes are told one Secret, and each may read it; what cert-manager is asked for is signed by a CA.
fn external_certificates() -> Result<()> {
    let bundle = "certificates.caBundle=-----BEGIN CERTIFICATE-----";
    let mine = ["--set", "certificates.mode=existingSecret,certificates.existingSecret=mine", "--set", bundle];
    for (values, secret) in [
        (&[][..], None),
        (&mine, Some("mine")),
        (&["--set", "certificates.mode=certManager"], Some("revguard-webhook-tls")),
    ] {
        let objects = render(values)?;
        let served = secret.unwrap_or("revguard-webhook-tls");
        ensure!(argument(find(&objects, "Deployment", "revguard-webhook")?, "tls-secret")? == served);
        let told = argument(find(&objects, "Deployment", "revguard-controller")?, "tls-secret").ok();
        ensure!(told.as_deref() == secret, "{values:?}: the controller looks at {told:?}");
        for (component, verb) in [("webhook", "list"), ("webhook", "watch"), ("controller", "get")] {
            let role = find(&objects, "Role", &format!("revguard-{component}"))?;
            let may = role["rules"].as_array().into_iter().flatten().any(|rule| {
                words(&rule["resources"]) == ["secrets"]
                    && words(&rule["resourceNames"]).iter().any(|name| name == served)
                    && words(&rule["verbs"]).iter().any(|v| v == verb)
            });
            ensure!(may, "{values:?}: the {component} may not {verb} {served}");
        }
    }
    let own = render(&["--set", "certificates.mode=certManager"])?;
    let certificate = find(&own, "Certificate", "revguard-webhook")?;
    let issuer = find(&own, "Issuer", text(certificate, "/spec/issuerRef/name"))?;
    let ca = find(&own, "Certificate", text(issuer, "/spec/ca/secretName"))?;
    ensure!(ca["spec"]["isCA"] == true && ca["spec"]["secretName"] == issuer["spec"]["ca"]["secretName"], "{ca}");
    let root = find(&own, "Issuer", text(ca, "/spec/issuerRef/name"))?;
    ensure!(
        root["spec"]["selfSigned"].is_object() && certificate["spec"].get("isCA").is_none(),
        "{root} {certificate}"
    );
    ensure!(certificate["spec"]["secretName"] != ca["spec"]["secretName"], "the CA's key would be served");
    let given = "certificates.mode=certManager,certificates.certManager.issuerRef.name=corp,\
                 certificates.certManager.issuerRef.kind=ClusterIssuer";
    let theirs = render(&["--set", given])?;
    ensure!(
        of_kind(&theirs, "Issuer").is_empty() && of_kind(&theirs, "Certificate").len() == 1,
        "more than was asked for"
    );
    let issuer = &find(&theirs, "Certificate", "revguard-webhook")?["spec"]["issuerRef"];
    ensure!(*issuer == json!({"kind": "ClusterIssuer", "name": "corp"}), "{issuer}");
    Ok(())
}

/// Whether one rule of a NetworkPolicy lets through to or from a pod of our namespace with these labels. A pod in the node's network
/// has none.
fn lets(rule: &Value, side: &str, port: u64, labels: Option<&Value>) -> bool {
    let open = rule["ports"].as_array().is_none_or(|all| all.iter().any(|p| p["port"] == port));
    // No namespace selector is our own namespace, an empty one is every; ours has no labels that others would select.
    let ours = |peer: &Value| match peer.get("namespaceSelector") {
        Some(selector) => selector == &json!({}),
        None => peer.get("ipBlock").is_none(),
    };
    let meant = rule[side].as_array().is_none_or(|peers| {
        peers.iter().filter(|peer| ours(peer)).any(|peer| {
            let wanted = peer["podSelector"]["matchLabels"].as_object();
            labels.is_some_and(|labels| wanted.is_none_or(|all| all.iter().all(|(key, value)| labels[key] == *value)))
        })
    });
    open && meant
}

/// It asks each for its certificate (`controller::certificates::replicas`) and for what it has counted.
fn replicas_are_reached() -> Result<()> {
    let narrow = "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=prometheus,networkPolicy.gatewayPorts={15090},\
                  rollouts.clusterWide=false,rollouts.namespaces={edge}";
    let nowhere = "networkPolicy.metricsFrom[0].ipBlock.cidr=10.0.0.0/8,rollouts.clusterWide=false,webhook.port=9443";
    let on_the_node = "webhook.hostNetwork=true,webhook.port=9443,webhook.healthPort=9444,rollouts.clusterWide=false";
    for set in ["mode=warn", narrow, nowhere, on_the_node] {
        let objects = render(&["--set", set])?;
        let (webhook, controller) =
            (find(&objects, "Deployment", "revguard-webhook")?, find(&objects, "Deployment", "revguard-controller")?);
        let labels = |deployment: &Value| deployment["spec"]["template"]["metadata"]["labels"].clone();
        let host = pod(webhook)["hostNetwork"] == true;
        for port in ["listen", "health-listen"] {
            let address = argument(webhook, port)?;
            let number: u64 = address.rsplit_once(':').context("a port")?.1.parse()?;
            let out = find(&objects, "NetworkPolicy", "revguard-controller")?["spec"]["egress"].clone();
            let to = Some(labels(webhook)).filter(|_| !host);
            let mut out = out.as_array().into_iter().flatten();
            ensure!(out.any(|rule| lets(rule, "to", number, to.as_ref())), "{set}: no way out to {port} {number}");
            let into = find(&objects, "NetworkPolicy", "revguard-webhook")?["spec"]["ingress"].clone();
            let from = labels(controller);
            let mut into = into.as_array().into_iter().flatten();
            ensure!(into.any(|rule| lets(rule, "from", number, Some(&from))), "{set}: no way in to {port} {number}");
        }
        // Others read metrics where they are meant.
        let into = find(&objects, "NetworkPolicy", "revguard-webhook")?["spec"]["ingress"].clone();
        let stranger = json!({"app": "stranger"});
        let read = into.as_array().into_iter().flatten().any(|rule| lets(rule, "from", 8080, Some(&stranger)));
        ensure!(read == set.contains("mode=warn"), "{set}: who may read metrics");
    }
    Ok(())
}

fn drain_fits() -> Result<()> {
    let settings = Settings::default();
    for values in MATRIX {
        let objects = render(values)?;
        let webhook =
            of_kind(&objects, "Deployment").into_iter().find(|d| text(d, "/metadata/name").ends_with("-webhook"));
        let webhook = webhook.context("the webhook")?;
        let grace = pod(webhook)["terminationGracePeriodSeconds"].as_u64().context("a grace period")?;
        let drain: u64 = argument(webhook, "drain")?.parse()?;
        // The last second is for the process to end.
        ensure!(grace > drain + settings.hard_stop.as_secs(), "{grace} s for a drain of {drain} s");
    }
    let objects = render(&[])?;
    let webhook = find(&objects, "Deployment", "revguard-webhook")?;
    ensure!(
        argument(webhook, "drain")?.parse::<u64>()? == settings.drain.as_secs(),
        "another default than the binary's"
    );
    ensure!(argument(webhook, "max-connections")?.parse::<usize>()? == settings.max_connections);
    let age = argument(webhook, "max-connection-age")?;
    ensure!(revguard::cli::certificates::duration(&age).ok() == settings.connection_age, "{age}");
    Ok(())
}

fn rights_are_generated() -> Result<()> {
    let objects = render(&[])?;
    for component in ["webhook", "controller"] {
        for (kind, part) in [("ClusterRole", "rules"), ("Role", "namespace-rules")] {
            let text = file(&format!("files/{component}-{part}.yaml")).replace("FULLNAME", RELEASE);
            let generated: Value = serde_saphyr::from_str(&text)?;
            let role = find(&objects, kind, &format!("{RELEASE}-{component}"))?;
            ensure!(role["rules"] == generated, "{kind} of the {component} is not its file");
            for rule in role["rules"].as_array().context("rules")? {
                let all: Vec<String> =
                    [&rule["verbs"], &rule["resources"], &rule["apiGroups"]].into_iter().flat_map(words).collect();
                ensure!(!all.contains(&"*".to_owned()), "{component}: a star is not a least right: {rule}");
                let secrets = words(&rule["resources"]).contains(&"secrets".to_owned());
                ensure!(!secrets || kind == "Role" && !words(&rule["resourceNames"]).is_empty(), "{component}: {rule}");
            }
        }
    }
    // Repairs have a role of their own, where one is switched on.
    let repairs = "revguard-controller-repairs";
    ensure!(find(&objects, "ClusterRole", repairs).is_err(), "rights to repair although nothing is repaired");
    for (set, there) in [
        ("policy.repair.VW002=true", true),
        ("policy.repair.VW002=false", false),
        ("policy.repair=all", true),
        ("policy.repair=none", false),
    ] {
        let objects = render(&["--set", set])?;
        ensure!(find(&objects, "ClusterRoleBinding", repairs).is_ok() == there, "{set}");
        if there {
            let generated: Value = serde_saphyr::from_str(&file("files/controller-repair-rules.yaml"))?;
            ensure!(find(&objects, "ClusterRole", repairs)?["rules"] == generated, "not its file");
        }
    }
    // The webhook reads: every kind that is watched, and writes nothing.
    let role = find(&objects, "ClusterRole", "revguard-webhook")?;
    let may = |group: &str, resource: &str, verb: &str| {
        role["rules"].as_array().into_iter().flatten().any(|rule| {
            words(&rule["apiGroups"]).iter().any(|g| g == group)
                && words(&rule["resources"]).iter().any(|r| r == resource)
                && words(&rule["verbs"]).iter().any(|v| v == verb)
        })
    };
    for row in KINDS.iter().filter(|row| row.watch != Watch::Never) {
        ensure!(
            may(row.group, row.plural, "list") && may(row.group, row.plural, "watch"),
            "{} {}",
            row.group,
            row.plural
        );
    }
    for rule in role["rules"].as_array().into_iter().flatten() {
        let verbs = words(&rule["verbs"]);
        ensure!(
            verbs.iter().all(|verb| ["get", "list", "watch"].contains(&verb.as_str())),
            "the webhook writes: {rule}"
        );
    }
    Ok(())
}

/// The rights of rollouts: everywhere, in some namespaces, nowhere; and the way out to gateways goes with them.
fn rollouts_are_bound() -> Result<()> {
    let name = "revguard-controller-rollouts";
    let generated: Value = serde_saphyr::from_str(&file("files/controller-rollout-rules.yaml"))?;
    let out = |objects: &[Value]| -> Result<Vec<Value>> {
        let policy = find(objects, "NetworkPolicy", "revguard-controller")?;
        let rules = policy["spec"]["egress"].as_array().context("egress")?.iter();
        let gateways = |rule: &&Value| {
            let to = &rule["to"][0];
            to.get("namespaceSelector").is_some() && to.get("podSelector").is_none()
        };
        Ok(rules.filter(gateways).cloned().collect())
    };
    let everywhere = render(&[])?;
    ensure!(find(&everywhere, "ClusterRole", name)?["rules"] == generated, "not its file");
    ensure!(find(&everywhere, "ClusterRoleBinding", name)?["subjects"][0]["name"] == "revguard-controller");
    let rules = out(&everywhere)?;
    ensure!(rules.len() == 1 && rules[0].get("ports").is_none(), "every port of every pod: {rules:?}");

    let set = "rollouts.clusterWide=false,rollouts.namespaces={edge,outer},networkPolicy.gatewayPorts={15090,8443}";
    let some = render(&["--set", set])?;
    ensure!(find(&some, "ClusterRoleBinding", name).is_err(), "bound in the whole cluster");
    let bound = of_kind(&some, "RoleBinding").into_iter().filter(|b| text(b, "/metadata/name") == name);
    let namespaces: Vec<&str> = bound
        .filter(|b| b["roleRef"]["name"] == name && b["roleRef"]["kind"] == "ClusterRole")
        .map(|b| text(b, "/metadata/namespace"))
        .collect();
    ensure!(namespaces == ["edge", "outer"], "{namespaces:?}");
    let rules = out(&some)?;
    let chosen = &rules[0]["to"][0]["namespaceSelector"]["matchExpressions"][0];
    ensure!(words(&chosen["values"]) == ["edge", "outer"], "{rules:?}");
    ensure!(rules[0]["ports"].as_array().is_some_and(|p| p.len() == 2 && p[0]["port"] == 15090), "{rules:?}");

    let none = render(&["--set", "rollouts.clusterWide=false"])?;
    ensure!(find(&none, "ClusterRole", name).is_err() && out(&none)?.is_empty(), "rights that nobody asked for");
    ensure!(of_kind(&none, "RoleBinding").iter().all(|b| text(b, "/metadata/name") != name));
    Ok(())
}

/// A token of istiod's audience is mounted where it is used, and the way out to istiods goes with it.
fn istiods_are_asked() -> Result<()> {
    let found = |arguments: &[&str]| -> Result<Option<Value>> {
        let objects = render(arguments)?;
        let deployment = find(&objects, "Deployment", "revguard-controller")?;
        let policy = find(&objects, "NetworkPolicy", "revguard-controller")?;
        let volumes = pod(deployment)["volumes"].as_array().context("volumes")?;
        let token = volumes.iter().find(|v| v["name"] == "istiod-token").cloned();
        let file = argument(deployment, "istiod-token-file").ok();
        let mounts = pod(deployment)["containers"][0]["volumeMounts"].as_array().context("mounts")?;
        let mount = mounts.iter().find(|m| m["name"] == "istiod-token");
        let out = policy["spec"]["egress"].as_array().context("egress")?;
        let out = out.iter().find(|rule| rule["to"][0]["podSelector"]["matchLabels"]["app"] == "istiod");
        ensure!(
            file.is_some() == token.is_some() && mount.is_some() == token.is_some(),
            "{file:?} {mount:?} {token:?}"
        );
        ensure!(out.is_some() == token.is_some(), "{out:?}");
        if let (Some(mount), Some(out), Some(token)) = (mount, out, &token) {
            let path = text(token, "/projected/sources/0/serviceAccountToken/path");
            ensure!(file == Some(format!("{}/{path}", text(mount, "/mountPath"))), "{file:?}");
            ensure!(mount["readOnly"] == true && out["ports"] == json!([{"port": 15014, "protocol": "TCP"}]), "{out}");
        }
        Ok(token)
    };
    let token = found(&["--set", "rollouts.istiod.ask=true"])?.context("a token")?;
    let source = &token["projected"]["sources"][0]["serviceAccountToken"];
    ensure!(source["audience"] == "istio-ca" && source["expirationSeconds"] == 600, "{source}");
    let other = found(&["--set", "rollouts.istiod.ask=true,rollouts.istiod.audience=mesh"])?.context("a token")?;
    ensure!(text(&other, "/projected/sources/0/serviceAccountToken/audience") == "mesh", "{other}");
    ensure!(
        found(&["--set", "rollouts.istiod.ask=true,rollouts.clusterWide=false,rollouts.namespaces={edge}"])?.is_some()
    );
    ensure!(
        found(&["--set", "rollouts.istiod.ask=true,rollouts.clusterWide=false"])?.is_none(),
        "nothing is ever rolled out"
    );
    ensure!(found(&[])?.is_none(), "a token that nobody asked for");
    Ok(())
}

fn policy_parses() -> Result<()> {
    for values in MATRIX {
        let objects = render(values)?;
        let config =
            objects.iter().find(|o| text(o, "/metadata/name").ends_with("-policy") && o["kind"] == "ConfigMap");
        let config = config.context("the policy")?;
        let policy = Policy::parse(text(config, "/data/policy.yaml")).map_err(anyhow::Error::msg)?;
        let line = values.concat();
        let mode = if line.contains("mode=audit") {
            Mode::Audit
        } else if line.contains("mode=warn") {
            Mode::Warn
        } else {
            Mode::Enforce
        };
        ensure!(policy.mode == mode, "{values:?}: {:?}", policy.mode);
        let name = text(config, "/metadata/name").trim_end_matches("-policy");
        for component in ["webhook", "controller"] {
            let own = format!("system:serviceaccount:{NAMESPACE}:{name}-{component}");
            ensure!(policy.exempt.writers.contains(&own), "{own} is not exempt: {:?}", policy.exempt.writers);
        }
        ensure!(!line.contains("writers[0]=me") || policy.exempt.writers.contains("me"));
        for deployment in of_kind(&objects, "Deployment") {
            let mounted = pod(deployment)["volumes"].as_array().into_iter().flatten();
            ensure!({ mounted }.any(|v| v["configMap"]["name"] == config["metadata"]["name"]), "it is not mounted");
            ensure!(argument(deployment, "config")? == "/etc/revguard/policy.yaml");
        }
    }
    Ok(())
}

/// Whether a webhook of the configuration is called for an operation on a resource.
fn asks(webhooks: &[Value], group: &str, resource: &str, operation: &str) -> bool {
    webhooks.iter().flat_map(|hook| hook["rules"].as_array().into_iter().flatten()).any(|rule| {
        words(&rule["apiGroups"]).iter().any(|g| g == group)
            && words(&rule["resources"]).iter().any(|r| r == resource)
            && words(&rule["operations"]).iter().any(|o| o == operation)
    })
}

fn webhooks(objects: &[Value], kind: &str) -> Result<Vec<Value>> {
    let configuration = of_kind(objects, kind).into_iter().next().with_context(|| kind.to_owned())?;
    configuration["webhooks"].as_array().cloned().context("webhooks")
}

/// What the rules of the catalogue judge. Whether conditions let the right writes through is tried on a real API server.
fn webhooks_ask() -> Result<()> {
    let objects = render(&["--set", "policy.mutations.NS002=true"])?;
    let (validating, mutating) =
        (webhooks(&objects, "ValidatingWebhookConfiguration")?, webhooks(&objects, "MutatingWebhookConfiguration")?);
    let workloads = [Kind::Deployment, Kind::DaemonSet, Kind::StatefulSet, Kind::Job, Kind::CronJob];
    let config: Vec<Kind> = Kind::CONFIG.into_iter().chain([Kind::HttpRoute]).collect();
    let mut wrong = BTreeSet::new();
    for rule in RULES.iter() {
        for check in rule.checks {
            let kinds: &[Kind] = match check {
                Check::Namespace(_) => &[Kind::Namespace],
                Check::Workload(_) => &workloads,
                Check::Service(_) => &[Kind::Service],
                Check::Hpa(_) => &[Kind::Hpa],
                Check::Pdb(_) => &[Kind::Pdb],
                Check::Operator(_) => &[Kind::IstioOperator],
                Check::Sail(_) => &[Kind::SailIstio, Kind::SailRevision, Kind::SailTag],
                Check::Lifecycle(_) => &[Kind::IstioLifecycle, Kind::GatewayLifecycle],
                Check::Gateway(_) => &[Kind::IstioGateway, Kind::ApiGateway],
                Check::Rollout(_) => &[Kind::GatewayRollout],
                Check::Any(_) => &config,
                // Which kinds a deletion rule judges, its cases say; they are played on a real API server.
                Check::Delete(_) | Check::Audit(_) => &[],
            };
            for kind in kinds {
                let row = row(*kind);
                for operation in ["CREATE", "UPDATE"] {
                    if !asks(&validating, row.group, row.plural, operation) {
                        wrong.insert(format!("{}: {operation} {} {}", rule.code, row.group, row.plural));
                    }
                }
            }
        }
    }
    for (group, resource, operation) in [
        ("", "namespaces", "DELETE"),
        ("", "services", "DELETE"),
        ("apps", "deployments", "DELETE"),
        ("apps", "daemonsets", "DELETE"),
        ("apps", "statefulsets", "DELETE"),
        ("apps", "deployments/scale", "UPDATE"),
        ("apps", "statefulsets/scale", "UPDATE"),
        ("install.istio.io", "istiooperators", "DELETE"),
        ("sailoperator.io", "istiorevisiontags", "DELETE"),
        ("admin.gloo.solo.io", "gatewaylifecyclemanagers", "DELETE"),
        ("", "configmaps", "DELETE"),
        ("", "serviceaccounts", "DELETE"),
        ("rbac.authorization.k8s.io", "clusterrolebindings", "DELETE"),
        ("apiextensions.k8s.io", "customresourcedefinitions", "DELETE"),
        ("autoscaling", "horizontalpodautoscalers", "DELETE"),
        ("policy", "poddisruptionbudgets", "CREATE"),
    ] {
        if !asks(&validating, group, resource, operation) {
            wrong.insert(format!("{operation} {group} {resource}"));
        }
    }
    for (group, resource) in [("", "namespaces"), ("apps", "deployments"), ("batch", "cronjobs")] {
        if !asks(&mutating, group, resource, "UPDATE") {
            wrong.insert(format!("mutations: {group} {resource}"));
        }
    }
    ensure!(wrong.is_empty(), "nobody is asked: {wrong:#?}");
    // Where nothing is mended, only approvals are written down.
    let names = |objects: &[Value]| -> Result<Vec<String>> {
        let all = webhooks(objects, "MutatingWebhookConfiguration")?;
        Ok(all.iter().map(|hook| text(hook, "/name").to_owned()).collect())
    };
    ensure!(names(&render(&[])?)? == ["approvals.revguard.dev"], "registered although nothing is mended");
    ensure!(names(&objects)? == ["approvals.revguard.dev", "mutations.revguard.dev"]);
    Ok(())
}

fn webhooks_cannot_lock() -> Result<()> {
    for values in MATRIX {
        let objects = render(values)?;
        let audit = values.concat().contains("mode=audit") || values.concat().contains("mode=warn");
        let excluded = ["kube-system", "kube-public", "kube-node-lease", NAMESPACE];
        let mut all = webhooks(&objects, "ValidatingWebhookConfiguration")?;
        if !of_kind(&objects, "MutatingWebhookConfiguration").is_empty() {
            all.extend(webhooks(&objects, "MutatingWebhookConfiguration")?);
        }
        for hook in &all {
            let name = text(hook, "/name");
            let left_out = words(&hook["namespaceSelector"]["matchExpressions"][0]["values"]);
            ensure!(excluded.iter().all(|ns| left_out.iter().any(|l| l == ns)), "{name}: {left_out:?}");
            ensure!(text(hook, "/namespaceSelector/matchExpressions/0/operator") == "NotIn", "{name}");
            ensure!(hook["timeoutSeconds"].as_u64().is_some_and(|s| s <= 5), "{name}: too patient");
            ensure!(text(hook, "/sideEffects") == "None" && text(hook, "/matchPolicy") == "Equivalent", "{name}");
            for group in ["", "apps"] {
                for resource in ["pods", "nodes", "events", "leases", "*", "replicasets"] {
                    ensure!(!asks(std::slice::from_ref(hook), group, resource, "CREATE"), "{name} asks for {resource}");
                }
            }
            ensure!(!asks(std::slice::from_ref(hook), "coordination.k8s.io", "leases", "UPDATE"));
            let default = match name {
                _ if audit => "Ignore",
                "workloads.revguard.dev" | "config.revguard.dev" | "mutations.revguard.dev" => "Ignore",
                _ => "Fail",
            };
            ensure!(text(hook, "/failurePolicy") == default, "{name}: {}", text(hook, "/failurePolicy"));
            let conditions = hook["matchConditions"].as_array().context("matchConditions")?;
            let first = text(&conditions[0], "/expression");
            let config = find(
                &objects,
                "ServiceAccount",
                &format!("{}-controller", text(hook, "/clientConfig/service/name").trim_end_matches("-webhook")),
            )?;
            ensure!(
                first.contains(&format!("system:serviceaccount:{NAMESPACE}:{}", text(config, "/metadata/name"))),
                "{name}: our own writes wait for us"
            );
        }
        let names: BTreeSet<&str> = all.iter().map(|hook| text(hook, "/name")).collect();
        ensure!(names.len() == all.len());
    }
    let excluded = render(&["--set", "webhooks.excludedNamespaces[0]=sandbox"])?;
    for hook in webhooks(&excluded, "ValidatingWebhookConfiguration")? {
        ensure!(words(&hook["namespaceSelector"]["matchExpressions"][0]["values"]).contains(&"sandbox".to_owned()));
    }
    Ok(())
}

/// Neither Helm nor a GitOps tool has an opinion on what the controller writes.
fn no_second_owner() -> Result<()> {
    for values in MATRIX {
        let objects = render(values)?;
        let own_bundle = values.concat().contains("existingSecret");
        for object in objects.iter().filter(|o| text(o, "/kind").ends_with("WebhookConfiguration")) {
            for hook in object["webhooks"].as_array().context("webhooks")? {
                ensure!(hook["clientConfig"].get("caBundle").is_some() == own_bundle, "{}", hook["name"]);
            }
            let injected = object["metadata"]["annotations"].get("cert-manager.io/inject-ca-from").is_some();
            ensure!(injected == values.concat().contains("certManager"), "{}", object["metadata"]);
        }
        for object in of_kind(&objects, "Secret") {
            ensure!(
                object.get("data").is_none() && object.get("stringData").is_none() && text(object, "/type") == "Opaque"
            );
        }
        for part in ["report", "undo"] {
            let config = of_kind(&objects, "ConfigMap")
                .into_iter()
                .find(|c| text(c, "/metadata/name").ends_with(&format!("-{part}")));
            ensure!(config.with_context(|| part.to_owned())?.get("data").is_none(), "{part} has data");
        }
        for kind in ["Lease", "GuardParameters", "MeshState"] {
            ensure!(of_kind(&objects, kind).is_empty(), "the {kind} is the controllers' own");
        }
        for object in &objects {
            ensure!(
                object["metadata"].get("finalizers").is_none(),
                "a finalizer hangs an uninstall: {}",
                object["metadata"]
            );
            let hook = object["metadata"]["annotations"].get("helm.sh/hook");
            ensure!(hook.is_none_or(|h| h == "test"), "a hook on the way of an installation: {}", object["metadata"]);
        }
    }
    Ok(())
}

fn names_and_labels() -> Result<()> {
    let chart: Value = serde_saphyr::from_str(&file("Chart.yaml"))?;
    ensure!(
        text(&chart, "/version") == env!("CARGO_PKG_VERSION"),
        "Chart.yaml, version: Cargo.toml says {}",
        env!("CARGO_PKG_VERSION")
    );
    ensure!(text(&chart, "/appVersion") == env!("CARGO_PKG_VERSION"));
    let cluster_wide = [
        "ClusterRole",
        "ClusterRoleBinding",
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "CustomResourceDefinition",
        "Namespace",
    ];
    for values in MATRIX {
        let mut arguments = values.to_vec();
        arguments.extend([
            "--set",
            "extraLabels.team=mesh,extraAnnotations.note=x,serviceMonitor.enabled=true,prometheusRule.enabled=true",
        ]);
        for object in render(&arguments)? {
            let (kind, name) = (text(&object, "/kind"), text(&object, "/metadata/name"));
            if kind == "CustomResourceDefinition" {
                // The program's own, which outlives the release.
                let policy = text(&object, "/metadata/annotations/helm.sh~1resource-policy");
                ensure!(policy == "keep" && name.ends_with(".revguard.dev"), "{name}: {policy:?}");
                continue;
            }
            let labels = &object["metadata"]["labels"];
            for key in ["name", "instance", "version", "managed-by"] {
                ensure!(
                    !text(labels, &format!("/app.kubernetes.io~1{key}")).is_empty(),
                    "{kind} {name}: no {key} in {labels}"
                );
            }
            ensure!(
                text(labels, "/app.kubernetes.io~1name") == "revguard" && text(labels, "/team") == "mesh",
                "{kind} {name}"
            );
            ensure!(
                text(&object, "/metadata/annotations/note") == "x",
                "{kind} {name}: {}",
                object["metadata"]["annotations"]
            );
            let placed = text(&object, "/metadata/namespace");
            if cluster_wide.contains(&kind) {
                ensure!(placed.is_empty(), "{kind} {name}");
            } else {
                ensure!(
                    placed == NAMESPACE
                        || placed == "istio-system" && name.ends_with("-remote-clusters")
                        || ["edge", "outer-edge"].contains(&placed) && name.ends_with("-rollouts"),
                    "{kind} {name} in {placed:?}"
                );
            }
            let begin = if values.concat().contains("fullnameOverride") { "guard" } else { RELEASE };
            ensure!(name.starts_with(begin), "{kind} {name}");
        }
    }
    let objects = render(&[])?;
    for (kind, name) in [
        ("Deployment", "revguard-webhook"),
        ("Deployment", "revguard-controller"),
        ("Service", "revguard-webhook"),
        ("Service", "revguard-controller"),
        ("ServiceAccount", "revguard-webhook"),
        ("ServiceAccount", "revguard-controller"),
        ("Secret", "revguard-ca"),
        ("Secret", "revguard-webhook-tls"),
        ("ConfigMap", "revguard-policy"),
        ("ConfigMap", "revguard-report"),
        ("ConfigMap", "revguard-undo"),
        ("ValidatingWebhookConfiguration", "revguard"),
    ] {
        find(&objects, kind, name)?;
    }
    let tests = of_kind(&objects, "Deployment").len() + of_kind(&objects, "Pod").len();
    ensure!(tests == 3);
    Ok(())
}

fn monitoring() -> Result<()> {
    let kinds = ["ServiceMonitor", "PrometheusRule"];
    let count = |arguments: &[&str]| -> Result<usize> {
        let objects = render(arguments)?;
        Ok(kinds.iter().map(|kind| of_kind(&objects, kind).len()).sum())
    };
    ensure!(count(&[])? == 0, "without the API nothing could hold them");
    ensure!(count(&["--api-versions", "monitoring.coreos.com/v1"])? == 2);
    ensure!(count(&["--set", "serviceMonitor.enabled=true,prometheusRule.enabled=true"])? == 2);
    ensure!(
        count(&[
            "--api-versions",
            "monitoring.coreos.com/v1",
            "--set",
            "serviceMonitor.enabled=false,prometheusRule.enabled=false"
        ])? == 0
    );
    let objects = render(&[
        "--set",
        "serviceMonitor.enabled=true,prometheusRule.enabled=true,prometheusRule.labels.release=prom",
    ])?;
    let alerts: Value = serde_saphyr::from_str(&file("files/alerts.yaml"))?;
    let rule = find(&objects, "PrometheusRule", "revguard")?;
    ensure!(rule["spec"] == alerts, "not the alerts of the file");
    ensure!(text(rule, "/metadata/labels/release") == "prom");
    let elsewhere = ["--set", "prometheusRule.enabled=true,prometheusRule.runbook=https://wiki.example/runbook"];
    let linked = render(&elsewhere)?;
    for alert in find(&linked, "PrometheusRule", "revguard")?["spec"]["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
    {
        let url = text(alert, "/annotations/runbook_url");
        ensure!(url.starts_with("https://wiki.example/runbook#revguard"), "{url}");
    }
    let monitor = find(&objects, "ServiceMonitor", "revguard")?;
    ensure!(
        text(monitor, "/spec/jobLabel") == "app.kubernetes.io/name"
            && text(monitor, "/spec/endpoints/0/port") == "metrics"
    );
    ensure!(text(monitor, "/spec/endpoints/0/relabelings/0/targetLabel") == "component");
    // Metrics of rollouts have a namespace of their own.
    ensure!(monitor["spec"]["endpoints"][0]["honorLabels"] == true, "{monitor}");
    let dashboard: Value =
        serde_json::from_str(text(find(&objects, "ConfigMap", "revguard-dashboard")?, "/data/revguard.json"))?;
    ensure!(dashboard == serde_json::from_str::<Value>(&file("files/dashboard.json"))?);
    Ok(())
}

fn images() -> Result<()> {
    let image = |arguments: &[&str]| -> Result<String> {
        let objects = render(arguments)?;
        let all: BTreeSet<String> = of_kind(&objects, "Deployment")
            .into_iter()
            .map(|d| text(pod(d), "/containers/0/image").to_owned())
            .chain(of_kind(&objects, "Pod").into_iter().map(|p| text(p, "/spec/containers/0/image").to_owned()))
            .collect();
        ensure!(all.len() == 1, "{all:?}");
        all.into_iter().next().context("an image")
    };
    let version = env!("CARGO_PKG_VERSION");
    ensure!(image(&[])? == format!("revguard:{version}"));
    ensure!(
        image(&["--set", "image.registry=mirror.example/team/"])? == format!("mirror.example/team/revguard:{version}")
    );
    let digest = format!("sha256:{}", "a".repeat(64));
    ensure!(image(&["--set", &format!("image.tag=x,image.digest={digest}")])? == format!("revguard@{digest}"));
    let objects = render(&[
        "--set",
        "image.pullSecrets[0]=s,webhook.nodeSelector.a=b,webhook.hostNetwork=true,webhook.tolerations[0].operator=Exists,webhook.podLabels.x=y",
    ])?;
    let webhook = find(&objects, "Deployment", "revguard-webhook")?;
    ensure!(text(pod(webhook), "/imagePullSecrets/0/name") == "s" && text(pod(webhook), "/nodeSelector/a") == "b");
    ensure!(pod(webhook)["hostNetwork"] == true && text(pod(webhook), "/dnsPolicy") == "ClusterFirstWithHostNet");
    ensure!(text(pod(webhook), "/tolerations/0/operator") == "Exists");
    ensure!(text(webhook, "/spec/template/metadata/labels/x") == "y");
    Ok(())
}

/// A GitOps tool renders every few minutes, without a cluster, and compares.
fn the_same_twice() -> Result<()> {
    for values in MATRIX {
        ensure!(render(values)? == render(values)?, "{values:?}");
    }
    Ok(())
}
