//! The table of transitions that a rollout has, and what of it was never taken.
//!
//! A search notes `Phase>Phase`, `Phase:Stage>Stage` (with ` next` where the step changes), `Phase+Cause` and `Phase-Cause` for a pause that begins and
//! ends, `Phase<Reason` for a turn back, `Phase!step` for a write, and `Phase~Word` for what is waited for.

use std::collections::BTreeSet;

use revguard::rollout::memory::{Cause, Reason};

/// The number in the design, and what shows that it was taken: all of these.
const TABLE: [(&str, &[&str]); 27] = [
    ("T2 planned only", &["Pending>Planned", "Planned>Pending"]),
    ("T3 its turn", &["Pending>Preflight"]),
    ("T4 held by preflight, and on when it is mended", &["Preflight~PreflightFailed", "Preflight>Preparing"]),
    ("T5 written down, locked and held", &["Preflight>Preparing", "Preparing!hold", "Preparing!lock"]),
    (
        "T6 prepared",
        &["Preparing!copy-config", "Preparing!create-canary", "Preparing>Probing", "Preparing>Progressing"],
    ),
    ("T7 proven", &["Probing!create-probe", "Probing>Progressing", "Progressing!drop-probe"]),
    ("T8 not proven", &["Probing<ProbeFailed", "Probing>RollingBack"]),
    ("T9 scaled", &["Progressing!scale", "Progressing:Scaling>Verifying"]),
    ("T10 verified", &["Progressing:Verifying>Soaking"]),
    ("T11 watched", &["Progressing:Soaking>Scaling next", "Progressing:Soaking>AwaitingApproval"]),
    ("T12 approved", &["Progressing:AwaitingApproval>Scaling next"]),
    ("T13 handed over", &["Progressing>HandingOver", "HandingOver!autoscale"]),
    ("T14 drained from here", &["HandingOver>Draining"]),
    ("T15 batches", &["Draining!pin", "Draining!set-apart", "Draining!scale", "Draining!drop-apart"]),
    (
        "T16 steps beyond a half",
        &["Draining:Scaling>Verifying", "Draining:Verifying>Soaking", "Draining:Soaking>Scaling next"],
    ),
    (
        "T17 promoted",
        &["Draining>Promoting", "Promoting!create-standby", "Promoting!retemplate", "Promoting~AwaitingExternal"],
    ),
    ("T18 kept as it is called", &["Draining>Finalizing"]),
    ("T19 the original took over", &["Promoting!set-apart", "Promoting!drop-deployment", "Promoting>Finalizing"]),
    (
        "T20 completed",
        &[
            "Finalizing!relabel",
            "Finalizing!autoscale",
            "Finalizing>Completed",
            "Completed!unlock",
            "Completed!release",
        ],
    ),
    (
        "T21 paused, T22 and on",
        &["Draining+User", "Draining-User", "Progressing+DeadlineExceeded", "Progressing-DeadlineExceeded"],
    ),
    (
        "T23 back from everywhere",
        &[
            "Preparing>RollingBack",
            "Probing>RollingBack",
            "Progressing>RollingBack",
            "HandingOver>RollingBack",
            "Draining>RollingBack",
            "Promoting>RollingBack",
            "Finalizing>RollingBack",
            "RollingBack+ControlPlaneNotReady",
        ],
    ),
    (
        "T24 back",
        &["RollingBack!drop-deployment", "RollingBack!drop-config", "RollingBack>RolledBack", "RolledBack!release"],
    ),
    ("T25 stuck on the way back", &["RollingBack>Failed", "Failed>RollingBack"]),
    ("T26 back after the end", &["Completed>RollingBack", "RollingBack!retemplate"]),
    ("T27 no way back any more", &["Completed!drop-deployment", "Completed!drop-config", "Completed!drop-rollout"]),
    (
        "in place",
        &[
            "Preparing!pace",
            "Progressing!retemplate",
            "Progressing!pace",
            "Progressing>Finalizing",
            "Finalizing!pace",
            "RollingBack!pace",
        ],
    ),
    ("begun again", &["RollingBack>Preflight", "Pending>RolledBack", "Preflight>Planned", "Draining>HandingOver"]),
];

/// What of the table, of the causes of a pause and of the reasons to go back was never seen.
pub fn missed(seen: &BTreeSet<String>) -> Vec<String> {
    let mut missed = Vec::new();
    for (name, all) in TABLE {
        let lacking: Vec<&str> = all.iter().copied().filter(|t| !seen.contains(*t)).collect();
        if !lacking.is_empty() {
            missed.push(format!("{name}: {}", lacking.join(", ")));
        }
    }
    let ends = |mark: char, word: &str| seen.iter().any(|t| t.rsplit_once(mark).is_some_and(|(_, w)| w == word));
    for cause in Cause::ALL {
        for mark in ['+', '-'] {
            if !ends(mark, cause.as_str()) {
                missed.push(format!("pause {mark}{}", cause.as_str()));
            }
        }
    }
    missed
        .extend(Reason::ALL.into_iter().filter(|r| !ends('<', r.as_str())).map(|r| format!("back for {}", r.as_str())));
    missed
}
