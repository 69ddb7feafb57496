//! Carries out what a rule proposes and policy allows, so that it can be taken back.
//!
//! A repair is made for the object that was judged: it is read again, compared with what the rules saw, and written with
//! its version as precondition. One change an object a pass; the next pass sees what came of it. A patch leaves its
//! inverse in an annotation, a removal leaves a copy in a ConfigMap, and `revguard.dev/repair` on the object takes either
//! back or keeps us away. Our own webhook configurations are never touched and never made: who deleted one by hand had a
//! reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::events::{Events, Word};
use super::names::Names;
use super::resource::At;
use super::undo::{self, Store};
use super::write::{Change, Held, Write, WriteError, Writer};
use crate::audit::Entry;
use crate::model::{Id, Kind, key};
use crate::rules::{self, Rule};
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::{Loop, RepairResult};
use crate::wire::manifest::typed;

/// Carries out repairs and takes them back.
pub struct Repairs {
    writer: Writer,
    events: Arc<Events>,
    names: Names,
    store: Store,
    made: Mutex<Made>,
}

/// When each object was mended by each rule.
#[derive(Default)]
struct Made(BTreeMap<(&'static str, Id), Vec<Instant>>);

/// Repairs of one object by one rule …
const MOST: usize = 3;
/// … in so long. More means that somebody puts the flaw back, and a person has to tell the two apart.
const WITHIN: Duration = Duration::from_secs(3600);

impl Made {
    /// How often that was lately.
    fn lately(&mut self, code: &'static str, id: &Id, now: Instant) -> usize {
        self.0.retain(|_, at| {
            at.retain(|at| now.duration_since(*at) < WITHIN);
            !at.is_empty()
        });
        self.0.get(&(code, id.clone())).map_or(0, Vec::len)
    }

    fn note(&mut self, code: &'static str, id: &Id, now: Instant) {
        self.0.entry((code, id.clone())).or_default().push(now);
    }
}

/// Why a repair was not made.
enum Skip {
    /// The next pass will see it differently: it changed, or somebody else leads.
    Later,
    /// It needs a person.
    Refused(String),
}

impl From<WriteError> for Skip {
    fn from(error: WriteError) -> Skip {
        match error {
            WriteError::NotLeader { .. } | WriteError::Moved { .. } | WriteError::Trouble { .. } => Skip::Later,
            error => Skip::Refused(error.to_string()),
        }
    }
}

impl Repairs {
    pub fn new(writer: Writer, events: Arc<Events>, names: &Names) -> Repairs {
        let store = Store::new(writer.clone(), names);
        Repairs { writer, events, names: names.clone(), store, made: Mutex::default() }
    }

    /// Takes back what somebody wants taken back, then mends. Returns how many objects were written.
    pub async fn pass(&self, entries: &[Entry], snapshot: &Snapshot, now: Timestamp) -> usize {
        let mut touched = BTreeSet::new();
        for id in undo::asked(snapshot) {
            if self.take_back(&id).await {
                touched.insert(id);
            }
        }
        for entry in entries {
            let Some(repair) = &entry.repair else { continue };
            if touched.contains(&repair.object) || self.is_own(&repair.object) {
                continue;
            }
            let code = entry.rule.code;
            let done = if self.made().lately(code, &repair.object, Instant::now()) < MOST {
                self.mend(entry, repair, snapshot, now).await
            } else {
                Err(Skip::Refused(format!(
                    "it was mended {MOST} times within the hour, and somebody puts it back; look who writes it with \
                     kubectl get -o yaml --show-managed-fields, or annotate it {}=off",
                    key::REPAIR
                )))
            };
            match done {
                Ok(uid) => {
                    touched.insert(repair.object.clone());
                    self.made().note(code, &repair.object, Instant::now());
                    self.writer.metrics().repair(code, RepairResult::Done);
                    tracing::info!(rule = code, object = %At::id(&repair.object), repair = repair.says, "mended");
                    let note = format!("{} {}. {}", said(entry.rule), repair.says, self.way_back(repair));
                    self.say(&repair.object, Some(&uid), false, "Repaired", "Repair", note).await;
                }
                Err(Skip::Later) => self.writer.metrics().repair(code, RepairResult::Moved),
                Err(Skip::Refused(why)) => {
                    self.writer.metrics().repair(code, RepairResult::Refused);
                    tracing::warn!(rule = code, object = %At::id(&repair.object), error = why, "not mended");
                    let note = format!("{} not mended ({}): {why}", said(entry.rule), repair.says);
                    self.say(&entry.object, None, true, "RepairRefused", "Repair", note).await;
                }
            }
        }
        touched.len()
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The webhook configurations that belong to revguard itself.
    fn is_own(&self, id: &Id) -> bool {
        matches!(id.kind, Kind::MutatingWebhook | Kind::ValidatingWebhook) && id.name == self.names.release.as_str()
    }

    async fn say(&self, id: &Id, uid: Option<&str>, warning: bool, reason: &str, action: &'static str, note: String) {
        let word = Word { warning, reason: reason.to_owned(), action, note };
        self.events.say(&At::id(id), uid, &word).await;
    }

    fn way_back(&self, repair: &rules::Repair) -> String {
        match &repair.change {
            rules::Change::Delete => {
                format!("To put it back: {}", self.store.command(&undo::key_of(&repair.object)))
            }
            _ => {
                let at = At::id(&repair.object);
                let namespace = if at.namespace.is_empty() { String::new() } else { format!(" -n {}", at.namespace) };
                let kind = at.resource.kind.to_lowercase();
                format!("To undo: kubectl annotate {kind} {}{namespace} {}=undo --overwrite", at.name, key::REPAIR)
            }
        }
    }

    /// Makes one repair; the uid of what was written.
    async fn mend(
        &self,
        entry: &Entry,
        repair: &rules::Repair,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<String, Skip> {
        let at = At::id(&repair.object);
        let fresh = self.writer.read(&at).await?;
        let change = match (&repair.change, fresh) {
            (rules::Change::Create(object), None) => {
                if self.store.is_off(&repair.object).await? {
                    return Err(Skip::Refused(format!(
                        "somebody has undone this before; to allow it again: {}",
                        self.store.allow_again(&repair.object)
                    )));
                }
                let mut object = object.clone();
                let record = undo::record(entry.rule, now, &undo::Undo::Delete);
                object["metadata"]["annotations"][key::REPAIRED] = json!(record);
                Change::Create { object }
            }
            // It was made, or has gone, meanwhile.
            (rules::Change::Create(_), Some(_)) | (_, None) => return Err(Skip::Later),
            (rules::Change::Patch(operations), Some(fresh)) => {
                same(&repair.object, &fresh, snapshot)?;
                let operations: Vec<Value> = operations.iter().map(|o| json!(o)).collect();
                let operations = undo::with_way_back(&fresh, operations, entry.rule, now).map_err(Skip::Refused)?;
                Change::Patch { operations, held: Held::of(&fresh) }
            }
            (rules::Change::Delete, Some(fresh)) => {
                same(&repair.object, &fresh, snapshot)?;
                self.store.keep(&repair.object, &fresh, &said(entry.rule), now).await?;
                Change::Delete { held: Held::of(&fresh), foreground: false }
            }
        };
        let uid = match &change {
            Change::Patch { held, .. } | Change::Delete { held, .. } => Some(held.uid.clone()),
            _ => None,
        };
        let boundary = match &change {
            Change::Delete { .. } => "repair-delete",
            Change::Create { .. } => "repair-create",
            _ => "repair-patch",
        };
        let is_patch = matches!(change, Change::Patch { .. });
        let written = self.writer.write(&Write { boundary, by: Loop::Repair, at: at.clone(), change }).await?;
        if is_patch {
            self.let_go(at, &written).await;
        }
        Ok(uid.unwrap_or_else(|| Held::of(&written).uid))
    }

    /// What was mended belongs to whoever owns the object: as long as it is recorded as ours, whoever applies without force (Helm 4) is
    /// refused another value. Where this fails it does no more harm than that, and it is not tried again.
    async fn let_go(&self, at: At, written: &Value) {
        let writers = written["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
        let others: Vec<&Value> = writers.iter().filter(|w| w["manager"] != key::FIELD_MANAGER).collect();
        if others.is_empty() || others.len() == writers.len() {
            return;
        }
        let operations = vec![json!({"op": "replace", "path": "/metadata/managedFields", "value": others})];
        let change = Change::Patch { operations, held: Held::of(written) };
        let write = Write { boundary: "repair-let-go", by: Loop::Repair, at, change };
        if let Err(error) = self.writer.write(&write).await {
            tracing::info!(object = %write.at, %error, "what was mended stays recorded as written by revguard");
        }
    }

    /// Takes the last repair of an object back and leaves it alone from then on.
    async fn take_back(&self, id: &Id) -> bool {
        match self.try_back(id).await {
            Ok(Some((code, note))) => {
                self.writer.metrics().repair(code, RepairResult::Undone);
                tracing::info!(object = %At::id(id), note, "a repair is taken back");
                self.say(id, None, false, "RepairUndone", "Undo", note).await;
                true
            }
            Ok(None) => false,
            Err(Skip::Later) => false,
            Err(Skip::Refused(why)) => {
                tracing::warn!(object = %At::id(id), error = why, "a repair cannot be taken back");
                let note = format!("the repair cannot be taken back: {why}");
                self.say(id, None, true, "UndoRefused", "Undo", note).await;
                false
            }
        }
    }

    async fn try_back(&self, id: &Id) -> Result<Option<(&'static str, String)>, Skip> {
        let at = At::id(id);
        let Some(fresh) = self.writer.read(&at).await? else { return Ok(None) };
        let annotations = &fresh["metadata"]["annotations"];
        if annotations[key::REPAIR] != "undo" {
            return Ok(None);
        }
        let held = Held::of(&fresh);
        let Some(back) = undo::Record::read(annotations[key::REPAIRED].as_str()) else {
            return Err(Skip::Refused(format!(
                "it carries no annotation {} that can be read; to have it left alone, annotate it {}=off",
                key::REPAIRED,
                key::REPAIR
            )));
        };
        let code = rules::find(&back.rule).map_or("", |rule| rule.code);
        let (boundary, change, note) = match back.undo {
            undo::Undo::Delete => {
                self.store.switch_off(id).await?;
                let note = format!("what {} had made is removed again and not made any more", back.rule);
                ("undo-delete", Change::Delete { held, foreground: false }, note)
            }
            undo::Undo::Patch(operations) => {
                let note = format!("the repair of {} from {} is undone and not made any more", back.rule, back.at);
                ("undo-patch", Change::Patch { operations: undo::closing(operations), held }, note)
            }
        };
        match self.writer.write(&Write { boundary, by: Loop::Repair, at: at.clone(), change }).await {
            Ok(written) => {
                self.let_go(at, &written).await;
                Ok(Some((code, note)))
            }
            Err(WriteError::Refused { message, .. }) => Err(Skip::Refused(format!(
                "it has changed since the repair, so its undo patch does not fit ({message}); edit it by hand and annotate it {}=off",
                key::REPAIR
            ))),
            Err(error) => Err(error.into()),
        }
    }
}

fn said(rule: &Rule) -> String {
    format!("[{} {}]", rule.code, rule.name)
}

/// What rules see of the object now is what they judged.
fn same(id: &Id, fresh: &Value, snapshot: &Snapshot) -> Result<(), Skip> {
    let judged = snapshot.get(id.kind, &id.namespace, &id.name);
    match typed(id.kind, fresh) {
        Ok(now) if judged == Some(&now) => Ok(()),
        _ => Err(Skip::Later),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_puts_a_flaw_back_is_not_fought() {
        let id = Id { kind: Kind::ValidatingWebhook, namespace: "".into(), name: "v".into() };
        let (mut made, start) = (Made::default(), Instant::now());
        for _ in 0..MOST {
            assert!(made.lately("VW002", &id, start) < MOST);
            made.note("VW002", &id, start);
        }
        assert_eq!(made.lately("VW002", &id, start + WITHIN - Duration::from_secs(1)), MOST);
        assert_eq!(made.lately("VW003", &id, start), 0, "another rule is another repair");
        assert_eq!(made.lately("VW002", &id, start + WITHIN), 0);
    }
}
