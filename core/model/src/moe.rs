//! The feed-forward part of a layer: a gated MLP, or a mixture of such experts (DeepSeekMoE, V3 report section 2.1.2).

use std::sync::Arc;

use candle_core::Tensor;
use kernels::Param;
use kernels::ops::{self, Segment};

use crate::config::{ExpertNames, Experts, FeedForward};
use crate::error::Result;
use crate::transformer::Build;
use crate::weights::{Entry, Start};

/// One layer's feed-forward part.
pub(crate) enum Mixer {
    Dense(Mlp),
    Experts(Mixture),
}

/// A gated MLP: `down(silu(gate(x)) * up(x))`.
pub(crate) struct Mlp {
    gate_up: Param,
    down: Param,
}

/// A router, its experts, and the expert that every token takes.
pub(crate) struct Mixture {
    shape: Experts,
    router: Param,
    bias: Option<Param>,
    gate_up: Param,
    down: Param,
    shared: Option<Mlp>,
}

/// A balance loss that learning asks for.
pub(crate) struct Balance<'a> {
    /// The sequences.
    pub segments: &'a Arc<[Segment]>,
    /// Multiplies the loss of each.
    pub factor: f64,
}

/// What the router of a layer did.
pub struct Routing {
    /// The router's logits, `[T, E]`.
    pub logits: Tensor,
    /// The chosen experts; [`ops::chosen`] gives their numbers.
    pub experts: Arc<ops::Experts>,
    /// What their outputs are multiplied by, `[T, k]`.
    pub weights: Tensor,
    /// The sum of the sequences' balance losses before the factor; 0 if nobody asked.
    pub balance: f64,
}

impl Mixer {
    /// `prefix` is the layer's.
    pub fn new(shape: &FeedForward, hidden: usize, prefix: &str, build: &mut Build<'_>) -> Result<Self> {
        Ok(match shape {
            FeedForward::Dense(width) => Self::Dense(Mlp::new(hidden, *width, &format!("{prefix}.mlp"), build)?),
            FeedForward::Experts(experts) => Self::Experts(Mixture::new(experts, hidden, prefix, build)?),
        })
    }
}

impl Mlp {
    fn new(hidden: usize, width: usize, prefix: &str, build: &mut Build<'_>) -> Result<Self> {
        let halves = ["gate_proj", "up_proj"].map(|half| format!("{prefix}.{half}.weight"));
        let name = format!("{prefix}.gate_up_proj.weight");
        Ok(Self {
            gate_up: build(Entry::joined(name, &[2 * width, hidden], halves.into_iter(), &[width, hidden]))?,
            down: build(Entry::whole(format!("{prefix}.down_proj.weight"), &[hidden, width], Start::Normal))?,
        })
    }

    /// `[T, hidden]` to `[T, hidden]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let gated = ops::silu_mul(&ops::linear(x, &self.gate_up, None)?)?;
        Ok(ops::linear(&gated, &self.down, None)?)
    }
}

impl Mixture {
    fn new(shape: &Experts, hidden: usize, prefix: &str, build: &mut Build<'_>) -> Result<Self> {
        let (count, width) = (shape.router.experts, shape.width);
        let (part, [gate, up, down]) = match shape.names {
            ExpertNames::Mlp => ("mlp", ["gate_proj", "up_proj", "down_proj"]),
            ExpertNames::BlockSparse => ("block_sparse_moe", ["w1", "w3", "w2"]),
        };
        let prefix = format!("{prefix}.{part}");
        let gates = (0..count).flat_map(|e| [gate, up].map(|half| format!("{prefix}.experts.{e}.{half}.weight")));
        let downs = (0..count).map(|e| format!("{prefix}.experts.{e}.{down}.weight"));
        let gate_up = format!("{prefix}.experts.gate_up_proj");
        let down = format!("{prefix}.experts.down_proj");
        let bias = || Entry {
            trained: false,
            ..Entry::whole(format!("{prefix}.gate.e_score_correction_bias"), &[count], Start::Zeros)
        };
        let router =
            Entry { precise: true, ..Entry::whole(format!("{prefix}.gate.weight"), &[count, hidden], Start::Normal) };
        Ok(Self {
            router: build(router)?,
            bias: shape.selection_bias.then(|| build(bias())).transpose()?,
            gate_up: build(Entry::joined(gate_up, &[count, 2 * width, hidden], gates, &[width, hidden]))?,
            down: build(Entry::joined(down, &[count, hidden, width], downs, &[hidden, width]))?,
            shared: match shape.shared {
                0 => None,
                width => Some(Mlp::new(hidden, width, &format!("{prefix}.shared_experts"), build)?),
            },
            shape: shape.clone(),
        })
    }

    /// `[T, hidden]` to `[T, hidden]`, and what the router did. A choice that is `replayed` (`[T * k]`) is taken as it is.
    pub fn forward(
        &self,
        x: &Tensor,
        balance: Option<Balance<'_>>,
        replayed: Option<&[u32]>,
    ) -> Result<(Tensor, Routing)> {
        let logits = ops::linear(x, &self.router, None)?;
        let bias = self.bias.as_ref().map(Param::value);
        let (experts, mut weights) = ops::route(&logits, bias.as_ref(), &self.shape.router, replayed)?;
        let mut loss = 0.0;
        if let Some(Balance { segments, factor }) = balance {
            let chosen = ops::chosen(std::slice::from_ref(&experts))?.concat();
            (weights, loss) = ops::balance(&weights, &logits, &chosen, &self.shape.router, segments, factor)?;
        }
        let rows = ops::to_experts(x, &experts)?;
        let gated = ops::silu_mul(&ops::grouped_linear(&rows, &self.gate_up, &experts)?)?;
        let outputs = ops::grouped_linear(&gated, &self.down, &experts)?;
        let routed = ops::combine(&outputs, &weights, &experts)?;
        let sum = match &self.shared {
            Some(shared) => ops::add(&routed, &shared.forward(x)?)?,
            None => routed,
        };
        Ok((sum, Routing { logits, experts, weights, balance: loss }))
    }

    /// What is added to the affinities for the choice only, `[E]`.
    pub fn selection_bias(&self) -> Result<Option<Vec<f32>>> {
        Ok(self.bias.as_ref().map(|bias| bias.value().to_vec1()).transpose()?)
    }

    /// Moves the selection bias by `step` towards experts with less than their share of `load` (V3 report, section
    /// 2.1.2: balance without an auxiliary loss). A router without one stays as it is.
    pub fn balance(&self, load: &[usize], step: f64) -> Result<()> {
        let (Some(param), Some(mut bias)) = (&self.bias, self.selection_bias()?) else { return Ok(()) };
        let total: usize = load.iter().sum();
        for (bias, &count) in bias.iter_mut().zip(load) {
            match (count * load.len()).cmp(&total) {
                std::cmp::Ordering::Less => *bias += step as f32,
                std::cmp::Ordering::Greater => *bias -= step as f32,
                std::cmp::Ordering::Equal => {}
            }
        }
        let values = Tensor::new(bias, param.value().device())?;
        Ok(param.set(&values)?)
    }
}
