//! The AdmissionReview codec: one typed pass over the body.
//!
//! The API server writes a request's kind before its object, so the object is read by its lean type as it streams by, and
//! `oldObject` is only skipped over until a rule compares. A body in another order is read all the same, in two passes.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::{Kind, Object, Str};
use crate::rules::request::LazyObject;
use crate::rules::{Operation, Request, User};
use crate::snapshot::Snapshot;
use crate::wire::tree::{Seen, Text};
use crate::wire::{self, OfKind, find_kind, row};

/// A request as it was sent.
pub struct Review<'a> {
    pub uid: String,
    pub dry_run: bool,
    pub user: User,
    pub namespace: Str,
    pub name: Str,
    /// Group and kind, as sent.
    pub kind_name: String,
    pub write: Write<'a>,
}

/// What is written.
pub enum Write<'a> {
    /// A kind (or operation) that no rule looks at.
    Other,
    Object {
        kind: Kind,
        operation: Operation,
        sub_resource: String,
        new: Option<Box<Object>>,
        old: Option<&'a RawValue>,
    },
    /// Through the scale subresource of this kind.
    Scale { kind: Kind, replicas: u32, before: Option<u32> },
}

/// A body that gives no request.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unreadable {
    /// HTTP 400: the call failed, and `failurePolicy` decides.
    #[error("not an AdmissionReview of admission.k8s.io/v1: {0}")]
    Envelope(String),
    /// HTTP 200 with a denial of code 422: the request is known, its object is not.
    #[error("{message}")]
    Object { uid: String, message: String },
}

/// Reads a body.
///
/// # Errors
/// See [`Unreadable`].
pub fn read(body: &[u8]) -> Result<Review<'_>, Unreadable> {
    // Checked once as a whole, which takes a tenth of what checking string by string does.
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => {
            let why = format!("invalid UTF-8 at byte {}", error.valid_up_to());
            return Err(explain(&String::from_utf8_lossy(body), &why));
        }
    };
    let mut d = serde_json::Deserializer::from_str(text);
    match EnvelopeSeed.deserialize(&mut d).and_then(|e| d.end().map(|()| e)) {
        Ok(envelope) => envelope.into_review(),
        Err(first) => Err(explain(text, &first.to_string())),
    }
}

/// Reads again, shallowly and field by field, to find the uid and to name what cannot be read.
fn explain(body: &str, first: &str) -> Unreadable {
    type Fields<'a> = BTreeMap<String, &'a RawValue>;
    fn field<'a, T: Deserialize<'a>>(fields: &Fields<'a>, key: &str) -> Option<T> {
        serde_json::from_str(fields.get(key)?.get()).ok()
    }
    let envelope = || Unreadable::Envelope(first.to_owned());
    let Ok(review) = serde_json::from_str::<Fields<'_>>(body) else { return envelope() };
    let is = |key: &str, wanted: &str| field::<String>(&review, key).is_some_and(|v| v == wanted);
    let Some(request) = field::<Fields<'_>>(&review, "request").filter(|_| is("apiVersion", API_VERSION)) else {
        return envelope();
    };
    let Some(uid) = field::<String>(&request, "uid").filter(|uid| !uid.is_empty()) else { return envelope() };
    if !is("kind", "AdmissionReview") {
        return envelope();
    }
    let kind: GroupKind = field(&request, "kind").unwrap_or_default();
    let named = find_kind(&kind.group, &kind.kind).and_then(|known| {
        let object =
            ["object", "oldObject"].into_iter().filter_map(|key| request.get(key)).find(|o| o.get() != "null")?;
        wire::read_str(known, object.get()).err()
    });
    let what = if kind.kind.is_empty() { "object" } else { &kind.kind };
    let message = format!("the {what} cannot be read: {}", named.unwrap_or_else(|| first.to_owned()));
    Unreadable::Object { uid, message }
}

pub(super) const API_VERSION: &str = "admission.k8s.io/v1";

#[derive(Deserialize, Default)]
#[serde(default)]
struct GroupKind {
    group: String,
    kind: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GroupResource {
    group: String,
    resource: String,
}

#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    request: Option<Raw<'a>>,
}

/// The request's fields, before they are understood.
#[derive(Default)]
struct Raw<'a> {
    uid: String,
    kind: Option<GroupKind>,
    resource: GroupResource,
    sub_resource: String,
    name: Str,
    namespace: Str,
    operation: String,
    user: UserInfo,
    dry_run: Option<bool>,
    object: Slot<'a>,
    old: Slot<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UserInfo {
    username: String,
    #[serde(deserialize_with = "wire::tree::list")]
    groups: Vec<String>,
}

/// `object` or `oldObject`.
#[derive(Default)]
enum Slot<'a> {
    #[default]
    Null,
    Typed(Box<Object>),
    Replicas(u32),
    Raw(&'a RawValue),
}

struct EnvelopeSeed;

impl<'de> DeserializeSeed<'de> for EnvelopeSeed {
    type Value = Envelope<'de>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Envelope<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AdmissionReview")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut out = Envelope::default();
                let mut seen = Seen::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match &*key.0 {
                        "apiVersion" => {
                            seen.once(0, "apiVersion").and_then(|()| map.next_value().map(|v| out.api_version = v))?
                        }
                        "kind" => seen.once(1, "kind").and_then(|()| map.next_value().map(|v| out.kind = v))?,
                        "request" => seen
                            .once(2, "request")
                            .and_then(|()| map.next_value_seed(RequestSeed).map(|v| out.request = v))?,
                        _ => map.next_value::<IgnoredAny>().map(|_| ())?,
                    }
                }
                Ok(out)
            }
        }
        d.deserialize_map(V)
    }
}

struct RequestSeed;

impl<'de> DeserializeSeed<'de> for RequestSeed {
    type Value = Option<Raw<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Option<Raw<'de>>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an admission request")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut raw = Raw::default();
                let mut seen = Seen::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match &*key.0 {
                        "uid" => seen.once(0, "uid").and_then(|()| map.next_value().map(|v| raw.uid = v))?,
                        "kind" => seen.once(1, "kind").and_then(|()| map.next_value().map(|v| raw.kind = Some(v)))?,
                        "resource" => {
                            seen.once(2, "resource").and_then(|()| map.next_value().map(|v| raw.resource = v))?
                        }
                        "subResource" => {
                            seen.once(3, "subResource").and_then(|()| map.next_value().map(|v| raw.sub_resource = v))?
                        }
                        "name" => seen.once(4, "name").and_then(|()| map.next_value().map(|v| raw.name = v))?,
                        "namespace" => {
                            seen.once(5, "namespace").and_then(|()| map.next_value().map(|v| raw.namespace = v))?
                        }
                        "operation" => {
                            seen.once(6, "operation").and_then(|()| map.next_value().map(|v| raw.operation = v))?
                        }
                        "userInfo" => seen.once(7, "userInfo").and_then(|()| map.next_value().map(|v| raw.user = v))?,
                        "dryRun" => seen.once(8, "dryRun").and_then(|()| map.next_value().map(|v| raw.dry_run = v))?,
                        "object" => {
                            seen.once::<A::Error>(9, "object")?;
                            raw.object = map.next_value_seed(raw.shape(true))?;
                        }
                        "oldObject" => {
                            seen.once::<A::Error>(10, "oldObject")?;
                            raw.old = map.next_value_seed(raw.shape(false))?;
                        }
                        _ => map.next_value::<IgnoredAny>().map(|_| ())?,
                    }
                }
                Ok(Some(raw))
            }
        }
        d.deserialize_any(V)
    }
}

/// How an object that comes by now is read.
enum Shape {
    Typed(Kind),
    Scale,
    /// Nobody looks at this kind.
    Skip,
    /// Later: its kind has not come by, or it may never be compared.
    Raw,
}

impl Raw<'_> {
    fn known_kind(&self) -> Option<Kind> {
        self.kind.as_ref().and_then(|k| find_kind(&k.group, &k.kind))
    }

    fn is_scale(&self) -> bool {
        self.kind.as_ref().is_some_and(|k| k.kind == "Scale")
    }

    fn shape(&self, new: bool) -> Shape {
        if self.kind.is_none() || self.operation.is_empty() {
            return Shape::Raw;
        }
        if self.is_scale() {
            return Shape::Scale;
        }
        match self.known_kind() {
            None => Shape::Skip,
            Some(kind) if new || self.operation == "DELETE" => Shape::Typed(kind),
            Some(_) => Shape::Raw,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = Slot<'de>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Slot<'de>, D::Error> {
        struct Maybe(Shape);
        impl<'de> Visitor<'de> for Maybe {
            type Value = Slot<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or null")
            }
            fn visit_unit<E>(self) -> Result<Slot<'de>, E> {
                Ok(Slot::Null)
            }
            fn visit_none<E>(self) -> Result<Slot<'de>, E> {
                Ok(Slot::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Slot<'de>, D::Error> {
                match self.0 {
                    Shape::Typed(kind) => OfKind(kind).deserialize(d).map(|o| Slot::Typed(Box::new(o))),
                    _ => wire::core::Scale::deserialize(d).map(|s| Slot::Replicas(s.replicas())),
                }
            }
        }
        match self {
            Shape::Skip => IgnoredAny::deserialize(d).map(|_| Slot::Null),
            Shape::Raw => {
                <&RawValue>::deserialize(d).map(|r| if r.get() == "null" { Slot::Null } else { Slot::Raw(r) })
            }
            typed => d.deserialize_option(Maybe(typed)),
        }
    }
}

impl<'a> Envelope<'a> {
    fn into_review(self) -> Result<Review<'a>, Unreadable> {
        if self.api_version != API_VERSION || self.kind != "AdmissionReview" {
            return Err(Unreadable::Envelope(format!("apiVersion {:?}, kind {:?}", self.api_version, self.kind)));
        }
        let raw = self.request.ok_or_else(|| Unreadable::Envelope("request is missing".into()))?;
        if raw.uid.is_empty() {
            return Err(Unreadable::Envelope("request.uid is missing".into()));
        }
        let mut raw = raw;
        let uid = std::mem::take(&mut raw.uid);
        let write = match raw.write() {
            Ok(write) => write,
            Err(message) => return Err(Unreadable::Object { uid, message }),
        };
        let kind = raw.kind.unwrap_or_default();
        Ok(Review {
            uid,
            dry_run: raw.dry_run == Some(true),
            user: User { name: raw.user.username, groups: raw.user.groups },
            namespace: raw.namespace,
            name: raw.name,
            kind_name: if kind.group.is_empty() { kind.kind } else { format!("{}.{}", kind.kind, kind.group) },
            write,
        })
    }
}

impl<'a> Raw<'a> {
    fn write(&mut self) -> Result<Write<'a>, String> {
        let operation = match self.operation.as_str() {
            "CREATE" => Operation::Create,
            "UPDATE" => Operation::Update,
            "DELETE" => Operation::Delete,
            _ => return Ok(Write::Other),
        };
        if self.is_scale() {
            let Some(kind) =
                wire::KINDS.iter().find(|r| r.group == self.resource.group && r.plural == self.resource.resource)
            else {
                return Ok(Write::Other);
            };
            let replicas = |slot: &Slot<'_>| match slot {
                Slot::Replicas(n) => Ok(Some(*n)),
                Slot::Raw(r) => serde_json::from_str::<wire::core::Scale>(r.get())
                    .map(|s| Some(s.replicas()))
                    .map_err(|e| e.to_string()),
                _ => Ok(None),
            };
            let after = replicas(&self.object)?.ok_or("the Scale is null")?;
            return Ok(Write::Scale { kind: kind.kind, replicas: after, before: replicas(&self.old)? });
        }
        let Some(kind) = self.known_kind() else { return Ok(Write::Other) };
        let typed = |slot: Slot<'a>| match slot {
            Slot::Typed(o) => Ok(Some(o)),
            Slot::Raw(r) => wire::read_str(kind, r.get()).map(|o| Some(Box::new(o))),
            _ => Ok(None),
        };
        let (object, old) = (std::mem::take(&mut self.object), std::mem::take(&mut self.old));
        let (new, old) = match (operation, old) {
            (Operation::Delete, old) => (typed(old)?, None),
            (_, Slot::Raw(raw)) => (typed(object)?, Some(raw)),
            _ => (typed(object)?, None),
        };
        if new.is_none() && operation != Operation::Delete {
            return Err(format!("the {} is null", row(kind).name));
        }
        Ok(Write::Object { kind, operation, sub_resource: std::mem::take(&mut self.sub_resource), new, old })
    }
}

impl<'a> Review<'a> {
    /// The request to judge; `None` if nothing needs judging. Completes from the snapshot what the API server leaves out: the
    /// Deployment behind a Scale, the object behind a bare DELETE.
    pub fn into_request(self, snapshot: &Snapshot) -> Option<(Str, Request<'a>)> {
        let stored = |kind: Kind| snapshot.get(kind, &self.namespace, &self.name).cloned();
        let (operation, sub_resource, object, old) = match self.write {
            Write::Other => return None,
            Write::Scale { kind, replicas, before } => {
                let Some(Object::Workload(_, stored)) = stored(kind) else { return None };
                let (mut new, mut old) = (stored.clone(), stored);
                new.replicas = Some(replicas);
                old.replicas = before.or(old.replicas);
                let old = LazyObject::ready(Object::Workload(kind, old));
                (Operation::Update, "scale".to_owned(), Object::Workload(kind, new), old)
            }
            Write::Object { kind, operation, sub_resource, new, old } => {
                let object = match new {
                    Some(o) => *o,
                    None => stored(kind)?,
                };
                let old = old.map_or_else(LazyObject::none, |raw| LazyObject::unread(kind, raw.get()));
                (operation, sub_resource, object, old)
            }
        };
        let mut object = object;
        let meta = object.meta_mut();
        if meta.name.is_empty() {
            meta.name = self.name;
        }
        // The API server fills in the namespace of the URL before admission, but not in every version of every client.
        if meta.namespace.is_empty() {
            meta.namespace = self.namespace.clone();
        }
        if object.kind() == Kind::Namespace {
            object.meta_mut().namespace = Str::default();
        }
        Some((Str::from(self.uid), Request { user: self.user, operation, sub_resource, object, old }))
    }
}
