//! What a rule sees: the cluster without the object that it judges, the policy, and the kind of write.

use std::cell::OnceCell;

use jiff::civil::Date;

use super::{Operation, Policy, Request, User};
use crate::model::{Id, Kind};
use crate::snapshot::Snapshot;

/// See the module's documentation.
pub struct View<'a> {
    base: &'a Snapshot,
    id: &'a Id,
    pub policy: &'a Policy,
    pub operation: Operation,
    pub user: &'a User,
    /// In UTC; it decides whether exemptions still hold.
    pub today: Date,
    others: OnceCell<Snapshot>,
}

impl<'a> View<'a> {
    pub fn new(base: &'a Snapshot, id: &'a Id, policy: &'a Policy, request: &'a Request<'_>, today: Date) -> Self {
        View { base, id, policy, operation: request.operation, user: &request.user, today, others: OnceCell::new() }
    }

    /// The cluster without the object that is judged, so that it is never its own neighbour. Made when first asked for:
    /// most writes of workloads never are.
    pub fn cluster(&self) -> &Snapshot {
        if self.base.get(self.id.kind, &self.id.namespace, &self.id.name).is_none() {
            return self.base;
        }
        self.others.get_or_init(|| self.base.without(self.id))
    }

    /// The cluster with the object as it is stored now.
    pub fn before(&self) -> &Snapshot {
        self.base
    }

    pub fn kind(&self) -> Kind {
        self.id.kind
    }

    pub fn id(&self) -> &Id {
        self.id
    }

    /// Name of the judged object.
    pub fn name(&self) -> &str {
        &self.id.name
    }

    /// How kubectl names the judged object: `namespace shop`, `deployment -n web api`.
    pub fn kubectl(&self) -> String {
        kubectl(self.id)
    }
}

/// How kubectl names an object: `namespace shop`, `deployment -n web api`.
pub fn kubectl(id: &Id) -> String {
    let kind = crate::wire::row(id.kind).kubectl();
    if id.namespace.is_empty() {
        format!("{kind} {}", id.name)
    } else {
        format!("{kind} -n {} {}", id.namespace, id.name)
    }
}
