//! What a number of right and wrong answers says of a model. Pure arithmetic.

/// A mean and its 95% confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// The normal distribution's 97.5% point.
const Z: f64 = 1.959_963_984_540_054;

/// The mean of shares in [0, 1], one for each question, with its 95% confidence interval by the normal approximation:
/// `mean +- 1.96 s / sqrt(n)`, where `s` is the standard deviation (ddof 1) of the shares, cut to [0, 1] (Miller, "Adding
/// error bars to evals", arXiv 2411.00640, eq. 1 and section 2.2).
///
/// The interval is over questions: the samples of a question are a cluster, of which only their mean enters, so that more
/// of them make the shares exacter but never count as further questions. It has no width where all shares are equal and
/// is the whole of [0, 1] for a single question; it is too narrow for a handful.
///
/// `None` if there is no share.
pub(crate) fn over_questions(shares: &[f64]) -> Option<Estimate> {
    let n = shares.len() as f64;
    if shares.is_empty() {
        return None;
    }
    let mean = shares.iter().sum::<f64>() / n;
    if shares.len() == 1 {
        return Some(Estimate { mean, low: 0.0, high: 1.0 });
    }
    let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = Z * (variance / n).sqrt();
    Some(Estimate { mean, low: (mean - half).max(0.0), high: (mean + half).min(1.0) })
}

/// The unbiased estimate of pass@k, that at least one of k samples is right, from `n` samples of which `right` are:
/// `1 - C(n - right, k) / C(n, k)`, as the product `1 - prod_{i = n - right + 1}^{n} (1 - k / i)` (Chen et al., "Evaluating
/// large language models trained on code", arXiv 2107.03374, eq. 1 and figure 3).
///
/// `None` if there are fewer than k samples.
pub(crate) fn pass_at(n: usize, right: usize, k: usize) -> Option<f64> {
    if k > n {
        return None;
    }
    if n - right < k {
        return Some(1.0);
    }
    let missed: f64 = (n - right + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Some(1.0 - missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_textbook() {
        // Mean 0.5, standard deviation 0.5774, standard error 0.2887.
        let estimate = over_questions(&[0.0, 0.0, 1.0, 1.0]).unwrap();
        let half = 1.959_963_984_540_054 * (1.0_f64 / 3.0 / 4.0).sqrt();
        assert_eq!(estimate.mean, 0.5);
        assert!(half > 0.5 && estimate.low == 0.0 && estimate.high == 1.0, "cut to what a share can be");
        let shares: Vec<f64> = (0..400).map(|i| f64::from(i % 4 == 0)).collect();
        let Estimate { mean, low, high } = over_questions(&shares).unwrap();
        let half = 1.959_963_984_540_054 * (0.25 * 0.75 * 400.0 / 399.0_f64 / 400.0).sqrt();
        assert_eq!(mean, 0.25);
        assert!((low - (0.25 - half)).abs() < 1e-12 && (high - (0.25 + half)).abs() < 1e-12, "{low} {high}");
    }

    #[test]
    fn questions_count_and_samples_do_not() {
        // Two questions, one always and one never right: a hundred samples each say nothing of other questions.
        let two = over_questions(&[1.0, 0.0]).unwrap();
        assert_eq!((two.low, two.high), (0.0, 1.0));
        assert_eq!(over_questions(&[0.25]).unwrap(), Estimate { mean: 0.25, low: 0.0, high: 1.0 });
        assert_eq!(over_questions(&[1.0; 5]).unwrap(), Estimate { mean: 1.0, low: 1.0, high: 1.0 });
        assert_eq!(over_questions(&[]), None);
    }

    /// The share of all choices of k samples that have a right one.
    fn counted(n: usize, right: usize, k: usize) -> f64 {
        let chosen = (0_u32..1 << n).filter(|set| set.count_ones() as usize == k);
        let (mut all, mut hits) = (0, 0);
        for set in chosen {
            all += 1;
            hits += u32::from(set & ((1 << right) - 1) != 0);
        }
        f64::from(hits) / f64::from(all)
    }

    #[test]
    fn pass_at_k_is_the_share_of_all_choices_of_k() {
        for n in 1..=9 {
            for right in 0..=n {
                for k in 1..=n {
                    let (one, other) = (pass_at(n, right, k).unwrap(), counted(n, right, k));
                    assert!((one - other).abs() < 1e-12, "n {n}, right {right}, k {k}: {one} and {other}");
                }
                assert_eq!(pass_at(n, right, n + 1), None);
            }
        }
        assert!((pass_at(200, 3, 100).unwrap() - 0.876_884_422_110_552_7).abs() < 1e-12);
    }
}
