//! The attention of a layer, of either kind.

mod grouped;
mod latent;

use std::sync::Arc;

use candle_core::Tensor;
use kernels::ops::{LayerCache, Rope};

use self::grouped::GroupedAttention;
use self::latent::LatentAttention;
use crate::config;
use crate::error::Result;
use crate::transformer::{Batch, Build};

/// One layer's attention.
pub(crate) enum Attention {
    Grouped(GroupedAttention),
    Latent(LatentAttention),
}

impl Attention {
    pub fn new(config: &config::Config, prefix: &str, rope: &Arc<Rope>, build: &mut Build<'_>) -> Result<Self> {
        Ok(match &config.attention {
            config::Attention::Grouped(shape) => {
                Self::Grouped(GroupedAttention::new(shape, config, prefix, rope, build)?)
            }
            config::Attention::Latent(shape) => Self::Latent(LatentAttention::new(shape, config, prefix, rope, build)?),
        })
    }

    /// `[T, hidden]` to `[T, hidden]`.
    pub fn forward(&self, x: &Tensor, batch: &Batch<'_>, cache: Option<&mut LayerCache>) -> Result<Tensor> {
        match self {
            Self::Grouped(attention) => attention.forward(x, batch, cache),
            Self::Latent(attention) => attention.forward(x, batch, cache),
        }
    }

    /// An empty cache for this layer.
    pub fn cache(&self, slots: usize, capacity: usize) -> LayerCache {
        match self {
            Self::Grouped(attention) => attention.cache(slots, capacity),
            Self::Latent(attention) => attention.cache(slots, capacity),
        }
    }
}
