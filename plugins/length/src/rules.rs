//! The rules themselves.

use std::f64::consts::PI;

/// The cosine-scaled reward of "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv 2502.03373), with the defaults
/// of open-r1 and TRL: a right answer is worth more when it is short, a wrong one costs less when it is long.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cosine {
    min_value_wrong: f64,
    max_value_wrong: f64,
    min_value_correct: f64,
    max_value_correct: f64,
}

impl Default for Cosine {
    fn default() -> Self {
        Self { min_value_wrong: -1.0, max_value_wrong: -0.5, min_value_correct: 0.5, max_value_correct: 1.0 }
    }
}

impl Cosine {
    /// The reward at a length. Beyond `max_length` it stays: the cosine would climb again.
    pub fn reward(&self, length: f64, max_length: f64, is_right: bool) -> f64 {
        let progress = if max_length > 0.0 { (length / max_length).min(1.0) } else { 1.0 };
        let (at_the_end, at_the_beginning) = if is_right {
            (self.min_value_correct, self.max_value_correct)
        } else {
            (self.max_value_wrong, self.min_value_wrong)
        };
        at_the_end + 0.5 * (at_the_beginning - at_the_end) * (1.0 + (progress * PI).cos())
    }
}

/// The length reward of Kimi k1.5 (arXiv 2501.12599, section 2.3.3): from 0.5 for the shortest of the group to -0.5 for the
/// longest, and never above 0 for a wrong answer; 0 if all have the same length.
pub fn relative(length: f64, shortest: f64, longest: f64, is_right: bool) -> f64 {
    if longest <= shortest {
        return 0.0;
    }
    let reward = 0.5 - (length - shortest) / (longest - shortest);
    if is_right { reward } else { reward.min(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_give_what_their_papers_say() {
        let cosine = |length, is_right| Cosine::default().reward(length, 100.0, is_right);
        for (length, right) in [(0.0, 1.0), (50.0, 0.75), (100.0, 0.5), (200.0, 0.5)] {
            assert!((cosine(length, true) - right).abs() < 1e-12 && (cosine(length, false) + right).abs() < 1e-12);
        }
        let kimi = |length, is_right| relative(length, 10.0, 30.0, is_right);
        assert_eq!([10.0, 20.0, 30.0].map(|n| kimi(n, true)), [0.5, 0.0, -0.5]);
        assert_eq!([10.0, 20.0, 30.0].map(|n| kimi(n, false)), [0.0, 0.0, -0.5]);
        assert_eq!(relative(5.0, 5.0, 5.0, true), 0.0);
    }
}
