//! # GR008 bad-approval
//!
//! ## What
//! The annotation `revguard.dev/approve` of a GatewayRollout is set to something that approves nothing:
//!
//! - it is not `UID/STEP` with the uid of this object and the name of one of its steps, or `UID/resume`: denied;
//! - the step needs no approval, or is past: a warning;
//! - on a new object: a warning, because nobody can have known its uid.
//!
//! And `revguard.dev/approved-by` is not who wrote the approval: denied. revguard's own webhook writes it with every approval,
//! whatever else stands there, and takes it off with it.
//!
//! Who may approve is asked by the API server: the verb `approve` on `gatewayrollouts` of the namespace, by the admission policy
//! that the chart installs.
//!
//! ## Why
//! The uid binds an approval to this object: one that is copied, restored from a backup or lies in a Git repository must not let
//! another rollout pass. A word that approves nothing would leave somebody waiting who believes to have approved.
//!
//! ## What to do
//! `revguard rollout approve`, or the command in the denial.
//!
//! ## When to allow
//! Never needed.

use super::approval::{Approval, RESUME, approved_by};
use super::{named, object};
use crate::model::{Rollout, key};
use crate::rules::finding::annotation;
use crate::rules::{Check, Field, Finding, Found, Old, Rule, View};

pub static RULE: Rule = Rule {
    code: "GR008",
    name: "bad-approval",
    summary: "an approval of a GatewayRollout approves nothing, or is marked with somebody else's name",
    reads: &[Field::Annotation(key::APPROVE), Field::Annotation(key::APPROVED_BY)],
    checks: &[Check::Rollout(check)],
    source: include_str!("gr008_bad_approval.rs"),
};

fn check(rollout: &Rollout, old: Old<'_, Rollout>, view: &View<'_>) -> Found {
    let written = rollout.meta.annotations.value(key::APPROVE);
    let Some(old) = old.get() else {
        // A backup that is restored brings along what was approved of the object before.
        let stale = written.filter(|_| Approval::of(rollout).is_none_or(|a| a.uid != rollout.uid.as_str()));
        return Ok(stale.map(|text| on_creation(rollout, text)).into_iter().collect());
    };
    let mut found = Vec::new();
    if let Some(text) = written.filter(|text| old.meta.annotations.value(key::APPROVE) != Some(*text)) {
        found.extend(approves(rollout, text));
    }
    let mark = rollout.meta.annotations.value(key::APPROVED_BY);
    let wanted = approved_by(rollout, Some(old), &view.user.name);
    // What is left of an approval that was taken off says nothing.
    if mark != wanted && !(wanted.is_none() && mark == old.meta.annotations.value(key::APPROVED_BY)) {
        found.push(forged(mark, wanted, rollout));
    }
    Ok(found)
}

fn on_creation(rollout: &Rollout, text: &str) -> Finding {
    Finding::warn(annotation(key::APPROVE), text).says(
        format!("the approval on the new {} approves nothing of it", named(rollout)),
        "an approval names the uid of the object that it is about, and that one is given only now.",
        format!("kubectl annotate {} {}-", object(rollout), key::APPROVE),
    )
}

fn approves(rollout: &Rollout, text: &str) -> Option<Finding> {
    let draft = Finding::deny(annotation(key::APPROVE), text);
    let Some(approval) = Approval::of(rollout) else {
        return Some(draft.says(
            format!("{text:?} is no approval of {}: it is written UID/STEP.", named(rollout)),
            "nobody could tell what is approved.",
            how(rollout, None),
        ));
    };
    if approval.uid != rollout.uid.as_str() {
        return Some(draft.says(
            format!("{:?} is not the uid of {}.", approval.uid, named(rollout)),
            "an approval of one object must not let another one pass.",
            how(rollout, Some(approval.step)),
        ));
    }
    if approval.step == RESUME {
        return None;
    }
    let Some(at) = rollout.steps.iter().position(|s| s.name == approval.step) else {
        return Some(draft.says(
            format!("{} has no step {:?}.", named(rollout), approval.step),
            "it would wait on.",
            how(rollout, None),
        ));
    };
    let past = rollout.step.is_some_and(|present| at < present as usize);
    if rollout.steps[at].approval && !past {
        return None;
    }
    let why = if past { "is past" } else { "needs no approval" };
    Some(Finding::warn(annotation(key::APPROVE), text).says(
        format!("step {} of {} {why}", approval.step, named(rollout)),
        "nothing waits for it.",
        how(rollout, None),
    ))
}

/// The command that approves: this step if it waits for an approval, else the first that does.
fn how(rollout: &Rollout, wanted: Option<&str>) -> String {
    let open = |i: usize| rollout.step.is_none_or(|present| i >= present as usize);
    let all = rollout.steps.iter().enumerate().filter(|(i, s)| s.approval && open(*i));
    let names: Vec<&str> = all.map(|(_, s)| s.name.as_str()).collect();
    let step = wanted.filter(|w| *w == RESUME || names.contains(w)).or(names.first().copied()).unwrap_or(RESUME);
    let rest = if names.is_empty() {
        format!("(no step waits for an approval; {RESUME} ends a pause that needs somebody)")
    } else {
        format!("(steps to be approved: {}; {RESUME} ends a pause that needs somebody)", names.join(", "))
    };
    format!("kubectl annotate {} {}={}/{step} --overwrite\n{rest}", object(rollout), key::APPROVE, rollout.uid)
}

fn forged(mark: Option<&str>, wanted: Option<&str>, rollout: &Rollout) -> Finding {
    let is = mark.map_or_else(|| "by nobody".to_owned(), |who| format!("by {who}"));
    let what = match wanted {
        Some(who) => format!("the approval of {} would be marked as given {is}; it is given by {who}.", named(rollout)),
        None => format!("{} would be marked as approved {is}, without an approval.", named(rollout)),
    };
    Finding::deny(annotation(key::APPROVED_BY), mark.unwrap_or("")).says(
        what,
        "the mark is set by revguard's webhook alone, or nobody could rely on it.",
        format!("leave {} out: it comes with the approval\n(if it does not, the webhook that sets it was not called: kubectl get mutatingwebhookconfigurations -l app.kubernetes.io/name=revguard)", key::APPROVED_BY),
    )
}
