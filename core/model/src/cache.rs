//! What the sampling walk remembers of each sequence, for all layers together.

use kernels::ops::LayerCache;

/// The caches of all layers. A slot holds one sequence.
pub struct Cache {
    layers: Vec<LayerCache>,
}

impl Cache {
    pub(crate) fn new(layers: Vec<LayerCache>) -> Self {
        Self { layers }
    }

    pub(crate) fn layer(&mut self, index: usize) -> &mut LayerCache {
        &mut self.layers[index]
    }

    /// Empties a slot.
    pub fn clear(&mut self, slot: usize) {
        self.layers.iter_mut().for_each(|layer| layer.clear(slot));
    }

    /// Makes slot `to` a copy of slot `from`.
    pub fn fork(&mut self, from: usize, to: usize) {
        self.layers.iter_mut().for_each(|layer| layer.fork(from, to));
    }
}
