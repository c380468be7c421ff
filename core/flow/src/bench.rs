//! How fast a model samples and learns on this machine, measured on the code that runs use.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use base::{Completion, Prompt, RngKey};
use model::sampler::{self, Request};
use model::{Model, Sequence};

use crate::error::Error;
use crate::stages::learning::Learner;

/// The sizes of what is measured.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Tokens of a prompt.
    pub prompt: usize,
    /// Tokens of a completion.
    pub completion: usize,
    /// Sequences of a training step.
    pub sequences: usize,
    /// Tokens of each of them.
    pub length: usize,
    /// Prompts of a GRPO step.
    pub prompts: usize,
    /// Completions of each of them.
    pub group: usize,
    /// The most tokens in one forward pass of learning.
    pub tokens_per_pass: usize,
}

/// A model under measurement.
pub struct Bench {
    model: Arc<Model>,
    sizes: Sizes,
    key: RngKey,
}

/// What a GRPO step took.
#[derive(Clone, Copy, Debug)]
pub struct GrpoStep {
    /// Seconds in all.
    pub seconds: f64,
    /// Seconds of sampling.
    pub sampling: f64,
    /// Tokens that were sampled.
    pub sampled: usize,
    /// Tokens that were learned from, prompts included.
    pub learned: usize,
    /// The greatest difference between the log-probability that learning computed and the recorded one.
    pub difference: f64,
}

impl Bench {
    /// Measures `model`, which no token ends: every completion has its full length.
    pub fn new(mut model: Model, sizes: Sizes) -> Self {
        model.tokenizer = model.tokenizer.with_ends(&[], None);
        Self { model: Arc::new(model), sizes, key: RngKey::new(17, "bench") }
    }

    /// Tokens that cover the vocabulary, other ones for another `salt`.
    fn tokens(&self, salt: u32, count: usize) -> Vec<u32> {
        let vocab = self.model.config.vocab as u32;
        (0..count as u32).map(|i| self.key.words([salt, i, 0, 0])[0] % vocab).collect()
    }

    fn request(&self, index: usize, completions: usize) -> Request {
        let prompt = Prompt {
            id: index as u64,
            source: "bench".into(),
            messages: Vec::new(),
            text: String::new(),
            tokens: self.tokens(index as u32, self.sizes.prompt),
            reference: None,
            response: None,
            learned: Vec::new(),
            fields: Vec::new(),
        };
        Request { prompt: Arc::new(prompt), index: index as u64, completions }
    }

    fn sample(&self, requests: &[Request], slots: usize) -> Result<Vec<Vec<Completion>>, Error> {
        let settings = sampler::Settings::new(self.sizes.completion, slots);
        let mut groups = vec![Vec::new(); requests.len()];
        sampler::sample(
            &self.model,
            requests,
            &settings,
            self.key,
            0,
            &AtomicBool::new(false),
            &mut |i, completions| {
                groups[i] = completions;
            },
        )
        .map_err(Error::model)?;
        Ok(groups)
    }

    /// Sampled tokens a second of `batch` prompts with a completion each, prompts included in the time.
    ///
    /// # Errors
    /// The model fails, or its context is too short.
    pub fn sampling(&self, batch: usize) -> Result<f64, Error> {
        let requests: Vec<Request> = (0..batch).map(|index| self.request(index, 1)).collect();
        let (_, seconds) = timed(|| self.sample(&requests, batch))?;
        Ok((batch * self.sizes.completion) as f64 / seconds)
    }

    fn learner(&self) -> Result<Learner, Error> {
        let optimizer = spec::Optimizer {
            learning_rate: 1e-6,
            schedule: spec::LearningRate::Constant,
            warmup: 0,
            min_ratio: 0.0,
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip_norm: Some(1.0),
        };
        let learning = spec::Learning {
            model: "bench".into(),
            minibatches: 1,
            optimizer,
            router_bias_step: 0.001,
            balance_loss: None,
            recompute: false,
            tokens_per_pass: self.sizes.tokens_per_pass,
        };
        Learner::new("bench", self.model.clone(), &learning, 1)
    }

    /// Tokens a second of `steps` training steps (forward, backward, AdamW), after one that is not counted.
    ///
    /// # Errors
    /// The model fails, or its context is too short.
    pub fn training(&self, steps: usize) -> Result<f64, Error> {
        let Sizes { sequences, length, .. } = self.sizes;
        let texts: Vec<Vec<u32>> = (0..sequences).map(|i| self.tokens(1000 + i as u32, length)).collect();
        let rows: Vec<Sequence<'_>> = texts.iter().map(|tokens| Sequence::new(tokens, 1)).collect();
        let learner = self.learner()?;
        let targets = sequences * (length - 1);
        let step = || {
            learner.update(0, &rows, 1.0, &mut |pass, walk| {
                let weights = vec![1.0 / targets as f64; pass.len() * (length - 1)];
                learn::sft_loss(&walk.values, &weights).map_err(Error::model)
            })
        };
        step()?;
        let (_, seconds) = timed(|| (0..steps).try_for_each(|_| step().map(drop)))?;
        Ok((steps * sequences * length) as f64 / seconds)
    }

    /// One step of GRPO: groups are sampled, rewarded by a trivial rule, and learned from in one update (mean over tokens,
    /// no KL).
    ///
    /// # Errors
    /// The model fails, or its context is too short.
    pub fn grpo_step(&self) -> Result<GrpoStep, Error> {
        let requests: Vec<Request> = (0..self.sizes.prompts).map(|i| self.request(i, self.sizes.group)).collect();
        let learner = self.learner()?;
        let start = Instant::now();
        let (groups, sampling) = timed(|| self.sample(&requests, self.sizes.prompts * self.sizes.group))?;
        let (mut texts, mut recorded, mut advantages) = (Vec::new(), Vec::new(), Vec::new());
        for (request, group) in requests.iter().zip(&groups) {
            let rewards: Vec<_> = group.iter().map(|c| Some(f64::from(c.tokens.iter().sum::<u32>() % 2))).collect();
            let scored = |(completion, reward): (&Completion, &Option<f64>)| learn::Scored {
                reward: *reward,
                tokens: completion.tokens.len(),
                penalties: &[],
            };
            let scored = group.iter().zip(&rewards).map(scored).collect();
            let compared = learn::advantages(&[scored], &learn::AdvantageSettings::default()).concat();
            for (completion, advantage) in group.iter().zip(compared) {
                texts.push([request.prompt.tokens.as_slice(), &completion.tokens].concat());
                recorded.push(&completion.logprobs);
                advantages.push(advantage.mean());
            }
        }
        let rows: Vec<Sequence<'_>> = texts.iter().map(|tokens| Sequence::new(tokens, self.sizes.prompt)).collect();
        let sampled: usize = recorded.iter().map(|logprobs| logprobs.len()).sum();
        let mut mismatch = learn::Mismatch::default();
        learner.update(0, &rows, 1.0, &mut |pass, walk| {
            let lengths: Vec<usize> = recorded[pass.clone()].iter().map(|logprobs| logprobs.len()).collect();
            let old: Vec<f32> = recorded[pass.clone()].iter().flat_map(|logprobs| logprobs.iter().copied()).collect();
            let learned = walk.values.to_vec1::<f32>().map_err(Error::model)?;
            learned.iter().zip(&old).for_each(|(learned, sampled)| mismatch.add(*learned, *sampled));
            let each = advantages[pass.clone()].iter().zip(&recorded[pass]);
            let advantages: Vec<f64> = each.flat_map(|(&a, logprobs)| std::iter::repeat_n(a, logprobs.len())).collect();
            let weights = vec![1.0 / sampled as f64; old.len()];
            let input = learn::PassInput {
                sequences: &lengths,
                policy: &walk.values,
                entropy: &walk.entropy,
                old: &old,
                sampler: &old,
                reference: None,
                advantages: &advantages,
                weights: &weights,
            };
            Ok(learn::policy_loss(&input, &learn::LossSettings::default()).map_err(Error::model)?.0)
        })?;
        let learned = rows.iter().map(|row| row.tokens.len()).sum();
        Ok(GrpoStep {
            seconds: start.elapsed().as_secs_f64(),
            sampling,
            sampled,
            learned,
            difference: mismatch.difference_max,
        })
    }
}

/// What `work` gives, and the seconds that it took.
fn timed<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<(T, f64), Error> {
    let start = Instant::now();
    let result = work()?;
    Ok((result, start.elapsed().as_secs_f64()))
}
