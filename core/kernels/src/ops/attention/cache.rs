//! Keys and values that were seen before.

use std::sync::{Mutex, PoisonError};

use candle_core::{Result, Tensor, bail};

use super::Segment;
use super::kernel::Sizes;
use crate::gemm::PANEL;
use crate::pool;

/// The keys and values that one layer has seen, by slot.
pub struct LayerCache {
    slots: Vec<Slot>,
    capacity: usize,
    groups: usize,
    dk: usize,
    dv: usize,
    /// What a GPU has seen of all slots.
    #[cfg(feature = "cuda")]
    on_device: Option<crate::cuda::Cached>,
}

/// One sequence.
#[derive(Clone, Default)]
pub(super) struct Slot {
    len: usize,
    /// Panels of 32 tokens, `[panels, groups, dk, 32]`: what a product of queries and keys reads.
    pub(super) keys: Vec<f32>,
    /// `[tokens, groups, dv]`.
    pub(super) values: Vec<f32>,
    /// What composed operations have appended.
    composed: Option<(Tensor, Tensor)>,
}

impl LayerCache {
    /// An empty cache: `slots` sequences of up to `capacity` tokens, `groups` heads of keys of width `dk` and values of
    /// width `dv`.
    pub fn new(slots: usize, capacity: usize, groups: usize, dk: usize, dv: usize) -> Self {
        Self {
            slots: vec![Slot::default(); slots],
            capacity,
            groups,
            dk,
            dv,
            #[cfg(feature = "cuda")]
            on_device: None,
        }
    }

    /// The number of tokens in a slot.
    pub fn len(&self, slot: usize) -> usize {
        self.slots[slot].len
    }

    /// Whether a slot has no tokens.
    pub fn is_empty(&self, slot: usize) -> bool {
        self.len(slot) == 0
    }

    /// Empties a slot.
    pub fn clear(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        (slot.len, slot.composed) = (0, None);
    }

    /// Makes slot `to` a copy of slot `from` (a prompt's prefix for each of its completions).
    ///
    /// # Panics
    /// If a slot does not exist.
    pub fn fork(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        #[cfg(feature = "cuda")]
        if let Some(device) = &mut self.on_device {
            device.fork(from, to, self.slots[from].len);
        }
        let (panels, rows) = (self.panels(self.slots[from].len), self.slots[from].len * self.groups * self.dv);
        let panels = panels.min(self.slots[from].keys.len());
        let [from, to] = match self.slots.get_disjoint_mut([from, to]) {
            Ok(slots) => slots,
            Err(error) => panic!("fork: {error}"),
        };
        (to.len, to.composed) = (from.len, from.composed.clone());
        to.keys.clear();
        to.keys.extend_from_slice(&from.keys[..panels]);
        to.values.clear();
        to.values.extend_from_slice(&from.values[..rows.min(from.values.len())]);
    }

    /// Keeps the first `len` tokens of a slot.
    ///
    /// # Errors
    /// The device fails.
    pub fn truncate(&mut self, slot: usize, len: usize) -> Result<()> {
        let slot = &mut self.slots[slot];
        if len < slot.len {
            if let Some((keys, values)) = slot.composed.take().filter(|_| len > 0) {
                slot.composed = Some((keys.narrow(0, 0, len)?, values.narrow(0, 0, len)?));
            }
            slot.len = len;
        }
        Ok(())
    }

    /// The elements of the panels that `len` tokens need.
    fn panels(&self, len: usize) -> usize {
        len.div_ceil(PANEL) * PANEL * self.groups * self.dk
    }

    /// The most tokens of a slot.
    #[cfg(feature = "cuda")]
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes room for `added` tokens of a slot; the number that it had.
    #[cfg(feature = "cuda")]
    pub(crate) fn grow(&mut self, slot: usize, added: usize, sizes: (usize, usize, usize)) -> Result<usize> {
        self.check(slot, added, sizes.0, sizes.1, sizes.2)?;
        let len = &mut self.slots[slot].len;
        *len += added;
        Ok(*len - added)
    }

    /// What a GPU has seen; `make` allocates it for so many tokens the first time.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(
        &mut self,
        make: impl FnOnce(usize) -> Result<crate::cuda::Cached>,
    ) -> Result<&mut crate::cuda::Cached> {
        let tokens = self.slots.len() * self.capacity;
        if u32::try_from(tokens).is_err() {
            bail!("attention: a cache of {tokens} tokens; make it smaller than 2^32");
        }
        match &mut self.on_device {
            Some(device) => Ok(device),
            none => Ok(none.insert(make(tokens)?)),
        }
    }

    pub(super) fn slot(&self, slot: usize) -> &Slot {
        &self.slots[slot]
    }

    /// Refuses tensors of other sizes and tokens that there is no room for.
    fn check(&self, slot: usize, added: usize, groups: usize, dk: usize, dv: usize) -> Result<()> {
        if (groups, dk, dv) != (self.groups, self.dk, self.dv) {
            bail!("attention: the cache is for {} groups of {} and {}", self.groups, self.dk, self.dv);
        }
        let Some(Slot { len, .. }) = self.slots.get(slot) else {
            bail!("attention: slot {slot} of a cache of {}", self.slots.len());
        };
        if len + added > self.capacity {
            bail!("attention: slot {slot} has grown beyond its {} tokens", self.capacity);
        }
        Ok(())
    }

    /// Appends each segment's rows of keys `[T, groups, dk]` and of values, which are the first `dv` elements of each group of
    /// `value_width` in `[T, groups, value_width]`, to its slot.
    pub(super) fn append_segments(
        &mut self,
        &Sizes { groups, dk, dv, .. }: &Sizes,
        segments: &[Segment],
        keys: &[f32],
        (values, value_width): (&[f32], usize),
    ) -> Result<()> {
        let mut slots: Vec<Option<&mut Slot>> = Vec::new();
        for segment in segments {
            self.check(segment.slot, segment.len, groups, dk, dv)?;
            if self.slots[segment.slot].composed.is_some() {
                bail!("attention: this slot was filled by composed operations");
            }
        }
        slots.extend(self.slots.iter_mut().map(Some));
        let mut tasks = Vec::with_capacity(segments.len());
        for segment in segments {
            let Some(slot) = slots[segment.slot].take() else {
                bail!("attention: two segments are for slot {}", segment.slot);
            };
            tasks.push(Mutex::new((slot, segment)));
        }
        let grain = GRAIN.div_ceil((keys.len() / segments.len().max(1)).max(1));
        pool::run_ranges(tasks.len(), grain, |range| {
            for task in &tasks[range] {
                let (slot, segment) = &mut *task.lock().unwrap_or_else(PoisonError::into_inner);
                let rows =
                    |width: usize| segment.start * groups * width..(segment.start + segment.len) * groups * width;
                slot.append((groups, dk, dv), &keys[rows(dk)], &values[rows(value_width)], value_width);
            }
        });
        Ok(())
    }

    /// Appends the tensors of a composed operation; all that the slot has now.
    pub(crate) fn append(&mut self, slot: usize, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let (rows, groups, dk) = keys.dims3()?;
        self.check(slot, rows, groups, dk, values.dim(2)?)?;
        let slot = &mut self.slots[slot];
        let grown = match slot.composed.take() {
            Some((k, v)) => (Tensor::cat(&[&k, keys], 0)?, Tensor::cat(&[&v, values], 0)?),
            None if slot.len > 0 => bail!("attention: this slot was filled by fused operations"),
            None => (keys.clone(), values.clone()),
        };
        slot.len += rows;
        slot.composed = Some(grown.clone());
        Ok(grown)
    }
}

impl Slot {
    /// Appends rows of keys and values.
    fn append(&mut self, (groups, dk, dv): (usize, usize, usize), keys: &[f32], values: &[f32], value_width: usize) {
        let needed = (self.len + keys.len() / (groups * dk)).div_ceil(PANEL) * PANEL * groups * dk;
        if self.keys.len() < needed {
            self.keys.resize(needed, 0.0);
        }
        self.values.truncate(self.len * groups * dv);
        for key in keys.chunks(groups * dk) {
            let (panel, lane) = (self.len / PANEL, self.len % PANEL);
            let columns = self.keys[panel * groups * dk * PANEL..][..groups * dk * PANEL].chunks_mut(PANEL);
            columns.zip(key).for_each(|(column, x)| column[lane] = *x);
            self.len += 1;
        }
        for value in values.chunks(value_width) {
            self.values.extend_from_slice(&value[..dv]);
        }
    }
}

/// Elements below which a second thread costs more than it gives.
const GRAIN: usize = 1 << 12;
