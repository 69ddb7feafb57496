//! What a plan comes to: something to remember, one write, or what is waited for, and what a person reads of it.

use jiff::Timestamp;

use super::memory::Memory;
use super::step::Step;

/// What a plan comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The status is written first: a phase, a stage, a baseline, a pause.
    Remember(Box<Memory>),
    Do(Step),
    Wait(Waiting),
    /// Nothing will ever be done again.
    Done,
}

/// "Not yet", with its reason and when to look again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// One sentence with names and numbers.
    pub on: String,
    /// Nothing changes before, unless something is written meanwhile; `None`: only a change ends it.
    pub until: Option<Timestamp>,
}

/// What comes next, and what a person reads of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub next: Next,
    /// One word for the column STATE.
    pub state: String,
    /// What is still to be done, one line each.
    pub outline: Vec<String>,
    /// Said once, as Events: reason, note, and whether it is a warning.
    pub events: Vec<(String, String, bool)>,
}
