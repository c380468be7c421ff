//! A model against what another implementation computed with the same weights: the proof of a port.
//!
//! The numbers stand in `reference.safetensors` beside the weights. `input_ids` and `attention_mask` `[B, S]` are a padded
//! batch; all else is optional and compared where it is there, at the positions that are no padding:
//!
//! | name | shape | what |
//! |---|---|---|
//! | `embeddings`, `hidden.L`, `logits`, `router.L.logits`, `router.L.weights` | `[B, S, ..]` f32 | as [`Trace`](crate::Trace) has them |
//! | `router.L.experts` | `[B, S, k]` i64 | the chosen experts, ascending |
//! | `token_logprobs` | `[B, S]` f32 | log-probability of each token but a row's first |
//! | `loss` | `[1]` f32 | minus their mean |
//! | `grad.NAME` | as the weight, f32 | the loss's gradient by the checkpoint's tensor |
//! | `rope.inv_freq` | `[R / 2]` f32 | angular frequencies after stretching |
//! | `greedy_tokens`, `greedy_logprobs` | `[B, N]` | the likeliest continuation, ended by nothing, and its log-probabilities |

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use base::{Prompt, RngKey};
use candle_core::{DType, Device, Tensor};
use kernels::Param;

use crate::config::FeedForward;
use crate::error::{Error, Result};
use crate::model::folder::Folder;
use crate::sampler::{Request, Settings, sample};
use crate::weights::{Reference, scatter};
use crate::{Model, Sequence, Tokenizer, Walk};

/// How far one tensor is from the reference's.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The tensor's name in the reference.
    pub name: String,
    /// How many elements were compared.
    pub elements: usize,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of the comparison of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Numbers, which differ by rounding.
    Numbers {
        /// The largest difference.
        largest: f64,
        /// That, in units of the reference's largest magnitude (of 1 where all of it is 0).
        relative: f64,
    },
    /// Choices, which are right or wrong.
    Choices {
        /// How many are wrong.
        wrong: usize,
    },
}

impl Difference {
    /// Whether no number is further off than `tolerance`, relative to the tensor's largest, and no choice is wrong.
    pub fn is_within(&self, tolerance: f64) -> bool {
        match self.outcome {
            Outcome::Numbers { relative, .. } => relative <= tolerance,
            Outcome::Choices { wrong } => wrong == 0,
        }
    }
}

/// What a check gives.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The tensors that were compared, in order of computation.
    pub differences: Vec<Difference>,
    /// What could have been compared and is not in the reference.
    pub lacking: Vec<String>,
}

/// Compares the model in a folder with the `reference.safetensors` beside it. The folder needs no tokenizer.
///
/// # Errors
/// A model that can't be loaded; a reference that is not there, has no batch, or tensors of other shapes than the model's.
pub fn check(folder: &Path, device: &Device) -> Result<Report> {
    let path = folder.join("reference.safetensors");
    if !path.is_file() {
        return Err(Error::file(
            folder,
            "it holds no reference.safetensors to compare with: write what the other implementation computes from these \
             weights, under the names that pipelines/README.md lists",
        ));
    }
    let reference = Reference::open(&path)?;
    let mut opened = Folder::open(folder)?;
    // The continuation is ended by nothing, and no token is ever turned into text.
    opened.config.eos = Vec::new();
    opened.extras = Default::default();
    compare(&opened.load(Tokenizer::absent(), device, DType::F32)?, &reference)
}

fn compare(model: &Model, reference: &Reference) -> Result<Report> {
    let batch = Batch::read(reference)?;
    let mut report = Comparison { reference, batch: &batch, report: Report::default(), seen: BTreeSet::new() };
    report.rotation(model)?;
    report.walk(model)?;
    report.learning(model)?;
    report.greedy(model)?;
    Ok(report.report)
}

/// The sequences of a padded batch.
struct Batch {
    rows: Vec<Vec<u32>>,
    /// Which of the `B * S` positions are no padding.
    taken: Vec<bool>,
    shape: [usize; 2],
}

impl Batch {
    fn read(reference: &Reference) -> Result<Self> {
        let need = |name: &str| {
            let found = reference.get(name)?;
            found.ok_or_else(|| {
                reference.damaged(format!("it lacks `{name}`, without which there is nothing to compare"))
            })
        };
        let ((shape, ids), (mask_shape, mask)) = (need("input_ids")?, need("attention_mask")?);
        let &[count, width] = shape.as_slice() else {
            return Err(reference.damaged(format!("`input_ids` has shape {shape:?}; a batch of rows is needed")));
        };
        if mask_shape != shape {
            return Err(reference.damaged(format!("`attention_mask` has shape {mask_shape:?}, `input_ids` {shape:?}")));
        }
        let taken: Vec<bool> = mask.iter().map(|&x| x != 0.0).collect();
        let row = |row: usize| {
            (row * width..(row + 1) * width).filter(|&i| taken[i]).map(|i| ids[i] as u32).collect::<Vec<_>>()
        };
        let rows: Vec<_> = (0..count).map(row).collect();
        if rows.iter().any(|row| row.len() < 2) {
            return Err(reference.damaged("a row of its batch has fewer than two tokens".into()));
        }
        Ok(Self { rows, taken, shape: [count, width] })
    }
}

/// A comparison under way.
struct Comparison<'a> {
    reference: &'a Reference,
    batch: &'a Batch,
    report: Report,
    seen: BTreeSet<String>,
}

impl Comparison<'_> {
    /// A tensor of the reference and its shape; if it is not there, that is remembered.
    fn expected(&mut self, name: &str) -> Result<Option<(Vec<usize>, Vec<f64>)>> {
        let found = self.reference.get(name)?;
        if found.is_none() && self.seen.insert(name.to_owned()) {
            self.report.lacking.push(name.to_owned());
        }
        Ok(found)
    }

    /// A tensor `[B, S, ..]` of the reference, at the positions that are no padding.
    fn expected_rows(&mut self, name: &str) -> Result<Option<Vec<f64>>> {
        let Some((shape, values)) = self.expected(name)? else { return Ok(None) };
        if shape.get(..2) != Some(&self.batch.shape) {
            let batch = self.batch.shape;
            return Err(self.reference.damaged(format!("`{name}` has shape {shape:?} for a batch of {batch:?}")));
        }
        let rows = values.chunks(shape[2..].iter().product::<usize>().max(1)).zip(&self.batch.taken);
        Ok(Some(rows.filter(|(_, taken)| **taken).flat_map(|(row, _)| row.to_vec()).collect()))
    }

    fn numbers(&mut self, name: &str, got: &[f32], expected: &[f64]) -> Result<()> {
        self.require_length(name, got.len(), expected.len())?;
        let largest = largest(got.iter().zip(expected).map(|(&a, &b)| f64::from(a) - b));
        let scale = largest_of(expected);
        let relative = if scale > 0.0 { largest / scale } else { largest };
        self.push(name, got.len(), Outcome::Numbers { largest, relative });
        Ok(())
    }

    fn choices(&mut self, name: &str, got: &[u32], expected: &[f64]) -> Result<()> {
        self.require_length(name, got.len(), expected.len())?;
        let wrong = got.iter().zip(expected).filter(|&(&a, &b)| f64::from(a) != b).count();
        self.push(name, got.len(), Outcome::Choices { wrong });
        Ok(())
    }

    fn push(&mut self, name: &str, elements: usize, outcome: Outcome) {
        self.report.differences.push(Difference { name: name.to_owned(), elements, outcome });
    }

    fn require_length(&self, name: &str, got: usize, expected: usize) -> Result<()> {
        match got == expected {
            true => Ok(()),
            false => Err(self.reference.damaged(format!("`{name}` has {expected} elements where the model has {got}"))),
        }
    }

    fn rotation(&mut self, model: &Model) -> Result<()> {
        let Some((_, expected)) = self.expected("rope.inv_freq")? else { return Ok(()) };
        let (rotary, width) = model.config.attention.rotary();
        let got: Vec<f32> = rotary.frequencies(width).into_iter().map(|frequency| frequency as f32).collect();
        self.numbers("rope.inv_freq", &got, &expected)
    }

    /// Everything on the way from tokens to logits.
    fn walk(&mut self, model: &Model) -> Result<()> {
        let rows: Vec<&[u32]> = self.batch.rows.iter().map(Vec::as_slice).collect();
        let trace = model.trace(&rows)?;
        let mut names = vec!["embeddings".to_owned()];
        for (layer, part) in model.config.feed_forward.iter().enumerate() {
            if matches!(part, FeedForward::Experts(_)) {
                names.extend(["logits", "experts", "weights"].map(|what| format!("router.{layer}.{what}")));
            }
            names.push(format!("hidden.{layer}"));
        }
        names.push("logits".to_owned());
        for name in names {
            let Some(expected) = self.expected_rows(&name)? else { continue };
            let Some(got) = trace.tensors.get(&name) else { continue };
            match got.dtype() {
                DType::U32 => self.choices(&name, &got.flatten_all()?.to_vec1()?, &expected)?,
                _ => self.numbers(&name, &values(got)?, &expected)?,
            }
        }
        Ok(())
    }

    /// Log-probabilities, their loss, and its gradient.
    fn learning(&mut self, model: &Model) -> Result<()> {
        let logprobs = self.expected_rows("token_logprobs")?;
        let loss = self.expected("loss")?;
        let gradients: Vec<String> =
            self.reference.names().filter_map(|name| name.strip_prefix("grad.")).map(String::from).collect();
        if gradients.is_empty() {
            self.report.lacking.push("grad.*".to_owned());
        }
        if logprobs.is_none() && loss.is_none() && gradients.is_empty() {
            return Ok(());
        }
        let rows = &self.batch.rows;
        let sequences: Vec<Sequence<'_>> = rows.iter().map(|tokens| Sequence::new(tokens, 1)).collect();
        let walk = model.logprobs(&sequences, 1.0, Walk::Learn)?;
        if let Some(all) = logprobs {
            // A row's first token has nothing before it that could have told it.
            let mut expected = Vec::new();
            let mut at = 0;
            for row in rows {
                expected.extend_from_slice(&all[at + 1..at + row.len()]);
                at += row.len();
            }
            self.numbers("token_logprobs", &values(&walk.values)?, &expected)?;
        }
        let mean = (walk.values.sum_all()? * (-1.0 / walk.values.elem_count() as f64))?;
        if let Some((_, expected)) = loss {
            self.numbers("loss", &values(&mean)?, &expected)?;
        }
        if gradients.is_empty() {
            return Ok(());
        }
        let params = model.params();
        params.iter().for_each(Param::zero_grad);
        let mut store = kernels::backward(&mean)?;
        params.iter().try_for_each(|param| param.collect(&mut store))?;
        let trained = model.weights().iter().filter(|(entry, _)| entry.trained);
        let parts = trained.filter_map(|(entry, param)| Some(values(&param.grad()?).map(|values| (entry, values))));
        let got = scatter(parts)?;
        for name in gradients {
            let Some((_, got)) = got.get(name.as_str()) else {
                return Err(self.reference.damaged(format!("`grad.{name}` belongs to no tensor that learns")));
            };
            let name = format!("grad.{name}");
            if let Some((_, expected)) = self.expected(&name)? {
                self.numbers(&name, got, &expected)?;
            }
        }
        params.iter().for_each(Param::zero_grad);
        Ok(())
    }

    /// The likeliest continuation of each row.
    fn greedy(&mut self, model: &Model) -> Result<()> {
        let (tokens, logprobs) = (self.expected("greedy_tokens")?, self.expected("greedy_logprobs")?);
        let Some(length) = tokens.as_ref().or(logprobs.as_ref()).and_then(|(shape, _)| shape.get(1).copied()) else {
            return Ok(());
        };
        let request = |(i, tokens): (usize, &Vec<u32>)| Request {
            prompt: Arc::new(Prompt {
                id: i as u64,
                source: "reference".into(),
                messages: Vec::new(),
                text: String::new(),
                tokens: tokens.clone(),
                reference: None,
                response: None,
                learned: Vec::new(),
                fields: Vec::new(),
            }),
            index: i as u64,
            completions: 1,
        };
        let requests: Vec<Request> = self.batch.rows.iter().enumerate().map(request).collect();
        let slots = requests.len();
        let settings = Settings { temperature: 0.0, ..Settings::new(length, slots) };
        let mut done = BTreeMap::new();
        let (key, stop) = (RngKey::new(0, "reference"), AtomicBool::new(false));
        sample(model, &requests, &settings, key, 0, &stop, &mut |i, completions| {
            done.insert(i, completions);
        })?;
        let completions = || done.values().flatten();
        if let Some((_, expected)) = tokens {
            let got: Vec<u32> = completions().flat_map(|completion| completion.tokens.clone()).collect();
            self.choices("greedy_tokens", &got, &expected)?;
        }
        if let Some((_, expected)) = logprobs {
            let got: Vec<f32> = completions().flat_map(|completion| completion.logprobs.clone()).collect();
            self.numbers("greedy_logprobs", &got, &expected)?;
        }
        Ok(())
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

fn largest_of(values: &[f64]) -> f64 {
    largest(values.iter().copied())
}

/// The largest magnitude; NaN if one of them is.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).fold(0.0, |most, x| if x.is_nan() || x > most { x } else { most })
}
