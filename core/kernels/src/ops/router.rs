//! The router of a mixture of experts.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::node::{Shared, fused, node, read};
use super::{Experts, elsewhere};
use crate::math::{exp_all, exp_of};
use crate::pool;

/// How a token's experts are chosen and weighed (DeepSeek-V3 report, eq. 12-16; with softmax, DeepSeek-V2 and most
/// others).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Router {
    /// The number of experts.
    pub experts: usize,
    /// The number of experts of a token.
    pub chosen: usize,
    /// The number of groups that the experts form; 1 for none.
    pub groups: usize,
    /// The number of groups that a token's experts may come from.
    pub groups_kept: usize,
    /// Affinities are sigmoids of the logits, and groups rank by the sum of their two best; otherwise a softmax over
    /// all experts, and groups rank by their best. Experts of other groups count as negative infinity (DeepSeek-V2 writes
    /// zero, which is the same where affinities are positive and no bias is added).
    pub sigmoid: bool,
    /// The weights of the chosen are divided by their sum.
    pub normalize: bool,
    /// Multiplies the weights.
    pub scale: f64,
}

impl Router {
    pub(crate) fn check(&self, experts: usize, bias: Option<&Tensor>) -> Result<()> {
        let Self { groups, groups_kept, chosen, .. } = *self;
        if experts != self.experts || bias.is_some_and(|bias| bias.dims() != [experts]) {
            bail!("route: logits or bias are not for {} experts", self.experts);
        }
        if groups == 0 || !experts.is_multiple_of(groups) || groups_kept == 0 || groups_kept > groups {
            bail!("route: {experts} experts don't form {groups} groups of which {groups_kept} are kept");
        }
        if chosen == 0 || chosen > experts / groups * groups_kept {
            bail!("route: {chosen} experts can't be chosen from {groups_kept} of {groups} groups of {experts}");
        }
        Ok(())
    }

    /// Whether a replayed choice has `chosen` experts for each token.
    pub(crate) fn check_replayed(&self, tokens: usize, replayed: Option<&[u32]>) -> Result<()> {
        let Some(replayed) = replayed else { return Ok(()) };
        if replayed.len() != tokens * self.chosen {
            bail!("route: {} replayed choices for {tokens} tokens of {} experts each", replayed.len(), self.chosen);
        }
        match replayed.iter().find(|&&expert| expert as usize >= self.experts) {
            Some(expert) => bail!("route: a replayed choice of expert {expert} of {}", self.experts),
            None => Ok(()),
        }
    }

    /// Writes the experts for one token's affinities, ascending, to `chosen`. Equal affinities: the lower id. `scratch` has
    /// room for an element for each expert and group.
    pub(crate) fn choose(&self, affinities: &[f32], bias: Option<&[f32]>, scratch: &mut [f32], chosen: &mut [u32]) {
        let (ranked, ranks) = scratch.split_at_mut(self.experts);
        ranked.copy_from_slice(affinities);
        if let Some(bias) = bias {
            ranked.iter_mut().zip(bias).for_each(|(affinity, bias)| *affinity += bias);
        }
        if self.groups_kept < self.groups {
            let width = self.experts / self.groups;
            for (rank, group) in ranks.iter_mut().zip(ranked.chunks(width)) {
                let best = |(first, second): (f32, f32), &x: &f32| {
                    if x > first { (x, first) } else { (first, second.max(x)) }
                };
                let (first, second) = group.iter().fold((f32::NEG_INFINITY, f32::NEG_INFINITY), best);
                *rank = if self.sigmoid && width > 1 { first + second } else { first };
            }
            for group in 0..self.groups {
                let better = |&other: &usize| outranks(ranks, other, group);
                if (0..self.groups).filter(better).count() >= self.groups_kept {
                    ranked[group * width..(group + 1) * width].fill(f32::NEG_INFINITY);
                }
            }
        }
        // As many passes as experts are chosen: no sorting, no allocation.
        for place in 0..chosen.len() {
            let free = |expert: &usize| !chosen[..place].contains(&(*expert as u32));
            let best = (0..self.experts)
                .filter(free)
                .reduce(|best, next| if outranks(ranked, next, best) { next } else { best });
            chosen[place] = best.unwrap_or(0) as u32;
        }
        chosen.sort_unstable();
    }
}

/// Whether element `a` comes before element `b`: it is greater, or equal and of a lower index. The order is total.
fn outranks(values: &[f32], a: usize, b: usize) -> bool {
    values[a].total_cmp(&values[b]).then(b.cmp(&a)).is_gt()
}

/// Chooses experts: logits `[T, E]` and a bias `[E]` for the choice only, to the experts of each token (ascending within
/// it) and their weights `[T, k]`. The choice has no gradient; the weights have.
///
/// Where the choice is `replayed` (`[T * k]`), it is taken as it is, and only the weights are computed.
///
/// # Errors
/// A router that contradicts itself or the shapes, a replayed choice of another size or of experts that don't exist.
pub fn route(
    logits: &Tensor,
    bias: Option<&Tensor>,
    router: &Router,
    replayed: Option<&[u32]>,
) -> Result<(Arc<Experts>, Tensor)> {
    if !fused(&[logits]) {
        return elsewhere::route(logits, bias, router, replayed);
    }
    let logits = &logits.contiguous()?;
    let (tokens, experts) = logits.dims2()?;
    router.check(experts, bias)?;
    router.check_replayed(tokens, replayed)?;
    let bias = bias.map(read).transpose()?;
    let bias = bias.as_deref();
    let (router, k) = (*router, router.chosen);
    let mut affinities = read(logits)?.to_vec();
    let (mut chosen, mut weights) = (vec![0u32; tokens * k], vec![0.0; tokens * k]);
    let (all, picks) = (Shared::new(affinities.as_mut_ptr()), Shared::new(weights.as_mut_ptr()));
    let ids = Shared::new(chosen.as_mut_ptr().cast());
    pool::run_ranges(tokens, (1usize << 12).div_ceil(experts * k), |range| {
        let mut scratch = vec![0.0; router.experts + router.groups];
        for token in range {
            // SAFETY: one token's parts of the three vectors, which have these sizes; u32 has the layout of f32.
            let (affinities, weights, chosen) = unsafe {
                (
                    std::slice::from_raw_parts_mut(all.at(token * experts), experts),
                    std::slice::from_raw_parts_mut(picks.at(token * k), k),
                    std::slice::from_raw_parts_mut(ids.at(token * k).cast::<u32>(), k),
                )
            };
            router.affinities(affinities);
            match replayed {
                Some(all) => chosen.copy_from_slice(&all[token * k..(token + 1) * k]),
                None => router.choose(affinities, bias, &mut scratch, chosen),
            }
            router.weigh(affinities, chosen, weights);
        }
    });
    let ids = chosen.clone();
    let weights = node("route", [logits], weights, (tokens, k), move |_, grad| {
        let mut dx = vec![0.0; tokens * experts];
        for (token, dx) in dx.chunks_mut(experts).enumerate() {
            let (affinities, slots) = (&affinities[token * experts..][..experts], token * k..(token + 1) * k);
            router.gradient(affinities, &ids[slots.clone()], &grad[slots], dx);
        }
        Ok([Some(dx)])
    })?;
    Ok((Arc::new(Experts::new(&chosen, k, experts)), weights))
}

impl Router {
    /// Turns one token's logits into affinities, in place.
    pub(super) fn affinities(&self, row: &mut [f32]) {
        if self.sigmoid {
            row.iter_mut().for_each(|x| *x = -*x);
            exp_all(row);
            row.iter_mut().for_each(|x| *x = 1.0 / (1.0 + *x));
        } else {
            let sum = exp_of(row);
            row.iter_mut().for_each(|x| *x /= sum);
        }
    }

    fn sum_of(&self, affinities: &[f32], chosen: &[u32]) -> f32 {
        chosen.iter().map(|&expert| affinities[expert as usize]).sum::<f32>() + 1e-20
    }

    fn weigh(&self, affinities: &[f32], chosen: &[u32], weights: &mut [f32]) {
        let sum = if self.normalize { self.sum_of(affinities, chosen) } else { 1.0 };
        for (weight, &expert) in weights.iter_mut().zip(chosen) {
            *weight = affinities[expert as usize] / sum * self.scale as f32;
        }
    }

    /// The gradient of one token's logits, `dx` being zero.
    fn gradient(&self, affinities: &[f32], chosen: &[u32], grad: &[f32], dx: &mut [f32]) {
        let each = || chosen.iter().map(|&expert| expert as usize).zip(grad);
        let (sum, mean) = if self.normalize {
            let sum = self.sum_of(affinities, chosen);
            (sum, each().map(|(expert, g)| g * affinities[expert] / sum).sum::<f32>())
        } else {
            (1.0, 0.0)
        };
        for (expert, g) in each() {
            dx[expert] = (g - mean) / sum * self.scale as f32;
        }
        if self.sigmoid {
            dx.iter_mut().zip(affinities).for_each(|(d, a)| *d *= a * (1.0 - a));
        } else {
            let mean: f32 = dx.iter().zip(affinities).map(|(d, a)| d * a).sum();
            dx.iter_mut().zip(affinities).for_each(|(d, a)| *d = a * (*d - mean));
        }
    }
}
