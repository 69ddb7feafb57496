//! How many files and connections the process may have open: as many as the system lets it.
//!
//! Container runtimes start processes with a soft limit of 1,024, which is for programs that use `select`; ours does not, and
//! a large mesh takes more. Without room every watch beyond it fails, and so does every call of the API server.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files, sockets and pipes of the process beside its connections: logs, certificates, listeners, the runtime, requests of the
/// controller to pods.
const BESIDE: u64 = 200;

/// Raises the limit to the highest that is allowed, and says so in the log if that is too few for so many connections.
pub fn raise(connections: usize) {
    let needed = connections as u64 + BESIDE;
    let limit = getrlimit(Resource::Nofile);
    let highest = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, highest) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            limit.current
        }
    };
    if let Some(files) = now.filter(|files| *files < needed) {
        tracing::warn!(
            files,
            needed,
            "the limit of open files is too low for the largest mesh and every connection at once: raise it in the container \
             runtime (LimitNOFILE of containerd, --default-ulimit of dockerd)"
        );
    }
}
