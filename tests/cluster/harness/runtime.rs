//! The one tokio runtime of this test binary.
//!
//! Tests run on threads of their own and share clients of the shared control plane. A client's
//! connections belong to the runtime that opened them, so a runtime per test would break the next
//! test's connections when it ends.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

/// Four workers, also on two cores: a `Drop` that has to finish asynchronous work holds one of them.
const WORKERS: usize = 4;

/// Started on first use.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().expect("a tokio runtime")
    })
}

/// Runs `work` to its end from a place that cannot await, which in practice is a `Drop`. It goes
/// through a thread of its own, because tokio forbids blocking on a runtime from inside it.
pub fn finish<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        scope.spawn(|| runtime().block_on(work)).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
