//! Multi-head latent attention (DeepSeek-V2 report, section 2.1), in absorbed form.
//!
//! The key half of `kv_b_proj` is applied to the query and the value half to what attention returns, so that attention runs over
//! the latent itself, as one key head of width `kv_lora + rope` that all query heads share. Both walks do it this way:
//! another order of operations would give other bits.
//!
//! In learning that costs arithmetic which expanded keys and values would not: a score has `kv_lora + rope` products instead of
//! `nope + rope`, a mixed value `kv_lora` instead of `value`, while the projections cost the same. With DeepSeek-V3's sizes
//! attention itself takes 3.4 times as many multiply-adds; for a model of 30 million parameters with a latent of 128 and
//! sequences of 256 tokens it is 1.8 times, 6% of a whole training step.

use std::sync::Arc;

use candle_core::Tensor;
use kernels::Param;
use kernels::ops::{self, LayerCache, Rope};

use crate::config::{Config, Latent};
use crate::error::Result;
use crate::transformer::{Batch, Build};
use crate::weights::{Entry, HubTensor, Source, Start};

/// The eps of the latents' norms: DeepSeek's constant, whatever the config says about the others.
const LATENT_EPS: f64 = 1e-6;

/// One layer's attention.
pub(crate) struct LatentAttention {
    shape: Latent,
    scale: f32,
    query: Query,
    kv_a: Param,
    kv_norm: Param,
    key: Param,
    value: Param,
    output: Param,
    rope: Arc<Rope>,
}

enum Query {
    Direct(Param),
    Latent { down: Param, norm: Param, up: Param },
}

impl LatentAttention {
    pub fn new(shape: &Latent, config: &Config, prefix: &str, rope: &Arc<Rope>, build: &mut Build<'_>) -> Result<Self> {
        let hidden = config.hidden;
        let name = |part: &str| format!("{prefix}.{part}.weight");
        let Latent { heads, kv_lora, nope, rope: rotated, value, .. } = *shape;
        let queries = heads * (nope + rotated);
        let query = match shape.q_lora {
            None => Query::Direct(build(Entry::whole(name("q_proj"), &[queries, hidden], Start::Normal))?),
            Some(lora) => Query::Latent {
                down: build(Entry::whole(name("q_a_proj"), &[lora, hidden], Start::Normal))?,
                norm: build(Entry::whole(name("q_a_layernorm"), &[lora], Start::Ones))?,
                up: build(Entry::whole(name("q_b_proj"), &[queries, lora], Start::Normal))?,
            },
        };
        let mut half = |part: &str, first: usize, rows: usize| {
            let tensor = HubTensor { name: name("kv_b_proj"), shape: vec![heads * (nope + value), kv_lora] };
            build(Entry {
                name: format!("{prefix}.kv_b_proj.{part}"),
                shape: vec![heads, rows, kv_lora],
                source: Source::HeadRows { tensor, stride: nope + value, first, rows },
                start: Start::Normal,
                trained: true,
                precise: false,
            })
        };
        let (key, value_half) = (half("key", 0, nope)?, half("value", nope, value)?);
        Ok(Self {
            scale: config.attention.score_scale() as f32,
            query,
            kv_a: build(Entry::whole(name("kv_a_proj_with_mqa"), &[kv_lora + rotated, hidden], Start::Normal))?,
            kv_norm: build(Entry::whole(name("kv_a_layernorm"), &[kv_lora], Start::Ones))?,
            key,
            value: value_half,
            output: build(Entry::whole(name("o_proj"), &[hidden, heads * value], Start::Normal))?,
            rope: rope.clone(),
            shape: shape.clone(),
        })
    }

    /// `[T, hidden]` to `[T, hidden]`.
    pub fn forward(&self, x: &Tensor, batch: &Batch<'_>, cache: Option<&mut LayerCache>) -> Result<Tensor> {
        let q = match &self.query {
            Query::Direct(w) => ops::linear(x, w, None)?,
            Query::Latent { down, norm, up } => {
                let latent = ops::rms_norm(&ops::linear(x, down, None)?, norm, LATENT_EPS)?;
                ops::linear(&latent, up, None)?
            }
        };
        let q = ops::latent_query(&q, &self.key, batch.positions, &self.rope)?;
        let kv = ops::linear(x, &self.kv_a, None)?;
        let k = ops::latent_key(&kv, &self.kv_norm, LATENT_EPS, batch.positions, &self.rope)?;
        let mixed = ops::latent_attention(&q, &k, self.shape.kv_lora, batch.segments, self.scale, cache)?;
        let values = ops::head_linear(&mixed, &self.value, false)?;
        Ok(ops::linear(&values, &self.output, None)?)
    }

    /// An empty cache for this layer.
    pub fn cache(&self, slots: usize, capacity: usize) -> LayerCache {
        LayerCache::new(slots, capacity, 1, self.shape.kv_lora + self.shape.rope, self.shape.kv_lora)
    }
}
