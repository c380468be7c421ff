//! How much better a completion is than the others of its group.

/// What divides centred rewards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The group's standard deviation (ddof 1) plus 1e-4, as in TRL (DeepSeekMath, arXiv 2402.03300, section 4.1.2).
    Group,
    /// Nothing (Dr. GRPO, arXiv 2503.20783).
    None,
}

/// Keeps a group with nearly equal rewards from getting huge advantages.
const EPSILON: f64 = 1e-4;

/// The advantage of each completion of a group, from their rewards. `None` stands for a reward that was not decided, or
/// for a completion that was dropped: it is out of the statistics and has advantage 0. Where all rewards are equal, or
/// fewer than two are there, every advantage is exactly 0.
pub fn group_advantages(rewards: &[Option<f64>], scale: Scale) -> Vec<f64> {
    let decided: Vec<f64> = rewards.iter().flatten().copied().collect();
    // A mean of equal numbers may differ from them by a rounding, which the division would make visible.
    if decided.windows(2).all(|pair| pair[0] == pair[1]) {
        return vec![0.0; rewards.len()];
    }
    let count = decided.len() as f64;
    let mean = decided.iter().sum::<f64>() / count;
    let divisor = match scale {
        Scale::Group => {
            let squares: f64 = decided.iter().map(|reward| (reward - mean) * (reward - mean)).sum();
            (squares / (count - 1.0)).sqrt() + EPSILON
        }
        Scale::None => 1.0,
    };
    rewards.iter().map(|reward| reward.map_or(0.0, |reward| (reward - mean) / divisor)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rewards_have_no_advantage_however_they_round() {
        for scale in [Scale::Group, Scale::None] {
            assert_eq!(group_advantages(&[Some(0.1); 3], scale), [0.0; 3]);
            assert_eq!(group_advantages(&[Some(0.1), None, Some(0.1)], scale), [0.0; 3]);
            assert_eq!(group_advantages(&[None, Some(5.0)], scale), [0.0; 2]);
            assert_eq!(group_advantages(&[None, None], scale), [0.0; 2]);
            assert!(group_advantages(&[], scale).is_empty());
        }
    }
}
