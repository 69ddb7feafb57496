//! Events on the objects that findings and repairs are about: said once, and never as many as there are objects.
//!
//! An Event lives an hour, so the same words about the same object are said at most once in that time; and all Events
//! together are bounded, because a broken mesh of 50,000 workloads must not fill etcd with what a report says better.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use super::lease::micro;
use super::resource::{At, EVENTS};
use super::send::{Method, send_with};
use super::write::{Change, LONGEST, Write, Writer};
use crate::cluster::Trouble;
use crate::telemetry::metrics::Loop;

/// What is said about an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    pub warning: bool,
    /// One word in capitals, for machines: a rule's code and name, or what was done.
    pub reason: String,
    /// What we did: `Audit`, `Repair`, `Undo`, `Rollout`.
    pub action: &'static str,
    pub note: String,
}

/// How long the same words are not repeated: as long as the API server keeps an Event by default.
const SAME: Duration = Duration::from_secs(3600);
/// Events at once …
const BURST: u32 = 30;
/// … and from then on one in so long.
const REFILL: Duration = Duration::from_secs(3);
/// Twenty rollouts may move at once, and say all of it.
const TRANSITIONS: u32 = 20;
/// The API server takes no longer notes.
const LONGEST_NOTE: usize = 1000;
/// Words that are remembered; more than can be said in an hour.
const REMEMBERED: usize = 2000;

/// Writes Events.
pub struct Events {
    writer: Writer,
    /// Which replica speaks.
    instance: String,
    said: Mutex<Said>,
}

struct Said {
    burst: u32,
    refill: Duration,
    words: BTreeMap<(String, Word), Instant>,
    tokens: u32,
    refilled: Instant,
}

impl Said {
    /// Whether this may be said now.
    fn may(&mut self, about: &str, word: &Word, now: Instant) -> bool {
        let key = (about.to_owned(), word.clone());
        if self.words.get(&key).is_some_and(|at| now.duration_since(*at) < SAME) || !self.has_room(now) {
            return false;
        }
        if self.words.len() >= REMEMBERED {
            self.words.retain(|_, at| now.duration_since(*at) < SAME);
        }
        self.words.insert(key, now);
        true
    }

    /// Whether anything may be said now.
    fn has_room(&mut self, now: Instant) -> bool {
        let due = now.duration_since(self.refilled).as_millis() / self.refill.as_millis();
        let due = u32::try_from(due).unwrap_or(u32::MAX);
        if due > 0 {
            self.tokens = self.tokens.saturating_add(due).min(self.burst);
            self.refilled = now;
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        true
    }
}

impl Events {
    pub fn new(writer: Writer, instance: &str) -> Events {
        Events::of(writer, instance, 1)
    }

    /// For what is said of an object that somebody has asked for, as often as something happens: a rollout has some thirty transitions.
    pub fn of_transitions(writer: Writer, instance: &str) -> Events {
        Events::of(writer, instance, TRANSITIONS)
    }

    fn of(writer: Writer, instance: &str, times: u32) -> Events {
        let (burst, refill) = (BURST * times, REFILL / times);
        let said = Said { burst, refill, words: BTreeMap::new(), tokens: burst, refilled: Instant::now() };
        Events { writer, instance: instance.to_owned(), said: Mutex::new(said) }
    }

    /// Says a word about an object, unless it was said or there is too much to say. Failures are counted, not returned: an
    /// Event that is lost is in the report and in the log all the same.
    pub async fn say(&self, at: &At, uid: Option<&str>, word: &Word) {
        if !self.lock().may(&at.to_string(), word, Instant::now()) {
            return;
        }
        if let Some(uid) = uid {
            return self.write(at, uid, word).await;
        }
        match self.find(at).await {
            Ok(Some((at, uid))) => self.write(&at, &uid, word).await,
            // It has gone meanwhile; nobody would find the Event.
            Ok(None) => {}
            Err(error) => {
                self.writer.metrics().reconcile_error(Loop::Events);
                tracing::warn!(object = %at, %error, "no Event is written: its object cannot be looked up");
            }
        }
    }

    /// Says a word about an object even if the same was said before: what happens twice is said twice. Within the same bounds.
    pub async fn tell(&self, at: &At, uid: &str, word: &Word) {
        let room = self.lock().has_room(Instant::now());
        if room {
            self.write(at, uid, word).await;
        }
    }

    async fn write(&self, at: &At, uid: &str, word: &Word) {
        let namespace = if at.namespace.is_empty() { "default" } else { &at.namespace };
        let now = Timestamp::now();
        let short: String = at.name.chars().take(200).collect();
        let name = format!("{}.{:x}", short.trim_end_matches(['.', '-']), now.as_nanosecond());
        let mut regarding = json!({
            "apiVersion": at.resource.api_version(), "kind": at.resource.kind, "name": at.name, "uid": uid,
        });
        if !at.namespace.is_empty() {
            regarding["namespace"] = json!(at.namespace);
        }
        let object = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "revguard"}},
            "eventTime": micro(now),
            "reportingController": "revguard.dev/controller",
            "reportingInstance": self.instance.chars().take(128).collect::<String>(),
            "action": word.action,
            "reason": word.reason,
            "regarding": regarding,
            "note": shortened(&word.note),
            "type": if word.warning { "Warning" } else { "Normal" },
        });
        let write = Write {
            boundary: "event",
            by: Loop::Events,
            at: At::of(&EVENTS, namespace, &name),
            change: Change::Create { object },
        };
        let _ = self.writer.write(&write).await;
    }

    /// The object as the cluster serves it, and its uid: `kubectl describe` finds Events by that, which no snapshot holds. A list
    /// of one needs no right that the watches do not need already. Istio up to 1.21 serves few of its kinds in the newest
    /// version that we read.
    async fn find(&self, at: &At) -> Result<Option<(At, String)>, Trouble> {
        for resource in at.resource.in_any_version() {
            let path = format!("{}?limit=1&fieldSelector=metadata.name%3D{}", resource.path(&at.namespace), at.name);
            match send_with(self.writer.client(), Method::Get, &path, None, LONGEST).await {
                Ok(list) => {
                    let uid = list["items"][0]["metadata"]["uid"].as_str();
                    return Ok(uid.map(|uid| (At { resource, ..at.clone() }, uid.to_owned())));
                }
                Err(Trouble::NotFound) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(None)
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What is wrong, and the first line of what mends it, whole: a command that is cut would do something else.
pub fn with_fix(what: &str, fix: &str) -> String {
    let more = if fix.lines().count() > 1 { " (`revguard status` shows all of it)" } else { "" };
    let fix = fix.lines().next().unwrap_or_default();
    let tail = format!(" fix: {fix}{more}");
    let tail = if tail.len() > LONGEST_NOTE / 2 { " fix: `revguard status` shows it" } else { &tail };
    format!("{}{tail}", cut(what, LONGEST_NOTE - tail.len()))
}

fn shortened(note: &str) -> String {
    cut(note, LONGEST_NOTE)
}

fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(note: &str) -> Word {
        Word { warning: true, reason: "VW002".to_owned(), action: "Audit", note: note.to_owned() }
    }

    #[test]
    fn the_same_is_said_once_an_hour_and_all_of_it_within_bounds() {
        let start = Instant::now();
        let mut said = Said { burst: BURST, refill: REFILL, words: BTreeMap::new(), tokens: BURST, refilled: start };
        assert!(said.may("a", &word("x"), start));
        assert!(!said.may("a", &word("x"), start + Duration::from_secs(3599)));
        assert!(said.may("a", &word("x"), start + SAME));
        let told = (0..1000).filter(|i| said.may(&format!("o{i}"), &word("x"), start + SAME)).count();
        assert!(told < BURST as usize, "{told}");
        assert!(said.may("later", &word("x"), start + SAME + REFILL));
        assert!(!said.may("and more", &word("x"), start + SAME + REFILL));
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        let note = "ä".repeat(LONGEST_NOTE);
        assert!(shortened(&note).len() <= LONGEST_NOTE + 3);
    }

    #[test]
    fn a_fix_is_whole_or_not_there() {
        assert_eq!(with_fix("[A b] it is wrong.", "kubectl x"), "[A b] it is wrong. fix: kubectl x");
        let two = with_fix("[A b] it is wrong.", "kubectl x\nkubectl y");
        assert_eq!(two, "[A b] it is wrong. fix: kubectl x (`revguard status` shows all of it)");
        let long = with_fix(&"ä".repeat(LONGEST_NOTE), "kubectl x");
        assert!(long.ends_with("… fix: kubectl x") && long.len() <= 1024, "{}", long.len());
        let longer = with_fix("it is wrong.", &"x".repeat(LONGEST_NOTE));
        assert_eq!(longer, "it is wrong. fix: `revguard status` shows it");
    }
}
