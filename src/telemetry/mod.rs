//! What operators and probes see of a running process: metrics and health.
//!
//! Both are plain shared values that any task above the line may write to. Nothing here serves
//! HTTP (the probe port is `admission::probes`) and nothing here decides: a metric or a health
//! condition never changes a verdict.

mod def;
pub mod health;
mod labels;
pub mod mesh;
pub mod metrics;
mod register;
mod rollout_table;
pub mod rollouts;
pub mod table;
pub mod tally;

pub use health::{Condition, Health, Heartbeat, Pulse};
pub use metrics::Metrics;
