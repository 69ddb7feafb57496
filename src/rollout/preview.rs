//! What a rollout would do, for whoever asks before it begins.

use jiff::Timestamp;

use super::look::Look;
use super::memory::Memory;
use super::outline::outline;
use super::phases::before::decide;
use super::seen::Seen;
use crate::api::gateway_rollout::{DrainMode, Promotion};

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// What `Auto` comes to; `None` in place.
    pub promotion: Option<Promotion>,
    /// How old pods leave; `None` in place.
    pub drain: Option<DrainMode>,
    /// What is to be done, one line each.
    pub outline: Vec<String>,
}

/// As a rollout would decide it that began now.
pub fn preview(seen: &Seen, now: Timestamp) -> Preview {
    let mut memory = Memory::default();
    decide(&Look::new(seen, &Memory::default(), now), &mut memory);
    let outline = outline(&Look::new(seen, &memory, now));
    Preview { promotion: memory.promotion, drain: memory.drain.map(|(mode, _)| mode), outline }
}
