//! Every object judged as if it were created now, and the exemptions that stand on them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Audit, Entry, Exemption};
use crate::model::{Id, Kind, Object, Workload};
use crate::rules::allow::{self, Standing};
use crate::rules::finding::Fix;
use crate::rules::request::LazyObject;
use crate::rules::view::kubectl;
use crate::rules::{Action, Level, Mode, Operation, Policy, RULES, Request, User, judge};
use crate::snapshot::Snapshot;
use crate::wire::KINDS;

/// Kinds that are there for others to be judged by.
const LOOKED_UP: [Kind; 2] = [Kind::EndpointSlice, Kind::Crd];

/// Adds what is found to `audit`.
pub fn objects(policy: &Policy, snapshot: &Snapshot, now: Timestamp, audit: &mut Audit) {
    let today = now.to_zoned(TimeZone::UTC).date();
    // What an installation tells its users is one thing, how bad what exists is, another.
    let policy = Policy { mode: Mode::Enforce, ..policy.clone() };
    // Who wrote what exists is not known: nobody is suspected of having set an exemption without being allowed to.
    let groups = policy.allow.groups.iter().cloned().collect();
    let user = User { name: "revguard-audit".into(), groups };
    for row in KINDS.iter().filter(|r| !LOOKED_UP.contains(&r.kind)) {
        for object in snapshot.raw(row.kind) {
            for e in allow::parse(&object.meta().annotations) {
                let void = match e.standing(today) {
                    Standing::Holds(_) => None,
                    Standing::Void(why) => Some(why),
                };
                let (object, code, reason, until) = (object.id(), e.code, e.reason, e.until);
                audit.exemptions.push(Exemption { object, code, reason, until, void });
            }
            let Some(object) = judged(object) else { continue };
            let id = object.id();
            let request = Request {
                user: user.clone(),
                operation: Operation::Create,
                sub_resource: String::new(),
                object,
                old: LazyObject::none(),
            };
            let verdict = judge(&policy, &request, snapshot, now);
            if let Some(unknown) = verdict.not_ready {
                audit.unanswered.extend(RULES.iter().map(|r| r.code));
                audit.unknown.push(unknown);
                continue;
            }
            for j in verdict.judged {
                let level = match (&j.exemption, j.action) {
                    (Some(Standing::Holds(_)), _) | (_, Action::Audit) => Level::Info,
                    (_, Action::Warn) => Level::Warning,
                    (_, Action::Deny) => Level::Error,
                };
                audit.entries.push(Entry {
                    rule: j.rule,
                    object: id.clone(),
                    level,
                    value: format!("{}={}", j.finding.field, j.finding.value),
                    what: j.finding.what.clone(),
                    why: j.finding.why.to_string(),
                    fix: mended(&id, &j.finding.fix),
                    grace: super::GRACE,
                    repair: None,
                });
            }
        }
    }
}

/// What mends an object that is there. A writer has the manifest at hand, and is told what to change in it; who finds the object
/// later gets the command that opens it.
fn mended(id: &Id, fix: &Fix) -> String {
    if fix.is_command() {
        return fix.text().to_owned();
    }
    format!("kubectl edit {}\n({})", kubectl(id), fix.text().replace('\n', "\n "))
}

/// The object as a request would bring it. A pod that nobody owns is judged as its own template; where only its metadata
/// was read, there is nothing to judge.
fn judged(object: &Object) -> Option<Object> {
    let Object::Pod(pod) = object else { return Some(object.clone()) };
    if pod.meta.owner.is_some() || pod.status.is_some_and(|s| s.over) {
        return None;
    }
    let template = (**pod.template.as_ref()?).clone();
    let meta = pod.meta.clone();
    let workload = Workload {
        meta,
        replicas: None,
        selector: Default::default(),
        template,
        paused: false,
        ready: None,
        max_unavailable: None,
    };
    Some(Object::Workload(Kind::Pod, Box::new(workload)))
}
