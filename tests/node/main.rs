//! Tests on a real Kubernetes node: kubelet, containers, Services, DNS, Helm. README.md beside this file says how to run them.
//!
//! They are not among what `cargo test` runs by itself, because they need root and minutes: `make test-node`.

mod certificates;
mod cold_start;
mod disruption;
mod harness;
mod install;
mod leader;
mod lifecycle;
mod mesh;
mod rollout;
mod trial;
mod walkthrough;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // There is one cluster, and each test changes it.
    arguments.test_threads = Some(1);
    let tests = [
        install::tests(),
        mesh::tests(),
        rollout::tests(),
        disruption::tests(),
        // Its control begins with the pods that the one before it ends with.
        lifecycle::upgrade(),
        certificates::tests(),
        leader::tests(),
        cold_start::tests(),
        lifecycle::uninstall(),
        walkthrough::tests(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let conclusion = libtest_mimic::run(&arguments, tests);
    harness::machine::end();
    let complete = trial::say_what_did_not_run();
    if conclusion.has_failed() || !complete {
        // What libtest ends with.
        ExitCode::from(101)
    } else {
        ExitCode::SUCCESS
    }
}
