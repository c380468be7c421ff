//! Evaluations: questions sampled and judged beside the DAG, while the weights stand still.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Completion, Context, Decision, Finish, Group, Prompt, RngKey, Verdict};
use crossbeam::channel::{Receiver, bounded};
use model::Model;
use model::sampler::{self, Request, Settings};
use serde_json::{Value, json};

use crate::error::Error;
use crate::executor::spawn;
use crate::metrics::mean;
use crate::stages::sample::SLOTS;
use crate::stages::verify::{Score, VerifyStage, score};

pub(crate) struct Evaluation {
    pub name: String,
    pub spec: spec::Evaluation,
    pub model: Arc<Model>,
    /// All but temperature and limit.
    pub settings: Settings,
    pub questions: Vec<Arc<Prompt>>,
    /// The first decides what is right; the others are logged.
    pub verifiers: Vec<VerifyStage>,
    pub key: RngKey,
    pub threads: usize,
}

/// What an evaluation found.
pub(crate) struct Evaluated {
    pub metrics: Vec<(String, f64)>,
    /// The first questions with what the model wrote, for people to read.
    pub examples: Value,
    /// What the user should know though the run goes on.
    pub warning: Option<String>,
}

impl Evaluation {
    /// Whether it is due after `step` steps of `steps`.
    pub fn is_due(&self, step: u64, steps: u64) -> bool {
        (step == 0 && self.spec.at_start)
            || (step == steps && self.spec.at_end)
            || (step > 0 && step < steps && self.spec.every.is_some_and(|every| step.is_multiple_of(every)))
    }

    /// Samples and judges all questions after `step` steps.
    pub fn run(&self, step: u64) -> Result<Evaluated, Error> {
        let _span = tracing::info_span!("evaluation", name = self.name, step).entered();
        let groups = self.judged(step, self.spec.temperature, self.spec.samples)?;
        let mut metrics = Vec::new();
        let mut put = |name: &str, value: f64| metrics.push((format!("eval/{}/{name}", self.name), value));
        let right: Vec<Vec<bool>> = groups.iter().map(|group| self.right(group)).collect();
        let shares: Vec<f64> = right.iter().filter(|right| !right.is_empty()).map(|right| share(right)).collect();
        if !shares.is_empty() {
            put("pass@1", mean(&shares));
        }
        if self.spec.samples > 1 {
            // With all k samples drawn, the unbiased estimate of pass@k is whether any of them is right.
            let any: Vec<f64> = right.iter().map(|right| f64::from(u8::from(right.contains(&true)))).collect();
            put(&format!("pass@{}", self.spec.samples), mean(&any));
        }
        if self.spec.greedy {
            let greedy = self.judged(step, 0.0, 1)?;
            let shares: Vec<f64> = greedy
                .iter()
                .map(|group| self.right(group))
                .filter(|right| !right.is_empty())
                .map(|right| share(&right))
                .collect();
            if !shares.is_empty() {
                put("greedy", mean(&shares));
            }
        }
        for (i, verifier) in self.verifiers.iter().enumerate().skip(1) {
            let scores: Vec<f64> = groups.iter().flat_map(|group| scores(group, i, verifier)).flatten().collect();
            if !scores.is_empty() {
                put(&verifier.name, mean(&scores));
            }
        }
        let completions: Vec<&Arc<Completion>> = groups.iter().flat_map(|group| &group.completions).collect();
        let count = completions.len().max(1) as f64;
        put("mean_length", completions.iter().map(|completion| completion.tokens.len()).sum::<usize>() as f64 / count);
        let cut = completions.iter().filter(|completion| completion.finish == Finish::Length).count();
        put("truncated", cut as f64 / count);
        let first = groups.iter().filter_map(|group| group.judgements.first());
        let reasons: Vec<&String> = first
            .flat_map(|judgement| &judgement.verdicts)
            .filter_map(|verdict| match verdict {
                Verdict::Undecided(reason) => Some(reason),
                _ => None,
            })
            .collect();
        put("undecided", reasons.len() as f64 / count);
        let warning = reasons.first().map(|reason| {
            format!(
                "{} of {count} completions of the evaluation `{}` are undecided, the first: {reason}",
                reasons.len(),
                self.name
            )
        });
        let examples = groups.iter().zip(&right).take(3).map(|(group, right)| {
            json!({
                "prompt": group.prompt.text,
                "reference": group.prompt.reference,
                "text": group.completions.first().map(|completion| &completion.text),
                "right": right.first(),
            })
        });
        let examples = examples.collect();
        Ok(Evaluated { metrics, examples, warning })
    }

    /// For each decided completion whether it is right.
    fn right(&self, group: &Group) -> Vec<bool> {
        let Some(first) = self.verifiers.first() else { return Vec::new() };
        scores(group, 0, first).into_iter().flatten().map(|score| score >= 1.0).collect()
    }

    /// All questions, sampled and judged; verification of one group overlaps the sampling of the next.
    fn judged(&self, step: u64, temperature: f64, samples: usize) -> Result<Vec<Arc<Group>>, Error> {
        let settings = Settings { temperature, max_tokens: self.spec.max_tokens, ..self.settings.clone() };
        let requests: Vec<Request> = self
            .questions
            .iter()
            .enumerate()
            .map(|(index, prompt)| Request { prompt: prompt.clone(), index: index as u64, completions: samples })
            .collect();
        let context =
            Context { step, seed: self.key.seed(), max_tokens: self.spec.max_tokens as u32, evaluating: true };
        let judged: Mutex<Vec<Arc<Group>>> = Mutex::new(Vec::with_capacity(requests.len()));
        let (sender, receiver) = bounded::<Group>(SLOTS);
        let stop = AtomicBool::new(false);
        // Each worker has a receiver of its own: once all of them have failed, nothing waits for one to receive.
        let work = |groups: Receiver<Group>| -> Result<(), Error> {
            for mut group in &groups {
                for verifier in &self.verifiers {
                    let judgement =
                        verifier.judge(&group, &context).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
                    group.judgements.push(Arc::new(judgement));
                }
                judged.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(group));
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let work = &work;
            let workers: Vec<_> =
                (0..self.threads).map(|_| receiver.clone()).map(|groups| spawn(scope, move || work(groups))).collect();
            drop(receiver);
            let sampled = sampler::sample(
                &self.model,
                &requests,
                &settings,
                self.key,
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
        let mut groups = judged.into_inner().unwrap_or_else(PoisonError::into_inner);
        groups.sort_by_key(|group| group.index);
        Ok(groups)
    }
}

fn scores(group: &Group, judgement: usize, verifier: &VerifyStage) -> Vec<Option<f64>> {
    let Some(judgement) = group.judgements.get(judgement) else { return Vec::new() };
    judgement
        .verdicts
        .iter()
        .map(|verdict| match score(verdict, verifier.spec.on_undecided) {
            Score::Decided(score) => Some(score),
            Score::Undecided(_) | Score::NotApplicable => None,
        })
        .collect()
}

fn share(right: &[bool]) -> f64 {
    right.iter().filter(|right| **right).count() as f64 / right.len() as f64
}
