//! Grouped-query attention (Ainslie et al., arXiv 2305.13245), with biases and norms where a config has them.
//!
//! The projections of queries, keys and values are one parameter, so that one product reads the input once; the heads are
//! taken out of its rows, normalised and rotated in one go.

use std::sync::Arc;

use candle_core::Tensor;
use kernels::Param;
use kernels::ops::{self, HeadRange, LayerCache, Rope};

use crate::config::{Config, Grouped};
use crate::error::Result;
use crate::transformer::{Batch, Build};
use crate::weights::{Entry, HubTensor, Start};

/// One layer's attention.
pub(crate) struct GroupedAttention {
    shape: Grouped,
    scale: f32,
    eps: f64,
    qkv: Param,
    qkv_bias: Option<Param>,
    norms: Option<Norms>,
    output: Param,
    output_bias: Option<Param>,
    rope: Arc<Rope>,
}

/// The norms of each head of queries and keys.
struct Norms {
    query: Param,
    key: Param,
}

impl GroupedAttention {
    pub fn new(
        shape: &Grouped,
        config: &Config,
        prefix: &str,
        rope: &Arc<Rope>,
        build: &mut Build<'_>,
    ) -> Result<Self> {
        let hidden = config.hidden;
        let Grouped { heads, groups, width, input_bias, output_bias, norm, .. } = *shape;
        let parts = [("q_proj", heads * width), ("k_proj", groups * width), ("v_proj", groups * width)];
        let joined = |kind: &str, columns: &[usize]| -> Vec<HubTensor> {
            let tensor = |(part, rows): (&str, usize)| HubTensor {
                name: format!("{prefix}.{part}.{kind}"),
                shape: [&[rows], columns].concat(),
            };
            parts.map(tensor).into()
        };
        let qkv =
            build(Entry::stacked(format!("{prefix}.qkv_proj.weight"), joined("weight", &[hidden]), Start::Normal))?;
        let qkv_bias = match input_bias {
            true => Some(build(Entry::stacked(format!("{prefix}.qkv_proj.bias"), joined("bias", &[]), Start::Zeros))?),
            false => None,
        };
        let norms = match norm {
            true => {
                let mut norm = |part| build(Entry::whole(format!("{prefix}.{part}.weight"), &[width], Start::Ones));
                Some(Norms { query: norm("q_norm")?, key: norm("k_norm")? })
            }
            false => None,
        };
        let output = format!("{prefix}.o_proj");
        Ok(Self {
            scale: config.attention.score_scale() as f32,
            eps: config.norm_eps,
            qkv,
            qkv_bias,
            norms,
            output: build(Entry::whole(format!("{output}.weight"), &[hidden, heads * width], Start::Normal))?,
            output_bias: match output_bias {
                true => Some(build(Entry::whole(format!("{output}.bias"), &[hidden], Start::Zeros))?),
                false => None,
            },
            rope: rope.clone(),
            shape: shape.clone(),
        })
    }

    /// `[T, hidden]` to `[T, hidden]`.
    pub fn forward(&self, x: &Tensor, batch: &Batch<'_>, cache: Option<&mut LayerCache>) -> Result<Tensor> {
        let Grouped { heads, groups, width, .. } = self.shape;
        let qkv = ops::linear(x, &self.qkv, self.qkv_bias.as_ref())?;
        let range = |first, count| HeadRange { first, count, width };
        let norm = |of: fn(&Norms) -> &Param| self.norms.as_ref().map(|norms| (of(norms), self.eps));
        let rotation = Some((batch.positions, &self.rope));
        let q = ops::heads(&qkv, range(0, heads), norm(|norms| &norms.query), rotation)?;
        let k = ops::heads(&qkv, range(heads, groups), norm(|norms| &norms.key), rotation)?;
        let v = ops::heads(&qkv, range(heads + groups, groups), None, None)?;
        let mixed = ops::attention(&q, &k, &v, batch.segments, self.scale, cache)?;
        Ok(ops::linear(&mixed, &self.output, self.output_bias.as_ref())?)
    }

    /// An empty cache for this layer.
    pub fn cache(&self, slots: usize, capacity: usize) -> LayerCache {
        LayerCache::new(slots, capacity, self.shape.groups, self.shape.width, self.shape.width)
    }
}
