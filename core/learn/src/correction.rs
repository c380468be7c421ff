//! What to do about a sampler whose probabilities are not the learner's: other weights, other kernels, other experts.
//!
//! With `d = old - sampler`, the log-probabilities of the learner before the update and of the sampler, a token or a
//! sequence gets a weight that multiplies its surrogate, and through which nothing flows.

/// Of what a weight is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `e^d` of the token.
    Token,
    /// `e^(sum of d)`, for all tokens of the sequence.
    Sequence,
    /// `e^(mean of d)`, for all tokens of the sequence. It is no importance weight: it can only mask.
    SequenceMean,
    /// The least and the greatest `e^d` of the sequence, for all its tokens. It can only mask.
    WorstToken,
}

/// What becomes of a weight outside its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounding {
    /// It is the bound (truncated importance sampling: Ionides, "Truncated importance sampling", 2008; for language models
    /// Yao et al., "Your efficient RL framework secretly brings you off-policy RL training", 2025).
    Truncate,
    /// It is 0 (masked importance sampling; TRL's and verl's rejection).
    Mask,
}

/// How the sampler's probabilities are corrected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correction {
    /// Of what a weight is made.
    pub level: Level,
    /// What becomes of it outside the bounds.
    pub bounding: Bounding,
    /// The lower bound; 0 for none.
    pub at_least: f64,
    /// The upper bound.
    pub at_most: f64,
}

impl Correction {
    /// The weight of each token of a sequence; `counts` says which tokens are in the loss, the others have weight 1
    /// within the bounds.
    pub fn weights(&self, old: &[f32], sampler: &[f32], counts: &[bool]) -> Vec<f64> {
        let difference = |i: usize| if counts[i] { f64::from(old[i]) - f64::from(sampler[i]) } else { 0.0 };
        let differences = || (0..old.len()).map(difference);
        let tokens = counts.iter().filter(|counts| **counts).count().max(1) as f64;
        let everywhere = |weight: f64| vec![weight; old.len()];
        let is_within = |ratio: f64| (self.at_least..=self.at_most).contains(&ratio);
        let decision = |keep: bool| f64::from(u8::from(keep));
        match self.level {
            Level::Token => differences().map(|d| self.bound(libm::exp(d))).collect(),
            Level::Sequence => everywhere(self.bound(libm::exp(differences().sum()))),
            Level::SequenceMean => everywhere(decision(is_within(libm::exp(differences().sum::<f64>() / tokens)))),
            Level::WorstToken => everywhere(decision(differences().all(|d| is_within(libm::exp(d))))),
        }
    }

    fn bound(&self, weight: f64) -> f64 {
        let held = weight.clamp(self.at_least, self.at_most);
        match self.bounding {
            // A weight that is no number must not pass for one that was masked.
            Bounding::Mask if held != weight && !weight.is_nan() => 0.0,
            _ => held,
        }
    }
}

/// How much two walks over the same tokens differ; sums over tokens, divide by `tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mismatch {
    /// The tokens that were compared.
    pub tokens: usize,
    /// The absolute difference of the log-probabilities.
    pub difference: f64,
    /// The largest of those differences; not a sum.
    pub difference_max: f64,
    /// The ratio of the learner's probability to the sampler's.
    pub ratio: f64,
    /// `r - ln r - 1` of that ratio r: an estimate of the divergence of the learner from the sampler (prime-rl's
    /// `mismatch_kl`).
    pub divergence: f64,
}

impl Mismatch {
    /// Adds what one token tells.
    pub fn add(&mut self, learner: f32, sampler: f32) {
        let d = f64::from(learner) - f64::from(sampler);
        self.tokens += 1;
        self.difference += d.abs();
        self.difference_max = self.difference_max.max(d.abs());
        self.ratio += libm::exp(d);
        self.divergence += libm::expm1(d) - d;
    }
}
