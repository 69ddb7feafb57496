//! revguard guards Istio upgrades on Kubernetes.
//!
//! Modules stand in layer order; a module uses only those above it in this list. Below the
//! marked line nothing does I/O, reads a clock, rolls dice or logs: `judge` and everything it
//! calls are functions of their arguments, so that the webhook, the offline check, the tests and
//! the benches run the same code.

// Where the reader of a pipe has gone, these panic: src/cli has what does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

// 0: the mesh in the words of the field
pub mod model;
// 1: the one reader
pub mod wire;
// 1: our own custom resources
pub mod api;
// 2: one immutable, joined view
pub mod snapshot;
// 3: decisions
pub mod rules;
// 3: what exists, judged as a whole: findings, repairs, reports, who uses which revision
pub mod audit;
// 3: gateway rollouts: the one next step, and what none may break
pub mod rollout;
// ---- the line ----
// 4: HTTP and TLS, kube watches and writes, metrics.
pub mod admission;
pub mod cluster;
pub mod telemetry;
// 4: carries out what was decided below: leases, certificates, repairs, reports
pub mod controller;
// 5: wiring and supervision, the only place that spawns
pub mod run;
// 6: arguments, subcommands, exit codes
pub mod cli;
