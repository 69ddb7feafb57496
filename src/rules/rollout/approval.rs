//! Approvals on a GatewayRollout: what they say, and the mark of who said it.
//!
//! Who may approve is asked by the API server (verb `approve`); here it is only written down who did, and never taken from
//! anybody else's word.

use crate::model::{Object, Rollout, key};
use crate::rules::{Operation, Patch, Request};

/// `revguard.dev/approve`: `UID/STEP`.
pub struct Approval<'a> {
    pub uid: &'a str,
    pub step: &'a str,
}

impl Approval<'_> {
    pub fn of(rollout: &Rollout) -> Option<Approval<'_>> {
        let (uid, step) = rollout.meta.annotations.value(key::APPROVE)?.split_once('/')?;
        Some(Approval { uid, step })
    }
}

/// In place of a step: ends a pause.
pub const RESUME: &str = "resume";

fn value<'a>(rollout: Option<&'a Rollout>, key: &str) -> Option<&'a str> {
    rollout?.meta.annotations.value(key)
}

/// What the annotation `approved-by` has to be after a write: the writer where the approval is another than before, else what it
/// was, and nothing without an approval.
pub fn approved_by<'a>(new: &'a Rollout, old: Option<&'a Rollout>, writer: &'a str) -> Option<&'a str> {
    let (now, before) = (value(Some(new), key::APPROVE), value(old, key::APPROVE));
    match now {
        None => None,
        Some(_) if now == before => value(old, key::APPROVED_BY),
        Some(_) => Some(writer),
    }
}

/// Brings the mark to what it has to be.
pub fn stamps(request: &Request<'_>) -> Vec<Patch> {
    let (Object::Rollout(new), Operation::Create | Operation::Update) = (&request.object, request.operation) else {
        return Vec::new();
    };
    if !request.sub_resource.is_empty() {
        return Vec::new();
    }
    let old = match request.old.get() {
        Some(Object::Rollout(old)) if request.operation == Operation::Update => Some(&**old),
        _ => None,
    };
    let (is, wanted) = (value(Some(new), key::APPROVED_BY), approved_by(new, old, &request.user.name));
    const AT: &str = "/metadata/annotations";
    match (is, wanted) {
        (is, wanted) if is == wanted => Vec::new(),
        // There is a map: the approval stands in it.
        (_, Some(who)) => vec![Patch::set(AT, key::APPROVED_BY, who, false)],
        (_, None) => vec![Patch::remove(AT, key::APPROVED_BY)],
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::Kind;
    use crate::rules::judge::mend;
    use crate::rules::request::LazyObject;
    use crate::rules::{Policy, User};
    use crate::snapshot::Snapshot;
    use crate::wire::read_str;

    fn rollout(annotations: &str) -> Object {
        let json =
            format!(r#"{{"metadata":{{"name":"a","namespace":"edge","uid":"u","annotations":{{{annotations}}}}}}}"#);
        read_str(Kind::GatewayRollout, &json).unwrap()
    }

    /// Jane's update under a policy, as a patch in words.
    fn stamped(policy: &str, old: &str, new: &str, sub_resource: &str) -> String {
        let request = Request {
            user: User { name: "jane".into(), groups: Vec::new() },
            operation: Operation::Update,
            sub_resource: sub_resource.into(),
            object: rollout(new),
            old: LazyObject::ready(rollout(old)),
        };
        let policy = Policy::parse(policy).unwrap();
        let patches = mend(&policy, &request, &Snapshot::live(), Timestamp::UNIX_EPOCH).unwrap();
        let words = patches.iter().map(|(rule, patch)| match patch {
            Patch::Add { value, .. } => format!("{}: {value}", rule.code),
            other => format!("{}: {}", rule.code, serde_json::to_value(other).unwrap()["op"]),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    const APPROVED: &str = r#""revguard.dev/approve":"u/half""#;
    const BY_JOHN: &str = r#""revguard.dev/approve":"u/half","revguard.dev/approved-by":"john""#;

    #[test]
    fn who_approves_is_written_down_whatever_the_policy_says() {
        let off = "rules: {GR008: Off}";
        for policy in ["", "mode: audit", "mode: warn", off, "exempt: {namespaces: [edge], writers: [jane]}"] {
            // Nothing is known of the cluster, and nothing of it is needed.
            assert_eq!(stamped(policy, "", APPROVED, ""), "GR008: \"jane\"", "{policy}");
            assert_eq!(stamped(policy, "", BY_JOHN, ""), "GR008: \"jane\"", "{policy}");
        }
    }

    #[test]
    fn an_approval_that_stands_keeps_its_mark_and_loses_it_with_its_end() {
        assert_eq!(stamped("", BY_JOHN, BY_JOHN, ""), "");
        assert_eq!(stamped("", BY_JOHN, APPROVED, ""), "GR008: \"john\"");
        assert_eq!(stamped("", BY_JOHN, r#""revguard.dev/approved-by":"john""#, ""), "GR008: \"remove\"");
        assert_eq!(stamped("", BY_JOHN, "", ""), "");
        assert_eq!(stamped("", "", APPROVED, "status"), "");
    }
}
