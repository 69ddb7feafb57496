//! A Kubernetes with real nodes and pods, and what tests need to work with it.
//!
//! The tests know a cluster only by its kubeconfig, by kubectl and by Helm, so that they run on the node of this folder as well as on
//! any other that may be thrown away. What takes time is polled with a deadline; nothing is waited for by guess, but for the
//! kernel's Service rules, which nobody can be asked about: see [`guard::Guard::settled`].

pub mod door;
pub mod figures;
pub mod guard;
pub mod load;
pub mod machine;
pub mod programs;

// What the tests on a control plane have, too; each target uses its own part.
#[path = "../../cluster/harness/metrics.rs"]
pub mod metrics;
#[path = "../../cluster/harness/raw.rs"]
#[allow(dead_code)]
pub mod raw;
#[path = "../../cluster/harness/runtime.rs"]
#[allow(dead_code)]
pub mod runtime;
#[path = "../../cluster/harness/wait.rs"]
pub mod wait;
