//! The softmax distribution over one row of logits, to draw from.
//!
//! A row is looked at in blocks of 256 elements. Each block keeps the greatest logit of each of its 16 lanes (a *group*:
//! 16 elements, 16 apart) and the sum of its weights, so that neither the likeliest tokens nor the drawn one are searched
//! for among all.

use crate::math::{exp_lanes, for_lanes, inverse, ln, load, load_or, store};
use crate::simd::{Lanes, dispatch, max_lanes, sum_lanes};

/// The elements of a block.
const BLOCK: usize = 256;
/// The lanes of a vector, and so the groups of a block.
const LANES: usize = 16;

/// Memory that one distribution leaves to the next.
#[derive(Default)]
pub struct Scratch {
    weights: Vec<f32>,
    groups: Vec<f32>,
    sums: Vec<f32>,
    order: Vec<f32>,
}

/// A token's weight is `e^(logit / temperature - the greatest of that)`, or 0 where it was removed.
pub struct Distribution<'a> {
    logits: &'a [f32],
    scratch: &'a mut Scratch,
    greatest: f32,
    normaliser: Normaliser,
}

/// What turns logits at a temperature into log-probabilities.
#[derive(Clone, Copy, Debug)]
pub struct Normaliser {
    factor: f32,
    greatest: f32,
    ln_sum: f32,
}

impl Normaliser {
    /// The natural log-probability of the token that has this logit: the bits that [`crate::ops::token_logprobs`] gives
    /// for the same logits.
    pub fn logprob(self, logit: f32) -> f32 {
        logit * self.factor - self.greatest - self.ln_sum
    }
}

impl<'a> Distribution<'a> {
    /// The distribution over logits `[V]` at a temperature above 0. `None` if a logit is not finite, V is 0, or the
    /// temperature is so low that the greatest quotient is not finite.
    pub fn new(logits: &'a [f32], temperature: f64, scratch: &'a mut Scratch) -> Option<Self> {
        let (n, factor) = (logits.len(), inverse(temperature));
        let blocks = n.div_ceil(BLOCK);
        let Scratch { weights, groups, sums, .. } = scratch;
        weights.resize(n, 0.0);
        groups.resize(blocks * LANES, 0.0);
        sums.resize(blocks, 0.0);
        // SAFETY: the slices have these lengths.
        let greatest = unsafe { peak(logits.as_ptr(), n, groups.as_mut_ptr()) };
        // The factor is positive, so the greatest quotient is that of the greatest logit.
        let peak = greatest * factor;
        if !peak.is_finite() {
            return None;
        }
        // SAFETY: the slices have these lengths.
        let sum = unsafe { weigh(logits.as_ptr(), n, factor, peak, weights.as_mut_ptr(), sums.as_mut_ptr()) };
        let normaliser = Normaliser { factor, greatest: peak, ln_sum: ln(sum) };
        Some(Self { logits, scratch, greatest, normaliser })
    }

    /// What log-probabilities are computed by; tokens removed later still count in it.
    pub fn normaliser(&self) -> Normaliser {
        self.normaliser
    }

    /// The number of tokens, V.
    #[expect(clippy::len_without_is_empty, reason = "a distribution has at least one token")]
    pub fn len(&self) -> usize {
        self.logits.len()
    }

    /// The greatest logit.
    pub fn greatest(&self) -> f32 {
        self.greatest
    }

    /// The likeliest token, the first of those that tie.
    pub fn likeliest(&self) -> u32 {
        let mut first = u32::MAX;
        self.each_from(self.greatest, |token, _, _| first = first.min(token));
        first
    }

    /// A logit that at least `count` tokens reach, near the least such: the `count`-th greatest of the groups' maxima.
    pub fn reached_by(&mut self, count: usize) -> f32 {
        let Scratch { groups, order, .. } = &mut *self.scratch;
        if count == 0 || count > groups.len() {
            return f32::NEG_INFINITY;
        }
        order.clone_from(groups);
        *order.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1
    }

    /// Calls `f` with the token, logit and weight of each token whose logit is at least `least`, in no order of note.
    pub fn each_from(&self, least: f32, mut f: impl FnMut(u32, f32, f32)) {
        for (group, _) in self.scratch.groups.iter().enumerate().filter(|(_, greatest)| **greatest >= least) {
            let block = group / LANES * BLOCK;
            let end = self.len().min(block + BLOCK);
            for token in (block + group % LANES..end).step_by(LANES) {
                if self.logits[token] >= least {
                    f(token as u32, self.logits[token], self.scratch.weights[token]);
                }
            }
        }
    }

    /// The sum of the weights.
    pub fn total(&self) -> f64 {
        self.scratch.sums.iter().map(|&sum| f64::from(sum)).sum()
    }

    /// Removes all tokens but those whose logit and weight are at least so much, and the single ones named besides.
    pub fn keep(&mut self, least_logit: f32, least_weight: f32, removed: impl Iterator<Item = u32>) {
        let Scratch { weights, sums, .. } = &mut *self.scratch;
        removed.for_each(|token| weights[token as usize] = 0.0);
        let (weights, sums) = (weights.as_mut_ptr(), sums.as_mut_ptr());
        // SAFETY: the slices have the lengths that `new` gave them.
        unsafe { retain(self.logits.as_ptr(), self.logits.len(), (least_logit, least_weight), weights, sums) }
    }

    /// The inverse of the cumulative distribution, tokens in order of id, at a number in [0, 1).
    pub fn draw(&self, uniform: f64) -> u32 {
        let Scratch { weights, sums, .. } = &*self.scratch;
        let target = uniform * self.total();
        // Rounding may keep a sum from passing the target by a hair: then it is the last token that is left.
        let (mut block, mut before, mut sum) = (0, 0.0, 0.0);
        for (i, &more) in sums.iter().enumerate().filter(|(_, more)| **more > 0.0) {
            (block, before) = (i, sum);
            sum += f64::from(more);
            if sum > target {
                break;
            }
        }
        let (start, end) = (block * BLOCK, self.len().min((block + 1) * BLOCK));
        let (mut token, mut sum) = (start, before);
        for (i, &more) in weights[start..end].iter().enumerate().filter(|(_, more)| **more > 0.0) {
            token = start + i;
            sum += f64::from(more);
            if sum > target {
                break;
            }
        }
        token as u32
    }
}

/// Runs `$body` for each block of `$n` elements: its number, its first element, its length.
macro_rules! for_blocks {
    ($n:expr, |$block:ident, $start:ident, $len:ident| $body:expr) => {
        for $block in 0..$n.div_ceil(BLOCK) {
            let $start = $block * BLOCK;
            let $len = BLOCK.min($n - $start);
            $body
        }
    };
}

/// The greatest of `x[..n]`, NaN if one of them is not finite, and that of each group.
#[inline(always)]
unsafe fn peak_lanes<L: Lanes>(x: *const f32, n: usize, groups: *mut f32) -> f32 {
    // SAFETY: the caller vouches for `n` elements, and the groups of as many.
    unsafe {
        let (low, zero) = (L::splat(f32::NEG_INFINITY), L::splat(0.0));
        let (mut greatest, mut finite) = (low, zero);
        for_blocks!(n, |block, start, len| {
            let (x, mut most) = (x.add(start), low);
            for_lanes!(len, |i, count| {
                most = L::max(load_or::<L>(x.add(i), count, f32::NEG_INFINITY), most);
                // 0 times what is not finite is NaN, and stays one.
                finite = L::fma(load::<L>(x.add(i), count), zero, finite);
            });
            L::store(groups.add(block * LANES), most);
            greatest = L::max(most, greatest);
        });
        max_lanes::<L>(greatest) + sum_lanes::<L>(finite)
    }
}

/// Writes `e^(x * factor - peak)` and each block's sum of that; all of it by the fixed tree.
#[inline(always)]
unsafe fn weigh_lanes<L: Lanes>(x: *const f32, n: usize, factor: f32, peak: f32, out: *mut f32, sums: *mut f32) -> f32 {
    // SAFETY: the caller vouches for `n` elements of each, and their blocks.
    unsafe {
        let (factor, peak) = (L::splat(factor), L::splat(peak));
        let mut total = L::splat(0.0);
        for_blocks!(n, |block, start, len| {
            let (x, out, mut sum) = (x.add(start), out.add(start), L::splat(0.0));
            for_lanes!(len, |i, count| {
                let e = exp_lanes::<L>(L::sub(L::mul(load::<L>(x.add(i), count), factor), peak));
                store::<L>(out.add(i), e, count);
                let e = if count == LANES { e } else { L::load_n(out.add(i), count) };
                total = L::add(total, e);
                sum = L::add(sum, e);
            });
            *sums.add(block) = sum_lanes::<L>(sum);
        });
        sum_lanes::<L>(total)
    }
}

/// Puts 0 for weights that are too small, or whose `x` is; writes each block's sum of what is left.
#[inline(always)]
unsafe fn retain_lanes<L: Lanes>(x: *const f32, n: usize, least: (f32, f32), weights: *mut f32, sums: *mut f32) {
    // SAFETY: the caller vouches for `n` elements of each, and their blocks.
    unsafe {
        let (least, least_weight, zero) = (L::splat(least.0), L::splat(least.1), L::splat(0.0));
        for_blocks!(n, |block, start, len| {
            let (x, weights, mut sum) = (x.add(start), weights.add(start), zero);
            for_lanes!(len, |i, count| {
                let weight = load::<L>(weights.add(i), count);
                let weight = L::select_lt(weight, least_weight, zero, weight);
                let weight = L::select_lt(load::<L>(x.add(i), count), least, zero, weight);
                store::<L>(weights.add(i), weight, count);
                sum = L::add(sum, weight);
            });
            *sums.add(block) = sum_lanes::<L>(sum);
        });
    }
}

dispatch! { unsafe fn peak(x: *const f32, n: usize, groups: *mut f32) -> f32 = peak_lanes }
dispatch! {
    unsafe fn weigh(x: *const f32, n: usize, factor: f32, peak: f32, out: *mut f32, sums: *mut f32) -> f32 = weigh_lanes
}
dispatch! {
    unsafe fn retain(x: *const f32, n: usize, least: (f32, f32), weights: *mut f32, sums: *mut f32) = retain_lanes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::exp;
    use crate::simd;

    /// Logits of two decimals, so that some tie.
    fn logits(n: usize) -> Vec<f32> {
        crate::common::numbers(n as u64, n).into_iter().map(|x| (x * 600.0).round() / 100.0).collect()
    }

    const LENGTHS: [usize; 7] = [1, 15, 16, 255, 256, 700, 4099];

    #[test]
    fn weights_and_log_probabilities_are_those_of_plain_loops() {
        for n in LENGTHS {
            let logits = logits(n);
            let mut seen = Vec::new();
            for level in simd::tests::levels() {
                let _guard = simd::tests::with(level);
                let mut scratch = Scratch::default();
                let it = Distribution::new(&logits, 0.8, &mut scratch).unwrap();
                let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                assert_eq!(it.greatest(), greatest);
                assert_eq!(it.likeliest() as usize, logits.iter().position(|&x| x == greatest).unwrap());
                let weights: Vec<f32> = logits.iter().map(|x| exp(x * 1.25 - greatest * 1.25)).collect();
                let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
                assert!((it.total() - total).abs() < 1e-6 * total, "{n}");
                let logprob = (f64::from(logits[n / 2]) - f64::from(greatest)) * 1.25 - libm::log(total);
                assert!((f64::from(it.normaliser().logprob(logits[n / 2])) - logprob).abs() < 2e-5, "{n}");
                let mut found = vec![0.0; n];
                it.each_from(f32::NEG_INFINITY, |token, _, weight| found[token as usize] = weight);
                assert_eq!(found, weights, "{n}");
                seen.push((it.total().to_bits(), it.normaliser().logprob(logits[0]).to_bits()));
            }
            assert!(seen.iter().all(|bits| *bits == seen[0]), "{n}: {seen:?}");
        }
    }

    #[test]
    fn a_draw_is_the_inverse_of_the_cumulative_distribution() {
        for n in LENGTHS {
            let logits = logits(n);
            let mut scratch = Scratch::default();
            let mut it = Distribution::new(&logits, 1.0, &mut scratch).unwrap();
            let likeliest = it.likeliest();
            for (least, least_weight, step) in [(f32::NEG_INFINITY, 0.0, u32::MAX), (-1.0, 0.0, 3), (-1.0, 0.02, 3)] {
                let single = |token: &u32| token % step == 1 && *token != likeliest;
                it.keep(least, least_weight, (0..n as u32).filter(single));
                let mut weights = vec![0.0; n];
                it.each_from(f32::NEG_INFINITY, |token, logit, weight| {
                    weights[token as usize] = weight;
                    let enough = logit >= least && exp(logit - it.greatest()) >= least_weight;
                    assert_eq!(weight > 0.0, enough && !single(&token), "{n}: {token}");
                });
                let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
                for i in 0..500 {
                    let uniform = (f64::from(i) + 0.3) / 500.0;
                    let token = it.draw(uniform) as usize;
                    assert!(weights[token] > 0.0);
                    let before: f64 = weights[..token].iter().map(|&weight| f64::from(weight)).sum();
                    let slack = 1e-6 * total;
                    assert!(before <= uniform * total + slack, "{n}: {token}");
                    assert!(before + f64::from(weights[token]) >= uniform * total - slack, "{n}: {token}");
                }
                assert_eq!(it.draw(0.0) as usize, weights.iter().position(|&weight| weight > 0.0).unwrap());
                assert!(weights[it.draw(1.0) as usize] > 0.0, "rounding at the end leaves the last token");
            }
        }
    }

    #[test]
    fn enough_tokens_reach_a_bound_and_all_of_them_are_visited() {
        for n in LENGTHS {
            let logits = logits(n);
            let mut scratch = Scratch::default();
            let mut it = Distribution::new(&logits, 1.0, &mut scratch).unwrap();
            for count in [1, 2, 10, n] {
                let bound = it.reached_by(count);
                let mut found = Vec::new();
                it.each_from(bound, |token, logit, _| {
                    assert_eq!(logit, logits[token as usize]);
                    found.push(token);
                });
                found.sort_unstable();
                let expected: Vec<u32> = (0..n as u32).filter(|&token| logits[token as usize] >= bound).collect();
                assert_eq!(found, expected, "{n}: {count}");
                assert!(found.len() >= count.min(n), "{n}: {count}");
            }
        }
    }

    #[test]
    fn what_is_no_distribution_is_none() {
        let mut scratch = Scratch::default();
        for at in [0, 17, 299] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut logits = logits(300);
                logits[at] = bad;
                assert!(Distribution::new(&logits, 1.0, &mut scratch).is_none(), "{bad} at {at}");
            }
        }
        assert!(Distribution::new(&[], 1.0, &mut scratch).is_none());
        assert!(Distribution::new(&[1.0, 2.0], 1e-40, &mut scratch).is_none(), "the quotient is infinite");
        assert!(Distribution::new(&[1.0, 2.0], 1e-4, &mut scratch).is_some());
    }
}
