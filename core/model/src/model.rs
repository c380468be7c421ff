//! A model: its config, tokenizer, template and weights, as one folder holds them.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use base::RngKey;
use candle_core::{DType, Device, Tensor};
use kernels::Param;
use kernels::ops::{self, Segment};
use serde_json::{Map, Value, json};

use crate::config::{Config, OneOrMany};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use crate::transformer::{Batch, Learning, Transformer, Watch, rope_of};
use crate::weights::{self, Checkpoint, Entry, Random};

/// A transformer with all that is needed to talk to it.
pub struct Model {
    /// What the model is.
    pub config: Config,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    extras: Extras,
    weights: Vec<(Entry, Param)>,
    learning: Transformer,
    sampling: Transformer,
    device: Device,
    dtype: DType,
    version: AtomicU64,
}

/// Files of a model folder that are kept as they were.
#[derive(Clone, Default)]
struct Extras {
    generation: Option<Map<String, Value>>,
    tokenizer: Option<Map<String, Value>>,
    template: Option<String>,
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
    /// Reads a Hugging Face model folder onto a device, weights in f32. `dtype` is what its products are computed in: F32 or
    /// BF16.
    ///
    /// # Errors
    /// A file that is missing, truncated or of another kind, an architecture that is not known, and tensors that are
    /// missing, extra or misshapen, by name.
    pub fn load(folder: &Path, device: &Device, dtype: DType) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(Error::io("read", &path))
        };
        let optional = |name: &str| folder.join(name).is_file().then(|| read(name)).transpose();
        let object = |name: &str| -> Result<Option<Map<String, Value>>> {
            let parse = |text: String| serde_json::from_str(&text);
            optional(name)?.map(parse).transpose().map_err(|error| Error::file(&folder.join(name), error.to_string()))
        };
        let path = folder.join("config.json");
        let config = Config::from_json(&read("config.json")?).map_err(|error| Error::file(&path, error.to_string()))?;
        let mut extras = Extras {
            generation: object("generation_config.json")?,
            tokenizer: object("tokenizer_config.json")?,
            template: optional("chat_template.jinja")?,
        };
        if extras.template.is_none() {
            extras.template = extras.template_of_tokenizer();
        }
        let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
        let mut checkpoint = Checkpoint::open(folder)?;
        let mut source = |entry: &Entry| {
            // A tensor that does not fit is a finding that ends the reading below, with all others.
            let Some(values) = checkpoint.gather(entry)? else {
                return Ok(Param::frozen(&entry.name, Tensor::zeros(1, DType::F32, device)?)?);
            };
            entry.param(values, device, dtype)
        };
        let model = Self::assemble(config, tokenizer, extras, (device, dtype), &mut source)?;
        let (layers, further) = (model.config.feed_forward.len(), model.config.further_layers());
        checkpoint.finish(|name| {
            let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
            name.ends_with("rotary_emb.inv_freq")
                || layer.is_some_and(|i: usize| (layers..layers + further).contains(&i))
        })?;
        Ok(model)
    }

    /// A model with random weights: matrices normal with the config's `initializer_range`, norms one. A tensor's numbers
    /// depend on `key` and its name alone. `dtype` as for [`Self::load`].
    ///
    /// # Errors
    /// A config, tokenizer or template that can't be read.
    pub fn init(
        config_json: &Path,
        tokenizer_json: &Path,
        chat_template: Option<&Path>,
        key: RngKey,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let read = |path: &Path| std::fs::read_to_string(path).map_err(Error::io("read", path));
        let config =
            Config::from_json(&read(config_json)?).map_err(|error| Error::file(config_json, error.to_string()))?;
        let tokenizer = Tokenizer::from_file(tokenizer_json)?;
        let extras = Extras { template: chat_template.map(read).transpose()?, ..Extras::default() };
        Self::with_random_weights(config, tokenizer, extras, key, (device, dtype))
    }

    /// A model with random weights, as [`Model::init`] makes it, of a config and a tokenizer that need no files.
    ///
    /// # Errors
    /// A tokenizer with more tokens than the config has.
    pub fn random(config: Config, tokenizer: Tokenizer, key: RngKey, device: &Device, dtype: DType) -> Result<Self> {
        Self::with_random_weights(config, tokenizer, Extras::default(), key, (device, dtype))
    }

    fn with_random_weights(
        config: Config,
        tokenizer: Tokenizer,
        extras: Extras,
        key: RngKey,
        (device, dtype): (&Device, DType),
    ) -> Result<Self> {
        let random = Random { key, deviation: config.initializer_range };
        let mut source = |entry: &Entry| entry.param(random.gather(entry)?, device, dtype);
        Self::assemble(config, tokenizer, extras, (device, dtype), &mut source)
    }

    fn assemble(
        config: Config,
        tokenizer: Tokenizer,
        extras: Extras,
        (device, dtype): (&Device, DType),
        source: &mut dyn FnMut(&Entry) -> Result<Param>,
    ) -> Result<Self> {
        if tokenizer.vocab_size() > config.vocab {
            return Err(Error::Config(format!(
                "`vocab_size` is {}, and the tokenizer has ids up to {}; they don't belong together",
                config.vocab,
                tokenizer.vocab_size() - 1
            )));
        }
        let (eos, bos) = (extras.eos(&config)?, config.bos);
        if let Some(id) = eos.iter().chain(&bos).find(|&&id| id as usize >= config.vocab) {
            return Err(Error::Config(format!("special token {id} lies beyond the vocabulary of {}", config.vocab)));
        }
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
        let version = AtomicU64::new(0);
        Ok(Self { config, tokenizer, extras, weights, learning, sampling, device, dtype, version })
    }

    /// Writes a Hugging Face model folder: the same bytes for the same model. Nothing is synced to the disk here.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(Error::io("write", &path))
        };
        let object = |map: Map<String, Value>| format!("{:#}\n", Value::Object(map));
        std::fs::create_dir_all(folder).map_err(Error::io("write", folder))?;
        write("config.json", &self.config.to_json())?;
        write("generation_config.json", &object(self.generation_config()))?;
        write("tokenizer_config.json", &object(self.tokenizer_config()))?;
        if let Some(template) = &self.extras.template {
            write("chat_template.jinja", template)?;
        }
        self.tokenizer.save(&folder.join("tokenizer.json"))?;
        weights::save(&folder.join("model.safetensors"), &self.weights)
    }

    fn generation_config(&self) -> Map<String, Value> {
        self.extras.generation.clone().unwrap_or_else(|| {
            let mut map = Map::new();
            map.insert("_from_model_config".into(), true.into());
            if let Some(bos) = self.config.bos {
                map.insert("bos_token_id".into(), bos.into());
            }
            match self.tokenizer.eos_ids() {
                [] => {}
                [one] => drop(map.insert("eos_token_id".into(), json!(one))),
                many => drop(map.insert("eos_token_id".into(), json!(many))),
            }
            map
        })
    }

    fn tokenizer_config(&self) -> Map<String, Value> {
        self.extras.tokenizer.clone().unwrap_or_else(|| {
            let mut map = Map::new();
            map.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
            for (key, token) in [("bos_token", self.tokenizer.bos_token()), ("eos_token", self.tokenizer.eos_token())] {
                if !token.is_empty() {
                    map.insert(key.into(), token.into());
                }
            }
            map.insert("clean_up_tokenization_spaces".into(), false.into());
            map.insert("model_max_length".into(), self.config.context.into());
            map
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
        self.weights.iter().filter(|(entry, _)| entry.trained).map(|(_, param)| param.clone()).collect()
    }

    /// The number of parameters, and of those that one token is multiplied with.
    pub fn parameter_count(&self) -> (usize, usize) {
        let all: usize = self.weights.iter().map(|(_, param)| param.elem_count()).sum();
        (all, all - self.config.idle_parameters())
    }

    /// Whether weight decay applies to a parameter: not to norms, not to biases.
    pub fn decays(name: &str) -> bool {
        !(name.contains("norm") || name.ends_with("bias"))
    }

    /// A copy with weights of its own that takes no gradient: a reference model.
    pub fn frozen_copy(&self) -> Result<Self> {
        let mut own = self.weights.iter();
        let mut source = |entry: &Entry| {
            let (_, param) = own.next().ok_or_else(|| Error::Config(format!("no parameter for `{}`", entry.name)))?;
            let value = param.value().detach().copy()?;
            Ok(Param::frozen(&entry.name, value)?.computing_in(param.compute_dtype())?)
        };
        let (config, tokenizer) = (self.config.clone(), self.tokenizer.clone());
        let copy = Self::assemble(config, tokenizer, self.extras.clone(), (&self.device, self.dtype), &mut source)?;
        copy.set_version(self.version());
        Ok(copy)
    }

    /// Takes over the weights of a model of the same config.
    pub fn copy_from(&self, other: &Self) -> Result<()> {
        for ((_, own), (_, theirs)) in self.weights.iter().zip(&other.weights) {
            own.set(&theirs.value().to_device(own.value().device())?)?;
        }
        self.set_version(other.version());
        Ok(())
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
    #[cfg(test)]
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
    /// A sequence that is longer than the model's context, a token beyond its vocabulary, a target with nothing before it.
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
        let total: usize = sequences.iter().map(|sequence| sequence.tokens.len()).sum();
        let (mut tokens, mut positions) = (Vec::with_capacity(total), Vec::with_capacity(total));
        let (mut rows, mut targets, mut segments) = (Vec::new(), Vec::new(), Vec::new());
        for sequence in sequences {
            let inputs = sequence.tokens.len() - 1;
            let start = tokens.len();
            tokens.extend_from_slice(&sequence.tokens[..inputs]);
            positions.extend(0..inputs as u32);
            rows.extend((sequence.from - 1..inputs).map(|row| (start + row) as u32));
            targets.extend_from_slice(&sequence.tokens[sequence.from..]);
            segments.push(Segment { start, len: inputs, slot: 0 });
        }
        let mut watch = Watch::default();
        let batch = Batch { tokens: &tokens, positions: &positions, segments: &segments.into() };
        let hidden = transformer.learn(&batch, how, &mut watch)?;
        let hidden = ops::gather_rows(&hidden, &rows)?;
        let out = ops::token_logprobs(&hidden, transformer.head(), &targets, temperature)?;
        let load = |(chosen, experts): (&Vec<u32>, &crate::config::Experts)| {
            let mut load = vec![0; experts.router.experts];
            chosen.iter().for_each(|&expert| load[expert as usize] += 1);
            load
        };
        let expert_load = watch.chosen()?.iter().zip(self.config.expert_layers()).map(load).collect();
        let balance = watch.routing.iter().map(|routing| routing.balance).sum();
        Ok(LogProbs { values: ops::column(&out, 0)?, entropy: ops::column(&out, 1)?, expert_load, balance })
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
    /// for each MoE layer, as [`LogProbs::expert_load`], summed over passes).
    pub fn balance(&self, load: &[Vec<usize>], step: f64) -> Result<()> {
        for (mixture, load) in self.learning.mixtures().zip(load) {
            mixture.balance(load, step)?;
        }
        Ok(())
    }
}

impl Extras {
    fn eos(&self, config: &Config) -> Result<Vec<u32>> {
        match self.generation.as_ref().and_then(|map| map.get("eos_token_id")) {
            None | Some(Value::Null) => Ok(config.eos.clone()),
            Some(value) => serde_json::from_value::<OneOrMany>(value.clone()).map(OneOrMany::into_vec).map_err(|_| {
                Error::Config("`eos_token_id` in generation_config.json is neither a token id nor a list".into())
            }),
        }
    }

    /// A special token as `tokenizer_config.json` writes it: text, or an object with its text.
    fn special_token(&self, key: &str) -> Option<String> {
        let value = self.tokenizer.as_ref()?.get(key)?;
        value.as_str().or_else(|| value.get("content")?.as_str()).map(String::from)
    }

    /// The template inside `tokenizer_config.json`, where older folders keep it: text, or a list of named ones.
    fn template_of_tokenizer(&self) -> Option<String> {
        let value = self.tokenizer.as_ref()?.get("chat_template")?;
        let default = || value.as_array()?.iter().find(|named| named["name"] == "default")?["template"].as_str();
        value.as_str().or_else(default).map(String::from)
    }
}
