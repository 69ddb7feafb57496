//! What a test is here: a function, and what it cannot do without. Tests run one after another, in the order of their list.

use std::future::Future;
use std::sync::Mutex;
use std::time::Instant;

use libtest_mimic::{Completion, Failed, Trial};

use crate::harness::machine::{Machine, NotThere, machine};
use crate::harness::runtime::runtime;

/// What a test cannot do without.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Any cluster that may be thrown away.
    Cluster,
    /// One that can lose power.
    Switch,
}

/// The full lengths are wanted, which take many minutes.
pub fn prove() -> bool {
    std::env::var_os("REVGUARD_PROVE").is_some_and(|value| !value.is_empty())
}

/// Names of tests that did not run, and what they lack.
static NOT_RUN: Mutex<Vec<(&'static str, String)>> = Mutex::new(Vec::new());

/// Makes a trial of an `async fn(&'static Machine) -> anyhow::Result<()>`, named by its path.
macro_rules! trial {
    ($needs:ident, $test:path) => {
        $crate::trial::test(concat!(module_path!(), "::", stringify!($test)), $crate::trial::Needs::$needs, $test)
    };
}
pub(crate) use trial;

pub fn test<W>(path: &'static str, needs: Needs, run: fn(&'static Machine) -> W) -> Trial
where
    W: Future<Output = anyhow::Result<()>> + 'static,
{
    // The first part is this target's own name.
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    Trial::ignorable_test(name, move || {
        let lacks = match machine() {
            Ok(machine) => match machine.no_switch().filter(|_| needs == Needs::Switch) {
                None => {
                    let began = Instant::now();
                    let ended = runtime().block_on(run(machine));
                    println!("{name} took {} s", began.elapsed().as_secs());
                    return match ended {
                        Ok(()) => Ok(Completion::Completed),
                        Err(error) => Err(Failed::from(format!("{error:#}"))),
                    };
                }
                Some(lacks) => lacks,
            },
            Err(NotThere::Lacks(lacks)) => lacks,
            Err(NotThere::Broken(error)) => return Err(Failed::from(error)),
        };
        NOT_RUN.lock().expect("not run").push((name, lacks));
        // What to do about it is said once, at the end.
        Ok(Completion::ignored_with("no node for it"))
    })
}

/// One line for a person, `false` if that is a failure.
pub fn say_what_did_not_run() -> bool {
    let not_run = NOT_RUN.lock().expect("not run");
    let Some((_, lacks)) = not_run.first() else {
        return true;
    };
    let names: Vec<&str> = not_run.iter().map(|(name, _)| *name).collect();
    eprintln!("\n!!! NOT RUN: {} test(s) on a real node ({}). They need: {lacks}.\n", names.len(), names.join(", "));
    std::env::var_os("CI").is_none_or(|value| value.is_empty())
}
