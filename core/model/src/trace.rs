//! What a model computes on its way from tokens to logits, for comparisons with other implementations.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;
use kernels::ops::Segment;

use crate::config::FeedForward;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::transformer::{Batch, Watch};

/// The tensors of one walk over whole sequences, packed without padding into T rows.
///
/// | name | shape | what |
/// |---|---|---|
/// | `embeddings` | `[T, hidden]` f32 | the embedding of each token |
/// | `hidden.L` | `[T, hidden]` f32 | the residual stream after layer L, before the last norm |
/// | `router.L.logits` | `[T, E]` f32 | the router of layer L, if that is a mixture of experts |
/// | `router.L.experts` | `[T, k]` u32 | the chosen experts, ascending |
/// | `router.L.weights` | `[T, k]` f32 | what their outputs are multiplied by |
/// | `logits` | `[T, vocab]` f32 | |
pub struct Trace {
    /// The tensors, by name.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Model {
    /// Walks over whole sequences, without a graph, and keeps what it sees.
    ///
    /// # Errors
    /// No sequence, an empty one, one that is longer than the model's context, a token beyond its vocabulary.
    pub fn trace(&self, sequences: &[&[u32]]) -> Result<Trace> {
        let mut positions = Vec::new();
        let mut segments = Vec::new();
        for (i, tokens) in sequences.iter().enumerate() {
            self.check(tokens).map_err(|message| Error::Request(format!("sequence {i} {message}")))?;
            if tokens.is_empty() {
                return Err(Error::Request(format!("sequence {i} has no tokens")));
            }
            segments.push(Segment { start: positions.len(), len: tokens.len(), slot: 0 });
            positions.extend(0..tokens.len() as u32);
        }
        if sequences.is_empty() {
            return Err(Error::Request("there is no sequence to trace".into()));
        }
        let (tokens, segments): (_, Arc<[Segment]>) = (sequences.concat(), segments.into());
        let batch = Batch { tokens: &tokens, positions: &positions, segments: &segments, replayed: None };
        let mut watch = Watch { stream: Some(Vec::new()), ..Watch::default() };
        let hidden = self.sampling().forward(&batch, None, &mut watch)?;
        let mut tensors = BTreeMap::from([("logits".to_string(), self.sampling().logits(&hidden)?)]);
        for (i, x) in watch.stream.take().into_iter().flatten().enumerate() {
            tensors.insert(i.checked_sub(1).map_or("embeddings".into(), |layer| format!("hidden.{layer}")), x);
        }
        let parts = self.config.feed_forward.iter().enumerate();
        let sparse = parts.filter(|(_, part)| matches!(part, FeedForward::Experts(_)));
        let chosen = watch.chosen()?;
        for ((layer, _), (routing, chosen)) in sparse.zip(watch.routing.into_iter().zip(chosen)) {
            let experts = Tensor::from_vec(chosen, routing.weights.shape(), routing.weights.device())?;
            tensors.insert(format!("router.{layer}.logits"), routing.logits);
            tensors.insert(format!("router.{layer}.experts"), experts);
            tensors.insert(format!("router.{layer}.weights"), routing.weights);
        }
        Ok(Trace { tensors })
    }
}
