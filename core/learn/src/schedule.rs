//! The learning rate of a step.

use std::f64::consts::PI;

/// The course of the learning rate after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleKind {
    /// The peak, always.
    Constant,
    /// Half a cosine down to the minimum.
    Cosine,
    /// A line down to the minimum.
    Linear,
}

/// A learning rate that depends on the step alone: the formulas of transformers' `get_*_schedule_with_warmup`, with the
/// minimum of its `cosine_with_min_lr` also for a line. After the last step it stays where it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The course.
    pub kind: ScheduleKind,
    /// The rate at the end of the warm-up.
    pub peak: f64,
    /// Steps during which it rises in a line from 0.
    pub warmup: u64,
    /// Steps in all.
    pub total: u64,
    /// The share of the peak at which it ends; a constant schedule has no use for it.
    pub min_ratio: f64,
}

impl Schedule {
    /// The learning rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step as f64 / self.warmup as f64);
        }
        let decaying = self.total.saturating_sub(self.warmup).max(1);
        let progress = (step - self.warmup).min(decaying) as f64 / decaying as f64;
        let share = match self.kind {
            ScheduleKind::Constant => return self.peak,
            ScheduleKind::Cosine => 0.5 * (1.0 + libm::cos(PI * progress)),
            ScheduleKind::Linear => 1.0 - progress,
        };
        self.peak * (share * (1.0 - self.min_ratio) + self.min_ratio)
    }
}
