//! What a token's loss is made of: its advantage, and the ratio of its probabilities now and before.

/// How far the ratio `r` counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Down to `1 - low`; `None`: however small it is.
    pub low: Option<f64>,
    /// Up to `1 + high`; `None`: however large it is.
    pub high: Option<f64>,
}

impl Clip {
    fn bounds(&self) -> (f64, f64) {
        (self.low.map_or(f64::NEG_INFINITY, |low| 1.0 - low), self.high.map_or(f64::INFINITY, |high| 1.0 + high))
    }
}

/// The objective whose gradient is followed, of a token with ratio `r`, advantage `A` and log-probability `l`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Surrogate {
    /// `-min(r A, clip(r) A)` (PPO, arXiv 1707.06347, equation 7).
    Clip {
        /// The bounds; separate ones as in DAPO (arXiv 2503.14476).
        clip: Clip,
        /// For `A < 0` the loss is at most `-dual * A` (dual-clip PPO, arXiv 1912.09729, equation 5).
        dual: Option<f64>,
        /// The ratio that is not clipped counts up to `delta`, for `A < 0` too (two-sided clipping, INTELLECT-2,
        /// arXiv 2505.07291).
        delta: Option<f64>,
    },
    /// `-sg[clip(r)] A l`: every token keeps its gradient, weighed by a ratio through which nothing flows (CISPO of
    /// MiniMax-M1, arXiv 2506.13585, equation 4).
    Cispo(Clip),
    /// `-4 / t * sigmoid(t (r - 1)) A`, a soft gate in place of the clip (SAPO, arXiv 2511.20347, equations 5 and 6).
    Sapo {
        /// The temperature `t` for `A > 0`.
        positive: f64,
        /// The temperature `t` for other tokens.
        negative: f64,
    },
    /// `-A l`: the plain policy gradient, without a ratio (REINFORCE; RLOO's paper, arXiv 2402.14740).
    Reinforce,
}

/// A token's loss and what flows from it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Term {
    pub loss: f64,
    /// The derivative by the logarithm of the ratio.
    pub by_ratio: f64,
    /// The derivative by the log-probability, beside the ratio.
    pub by_policy: f64,
    /// The ratio is below its bounds, and that matters.
    pub clipped_low: bool,
    /// The ratio is above its bounds, and that matters.
    pub clipped_high: bool,
}

impl Surrogate {
    pub(crate) fn at(&self, ratio: f64, advantage: f64, policy: f64) -> Term {
        match *self {
            Self::Clip { clip, dual, delta } => {
                let (floor, ceiling) = clip.bounds();
                let limit = delta.unwrap_or(f64::INFINITY);
                let (free, held) = (ratio.min(limit) * advantage, ratio.clamp(floor, ceiling) * advantage);
                // The clipped branch is constant; where it is the smaller one, nothing flows.
                let flows = free <= held && ratio <= limit;
                let (mut loss, mut by_ratio) = (-free.min(held), if flows { -free } else { 0.0 });
                if let Some(dual) = dual.filter(|dual| advantage < 0.0 && -dual * advantage < loss) {
                    (loss, by_ratio) = (-dual * advantage, 0.0);
                }
                // A ratio that is no number must not pass for one that was clipped.
                if (ratio * advantage).is_nan() {
                    (loss, by_ratio) = (f64::NAN, f64::NAN);
                }
                Term {
                    loss,
                    by_ratio,
                    clipped_low: ratio < floor && advantage < 0.0,
                    clipped_high: ratio > ceiling && advantage > 0.0,
                    ..Term::default()
                }
            }
            Self::Cispo(clip) => {
                let (floor, ceiling) = clip.bounds();
                let by_policy = -ratio.clamp(floor, ceiling) * advantage;
                Term {
                    loss: by_policy * policy,
                    by_policy,
                    clipped_low: ratio < floor,
                    clipped_high: ratio > ceiling,
                    ..Term::default()
                }
            }
            Self::Sapo { positive, negative } => {
                let temperature = if advantage > 0.0 { positive } else { negative };
                let gate = 1.0 / (1.0 + libm::exp(-temperature * (ratio - 1.0)));
                Term {
                    loss: -gate * 4.0 / temperature * advantage,
                    by_ratio: -4.0 * gate * (1.0 - gate) * ratio * advantage,
                    ..Term::default()
                }
            }
            Self::Reinforce => Term { loss: -advantage * policy, by_policy: -advantage, ..Term::default() },
        }
    }
}
