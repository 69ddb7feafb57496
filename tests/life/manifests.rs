//! What the charts and istioctl write, as lean as a rule can tell apart.

use revguard::model::Object;

use super::world::read;

/// The order in which Helm applies kinds; it deletes webhook configurations first and the rest in about the reverse order.
const INSTALL: [&str; 12] = [
    "ServiceAccount",
    "ConfigMap",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "Deployment",
    "HorizontalPodAutoscaler",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "",
];
const UNINSTALL: [&str; 11] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "Service",
    "HorizontalPodAutoscaler",
    "Deployment",
    "RoleBinding",
    "Role",
    "ClusterRoleBinding",
    "ClusterRole",
    "ConfigMap",
    "ServiceAccount",
];
/// `istioctl uninstall` takes workloads first and webhook configurations last.
const ISTIOCTL: [&str; 11] = [
    "Deployment",
    "Service",
    "ConfigMap",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "HorizontalPodAutoscaler",
    "ClusterRole",
    "ClusterRoleBinding",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
];

fn sorted(objects: &[Object], order: &[&str]) -> Vec<Object> {
    let mut all = objects.to_vec();
    all.sort_by_key(|o| order.iter().position(|k| *k == revguard::wire::row(o.kind()).name).unwrap_or(order.len()));
    all
}

pub fn as_helm_installs(objects: &[Object]) -> Vec<Object> {
    sorted(objects, &INSTALL)
}

pub fn as_helm_uninstalls(objects: &[Object]) -> Vec<Object> {
    sorted(objects, &UNINSTALL)
}

pub fn as_istioctl_uninstalls(objects: &[Object]) -> Vec<Object> {
    sorted(objects, &ISTIOCTL)
}

fn hook(name: &str, service: &str, namespaces: &str, pods: &str) -> String {
    format!(
        "- {{name: {name}.sidecar-injector.istio.io, failurePolicy: Fail, sideEffects: None, admissionReviewVersions: [v1], \
         clientConfig: {{service: {{name: {service}, namespace: istio-system, path: /inject, port: 443}}}}, \
         namespaceSelector: {{matchExpressions: [{namespaces}]}}, objectSelector: {{matchExpressions: [{pods}]}}, \
         rules: [{{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [pods]}}]}}\n"
    )
}

/// Webhooks that serve a name, and if it is the default's those that serve `istio-injection=enabled`.
fn hooks(asked: &str, service: &str) -> String {
    let absent = |key: &str| format!("{{key: {key}, operator: DoesNotExist}}");
    let is = |key: &str, op: &str, value: &str| format!("{{key: {key}, operator: {op}, values: ['{value}']}}");
    let (rev, injection, inject) = ("istio.io/rev", "istio-injection", "sidecar.istio.io/inject");
    let willing = is(inject, "NotIn", "false");
    let mut all = hook("rev.namespace", service, &format!("{}, {}", is(rev, "In", asked), absent(injection)), &willing);
    let neither = format!("{}, {}", absent(rev), absent(injection));
    all += &hook("rev.object", service, &neither, &format!("{willing}, {}", is(rev, "In", asked)));
    if asked == "default" {
        all += &hook("namespace", service, &is(injection, "In", "enabled"), &willing);
        all += &hook("object", service, &neither, &format!("{}, {}", is(inject, "In", "true"), absent(rev)));
    }
    all
}

fn suffix(revision: &str) -> String {
    if revision.is_empty() { String::new() } else { format!("-{revision}") }
}

fn named(revision: &str) -> &str {
    if revision.is_empty() { "default" } else { revision }
}

/// The validator of everything that names no revision, as the base chart brings it and a default tag moves it.
pub fn validator(revision: &str) -> Vec<Object> {
    read(&format!(
        "{{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {{name: \
         istiod-default-validator, labels: {{app: istiod, istio.io/rev: {rev:?}}}}}, webhooks: [{{name: validation.istio.io, \
         failurePolicy: Fail, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {{service: {{name: istiod{suffix}, \
         namespace: istio-system, path: /validate}}}}, objectSelector: {{matchExpressions: [{{key: istio.io/rev, operator: \
         DoesNotExist}}]}}, rules: [{{apiGroups: [networking.istio.io], apiVersions: ['*'], operations: [CREATE, UPDATE], \
         resources: ['*']}}]}}]}}",
        rev = named(revision),
        suffix = suffix(revision),
    ))
}

/// The chart of istiod. `tags` are its `revisionTags`.
pub fn istiod(revision: &str, image_tag: &str, tags: &[&str]) -> Vec<Object> {
    let (rev, suffix) = (named(revision), suffix(revision));
    let selector = if revision.is_empty() {
        "app: istiod, istio: pilot".to_owned()
    } else {
        format!("app: istiod, istio.io/rev: {rev:?}")
    };
    let istio = if revision.is_empty() { "pilot" } else { "istiod" };
    let labels = format!("app: istiod, istio: pilot, istio.io/rev: {rev:?}, helm.sh/chart: istiod-1.0.0");
    let mut all = access(&suffix);
    all.extend(read(&format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio{suffix}, namespace: istio-system, labels: {{istio.io/rev: {rev:?}}}}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: istiod{suffix}, namespace: istio-system, labels: {{{labels}}}}}, spec: {{selector: {{{selector}}}, ports: [{{port: 15012}}, {{port: 443}}]}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: istiod{suffix}, namespace: istio-system, labels: {{{labels}}}}}
spec:
  selector: {{matchLabels: {{{selector}}}}}
  template:
    metadata: {{labels: {{app: istiod, istio: {istio}, istio.io/rev: {rev:?}, sidecar.istio.io/inject: 'false'}}}}
    spec: {{serviceAccountName: istiod{suffix}, containers: [{{name: discovery, image: 'docker.io/istio/pilot:{image_tag}'}}]}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: istiod{suffix}, namespace: istio-system}}
spec: {{minReplicas: 1, maxReplicas: 5, scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: istiod{suffix}}}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {{name: istio-sidecar-injector{suffix}, labels: {{app: sidecar-injector, istio.io/rev: {rev:?}}}}}
webhooks:
{}",
        hooks(rev, &format!("istiod{suffix}")),
    )));
    for tag in tags {
        all.extend(tag_of(tag, revision, ", helm.sh/chart: istiod-1.0.0"));
    }
    all
}

/// Account and rights of an istiod.
fn access(suffix: &str) -> Vec<Object> {
    let rbac = "rbac.authorization.k8s.io";
    let mut all = read(&format!(
        "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: istiod{suffix}, namespace: istio-system}}}}"
    ));
    for (kind, name, place) in [
        ("ClusterRole", format!("istiod-clusterrole{suffix}-istio-system"), ""),
        ("ClusterRole", format!("istiod-gateway-controller{suffix}-istio-system"), ""),
        ("Role", format!("istiod{suffix}"), ", namespace: istio-system"),
    ] {
        all.extend(read(&format!(
            "{{apiVersion: {rbac}/v1, kind: {kind}, metadata: {{name: {name}{place}}}, rules: []}}
---
{{apiVersion: {rbac}/v1, kind: {kind}Binding, metadata: {{name: {name}{place}}}, roleRef: {{apiGroup: {rbac}, kind: {kind}, name: {name}}}}}"
        )));
    }
    all
}

/// The chart of the CNI node agent.
pub fn cni() -> Vec<Object> {
    read(
        "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: istio-cni-node, namespace: istio-system, labels: \
         {operator.istio.io/component: Cni}}, spec: {selector: {matchLabels: {k8s-app: istio-cni-node}}, template: {metadata: \
         {labels: {k8s-app: istio-cni-node, sidecar.istio.io/inject: 'false'}}, spec: {containers: [{name: install-cni, image: \
         'docker.io/istio/install-cni:1.23.2'}]}}}}",
    )
}

/// The base chart: definitions.
pub fn definitions() -> Vec<Object> {
    let names =
        ["gateways.networking.istio.io", "virtualservices.networking.istio.io", "telemetries.telemetry.istio.io"];
    let one = |name| {
        format!("{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: {name}}}}}")
    };
    names.into_iter().flat_map(|name| read(&one(name))).collect()
}

/// `istioctl tag set`: first the webhooks, then the Service.
pub fn tag(name: &str, revision: &str) -> Vec<Object> {
    tag_of(name, revision, "")
}

fn tag_of(name: &str, revision: &str, chart: &str) -> Vec<Object> {
    let (rev, suffix) = (named(revision), suffix(revision));
    let labels = format!("istio.io/rev: {rev:?}, istio.io/tag: {name:?}{chart}");
    read(&format!(
        "apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {{name: istio-revision-tag-{name}, labels: {{app: sidecar-injector, {labels}}}}}
webhooks:
{}---
{{apiVersion: v1, kind: Service, metadata: {{name: istiod-revision-tag-{name}, namespace: istio-system, labels: {{app: istiod, {labels}}}}}, spec: {{selector: {{app: istiod, istio.io/rev: {rev:?}}}, ports: [{{port: 443}}]}}}}",
        hooks(name, &format!("istiod{suffix}")),
    ))
}

/// The gateway chart.
pub fn gateway(namespace: &str, revision: &str) -> Vec<Object> {
    let rev = if revision.is_empty() { String::new() } else { format!(", istio.io/rev: {revision:?}") };
    read(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: gw, namespace: {namespace}}}, spec: {{type: LoadBalancer, selector: {{app: gw, istio: gw}}, ports: [{{port: 80}}]}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: gw, namespace: {namespace}, labels: {{app: gw}}}}
spec:
  selector: {{matchLabels: {{app: gw, istio: gw}}}}
  template:
    metadata: {{labels: {{app: gw, istio: gw, sidecar.istio.io/inject: 'true'{rev}}}, annotations: {{inject.istio.io/templates: gateway}}}}
    spec: {{containers: [{{name: istio-proxy, image: auto}}]}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: gw, namespace: {namespace}}}
spec: {{minReplicas: 1, maxReplicas: 5, scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: gw}}}}"
    ))
}

/// What a team deploys.
pub fn app(namespace: &str) -> Vec<Object> {
    let template = |n: &str| {
        format!("{{metadata: {{labels: {{app: {n}}}}}, spec: {{containers: [{{name: app, image: 'app:1'}}]}}}}")
    };
    read(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: {namespace}}}, spec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}}}
---
{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: {namespace}}}, spec: {{replicas: 2, selector: {{matchLabels: {{app: web}}}}, template: {}}}}}
---
{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: db, namespace: {namespace}}}, spec: {{selector: {{matchLabels: {{app: db}}}}, template: {}}}}}
---
{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: tick, namespace: {namespace}}}, spec: {{schedule: '* * * * *', jobTemplate: {{spec: {{template: {}}}}}}}}}",
        template("web"),
        template("db"),
        template("tick"),
    ))
}

/// A namespace with these labels, as they are written in YAML.
pub fn namespace(name: &str, labels: &str) -> Vec<Object> {
    read(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{kubernetes.io/metadata.name: {name}, {labels}}}}}}}"
    ))
}

/// Configuration that uses the gateway.
pub fn config(namespace: &str) -> Vec<Object> {
    read(&format!(
        "{{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {{name: gw, namespace: {namespace}}}, spec: {{selector: {{istio: gw}}}}}}
---
{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: web, namespace: {namespace}}}, spec: {{hosts: ['*']}}}}"
    ))
}

/// A Gateway of the Gateway API.
pub fn api_gateway(namespace: &str, labels: &str) -> Vec<Object> {
    read(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: web, namespace: {namespace}, labels: {{{labels}}}}}, \
         spec: {{gatewayClassName: istio, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}}}"
    ))
}

/// What istiod deploys for it.
pub fn deployed(namespace: &str, revision: &str) -> Vec<Object> {
    let name = "gateway.networking.k8s.io/gateway-name: web";
    let labels = format!("{name}, gateway.networking.k8s.io/gateway-class-name: istio");
    read(&format!(
        "{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: web-istio, namespace: {namespace}, labels: {{{labels}}}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web-istio, namespace: {namespace}, labels: {{{labels}, gateway.istio.io/managed: istio.io-gateway-controller}}}}
spec:
  selector: {{matchLabels: {{{name}}}}}
  template:
    metadata: {{labels: {{{labels}, gateway.istio.io/managed: istio.io-gateway-controller, sidecar.istio.io/inject: 'false'}}, annotations: {{istio.io/rev: {revision:?}}}}}
    spec:
      serviceAccountName: web-istio
      containers:
      - {{name: istio-proxy, image: 'docker.io/istio/proxyv2:1.23.2', env: [{{name: CA_ADDR, value: 'istiod-{revision}.istio-system.svc:15012'}}]}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: web-istio, namespace: {namespace}, labels: {{{labels}}}}}, spec: {{type: LoadBalancer, selector: {{{name}}}, ports: [{{port: 80}}]}}}}"
    ))
}

/// A person asks for the gateway to be moved; `status` is what the controller makes of it.
pub fn rollout(namespace: &str, from: &str, to: &str, status: &str) -> Vec<Object> {
    read(&format!(
        "{{apiVersion: revguard.dev/v1alpha1, kind: GatewayRollout, metadata: {{name: gw-{to}, namespace: {namespace}, uid: u1}}, spec: \
         {{target: {{deployment: {{name: gw}}}}, toRevision: {to:?}}}, status: {{fromRevision: {from:?}, {status}}}}}"
    ))
}

/// What a rollout makes beside the gateway, on a revision.
pub fn beside(namespace: &str, revision: &str, replicas: u32) -> Vec<Object> {
    read(&format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: gw-{revision}, namespace: {namespace}, labels: {{app: gw, revguard.dev/rollout: u1}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: gw, istio: gw, revguard.dev/instance: u1-{revision}}}}}
  template:
    metadata: {{labels: {{app: gw, istio: gw, revguard.dev/instance: u1-{revision}, sidecar.istio.io/inject: 'true', istio.io/rev: {revision:?}}}, annotations: {{inject.istio.io/templates: gateway}}}}
    spec: {{containers: [{{name: istio-proxy, image: auto}}]}}"
    ))
}
