//! How old the view of a kind is, and which kinds a decision has looked at.
//!
//! Both are data of a snapshot, not a clock: whoever judges brings the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

use super::Snapshot;
use crate::model::Kind;

/// When the source that was silent longest of each kind was last heard of. What is refused, or not installed, or was read
/// from manifests has no age.
pub type Heard = Arc<BTreeMap<Kind, Timestamp>>;

/// The kinds that were asked about. One decision has one of these, so the order of its bits' coming is nobody's business.
#[derive(Debug, Default)]
pub struct Reads(AtomicU64);

const _: () = assert!(Kind::COUNT <= 64, "one bit a kind");

impl Reads {
    pub(super) fn note(&self, kind: Kind) {
        self.0.fetch_or(1 << kind.index(), Ordering::Relaxed);
    }

    /// Begins anew, and gives what was read until now.
    pub fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Snapshot {
    /// The same view with its ages.
    #[must_use]
    pub fn heard_at(mut self, heard: Heard) -> Snapshot {
        self.heard = heard;
        self
    }

    /// The same view; the second half tells what is read through the first, and through what is made from it.
    pub fn traced(&self) -> (Snapshot, Arc<Reads>) {
        let reads = Arc::new(Reads::default());
        let mut traced = self.clone();
        traced.reads = Some(Arc::clone(&reads));
        (traced, reads)
    }

    /// Of these kinds the one that was silent longest, and since when.
    pub fn oldest(&self, kinds: u64) -> Option<(Kind, Timestamp)> {
        let read = self.heard.iter().filter(|(kind, _)| kinds & (1 << kind.index()) != 0);
        read.min_by_key(|(_, at)| **at).map(|(kind, at)| (*kind, *at))
    }
}
