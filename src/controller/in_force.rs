//! Whether the admission policy over webhook configurations is really in force: what it must refuse is tried, in a dry run.
//!
//! Without its binding, without the definition of its parameters, or in an API server that has not understood it, a policy
//! looks as if it guarded and refuses nothing. This asks one API server, the one that the connection leads to, and mends
//! nothing.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::names::Names;
use super::resource::{At, VALIDATING};
use super::write::{Change, Held, Manager, Write, WriteError, Writer};
use crate::model::key;
use crate::telemetry::Heartbeat;
use crate::telemetry::metrics::Loop;

/// Between two looks at whether this replica leads.
const LOOK: Duration = Duration::from_secs(1);
/// It is asked again this much sooner while it is not in force.
const SOONER: u32 = 6;

/// What is known of the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InForce {
    /// Not asked yet.
    #[default]
    NotYet,
    Yes,
    No,
    /// It cannot be asked.
    Unknown,
}

/// Asks every so often.
pub struct Trials {
    writer: Writer,
    names: Names,
    every: Duration,
    said: watch::Sender<InForce>,
}

impl Trials {
    pub fn new(writer: Writer, names: Names, every: Duration) -> (Trials, watch::Receiver<InForce>) {
        let (said, heard) = watch::channel(InForce::default());
        (Trials { writer, names, every, said }, heard)
    }

    /// Asks for as long as the process lives, whenever this replica leads. That the policy is not in force is believed when it
    /// was so for a whole interval: an API server that has just begun, or has just heard of our kinds, takes half a minute.
    pub async fn run(self, heartbeat: Heartbeat) {
        let mut silent: Option<Instant> = None;
        loop {
            heartbeat.beat();
            if self.writer.leadership().remaining().is_none() {
                silent = None;
                self.say(InForce::NotYet);
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let heard = self.ask().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "the admission policy was not asked");
                InForce::Unknown
            });
            if heard != InForce::No {
                silent = None;
                self.say(heard);
            } else if silent.get_or_insert_with(Instant::now).elapsed() >= self.every {
                self.say(heard);
            }
            tokio::time::sleep(if heard == InForce::Yes { self.every } else { self.every / SOONER }).await;
        }
    }

    fn say(&self, now: InForce) {
        let before = self.said.send_replace(now);
        self.writer.metrics().mesh.in_force(match now {
            InForce::Yes => Some(true),
            InForce::No => Some(false),
            InForce::NotYet | InForce::Unknown => None,
        });
        if now == InForce::No && before != now {
            tracing::warn!(
                "the admission policy over webhook configurations refuses nothing; docs/runbook.md says what to look at"
            );
        }
    }

    /// Tries to annotate our own webhook configuration so that the policy must refuse it.
    async fn ask(&self) -> Result<InForce, WriteError> {
        let at = At::of(&VALIDATING, "", &self.names.release);
        let Some(own) = self.writer.read(&at).await? else { return Ok(InForce::Unknown) };
        let object = json!({"metadata": {"annotations": {key::REFUSE: "is it refused?"}}});
        let held = Some(Held::of(&own).any_version());
        let change = Change::Apply { object, manager: Manager::Controller, held };
        match self.writer.dry_run(&Write { boundary: "in-force", by: Loop::Guard, at, change }).await {
            Ok(_) => Ok(InForce::No),
            Err(WriteError::Refused { message, .. }) if message.contains(&format!("'{}'", self.names.policy())) => {
                Ok(InForce::Yes)
            }
            Err(error) => Err(error),
        }
    }
}
