//! Walks the model world: every way through a small one, and by chance through a large one. Whatever state is reached, it must find to
//! its end once nothing goes wrong any more, and stay there.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use revguard::api::gateway_rollout::OnDelete;
use revguard::api::rollout_status::Phase;
use revguard::rollout::Memory;
use revguard::rollout::Next;
use revguard::rollout::seen::Of;
use revguard::rollout::step::Which;

use super::config::{Config, Rev};
use super::events::{Decision, Event};
use super::told::Told;
use super::world::World;

/// What a search has come across.
#[derive(Debug, Default)]
pub struct Found {
    pub states: usize,
    pub edges: u64,
    pub refusals: u64,
    pub ends: BTreeMap<String, u64>,
    /// `Progressing>HandingOver`, `Draining+AlertFiring`, `!set-apart`.
    pub transitions: BTreeSet<String>,
    pub longest: usize,
}

impl Found {
    pub fn add(&mut self, other: Found) {
        self.states += other.states;
        self.edges += other.edges;
        self.refusals += other.refusals;
        self.transitions.extend(other.transitions);
        self.longest = self.longest.max(other.longest);
        for (end, n) in other.ends {
            *self.ends.entry(end).or_default() += n;
        }
    }

    fn note(&mut self, decision: &Decision) {
        let before = &decision.memory;
        let from = before.phase.as_str();
        let mut add = |what: String| {
            self.transitions.insert(what);
        };
        match &decision.plan.next {
            Next::Remember(after) => {
                if before.phase != after.phase {
                    add(format!("{from}>{}", after.phase.as_str()));
                }
                let stage = |m: &Memory| m.step.as_ref().map(|s| (s.index, s.stage));
                if let (Some((i, a)), Some((j, b))) = (stage(before), stage(after))
                    && before.phase == after.phase
                    && (i, a) != (j, b)
                {
                    add(format!("{from}:{}>{}{}", a.as_str(), b.as_str(), if j > i { " next" } else { "" }));
                }
                match (&before.pause, &after.pause) {
                    (None, Some(pause)) => add(format!("{from}+{}", pause.cause.as_str())),
                    (Some(pause), None) => add(format!("{from}-{}", pause.cause.as_str())),
                    _ => {}
                }
                if let (None, Some(rollback)) = (&before.rollback, &after.rollback) {
                    add(format!("{from}<{}", rollback.reason.as_str()));
                }
            }
            Next::Do(step) => {
                let step = step.boundary().trim_start_matches("rollout-");
                add(format!("!{step}"));
                add(format!("{from}!{step}"));
            }
            Next::Wait(_) => add(format!("{from}~{}", decision.plan.state)),
            Next::Done => add(format!("{from}.")),
        }
    }
}

/// How a state was reached: who came before, and by what.
type Origins = HashMap<u128, (u128, Event)>;

/// Every state that a world can come to; more than `most` of them are too many.
pub fn exhaust(config: &Arc<Config>, most: usize) -> Result<Found, String> {
    let start = World::new(config);
    let mut found = Found::default();
    let mut origins: Origins = HashMap::new();
    let mut good: HashMap<u128, bool> = HashMap::new();
    let first = start.canonical();
    origins.insert(first, (first, Event::Acts));
    let mut queue = VecDeque::from([(first, start.clone())]);
    let name = start.config.name;
    while let Some((key, world)) = queue.pop_front() {
        let tell = |origins: &Origins, why: String| format!("{name}: {why}\n{}", trail(&start, origins, key));
        let decision = world.decide().transpose().map_err(|why| tell(&origins, why))?;
        if let Some(decision) = &decision {
            found.note(decision);
        }
        ends_well(&world, &mut good, &mut found).map_err(|why| tell(&origins, why))?;
        for event in world.events(decision.as_ref()) {
            let mut next = world.clone();
            let why = next.happen(event, decision.as_ref());
            found.edges += 1;
            found.refusals += u64::from(next.refusals - world.refusals);
            next.refusals = 0;
            why.map_err(|why| tell(&origins, format!("{event:?}: {why}")))?;
            let to = next.canonical();
            if let std::collections::hash_map::Entry::Vacant(new) = origins.entry(to) {
                new.insert((key, event));
                if origins.len() > most {
                    return Err(format!("{name}: more than {most} states"));
                }
                queue.push_back((to, next));
            }
        }
    }
    found.states = origins.len();
    Ok(found)
}

/// The events that led to a state, played again.
fn trail(start: &World, origins: &Origins, key: u128) -> String {
    let mut events = Vec::new();
    let (mut at, first) = (key, start.canonical());
    while at != first {
        let (before, event) = origins[&at];
        events.push(event);
        at = before;
    }
    events.reverse();
    let mut world = start.clone();
    let mut lines = Vec::new();
    for event in events {
        lines.push(tell(&world, event));
        let decision = world.decide().and_then(Result::ok);
        let _ = world.happen(event, decision.as_ref());
    }
    lines.push(picture(&world));
    lines.join("\n")
}

fn tell(world: &World, event: Event) -> String {
    let what = match (event, world.decide()) {
        (Event::Acts | Event::LateDecides | Event::TimePasses, Some(Ok(d))) => match &d.plan.next {
            Next::Do(step) => format!("{step:?}"),
            Next::Remember(m) => {
                let stage = m.step.as_ref().map(|s| (s.index, s.stage));
                format!("{:?} {stage:?} pause {:?} batch {:?}", m.phase, m.pause.as_ref().map(|p| p.cause), m.batch)
            }
            other => format!("{other:?}"),
        },
        _ => String::new(),
    };
    format!("  {:>3} {event:?} {what}", world.clock)
}

pub fn picture(world: &World) -> String {
    let mut lines =
        vec![format!("  --- clock {} lock {} hpa {:?} late {:?}", world.clock, world.lock, world.hpa, world.late)];
    for which in Which::ALL {
        if let Some(d) = world.deployment(which) {
            lines.push(format!("  {which:?} {d:?}"));
        }
    }
    for pod in &world.pods {
        let flag = |on: bool, word: &str| if on { format!(" {word}") } else { String::new() };
        let flags = [
            (pod.ready, "ready"),
            (pod.endpoint, "endpoint"),
            (pod.deleting, "deleting"),
            (pod.pinned, "pinned"),
            (pod.busy, "busy"),
        ];
        let flags: String = flags.into_iter().map(|(on, word)| flag(on, word)).collect();
        lines
            .push(format!("  p{} {:?} {:?} apart {:?} since {}{flags}", pod.id, pod.of, pod.rev, pod.apart, pod.since));
    }
    if let Some(r) = &world.rollout {
        let mut memory = (*r.memory).clone();
        (memory.baseline, memory.drain, memory.flavor, memory.from) = (None, None, None, None);
        lines.push(format!(
            "  deleting {} finalizer {} bits {} approval {:?} {memory:?}",
            r.deleting, r.finalizer, r.bits, r.approval
        ));
    }
    if let Some(Ok(d)) = world.decide() {
        let next = format!("  next {:?}", d.plan.next);
        lines.push(if next.len() > 300 { next[..300].to_owned() } else { next });
    }
    lines.join("\n")
}

/// Faults are over; whoever can mend something does. Which of the events that are left comes first.
fn calm(world: &World, decision: Option<&Decision>) -> Option<Event> {
    let rank = |event: &Event| match event {
        Event::Acts => Some(0),
        Event::Heals(_) => Some(1),
        Event::Rolls(_) => Some(2),
        Event::Starts(_) => Some(3),
        Event::Joins(_) | Event::Ends(_) | Event::Notices(_) => Some(4),
        Event::Scales => Some(5),
        Event::Says(_) => Some(6),
        Event::External(_) => Some(7),
        Event::Finishes(_) => Some(8),
        Event::TimePasses => Some(9),
        Event::LateDecides | Event::LateWrites | Event::Fault(_) => None,
    };
    world.events(decision).into_iter().filter_map(|e| Some((rank(&e)?, e))).min().map(|(_, e)| e)
}

/// From here it comes to an end, and the end is a good one. What is known of states on the way is kept.
pub fn ends_well(world: &World, good: &mut HashMap<u128, bool>, found: &mut Found) -> Result<(), String> {
    let mut world = world.clone();
    world.late = None;
    (world.late_left, world.budget) = (0, 0);
    let (mut way, mut told) = (Vec::new(), Vec::new());
    loop {
        let key = world.canonical();
        match good.get(&key) {
            Some(true) => break,
            Some(false) => return Err(format!("it goes round and round\n{}\n{}", lines(&told), picture(&world))),
            None => {}
        }
        good.insert(key, false);
        way.push(key);
        let decision = world.decide().transpose()?;
        let Some(event) = calm(&world, decision.as_ref()) else {
            let end = judged(&world).map_err(|why| format!("it ends badly: {why}\n{}", picture(&world)))?;
            *found.ends.entry(end).or_default() += 1;
            break;
        };
        told.push((world.clone(), event));
        world.happen(event, decision.as_ref())?;
        if way.len() > 2000 {
            return Err(format!("no end within {} events\n{}", way.len(), picture(&world)));
        }
    }
    found.longest = found.longest.max(way.len());
    for key in way {
        good.insert(key, true);
    }
    Ok(())
}

/// The last events of a way.
fn lines(way: &[(World, Event)]) -> String {
    let last = way.iter().rev().take(30).rev().map(|(world, event)| tell(world, *event));
    last.collect::<Vec<_>>().join("\n")
}

/// What is left at the end is what was promised.
fn judged(world: &World) -> Result<String, String> {
    let n = usize::from(world.config.pods);
    let ours = |which: Which| which == Which::Source || world.deployment(which).is_none_or(|d| d.ours);
    let alive = |which: Which| if ours(which) { world.alive(which).count() } else { 0 };
    let need = |ok: bool, what: &str| if ok { Ok(()) } else { Err(what.to_owned()) };
    if world.forced && world.rollout.is_none() {
        return Ok("forced".to_owned());
    }
    need(world.serving() >= n, "too few serve")?;
    need(!world.pods.iter().any(|p| p.of == Of::Apart || p.lost), "a pod is still set apart")?;
    need(!world.pods.iter().any(|p| p.of == Of::Probe), "a probe is left")?;
    let Some(rollout) = &world.rollout else {
        let frozen = world.config.spec(0).on_delete == OnDelete::Freeze;
        need(!world.lock, "the lock is left")?;
        if !frozen && world.deployment(Which::Canary).is_some_and(|d| d.ours) {
            // It was deleted after its end, with the new name kept.
            need(alive(Which::Source) == 0, "both are left")?;
        }
        return Ok("gone".to_owned());
    };
    let memory = &rollout.memory;
    need(!world.lock, "the lock is left")?;
    let hpa = world.hpa.as_ref();
    need(!world.written && hpa.is_none_or(|h| !h.written), "what was written is still recorded as ours")?;
    let active = match memory.phase {
        Phase::Completed => {
            let kept = !world.config.is_in_place()
                && memory.promotion == Some(revguard::api::gateway_rollout::Promotion::KeepRevisioned);
            let active = if kept { Which::Canary } else { Which::Source };
            let all_new = world.alive(active).all(|p| p.rev == Rev::New);
            need(all_new, "old pods are left")?;
            let others = Which::ALL.into_iter().filter(|w| *w != active).map(alive).sum::<usize>();
            need(others == 0, "pods are left elsewhere")?;
            let kept_for = world.is_old_kept() || world.config.is_in_place() && world.from_installed;
            need(world.former.is_none() || kept_for, "what an earlier rollout has copied is left")?;
            need(kept || world.deployment(Which::Canary).is_none_or(|d| !d.ours), "the second Deployment is left")?;
            active
        }
        Phase::RolledBack => {
            let source = world.deployment(Which::Source).ok_or("the gateway is gone")?;
            need(source.rev != Rev::New, "it has the new template")?;
            need(world.alive(Which::Source).all(|p| p.rev != Rev::New), "new pods are left")?;
            need(Which::ALL[1..].iter().all(|w| world.deployment(*w).is_none_or(|d| !d.ours)), "a Deployment is left")?;
            need(world.copy.is_none(), "the mesh configuration is left")?;
            need(!rollout.finalizer, "the finalizer is left")?;
            Which::Source
        }
        other => return Err(format!("in phase {}", other.as_str())),
    };
    if let Some(source) = world.deployment(Which::Source).filter(|_| world.config.is_in_place()) {
        need(!source.paused && !source.paced, "the Deployment is still paused or paced")?;
    }
    if let Some(hpa) = hpa.filter(|_| !world.config.is_manual()) {
        need(hpa.target == active, "the autoscaler scales another")?;
        need(hpa.min == 1, "the autoscaler's bounds were not put back")?;
    }
    let standby = world.deployment(Which::Standby).is_some();
    let keeps = standby || memory.phase == Phase::Completed && world.former.is_some() && !world.is_old_kept();
    need(rollout.finalizer == keeps || rollout.deleting, "the finalizer is there for nothing, or is not")?;
    Ok(memory.phase.as_str().to_owned())
}

/// One way through a world by chance, with everything that may go wrong in it, and then its end.
pub fn walk(config: &Arc<Config>, dice: &mut Dice, events: usize) -> Result<Found, String> {
    let mut world = World::new(config);
    let mut found = Found::default();
    let (mut trace, mut status) = (VecDeque::new(), Told::default());
    for _ in 0..events {
        let told = |trace: &VecDeque<String>, why: String| {
            let trace: Vec<&str> = trace.iter().map(String::as_str).collect();
            format!("{why}\n{}", trace.join("\n"))
        };
        let decision = world.decide().transpose().map_err(|why| told(&trace, why))?;
        if let Some(decision) = &decision {
            found.note(decision);
            if dice.below(4) == 0 {
                status.tell(&world, decision).map_err(|why| told(&trace, why))?;
                status.edit(&world, dice);
            }
        }
        let all = world.events(decision.as_ref());
        // Faults are rare, and leaders are quick.
        let heavy = |event: &Event| match event {
            Event::Acts => 12,
            Event::Fault(_) | Event::LateDecides => 1,
            Event::Heals(_) | Event::Says(_) | Event::External(_) | Event::TimePasses => 3,
            _ => 6,
        };
        let sum: usize = all.iter().map(heavy).sum();
        if sum == 0 {
            break;
        }
        let mut at = dice.below(sum);
        let event = all.into_iter().find(|e| {
            let here = at < heavy(e);
            at = at.saturating_sub(heavy(e));
            here
        });
        let event = event.expect("within the sum");
        trace.push_back(tell(&world, event));
        if trace.len() > 60 {
            trace.pop_front();
        }
        world.happen(event, decision.as_ref()).map_err(|why| told(&trace, why))?;
        found.edges += 1;
    }
    let end = ends_well(&world, &mut HashMap::new(), &mut found);
    end.map_err(|why| format!("{why}\n{}", trace.into_iter().collect::<Vec<_>>().join("\n")))?;
    found.refusals = u64::from(world.refusals);
    found.states = 1;
    Ok(found)
}

/// Numbers by chance from a seed (xorshift), so that a failure can be played again.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).expect("below n")
    }

    pub fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}
