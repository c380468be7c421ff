//! The router of a mixture of experts.

use candle_core::{Result, Tensor, bail};

use super::slow;

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
    /// all experts, and groups rank by their best.
    pub sigmoid: bool,
    /// The weights of the chosen are divided by their sum.
    pub normalize: bool,
    /// Multiplies the weights.
    pub scale: f64,
}

impl Router {
    pub(crate) fn check(&self, experts: usize, bias: Option<&[f32]>) -> Result<()> {
        let Self { groups, groups_kept, chosen, .. } = *self;
        if experts != self.experts || bias.is_some_and(|bias| bias.len() != experts) {
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

    /// The experts for one token's affinities, ascending. Equal affinities: the lower id.
    pub(crate) fn choose(&self, affinities: &[f32], bias: Option<&[f32]>, scratch: &mut Vec<f32>) -> Vec<u32> {
        scratch.clear();
        scratch.extend_from_slice(affinities);
        if let Some(bias) = bias {
            scratch.iter_mut().zip(bias).for_each(|(affinity, bias)| *affinity += bias);
        }
        if self.groups_kept < self.groups {
            let width = self.experts / self.groups;
            let rank = |group: &[f32]| {
                let best = |(first, second): (f32, f32), &x: &f32| {
                    if x > first { (x, first) } else { (first, second.max(x)) }
                };
                let (first, second) = group.iter().fold((f32::NEG_INFINITY, f32::NEG_INFINITY), best);
                if self.sigmoid && width > 1 { first + second } else { first }
            };
            let ranks: Vec<f32> = scratch.chunks(width).map(rank).collect();
            let kept = largest(&ranks, self.groups_kept);
            for (group, affinities) in scratch.chunks_mut(width).enumerate() {
                if !kept.contains(&(group as u32)) {
                    affinities.fill(f32::NEG_INFINITY);
                }
            }
        }
        largest(scratch, self.chosen)
    }
}

/// The indices of the `count` largest values, ascending; of equal ones the lower.
fn largest(values: &[f32], count: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    order.sort_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]).then(a.cmp(&b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// Chooses experts: logits `[T, E]` and a bias `[E]` for the choice only, to ids `[T * k]` (ascending within a token)
/// and weights `[T, k]`. The choice has no gradient; the weights have.
///
/// # Errors
/// A router that contradicts itself or the shapes.
pub fn route(logits: &Tensor, bias: Option<&[f32]>, router: &Router) -> Result<(Vec<u32>, Tensor)> {
    slow::route(logits, bias, router)
}
