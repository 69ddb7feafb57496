//! revguard guards Istio upgrades on Kubernetes.
//!
//! Modules stand in layer order; a module uses only those above it in this list. Below the
//! marked line nothing does I/O, reads a clock, rolls dice or logs: `judge` and everything it
//! calls are functions of their arguments, so that the webhook, the offline check, the tests and
//! the benches run the same code.

// 4: HTTP and TLS, kube watches and writes, metrics.
pub mod admission;
pub mod telemetry;
