//! Child processes that cannot outlive us.
//!
//! Three things end a child: dropping its [`Process`] (also while a panic unwinds), the end of this
//! test process by whatever means (the kernel sends SIGKILL then), and [`Process::terminate`].

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use super::wait::wait_until;

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// The kernel ends a child when the *thread* that started it ends, not the process, and tests run on
/// short-lived threads. So one thread starts all of them; it waits on a sender in a static, which is
/// never dropped, and therefore lives as long as the process.
fn spawner() -> &'static mpsc::Sender<Job> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, reply) in jobs {
                    // A caller that is gone wants no child: dropping the sender's half is fine.
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread that starts processes");
        sender
    })
}

/// Makes the kernel end the child when we end.
#[cfg(target_os = "linux")]
fn die_with_us(command: &mut Command) {
    let us = rustix::process::getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl and getppid, and an
    // error that needs no allocation.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // We may have ended before that line; then the signal never comes.
            if rustix::process::getppid() == Some(us) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        });
    }
}

/// Elsewhere only a drop ends a child; a killed test process leaves its control plane behind.
#[cfg(not(target_os = "linux"))]
fn die_with_us(_: &mut Command) {}

/// A running child in a process group of its own, its output in a file.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both outputs appended to `log`.
    pub fn spawn(name: &str, mut command: Command, log: PathBuf) -> Result<Process> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("the log of {name}, {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C in a terminal goes to the foreground group: the children get theirs from us.
            .process_group(0);
        die_with_us(&mut command);
        let (reply, child) = mpsc::channel();
        spawner().send((command, reply)).context("the thread that starts processes is gone")?;
        let child = child
            .recv()
            .context("the thread that starts processes is gone")?
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Process { name: name.to_owned(), child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// An error with the end of the log if the process has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!(
                "{} ended with {status}; the end of {}:\n{}",
                self.name,
                self.log.display(),
                tail(&self.log)
            ),
        }
    }

    /// Asks the process to end (SIGTERM) and kills it when it has not within `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        let ended = wait_until(limit, "the end of a process", || {
            let status = self.child.try_wait();
            async move {
                match status {
                    Ok(Some(status)) => Ok(status),
                    Ok(None) => Err("it runs".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            }
        })
        .await;
        match ended {
            Ok(status) => Ok(status),
            Err(_) => self.kill(),
        }
    }

    /// Waits until the process ends by itself.
    pub async fn end(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait_until(limit, "the end of a process", || {
            let status = self.child.try_wait();
            async move { status.map_err(|error| error.to_string())?.ok_or_else(|| "it runs".to_owned()) }
        })
        .await
    }

    /// SIGKILL to the whole group, and waits for the end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL);
        Ok(self.child.wait()?)
    }

    /// Sends a signal to the process and its children.
    pub fn signal(&mut self, signal: Signal) {
        // After `try_wait` or `wait` has seen the end, the number may belong to somebody else.
        if matches!(self.child.try_wait(), Ok(None)) {
            let group = Pid::from_child(&self.child);
            // The only error left is that it has ended in between, which is what we want.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The last lines of a log, for an error message.
pub fn tail(log: &Path) -> String {
    /// About twenty lines of a Kubernetes component.
    const BYTES: u64 = 4096;
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let start = file.metadata()?.len().saturating_sub(BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| format!("(unreadable: {error})"))
}
