//! The chart, its alerts and its dashboard: rendered by the real Helm, read by the real promtool, and compared with what the
//! binary says of itself.
//!
//! Helm and promtool are built from pinned Go modules when they are first needed. Where there is no Go the tests are reported as
//! ignored, with one loud line at the end, or fail if `CI` is set.

mod alerts;
mod dashboard;
mod meaning;
mod metrics;
mod pages;
mod panels;
mod render;
mod tools;
mod values;

use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// Names of tests that did not run, and why.
static NOT_RUN: Mutex<Vec<(&'static str, String)>> = Mutex::new(Vec::new());

/// A test, and the programs that it needs.
fn test(name: &'static str, needs: &'static [&'static str], run: fn() -> Result<()>) -> Trial {
    Trial::ignorable_test(name, move || {
        if let Some(why) = needs.iter().find_map(|component| tools::folder(component).err()) {
            NOT_RUN.lock().expect("not run").push((name, why));
            return Ok(Completion::ignored_with("its programs are not here"));
        }
        run().map(|()| Completion::Completed).map_err(|error| Failed::from(format!("{error:?}")))
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let tests = [meaning::tests(), values::tests(), alerts::tests(), dashboard::tests(), pages::tests()];
    let conclusion = libtest_mimic::run(&arguments, tests.into_iter().flatten().collect());
    let not_run = NOT_RUN.lock().expect("not run");
    if let Some((_, why)) = not_run.first() {
        let names: Vec<&str> = not_run.iter().map(|(name, _)| *name).collect();
        eprintln!("\n!!! NOT RUN: {} test(s) of the chart ({}): {why}.\n", names.len(), names.join(", "));
    }
    let must = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    if conclusion.has_failed() || must && !not_run.is_empty() { ExitCode::from(101) } else { ExitCode::SUCCESS }
}
