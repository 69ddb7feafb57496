//! The object that asks for a rollout, and others that have the same gateway in their hands.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::Unreadable;
use super::json::{Json, time};
use super::raw::{self, Listed, Raw};
use crate::api::rollout_status::Phase;
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

/// Names of other rollouts that have the same gateway in their hands. One that is over, or has not begun, has not. Two that are in
/// preflight at a time would wait for each other for ever: the one that was made first goes.
pub fn others(raw: &Raw, gateway: &str) -> Vec<String> {
    let own = age(&raw.rollout);
    let mut names: Vec<String> = raw
        .within(Listed::Rollouts, raw.rollout.namespace())
        .filter(|o| o.name() != raw.rollout.name() && (own.1.is_empty() || age(o).1 != own.1))
        .filter(|o| o["spec"]["target"]["deployment"].text("name") == gateway)
        .filter(|o| is_holding(o, own))
        .map(|o| o.name().to_owned())
        .collect();
    names.sort();
    names
}

/// When it was made, and its uid; of a manifest neither is known, and everybody else was there before.
fn age(object: &Value) -> (&str, &str) {
    let meta = &object["metadata"];
    (meta.text_or("creationTimestamp", "not yet"), meta.text("uid"))
}

fn is_holding(object: &Value, own: (&str, &str)) -> bool {
    let phase = &object["status"]["phase"];
    match serde_json::from_value::<Phase>(phase.clone()) {
        Ok(Phase::Preflight) => age(object) < own,
        Ok(phase) => phase.is_active(),
        // A phase of a later release: what is not understood is protected.
        Err(_) => phase.as_str().is_some_and(|phase| !phase.is_empty()),
    }
}
