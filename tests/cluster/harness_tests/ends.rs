//! What happens when a test process is killed, and when there is nothing to test with. Both are asked
//! of a second process of this very program.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::process::Process;
use crate::harness::rundir::RunDir;
use crate::harness::runtime::runtime;
use crate::harness::wait::wait_until;
use crate::harness::{ControlPlane, Options};

/// Set for the second process: start a control plane, write what runs into this file, and wait.
pub const HOLD: &str = "CLUSTER_TEST_HOLD";

/// The second process. It ends by being killed.
pub fn hold(report: &Path) -> ExitCode {
    let plane = runtime().block_on(ControlPlane::start(Options::default()));
    let plane = plane.expect("a control plane to hold");
    let pids: Vec<String> = runtime().block_on(plane.pids()).iter().map(u32::to_string).collect();
    let folder = plane.folder();
    // By renaming, so that nobody reads half of it.
    let part = report.with_extension("part");
    std::fs::write(&part, format!("{}\n{}", folder.display(), pids.join(" "))).expect("a report");
    std::fs::rename(part, report).expect("a report");
    loop {
        std::thread::park();
    }
}

/// Whether a process runs. One that has ended but that nobody has waited for does not.
pub fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // `PID (NAME) STATE …`, and the name may hold anything.
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, Some('Z' | 'X'))
}

pub async fn a_killed_test_leaves_nothing() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let report = scratch.path().join("report");
    let mut command = Command::new(std::env::current_exe()?);
    command.env(HOLD, &report);
    let mut process = Process::spawn("held", command, scratch.path().join("log"))?;
    let limit = Duration::from_secs(90);
    let text = wait_until(limit, "a control plane of another process", || {
        let read = process
            .check()
            .map_err(|error| format!("{error:#}"))
            .and_then(|()| std::fs::read_to_string(&report).map_err(|error| error.to_string()));
        std::future::ready(read)
    })
    .await?;
    let (folder, pids) = text.split_once('\n').context("a folder and pids")?;
    let pids: Vec<u32> = pids.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    ensure!(pids.iter().all(|&pid| runs(pid)), "{pids:?} do not run");

    ensure!(Path::new(folder).exists(), "{folder} is not its folder");

    // SIGKILL: no code of that process runs any more. Its children are in groups of their own, so it
    // is not this signal that reaches them.
    process.kill()?;
    wait_until(Duration::from_secs(10), "the end of its children", || {
        let left: Vec<&u32> = pids.iter().filter(|&&pid| runs(pid)).collect();
        std::future::ready(if left.is_empty() { Ok(()) } else { Err(format!("{left:?} run")) })
    })
    .await?;
    // The next control plane tidies up behind it.
    drop(RunDir::create()?);
    ensure!(!Path::new(folder).exists(), "{folder} is still there");
    Ok(())
}

/// The one test that needs a control plane and is quick to name.
const SAMPLE: &str = "harness_tests::two_side_by_side";

pub async fn without_tools_it_says_so() -> Result<()> {
    // A machine with a shell and without Go.
    let path = tempfile::tempdir()?;
    std::os::unix::fs::symlink(find("bash")?, path.path().join("bash"))?;
    let run = |assets: &str, ci: &str| {
        Command::new(std::env::current_exe()?)
            .args(["--exact", SAMPLE])
            .env("PATH", path.path())
            .env("KUBEBUILDER_ASSETS", assets)
            .env("CI", ci)
            .stdin(Stdio::null())
            .output()
    };
    let alone = run("", "")?;
    let text = String::from_utf8_lossy(&alone.stderr);
    ensure!(alone.status.success(), "it must pass: {text}");
    let line = text.lines().find(|line| line.starts_with("!!! NOT RUN")).context("no loud line")?;
    for part in [SAMPLE, "Go 1.26", "KUBEBUILDER_ASSETS"] {
        ensure!(line.contains(part), "no {part} in: {line}");
    }
    ensure!(!run("", "true")?.status.success(), "with CI it must fail");
    // A folder that was named and is wrong is a mistake, not an absence.
    let wrong = path.path().to_str().context("a path")?;
    ensure!(!run(wrong, "")?.status.success(), "wrong assets must fail");
    Ok(())
}

fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(program));
    found.into_iter().find(|file| file.is_file()).with_context(|| format!("no {program}"))
}
