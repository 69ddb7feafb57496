//! Tests on a real etcd, kube-apiserver and kube-controller-manager. README.md beside this file says
//! how to run and how to debug them.
//!
//! This target has its own `main`, for two reasons. Starting a control plane costs seconds, so tests
//! share one; it lives in a static, statics are never dropped, and something has to end it when the
//! last test is done. And where the programs cannot be had, the tests must say so instead of passing
//! silently: they are reported as ignored, with one loud line at the end, or fail if `CI` is set.
//!
//! Nothing is left behind when this process is killed either: see `harness::process`.

mod harness;
mod harness_tests;
mod injection;
mod shared;

use std::future::Future;
use std::process::ExitCode;
use std::sync::Mutex;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use harness::runtime::runtime;
use harness::tools::tools;

/// What a test cannot do without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// etcd, kube-apiserver, kubectl.
    ApiServer,
    /// kube-controller-manager as well, which `KUBEBUILDER_ASSETS` usually lacks.
    Controllers,
}

fn tests() -> Vec<Trial> {
    use Needs::{ApiServer, Controllers, Nothing};
    use {harness_tests as h, injection as i};
    vec![
        test(
            "harness::waiting_names_what_was_seen_last",
            Nothing,
            h::waiting_names_what_was_seen_last,
        ),
        test(
            "harness::metrics_are_summed_by_label",
            Nothing,
            h::metrics_are_summed_by_label,
        ),
        test(
            "harness::balancer_passes_over_a_dead_backend",
            Nothing,
            h::balancer::passes_over_a_dead_backend,
        ),
        test(
            "harness::without_tools_it_says_so",
            Nothing,
            h::ends::without_tools_it_says_so,
        ),
        test(
            "harness::a_killed_test_leaves_nothing",
            ApiServer,
            h::ends::a_killed_test_leaves_nothing,
        ),
        test("harness::two_side_by_side", ApiServer, h::two_side_by_side),
        test(
            "harness::apiserver_restarts_on_its_port",
            Controllers,
            h::apiserver_restarts_on_its_port,
        ),
        test(
            "harness::users_have_their_own_permissions",
            ApiServer,
            h::users_have_their_own_permissions,
        ),
        test(
            "harness::audit_log_and_metrics_show_a_request",
            ApiServer,
            h::audit_log_and_metrics_show_a_request,
        ),
        test(
            "harness::objects_come_and_go",
            ApiServer,
            h::objects_come_and_go,
        ),
        test(
            "harness::webhooks_are_used_and_unused",
            ApiServer,
            h::webhooks_are_used_and_unused,
        ),
        test(
            "injection::api_server_calls_what_the_closed_form_says",
            ApiServer,
            i::api_server_calls_what_the_closed_form_says,
        ),
    ]
}

/// Names of tests that did not run, and why.
static NOT_RUN: Mutex<Vec<(&'static str, String)>> = Mutex::new(Vec::new());

fn test<W>(name: &'static str, needs: Needs, run: fn() -> W) -> Trial
where
    W: Future<Output = anyhow::Result<()>> + 'static,
{
    Trial::ignorable_test(name, move || {
        if let Err(why) = available(needs) {
            NOT_RUN.lock().expect("not run").push((name, why.clone()));
            return Ok(Completion::ignored_with(why));
        }
        match runtime().block_on(run()) {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => Err(Failed::from(format!("{error:?}"))),
        }
    })
}

fn available(needs: Needs) -> Result<(), String> {
    if needs == Needs::Nothing {
        return Ok(());
    }
    let tools = tools().map_err(|missing| missing.0)?;
    if needs == Needs::Controllers && tools.kube_controller_manager.is_none() {
        return Err(
            "put kube-controller-manager into the folder that KUBEBUILDER_ASSETS names, or \
                    unset it and install Go"
                .to_owned(),
        );
    }
    Ok(())
}

/// One line for a person, `false` if that is a failure.
fn say_what_did_not_run() -> bool {
    let not_run = NOT_RUN.lock().expect("not run");
    let Some((_, why)) = not_run.first() else {
        return true;
    };
    let names: Vec<&str> = not_run.iter().map(|(name, _)| *name).collect();
    eprintln!(
        "\n!!! NOT RUN: {} tests on a real control plane ({}). To run them: {why}.\n",
        names.len(),
        names.join(", ")
    );
    std::env::var_os("CI").is_none_or(|value| value.is_empty())
}

fn main() -> ExitCode {
    if let Some(report) = std::env::var_os(harness_tests::ends::HOLD) {
        return harness_tests::ends::hold(report.as_ref());
    }
    let arguments = Arguments::from_args();
    let conclusion = libtest_mimic::run(&arguments, tests());
    shared::end_shared();
    let complete = say_what_did_not_run();
    let failed = conclusion.has_failed();
    harness::rundir::tidy_up(failed);
    if failed || !complete {
        // What libtest ends with.
        ExitCode::from(101)
    } else {
        ExitCode::SUCCESS
    }
}
