//! Evaluations: questions sampled and judged beside the DAG, while the weights stand still.
//!
//! * `exam` holds the questions and judges the answers, whoever gives them;
//! * `statistics`, `consensus` and `rating` say what the answers amount to;
//! * here a model answers, and in `elsewhere` a file does.

mod consensus;
pub(crate) mod elsewhere;
pub(crate) mod exam;
pub(crate) mod rating;
mod statistics;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Decision, Group};
use crossbeam::channel::{Receiver, bounded};
use model::Model;
use model::sampler::{self, Request, Settings};
use record::Answered;

use crate::error::Error;
use crate::executor::spawn;
use crate::stages::sample::SLOTS;
use exam::{Evaluated, Exam};

/// An evaluation of a model.
pub(crate) struct Evaluation {
    pub exam: Exam,
    pub model: Arc<Model>,
    /// All but temperature and limit.
    pub settings: Settings,
}

impl Evaluation {
    /// Whether it is due after `step` steps of `steps`.
    pub fn is_due(&self, step: u64, steps: u64) -> bool {
        let spec = &self.exam.spec;
        (step == 0 && spec.at_start)
            || (step == steps && spec.at_end)
            || (step > 0 && step < steps && spec.every.is_some_and(|every| step.is_multiple_of(every)))
    }

    /// Samples and judges all questions after `step` steps.
    pub fn run(&self, step: u64) -> Result<Evaluated, Error> {
        let spec = &self.exam.spec;
        let _span = tracing::info_span!("evaluation", name = self.exam.name, step).entered();
        let samples = self.answered(step, spec.temperature, spec.samples, false)?;
        let greedy = if spec.greedy { self.answered(step, 0.0, 1, true)? } else { Vec::new() };
        self.exam.evaluated(samples, greedy)
    }

    /// All questions, sampled and judged; verification of one group overlaps the sampling of the next.
    fn answered(&self, step: u64, temperature: f64, samples: usize, greedy: bool) -> Result<Vec<Answered>, Error> {
        let exam = &self.exam;
        let settings = Settings { temperature, max_tokens: exam.spec.max_tokens, ..self.settings.clone() };
        let requests: Vec<Request> = exam
            .questions
            .iter()
            .enumerate()
            .map(|(index, prompt)| Request { prompt: prompt.clone(), index: index as u64, completions: samples })
            .collect();
        let context = exam.context(step);
        let answered: Mutex<Vec<Answered>> = Mutex::new(Vec::with_capacity(requests.len()));
        let (sender, receiver) = bounded::<Group>(SLOTS);
        let stop = AtomicBool::new(false);
        // Each worker has a receiver of its own: once all of them have failed, nothing waits for one to receive.
        let work = |groups: Receiver<Group>| -> Result<(), Error> {
            for group in &groups {
                let judged =
                    exam.judge(group, &context, greedy).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
                answered.lock().unwrap_or_else(PoisonError::into_inner).push(judged);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let work = &work;
            let workers: Vec<_> =
                (0..exam.threads).map(|_| receiver.clone()).map(|groups| spawn(scope, move || work(groups))).collect();
            drop(receiver);
            let sampled = sampler::sample(
                &self.model,
                &requests,
                &settings,
                exam.key,
                step as u32,
                &stop,
                &mut |i, completions| {
                    let group = Group {
                        step,
                        index: i,
                        prompt: requests[i].prompt.clone(),
                        decisions: vec![Decision::Keep; completions.len()],
                        completions: completions.into_iter().map(Arc::new).collect(),
                        judgements: Vec::new(),
                        rewards: Vec::new(),
                    };
                    // A send fails only when every worker has stopped on an error, which is reported below.
                    let _ = sender.send(group);
                },
            );
            drop(sender);
            for worker in workers {
                worker?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            sampled.map_err(Error::model).map(drop)
        })?;
        let mut answered = answered.into_inner().unwrap_or_else(PoisonError::into_inner);
        answered.sort_by_key(|one| one.group.index);
        Ok(answered)
    }
}
