//! What is to be done next about certificates: a pure function of what was seen, the time, and the durations.
//!
//! One promise: *whatever certificate a replica may serve verifies against whatever caBundle an API server may still
//! hold.* Three orders keep it, and the simulation in `tests/certificates` breaks each of them on purpose:
//!
//! 1. A CA is published in every configuration, and stays so for the overlap, before it signs what is served.
//! 2. A CA is dropped from the bundle only when every replica was asked and serves a certificate of another.
//! 3. What a write replaces is read before what the write is decided from. A leader that is late then finds its
//!    precondition broken: nobody drops a CA from the bundle without having replaced the certificate first.
//!
//! A plan is one step or a reason to wait, because after a write what was seen before is no longer true.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

/// A CA's certificate, whole: two are the same only if every byte is.
pub type Id = Arc<str>;

/// A certificate authority, as far as a plan needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ca {
    pub id: Id,
    /// What a person calls it.
    pub name: String,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// What the CA Secret holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// Signs.
    pub current: Option<Ca>,
    /// Is published and will sign.
    pub next: Option<Ca>,
    /// Signed once, and may still be served.
    pub old: Vec<Ca>,
}

/// A serving certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaf {
    /// The known CA that it verifies against.
    pub by: Option<Id>,
    pub from: Timestamp,
    pub until: Timestamp,
    /// Its key fits and it carries every name that we are called by.
    pub sound: bool,
}

/// What the serving Secret holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serving {
    pub leaf: Option<Leaf>,
    /// `ca.crt`.
    pub bundle: BTreeSet<Id>,
}

/// A webhook configuration that exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Configuration {
    pub name: String,
    /// The bundle of each webhook.
    pub bundles: Vec<BTreeSet<Id>>,
}

/// What a replica of the webhook serves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    pub name: String,
    /// The known CA of its certificate, or why it is not known.
    pub serves: Result<Option<Id>, String>,
}

/// Everything a plan is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `None`: there is no such Secret.
    pub kept: Option<Kept>,
    /// `None`: there is no such Secret.
    pub serving: Option<Serving>,
    pub configurations: Vec<Configuration>,
    pub replicas: Vec<Replica>,
    /// Every CA that stands in a bundle of the cluster, by its certificate.
    pub published: BTreeMap<Id, Ca>,
    /// See [`Memory`].
    pub memory: Memory,
}

/// Since when something has been true without a break, as far as this process has seen. It is not stored: whoever leads
/// next begins to count anew, which only makes the overlap longer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory {
    /// CAs that stand in every webhook of every configuration.
    pub everywhere: BTreeMap<Id, Timestamp>,
    /// The CA of the certificate in the serving Secret.
    pub served: Option<(Id, Timestamp)>,
}

impl Memory {
    /// Takes a look at the cluster.
    pub fn note(&mut self, seen: &Seen, now: Timestamp) {
        let all = |id: &Id| seen.configurations.iter().flat_map(|c| &c.bundles).all(|bundle| bundle.contains(id));
        let own = seen.kept.iter().flat_map(Kept::all).map(|ca| &ca.id);
        let there: BTreeSet<Id> = own.chain(seen.published.keys()).filter(|id| all(id)).cloned().collect();
        self.everywhere.retain(|id, _| there.contains(id));
        for id in there {
            self.everywhere.entry(id).or_insert(now);
        }
        let by = seen.serving.as_ref().and_then(|s| s.leaf.as_ref()?.by.clone());
        if self.served.as_ref().map(|(id, _)| id) != by.as_ref() {
            self.served = by.map(|id| (id, now));
        }
    }
}

impl Kept {
    pub fn all(&self) -> impl Iterator<Item = &Ca> {
        self.current.iter().chain(&self.next).chain(&self.old)
    }

    /// What is to be published, the signing CA first; what has expired verifies nothing.
    pub fn bundle(&self, now: Timestamp) -> Vec<Id> {
        let mut ids: Vec<Id> = Vec::new();
        for ca in self.all().filter(|ca| ca.until > now) {
            if !ids.contains(&ca.id) {
                ids.push(ca.id.clone());
            }
        }
        ids
    }
}

/// Durations, all configurable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    pub ca_validity: SignedDuration,
    pub cert_validity: SignedDuration,
    /// How long a CA is published before it signs, and at least stays so after it signed last: longer than any API server
    /// takes to hear of a changed configuration.
    pub overlap: SignedDuration,
}

impl Timing {
    /// # Errors
    /// Durations with which a rotation could not end in time.
    pub fn check(&self) -> Result<(), String> {
        // A rotation begins with a third of the CA's life left, and takes two overlaps; as much again is left for trouble.
        if self.overlap * 12 > self.ca_validity {
            return Err("--cert-overlap: a CA must last at least twelve times as long (--ca-validity)".to_owned());
        }
        if self.cert_validity > self.ca_validity {
            return Err("--cert-validity: a certificate cannot outlast its CA (--ca-validity)".to_owned());
        }
        if self.overlap.is_negative() || self.cert_validity <= SignedDuration::ZERO {
            return Err("--cert-validity must be more than nothing".to_owned());
        }
        Ok(())
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A new CA as the next one; these, which others made, stay published for now. Writes the CA Secret.
    Make { adopt: Vec<Ca> },
    /// These are relied on and not kept: after a restored backup, or before us. Writes the CA Secret.
    Adopt { adopt: Vec<Ca> },
    /// The bundle of one configuration.
    Publish { configuration: String, bundle: Vec<Id> },
    /// The next CA signs from now on, and the current one is old. Writes the CA Secret.
    Promote,
    /// A new certificate of the current CA. Writes the serving Secret.
    Sign { bundle: Vec<Id> },
    /// Nobody serves these any more. Writes the CA Secret.
    Retire { drop: Vec<Id> },
    /// Only `ca.crt` of the serving Secret, for people and their tools.
    Note { bundle: Vec<Id> },
}

/// One step, or a reason to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Do { step: Step, why: String },
    Wait { until: Option<Timestamp>, why: String },
}

fn step(step: Step, why: impl Into<String>) -> Next {
    Next::Do { step, why: why.into() }
}

/// When two thirds of a life are over.
fn due(from: Timestamp, until: Timestamp) -> Timestamp {
    from + until.duration_since(from) * 2 / 3
}

/// Decides. See the module's documentation.
pub fn plan(seen: &Seen, now: Timestamp, timing: &Timing) -> Next {
    let missing = |what: &str| Next::Wait {
        until: None,
        why: format!("there is no {what}; the chart makes it empty: install or upgrade it, nothing is created here"),
    };
    let Some(kept) = &seen.kept else { return missing("Secret for the CA") };
    let Some(serving) = &seen.serving else { return missing("Secret for the serving certificate") };
    let valid = |ca: &&Ca| ca.until > now;
    let strange: Vec<&Ca> =
        seen.published.values().filter(valid).filter(|ca| kept.all().all(|own| own.id != ca.id)).collect();

    let current = kept.current.as_ref().filter(valid);
    if current.is_none() && kept.next.as_ref().filter(valid).is_none() {
        let adopt: Vec<Ca> = strange.into_iter().cloned().collect();
        return step(
            Step::Make { adopt },
            if kept.current.is_some() { "the CA has expired" } else { "there is no CA" },
        );
    }
    let relied: Vec<Ca> = strange.into_iter().filter(|ca| relied_on(seen, serving, &ca.id)).cloned().collect();
    if !relied.is_empty() {
        return step(Step::Adopt { adopt: relied }, "a CA that we do not keep has signed what is served");
    }

    let bundle = kept.bundle(now);
    let wanted: BTreeSet<Id> = bundle.iter().cloned().collect();
    let wrong = |c: &&Configuration| c.bundles.iter().any(|b| *b != wanted);
    if let Some(configuration) = seen.configurations.iter().find(wrong) {
        let lacks = configuration.bundles.iter().any(|b| !wanted.is_subset(b));
        let why = if lacks { "its caBundle lacks a CA" } else { "its caBundle holds more than is kept" };
        return step(Step::Publish { configuration: configuration.name.clone(), bundle }, why);
    }

    // From here on every configuration holds every CA that is kept.
    let trust = Trust { seen, wanted: &wanted, now, timing };
    let mut wait = Waiting::default();
    let dead =
        serving.leaf.as_ref().is_none_or(|l| l.until <= now || l.by.as_ref().is_none_or(|by| !wanted.contains(by)));
    let fits =
        |leaf: &Leaf, ca: &Ca| leaf.sound && leaf.by.as_ref() == Some(&ca.id) && due(leaf.from, leaf.until) > now;
    let renewed = current.is_some_and(|ca| serving.leaf.as_ref().is_some_and(|leaf| fits(leaf, ca)));
    if let Some(ca) = current
        && dead
    {
        let why = "there is no serving certificate that anybody could verify";
        return step(Step::Sign { bundle }, format!("{why}; {} signs one", ca.name));
    }
    if let Some(next) = kept.next.as_ref().filter(valid) {
        match trust.settled(next) {
            Ok(()) => return step(Step::Promote, format!("{} is published everywhere", next.name)),
            Err(until) => wait.note(until, format!("{} is published before it signs", next.name)),
        }
    }
    if let Some(ca) = current.filter(|_| !renewed) {
        match trust.settled(ca) {
            Ok(()) => return step(Step::Sign { bundle }, reason(serving, ca, now)),
            Err(until) => wait.note(until, format!("{} is published before it signs", ca.name)),
        }
    }
    if renewed && let Some(ca) = current {
        match retire(kept, seen, ca, now, timing) {
            Ok(drop) if drop.is_empty() => {}
            Ok(drop) => return step(Step::Retire { drop }, "no replica serves a certificate of them"),
            Err((until, why)) => wait.note(until, why),
        }
    }
    if serving.bundle != wanted {
        return step(Step::Note { bundle }, "ca.crt tells what is published");
    }
    if let (Some(ca), None) = (current, kept.next.as_ref().filter(valid)) {
        let at = due(ca.from, ca.until);
        if at <= now {
            return step(Step::Make { adopt: Vec::new() }, format!("two thirds of the life of {} are over", ca.name));
        }
        wait.note(Some(at), format!("{} is renewed then", ca.name));
    }
    if let Some(leaf) = serving.leaf.as_ref().filter(|_| renewed) {
        wait.note(Some(due(leaf.from, leaf.until)), "the serving certificate is renewed then".to_owned());
    }
    wait.next()
}

/// Whether something that is served, or is about to be, verifies against this CA only.
fn relied_on(seen: &Seen, serving: &Serving, id: &Id) -> bool {
    let leaf = serving.leaf.as_ref().and_then(|leaf| leaf.by.as_ref());
    leaf == Some(id) || seen.replicas.iter().any(|r| matches!(&r.serves, Ok(Some(by)) if by == id))
}

fn reason(serving: &Serving, ca: &Ca, now: Timestamp) -> String {
    match &serving.leaf {
        Some(leaf) if leaf.by.as_ref() != Some(&ca.id) => {
            format!("{} signs now, another signed what is served", ca.name)
        }
        Some(leaf) if !leaf.sound => "the key does not fit the certificate, or a name is missing in it".to_owned(),
        Some(leaf) if due(leaf.from, leaf.until) <= now => "two thirds of the certificate's life are over".to_owned(),
        _ => "there is no serving certificate".to_owned(),
    }
}

struct Trust<'a> {
    seen: &'a Seen,
    wanted: &'a BTreeSet<Id>,
    now: Timestamp,
    timing: &'a Timing,
}

impl Trust<'_> {
    /// Whether every API server can be taken to believe this CA; else from when on.
    fn settled(&self, ca: &Ca) -> Result<(), Option<Timestamp>> {
        // Where nothing else is trusted there is nothing to lose by being early: the first installation.
        if self.wanted.len() == 1 && self.wanted.contains(&ca.id) {
            return Ok(());
        }
        let Some(since) = self.seen.memory.everywhere.get(&ca.id) else { return Err(None) };
        let until = *since + self.timing.overlap;
        if until <= self.now { Ok(()) } else { Err(Some(until)) }
    }
}

/// Old CAs that nobody needs any more.
fn retire(
    kept: &Kept,
    seen: &Seen,
    current: &Ca,
    now: Timestamp,
    timing: &Timing,
) -> Result<Vec<Id>, (Option<Timestamp>, String)> {
    let expired = |ca: &&Ca| ca.until <= now || ca.id == current.id;
    let mut drop: Vec<Id> = kept.old.iter().filter(expired).map(|ca| ca.id.clone()).collect();
    let live: Vec<&Ca> = kept.old.iter().filter(|ca| !expired(ca)).collect();
    let Some(named) = live.first().map(|ca| ca.name.clone()) else { return Ok(drop) };
    if !drop.is_empty() {
        return Ok(drop);
    }
    // A replica that was not asked may be one that has not heard of the new certificate.
    if let Some(Replica { name, serves: Err(why) }) = seen.replicas.iter().find(|r| r.serves.is_err()) {
        return Err((None, format!("{named} stays published: what {name} serves is not known ({why})")));
    }
    let served = |ca: &&&Ca| seen.replicas.iter().any(|r| matches!(&r.serves, Ok(Some(by)) if *by == ca.id));
    if let Some(ca) = live.iter().find(served) {
        let names: Vec<&str> =
            seen.replicas.iter().filter(|r| r.serves == Ok(Some(ca.id.clone()))).map(|r| r.name.as_str()).collect();
        return Err((None, format!("{} stays published: it is still served by {}", ca.name, names.join(", "))));
    }
    // As long as it was published before, it stays after: whoever we could not see has had the same time.
    let since = seen.memory.served.as_ref().filter(|(id, _)| *id == current.id).map(|(_, since)| *since);
    match since.map(|since| since + timing.overlap) {
        Some(until) if until <= now => {
            drop.extend(live.iter().map(|ca| ca.id.clone()));
            Ok(drop)
        }
        until => Err((until, format!("{named} stays published for the overlap"))),
    }
}

/// Collects reasons; the first one is told, the earliest time is when to look again.
#[derive(Default)]
struct Waiting {
    until: Option<Timestamp>,
    why: Option<String>,
}

impl Waiting {
    fn note(&mut self, until: Option<Timestamp>, why: String) {
        self.until = [self.until, until].into_iter().flatten().min();
        self.why.get_or_insert(why);
    }

    fn next(self) -> Next {
        Next::Wait { until: self.until, why: self.why.unwrap_or_else(|| "nothing is due".to_owned()) }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Make { .. } => f.write_str("make a CA"),
            Step::Adopt { adopt } => write!(f, "keep {} foreign CA", adopt.len()),
            Step::Publish { configuration, bundle } => write!(f, "publish {} CA in {configuration}", bundle.len()),
            Step::Promote => f.write_str("let the next CA sign"),
            Step::Sign { .. } => f.write_str("sign a serving certificate"),
            Step::Retire { drop } => write!(f, "drop {} CA", drop.len()),
            Step::Note { .. } => f.write_str("note the bundle in ca.crt"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    fn ca(name: &str) -> Ca {
        Ca { id: Id::from(name), name: name.to_owned(), from: at(0), until: at(600) }
    }

    fn timing() -> Timing {
        let m = SignedDuration::from_mins;
        Timing { ca_validity: m(600), cert_validity: m(300), overlap: m(10) }
    }

    /// "new" signs and is served; "old" is still published.
    fn rotated(replicas: Vec<Replica>) -> Seen {
        let both: BTreeSet<Id> = ["new", "old"].map(Id::from).into();
        let leaf = Leaf { by: Some(Id::from("new")), from: at(0), until: at(300), sound: true };
        let mut seen = Seen {
            kept: Some(Kept { current: Some(ca("new")), next: None, old: vec![ca("old")] }),
            serving: Some(Serving { leaf: Some(leaf), bundle: both.clone() }),
            configurations: vec![Configuration { name: "v".into(), bundles: vec![both] }],
            replicas,
            published: ["new", "old"].map(|name| (Id::from(name), ca(name))).into(),
            memory: Memory::default(),
        };
        let mut memory = Memory::default();
        memory.note(&seen, at(0));
        seen.memory = memory;
        seen
    }

    fn replica(name: &str, serves: Result<&str, &str>) -> Replica {
        Replica { name: name.into(), serves: serves.map(|by| Some(Id::from(by))).map_err(str::to_owned) }
    }

    #[test]
    fn an_old_ca_goes_only_when_every_replica_was_asked_and_the_overlap_is_over() {
        let next = |seen: &Seen, minutes| plan(seen, at(minutes), &timing());
        let why = |next| match next {
            Next::Wait { why, .. } => why,
            Next::Do { step, .. } => panic!("{step}"),
        };
        let new = || replica("a", Ok("new"));
        let unknown = rotated(vec![new(), replica("b", Err("connection refused"))]);
        let said = why(next(&unknown, 100));
        assert_eq!(said, "old stays published: what b serves is not known (connection refused)");
        let behind = rotated(vec![new(), replica("b", Ok("old"))]);
        assert_eq!(why(next(&behind, 100)), "old stays published: it is still served by b");
        let through = rotated(vec![new(), replica("b", Ok("new"))]);
        assert!(matches!(next(&through, 9), Next::Wait { until: Some(until), .. } if until == at(10)));
        let drop = Step::Retire { drop: vec![Id::from("old")] };
        assert!(matches!(next(&through, 10), Next::Do { step, .. } if step == drop));
        // What has expired verifies nothing, whoever serves it.
        let mut expired = behind;
        expired.kept.as_mut().unwrap().old[0].until = at(50);
        expired.configurations[0].bundles[0].remove("old");
        assert!(matches!(next(&expired, 100), Next::Do { step, .. } if step == drop));
    }

    #[test]
    fn what_is_not_there_is_not_made() {
        let seen = Seen::default();
        let Next::Wait { why, .. } = plan(&seen, at(0), &timing()) else { panic!("a step without a Secret") };
        assert!(why.contains("no Secret for the CA") && why.contains("nothing is created here"), "{why}");
    }
}
