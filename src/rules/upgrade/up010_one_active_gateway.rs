//! # UP010 one-active-gateway
//!
//! ## What
//! In Gloo's `GatewayLifecycleManager` a cluster has two installations of the same gateway with `activeGateway: true`, or loses
//! its only one while its entry stays. Gateways are told apart by the names under `components.ingressGateways` and
//! `egressGateways`.
//!
//! A gateway that starts without an active installation gets a warning. Where another GatewayLifecycleManager installs into the
//! same cluster, a missing one is not spoken of, because a switch from object to object takes two writes.
//!
//! ## Why
//! The active gateway has the plain Service name, which DNS and load balancers lead to. Two fight for it; with none, nobody
//! serves it.
//!
//! ## What to do
//! Switch the new entry on and the old one off in one write, after the new gateway serves.
//!
//! ## When to allow
//! To switch a gateway off for good while its installations stay.

use super::one_active::{self, Words};
use crate::model::{Kind, Lifecycle};
use crate::rules::{Check, Field, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "UP010",
    name: "one-active-gateway",
    summary: "a gateway of Gloo's is active twice in a cluster, or loses its only active installation",
    reads: &[Field::Spec],
    checks: &[Check::Lifecycle(check)],
    source: include_str!("up010_one_active_gateway.rs"),
};

const WORDS: Words = Words {
    switch: "activeGateway",
    it: "active gateway",
    none: "nobody would serve the plain Service name, which clients dial.",
    many: "each of them claims the plain Service name, which clients dial.",
};

fn check(new: &Lifecycle, old: Old<'_, Lifecycle>, view: &View<'_>) -> Found {
    if view.kind() != Kind::GatewayLifecycle {
        return Ok(Vec::new());
    }
    one_active::findings(new, old.get(), &WORDS, view)
}
