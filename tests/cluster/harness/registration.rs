//! Registering webhooks with the API server, by URL.
//!
//! A configuration that is written is not yet one that is used: the API server learns of it through a
//! watch of its own. [`Registration::create`] returns when it is used, and [`Registration::remove`]
//! when it is not any more. Both find out by a *marker*: a second configuration of the same kind,
//! written afterwards, whose only webhook calls a port where nobody listens. Once a dry-run that it
//! matches fails, the API server's view contains the marker, and because one watch delivers in order,
//! it contains everything before it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, DynamicObject, PostParams};
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::ControlPlane;
use super::runtime::finish;
use super::wait::wait_until;

const SEEN: Duration = Duration::from_secs(20);

/// Label that makes a ConfigMap concern a marker.
const MARKER: &str = "revguard-tests/marker";

/// Nobody listens on port 1 of loopback.
const NOBODY: &str = "https://127.0.0.1:1/";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Validating,
    Mutating,
}

impl Kind {
    fn resource(self) -> ApiResource {
        let kind = match self {
            Kind::Validating => "ValidatingWebhookConfiguration",
            Kind::Mutating => "MutatingWebhookConfiguration",
        };
        ApiResource {
            group: "admissionregistration.k8s.io".into(),
            version: "v1".into(),
            api_version: "admissionregistration.k8s.io/v1".into(),
            kind: kind.into(),
            plural: format!("{}s", kind.to_lowercase()),
        }
    }
}

/// One webhook of a configuration. `Hook::new` fills what the API requires; a test changes the rest.
#[derive(Clone, Debug)]
pub struct Hook {
    /// At least three labels with dots between them.
    pub name: String,
    pub url: String,
    /// PEM of whoever signs the server's certificate.
    pub ca: String,
    pub rules: Value,
    pub namespace_selector: Value,
    pub object_selector: Value,
    pub match_conditions: Value,
    pub failure_policy: &'static str,
    /// 1 to 30.
    pub timeout_seconds: u8,
}

impl Hook {
    /// `Fail`, 10 s, everything in every namespace that `rules` names.
    pub fn new(name: &str, url: &str, ca: &str, rules: Value) -> Hook {
        Hook {
            name: name.to_owned(),
            url: url.to_owned(),
            ca: ca.to_owned(),
            rules,
            namespace_selector: json!({}),
            object_selector: json!({}),
            match_conditions: json!([]),
            failure_policy: "Fail",
            timeout_seconds: 10,
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "clientConfig": client_config(&self.url, &self.ca),
            "rules": self.rules,
            "namespaceSelector": self.namespace_selector,
            "objectSelector": self.object_selector,
            "matchConditions": self.match_conditions,
            "failurePolicy": self.failure_policy,
            "timeoutSeconds": self.timeout_seconds,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        })
    }
}

/// `clientConfig` of a webhook that is reached by URL.
pub fn client_config(url: &str, ca: &str) -> Value {
    // ByteString writes itself as base64, which is what the field holds.
    json!({"url": url, "caBundle": ByteString(ca.as_bytes().to_vec())})
}

/// Rules for `operations` on one resource: `rule(&["CREATE"], "", "v1", "pods")`.
pub fn rule(operations: &[&str], group: &str, version: &str, resource: &str) -> Value {
    json!([{
        "operations": operations, "apiGroups": [group], "apiVersions": [version],
        "resources": [resource], "scope": "*",
    }])
}

/// A registered configuration. Dropping it removes it.
pub struct Registration {
    client: Client,
    kind: Kind,
    name: String,
    live: bool,
}

impl Registration {
    /// Registers `hooks` as the configuration `name`, and returns once the API server uses it.
    pub async fn create(plane: &ControlPlane, kind: Kind, name: &str, hooks: &[Hook]) -> Result<Self> {
        let webhooks: Vec<Value> = hooks.iter().map(Hook::to_json).collect();
        let configuration = json!({"metadata": {"name": name}, "webhooks": webhooks});
        let made = Self::create_all(plane, kind, vec![configuration]).await?;
        made.into_iter().next().context("one registration")
    }

    /// Registers whole configurations, as manifests hold them, in one go.
    pub async fn create_all(plane: &ControlPlane, kind: Kind, configurations: Vec<Value>) -> Result<Vec<Self>> {
        let client = plane.client();
        let mut made = Vec::new();
        for configuration in configurations {
            let object = object(kind, configuration)?;
            let name = object.metadata.name.clone().context("a name")?;
            api(&client, kind)
                .create(&PostParams::default(), &object)
                .await
                .with_context(|| format!("register {name}"))?;
            made.push(Registration { client: client.clone(), kind, name, live: true });
        }
        settled(&client, kind).await?;
        Ok(made)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Removes it, and returns once the API server does not use it any more.
    pub async fn remove(mut self) -> Result<()> {
        self.live = false;
        self.delete().await?;
        settled(&self.client, self.kind).await
    }

    async fn delete(&self) -> Result<()> {
        let deleted = api(&self.client, self.kind).delete(&self.name, &DeleteParams::default()).await;
        match deleted {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error).with_context(|| format!("remove {}", self.name)),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.live {
            return;
        }
        // Not waiting for the API server to notice: a test that cares calls `remove`.
        if let Err(error) = finish(self.delete()) {
            eprintln!("cluster: a webhook configuration is still there: {error:#}");
        }
    }
}

fn api(client: &Client, kind: Kind) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &kind.resource())
}

fn object(kind: Kind, mut configuration: Value) -> Result<DynamicObject> {
    let resource = kind.resource();
    configuration["apiVersion"] = json!(resource.api_version);
    configuration["kind"] = json!(resource.kind);
    Ok(serde_json::from_value(configuration)?)
}

/// Returns when the API server's view of configurations of `kind` includes every write before this
/// call. Also for configurations that somebody else has written.
pub async fn settled(client: &Client, kind: Kind) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = format!("marker-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut hook = Hook::new("marker.revguard-tests.example", NOBODY, "", rule(&["CREATE"], "", "v1", "configmaps"));
    hook.object_selector = json!({"matchLabels": {MARKER: id}});
    let mut webhook = hook.to_json();
    // An empty caBundle would be refused as one without certificates.
    webhook["clientConfig"] = json!({"url": NOBODY});
    let marker = object(kind, json!({"metadata": {"name": id}, "webhooks": [webhook]}))?;
    let configurations = api(client, kind);
    configurations.create(&PostParams::default(), &marker).await?;

    let probe: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": id, "labels": {MARKER: id}},
    }))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let seen = wait_until(SEEN, "webhook configurations in use", || async {
        match config_maps.create(&dry_run, &probe).await {
            Ok(_) => Err("the API server does not call the marker yet".to_owned()),
            Err(kube::Error::Api(status)) if status.message.contains("marker.revguard-tests") => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    configurations.delete(&id, &DeleteParams::default()).await?;
    seen
}
