//! What learning stages share: a minibatch's forward and backward passes, the optimiser's step, the router's balance.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::Tensor;
use learn::AdamW;
use model::{Learning, LogProbs, Model, Sequence};

use crate::error::Error;

/// The part of a minibatch's loss that a range of its sequences makes.
type Loss<'a> = dyn FnMut(Range<usize>, &LogProbs) -> Result<Tensor, Error> + 'a;

/// The learning walk over a range of a minibatch's parts, and their part of its loss.
type Walked<'a> = dyn FnMut(Range<usize>, Learning) -> Result<Pass, Error> + 'a;

/// What one pass of a minibatch gave.
pub(crate) struct Pass {
    /// Its part of the loss.
    pub loss: Tensor,
    /// For each MoE layer the number of tokens that each expert took.
    pub expert_load: Vec<Vec<usize>>,
    /// The sum of the balance loss.
    pub balance: f64,
}

/// A model that learns and the state of its optimiser.
pub(crate) struct Learner {
    pub stage: String,
    pub model: Arc<Model>,
    pub spec: spec::Learning,
    schedule: learn::Schedule,
    optimizer: Mutex<AdamW>,
}

/// A tensor of an optimiser's state as safetensors writes it, one after another. It can't fail, so it notes that it has.
struct View<'a> {
    tensor: &'a learn::StateTensor<'a>,
    failure: &'a Mutex<Option<candle_core::Error>>,
}

impl safetensors::View for View<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        self.tensor.dtype().into()
    }

    fn shape(&self) -> &[usize] {
        self.tensor.dims
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.tensor.tensor() {
            Ok(tensor) => safetensors::View::data(&tensor).into_owned().into(),
            Err(error) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Cow::Borrowed(&[])
            }
        }
    }

    fn data_len(&self) -> usize {
        self.tensor.dims.iter().product::<usize>() * self.tensor.dtype().size_in_bytes()
    }
}

/// What an optimiser step measured.
pub(crate) struct Updated {
    /// The global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Over the MoE layers, the mean of how far the fullest expert is above its fair share.
    pub max_violation: f64,
    /// The mean of the balance loss over sequences and MoE layers, 1 where all experts are equally used; `None` without one.
    pub balance_loss: Option<f64>,
}

impl Learner {
    pub fn new(stage: &str, model: Arc<Model>, spec: &spec::Learning, steps: u64) -> Result<Self, Error> {
        let optimizer = &spec.optimizer;
        let kind = match optimizer.schedule {
            spec::LearningRate::Constant => learn::ScheduleKind::Constant,
            spec::LearningRate::Cosine => learn::ScheduleKind::Cosine,
            spec::LearningRate::Linear => learn::ScheduleKind::Linear,
        };
        let schedule = learn::Schedule {
            kind,
            peak: optimizer.learning_rate,
            warmup: optimizer.warmup,
            total: steps,
            min_ratio: optimizer.min_ratio,
        };
        let [beta1, beta2] = optimizer.betas;
        let adamw =
            AdamW::new(&model.params(), (beta1, beta2), optimizer.epsilon, optimizer.weight_decay, Model::decays)
                .map_err(Error::model)?;
        Ok(Self { stage: stage.to_owned(), model, spec: spec.clone(), schedule, optimizer: Mutex::new(adamw) })
    }

    /// The learning rate of a step (counted from 0).
    pub fn learning_rate(&self, step: u64) -> f64 {
        self.schedule.at(step)
    }

    /// One optimiser step. `loss` gives the part of the minibatch's loss that the sequences of a pass make; the parts
    /// add up, so that the number of passes changes nothing.
    pub fn update(
        &self,
        step: u64,
        sequences: &[Sequence<'_>],
        temperature: f64,
        loss: &mut Loss<'_>,
    ) -> Result<Updated, Error> {
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.tokens.len()).collect();
        self.update_by(step, &lengths, sequences.len(), &mut |pass, how| {
            let walk = self.model.learn(&sequences[pass.clone()], temperature, how).map_err(Error::model)?;
            let loss = loss(pass, &walk)?;
            Ok(Pass { loss, expert_load: walk.expert_load, balance: walk.balance })
        })
    }

    /// One optimiser step on parts that stay together in a pass, with the tokens that each has, and the number of sequences
    /// that they are in all.
    pub fn update_by(
        &self,
        step: u64,
        lengths: &[usize],
        sequences: usize,
        walked: &mut Walked<'_>,
    ) -> Result<Updated, Error> {
        let params = self.model.params();
        params.iter().for_each(kernels::Param::zero_grad);
        let mut load: Vec<Vec<usize>> = Vec::new();
        let mut balance = 0.0;
        let how = Learning {
            recompute: self.spec.recompute,
            // The mean over the update's sequences, however many passes they take.
            balance: self.spec.balance_loss.map(|factor| factor / sequences as f64),
        };
        for pass in learn::pack(lengths, self.spec.tokens_per_pass) {
            let _span = tracing::debug_span!("pass", stage = self.stage, parts = pass.len()).entered();
            let walk = walked(pass, how)?;
            balance += walk.balance;
            let mut gradients = kernels::backward(&walk.loss).map_err(Error::model)?;
            for param in &params {
                param.collect(&mut gradients).map_err(Error::model)?;
            }
            add_load(&mut load, &walk.expert_load);
        }
        let optimizer = &self.spec.optimizer;
        let stats =
            self.optimizer().step(&params, self.schedule.at(step), optimizer.clip_norm).map_err(Error::model)?;
        if let Some(name) = stats.missing.first() {
            return Err(Error::Defect(format!("tensor `{name}` received no gradient in stage `{}`", self.stage)));
        }
        if !stats.grad_norm.is_finite() {
            return Err(Error::Finding(format!(
                "the gradient of stage `{}` is not finite: lower `learning_rate`, or look at the step's rollouts",
                self.stage
            )));
        }
        if let Some(param) = params.iter().find(|param| !param.is_finite()) {
            return Err(Error::Finding(format!(
                "an update of stage `{}` made `{}` infinite: start anew with a lower `learning_rate`",
                self.stage,
                param.name()
            )));
        }
        self.model.balance(&load, self.spec.router_bias_step).map_err(Error::model)?;
        self.model.bump_version();
        let terms = sequences * load.len();
        let balance_loss = how.balance.filter(|_| terms > 0).map(|_| balance / terms as f64);
        Ok(Updated { grad_norm: stats.grad_norm, max_violation: max_violation(&load), balance_loss })
    }

    /// Writes the optimiser's state into a checkpoint.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let (optimizer, failure) = (self.optimizer(), Mutex::new(None));
        let state = optimizer.state();
        let views = state.iter().map(|tensor| (tensor.name.as_str(), View { tensor, failure: &failure }));
        let file = self.file(folder);
        let failed =
            |error: &dyn std::fmt::Display| Error::Model(format!("failed to write {}: {error}", file.display()));
        safetensors::serialize_to_file(views, None, &file).map_err(|error| failed(&error))?;
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(failed(&error)),
            None => Ok(()),
        }
    }

    /// Takes the optimiser's state from a checkpoint.
    pub fn load(&self, folder: &Path) -> Result<(), Error> {
        let file = self.file(folder);
        let tensors = candle_core::safetensors::load(&file, &candle_core::Device::Cpu)
            .map_err(|error| Error::Model(format!("failed to read {}: {error}", file.display())))?;
        self.optimizer().load_state(tensors.into_iter().collect()).map_err(Error::model)
    }

    fn file(&self, folder: &Path) -> std::path::PathBuf {
        folder.join(format!("optimizer-{}.safetensors", self.stage))
    }

    fn optimizer(&self) -> MutexGuard<'_, AdamW> {
        // A panic inside a step ends the run, so a poisoned state is never committed.
        self.optimizer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add_load(sum: &mut Vec<Vec<usize>>, load: &[Vec<usize>]) {
    sum.resize(load.len(), Vec::new());
    for (sum, load) in sum.iter_mut().zip(load) {
        sum.resize(load.len(), 0);
        sum.iter_mut().zip(load).for_each(|(sum, load)| *sum += load);
    }
}

/// Over layers, the mean of (largest load - mean load) / mean load (DeepSeek-V3 report, "MaxVio").
fn max_violation(load: &[Vec<usize>]) -> f64 {
    let violations = load.iter().filter_map(|layer| {
        let mean = layer.iter().sum::<usize>() as f64 / layer.len() as f64;
        let most = layer.iter().max().copied()? as f64;
        (mean > 0.0).then(|| (most - mean) / mean)
    });
    let (sum, count) = violations.fold((0.0, 0_usize), |(sum, count), violation| (sum + violation, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::max_violation;

    #[test]
    fn violation_is_relative_to_the_fair_share() {
        assert_eq!(max_violation(&[vec![10, 10], vec![30, 10]]), 0.25);
        assert_eq!(max_violation(&[]), 0.0);
    }
}
