//! The folder of one running control plane: certificates, sockets, logs, etcd's data.
//!
//! Folders stand under cargo's `target/tmp`. They stay until all tests have run, because only then is
//! it known whether somebody wants to read their logs: [`tidy_up`] removes them, or prints where they
//! are when a test has failed or `CLUSTER_KEEP` is set. A test process that was killed cannot tidy up:
//! the next one that starts does it, knowing the dead by their free lock.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

/// Kept logs are of no use to anybody after this.
const KEPT_FOR: Duration = Duration::from_secs(3 * 24 * 3600);

const KEPT: &str = "kept";
const LOCK: &str = "lock";

/// Folders whose control planes have ended, with their locks.
static ENDED: Mutex<Vec<(PathBuf, File)>> = Mutex::new(Vec::new());

/// Called once, when everything has ended.
pub fn tidy_up(failed: bool) {
    let wanted = std::env::var_os("CLUSTER_KEEP").is_some_and(|value| !value.is_empty());
    for (path, lock) in ENDED.lock().expect("ended folders").drain(..) {
        if failed || wanted {
            let _ = File::create(path.join(KEPT));
            eprintln!("cluster: logs of a control plane are kept in {}", path.display());
        } else {
            let _ = fs::remove_dir_all(&path);
        }
        drop(lock);
    }
}

/// An owned folder; see the module.
pub struct RunDir {
    path: PathBuf,
    /// Held as long as we live; nobody writes to it. Taken out by the drop.
    lock: Option<File>,
}

impl RunDir {
    pub fn create() -> Result<RunDir> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster");
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        // One at a time, so that nobody sweeps a folder that is made but not locked yet.
        let gate = File::create(root.join(LOCK))?;
        gate.lock()?;
        sweep(&root);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{}-{number}", std::process::id()));
        // A kept folder of a process that had our number.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path)?;
        let lock = File::create(path.join(LOCK))?;
        lock.lock()?;
        Ok(RunDir { path, lock: Some(lock) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // A hundred megabytes of nothing to read.
        let _ = fs::remove_dir_all(self.path.join("etcd"));
        if let (Some(lock), Ok(mut ended)) = (self.lock.take(), ENDED.lock()) {
            ended.push((std::mem::take(&mut self.path), lock));
        }
    }
}

/// Removes what dead owners left. Errors are nobody's loss: the next start tries again.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(lock) = File::open(path.join(LOCK)) else {
            continue;
        };
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            continue;
        }
        let fresh = fs::metadata(path.join(KEPT))
            .and_then(|kept| kept.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age < KEPT_FOR));
        if !fresh {
            let _ = fs::remove_dir_all(&path);
        }
    }
}
