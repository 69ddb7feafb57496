//! What a test is here: a function, and what it cannot do without.
//!
//! A test whose needs are not met is reported as ignored with the reason; which ones those were, and how
//! to get them to run, is said once more at the end, where a person looks.

use std::future::Future;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};

use crate::chart::tools::folder;
use crate::harness::runtime::runtime;
use crate::harness::tools::tools;

/// What a test cannot do without.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// etcd, kube-apiserver, kubectl.
    ApiServer,
    /// kube-controller-manager as well, which `KUBEBUILDER_ASSETS` usually lacks.
    Controllers,
    /// An API server, and Helm.
    Helm,
    /// Those, and Prometheus.
    Prometheus,
    /// Controllers, and Prometheus.
    ControllersAndPrometheus,
}

/// A test that takes longer says so: these are what a run waits for.
const LONG: Duration = Duration::from_secs(20);

/// The full lengths are wanted, which take minutes.
pub fn prove() -> bool {
    std::env::var_os("REVGUARD_PROVE").is_some_and(|value| !value.is_empty())
}

/// Names of tests that did not run, and why.
static NOT_RUN: Mutex<Vec<(&'static str, String)>> = Mutex::new(Vec::new());

/// Makes a trial of an `async fn() -> anyhow::Result<()>`, named by its path. A test that is in no list
/// is dead code, which the compiler reports.
macro_rules! trial {
    ($needs:ident, $test:path) => {
        $crate::trial::test(concat!(module_path!(), "::", stringify!($test)), $crate::trial::Needs::$needs, $test)
    };
}
pub(crate) use trial;

pub fn test<W>(path: &'static str, needs: Needs, run: fn() -> W) -> Trial
where
    W: Future<Output = anyhow::Result<()>> + 'static,
{
    // The first part is this target's own name.
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    Trial::ignorable_test(name, move || {
        if let Err(why) = available(needs) {
            NOT_RUN.lock().expect("not run").push((name, why));
            // How to change that is said once, at the end.
            return Ok(Completion::ignored_with("no control plane for it"));
        }
        let began = Instant::now();
        let ended = runtime().block_on(run());
        let took = began.elapsed();
        if took > LONG {
            println!("{name} took {} s", took.as_secs());
        }
        match ended {
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
    if matches!(needs, Needs::Helm | Needs::Prometheus) {
        folder("helm")?;
    }
    if matches!(needs, Needs::Prometheus | Needs::ControllersAndPrometheus) {
        folder("prometheus")?;
    }
    if matches!(needs, Needs::Controllers | Needs::ControllersAndPrometheus) && tools.kube_controller_manager.is_none()
    {
        return Err("put kube-controller-manager into the folder that KUBEBUILDER_ASSETS names, or \
                    unset it and install Go"
            .to_owned());
    }
    Ok(())
}

/// One line for a person, `false` if that is a failure.
pub fn say_what_did_not_run() -> bool {
    let not_run = NOT_RUN.lock().expect("not run");
    let Some((_, why)) = not_run.first() else {
        return true;
    };
    let names: Vec<&str> = not_run.iter().map(|(name, _)| *name).collect();
    eprintln!(
        "\n!!! NOT RUN: {} test(s) on a real control plane ({}). To run them: {why}.\n",
        names.len(),
        names.join(", ")
    );
    std::env::var_os("CI").is_none_or(|value| value.is_empty())
}
