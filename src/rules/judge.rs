//! The one function that decides.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::allow::{self, Standing};
use super::request::Typed;
use super::stale::{self, Means};
use super::{Check, Finding, Fix, Found, Mode, Old, Operation, Patch, Policy, RULES, Request, Rule, Severity, View};
use crate::model::object::Owner;
use crate::model::{Backend, Kind, Object};
use crate::snapshot::{Snapshot, Unknown, WhyUnknown};

/// What comes of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Audit,
    Warn,
    Deny,
}

impl Action {
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Audit => "audit",
            Action::Warn => "warn",
            Action::Deny => "deny",
        }
    }
}

/// A finding and what comes of it.
#[derive(Clone)]
pub struct Judged {
    pub rule: &'static Rule,
    pub action: Action,
    pub finding: Finding,
    /// The exemption that lets it pass, or why the one given does not.
    pub exemption: Option<Standing>,
    /// The stored object breaks the rule in the same way.
    pub was_there: bool,
}

/// The outcome of one request.
#[derive(Clone, Default)]
pub struct Verdict {
    /// In the order of the catalogue.
    pub judged: Vec<Judged>,
    /// A rule needs a kind whose first list is not complete: the request must be tried again.
    pub not_ready: Option<Unknown>,
    /// Why nothing was judged at all.
    pub exempt: Option<&'static str>,
    /// Of the kinds that rules have looked at the one that was silent longest, and since when.
    pub oldest: Option<(Kind, Timestamp)>,
    /// One of them is older than the policy allows; of several what means most.
    pub stale: Option<stale::Old>,
}

impl Verdict {
    pub fn denied(&self) -> impl Iterator<Item = &Judged> {
        self.judged.iter().filter(|j| j.action == Action::Deny)
    }

    pub fn warnings(&self) -> impl Iterator<Item = &Judged> {
        self.judged.iter().filter(|j| j.action == Action::Warn)
    }

    pub fn is_allowed(&self) -> bool {
        self.not_ready.is_none() && self.denied().next().is_none() && !self.is_too_old()
    }

    /// The view is too old to let the write pass, says the policy.
    pub fn is_too_old(&self) -> bool {
        self.stale.is_some_and(|old| old.means == Means::Deny)
    }
}

/// Judges one request. `now` decides whether exemptions still hold.
pub fn judge(policy: &Policy, request: &Request<'_>, snapshot: &Snapshot, now: Timestamp) -> Verdict {
    if let Some(why) = exempt(policy, request, snapshot) {
        return Verdict { exempt: Some(why), ..Verdict::default() };
    }
    let id = request.id();
    let (traced, reads) = snapshot.traced();
    let today = now.to_zoned(TimeZone::UTC).date();
    let view = View::new(&traced, &id, policy, request, today);
    let exemptions = allow::parse(&request.object.meta().annotations);
    let mut verdict = Verdict::default();
    for rule in RULES.iter().filter(|rule| is_about(rule, request)) {
        let Some(most) = policy.action(rule.code, Severity::Deny) else { continue };
        let (found, was_there) = match ratcheted(rule, request, &view) {
            Ok(found) => found,
            // Nobody waits for what could not be denied.
            Err(unknown) if unknown.why == WhyUnknown::Listing && most == Action::Deny => {
                return Verdict { not_ready: Some(unknown), ..Verdict::default() };
            }
            Err(_) => continue,
        };
        let old = note_age(&mut verdict, policy.stale.of_rule(rule, most), &traced, reads.take(), now)
            .filter(|_| !is_untouched(rule, request));
        if let Some(old) = old
            && verdict.stale.is_none_or(|worst| worst.means < old.means)
        {
            verdict.stale = Some(old);
        }
        for (finding, was_there) in found.into_iter().zip(was_there) {
            let severity = if was_there { Severity::Warn } else { finding.severity };
            let Some(mut action) = policy.action(rule.code, severity) else { continue };
            if let Some(old) = old {
                action = action.min(old.means.most());
            }
            if was_there {
                // `strict` must not turn the ratchet's warning back into a denial.
                action = action.min(Action::Warn);
            }
            let mut own = exemptions.iter().filter(|e| e.code == rule.code).map(|e| e.standing(today));
            let first = own.next();
            let exemption = match first {
                Some(Standing::Void(_)) => own.find(|s| matches!(s, Standing::Holds(_))).or(first),
                _ => first,
            };
            if matches!(exemption, Some(Standing::Holds(_))) && rule.code != ALLOW_RULE {
                action = action.min(Action::Warn);
            }
            verdict.judged.push(Judged { rule, action, finding, exemption, was_there });
        }
    }
    verdict
}

/// Notes how old what a rule has looked at is; `Some` if it is older than the policy allows.
fn note_age(
    verdict: &mut Verdict,
    of_rule: stale::OfRule<'_>,
    snapshot: &Snapshot,
    reads: u64,
    now: Timestamp,
) -> Option<stale::Old> {
    let (kind, heard) = snapshot.oldest(reads)?;
    if verdict.oldest.is_none_or(|(_, oldest)| heard < oldest) {
        verdict.oldest = Some((kind, heard));
    }
    of_rule.judge(kind, heard, now)
}

/// The patches that policy switches on, in the order of the catalogue. The object must be one that is created or updated.
///
/// Nothing is mended that would not be enforced: a mode that only looks, a rule that is off, an object that is exempt from
/// it, an update that leaves alone what the rule reads. Who approves a rollout is written down in any case: that mends
/// nothing, and nothing works without it.
pub fn mend(
    policy: &Policy,
    request: &Request<'_>,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<Vec<(&'static Rule, Patch)>, Unknown> {
    let mut patches = super::rollout::stamps(request);
    if policy.mode != Mode::Enforce
        || request.operation == Operation::Delete
        || exempt(policy, request, snapshot).is_some()
    {
        return Ok(patches);
    }
    let id = request.id();
    let (traced, reads) = snapshot.traced();
    let today = now.to_zoned(TimeZone::UTC).date();
    let view = View::new(&traced, &id, policy, request, today);
    let exemptions = allow::parse(&request.object.meta().annotations);
    let holds =
        |rule: &Rule| exemptions.iter().any(|e| e.code == rule.code && matches!(e.standing(today), Standing::Holds(_)));
    for rule in RULES.iter().filter(|rule| is_about(rule, request)) {
        let found = match check(rule, request, &view, false) {
            Ok(found) => found,
            Err(unknown) if unknown.why == WhyUnknown::Listing => return Err(unknown),
            Err(_) => continue,
        };
        // What may be wrong is not written into somebody's object.
        let oldest = traced.oldest(reads.take());
        if oldest.is_some_and(|(_, heard)| now.duration_since(heard) > policy.stale.age.0) {
            continue;
        }
        for finding in found {
            let enforced = policy.action(rule.code, finding.severity).is_some_and(|a| a > Action::Audit);
            let Fix::Patch(operations, _) = finding.fix else { continue };
            if !enforced || holds(rule) || is_untouched(rule, request) {
                continue;
            }
            for patch in operations {
                if !patches.iter().any(|(_, p)| *p == patch) {
                    patches.push((rule, patch));
                }
            }
        }
    }
    Ok(patches)
}

/// No exemption exempts from the rule about exemptions.
const ALLOW_RULE: &str = "ALW001";

/// The findings of a rule, and for each whether the stored object has it already.
fn ratcheted(
    rule: &'static Rule,
    request: &Request<'_>,
    view: &View<'_>,
) -> Result<(Vec<Finding>, Vec<bool>), Unknown> {
    let found = check(rule, request, view, false)?;
    let fresh = vec![false; found.len()];
    if found.is_empty() || request.operation != Operation::Update {
        return Ok((found, fresh));
    }
    if request.old.get().is_none() {
        return Ok((found, fresh));
    }
    if is_untouched(rule, request) {
        return Ok((Vec::new(), Vec::new()));
    }
    if found.iter().all(|f| f.severity == Severity::Warn) && !view.policy.strict.contains(rule.code) {
        return Ok((found, fresh));
    }
    let before = check(rule, request, view, true)?;
    let was_there = found.iter().map(|f| before.iter().any(|b| b.same_as(f))).collect();
    Ok((found, was_there))
}

/// An update that leaves alone whatever the rule reads.
fn is_untouched(rule: &Rule, request: &Request<'_>) -> bool {
    request.operation == Operation::Update
        && request.old.get().is_some_and(|old| !rule.reads.iter().any(|f| f.changed(old, &request.object)))
}

/// The rule judges such writes of such objects. Most are about others, and are not asked what the policy makes of them.
fn is_about(rule: &Rule, request: &Request<'_>) -> bool {
    let delete = request.operation == Operation::Delete;
    rule.checks.iter().any(|check| match (check, &request.object) {
        (Check::Delete(_), _) => delete,
        (Check::Audit(_), _) => false,
        (check, object) => {
            !delete
                && matches!(
                    (check, object),
                    (Check::Any(_), _)
                        | (Check::Namespace(_), Object::Namespace(_))
                        | (Check::Workload(_), Object::Workload(..))
                        | (Check::Service(_), Object::Service(_))
                        | (Check::Hpa(_), Object::Hpa(_))
                        | (Check::Pdb(_), Object::Pdb(_))
                        | (Check::Operator(_), Object::Operator(_))
                        | (Check::Sail(_), Object::Sail(..))
                        | (Check::Lifecycle(_), Object::Lifecycle(..))
                        | (Check::Gateway(_), Object::Gateway(..))
                        | (Check::Rollout(_), Object::Rollout(_))
                )
        }
    })
}

/// Runs a rule's checks on the object, or (`stored`) on the old object as if it were created.
fn check(rule: &'static Rule, request: &Request<'_>, view: &View<'_>, stored: bool) -> Found {
    let object = if stored { request.old.get().unwrap_or(&request.object) } else { &request.object };
    let mut all = Vec::new();
    for check in rule.checks {
        let found = match (request.operation, check) {
            (_, Check::Audit(_)) => continue,
            (Operation::Delete, Check::Delete(f)) => f(object, view),
            (Operation::Delete, _) | (_, Check::Delete(_)) => continue,
            (_, Check::Namespace(f)) => run(*f, object, request, view, stored),
            (_, Check::Workload(f)) => run(*f, object, request, view, stored),
            (_, Check::Service(f)) => run(*f, object, request, view, stored),
            (_, Check::Hpa(f)) => run(*f, object, request, view, stored),
            (_, Check::Pdb(f)) => run(*f, object, request, view, stored),
            (_, Check::Operator(f)) => run(*f, object, request, view, stored),
            (_, Check::Sail(f)) => run(*f, object, request, view, stored),
            (_, Check::Lifecycle(f)) => run(*f, object, request, view, stored),
            (_, Check::Gateway(f)) => run(*f, object, request, view, stored),
            (_, Check::Rollout(f)) => run(*f, object, request, view, stored),
            (_, Check::Any(f)) => run(*f, object, request, view, stored),
        }?;
        all.extend(found);
    }
    Ok(all)
}

fn run<T: Typed>(
    f: fn(&T, Old<'_, T>, &View<'_>) -> Found,
    object: &Object,
    request: &Request<'_>,
    view: &View<'_>,
    stored: bool,
) -> Found {
    let Some(typed) = T::of(object) else { return Ok(Vec::new()) };
    let old = if stored || request.operation == Operation::Create { Old::absent() } else { Old::of(&request.old) };
    f(typed, old, view)
}

/// Why a request is not judged at all.
fn exempt(policy: &Policy, request: &Request<'_>, snapshot: &Snapshot) -> Option<&'static str> {
    let meta = request.object.meta();
    if !matches!(request.sub_resource.as_str(), "" | "scale") {
        return Some("a subresource that no rule reads");
    }
    if meta.deleting {
        return Some("the object is being deleted");
    }
    if is_controller(&request.user.name) {
        return Some("a controller of Kubernetes itself");
    }
    if policy.exempt.writers.contains(&request.user.name) {
        return Some("the writer is exempt by policy");
    }
    let namespace = if request.object.kind() == Kind::Namespace { &meta.name } else { &meta.namespace };
    if policy.exempt.namespaces.contains(namespace.as_str()) {
        return Some("the namespace is exempt by policy");
    }
    if let Some(Object::Namespace(ns)) = snapshot.get(Kind::Namespace, "", namespace)
        && ns.meta.deleting
        && !(request.object.kind() == Kind::Namespace && request.operation == Operation::Delete)
    {
        return Some("the namespace is being deleted");
    }
    if let Some(Owner { kind, .. }) = meta.owner.as_deref()
        && matches!(request.object.kind(), Kind::ReplicaSet | Kind::Job | Kind::Pod)
        && matches!(kind.as_str(), "Deployment" | "CronJob" | "ReplicaSet" | "Job" | "DaemonSet" | "StatefulSet")
    {
        return Some("its owner is judged instead");
    }
    is_istiod(&request.user.name, snapshot).then_some("the writer is an istiod")
}

/// Controllers of the cluster itself, which only carry out what was judged when it was written.
fn is_controller(user: &str) -> bool {
    if user == "system:kube-controller-manager" {
        return true;
    }
    let Some(name) = user.strip_prefix("system:serviceaccount:kube-system:") else { return false };
    name.ends_with("-controller") || matches!(name, "horizontal-pod-autoscaler" | "generic-garbage-collector")
}

/// The ServiceAccount of an istiod whose pods a Service of a live injector selects. A label alone exempts nobody.
fn is_istiod(user: &str, snapshot: &Snapshot) -> bool {
    let Some((namespace, account)) = user.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':')) else {
        return false;
    };
    let (Ok(istiods), Ok(injectors)) = (snapshot.istiods(), snapshot.injectors()) else { return false };
    let mut own =
        { istiods }.filter(|w| w.meta.namespace == namespace && w.template.service_account == account).peekable();
    if own.peek().is_none() {
        return false;
    }
    let live = injectors.revisions();
    own.any(|w| {
        let live = injectors.hooks().filter(|h| h.istio && h.revision.as_ref().is_some_and(|r| live.contains(r)));
        { live }.any(|h| match &h.backend {
            Backend::Service { namespace: ns, name, .. } => {
                *ns == w.meta.namespace
                    && matches!(snapshot.service(ns, name), Ok(Some(s)) if s.selects(&w.template.labels))
            }
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::User;
    use crate::rules::request::LazyObject;
    use crate::wire::manifest;

    fn why(user: &str, sub_resource: &str, yaml: &str) -> Option<&'static str> {
        let object = manifest::read("object", yaml, "shop").documents.remove(0).object;
        let (operation, old) = (Operation::Update, LazyObject::none());
        let user = User { name: user.into(), groups: Vec::new() };
        let request = Request { user, operation, sub_resource: sub_resource.into(), object, old };
        exempt(&Policy::default(), &request, &Snapshot::whole())
    }

    /// The codes that deny a namespace with both labels, and what it has to wait for.
    fn of_both_labels(policy: &str, allow: &str, snapshot: &Snapshot) -> (Vec<&'static str>, bool) {
        let yaml = format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: {{istio-injection: enabled, \
             istio.io/rev: nobody}}, annotations: {{revguard.dev/allow: {allow:?}}}}}}}"
        );
        let object = manifest::read("object", &yaml, "shop").documents.remove(0).object;
        let (operation, old) = (Operation::Create, LazyObject::none());
        let request = Request { user: User::default(), operation, sub_resource: String::new(), object, old };
        let verdict = judge(&Policy::parse(policy).unwrap(), &request, snapshot, Timestamp::UNIX_EPOCH);
        (verdict.denied().map(|j| j.rule.code).collect(), verdict.not_ready.is_some())
    }

    #[test]
    fn of_two_exemptions_one_that_holds_is_enough() {
        let of = |allow| of_both_labels("", allow, &Snapshot::whole()).0;
        assert_eq!(of("NS001: a until=1969-01-01"), ["NS001"]);
        assert!(of("NS001: a until=1969-01-01; NS001: b until=1971-01-01").is_empty());
    }

    #[test]
    fn nobody_waits_for_what_could_not_be_denied() {
        let waits = |policy: &str| of_both_labels(policy, "", &Snapshot::live()).1;
        assert!(waits(""));
        assert!(!waits("mode: warn"));
        assert!(!waits("mode: audit"));
        let off: Vec<String> = RULES.iter().map(|r| format!("{}: Off", r.code)).collect();
        assert!(!waits(&format!("rules: {{{}}}", off.join(", "))));
    }

    const PLAIN: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}";

    #[test]
    fn status_and_finalize_are_nobodys_violation() {
        assert!(why("jane", "status", PLAIN).is_some());
        assert!(why("jane", "finalize", PLAIN).is_some());
        assert_eq!(why("jane", "scale", PLAIN), None);
        assert_eq!(why("jane", "", PLAIN), None);
    }

    #[test]
    fn controllers_of_kubernetes_itself_are_exempt_and_nobody_of_a_like_name() {
        let system = "system:serviceaccount:kube-system:";
        for name in ["deployment-controller", "ttl-after-finished-controller", "horizontal-pod-autoscaler"] {
            assert!(why(&format!("{system}{name}"), "", PLAIN).is_some(), "{name}");
        }
        assert!(why("system:kube-controller-manager", "", PLAIN).is_some());
        for user in
            ["system:serviceaccount:tools:deployment-controller", "deployment-controller", "system:kube-scheduler"]
        {
            assert_eq!(why(user, "", PLAIN), None, "{user}");
        }
    }

    #[test]
    fn what_a_judged_owner_makes_is_not_judged_again() {
        let owned = "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-1, namespace: shop, \
                     ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: u, controller: true}]}}";
        assert!(why("jane", "", owned).is_some());
        assert_eq!(why("jane", "", &owned.replace("Deployment", "Rollout")), None);
    }
}
