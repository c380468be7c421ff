//! The transformer itself: one function for both walks.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use kernels::Param;
use kernels::ops::{self, LayerCache, Rope, Segment};

use crate::attention::Attention;
use crate::cache::Cache;
use crate::config::{Config, Head};
use crate::error::Result;
use crate::moe::{Balance, Mixer, Mixture, Routing};
use crate::weights::{Entry, Start};

/// The head of a reward model, `[1, hidden]`.
pub(crate) const SCORE: &str = "score.weight";

/// Gives the parameter of an entry: from a checkpoint, from random numbers, or from another transformer.
pub(crate) type Build<'a> = dyn FnMut(Entry) -> Result<Param> + 'a;

/// Tokens of one or more sequences, packed without padding.
pub struct Batch<'a> {
    /// The tokens of all sequences, one after another.
    pub tokens: &'a [u32],
    /// The position of each token within its sequence.
    pub positions: &'a [u32],
    /// Which tokens belong together.
    pub segments: &'a Arc<[Segment]>,
    /// The experts of each token for each layer of experts, `[T * k]`, where routers are not to choose.
    pub replayed: Option<&'a [Arc<[u32]>]>,
}

/// What a walk shows of itself besides its result.
#[derive(Default)]
pub(crate) struct Watch {
    /// What the router of each MoE layer did, in order of layers.
    pub routing: Vec<Routing>,
    /// The embeddings, then the residual stream after each layer, each `[T, hidden]`: if someone asks for them.
    pub stream: Option<Vec<Tensor>>,
}

impl Watch {
    /// The numbers of the experts that each MoE layer chose, each `[T * k]`: where a GPU has chosen, one download.
    pub fn chosen(&self) -> Result<Vec<Vec<u32>>> {
        let experts: Vec<_> = self.routing.iter().map(|routing| routing.experts.clone()).collect();
        Ok(ops::chosen(&experts)?)
    }

    fn stream(&mut self, x: &Tensor) {
        if let Some(stream) = &mut self.stream {
            stream.push(x.clone());
        }
    }
}

/// How the differentiable walk is made. None of it changes a number that the walk gives.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Learning {
    /// Of each layer only what enters it is kept; the backward pass computes the layer again. It takes about a quarter
    /// more time, and no bit of a gradient changes.
    pub recompute: bool,
    /// The sum over MoE layers and sequences of the sequence-wise balance loss (DeepSeek-V3 report, eq. 17-20), times this
    /// factor, counts as a part of the scalar that a backward pass starts from.
    pub balance: Option<f64>,
}

/// The layers, over parameters that build a graph or don't.
pub struct Transformer {
    embedding: Param,
    layers: Vec<Arc<Layer>>,
    norm: Param,
    head: Param,
    eps: f64,
}

struct Layer {
    attention_norm: Param,
    attention: Attention,
    mixer_norm: Param,
    mixer: Mixer,
    eps: f64,
}

impl Layer {
    /// `[T, hidden]` to `[T, hidden]`, and what the router did, where there is one. `balance` is the factor of the balance
    /// loss, `replayed` this layer's part of the batch's.
    fn forward(
        &self,
        x: &Tensor,
        batch: &Batch<'_>,
        cache: Option<&mut LayerCache>,
        balance: Option<f64>,
        replayed: Option<&[u32]>,
    ) -> Result<(Tensor, Option<Routing>)> {
        let normed = ops::rms_norm(x, &self.attention_norm, self.eps)?;
        let x = ops::add(x, &self.attention.forward(&normed, batch, cache)?)?;
        let normed = ops::rms_norm(&x, &self.mixer_norm, self.eps)?;
        let (mixed, routing) = match &self.mixer {
            Mixer::Dense(mlp) => (mlp.forward(&normed)?, None),
            Mixer::Experts(mixture) => {
                let balance = balance.map(|factor| Balance { segments: batch.segments, factor });
                let (mixed, routing) = mixture.forward(&normed, balance, replayed)?;
                (mixed, Some(routing))
            }
        };
        Ok((ops::add(&x, &mixed)?, routing))
    }
}

/// What is left to replay of a batch's choices, a part for each layer of experts.
struct Replay<'a>(std::slice::Iter<'a, Arc<[u32]>>);

impl<'a> Replay<'a> {
    fn next(&mut self, layer: &Layer) -> Option<&'a Arc<[u32]>> {
        match &layer.mixer {
            Mixer::Dense(_) => None,
            Mixer::Experts(_) => self.0.next(),
        }
    }
}

/// The tables of angles of a config's rotary embedding.
pub(crate) fn rope_of(config: &Config, device: &Device) -> Result<Arc<Rope>> {
    let (rotary, width) = config.attention.rotary();
    let table =
        Rope::new(&rotary.frequencies(width), rotary.table_scale(), config.context, rotary.interleaved, device)?;
    Ok(Arc::new(table))
}

impl Transformer {
    /// What [`Self::new`] asks for, in its order.
    pub(crate) fn entries(config: &Config) -> Result<Vec<Entry>> {
        // No angle is looked at, and the table of a long context is large.
        let mut short = config.clone();
        short.context = 1;
        let rope = rope_of(&short, &Device::Cpu)?;
        let nothing = Param::from_vec("", vec![0.0], 1, &Device::Cpu, false)?;
        let mut entries = Vec::new();
        Self::new(config, &rope, &mut |entry| {
            entries.push(entry);
            Ok(nothing.clone())
        })?;
        Ok(entries)
    }

    /// Asks `build` for every parameter of the config, always in the same order.
    pub(crate) fn new(config: &Config, rope: &Arc<Rope>, build: &mut Build<'_>) -> Result<Self> {
        let hidden = config.hidden;
        let embedding =
            build(Entry::whole("model.embed_tokens.weight".into(), &[config.vocab, hidden], Start::Normal))?;
        let mut layers = Vec::with_capacity(config.feed_forward.len());
        for (i, part) in config.feed_forward.iter().enumerate() {
            let prefix = format!("model.layers.{i}");
            let norm = |name: &str| Entry::whole(format!("{prefix}.{name}.weight"), &[hidden], Start::Ones);
            layers.push(Arc::new(Layer {
                attention_norm: build(norm("input_layernorm"))?,
                attention: Attention::new(config, &format!("{prefix}.self_attn"), rope, build)?,
                mixer_norm: build(norm("post_attention_layernorm"))?,
                mixer: Mixer::new(part, hidden, &prefix, build)?,
                eps: config.norm_eps,
            }));
        }
        let norm = build(Entry::whole("model.norm.weight".into(), &[hidden], Start::Ones))?;
        let head = match config.head {
            Head::Tied => embedding.clone(),
            Head::Own => build(Entry::whole("lm_head.weight".into(), &[config.vocab, hidden], Start::Normal))?,
            Head::Score => {
                let entry = Entry::whole(SCORE.into(), &[1, hidden], Start::Normal);
                build(Entry { precise: true, ..entry })?
            }
        };
        Ok(Self { embedding, layers, norm, head, eps: config.norm_eps })
    }

    /// The normalised residual stream after the last layer, `[T, hidden]`. With a cache the tokens are appended to their
    /// slots.
    pub(crate) fn forward(
        &self,
        batch: &Batch<'_>,
        mut cache: Option<&mut Cache>,
        watch: &mut Watch,
    ) -> Result<Tensor> {
        let mut x = ops::embed(&self.embedding, batch.tokens)?;
        watch.stream(&x);
        let mut replay = Replay(batch.replayed.unwrap_or_default().iter());
        for (i, layer) in self.layers.iter().enumerate() {
            let layer_cache = cache.as_deref_mut().map(|cache| cache.layer(i));
            let (next, routing) =
                layer.forward(&x, batch, layer_cache, None, replay.next(layer).map(|replayed| &**replayed))?;
            watch.routing.extend(routing);
            watch.stream(&next);
            x = next;
        }
        Ok(ops::rms_norm(&x, &self.norm, self.eps)?)
    }

    /// [`Self::forward`] without a cache, in the way that learning asks for.
    pub(crate) fn learn(&self, batch: &Batch<'_>, how: Learning, watch: &mut Watch) -> Result<Tensor> {
        let mut x = ops::embed(&self.embedding, batch.tokens)?;
        let positions: Arc<[u32]> = batch.positions.into();
        let mut replay = Replay(batch.replayed.unwrap_or_default().iter());
        for layer in &self.layers {
            let replayed = replay.next(layer);
            let (next, routing) = if how.recompute {
                let (layer, positions, segments) = (layer.clone(), positions.clone(), batch.segments.clone());
                let replayed = replayed.cloned();
                kernels::recompute(&x, move |x| {
                    // A layer knows places, not tokens.
                    let batch = Batch { tokens: &[], positions: &positions, segments: &segments, replayed: None };
                    layer.forward(x, &batch, None, how.balance, replayed.as_deref()).map_err(candle_core::Error::wrap)
                })?
            } else {
                layer.forward(&x, batch, None, how.balance, replayed.map(|replayed| &**replayed))?
            };
            watch.routing.extend(routing);
            x = next;
        }
        Ok(ops::rms_norm(&x, &self.norm, self.eps)?)
    }

    /// Logits `[N, V]` of rows of [`Self::forward`]; of a reward model `[N, 1]` scores.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(hidden, &self.head, None)?)
    }

    /// The output projection `[V, hidden]`, of a reward model `[1, hidden]`.
    pub(crate) fn head(&self) -> &Param {
        &self.head
    }

    /// The mixtures of experts, in order of layers.
    pub(crate) fn mixtures(&self) -> impl Iterator<Item = &Mixture> {
        self.layers.iter().filter_map(|layer| match &layer.mixer {
            Mixer::Experts(mixture) => Some(mixture),
            Mixer::Dense(_) => None,
        })
    }

    /// Empty caches for `slots` sequences of up to `capacity` tokens.
    pub fn cache(&self, slots: usize, capacity: usize) -> Cache {
        Cache::new(self.layers.iter().map(|layer| layer.attention.cache(slots, capacity)).collect())
    }
}
