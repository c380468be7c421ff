//! Losses over the scores of a reward model.
//!
//! As in the other losses, a loss is a weighted sum in f64, in the order of its terms; with the denominator of the whole
//! minibatch in `weight`, the losses and gradients of its passes add up to those of one pass.

use candle_core::{DType, Device, Result, Tensor, bail};

/// What a preference loss found about its terms: sums over them, and the bounds of their scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PreferenceStats {
    /// Terms: pairs, or labelled scores.
    pub count: usize,
    /// The loss of each term, without its weight.
    pub loss: f64,
    /// Terms that are told right: the chosen has the higher score, or the score has the sign of its label.
    pub right: usize,
    /// By how much: the score of the chosen less that of the rejected; of labelled scores the score where the label is 1,
    /// minus it where it is 0.
    pub margin: f64,
    /// All scores, for their mean.
    pub scores: f64,
    /// The lowest score; infinite without a term.
    pub lowest: f64,
    /// The highest score; minus infinity without a term.
    pub highest: f64,
}

impl Default for PreferenceStats {
    fn default() -> Self {
        let (lowest, highest) = (f64::INFINITY, f64::NEG_INFINITY);
        Self { count: 0, loss: 0.0, right: 0, margin: 0.0, scores: 0.0, lowest, highest }
    }
}

impl PreferenceStats {
    /// Adds the sums of another pass.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.loss += other.loss;
        self.right += other.right;
        self.margin += other.margin;
        self.scores += other.scores;
        self.lowest = self.lowest.min(other.lowest);
        self.highest = self.highest.max(other.highest);
    }

    /// Adds a term with its scores.
    fn term(&mut self, loss: f64, margin: f64, scores: &[f64]) {
        self.count += 1;
        self.loss += loss;
        self.right += usize::from(margin > 0.0);
        self.margin += margin;
        self.scores += scores.iter().sum::<f64>();
        self.lowest = scores.iter().copied().fold(self.lowest, f64::min);
        self.highest = scores.iter().copied().fold(self.highest, f64::max);
    }
}

/// The negative log-likelihood of pairs under the model of Bradley and Terry ("Rank analysis of incomplete block designs",
/// Biometrika 39, 1952), as reward models are trained (Ouyang et al., arXiv 2203.02155, equation 1), a scalar:
///
/// `weight * sum over pairs of -log sigmoid(s_chosen - s_rejected)`.
///
/// `scores` is `[2 N]`, f32 or f64: the score of the chosen and of the rejected answer of each of `N` pairs, in turn. The
/// gradient flows into it.
///
/// # Errors
/// An odd number of scores; scores that are neither f32 nor f64.
pub fn bradley_terry_loss(scores: &Tensor, weight: f64) -> Result<(Tensor, PreferenceStats)> {
    let values = numbers(scores)?;
    let (pairs, rest) = values.as_chunks::<2>();
    if !rest.is_empty() {
        bail!("the loss takes pairs, and has {} scores", values.len());
    }
    let mut stats = PreferenceStats::default();
    let mut gradient = Vec::with_capacity(values.len());
    for &[chosen, rejected] in pairs {
        let margin = chosen - rejected;
        let (loss, slope) = negative_log_sigmoid(margin);
        gradient.extend([weight * slope, -weight * slope]);
        stats.term(loss, margin, &[chosen, rejected]);
    }
    Ok((attach(scores, weight * stats.loss, gradient)?, stats))
}

/// The binary cross-entropy of labelled scores, for a judge of single answers (safe or not), a scalar:
///
/// `weight * sum of -(y log sigmoid(s) + (1 - y) log(1 - sigmoid(s)))`, `y` the label.
///
/// `scores` is `[N]`, f32 or f64; the gradient flows into it. A label is true for 1.
///
/// # Errors
/// Another number of labels than of scores; scores that are neither f32 nor f64.
pub fn binary_loss(scores: &Tensor, labels: &[bool], weight: f64) -> Result<(Tensor, PreferenceStats)> {
    let values = numbers(scores)?;
    if values.len() != labels.len() {
        bail!("the loss has {} scores and {} labels", values.len(), labels.len());
    }
    let mut stats = PreferenceStats::default();
    let mut gradient = Vec::with_capacity(values.len());
    for (&score, &label) in values.iter().zip(labels) {
        // 1 - sigmoid(s) is sigmoid(-s).
        let sign = if label { 1.0 } else { -1.0 };
        let margin = sign * score;
        let (loss, slope) = negative_log_sigmoid(margin);
        gradient.push(weight * sign * slope);
        stats.term(loss, margin, &[score]);
    }
    Ok((attach(scores, weight * stats.loss, gradient)?, stats))
}

/// `-log sigmoid(x)` and its derivative `sigmoid(x) - 1`, without overflow: `max(-x, 0) + log(1 + exp(-|x|))`.
fn negative_log_sigmoid(x: f64) -> (f64, f64) {
    let small = libm::exp(-x.abs());
    // `max` would turn a score that is no number into one.
    let bound = if x > 0.0 { 0.0 } else { -x };
    let slope = if x > 0.0 { -small / (1.0 + small) } else { -1.0 / (1.0 + small) };
    (bound + libm::log1p(small), slope)
}

/// `1 / (1 + exp(-x))`, without overflow.
pub fn sigmoid(x: f64) -> f64 {
    let small = libm::exp(-x.abs());
    if x < 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) }
}

fn numbers(scores: &Tensor) -> Result<Vec<f64>> {
    if !matches!(scores.dtype(), DType::F32 | DType::F64) {
        bail!("a loss takes scores in f32 or f64, not {:?}", scores.dtype());
    }
    scores.detach().to_dtype(DType::F64)?.to_vec1()
}

/// A scalar that has the value `loss` and, towards `scores`, the gradient `gradient`; on the CPU wherever the model is.
fn attach(scores: &Tensor, loss: f64, gradient: Vec<f64>) -> Result<Tensor> {
    kernels::ops::known(&scores.to_device(&Device::Cpu)?, loss, gradient)
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    /// The value of a loss and its gradient.
    fn differentiated(
        scores: &[f64],
        loss: impl Fn(&Tensor) -> Result<(Tensor, PreferenceStats)>,
    ) -> (f64, Vec<f64>, PreferenceStats) {
        let var = Var::from_slice(scores, scores.len(), &Device::Cpu).unwrap();
        let (value, stats) = loss(&var).unwrap();
        let store = value.backward().unwrap();
        (value.to_scalar().unwrap(), store.get(&var).unwrap().to_vec1().unwrap(), stats)
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 + 1e-9 * b.abs()
    }

    #[test]
    fn known_values() {
        // -log sigmoid(0) = log 2; of 2 and of -1 as torch.nn.functional.logsigmoid gives them.
        let (loss, gradient, stats) =
            differentiated(&[1.5, 1.5, 3.0, 1.0, 0.0, 1.0], |scores| bradley_terry_loss(scores, 1.0));
        let expected = std::f64::consts::LN_2 + 0.126_928_011_042_972_5 + 1.313_261_687_518_222_8;
        assert!(close(loss, expected), "{loss} instead of {expected}");
        let pulls = [0.5, 0.119_202_922_022_117_57, 0.731_058_578_630_004_9];
        for (pair, pull) in gradient.as_chunks::<2>().0.iter().zip(pulls) {
            assert!(close(pair[0], -pull) && close(pair[1], pull), "{pair:?} instead of {pull}");
        }
        assert_eq!((stats.count, stats.right, stats.margin, stats.scores), (3, 1, 1.0, 8.0));
        assert_eq!((stats.lowest, stats.highest), (0.0, 3.0));

        let (loss, gradient, stats) =
            differentiated(&[2.0, -1.0, 0.0], |scores| binary_loss(scores, &[true, true, false], 0.5));
        assert!(close(loss, 0.5 * expected), "{loss}");
        assert!(close(gradient[0], -0.5 * pulls[1]) && close(gradient[1], -0.5 * pulls[2]), "{gradient:?}");
        assert!(close(gradient[2], 0.25), "{gradient:?}");
        assert_eq!((stats.count, stats.right, stats.margin, stats.scores), (3, 1, 1.0, 1.0));
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let scores = [0.3, -1.2, 4.0, 3.5, -2.5, 0.1];
        let labels = [true, false, false, true, true, false];
        type Loss<'a> = &'a dyn Fn(&Tensor) -> Result<(Tensor, PreferenceStats)>;
        let losses: [Loss<'_>; 2] =
            [&|scores| bradley_terry_loss(scores, 0.25), &|scores| binary_loss(scores, &labels, 0.25)];
        for loss in losses {
            let (_, gradient, _) = differentiated(&scores, loss);
            for (i, slope) in gradient.iter().enumerate() {
                let at = |step: f64| {
                    let mut moved = scores;
                    moved[i] += step;
                    differentiated(&moved, loss).0
                };
                let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((slope - difference).abs() < 1e-9, "{slope} and {difference}");
            }
        }
    }

    #[test]
    fn large_differences_stay_finite_and_what_is_no_number_stays_so() {
        for (margin, loss, slope) in [(1e4, 0.0, 0.0), (-1e4, 1e4, -1.0), (-800.0, 800.0, -1.0)] {
            assert_eq!(negative_log_sigmoid(margin), (loss, -f64::abs(slope)), "{margin}");
        }
        let (loss, slope) = negative_log_sigmoid(40.0);
        assert!(loss > 0.0 && slope < 0.0 && close(loss, -slope), "small, and not nothing: {loss} {slope}");
        assert!(negative_log_sigmoid(f64::NAN).0.is_nan());
        assert_eq!([-1e4, 0.0, 1e4].map(sigmoid), [0.0, 0.5, 1.0]);
        assert!(close(sigmoid(-2.0), 0.119_202_922_022_117_57) && sigmoid(f64::NAN).is_nan());
    }

    #[test]
    fn passes_add_up() {
        let whole = differentiated(&[1.0, 0.5, -2.0, 3.0], |scores| bradley_terry_loss(scores, 0.5));
        let first = differentiated(&[1.0, 0.5], |scores| bradley_terry_loss(scores, 0.5));
        let second = differentiated(&[-2.0, 3.0], |scores| bradley_terry_loss(scores, 0.5));
        assert_eq!(whole.1, [first.1, second.1].concat());
        assert!(close(whole.0, first.0 + second.0));
        let mut stats = first.2;
        stats.add(&second.2);
        assert_eq!(stats.count, whole.2.count);
        assert_eq!(stats.margin, whole.2.margin);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let three = Tensor::new(&[1.0, 2.0, 3.0], &Device::Cpu).unwrap();
        assert!(bradley_terry_loss(&three, 1.0).is_err());
        assert!(binary_loss(&three, &[true], 1.0).is_err());
        assert!(bradley_terry_loss(&Tensor::new(&[1u32, 2], &Device::Cpu).unwrap(), 1.0).is_err());
    }
}
