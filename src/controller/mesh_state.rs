//! The MeshState: an inventory turned into a status, and that status written when it differs from what is there.

use jiff::Timestamp;
use serde_json::json;

use super::in_force::InForce;
use super::resource::{At, MESH_STATES};
use super::write::{Change, Held, Manager, Write, WriteError, Writer};
use crate::api::mesh_state::{
    Condition, Findings, MeshState, MeshStateStatus, NAME, RevisionState, Summary, TagState, ValidatorState,
};
use crate::audit::Inventory;
use crate::telemetry::metrics::Loop;

/// Entries of each list. More control planes than that are not one mesh; totals are in the metrics.
const MOST: usize = 50;

/// What a status is made of.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub inventory: &'a Inventory,
    /// `None` where there is no admission policy.
    pub in_force: Option<InForce>,
}

/// The status of what was seen. Conditions that did not change keep their time.
pub fn status(seen: Seen<'_>, before: &MeshStateStatus, generation: i64, now: Timestamp) -> MeshStateStatus {
    let inventory = seen.inventory;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let level = |name: &str| inventory.findings.get(name).copied().unwrap_or(0);
    let findings =
        Findings { critical: level("critical"), error: level("error"), warning: level("warning"), info: level("info") };
    let revisions = inventory.revisions.iter().take(MOST).map(|r| RevisionState {
        name: r.name.clone(),
        version: r.version.clone(),
        installed: r.installed,
        is_default: r.is_default,
        endpoints: r.endpoints,
        namespaces: count(r.users.namespaces.len()),
        workload_pods: r.users.workload_pods,
        gateway_pods: r.users.gateway_pods,
        gateways: count(r.users.gateways.len()),
    });
    let tags = inventory.tags.iter().take(2 * MOST).map(|t| TagState {
        name: t.name.clone(),
        revision: t.revision.clone(),
        served: t.served,
        namespaces: count(t.namespaces.len()),
    });
    let validators = inventory.validators.iter().take(MOST).map(|v| ValidatorState {
        name: v.name.clone(),
        revision: v.revision.clone(),
        backend: v.backend.clone(),
        catch_all: v.catch_all,
        failure_policy: v.failure_policy.to_owned(),
        dangling: v.dangling,
    });
    let of_mesh = [validator_single(inventory), injectors_unambiguous(inventory), audit_clean(inventory, &findings)];
    let guard = seen.in_force.and_then(guard_in_force);
    // A new leader has not asked yet: what the last one heard stands until then.
    let waits = seen.in_force == Some(InForce::NotYet);
    let kept = before.conditions.iter().filter(|c| waits && c.type_ == GUARD_IN_FORCE).cloned();
    let conditions = of_mesh
        .into_iter()
        .chain(guard)
        .map(|(type_, said)| {
            let was = before.conditions.iter().find(|c| c.type_ == type_ && c.status == said.status);
            Condition {
                type_: type_.to_owned(),
                status: said.status.to_owned(),
                observed_generation: generation,
                last_transition_time: was.map_or_else(|| second(now), |c| c.last_transition_time.clone()),
                reason: said.reason.to_owned(),
                message: said.message,
            }
        })
        .chain(kept);
    MeshStateStatus {
        observed_generation: generation,
        conditions: conditions.collect(),
        summary: Summary {
            revisions: glance(inventory.revisions.iter().map(|r| r.name.as_str())),
            tags: glance(inventory.tags.iter().map(|t| t.name.as_str())),
        },
        revisions: revisions.collect(),
        tags: tags.collect(),
        validators: validators.collect(),
        findings,
        unknown: inventory.unknown.iter().take(20).cloned().collect(),
    }
}

/// The first few names, and how many more there are.
fn glance<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let shown = names[..names.len().min(4)].join(",");
    if names.len() > 4 { format!("{shown} +{}", names.len() - 4) } else { shown }
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

struct Said {
    status: &'static str,
    reason: &'static str,
    message: String,
}

fn said(status: &'static str, reason: &'static str, message: impl Into<String>) -> Said {
    Said { status, reason, message: message.into() }
}

fn validator_single(inventory: &Inventory) -> (&'static str, Said) {
    let mut all: Vec<_> = inventory.validators.iter().filter(|v| v.catch_all).collect();
    all.dedup_by(|a, b| a.name == b.name);
    let names = || all.iter().map(|v| v.name.as_str()).collect::<Vec<_>>().join(", ");
    let unknown = inventory.unknown.iter().find(|u| u.contains("validatingwebhookconfigurations"));
    let said = match all.as_slice() {
        _ if unknown.is_some() => said("Unknown", "Unknown", unknown.cloned().unwrap_or_default()),
        [] if inventory.revisions.is_empty() => said("True", "NoMesh", "there is no control plane, and no validator"),
        [] => said("False", "None", "no webhook validates Istio configuration that names no revision"),
        [one] if one.dangling => {
            said("False", "Dangling", format!("nobody answers behind {} ({})", one.name, one.backend))
        }
        [one] => said("True", "Single", format!("{} validates, by {}", one.name, one.backend)),
        _ => said("False", "Several", format!("each of these must accept what names no revision: {}", names())),
    };
    ("ValidatorSingle", said)
}

fn injectors_unambiguous(inventory: &Inventory) -> (&'static str, Said) {
    let names = |pick: fn(&crate::audit::inventory::Injector) -> bool| {
        inventory.injectors.iter().filter(|i| pick(i)).map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (conflicts, dangling) = (names(|i| i.conflicting), names(|i| i.dangling));
    let unknown = inventory.unknown.iter().find(|u| u.contains("mutatingwebhookconfigurations"));
    let said = if let Some(unknown) = unknown {
        said("Unknown", "Unknown", unknown.as_str())
    } else if !conflicts.is_empty() {
        said("False", "Conflict", format!("more than one of these injects the same pods: {conflicts}"))
    } else if !dangling.is_empty() {
        said("False", "Dangling", format!("nobody answers behind {dangling}"))
    } else {
        said("True", "Unambiguous", "every name is served by one injector that answers")
    };
    ("InjectorsUnambiguous", said)
}

fn audit_clean(inventory: &Inventory, findings: &Findings) -> (&'static str, Said) {
    let bad = findings.critical + findings.error;
    let said = if bad > 0 {
        let (critical, error) = (findings.critical, findings.error);
        let message =
            format!("critical: {critical}, error: {error}; `revguard status` lists them with what mends them");
        said("False", "Findings", message)
    } else if !inventory.unknown.is_empty() {
        let first = &inventory.unknown[0];
        said("Unknown", "NotAllSeen", format!("nothing wrong in what could be read, but {first}"))
    } else {
        said("True", "Clean", format!("warning: {}", findings.warning))
    };
    ("AuditClean", said)
}

const GUARD_IN_FORCE: &str = "GuardInForce";

fn guard_in_force(is: InForce) -> Option<(&'static str, Said)> {
    let said = match is {
        InForce::NotYet => return None,
        InForce::Yes => {
            said("True", "Refuses", "the admission policy over webhook configurations refuses what it must")
        }
        InForce::No => said(
            "False",
            "Silent",
            "the API server lets through what the admission policy over webhook configurations must refuse",
        ),
        InForce::Unknown => said(
            "Unknown",
            "NotAsked",
            "it could not be tried: no answer told, or our own webhook configuration, on which it is tried, is not there",
        ),
    };
    Some((GUARD_IN_FORCE, said))
}

/// Keeps the object's status.
#[derive(Default)]
pub struct Keeper {
    /// The object as it was last read or written.
    known: Option<MeshState>,
    missing_said: bool,
}

impl Keeper {
    /// Forgets what was known: another leader may have written meanwhile.
    pub fn forget(&mut self) {
        self.known = None;
    }

    /// Writes the status if it differs.
    ///
    /// # Errors
    /// Whatever kept it from being written.
    pub async fn keep(&mut self, writer: &Writer, seen: Seen<'_>, now: Timestamp) -> Result<(), WriteError> {
        let at = At::of(&MESH_STATES, "", NAME);
        if self.known.is_none() {
            self.known = self.find(writer, &at).await?;
        }
        let Some(known) = &self.known else { return Ok(()) };
        let before = known.status.clone().unwrap_or_default();
        let status = status(seen, &before, known.metadata.generation.unwrap_or(0), now);
        if known.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let held = Held { uid: known.metadata.uid.clone().unwrap_or_default(), version: String::new() };
        let object = json!({"status": status});
        let write = Write {
            boundary: "mesh-state-status",
            by: Loop::MeshState,
            at: at.status(),
            change: Change::Apply { object, manager: Manager::Controller, held: Some(held) },
        };
        // What is there after a failure is not known.
        self.known = None;
        self.known = serde_json::from_value(writer.write(&write).await?).ok();
        Ok(())
    }

    /// The object, made if it is not there; `None` where its definition is not installed.
    async fn find(&mut self, writer: &Writer, at: &At) -> Result<Option<MeshState>, WriteError> {
        if let Some(object) = writer.read(at).await? {
            return Ok(serde_json::from_value(object).ok());
        }
        let labels = json!({"app.kubernetes.io/name": "revguard", "app.kubernetes.io/managed-by": "revguard"});
        let object = json!({"metadata": {"labels": labels}, "spec": {}});
        let write = Write {
            boundary: "mesh-state-create",
            by: Loop::MeshState,
            at: at.clone(),
            change: Change::Create { object },
        };
        match writer.write(&write).await {
            Ok(object) => Ok(serde_json::from_value(object).ok()),
            Err(WriteError::Missing { .. }) => {
                if !std::mem::replace(&mut self.missing_said, true) {
                    tracing::warn!("MeshState is not written: its CRD is not installed; `helm upgrade` installs it");
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::inventory::Validator;

    fn validator(name: &str, dangling: bool) -> Validator {
        Validator {
            name: name.to_owned(),
            revision: None,
            backend: "istio-system/istiod".to_owned(),
            catch_all: true,
            failure_policy: "Fail",
            dangling,
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let mut mesh = Inventory { validators: vec![validator("a", false)], ..Inventory::default() };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let of = |mesh: &Inventory, before: &MeshStateStatus, now| {
            status(Seen { inventory: mesh, in_force: None }, before, 1, at(now))
        };
        let first = of(&mesh, &MeshStateStatus::default(), "2026-01-01T00:00:00Z");
        assert_eq!(first.conditions[0].reason, "Single");
        let again = of(&mesh, &first, "2026-01-02T00:00:00Z");
        assert_eq!(first, again, "the same mesh is the same object");
        mesh.validators.push(validator("b", false));
        let later = of(&mesh, &again, "2026-01-03T00:00:00Z");
        assert_eq!((later.conditions[0].status.as_str(), later.conditions[0].reason.as_str()), ("False", "Several"));
        assert_eq!(later.conditions[0].last_transition_time, "2026-01-03T00:00:00Z");
        assert_eq!(later.conditions[1].last_transition_time, "2026-01-01T00:00:00Z");
        mesh.validators = vec![validator("a", true)];
        let dangling = of(&mesh, &later, "2026-01-04T00:00:00Z");
        assert_eq!(dangling.conditions[0].reason, "Dangling");
        assert_eq!(dangling.conditions[0].last_transition_time, "2026-01-03T00:00:00Z", "False it was before");
    }

    #[test]
    fn what_the_last_leader_heard_of_the_policy_stands_until_it_is_asked_again() {
        let mesh = Inventory::default();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let of = |in_force, before: &MeshStateStatus, second| {
            status(Seen { inventory: &mesh, in_force }, before, 1, at(second))
        };
        let guard = |status: &MeshStateStatus| {
            let found = status.conditions.iter().find(|c| c.type_ == GUARD_IN_FORCE);
            found.map(|c| (c.status.clone(), c.last_transition_time.clone()))
        };
        let first = of(Some(InForce::NotYet), &MeshStateStatus::default(), 1);
        assert_eq!(guard(&first), None, "nobody has asked");
        let yes = of(Some(InForce::Yes), &first, 2);
        assert_eq!(guard(&yes), Some(("True".into(), "1970-01-01T00:00:02Z".into())));
        assert_eq!(of(Some(InForce::NotYet), &yes, 3), yes, "another leads, and nothing is written");
        let no = of(Some(InForce::No), &yes, 4);
        assert_eq!(guard(&no), Some(("False".into(), "1970-01-01T00:00:04Z".into())));
        assert_eq!(guard(&of(None, &no, 5)), None, "it is not installed any more");
    }
}
