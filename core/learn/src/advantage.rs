//! How much better a completion is than what it is compared with.

/// What a reward is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// The mean of its group (DeepSeekMath, arXiv 2402.03300, section 4.1.2).
    Group,
    /// The mean of the others of its group (RLOO, arXiv 2402.14740, equation 6).
    LeaveOneOut,
    /// Nothing: the reward counts as it is.
    None,
}

/// What makes advantages comparable. `s` is a standard deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Divided by nothing (Dr. GRPO, arXiv 2503.20783).
    None,
    /// Divided by `s + epsilon` of the rewards of the group (DeepSeekMath, section 4.1.2).
    Group,
    /// Divided by `s + epsilon` of the rewards of the others of the group, where that is not 0 (NeMo-RL's default).
    LeaveOneOut,
    /// Divided by `s + epsilon` of the rewards of all groups (TRL's `scale_rewards = "batch"`).
    Batch,
    /// Whitened over all completions: `(A - mean) / (s + epsilon)` of the centred rewards (TRL's `normalize_advantages`).
    WhitenSequences,
    /// Whitened over all tokens: `(A - mean) / sqrt(s^2 + epsilon)`, a completion counting once for each of its tokens
    /// (REINFORCE++, arXiv 2501.03262, equation 9; verl's `masked_whiten`).
    WhitenTokens,
}

/// How rewards become advantages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdvantageSettings {
    /// What is subtracted.
    pub baseline: Baseline,
    /// What the rest is divided by.
    pub scale: Scale,
    /// The degrees of freedom that a standard deviation of `n` numbers loses: it divides by `n - ddof`. 1 or 0.
    pub ddof: u32,
    /// Keeps what is nearly equal from getting huge advantages.
    pub epsilon: f64,
}

impl Default for AdvantageSettings {
    fn default() -> Self {
        Self { baseline: Baseline::Group, scale: Scale::Group, ddof: 1, epsilon: 1e-4 }
    }
}

/// A completion and what it is worth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scored<'a> {
    /// `None` stands for a reward that was not decided, or for a completion that was dropped: it is out of all statistics
    /// and has advantage 0.
    pub reward: Option<f64>,
    /// Its tokens in the loss.
    pub tokens: usize,
    /// What each of those costs: a KL penalty that counts in the reward. Empty: nothing.
    pub penalties: &'a [f64],
}

impl Scored<'_> {
    /// The reward without all that tokens cost.
    fn total(&self) -> Option<f64> {
        Some(self.reward? - self.penalties.iter().sum::<f64>())
    }
}

/// The advantage of a completion.
#[derive(Clone, Debug, PartialEq)]
pub enum Advantage {
    /// The same for each of its tokens.
    Whole(f64),
    /// Of each of its tokens in the loss.
    Tokens(Vec<f64>),
}

impl Advantage {
    /// Of token `i` of those in the loss.
    pub fn of_token(&self, i: usize) -> f64 {
        match self {
            Self::Whole(advantage) => *advantage,
            Self::Tokens(advantages) => advantages[i],
        }
    }

    /// The mean over tokens.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Whole(advantage) => *advantage,
            Self::Tokens(advantages) => advantages.iter().sum::<f64>() / advantages.len().max(1) as f64,
        }
    }
}

/// The advantage of each completion of each group. Where all rewards of a group are equal, or fewer than two are there,
/// those that are compared within it are exactly 0; fewer than two numbers are not whitened.
///
/// Tokens that cost something make advantages of tokens where all tokens are whitened without a baseline: then the reward
/// comes with the last token, and what a token is worth is the sum of what comes with it and after it ([`returns`]).
pub fn advantages(groups: &[Vec<Scored<'_>>], settings: &AdvantageSettings) -> Vec<Vec<Advantage>> {
    let of_tokens = settings.scale == Scale::WhitenTokens && settings.baseline == Baseline::None;
    if of_tokens && groups.iter().flatten().any(|one| !one.penalties.is_empty()) {
        return whitened_returns(groups, settings);
    }
    let totals: Vec<Vec<Option<f64>>> = groups.iter().map(|group| group.iter().map(Scored::total).collect()).collect();
    let mut centred: Vec<Vec<f64>> = totals.iter().map(|group| centre(group, settings.baseline)).collect();
    match settings.scale {
        Scale::None => {}
        Scale::Group => {
            for (group, totals) in centred.iter_mut().zip(&totals) {
                let divisor = deviation(totals.iter().flatten().copied(), settings.ddof) + settings.epsilon;
                group.iter_mut().for_each(|advantage| *advantage /= divisor);
            }
        }
        Scale::LeaveOneOut => {
            for (group, totals) in centred.iter_mut().zip(&totals) {
                for (i, advantage) in group.iter_mut().enumerate() {
                    let others = totals.iter().enumerate().filter(|(other, _)| *other != i);
                    let deviation = deviation(others.filter_map(|(_, total)| *total), settings.ddof);
                    if deviation > 0.0 {
                        *advantage /= deviation + settings.epsilon;
                    }
                }
            }
        }
        Scale::Batch => {
            let divisor = deviation(totals.iter().flatten().flatten().copied(), settings.ddof) + settings.epsilon;
            centred.iter_mut().flatten().for_each(|advantage| *advantage /= divisor);
        }
        Scale::WhitenSequences | Scale::WhitenTokens => {
            let by_tokens = settings.scale == Scale::WhitenTokens;
            let decided = centred.iter_mut().flatten().zip(groups.iter().flatten());
            let decided = decided.filter(|(_, one)| one.reward.is_some());
            let counted = decided.map(|(advantage, one)| (advantage, if by_tokens { one.tokens } else { 1 }));
            whiten(counted.collect(), by_tokens, settings);
        }
    }
    centred.into_iter().map(|group| group.into_iter().map(Advantage::Whole).collect()).collect()
}

/// What each token is worth if `rewards` come with the tokens: the sum of its own and all after it.
pub fn returns(rewards: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    let mut returns: Vec<f64> = rewards
        .iter()
        .rev()
        .map(|reward| {
            sum += reward;
            sum
        })
        .collect();
    returns.reverse();
    returns
}

/// The value below which the share `q` of `values` lies, by linear interpolation; `None` of no value.
pub fn quantile(mut values: Vec<f64>, q: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let place = q * last as f64;
    let (below, part) = (place as usize, place - libm::floor(place));
    let above = values[(below + 1).min(last)];
    Some(values[below] + part * (above - values[below]))
}

/// A mean of equal numbers may differ from them by a rounding, which a division would make visible.
fn all_equal(values: impl Iterator<Item = f64>) -> bool {
    let mut values = values;
    let first = values.next();
    first.is_none_or(|first| values.all(|value| value == first))
}

fn centre(totals: &[Option<f64>], baseline: Baseline) -> Vec<f64> {
    let decided = || totals.iter().flatten().copied();
    if baseline != Baseline::None && all_equal(decided()) {
        return vec![0.0; totals.len()];
    }
    let (count, sum) = (decided().count() as f64, decided().sum::<f64>());
    let centred = |total: f64| match baseline {
        Baseline::Group => total - sum / count,
        Baseline::LeaveOneOut => total - (sum - total) / (count - 1.0),
        Baseline::None => total,
    };
    totals.iter().map(|total| total.map_or(0.0, centred)).collect()
}

/// The standard deviation; 0, exactly, of equal values and of too few.
fn deviation(values: impl Iterator<Item = f64> + Clone, ddof: u32) -> f64 {
    let count = values.clone().count();
    if count <= ddof as usize || all_equal(values.clone()) {
        return 0.0;
    }
    let mean = values.clone().sum::<f64>() / count as f64;
    let squares: f64 = values.map(|value| (value - mean) * (value - mean)).sum();
    (squares / (count - ddof as usize) as f64).sqrt()
}

/// Whitens numbers that count several times.
fn whiten(mut values: Vec<(&mut f64, usize)>, epsilon_inside: bool, settings: &AdvantageSettings) {
    let count: usize = values.iter().map(|(_, times)| times).sum();
    if count < 2 {
        return;
    }
    if all_equal(values.iter().map(|(value, _)| **value)) {
        values.iter_mut().for_each(|(value, _)| **value = 0.0);
        return;
    }
    let over = |f: &dyn Fn(f64) -> f64| values.iter().map(|(value, times)| f(**value) * *times as f64).sum::<f64>();
    let mean = over(&|value| value) / count as f64;
    let variance = over(&|value| (value - mean) * (value - mean)) / (count - settings.ddof as usize) as f64;
    let divisor = match epsilon_inside {
        true => (variance + settings.epsilon).sqrt(),
        false => variance.sqrt() + settings.epsilon,
    };
    values.iter_mut().for_each(|(value, _)| **value = (**value - mean) / divisor);
}

/// The advantages of tokens whose rewards come with them.
fn whitened_returns(groups: &[Vec<Scored<'_>>], settings: &AdvantageSettings) -> Vec<Vec<Advantage>> {
    let of_completion = |one: &Scored<'_>| {
        let Some(reward) = one.reward else { return vec![0.0; one.tokens] };
        let mut rewards = vec![0.0; one.tokens];
        rewards.iter_mut().zip(one.penalties).for_each(|(reward, penalty)| *reward -= penalty);
        rewards.iter_mut().rev().take(1).for_each(|last| *last += reward);
        returns(&rewards)
    };
    let mut values: Vec<Vec<Vec<f64>>> = groups.iter().map(|group| group.iter().map(of_completion).collect()).collect();
    let completions = values.iter_mut().flatten().zip(groups.iter().flatten());
    let decided = completions.filter(|(_, one)| one.reward.is_some()).flat_map(|(tokens, _)| tokens);
    whiten(decided.map(|value| (value, 1)).collect(), true, settings);
    values.into_iter().map(|group| group.into_iter().map(Advantage::Tokens).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rewards: &[Option<f64>], settings: &AdvantageSettings) -> Vec<f64> {
        let group = rewards.iter().map(|reward| Scored { reward: *reward, tokens: 3, penalties: &[] }).collect();
        advantages(&[group], settings)[0].iter().map(Advantage::mean).collect()
    }

    #[test]
    fn equal_rewards_have_no_advantage_however_they_round() {
        let scales =
            [Scale::Group, Scale::None, Scale::LeaveOneOut, Scale::Batch, Scale::WhitenSequences, Scale::WhitenTokens];
        for (scale, baseline) in scales.into_iter().flat_map(|scale| {
            [Baseline::Group, Baseline::LeaveOneOut].into_iter().map(move |baseline| (scale, baseline))
        }) {
            let settings = AdvantageSettings { baseline, scale, ..AdvantageSettings::default() };
            assert_eq!(of(&[Some(0.1); 3], &settings), [0.0; 3]);
            assert_eq!(of(&[Some(0.1), None, Some(0.1)], &settings), [0.0; 3]);
            assert_eq!(of(&[None, Some(5.0)], &settings), [0.0; 2]);
            assert_eq!(of(&[None, None], &settings), [0.0; 2]);
            assert!(of(&[], &settings).is_empty());
        }
        let whitened = AdvantageSettings {
            baseline: Baseline::None,
            scale: Scale::WhitenSequences,
            ..AdvantageSettings::default()
        };
        assert_eq!(of(&[Some(0.1); 3], &whitened), [0.0; 3]);
    }

    #[test]
    fn quantiles_are_interpolated() {
        let values = vec![4.0, 1.0, 3.0, 2.0];
        let at = |q| quantile(values.clone(), q);
        assert_eq!((at(0.0), at(0.5), at(1.0)), (Some(1.0), Some(2.5), Some(4.0)));
        assert_eq!(quantile(Vec::new(), 0.5), None);
    }
}
