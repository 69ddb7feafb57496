//! The object that asks for a rollout, and others that have the same gateway in their hands.

use std::sync::Arc;

use jiff::Timestamp;

use super::Unreadable;
use super::json::{Json, time};
use super::raw::{self, Raw};
use crate::model::key;
use crate::rollout::seen::{Approval, Rollout};

/// The finalizer that a rollout holds while anything of a gateway is in its hands.
pub const FINALIZER: &str = "revguard.dev/rollout";

/// Reads the GatewayRollout itself.
pub fn read(raw: &Raw) -> Result<Rollout, Unreadable> {
    let object = &raw.rollout;
    let unreadable =
        |problem: String| Unreadable::Rollout { name: format!("{}/{}", object.namespace(), object.name()), problem };
    let spec = raw::spec(object).map_err(unreadable)?;
    let meta = &object["metadata"];
    Ok(Rollout {
        namespace: Arc::from(object.namespace()),
        name: Arc::from(object.name()),
        held: object.held(),
        generation: meta["generation"].as_i64().unwrap_or(0),
        created: time(meta.text("creationTimestamp")).unwrap_or(Timestamp::UNIX_EPOCH),
        deleting: object.is_deleting(),
        finalizer: meta.list("finalizers").iter().any(|f| f == FINALIZER),
        spec: Arc::new(spec),
        approval: approval(raw),
    })
}

/// What was approved: only with this object's uid, so that an approval is not copied along with a manifest, and only with a name beside it,
/// which our webhook sets.
fn approval(raw: &Raw) -> Option<Approval> {
    let object = &raw.rollout;
    let (uid, step) = object.annotation(key::APPROVE)?.split_once('/')?;
    let by = object.annotation(key::APPROVED_BY).filter(|by| !by.is_empty())?;
    let own = !uid.is_empty() && uid == object["metadata"].text("uid") && !step.is_empty();
    own.then(|| Approval { step: Arc::from(step), by: Arc::from(by) })
}
