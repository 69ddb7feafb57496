//! What runs: pods counted by the revision that injected them, so that no question walks over all pods.

use super::Snapshot;
use crate::model::{Kind, Str};

impl Snapshot {
    /// How many running pods a revision injected, by namespace and workload.
    pub fn runs(&self, revision: &str) -> impl Iterator<Item = (&Str, &Str, u32)> {
        self.note(Kind::Pod);
        let from = (Str::from(revision), Str::default(), Str::default());
        let revision = revision.to_owned();
        self.runs
            .range(from..)
            .take_while(move |((r, _, _), _)| *r == revision.as_str())
            .map(|((_, ns, w), n)| (ns, w, *n))
    }

    /// The same of every revision, in its order.
    pub fn all_runs(&self) -> impl Iterator<Item = (&Str, &Str, &Str, u32)> {
        self.note(Kind::Pod);
        self.runs.iter().map(|((revision, ns, w), n)| (revision, ns, w, *n))
    }

    /// Running injected pods of a namespace: revision, workload, how many.
    pub fn runs_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a Str, &'a Str, u32)> {
        self.note(Kind::Pod);
        self.runs.iter().filter(move |((_, ns, _), _)| *ns == namespace).map(|((r, _, w), n)| (r, w, *n))
    }
}
