//! A model: its config, tokenizer, template and weights, as one folder holds them.

pub(crate) mod folder;
mod score;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::RoutedExperts;
use candle_core::{DType, Device, Tensor};
use kernels::Param;
use kernels::ops::{self, Segment};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::lora::{self, Adapters};
use crate::tokenizer::Tokenizer;
use crate::transformer::{Batch, Learning, Transformer, Watch, rope_of};
use crate::weights::{Entry, Kept};
use folder::Extras;

pub use score::Scores;

/// A transformer with all that is needed to talk to it.
pub struct Model {
    /// What the model is.
    pub config: Config,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    extras: Extras,
    weights: Vec<(Entry, Param)>,
    /// Tensors of the folder that are no parameters of ours and are saved as they were.
    kept: Vec<Kept>,
    notes: Vec<String>,
    /// What learns in place of the weights.
    pub(crate) adapters: Option<Adapters>,
    learning: Transformer,
    sampling: Transformer,
    device: Device,
    dtype: DType,
    version: AtomicU64,
}

/// The tokens of a pass without a graph: what a layer reads and writes stays in the caches. It changes no number.
const PASS: usize = 2048;

/// Whether a walk builds a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// Differentiable.
    Learn,
    /// The same numbers without a graph.
    Frozen,
}

/// A whole sequence whose end is to be learned or judged.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// The tokens, prompt and answer.
    pub tokens: &'a [u32],
    /// The first token that is a target, at least 1: a token with nothing before it has no probability.
    pub from: usize,
    /// The experts of all its tokens but the last, where they are to be replayed: routers then only weigh them, and the
    /// gradient flows through those weights (Ma et al., "Stabilizing MoE reinforcement learning by aligning training and
    /// inference routers", arXiv 2510.11370). All sequences of a walk have them or none.
    pub experts: Option<&'a RoutedExperts>,
}

impl<'a> Sequence<'a> {
    /// A sequence whose experts are chosen by the routers.
    pub fn new(tokens: &'a [u32], from: usize) -> Self {
        Self { tokens, from, experts: None }
    }
}

/// What the learning walk gives.
pub struct LogProbs {
    /// `[N]` f32: the natural log-probability of each target, sequence after sequence.
    pub values: Tensor,
    /// `[N]` f32: the entropy of the distribution that each target was drawn from, in nats.
    pub entropy: Tensor,
    /// For each MoE layer the number of tokens that each expert took.
    pub expert_load: Vec<Vec<usize>>,
    /// The sum over MoE layers and sequences of the balance loss, before its factor; 0 if [`Learning`] did not ask for it.
    pub balance: f64,
}

impl Model {
    /// Puts a model together from parameters that `source` gives, after its parts were found to fit each other.
    pub(crate) fn assemble(
        config: Config,
        tokenizer: Tokenizer,
        extras: Extras,
        (device, dtype): (&Device, DType),
        source: &mut dyn FnMut(&Entry) -> Result<Param>,
    ) -> Result<Self> {
        if let Some(misfit) = misfits(&config, &tokenizer, &extras)?.into_iter().next() {
            return Err(Error::Config(misfit));
        }
        let (eos, bos) = (extras.eos(&config)?, config.bos);
        let tokenizer = tokenizer
            .with_ends(&eos, bos)
            .with_end_names(extras.special_token("bos_token"), extras.special_token("eos_token"));
        let rope = rope_of(&config, device)?;
        let mut weights = Vec::new();
        let learning = Transformer::new(&config, &rope, &mut |entry| {
            let param = source(&entry)?;
            weights.push((entry, param.clone()));
            Ok(param)
        })?;
        let mut detached = weights.iter().map(|(_, param): &(Entry, Param)| param.detached());
        let sampling = Transformer::new(&config, &rope, &mut |entry| {
            detached.next().ok_or_else(|| Error::Config(format!("no parameter for `{}`", entry.name)))
        })?;
        drop(detached);
        let device = device.clone();
        let (kept, notes, adapters, version) = (Vec::new(), Vec::new(), None, AtomicU64::new(0));
        Ok(Self {
            config,
            tokenizer,
            extras,
            weights,
            kept,
            notes,
            adapters,
            learning,
            sampling,
            device,
            dtype,
            version,
        })
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// What products are computed in: F32 or BF16.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The most tokens that a sequence may have.
    pub fn context(&self) -> usize {
        self.config.context
    }

    /// What a user should know of how the weights of the folder were taken, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The chat template that came with the model.
    pub fn chat_template(&self) -> Option<&str> {
        self.extras.template.as_deref()
    }

    /// How templates write the beginning and the end of a sequence.
    pub fn special_texts(&self) -> (String, String) {
        (self.tokenizer.bos_token().to_string(), self.tokenizer.eos_token().to_string())
    }

    /// The parameters that learn.
    pub fn params(&self) -> Vec<Param> {
        if let Some(adapters) = &self.adapters {
            return adapters.params();
        }
        self.weights.iter().filter(|(entry, _)| entry.trained).map(|(_, param)| param.clone()).collect()
    }

    /// The number of parameters, and of those that one token is multiplied with.
    pub fn parameter_count(&self) -> (usize, usize) {
        parameter_count(&self.config, self.weights.iter().map(|(entry, _)| entry))
    }

    /// Whether weight decay applies to a parameter: not to norms, not to biases.
    pub fn decays(name: &str) -> bool {
        !(name.contains("norm") || name.ends_with("bias"))
    }

    /// A copy with weights of its own that takes no gradient: a reference model.
    pub fn frozen_copy(&self) -> Result<Self> {
        let mut own = self.weights.iter();
        let adapters = self.adapters.as_ref().map(Adapters::frozen_copy).transpose()?;
        let mut source = |entry: &Entry| {
            let (_, param) = own.next().ok_or_else(|| Error::Config(format!("no parameter for `{}`", entry.name)))?;
            match &adapters {
                // What is behind adapters never changes, so both can have it.
                Some((_, by_name)) => lora::exchanged(param, by_name),
                None => {
                    let copy = Param::frozen(&entry.name, param.value().detach())?;
                    Ok(copy.computing_in(param.compute_dtype())?)
                }
            }
        };
        let (config, tokenizer) = (self.config.clone(), self.tokenizer.clone());
        let place = (&self.device, self.dtype);
        let mut copy = Self::assemble(config, tokenizer, self.extras.clone(), place, &mut source)?;
        copy.kept = self.kept.clone();
        copy.adapters = adapters.map(|(adapters, _)| adapters);
        copy.set_version(self.version());
        Ok(copy)
    }

    /// Takes over the weights of a model of the same config.
    pub fn copy_from(&self, other: &Self) -> Result<()> {
        for (own, theirs) in self.own_params().iter().zip(other.own_params()) {
            own.set(&theirs.value().to_device(own.value().device())?)?;
        }
        self.set_version(other.version());
        Ok(())
    }

    /// Becomes `keep` times itself and `1 - keep` times a model of the same config, weight by weight (of adapters: adapter by
    /// adapter).
    pub fn average_with(&self, other: &Self, keep: f64) -> Result<()> {
        for (own, theirs) in self.own_params().iter().zip(other.own_params()) {
            let theirs = theirs.value().detach().to_device(own.value().device())?;
            own.set(&((own.value().detach() * keep)? + (theirs * (1.0 - keep))?)?)?;
        }
        self.set_version(other.version());
        Ok(())
    }

    /// All that tells the model from another of its config.
    fn own_params(&self) -> Vec<Param> {
        match &self.adapters {
            Some(adapters) => adapters.params(),
            None => self.weights.iter().map(|(_, param)| param.clone()).collect(),
        }
    }

    /// How many optimiser steps the weights have seen.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Says how many optimiser steps the weights have seen: after loading a checkpoint.
    pub fn set_version(&self, version: u64) {
        self.version.store(version, Ordering::Release);
    }

    /// Says that an optimiser step was made.
    pub fn bump_version(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// The parameters with their places in a checkpoint.
    pub(crate) fn weights(&self) -> &[(Entry, Param)] {
        &self.weights
    }

    /// The transformer whose forward pass builds no graph.
    pub(crate) fn sampling(&self) -> &Transformer {
        &self.sampling
    }

    /// Log-probability and entropy of the targets of whole sequences, packed without padding.
    ///
    /// # Errors
    /// A sequence that is longer than the model's context, a token beyond its vocabulary, a target with nothing before it,
    /// experts to replay that are not this model's.
    pub fn logprobs(&self, sequences: &[Sequence<'_>], temperature: f64, walk: Walk) -> Result<LogProbs> {
        if walk == Walk::Learn {
            return self.learn(sequences, temperature, Learning::default());
        }
        self.check_all(sequences)?;
        let mut passes = Vec::new();
        let mut rest = sequences;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |sequence: &&Sequence<'_>| {
                tokens += sequence.tokens.len();
                tokens <= PASS
            };
            let (pass, others) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            passes.push(self.walk(&self.sampling, pass, temperature, Learning::default())?);
            rest = others;
        }
        let joined = |part: fn(&LogProbs) -> &Tensor| Tensor::cat(&passes.iter().map(part).collect::<Vec<_>>(), 0);
        let (values, entropy) = (joined(|pass| &pass.values)?, joined(|pass| &pass.entropy)?);
        let loads = passes.into_iter().map(|pass| pass.expert_load);
        let expert_load = loads.reduce(|mut sum, load| {
            let counts = sum.iter_mut().flatten().zip(load.iter().flatten());
            counts.for_each(|(sum, count)| *sum += count);
            sum
        });
        Ok(LogProbs { values, entropy, expert_load: expert_load.unwrap_or_default(), balance: 0.0 })
    }

    /// [`Self::logprobs`] by the differentiable walk, made in a certain way.
    ///
    /// # Errors
    /// As for [`Self::logprobs`].
    pub fn learn(&self, sequences: &[Sequence<'_>], temperature: f64, how: Learning) -> Result<LogProbs> {
        self.check_all(sequences)?;
        self.walk(&self.learning, sequences, temperature, how)
    }

    fn check_all(&self, sequences: &[Sequence<'_>]) -> Result<()> {
        self.require_language()?;
        for (i, sequence) in sequences.iter().enumerate() {
            self.check(sequence.tokens).map_err(|message| Error::Request(format!("sequence {i} {message}")))?;
            // The last token is a target only: nothing comes after it that the model would have to say.
            if sequence.from == 0 || sequence.from + 1 > sequence.tokens.len() {
                return Err(Error::Request(format!(
                    "sequence {i} of {} tokens has no target after a first token (targets start at {})",
                    sequence.tokens.len(),
                    sequence.from
                )));
            }
        }
        if sequences.is_empty() {
            return Err(Error::Request("there is no sequence to compute log-probabilities of".into()));
        }
        for (i, sequence) in sequences.iter().enumerate() {
            if sequence.experts.is_some() != sequences[0].experts.is_some() {
                return Err(Error::Request(format!(
                    "sequences 0 and {i} of a walk: the experts of one of them are to be replayed"
                )));
            }
            let Some(RoutedExperts { layers, per_token, ids }) = sequence.experts else { continue };
            let expected: Vec<usize> = self.config.expert_layers().map(|experts| experts.router.chosen).collect();
            let count = expected.len();
            let fits = *layers == count && expected.iter().all(|chosen| chosen == per_token);
            if !fits || ids.len() != (sequence.tokens.len() - 1) * layers * per_token {
                return Err(Error::Request(format!(
                    "sequence {i} of {} tokens comes with {} experts of {layers} layers, {per_token} each; the model has \
                     {count} layers of experts",
                    sequence.tokens.len(),
                    ids.len()
                )));
            }
        }
        Ok(())
    }

    /// One pass over sequences that were checked.
    fn walk(
        &self,
        transformer: &Transformer,
        sequences: &[Sequence<'_>],
        temperature: f64,
        how: Learning,
    ) -> Result<LogProbs> {
        let (mut rows, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
        for sequence in sequences {
            let inputs = sequence.tokens.len() - 1;
            rows.extend((sequence.from - 1..inputs).map(|row| (start + row) as u32));
            targets.extend_from_slice(&sequence.tokens[sequence.from..]);
            start += inputs;
        }
        let inputs: Vec<&[u32]> =
            sequences.iter().map(|sequence| &sequence.tokens[..sequence.tokens.len() - 1]).collect();
        let replayed = replayed(sequences);
        let (hidden, expert_load, balance) = self.stream(transformer, &inputs, replayed.as_deref(), how)?;
        let hidden = ops::gather_rows(&hidden, &rows)?;
        let out = ops::token_logprobs(&hidden, transformer.head(), &targets, temperature)?;
        Ok(LogProbs { values: ops::column(&out, 0)?, entropy: ops::column(&out, 1)?, expert_load, balance })
    }

    /// The normalised residual stream of sequences, one after another, `[T, hidden]`; the tokens that each expert took, for
    /// each MoE layer; the sum of the balance loss. What is `replayed` is a part for each MoE layer.
    fn stream(
        &self,
        transformer: &Transformer,
        sequences: &[&[u32]],
        replayed: Option<&[Arc<[u32]>]>,
        how: Learning,
    ) -> Result<(Tensor, Vec<Vec<usize>>, f64)> {
        let total = sequences.iter().map(|tokens| tokens.len()).sum();
        let (mut positions, mut segments) = (Vec::with_capacity(total), Vec::with_capacity(sequences.len()));
        for tokens in sequences {
            segments.push(Segment { start: positions.len(), len: tokens.len(), slot: 0 });
            positions.extend(0..tokens.len() as u32);
        }
        let mut watch = Watch::default();
        let segments = segments.into();
        let batch = Batch { tokens: &sequences.concat(), positions: &positions, segments: &segments, replayed };
        let hidden = transformer.learn(&batch, how, &mut watch)?;
        let load = |(chosen, experts): (&Vec<u32>, &crate::config::Experts)| {
            let mut load = vec![0; experts.router.experts];
            chosen.iter().for_each(|&expert| load[expert as usize] += 1);
            load
        };
        let expert_load = watch.chosen()?.iter().zip(self.config.expert_layers()).map(load).collect();
        Ok((hidden, expert_load, watch.routing.iter().map(|routing| routing.balance).sum()))
    }

    /// Whether tokens can be read at all; the message goes on from the name of what holds them.
    pub(crate) fn check(&self, tokens: &[u32]) -> Result<(), String> {
        if tokens.len() > self.config.context {
            return Err(format!("has {} tokens; the model's context is {}", tokens.len(), self.config.context));
        }
        match tokens.iter().find(|&&token| token as usize >= self.config.vocab) {
            Some(token) => Err(format!("holds token {token}; the model's vocabulary has {}", self.config.vocab)),
            None => Ok(()),
        }
    }

    /// Moves each MoE layer's selection bias, where it has one, by `step` towards the experts with less than their share of `load` (one list
    /// for each MoE layer, as [`LogProbs::expert_load`], summed over passes). A model behind adapters stays as it is.
    pub fn balance(&self, load: &[Vec<usize>], step: f64) -> Result<()> {
        if self.adapters.is_some() {
            return Ok(());
        }
        for (mixture, load) in self.learning.mixtures().zip(load) {
            mixture.balance(load, step)?;
        }
        Ok(())
    }
}

/// What each layer of experts is to replay of sequences that were checked, packed.
fn replayed(sequences: &[Sequence<'_>]) -> Option<Vec<Arc<[u32]>>> {
    let experts: Vec<&RoutedExperts> = sequences.iter().map(|sequence| sequence.experts).collect::<Option<_>>()?;
    let RoutedExperts { layers, per_token, .. } = experts.first()?;
    let of_layer = |layer: usize| {
        let tokens = experts.iter().flat_map(|experts| experts.ids.chunks(layers * per_token));
        tokens
            .flat_map(|ids| &ids[layer * per_token..(layer + 1) * per_token])
            .map(|&expert| u32::from(expert))
            .collect()
    };
    Some((0..*layers).map(of_layer).collect())
}

/// The number of parameters, and of those that one token is multiplied with.
pub(crate) fn parameter_count<'a>(config: &Config, entries: impl IntoIterator<Item = &'a Entry>) -> (usize, usize) {
    let all: usize = entries.into_iter().map(Entry::elem_count).sum();
    (all, all - config.idle_parameters())
}

/// What keeps a tokenizer and the files beside it from serving a model of this config.
pub(crate) fn misfits(config: &Config, tokenizer: &Tokenizer, extras: &Extras) -> Result<Vec<String>> {
    let mut misfits = Vec::new();
    if tokenizer.vocab_size() > config.vocab {
        misfits.push(format!(
            "`vocab_size` is {}, and the tokenizer has ids up to {}; they don't belong together",
            config.vocab,
            tokenizer.vocab_size() - 1
        ));
    }
    let ends = extras.eos(config)?;
    let beyond = ends.iter().chain(&config.bos).filter(|&&id| id as usize >= config.vocab);
    misfits.extend(beyond.map(|id| format!("special token {id} lies beyond the vocabulary of {}", config.vocab)));
    Ok(misfits)
}
