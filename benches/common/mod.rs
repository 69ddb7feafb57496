//! Requests and clusters of a given size, alike in every bench.
#![allow(dead_code)] // each bench uses its own part

pub mod record;

use std::fmt::Write;

use revguard::admission::compose::{Wanted, body};
use revguard::model::Kind;
use revguard::rules::User;
use revguard::snapshot::Snapshot;
use revguard::wire::manifest;
use serde_json::{Value, json};

const MESH: &str = include_str!("../../src/cli/demo/mesh.yaml");

/// Two control planes and this many namespaces, each with five Deployments.
pub fn cluster(namespaces: usize) -> Snapshot {
    let mut text = MESH.to_owned();
    for n in 0..namespaces {
        let rev = ["1-23", "1-24", "prod"][n % 3];
        let _ = write!(
            text,
            "\n---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: ns-{n}, labels: {{istio.io/rev: {rev}}}}}}}"
        );
    }
    let read = manifest::read("mesh", &text, "default");
    assert!(read.problems.is_empty(), "{:?}", read.problems.first());
    let mut snapshot = read.documents.into_iter().fold(Snapshot::whole(), |s, d| s.with(d.object));
    for n in 0..namespaces {
        for w in 0..5 {
            let object =
                manifest::typed(Kind::Deployment, &deployment(&format!("ns-{n}"), &format!("app-{w}"), 0)).unwrap();
            snapshot = snapshot.with(object);
        }
    }
    snapshot
}

fn user() -> User {
    User {
        name: "system:serviceaccount:argocd:argocd-application-controller".into(),
        groups: vec![
            "system:serviceaccounts".into(),
            "system:serviceaccounts:argocd".into(),
            "system:authenticated".into(),
        ],
    }
}

/// The CREATE of a Deployment whose review has about `size` bytes.
pub fn create_deployment(size: usize) -> Vec<u8> {
    create_named(size, "ns-1", "api")
}

pub fn create_named(size: usize, namespace: &str, name: &str) -> Vec<u8> {
    let d = grown(size, namespace, name);
    body(Kind::Deployment, &Wanted::Create(&d), &user(), UID, false).into_bytes()
}

/// An UPDATE of its image: both objects have about `size` bytes.
pub fn update_deployment(size: usize) -> Vec<u8> {
    update_named(size, "ns-1", "api")
}

pub fn update_named(size: usize, namespace: &str, name: &str) -> Vec<u8> {
    let old = grown(size, namespace, name);
    let mut new = old.clone();
    new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.example/shop/api:2");
    body(Kind::Deployment, &Wanted::Update { old: &old, new: &new }, &user(), UID, false).into_bytes()
}

const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

fn grown(size: usize, namespace: &str, name: &str) -> Value {
    let mut extra = 0;
    loop {
        let d = deployment(namespace, name, extra);
        if d.to_string().len() + 700 >= size {
            return d;
        }
        extra += 1;
    }
}

/// The UPDATE of a Namespace's labels, about 4 kB.
pub fn namespace() -> Vec<u8> {
    let fields: Vec<Value> = (0..12).map(|i| managed(&format!("manager-{i}"))).collect();
    let make = |rev: &str| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns-1", "uid": "3602534f-c603-45fc-ad0f-6adf815db57b",
            "resourceVersion": "371", "creationTimestamp": "2026-11-21T01:07:15Z",
            "labels": {"istio.io/rev": rev, "kubernetes.io/metadata.name": "ns-1", "team": "shop", "env": "prod"},
            "annotations": {"scheduler.alpha.kubernetes.io/node-selector": "pool=general"}, "managedFields": fields},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
    };
    let (old, new) = (make("1-23"), make("1-24"));
    body(
        Kind::Namespace,
        &Wanted::Update { old: &old, new: &new },
        &user(),
        "705ab4f5-6393-11e8-b7cc-42010a800002",
        false,
    )
    .into_bytes()
}

fn managed(name: &str) -> Value {
    json!({"manager": name, "operation": "Update", "apiVersion": "v1", "time": "2026-11-21T01:07:15Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:team": {}, "f:env": {}}}}})
}

/// A Deployment as a GitOps tool writes it; `extra` adds environment, volumes and managed fields.
pub fn deployment(namespace: &str, name: &str, extra: usize) -> Value {
    let env: Vec<Value> = (0..10 + extra * 2)
        .map(|i| json!({"name": format!("SETTING_{i}"), "value": format!("https://service-{i}.{namespace}.svc.cluster.local:8443/v1")}))
        .collect();
    let volumes: Vec<Value> = (0..3 + extra / 3)
        .map(|i| json!({"name": format!("config-{i}"), "configMap": {"name": format!("{name}-config-{i}"), "defaultMode": 420}}))
        .collect();
    let mounts: Vec<Value> = (0..3 + extra / 3)
        .map(|i| json!({"name": format!("config-{i}"), "mountPath": format!("/etc/{name}/{i}"), "readOnly": true}))
        .collect();
    let fields: serde_json::Map<String, Value> = (0..20 + extra * 2)
        .map(|i| (format!("k:{{\"name\":\"SETTING_{i}\"}}"), json!({".": {}, "f:name": {}, "f:value": {}})))
        .collect();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": name, "namespace": namespace, "uid": "6414e4e3-4164-4db6-b7f7-934270c00c9a", "generation": 1,
            "creationTimestamp": "2026-11-21T01:07:15Z",
            "labels": {"app": name, "app.kubernetes.io/name": name, "app.kubernetes.io/instance": name, "app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "api-1.2.3", "team": "shop"},
            "annotations": {"deployment.kubernetes.io/revision": "1", "meta.helm.sh/release-name": name, "argocd.argoproj.io/tracking-id": format!("shop:apps/Deployment:{namespace}/{name}")},
            "managedFields": [{"manager": "argocd-controller", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-11-21T01:07:15Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"api\"}": {"f:env": fields}}}}}}}]
        },
        "spec": {
            "replicas": 3, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {"labels": {"app": name, "app.kubernetes.io/name": name, "version": "v1", "team": "shop"},
                    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "proxy.istio.io/config": "{\"holdApplicationUntilProxyStarts\":true}"}},
                "spec": {
                    "serviceAccountName": name, "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
                    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": "api", "image": "registry.example/shop/api:1", "imagePullPolicy": "IfNotPresent",
                        "args": ["--port=8080", "--metrics=:9090", "--log=info"],
                        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"name": "metrics", "containerPort": 9090, "protocol": "TCP"}],
                        "env": env,
                        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 5, "timeoutSeconds": 1, "failureThreshold": 3, "successThreshold": 1},
                        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true},
                        "volumeMounts": mounts, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"
                    }],
                    "volumes": volumes
                }
            }
        },
        "status": {"replicas": 3, "readyReplicas": 3}
    })
}
