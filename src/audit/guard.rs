//! What the admission policy over webhook configurations is told: the parameters that the controller keeps for it.
//!
//! The policy is CEL and can look at nothing but the object and these words, so everything that needs the cluster is
//! decided here: by the same rules, with the same words, as anything else. What is not known is left out, and what is left
//! out is not refused.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::api::GuardParametersSpec;
use crate::api::guard_parameters::Kept;
use crate::model::{Backend, Kind, Meta, Object, key};
use crate::rules::allow::{self, Standing};
use crate::rules::request::LazyObject;
use crate::rules::{Operation, Policy, Request, User, judge};
use crate::snapshot::Snapshot;
use crate::snapshot::mesh::Answers;

/// The rules that the policy enforces.
const CODES: [&str; 2] = ["VW010", "VW011"];

/// A reason longer than this is cut: the API server takes 5 kB in all, and nobody reads more.
const LONGEST: usize = 1500;

/// The parameters; `None` while what they rest on is not known.
pub fn params(policy: &Policy, snapshot: &Snapshot, now: Timestamp) -> Option<GuardParametersSpec> {
    let mut spec = GuardParametersSpec::default();
    let enforced = |code| policy.action(code, crate::rules::Severity::Deny) == Some(crate::rules::Action::Deny);
    for kind in [Kind::MutatingWebhook, Kind::ValidatingWebhook, Kind::Service] {
        snapshot.knows(kind, None).ok()?;
    }
    if enforced("VW010") {
        spec.validators = snapshot
            .validators()
            .ok()?
            .filter(|config| crate::rules::is_approved_validator(config, snapshot))
            .filter(|config| !is_exempt(&config.meta, now))
            .map(|config| config.meta.name.as_str().to_owned())
            .collect();
        spec.backends = Some(backends(snapshot).into_iter().collect());
    }
    let kept = |kind| -> BTreeMap<String, String> {
        let all = snapshot.raw(kind);
        all.filter_map(|o| Some((o.meta().name.to_string(), why_not_deleted(policy, o, snapshot, now)?))).collect()
    };
    spec.kept = Kept { mutating: kept(Kind::MutatingWebhook), validating: kept(Kind::ValidatingWebhook) };
    Some(spec)
}

/// Somebody wants it to be let go.
fn is_exempt(meta: &Meta, now: Timestamp) -> bool {
    let today = now.to_zoned(TimeZone::UTC).date();
    let own = allow::parse(&meta.annotations);
    own.iter().any(|e| e.code == "VW010" && matches!(e.standing(today), Standing::Holds(_)))
}

/// Services of control planes and tags behind which somebody answers, or of which that cannot be told.
fn backends(snapshot: &Snapshot) -> BTreeSet<String> {
    let injectors = snapshot.injector_configs().flat_map(|c| &c.hooks).filter(|h| h.istio).map(|h| &h.backend);
    let validators = snapshot.validators().into_iter().flatten().flat_map(|c| &c.webhooks);
    let called = injectors.chain(validators.filter(|w| w.istio).map(|w| &w.backend)).cloned();
    let istiods = snapshot
        .raw(Kind::Service)
        .map(Object::meta)
        .filter(|m| m.labels.is("app", "istiod") || m.labels.has(key::TAG) || m.name.starts_with("istiod"));
    let istiods = istiods.map(|m| Backend::Service { namespace: m.namespace.clone(), name: m.name.clone(), port: 443 });
    called
        .chain(istiods)
        .filter_map(|backend| {
            let answers = !matches!(snapshot.answers(&backend), Ok(Answers::Missing | Answers::Nobody));
            match backend {
                Backend::Service { namespace, name, .. } if answers => Some(format!("{namespace}/{name}")),
                _ => None,
            }
        })
        .collect()
}

/// The message of a refusal on one line, because the API server takes no other.
fn why_not_deleted(policy: &Policy, object: &Object, snapshot: &Snapshot, now: Timestamp) -> Option<String> {
    let request = Request {
        user: User::default(),
        operation: Operation::Delete,
        sub_resource: String::new(),
        object: object.clone(),
        old: LazyObject::none(),
    };
    let verdict = judge(policy, &request, snapshot, now);
    let said: Vec<String> = verdict
        .denied()
        .filter(|j| CODES.contains(&j.rule.code))
        .map(|j| {
            let fix = j.finding.fix.text().lines().map(str::trim).collect::<Vec<_>>().join("; ");
            let (what, why) = (&j.finding.what, &j.finding.why);
            format!(
                "[{} {}] {what} why: {why} fix: {fix} more: revguard explain {}",
                j.rule.code, j.rule.name, j.rule.code
            )
        })
        .collect();
    let line = said.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then(|| match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::find;

    /// A renamed code would silently protect nothing.
    #[test]
    fn the_rules_exist() {
        assert!(CODES.iter().all(|code| find(code).is_some()));
    }

    #[test]
    fn what_is_not_known_protects_nothing() {
        assert_eq!(params(&Policy::default(), &Snapshot::live(), Timestamp::UNIX_EPOCH), None);
        let empty = params(&Policy::default(), &Snapshot::whole(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(empty, GuardParametersSpec { backends: Some(Vec::new()), ..GuardParametersSpec::default() });
        let warn = Policy::parse("mode: warn").unwrap();
        assert_eq!(params(&warn, &Snapshot::whole(), Timestamp::UNIX_EPOCH), Some(GuardParametersSpec::default()));
    }
}
