//! The sampling walk: many sequences at once, each in a slot of its own length.
//!
//! A prompt is computed once for all its completions and then forked; a slot whose sequence has ended takes the next one
//! at once. A completion's tokens and log-probabilities depend on its prompt, its counter and the weights alone: neither the
//! number of slots nor what else is being sampled changes a bit of them.

pub mod choose;
mod stop;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Completion, Finish, Prompt, RngKey, RoutedExperts};
use candle_core::{CpuStorage, DType, Storage, Tensor};
use kernels::ops::{self, Segment};
use kernels::pool;

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::transformer::{Batch, Watch};

/// The prompt tokens that are computed at once. It bounds memory and changes no number.
const PREFILL: usize = 4096;

/// The logits that are worth a task of their own.
const GRAIN: usize = 4096;

/// How tokens are chosen, and how many. Filters apply in the order in which they stand here, which is that of
/// transformers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tokens of the prompt and the completion so far have their logits divided by this where positive, multiplied where
    /// negative; above 0.
    pub repetition_penalty: Option<f64>,
    /// Divides the logits; 0 takes the likeliest token. Log-probabilities are recorded at this temperature (at 1 when it
    /// is 0), without penalty and filters.
    pub temperature: f64,
    /// Only the likeliest so many tokens, with all that tie with the last of them.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens whose probabilities reach this sum.
    pub top_p: Option<f64>,
    /// Only tokens that are at least so likely, as a share of the likeliest one's probability.
    pub min_p: Option<f64>,
    /// Texts that end a completion once its own text contains one. The text is cut before it, the tokens are kept.
    pub stop: Vec<String>,
    /// Tokens that end a completion beside the model's own; as with those, the text is without them.
    pub stop_tokens: Vec<u32>,
    /// The longest completion, in tokens.
    pub max_tokens: usize,
    /// The number of sequences that are decoded at once.
    pub slots: usize,
}

impl Settings {
    /// The model's distribution as it is: temperature 1, no filter, no stop but the model's own.
    pub fn new(max_tokens: usize, slots: usize) -> Self {
        Self {
            repetition_penalty: None,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            min_p: None,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            max_tokens,
            slots,
        }
    }
}

/// A prompt to be completed.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// The prompt's part of the random counter.
    pub index: u64,
    /// The number of completions.
    pub completions: usize,
}

/// What sampling took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sampled tokens.
    pub tokens: usize,
    /// Prompt tokens computed; a prompt counts once for all its completions.
    pub prompt_tokens: usize,
}

/// What all completions of a prompt start from.
#[derive(Clone)]
struct Prefix {
    /// The logits after the prompt's last token.
    logits: Arc<[f32]>,
    /// The experts of the prompt's tokens, `[tokens, layers, per_token]`.
    experts: Arc<[u16]>,
}

/// Why a completion ends.
#[derive(Clone, Copy)]
enum End {
    /// A token that is no text.
    Token,
    /// A stop string.
    Text,
    /// The limit.
    Length,
}

/// A slot's next step: its completion, and the logits to choose the next token from.
struct Step<'a> {
    slot: usize,
    running: Running,
    logits: &'a [f32],
    end: Result<Option<End>>,
}

/// A completion in progress.
struct Running {
    request: usize,
    number: usize,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    experts: Vec<u16>,
    /// The most tokens it may have.
    limit: usize,
}

/// Samples all requests. `done` is called with a request's number and its completions when the last of them has ended,
/// in whatever order they end. When `stop` turns true, it returns at the next token and what is unfinished is dropped.
///
/// # Errors
/// Settings out of their ranges, a prompt without tokens or without room in the model's context, logits that are not
/// finite, a device that fails.
pub fn sample(
    model: &Model,
    requests: &[Request],
    settings: &Settings,
    key: RngKey,
    step: u32,
    stop: &AtomicBool,
    done: &mut dyn FnMut(usize, Vec<Completion>),
) -> Result<Stats> {
    check(model, requests, settings)?;
    let mut sampler = Sampler::new(model, requests, settings, key, step);
    loop {
        while sampler.refill(done)? {}
        if stop.load(Ordering::Acquire) || sampler.running.iter().all(Option::is_none) {
            return Ok(sampler.stats);
        }
        sampler.decode(done)?;
    }
}

fn check(model: &Model, requests: &[Request], settings: &Settings) -> Result<()> {
    model.require_language()?;
    let refuse = |message: String| Err(Error::Request(message));
    if !(settings.temperature >= 0.0 && settings.temperature.is_finite()) {
        return refuse(format!("the sampling temperature is {}; it must be 0 or above", settings.temperature));
    }
    let share = |share: f64| share > 0.0 && share <= 1.0;
    if [settings.top_p, settings.min_p].into_iter().flatten().any(|p| !share(p)) || settings.top_k == Some(0) {
        return refuse("top_p and min_p must be above 0 and at most 1, top_k at least 1".into());
    }
    if settings.repetition_penalty.is_some_and(|penalty| !(penalty > 0.0 && penalty.is_finite())) {
        return refuse("the repetition penalty must be a number above 0".into());
    }
    if settings.stop.iter().any(String::is_empty) {
        return refuse("a stop string is empty: every text contains it".into());
    }
    if settings.max_tokens == 0 || settings.slots == 0 {
        return refuse("max_tokens and the number of slots must be at least 1".into());
    }
    for Request { prompt, .. } in requests {
        let named =
            |message: &str| Err(Error::Request(format!("prompt {} of `{}` {message}", prompt.id, prompt.source)));
        if prompt.tokens.is_empty() {
            return named("has no tokens");
        }
        if let Err(message) = model.check(&prompt.tokens) {
            return named(&message);
        }
        if prompt.tokens.len() == model.config.context {
            return named("fills the model's context: there is no room for an answer");
        }
    }
    Ok(())
}

struct Sampler<'a> {
    model: &'a Model,
    requests: &'a [Request],
    settings: &'a Settings,
    key: RngKey,
    step: u32,
    cache: Cache,
    running: Vec<Option<Running>>,
    /// Completions that have not started, as (request, number), in order.
    waiting: VecDeque<(usize, usize)>,
    /// The request of which some completions have started and others wait; its prompt lies in the cache's last slot.
    kept: Option<(usize, Prefix)>,
    /// The experts of each started request's prompt.
    prompts: Vec<Option<Arc<[u16]>>>,
    finished: Vec<Vec<Option<Completion>>>,
    version: u64,
    stats: Stats,
    /// What choices leave to each other, one for each thread that ever chose at once.
    scratch: Mutex<Vec<choose::Scratch>>,
}

impl<'a> Sampler<'a> {
    fn new(model: &'a Model, requests: &'a [Request], settings: &'a Settings, key: RngKey, step: u32) -> Self {
        let waiting: VecDeque<_> = requests
            .iter()
            .enumerate()
            .flat_map(|(i, request)| (0..request.completions).map(move |n| (i, n)))
            .collect();
        let slots = settings.slots.min(waiting.len()).max(1);
        let longest = requests.iter().map(|request| request.prompt.tokens.len()).max().unwrap_or(0);
        let capacity = longest.saturating_add(settings.max_tokens).min(model.config.context);
        Self {
            model,
            requests,
            settings,
            key,
            step,
            cache: model.sampling().cache(slots + 1, capacity),
            running: (0..slots).map(|_| None).collect(),
            waiting,
            kept: None,
            prompts: vec![None; requests.len()],
            finished: requests.iter().map(|request| vec![None; request.completions]).collect(),
            version: model.version(),
            stats: Stats::default(),
            scratch: Mutex::default(),
        }
    }

    /// Starts waiting completions in free slots. True if some were started, of which some may have ended already.
    fn refill(&mut self, done: &mut dyn FnMut(usize, Vec<Completion>)) -> Result<bool> {
        let free = (0..self.running.len()).filter(|&slot| self.running[slot].is_none());
        let started: Vec<(usize, usize, usize)> =
            free.map_while(|slot| self.waiting.pop_front().map(|(request, number)| (slot, request, number))).collect();
        let mut groups = started.chunk_by(|a, b| a.1 == b.1).peekable();
        if groups.peek().is_none() {
            return Ok(false);
        }
        let keeper = self.running.len();
        let mut fresh: Vec<&[(usize, usize, usize)]> = Vec::new();
        for group in groups {
            match self.kept.take() {
                Some((request, prefix)) if request == group[0].1 => {
                    for &(slot, ..) in group {
                        self.cache.fork(keeper, slot);
                    }
                    self.start(group, &prefix, done)?;
                    self.kept = Some((request, prefix));
                }
                _ => fresh.push(group),
            }
        }
        while !fresh.is_empty() {
            let mut tokens = 0;
            let mut fits = |group: &&[(usize, usize, usize)]| {
                tokens += self.requests[group[0].1].prompt.tokens.len();
                tokens <= PREFILL
            };
            let count = fresh.iter().take_while(|group| fits(group)).count().max(1);
            let groups: Vec<_> = fresh.drain(..count).collect();
            for (group, prefix) in groups.iter().zip(self.prefill(&groups)?) {
                let (first, request, _) = group[0];
                for &(slot, ..) in &group[1..] {
                    self.cache.fork(first, slot);
                }
                if self.waiting.front().is_some_and(|&(next, _)| next == request) {
                    self.cache.fork(first, keeper);
                    self.kept = Some((request, prefix.clone()));
                }
                self.start(group, &prefix, done)?;
            }
        }
        Ok(true)
    }

    /// Computes the prompts of the groups, each into its first slot.
    fn prefill(&mut self, groups: &[&[(usize, usize, usize)]]) -> Result<Vec<Prefix>> {
        let (mut tokens, mut positions) = (Vec::new(), Vec::new());
        let (mut segments, mut last) = (Vec::new(), Vec::new());
        for group in groups {
            let prompt = &self.requests[group[0].1].prompt.tokens;
            self.cache.clear(group[0].0);
            segments.push(Segment { start: tokens.len(), len: prompt.len(), slot: group[0].0 });
            tokens.extend_from_slice(prompt);
            positions.extend(0..prompt.len() as u32);
            last.push(tokens.len() as u32 - 1);
        }
        self.stats.prompt_tokens += tokens.len();
        let segments: Arc<[Segment]> = segments.into();
        let mut watch = Watch::default();
        let batch = Batch { tokens: &tokens, positions: &positions, segments: &segments, replayed: None };
        let hidden = self.model.sampling().forward(&batch, Some(&mut self.cache), &mut watch)?;
        let logits = self.model.sampling().logits(&ops::gather_rows(&hidden, &last)?)?;
        let routing = watch.chosen()?;
        with_values(&logits, |logits| {
            let rows = logits.chunks(self.model.config.vocab);
            let prefix = |(logits, segment): (&[f32], &Segment)| {
                let mut experts = Vec::new();
                for row in segment.start..segment.start + segment.len {
                    push_experts(&mut experts, &routing, row, tokens.len());
                }
                Prefix { logits: logits.into(), experts: experts.into() }
            };
            rows.zip(segments.iter()).map(prefix).collect()
        })
    }

    /// Gives each completion of one request its first token.
    fn start(
        &mut self,
        group: &[(usize, usize, usize)],
        prefix: &Prefix,
        done: &mut dyn FnMut(usize, Vec<Completion>),
    ) -> Result<()> {
        for &(slot, request, number) in group {
            let room = self.model.config.context - self.requests[request].prompt.tokens.len();
            self.prompts[request] = Some(prefix.experts.clone());
            self.running[slot] = Some(Running {
                request,
                number,
                tokens: Vec::new(),
                logprobs: Vec::new(),
                experts: Vec::new(),
                limit: self.settings.max_tokens.min(room),
            });
        }
        self.advance(group.iter().map(|&(slot, ..)| (slot, &*prefix.logits)), done)
    }

    /// One token for every running completion.
    fn decode(&mut self, done: &mut dyn FnMut(usize, Vec<Completion>)) -> Result<()> {
        let (mut tokens, mut positions) = (Vec::new(), Vec::new());
        let (mut segments, mut slots) = (Vec::new(), Vec::new());
        for (slot, running) in self.running.iter().enumerate() {
            let Some(Running { request, tokens: sampled, .. }) = running else { continue };
            let Some(&last) = sampled.last() else { continue };
            segments.push(Segment { start: tokens.len(), len: 1, slot });
            tokens.push(last);
            positions.push((self.requests[*request].prompt.tokens.len() + sampled.len() - 1) as u32);
            slots.push(slot);
        }
        let mut watch = Watch::default();
        let batch = Batch { tokens: &tokens, positions: &positions, segments: &segments.into(), replayed: None };
        let hidden = self.model.sampling().forward(&batch, Some(&mut self.cache), &mut watch)?;
        let (logits, routing) = (self.model.sampling().logits(&hidden)?, watch.chosen()?);
        for (row, &slot) in slots.iter().enumerate() {
            if let Some(running) = &mut self.running[slot] {
                push_experts(&mut running.experts, &routing, row, slots.len());
            }
        }
        with_values(&logits, |logits| {
            self.advance(slots.into_iter().zip(logits.chunks(self.model.config.vocab)), done)
        })?
    }

    /// Chooses the next token of each slot from its logits, and ends the completions of which it was the last.
    fn advance<'l>(
        &mut self,
        rows: impl Iterator<Item = (usize, &'l [f32])>,
        done: &mut dyn FnMut(usize, Vec<Completion>),
    ) -> Result<()> {
        let step = |(slot, logits)| Some(Step { slot, running: self.running[slot].take()?, logits, end: Ok(None) });
        let mut steps: Vec<Step<'_>> = rows.filter_map(step).collect();
        pool::each(&mut steps, GRAIN.div_ceil(self.model.config.vocab), |step| {
            step.end = self.choose(&mut step.running, step.logits);
        });
        self.stats.tokens += steps.len();
        for Step { slot, running, end, .. } in steps {
            match end? {
                Some(end) => self.finish(running, end, done),
                None => self.running[slot] = Some(running),
            }
        }
        Ok(())
    }

    /// Appends a completion's next token, and says whether it is the last.
    fn choose(&self, running: &mut Running, logits: &[f32]) -> Result<Option<End>> {
        let Self { model, settings, .. } = self;
        let Request { prompt, index, .. } = &self.requests[running.request];
        let counter = [self.step, (index ^ (index >> 32)) as u32, running.number as u32, running.tokens.len() as u32];
        let history = [prompt.tokens.as_slice(), &running.tokens];
        let scratch = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = scratch().pop().unwrap_or_default();
        let chosen = choose::token(logits, history, settings, self.key.words(counter), &mut own);
        scratch().push(own);
        let choose::Chosen { token, logprob } = chosen?;
        running.tokens.push(token);
        running.logprobs.push(logprob);
        let ends = model.tokenizer.eos_ids().contains(&token) || settings.stop_tokens.contains(&token);
        Ok(match () {
            () if ends => Some(End::Token),
            () if stop::completed(&running.tokens, &settings.stop, &model.tokenizer) => Some(End::Text),
            () if running.tokens.len() == running.limit => Some(End::Length),
            () => None,
        })
    }

    fn finish(&mut self, running: Running, end: End, done: &mut dyn FnMut(usize, Vec<Completion>)) {
        let Running { request, number, tokens, logprobs, experts: own, .. } = running;
        let decode = |tokens: &[u32]| self.model.tokenizer.decode(tokens);
        let (text, finish) = match end {
            End::Token => (decode(&tokens[..tokens.len() - 1]), Finish::Stop),
            End::Text => (stop::cut(decode(&tokens), &self.settings.stop), Finish::Stop),
            End::Length => (decode(&tokens), Finish::Length),
        };
        let layers: Vec<_> = self.model.config.expert_layers().collect();
        let prompt = self.prompts[request].as_deref().unwrap_or_default();
        let completion = Completion {
            text,
            loss_mask: vec![true; tokens.len()],
            finish,
            logprobs,
            weights_version: self.version,
            experts: RoutedExperts {
                layers: layers.len(),
                per_token: layers.first().map_or(0, |experts| experts.router.chosen),
                ids: [prompt, &own].concat(),
            },
            tokens,
        };
        self.finished[request][number] = Some(completion);
        if self.finished[request].iter().all(Option::is_some) {
            self.prompts[request] = None;
            let completions = std::mem::take(&mut self.finished[request]);
            done(request, completions.into_iter().flatten().collect());
        }
    }
}

/// Gives `f` the numbers of a tensor, in place where they are f32 on the CPU.
fn with_values<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            return Ok(f(&values[start..end]));
        }
    }
    Ok(f(&tensor.flatten_all()?.to_vec1()?))
}

/// Appends the experts of one row of a batch, layer after layer.
fn push_experts(experts: &mut Vec<u16>, routing: &[Vec<u32>], row: usize, rows: usize) {
    for chosen in routing {
        let per_token = chosen.len() / rows;
        experts.extend(chosen[row * per_token..(row + 1) * per_token].iter().map(|&expert| expert as u16));
    }
}
