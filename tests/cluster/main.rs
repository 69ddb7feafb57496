//! Tests on a real etcd, kube-apiserver and kube-controller-manager. README.md beside this file says
//! how to run and how to debug them.
//!
//! This target has its own `main`, for two reasons. Starting a control plane costs seconds, so tests
//! share one; it lives in a static, statics are never dropped, and something has to end it when the
//! last test is done. And where the programs cannot be had, the tests must say so instead of passing
//! silently: they are reported as ignored, with one loud line at the end, or fail if `CI` is set.
//!
//! Nothing is left behind when this process is killed either: see `harness::process`.

mod audit;
#[path = "../audit_table/mod.rs"]
mod audit_table;
#[path = "../case_table/mod.rs"]
mod case_table;
mod cases;
mod chart;
mod controller;
mod dice;
mod e2e;
mod harness;
mod harness_tests;
mod injection;
mod rollout;
mod shared;
mod trial;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    if let Some(report) = std::env::var_os(harness_tests::ends::HOLD) {
        return harness_tests::ends::hold(report.as_ref());
    }
    let mut arguments = Arguments::from_args();
    // They wait more than they compute: for leases, for soaks, for an API server that is away.
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    arguments.test_threads.get_or_insert((cores + 1).min(8));
    let tests = [
        harness_tests::tests(),
        injection::tests(),
        audit::tests(),
        cases::tests(),
        chart::tests(),
        e2e::tests(),
        controller::tests(),
        rollout::tests(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let conclusion = libtest_mimic::run(&arguments, tests);
    shared::end_shared();
    rollout::end_shared();
    let complete = trial::say_what_did_not_run();
    let failed = conclusion.has_failed();
    harness::rundir::tidy_up(failed);
    if failed || !complete {
        // What libtest ends with.
        ExitCode::from(101)
    } else {
        ExitCode::SUCCESS
    }
}
