//! What a rollout's status tells: everything that is remembered, read back as it was, and nothing that a hand in it could make fall over.

use jiff::Timestamp;
use revguard::api::GatewayRolloutStatus;
use revguard::rollout::Next;
use revguard::rollout::plan;
use revguard::rollout::status::{Before, memory, read, status};
use serde_json::{Value, json};

use super::events::Decision;
use super::search::Dice;
use super::world::World;

/// The status of one rollout, as it is written along its way.
#[derive(Default)]
pub struct Told {
    status: GatewayRolloutStatus,
}

impl Told {
    /// Writes what was decided, and reads it back.
    pub fn tell(&mut self, world: &World, decision: &Decision) -> Result<(), String> {
        let Some(seen) = world.seen() else { return Ok(()) };
        let kept = if let Next::Remember(after) = &decision.plan.next { after } else { &*decision.memory };
        let write = |before: &GatewayRolloutStatus, now: Timestamp| {
            status(&seen, kept, &decision.plan, Before { status: before, now })
        };
        let written = write(&self.status, world.now());
        let stored: GatewayRolloutStatus = read(&serde_json::to_value(&written).expect("plain data"));
        if stored != written {
            return Err(format!("the status is not what was written:\n{written:?}\n{stored:?}"));
        }
        let back = memory(&stored);
        if back != *kept {
            return Err(format!("what is remembered is not what was to be:\n{kept:?}\n{back:?}"));
        }
        let later = write(&written, world.now() + jiff::SignedDuration::from_mins(7));
        if later != written {
            return Err("it says something else although nothing has changed".to_owned());
        }
        if written.conditions.len() != 7 || written.state.is_empty() || written.observed_generation == 0 {
            return Err(format!("it lacks something: {written:?}"));
        }
        // One that tries again, and again gives up, says why once.
        let why = written.rollback.as_ref().map_or(0, |back| back.message.matches("it does not get back").count());
        if why > 1 {
            return Err(format!("it says it again and again: {:?}", written.rollback));
        }
        self.status = written;
        Ok(())
    }

    /// Somebody edits it. Whatever comes of it, a plan does.
    pub fn edit(&self, world: &World, dice: &mut Dice) {
        let Some(seen) = world.seen() else { return };
        let mut edited = serde_json::to_value(&self.status).expect("plain data");
        for _ in 0..=dice.below(3) {
            spoil(&mut edited, dice);
        }
        let memory = memory(&read(&edited));
        let plan = plan(&seen, &memory, world.now());
        let _ = status(&seen, &memory, &plan, Before { status: &read(&edited), now: world.now() });
    }
}

/// Puts something else in place of a value somewhere.
fn spoil(value: &mut Value, dice: &mut Dice) {
    let deeper = dice.below(3) > 0;
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let key = map.keys().nth(dice.below(map.len())).expect("one of them").clone();
            if dice.below(4) == 0 {
                map.remove(&key);
            } else {
                spoil(&mut map[&key], dice);
            }
        }
        Value::Array(all) if deeper && !all.is_empty() => {
            let at = dice.below(all.len());
            spoil(&mut all[at], dice);
        }
        _ => {
            *value = dice.one_of(&[
                json!(null),
                json!(""),
                json!("9999-12-30T21:59:59Z"),
                json!("-009999-01-02T01:59:59Z"),
                json!("Superseded"),
                json!("Draining"),
                json!("Promoting"),
                json!("RollingBack"),
                json!(u32::MAX),
                json!(u64::MAX),
                json!(i64::MIN),
                json!(0),
                json!(true),
                json!([]),
                json!({}),
            ]);
        }
    }
}
