//! One request to judge, whoever sends it: the API server, `check`, a test.

use std::cell::OnceCell;
use std::marker::PhantomData;

use crate::model::{
    GatewayConfig, Hpa, Id, Kind, Lifecycle, Namespace, Object, Operator, Pdb, Rollout, Sail, Service, Workload,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// Who writes.
#[derive(Clone, Debug, Default)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

/// A write, parsed at the edge. A scale arrives as the update of its workload's `spec.replicas`.
pub struct Request<'a> {
    pub user: User,
    pub operation: Operation,
    /// `status`, `finalize`, …; scales have none by now.
    pub sub_resource: String,
    /// The object as it will be; of a DELETE the object as it was.
    pub object: Object,
    pub old: LazyObject<'a>,
}

impl Request<'_> {
    pub fn id(&self) -> Id {
        self.object.id()
    }
}

/// `oldObject`: read only when a rule compares.
pub struct LazyObject<'a> {
    kind: Kind,
    json: Option<&'a str>,
    read: OnceCell<Option<Object>>,
}

impl<'a> LazyObject<'a> {
    /// There is no old object.
    pub fn none() -> Self {
        LazyObject { kind: Kind::Namespace, json: None, read: OnceCell::from(None) }
    }

    /// An object at hand.
    pub fn ready(object: Object) -> Self {
        LazyObject { kind: object.kind(), json: None, read: OnceCell::from(Some(object)) }
    }

    /// The bytes of an object.
    pub fn unread(kind: Kind, json: &'a str) -> Self {
        LazyObject { kind, json: Some(json), read: OnceCell::new() }
    }

    /// `None` if there is none, or if the stored object cannot be read: then nothing can be compared, and the new object
    /// is judged as if it were created.
    pub fn get(&self) -> Option<&Object> {
        self.read.get_or_init(|| self.json.and_then(|json| crate::wire::read_str(self.kind, json).ok())).as_ref()
    }
}

/// The old object, typed like the new one.
pub struct Old<'a, T> {
    lazy: Option<&'a LazyObject<'a>>,
    typed: PhantomData<T>,
}

impl<'a, T: Typed> Old<'a, T> {
    pub(super) fn of(lazy: &'a LazyObject<'a>) -> Self {
        Old { lazy: Some(lazy), typed: PhantomData }
    }

    /// As if the object were created now.
    pub(super) fn absent() -> Self {
        Old { lazy: None, typed: PhantomData }
    }

    /// `None` on CREATE. Reading costs as much as reading the new object did, so ask late.
    pub fn get(&self) -> Option<&'a T> {
        self.lazy.and_then(LazyObject::get).and_then(T::of)
    }
}

/// A type that rules judge.
pub trait Typed: Sized {
    fn of(object: &Object) -> Option<&Self>;
}

macro_rules! typed {
    ($($type:ty: $pattern:pat => $value:expr;)*) => {
        $(impl Typed for $type {
            fn of(object: &Object) -> Option<&Self> {
                match object {
                    $pattern => Some($value),
                    _ => None,
                }
            }
        })*
    };
}

typed! {
    Namespace: Object::Namespace(o) => o;
    Workload: Object::Workload(_, o) => o;
    Service: Object::Service(o) => o;
    Hpa: Object::Hpa(o) => o;
    Pdb: Object::Pdb(o) => o;
    Operator: Object::Operator(o) => o;
    Sail: Object::Sail(_, o) => o;
    Lifecycle: Object::Lifecycle(_, o) => o;
    GatewayConfig: Object::Gateway(_, o) => o;
    Rollout: Object::Rollout(o) => o;
}

impl Typed for Object {
    fn of(object: &Object) -> Option<&Self> {
        Some(object)
    }
}
