//! What a person accepts who lets a rollout go on that was held: what is there by now is what it goes on from.

use std::sync::Arc;

use jiff::SignedDuration;

use super::look::Look;
use super::memory::{Cause, Memory};
use super::{baseline, steps};
use crate::api::gateway_rollout::DrainMode;
use crate::api::rollout_status::{Phase, Stage};

impl Look<'_> {
    /// What a person accepts who lets it go on.
    pub fn accept(&self, cause: Cause, m: &mut Memory) {
        match cause {
            Cause::DeadlineExceeded => {
                (m.since, m.paused_for) = (Some(self.now), SignedDuration::ZERO);
                // The batch that could not leave is chosen anew.
                m.batch = None;
            }
            Cause::MetricFailed => {
                if let Some(step) = &mut m.step {
                    step.measured.clear();
                }
            }
            // A template of the new revision is no way back, whoever says so.
            Cause::SourceDrift => {
                if let (Some(source), Some(baseline), false) = (&self.seen.source, &m.baseline, self.is_source_new()) {
                    m.baseline = Some(Arc::new(baseline::refreshed(baseline, source)));
                }
            }
            Cause::ServiceChanged => {
                if let Some(baseline) = &mut m.baseline {
                    Arc::make_mut(baseline).services = baseline::services(self);
                }
            }
            Cause::FieldContested => {
                let drain = m.drain.as_ref();
                if self.seen.apart_key.is_err() && drain.is_some_and(|d| d.0 == DrainMode::SetApart) {
                    m.drain = Some((DrainMode::Terminate, None));
                }
                m.batch = None;
                if m.phase == Phase::Draining && self.is_autoscaler_elsewhere().is_some() {
                    m.phase = Phase::HandingOver;
                }
                if let Some(step) = &mut m.step {
                    let last = self.spec().strategy.steps.len().saturating_sub(1);
                    step.index = step.index.min(last);
                    let hash = steps::written(steps::prefix_hash(&self.spec().strategy.steps, step.index));
                    if step.hash != hash {
                        // It may be another step by now, and nothing that was seen of the one before counts for it.
                        (step.hash, step.stage, step.soak_until) = (hash, Stage::Scaling, None);
                        step.measured.clear();
                    }
                }
            }
            _ => {}
        }
    }
}
