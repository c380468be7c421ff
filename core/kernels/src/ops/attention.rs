//! Causal attention over packed sequences, with or without a cache.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use super::slow;

/// One sequence's rows in the packed tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The first row.
    pub start: usize,
    /// The number of rows.
    pub len: usize,
    /// The cache slot that the rows are appended to; ignored without a cache.
    pub slot: usize,
}

/// The keys and values that one layer has seen, by slot.
pub struct LayerCache {
    slots: Vec<Option<(Tensor, Tensor)>>,
    capacity: usize,
    groups: usize,
    dk: usize,
    dv: usize,
}

impl LayerCache {
    /// An empty cache: `slots` sequences of up to `capacity` tokens, `groups` heads of keys of width `dk` and values of
    /// width `dv`.
    pub fn new(slots: usize, capacity: usize, groups: usize, dk: usize, dv: usize) -> Self {
        Self { slots: vec![None; slots], capacity, groups, dk, dv }
    }

    /// The number of tokens in a slot.
    pub fn len(&self, slot: usize) -> usize {
        self.slots[slot].as_ref().map_or(0, |(keys, _)| keys.dims()[0])
    }

    /// Whether a slot has no tokens.
    pub fn is_empty(&self, slot: usize) -> bool {
        self.len(slot) == 0
    }

    /// Empties a slot.
    pub fn clear(&mut self, slot: usize) {
        self.slots[slot] = None;
    }

    /// Makes slot `to` a copy of slot `from` (a prompt's prefix for each of its completions).
    pub fn fork(&mut self, from: usize, to: usize) {
        self.slots[to] = self.slots[from].clone();
    }

    /// Keeps the first `len` tokens of a slot.
    ///
    /// # Errors
    /// The device fails.
    pub fn truncate(&mut self, slot: usize, len: usize) -> Result<()> {
        if len < self.len(slot)
            && let Some((keys, values)) = self.slots[slot].take().filter(|_| len > 0)
        {
            self.slots[slot] = Some((keys.narrow(0, 0, len)?, values.narrow(0, 0, len)?));
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, slot: usize, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let (_, groups, dk) = keys.dims3()?;
        let dv = values.dim(2)?;
        if (groups, dk, dv) != (self.groups, self.dk, self.dv) {
            bail!("attention: the cache is for {} groups of {} and {}", self.groups, self.dk, self.dv);
        }
        let grown = match self.slots[slot].take() {
            Some((k, v)) => (Tensor::cat(&[&k, keys], 0)?, Tensor::cat(&[&v, values], 0)?),
            None => (keys.clone(), values.clone()),
        };
        if grown.0.dim(0)? > self.capacity {
            bail!("attention: slot {slot} has grown beyond its {} tokens", self.capacity);
        }
        self.slots[slot] = Some(grown.clone());
        Ok(grown)
    }
}

/// Causal attention: q `[T, H, Dk]`, k `[T, G, Dk]`, v `[T, G, Dv]` to `[T, H, Dv]`, head `h` reading key group
/// `h / (H / G)`. Each segment attends within itself; with a cache its rows are first appended to their slot and then
/// attend to all of it.
///
/// # Errors
/// Shapes that contradict each other, a segment that lies outside, a slot that is full.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &Arc<[Segment]>,
    scale: f32,
    cache: Option<&mut LayerCache>,
) -> Result<Tensor> {
    slow::attention(q, k, v, segments, scale, cache)
}
