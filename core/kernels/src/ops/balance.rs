//! The loss that keeps a router from neglecting experts.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::node::{fused, owning_node, read};
use super::{Router, Segment, slow};

/// The sequence-wise balance loss of a routing (DeepSeek-V3 report, eq. 17-20), summed over segments: `weights`
/// `[T, k]` and `chosen` `[T * k]` as [`super::route`] gave them for `logits` `[T, E]`. For a segment of N tokens with
/// affinities s it is `sum_i f_i P_i`: `f_i = E / (k N) * count_i`, which has no gradient, and `P_i` the mean over tokens of
/// `s_i / sum_j s_j`.
///
/// Gives the weights as they are, and the loss before `factor`. In the backward pass of what is made of the weights, `factor`
/// times the loss counts as a part of the scalar that is walked from: its gradient reaches the logits without the
/// caller adding the loss to that scalar, and changes no bit of what is computed forwards.
///
/// # Errors
/// Shapes that don't fit, segments that don't cover the tokens.
pub fn balance(
    weights: &Tensor,
    logits: &Tensor,
    chosen: &[u32],
    router: &Router,
    segments: &Arc<[Segment]>,
    factor: f64,
) -> Result<(Tensor, f64)> {
    let (tokens, experts) = logits.dims2()?;
    let rows = segments.iter().try_fold(0, |end, segment| (segment.start == end).then_some(end + segment.len));
    let ids_fit = chosen.iter().all(|&expert| (expert as usize) < experts);
    if experts != router.experts || chosen.len() != tokens * router.chosen || rows != Some(tokens) || !ids_fit {
        bail!("balance: {} choices for {:?} in {} segments", chosen.len(), logits.shape(), segments.len());
    }
    if !fused(&[weights, logits]) {
        return slow::balance(weights, logits, chosen, router, segments, factor);
    }
    let logits = &logits.contiguous()?;
    let values = read(logits)?;
    let mut loss = 0.0;
    let mut slopes = vec![0.0; tokens * experts];
    for segment in segments.iter().filter(|segment| segment.len > 0) {
        let rows = |width: usize| segment.start * width..(segment.start + segment.len) * width;
        let (logits, slopes) = (&values[rows(experts)], &mut slopes[rows(experts)]);
        loss += of_segment(router, logits, &chosen[rows(router.chosen)], factor, slopes);
    }
    drop(values);
    let same = read(&weights.contiguous()?)?.to_vec();
    let out = owning_node("balance", [weights, logits], same, weights.shape(), move |_, grad| {
        Ok([Some(grad), Some(slopes.clone())])
    })?;
    Ok((out, loss))
}

/// The loss of one segment, and in `slopes` the gradient of its logits times `factor`; all sums in f64, tokens in order.
fn of_segment(router: &Router, logits: &[f32], chosen: &[u32], factor: f64, slopes: &mut [f32]) -> f64 {
    let (experts, tokens) = (router.experts, logits.len() / router.experts);
    let mut shares = logits.to_vec();
    let mut sums = vec![0.0f64; tokens];
    let mut means = vec![0.0f64; experts];
    for (row, sum) in shares.chunks_mut(experts).zip(&mut sums) {
        router.affinities(row);
        *sum = row.iter().map(|&s| f64::from(s)).sum::<f64>();
        means.iter_mut().zip(row).for_each(|(mean, s)| *mean += f64::from(*s) / *sum / tokens as f64);
    }
    let mut fractions = vec![0.0f64; experts];
    chosen.iter().for_each(|&expert| fractions[expert as usize] += 1.0);
    fractions.iter_mut().for_each(|f| *f *= experts as f64 / (router.chosen * tokens) as f64);
    let rows = shares.chunks(experts).zip(&sums).zip(slopes.chunks_mut(experts));
    for ((row, sum), slopes) in rows {
        let mean: f64 = row.iter().zip(&fractions).map(|(&s, f)| f * f64::from(s) / sum).sum();
        for ((slope, &s), f) in slopes.iter_mut().zip(row).zip(&fractions) {
            // By the quotient rule d(s_i / sum) = (f_i - mean) / sum, then through the sigmoid or the softmax, whose sum is 1.
            let inner = if router.sigmoid { f64::from(s) * (1.0 - f64::from(s)) } else { f64::from(s) };
            *slope = (factor / tokens as f64 * (f - mean) / sum * inner) as f32;
        }
    }
    means.iter().zip(&fractions).map(|(mean, f)| mean * f).sum()
}
