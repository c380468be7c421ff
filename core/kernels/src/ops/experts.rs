//! Which token goes to which expert.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::elsewhere;

/// The pairs (token, slot) of one step, sorted by expert and then by token.
///
/// A token has `k` slots; slot numbers run over `[T * k]`.
#[derive(Clone, Debug)]
pub struct Experts {
    /// `[T * k]`: the expert of each slot.
    chosen: Vec<u32>,
    /// `[E + 1]`: expert `e` has the pairs `offsets[e]..offsets[e + 1]`.
    pub offsets: Vec<usize>,
    /// `[P]`: the token of each pair.
    pub rows: Vec<u32>,
    /// `[P]`: the slot of each pair, an index into `[T * k]`.
    pub slots: Vec<u32>,
    /// `[T * k]`: the pair of each slot.
    pub(crate) pairs: Vec<u32>,
    /// The number of slots of a token.
    pub(crate) per_token: usize,
    /// All of it, where a GPU has chosen; the host's lists are empty then.
    #[cfg(feature = "cuda")]
    pub(crate) on_device: Option<Arc<crate::cuda::Sorted>>,
}

impl Experts {
    /// Sorts the choice `chosen` (`[T * k]`, each below `experts`) by expert.
    ///
    /// # Panics
    /// If a chosen id is not below `experts`, or `k` is 0.
    pub fn new(chosen: &[u32], k: usize, experts: usize) -> Self {
        let mut offsets = vec![0; experts + 1];
        for &expert in chosen {
            offsets[expert as usize + 1] += 1;
        }
        for expert in 0..experts {
            offsets[expert + 1] += offsets[expert];
        }
        let mut next = offsets.clone();
        let mut rows = vec![0; chosen.len()];
        let mut slots = vec![0; chosen.len()];
        let mut pairs = vec![0; chosen.len()];
        for (slot, &expert) in chosen.iter().enumerate() {
            let pair = next[expert as usize];
            next[expert as usize] += 1;
            rows[pair] = (slot / k) as u32;
            slots[pair] = slot as u32;
            pairs[slot] = pair as u32;
        }
        Self {
            chosen: chosen.to_vec(),
            offsets,
            rows,
            slots,
            pairs,
            per_token: k,
            #[cfg(feature = "cuda")]
            on_device: None,
        }
    }

    /// What a GPU has chosen and sorted.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(sorted: Arc<crate::cuda::Sorted>, k: usize) -> Self {
        Self { on_device: Some(sorted), ..Self::new(&[], k, 0) }
    }

    /// `[T * k]`: the expert of each slot, as the host has chosen.
    pub(crate) fn on_host(&self) -> Vec<u32> {
        self.chosen.clone()
    }

    /// The number of tokens of each expert, `[E]`.
    pub fn load(&self) -> Vec<usize> {
        self.offsets.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

/// The rows of x `[T, D]` in the order of the pairs, `[P, D]`.
///
/// # Errors
/// Shapes that don't fit.
pub fn to_experts(x: &Tensor, experts: &Arc<Experts>) -> Result<Tensor> {
    elsewhere::to_experts(x, experts)
}

/// What several layers chose, each `[T * k]`.
///
/// # Errors
/// The device fails.
pub fn chosen(layers: &[Arc<Experts>]) -> Result<Vec<Vec<u32>>> {
    elsewhere::chosen(layers)
}
