//! What is to be done next about certificates: a pure function of what was seen, the time, and the durations.
//!
//! Two promises. *Whatever certificate a replica may serve verifies against whatever caBundle an API server may still
//! hold*, and *nothing that is served expires while a leader lives*. Five orders keep them, and the simulation in
//! `tests/certificates` breaks each of them on purpose:
//!
//! 1. A CA is published in every configuration, and stays so for the overlap, before it signs what is served.
//! 2. A CA is dropped from the bundle only when every replica was asked and serves a certificate of another.
//! 3. What a write replaces is read before what the write is decided from. A leader that is late then finds its
//!    precondition broken: nobody drops a CA from the bundle without having replaced the certificate first.
//! 4. A new certificate of the CA that signed the present one asks nobody for new trust. It comes before everything else
//!    and needs nothing but the two Secrets, so that no trouble elsewhere lets the present one expire.
//! 5. The overlap ends early where what is served would not live to see its end: half of what is left is for the API
//!    servers to hear of the new CA, and half for the replicas to take its certificate. A switch that is too early may cost
//!    a call on an API server that has not heard; a certificate that has expired costs every call.
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
    /// Its certificate if a known CA verifies it, or why it is not known.
    pub serves: Result<Option<Served>, String>,
}

/// A certificate that is served and can be believed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Served {
    pub by: Id,
    pub until: Timestamp,
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
    /// What could not be looked at besides the Secrets, and why: configurations or replicas are then not known.
    pub unseen: Option<String>,
}

/// Since when something has been true without a break, as far as this process has seen. It is not stored: whoever leads
/// next begins to count anew, which makes the overlap longer, but never longer than what is served lives.
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

impl Replica {
    /// The CA of what it serves, if both are known.
    fn by(&self) -> Option<&Id> {
        Some(&self.serves.as_ref().ok()?.as_ref()?.by)
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

/// A third of the shortest CA that [`Timing::check`] lets pass, in overlaps: so much of a CA's life is left at least when
/// its successor is made, also if the CA was made when the overlap was shorter.
const ROTATION: i32 = 4;

/// From the decision to sign until every replica serves what was signed: two looks and two writes, each of them up to three
/// seconds where a replica does not answer, and the replicas' watch.
const HANDOVER: SignedDuration = SignedDuration::from_secs(10);

impl Timing {
    /// # Errors
    /// Durations with which a rotation could not end in time.
    pub fn check(&self) -> Result<(), String> {
        // A rotation begins with a third of the CA's life left, and takes two overlaps; as much again is left for trouble.
        if self.overlap * (3 * ROTATION) > self.ca_validity {
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
    let current = kept.current.as_ref().filter(|ca| ca.until > now);
    let own = serving.leaf.as_ref().zip(current).filter(|(leaf, ca)| leaf.by.as_ref() == Some(&ca.id));
    let bundle = kept.bundle(now);
    let wanted = bundle.iter().cloned().collect();
    let scene = Scene { seen, kept, serving, current, own, bundle, wanted, now, timing };

    if let Some(why) = own.and_then(|(leaf, ca)| stale(leaf, ca, now)) {
        return scene.sign(why);
    }
    if let Some(why) = &seen.unseen {
        return Next::Wait { until: None, why: why.clone() };
    }
    if let Some(next) = scene.publish() {
        return next;
    }
    // From here on every configuration holds every CA that is kept.
    let mut wait = Waiting::default();
    scene.hand_over(&mut wait).or_else(|| scene.tidy(&mut wait)).unwrap_or_else(|| wait.next())
}

/// Why the CA that signed this certificate signs another at once, if so.
fn stale(leaf: &Leaf, ca: &Ca, now: Timestamp) -> Option<&'static str> {
    if !leaf.sound {
        return Some("the key does not fit the certificate, or a name is missing in it");
    }
    // Another one could not outlast this one where it ends with its CA; what helps then is another CA.
    let due = due(leaf.from, leaf.until) <= now && leaf.until < ca.until;
    due.then_some("two thirds of the certificate's life are over")
}

/// What was seen, and what follows from it at once.
struct Scene<'a> {
    seen: &'a Seen,
    kept: &'a Kept,
    serving: &'a Serving,
    /// The CA that signs, if it has not expired.
    current: Option<&'a Ca>,
    /// What the serving Secret holds, if that CA signed it.
    own: Option<(&'a Leaf, &'a Ca)>,
    bundle: Vec<Id>,
    /// The same, for comparing.
    wanted: BTreeSet<Id>,
    now: Timestamp,
    timing: &'a Timing,
}

impl Scene<'_> {
    fn sign(&self, why: impl Into<String>) -> Next {
        step(Step::Sign { bundle: self.bundle.clone() }, why)
    }

    /// The CA that will sign, if it has not expired.
    fn next(&self) -> Option<&Ca> {
        self.kept.next.as_ref().filter(|ca| ca.until > self.now)
    }

    /// There is a CA, everything that is relied on is kept, and what is kept is published everywhere.
    fn publish(&self) -> Option<Next> {
        let (seen, kept) = (self.seen, self.kept);
        let ours = |ca: &&Ca| kept.all().any(|own| own.id == ca.id);
        let strange = seen.published.values().filter(|ca| ca.until > self.now && !ours(ca));
        if self.current.is_none() && self.next().is_none() {
            let why = if kept.current.is_some() { "the CA has expired" } else { "there is no CA" };
            return Some(step(Step::Make { adopt: strange.cloned().collect() }, why));
        }
        let relied: Vec<Ca> = strange.filter(|ca| relied_on(seen, self.serving, &ca.id)).cloned().collect();
        if !relied.is_empty() {
            return Some(step(Step::Adopt { adopt: relied }, "a CA that we do not keep has signed what is served"));
        }
        let wrong = seen.configurations.iter().find(|c| c.bundles.iter().any(|b| *b != self.wanted))?;
        let lacks = wrong.bundles.iter().any(|b| !self.wanted.is_subset(b));
        let why = if lacks { "its caBundle lacks a CA" } else { "its caBundle holds more than is kept" };
        Some(step(Step::Publish { configuration: wrong.name.clone(), bundle: self.bundle.clone() }, why))
    }

    /// What is served comes to be of the CA that is to sign, as soon as that is believed.
    fn hand_over(&self, wait: &mut Waiting) -> Option<Next> {
        if let (Some(ca), None) = (self.current, self.alive()) {
            let why = "there is no serving certificate that anybody could verify";
            return Some(self.sign(format!("{why}; {} signs one", ca.name)));
        }
        if let Some(next) = self.next() {
            match self.settled(next) {
                Ok(why) => return Some(step(Step::Promote, why)),
                Err(until) => wait.note(until, format!("{} is published before it signs", next.name)),
            }
        }
        if let Some(ca) = self.current.filter(|_| self.own.is_none()) {
            match self.settled(ca) {
                Ok(why) => return Some(self.sign(why)),
                Err(until) => wait.note(until, format!("{} is published before it signs", ca.name)),
            }
        }
        None
    }

    /// What is not urgent: old CAs go, and the next one comes.
    fn tidy(&self, wait: &mut Waiting) -> Option<Next> {
        let (now, timing) = (self.now, self.timing);
        if let Some((_, ca)) = self.own {
            match retire(self.kept, self.seen, ca, (now, timing)) {
                Ok(drop) if drop.is_empty() => {}
                Ok(drop) => return Some(step(Step::Retire { drop }, "no replica serves a certificate of them")),
                Err((until, why)) => wait.note(until, why),
            }
        }
        if self.serving.bundle != self.wanted {
            return Some(step(Step::Note { bundle: self.bundle.clone() }, "ca.crt tells what is published"));
        }
        if let (Some(ca), None) = (self.current, self.next()) {
            let at = due(ca.from, ca.until).min(ca.until - timing.overlap * ROTATION);
            if at <= now {
                let why = format!("{} ends at {}, and it is time for its successor", ca.name, ca.until);
                return Some(step(Step::Make { adopt: Vec::new() }, why));
            }
            wait.note(Some(at), format!("{} is renewed then", ca.name));
        }
        if let Some((leaf, ca)) = self.own.filter(|(leaf, ca)| leaf.until < ca.until) {
            wait.note(Some(due(leaf.from, leaf.until)), format!("{} renews the serving certificate then", ca.name));
        }
        None
    }

    /// What the serving Secret holds, if it can be believed.
    fn alive(&self) -> Option<&Leaf> {
        let believed = |leaf: &&Leaf| leaf.by.as_ref().is_some_and(|by| self.wanted.contains(by));
        self.serving.leaf.as_ref().filter(|leaf| leaf.until > self.now).filter(believed)
    }

    /// When calls begin to fail if no other CA signs; `None`: they fail now, or nobody calls yet.
    fn ends(&self) -> Option<Timestamp> {
        match (self.alive(), self.own) {
            // The CA that signs can sign another as long as it lives itself.
            (Some(_), Some((_, ca))) => Some(ca.until),
            // Nobody can renew it, and it ends with its CA, if another's outlasts that.
            (Some(leaf), None) => {
                let by = self.kept.all().find(|ca| leaf.by.as_ref() == Some(&ca.id));
                Some(by.map_or(leaf.until, |ca| ca.until.min(leaf.until)))
            }
            // Replicas keep what they had if the Secret holds nothing that they could use.
            (None, _) => {
                let served = self.seen.replicas.iter().filter_map(|replica| replica.serves.as_ref().ok()?.as_ref());
                let believed = served.filter(|s| s.until > self.now && self.wanted.contains(&s.by));
                believed.map(|served| served.until).min()
            }
        }
    }

    /// Why this CA can sign now: every API server can be taken to believe it, or there is no time to wait for that; else
    /// from when on.
    fn settled(&self, ca: &Ca) -> Result<String, Option<Timestamp>> {
        let everywhere = format!("{} is published everywhere", ca.name);
        // Where nothing else is trusted there is nothing to lose by being early: the first installation.
        if self.wanted.len() == 1 && self.wanted.contains(&ca.id) {
            return Ok(everywhere);
        }
        let Some(ends) = self.ends() else {
            return Ok(format!("{everywhere}, and nothing that is served is believed"));
        };
        let Some(since) = self.seen.memory.everywhere.get(&ca.id) else { return Err(None) };
        let left = ends.duration_since(*since);
        let until = *since + self.timing.overlap.min(left / 2).min(left - HANDOVER);
        if until > self.now {
            return Err(Some(until));
        }
        let early = *since + self.timing.overlap > self.now;
        let but =
            if early { format!(", not yet for the overlap, but what is served ends at {ends}") } else { String::new() };
        Ok(format!("{everywhere}{but}"))
    }
}

/// Whether something that is served, or is about to be, verifies against this CA only.
fn relied_on(seen: &Seen, serving: &Serving, id: &Id) -> bool {
    let leaf = serving.leaf.as_ref().and_then(|leaf| leaf.by.as_ref());
    leaf == Some(id) || seen.replicas.iter().any(|replica| replica.by() == Some(id))
}

/// Old CAs that nobody needs any more.
fn retire(
    kept: &Kept,
    seen: &Seen,
    current: &Ca,
    (now, timing): (Timestamp, &Timing),
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
    let by = |ca: &Ca| seen.replicas.iter().filter(|r| r.by() == Some(&ca.id)).map(|r| r.name.as_str()).collect();
    if let Some((ca, names)) = live.iter().map(|ca| (ca, by(ca))).find(|(_, names): &(_, Vec<&str>)| !names.is_empty())
    {
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
            unseen: None,
        };
        let mut memory = Memory::default();
        memory.note(&seen, at(0));
        seen.memory = memory;
        seen
    }

    fn replica(name: &str, serves: Result<&str, &str>) -> Replica {
        let served = |by| Some(Served { by: Id::from(by), until: at(300) });
        Replica { name: name.into(), serves: serves.map(served).map_err(str::to_owned) }
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

    /// "old" signs and is served, until then; "new" was published a moment ago.
    fn published(until: Timestamp) -> Seen {
        let mut seen = rotated(vec![replica("a", Ok("old"))]);
        seen.kept = Some(Kept { current: Some(ca("old")), next: Some(ca("new")), old: Vec::new() });
        seen.kept.as_mut().unwrap().current.as_mut().unwrap().until = until;
        let leaf = Leaf { by: Some(Id::from("old")), from: at(-200), until: until.min(at(100)), sound: true };
        seen.serving.as_mut().unwrap().leaf = Some(leaf);
        seen
    }

    fn done(next: Next) -> Step {
        match next {
            Next::Do { step, .. } => step,
            Next::Wait { until, why } => panic!("waits until {until:?}: {why}"),
        }
    }

    fn waits(next: &Next) -> Timestamp {
        match next {
            Next::Wait { until: Some(until), .. } => *until,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_ca_that_has_signed_signs_again_whatever_is_wrong_elsewhere() {
        let mut seen = published(at(600));
        let sign = |seen: &Seen, minutes| matches!(done(plan(seen, at(minutes), &timing())), Step::Sign { .. });
        // Due, by a leader that has only just begun to count; with a bundle that is wrong; with nothing else to be seen.
        assert!(sign(&seen, 0));
        seen.configurations[0].bundles[0].clear();
        assert!(sign(&seen, 0));
        seen.unseen = Some("pods cannot be listed".to_owned());
        assert!(sign(&seen, 0));
        let leaf = seen.serving.as_mut().unwrap().leaf.as_mut().unwrap();
        leaf.from = at(0);
        let next = plan(&seen, at(0), &timing());
        assert_eq!(
            next,
            Next::Wait { until: None, why: "pods cannot be listed".to_owned() },
            "nothing else is done blindly"
        );
        seen.serving.as_mut().unwrap().leaf.as_mut().unwrap().sound = false;
        assert!(sign(&seen, 0));
    }

    #[test]
    fn the_overlap_leaves_time_to_change_before_what_is_served_ends() {
        let second = |n| at(0) + SignedDuration::from_secs(n);
        let settles = |until| waits(&plan(&published(until), at(0), &timing()));
        for (ends, switch) in [(3000, 600), (1200, 600), (600, 300), (20, 10), (16, 6)] {
            assert_eq!(settles(second(ends)), second(switch), "of {ends} seconds");
        }
        assert_eq!(done(plan(&published(second(9)), at(0), &timing())), Step::Promote);
        // Where the CA that signed cannot sign any more, what is served ends with the certificate, or with that CA.
        let mut seen = published(at(600));
        let kept = seen.kept.as_mut().unwrap();
        kept.old.extend(kept.current.take());
        (kept.current, kept.next) = (kept.next.take(), None);
        seen.serving.as_mut().unwrap().leaf.as_mut().unwrap().until = at(8);
        assert_eq!(waits(&plan(&seen, at(0), &timing())), at(4));
        seen.kept.as_mut().unwrap().old[0].until = at(6);
        assert_eq!(waits(&plan(&seen, at(0), &timing())), at(3));
        assert!(matches!(done(plan(&seen, at(3), &timing())), Step::Sign { .. }));
    }

    #[test]
    fn whoever_has_no_certificate_waits_only_for_those_who_have_one() {
        // Nobody can sign what "old" has signed again, and the Secret is emptied.
        let mut seen = published(at(600));
        let kept = seen.kept.as_mut().unwrap();
        kept.old.extend(kept.current.take());
        seen.serving.as_mut().unwrap().leaf = None;
        seen.replicas[0].serves = Ok(Some(Served { by: Id::from("old"), until: at(8) }));
        assert_eq!(waits(&plan(&seen, at(0), &timing())), at(4));
        seen.replicas[0].serves = Ok(None);
        assert_eq!(done(plan(&seen, at(0), &timing())), Step::Promote);
    }

    #[test]
    fn what_ends_with_its_ca_is_not_signed_again_and_its_successor_comes_in_time() {
        let mut seen = published(at(90));
        seen.kept.as_mut().unwrap().next = None;
        seen.configurations[0].bundles[0].remove("new");
        seen.serving.as_mut().unwrap().bundle.remove("new");
        assert_eq!(done(plan(&seen, at(80), &timing())), Step::Make { adopt: Vec::new() });
        // Four overlaps before its end, though two thirds of its life are over only at minute 60.
        assert_eq!(waits(&plan(&seen, at(49), &timing())), at(50));
        assert_eq!(done(plan(&seen, at(50), &timing())), Step::Make { adopt: Vec::new() });
    }

    #[test]
    fn what_is_not_there_is_not_made() {
        let seen = Seen::default();
        let Next::Wait { why, .. } = plan(&seen, at(0), &timing()) else { panic!("a step without a Secret") };
        assert!(why.contains("no Secret for the CA") && why.contains("nothing is created here"), "{why}");
    }
}
