//! The one way in which the controller writes.
//!
//! A [`Write`] is a value: what, where, under which precondition, and the name of the boundary that it crosses. It is
//! refused unless this process leads at the moment when it begins, it must end before anybody else may lead, and it is
//! sent once: whoever wanted it looks again before wanting it again. What changed since it was looked at is an answer of
//! its own ([`WriteError::Moved`]), not a failure.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};

use super::lease::Leadership;
use super::resource::At;
use super::send::{self, Method};
use crate::cluster::Trouble;
use crate::model::key;
use crate::telemetry::metrics::Loop;
use crate::telemetry::{Metrics, Pulse};

/// The longest a write may take. A leader ends this much before its Lease does.
pub const LONGEST: Duration = Duration::from_secs(5);

/// Who owns the fields of a server-side apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// `revguard`
    Controller,
    /// `revguard-ca`: only caBundle, so that GitOps tools can be told to ignore exactly that.
    Ca,
}

impl Manager {
    pub const fn as_str(self) -> &'static str {
        match self {
            Manager::Controller => key::FIELD_MANAGER,
            Manager::Ca => "revguard-ca",
        }
    }
}

/// The object as it was when the write was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub uid: String,
    /// Empty: any version of that object will do.
    pub version: String,
}

impl Held {
    /// Of an object as the API server gave it.
    pub fn of(object: &Value) -> Held {
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        Held { uid: text("uid"), version: text("resourceVersion") }
    }

    /// The object itself, whatever has become of it since.
    #[must_use]
    pub fn any_version(mut self) -> Held {
        self.version.clear();
        self
    }
}

/// What is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Server-side apply, by force: these fields are ours. `apiVersion`, `kind` and `metadata.name` are filled in.
    /// With `held` nothing is created: the object must exist and be that one.
    Apply { object: Value, manager: Manager, held: Option<Held> },
    /// Operations of a JSON patch on that object.
    Patch { operations: Vec<Value>, held: Held },
    /// The same while its spec is of this generation, whatever has become of its status: what a Deployment reports changes with
    /// every pod that starts, and would refuse the very write that is due because a pod has started.
    PatchSpec { operations: Vec<Value>, held: Held, generation: i64 },
    /// A new object, refused if there is one. `apiVersion`, `kind`, `metadata.name` and `.namespace` are filled in.
    Create { object: Value },
    /// The end of that object. With `foreground` the API server keeps it until everything that it owns is gone, so that
    /// nobody can adopt what is left over.
    Delete { held: Held, foreground: bool },
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The write boundary: a constant that tests kill at and logs name.
    pub boundary: &'static str,
    /// Whose errors it counts among.
    pub by: Loop,
    pub at: At,
    pub change: Change,
}

/// Why nothing was written, or why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("{at} is not written: this replica does not lead")]
    NotLeader { at: String },
    /// The precondition did not hold: look again.
    #[error("{at} has changed since it was looked at")]
    Moved { at: String },
    #[error("{at} is not there")]
    Missing { at: String },
    #[error("{verb} of {at} is forbidden: {message}; `kubectl auth can-i` tells, docs/access.md lists what is needed")]
    Forbidden { verb: &'static str, at: String, message: String },
    /// The API server or an admission policy does not want it. The same write would end the same way.
    #[error("{verb} of {at} is refused: {message}")]
    Refused { verb: &'static str, at: String, message: String },
    /// No answer, or none that tells: it may have been written.
    #[error("{verb} of {at}: {trouble}")]
    Trouble { verb: &'static str, at: String, trouble: Trouble },
}

impl WriteError {
    /// Nothing is wrong: somebody else was faster, or leads.
    pub fn is_benign(&self) -> bool {
        matches!(self, WriteError::NotLeader { .. } | WriteError::Moved { .. })
    }
}

/// On which side of a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// Sees every boundary that is crossed. Tests end the process there; nobody else is told.
pub trait Witness: Send + Sync + 'static {
    fn crosses(&self, boundary: &'static str, side: Side);
}

/// Carries out writes.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    witness: Option<Arc<dyn Witness>>,
    /// Of the task that all of this is done for.
    pulse: Option<Pulse>,
}

impl Writer {
    pub fn new(client: Client, leadership: Leadership, metrics: Arc<Metrics>) -> Writer {
        Writer { client, leadership, metrics, witness: None, pulse: None }
    }

    /// The same, for a task whose one turn may take hundreds of requests: each of them takes some seconds at most, so that one
    /// that has ended, however, shows that the task goes on.
    #[must_use]
    pub fn beating(mut self, pulse: Pulse) -> Writer {
        self.pulse = Some(pulse);
        self
    }

    /// The same, watched.
    #[must_use]
    pub fn witnessed(mut self, witness: Arc<dyn Witness>) -> Writer {
        self.witness = Some(witness);
        self
    }

    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The object as it is now; `None` if there is none. Reading needs no leadership.
    ///
    /// # Errors
    /// Whatever the API server says instead.
    pub async fn read(&self, at: &At) -> Result<Option<Value>, WriteError> {
        let found = send::send(&self.client, Method::Get, at, None, LONGEST).await;
        self.beat();
        match found {
            Ok(object) => Ok(Some(object)),
            Err(Trouble::NotFound) => Ok(None),
            Err(trouble) => Err(error(Method::Get.verb(), at, trouble)),
        }
    }

    /// Carries out a write and returns the object as it is then. Failures are counted here.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write(&self, write: &Write) -> Result<Value, WriteError> {
        let done = self.attempt(write).await;
        self.beat();
        match &done {
            Ok(_) => tracing::debug!(boundary = write.boundary, object = %write.at, "written"),
            Err(e) if e.is_benign() => tracing::debug!(boundary = write.boundary, error = %e, "not written"),
            Err(e) => {
                self.metrics.reconcile_error(write.by);
                tracing::warn!(boundary = write.boundary, error = %e, "not written");
            }
        }
        done
    }

    /// What the API server, its admission plugins and everybody's webhooks would make of a write: all of it but the writing.
    /// It needs the same rights, and no leadership.
    ///
    /// # Errors
    /// Those that the write itself would end with, now.
    pub async fn dry_run(&self, write: &Write) -> Result<Value, WriteError> {
        let (method, mut path, mut body) = request(write);
        if method == Method::Delete {
            body["dryRun"] = json!(["All"]);
        } else {
            path.push_str("&dryRun=All");
        }
        let sent = send::send_with(&self.client, method, &path, Some(&body), LONGEST).await;
        sent.map_err(|trouble| error(method.verb(), &write.at, unfit(trouble, &write.change)))
    }

    async fn attempt(&self, write: &Write) -> Result<Value, WriteError> {
        let at = &write.at;
        let Some((_right, left)) = self.leadership.right().await else {
            return Err(WriteError::NotLeader { at: at.to_string() });
        };
        let (method, path, body) = request(write);
        self.crossing(write.boundary, Side::Before);
        let sent = send::send_with(&self.client, method, &path, Some(&body), left.min(LONGEST)).await;
        self.crossing(write.boundary, Side::After);
        sent.map_err(|trouble| error(method.verb(), at, unfit(trouble, &write.change)))
    }

    fn beat(&self) {
        if let Some(pulse) = &self.pulse {
            pulse.beat();
        }
    }

    fn crossing(&self, boundary: &'static str, side: Side) {
        if let Some(witness) = &self.witness {
            witness.crosses(boundary, side);
        }
    }
}

/// Method, path with query, and body of a write.
fn request(write: &Write) -> (Method, String, Value) {
    let at = &write.at;
    match &write.change {
        Change::Apply { object, manager, held } => {
            let mut object = named(object, at);
            if let Some(held) = held {
                object["metadata"]["uid"] = json!(held.uid);
                if !held.version.is_empty() {
                    object["metadata"]["resourceVersion"] = json!(held.version);
                }
            }
            let path = format!("{}?fieldManager={}&force=true", at.path(), manager.as_str());
            (Method::Apply, path, object)
        }
        Change::Patch { operations, held } => {
            // A version in the patch is compared by the API server and answered 409; a `test` of it would be answered
            // like any patch that does not fit. Versions are never used twice, so the version implies the uid.
            let guard = if held.version.is_empty() {
                json!({"op": "test", "path": "/metadata/uid", "value": held.uid})
            } else {
                json!({"op": "replace", "path": "/metadata/resourceVersion", "value": held.version})
            };
            let operations: Vec<Value> = std::iter::once(guard).chain(operations.iter().cloned()).collect();
            let path = format!("{}?fieldManager={}", at.path(), Manager::Controller.as_str());
            (Method::JsonPatch, path, Value::Array(operations))
        }
        Change::PatchSpec { operations, held, generation } => {
            let is = |path: &str, value: Value| json!({"op": "test", "path": path, "value": value});
            let guards = [is("/metadata/uid", json!(held.uid)), is("/metadata/generation", json!(generation))];
            let operations: Vec<Value> = guards.into_iter().chain(operations.iter().cloned()).collect();
            let path = format!("{}?fieldManager={}", at.path(), Manager::Controller.as_str());
            (Method::JsonPatch, path, Value::Array(operations))
        }
        Change::Create { object } => {
            let path = format!("{}?fieldManager={}", at.resource.path(&at.namespace), Manager::Controller.as_str());
            (Method::Create, path, named(object, at))
        }
        Change::Delete { held, foreground } => {
            let mut preconditions = json!({"uid": held.uid});
            if !held.version.is_empty() {
                preconditions["resourceVersion"] = json!(held.version);
            }
            let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions});
            if *foreground {
                body["propagationPolicy"] = json!("Foreground");
            }
            (Method::Delete, at.path(), body)
        }
    }
}

fn named(object: &Value, at: &At) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(at.resource.api_version());
    object["kind"] = json!(at.resource.kind);
    object["metadata"]["name"] = json!(at.name);
    if !at.namespace.is_empty() {
        object["metadata"]["namespace"] = json!(at.namespace);
    }
    object
}

/// A `test` that did not hold is answered like any patch that does not fit, in these words and no others.
fn unfit(trouble: Trouble, change: &Change) -> Trouble {
    const UNFIT: &str = "the server rejected our request due to an error in our request";
    match (trouble, change) {
        (Trouble::Invalid(message), Change::PatchSpec { .. }) if message.contains(UNFIT) => {
            Trouble::Refused(409, message)
        }
        (trouble, _) => trouble,
    }
}

fn error(verb: &'static str, at: &At, trouble: Trouble) -> WriteError {
    let at = at.to_string();
    match trouble {
        Trouble::NotFound => WriteError::Missing { at },
        Trouble::Refused(409, _) => WriteError::Moved { at },
        // A server-side apply to what has the name of the object that was meant, and is another one.
        Trouble::Invalid(message) if message.contains("metadata.uid: Invalid value") => WriteError::Moved { at },
        Trouble::Forbidden(message) if message.contains("cannot ") => WriteError::Forbidden { verb, at, message },
        Trouble::Forbidden(message) | Trouble::Invalid(message) => WriteError::Refused { verb, at, message },
        trouble => WriteError::Trouble { verb, at, trouble },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::resource::{CONFIG_MAPS, VALIDATING};

    fn write(change: Change) -> Write {
        Write { boundary: "test", by: Loop::Audit, at: At::of(&CONFIG_MAPS, "ns", "c"), change }
    }

    #[test]
    fn every_write_names_what_it_expects() {
        let held = Held { uid: "u".into(), version: "7".into() };
        let operations = vec![json!({"op": "remove", "path": "/data/a"})];
        let (method, path, body) = request(&write(Change::Patch { operations, held: held.clone() }));
        assert_eq!(
            (method.verb(), path.as_str()),
            ("patch", "/api/v1/namespaces/ns/configmaps/c?fieldManager=revguard")
        );
        assert_eq!(body[0], json!({"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}));
        assert_eq!(body[1]["path"], "/data/a");
        let operations = vec![json!({"op": "add", "path": "/spec/replicas", "value": 1})];
        let scale = Change::PatchSpec { operations, held: held.clone(), generation: 3 };
        let (_, _, body) = request(&write(scale.clone()));
        assert_eq!(body[0], json!({"op": "test", "path": "/metadata/uid", "value": "u"}));
        assert_eq!(body[1], json!({"op": "test", "path": "/metadata/generation", "value": 3}));
        let refused = || Trouble::Invalid("the server rejected our request due to an error in our request".to_owned());
        assert!(error("patch", &At::of(&CONFIG_MAPS, "ns", "c"), unfit(refused(), &scale)).is_benign());
        assert!(matches!(unfit(refused(), &Change::Create { object: json!({}) }), Trouble::Invalid(_)));
        let delete = |foreground| Change::Delete { held: held.clone().any_version(), foreground };
        let (_, _, body) = request(&write(delete(false)));
        assert_eq!(body["preconditions"], json!({"uid": "u"}));
        assert_eq!(body["propagationPolicy"], json!(null), "the API server's own default");
        assert_eq!(request(&write(delete(true))).2["propagationPolicy"], "Foreground");
        let (_, path, body) =
            request(&write(Change::Apply { object: json!({"data": {}}), manager: Manager::Ca, held: Some(held) }));
        assert!(path.ends_with("?fieldManager=revguard-ca&force=true"), "{path}");
        let metadata = json!({"name": "c", "namespace": "ns", "uid": "u", "resourceVersion": "7"});
        assert_eq!(body, json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {}, "metadata": metadata}));
    }

    #[test]
    fn what_the_api_server_says_tells_a_refusal_from_a_missing_right() {
        let at = At::of(&VALIDATING, "", "v");
        let rbac = Trouble::Forbidden("User \"x\" cannot patch resource".into());
        assert!(matches!(error("patch", &at, rbac), WriteError::Forbidden { .. }));
        let policy = Trouble::Forbidden("ValidatingAdmissionPolicy 'p' denied request: no".into());
        assert!(matches!(error("patch", &at, policy), WriteError::Refused { .. }));
        assert!(error("patch", &at, Trouble::Refused(409, String::new())).is_benign());
        let other = Trouble::Invalid("\"v\" is invalid: metadata.uid: Invalid value: \"u\": field is immutable".into());
        assert!(error("patch", &at, other).is_benign());
        let shown = error("patch", &at, Trouble::NotFound).to_string();
        assert_eq!(shown, "ValidatingWebhookConfiguration v is not there");
    }
}
