//! `train-judge`: a reward model learns from pairs (Bradley-Terry), or from labelled answers (binary cross-entropy).

use std::path::Path;

use base::{Group, RngKey};
use learn::PreferenceStats;

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};
use crate::feed::truth;
use crate::render::{CHOSEN, LABEL, REJECTED, answered, field};
use crate::stages::learning::{Learner, Pass};

pub(crate) struct TrainJudgeStage {
    pub learner: Learner,
    pub key: RngKey,
}

/// What is learned from a row.
enum Example {
    /// The tokens of the chosen and of the rejected answer, each after its prompt.
    Pair([Vec<u32>; 2]),
    /// The tokens of an answer after its prompt, and whether it is as it should be.
    Labelled([Vec<u32>; 1], bool),
}

impl Example {
    fn sequences(&self) -> &[Vec<u32>] {
        match self {
            Self::Pair(sequences) => sequences,
            Self::Labelled(sequences, _) => sequences,
        }
    }
}

impl TrainJudgeStage {
    fn example(&self, group: &Group) -> Result<Example, Error> {
        let prompt = &group.prompt;
        let tokens = |text: &str| answered(&self.learner.model, &prompt.tokens, text, true);
        if let (Some(chosen), Some(rejected)) = (field(prompt, CHOSEN), field(prompt, REJECTED)) {
            return Ok(Example::Pair([tokens(chosen)?, tokens(rejected)?]));
        }
        match (&prompt.response, field(prompt, LABEL).and_then(truth)) {
            (Some(response), Some(label)) => Ok(Example::Labelled([tokens(response)?], label)),
            _ => Err(Error::Finding(format!(
                "row {} of `{}` says no preference: it needs `chosen` and `rejected`, or `response` and a `label` of 0 or 1",
                prompt.id, prompt.source
            ))),
        }
    }

    /// One optimiser step; adds what it measured to `totals`.
    fn minibatch(&self, step: u64, examples: &[&Example], totals: &mut Totals) -> Result<(), Error> {
        let sequences: usize = examples.iter().map(|example| example.sequences().len()).sum();
        let tokens = |example: &&Example| example.sequences().iter().map(Vec::len).sum();
        let lengths: Vec<usize> = examples.iter().map(tokens).collect();
        let weight = 1.0 / examples.len() as f64;
        let updated = self.learner.update_by(step, &lengths, sequences, &mut |pass, how| {
            let pass = &examples[pass];
            let inputs: Vec<&[u32]> = pass.iter().flat_map(|example| example.sequences()).map(Vec::as_slice).collect();
            let walk = self.learner.model.learn_scores(&inputs, how).map_err(Error::model)?;
            let labels: Vec<bool> = pass
                .iter()
                .filter_map(|example| match example {
                    Example::Labelled(_, label) => Some(*label),
                    Example::Pair(_) => None,
                })
                .collect();
            let loss = match labels.is_empty() {
                true => learn::bradley_terry_loss(&walk.values, weight),
                false => learn::binary_loss(&walk.values, &labels, weight),
            };
            let (loss, stats) = loss.map_err(Error::model)?;
            totals.stats.add(&stats);
            Ok(Pass { loss, expert_load: walk.expert_load, balance: walk.balance })
        })?;
        totals.updates += 1;
        totals.sequences += sequences;
        totals.tokens += lengths.iter().sum::<usize>();
        totals.grad_norm += updated.grad_norm;
        totals.violation += updated.max_violation;
        totals.balance = updated.balance_loss.map(|loss| totals.balance.unwrap_or(0.0) + loss);
        Ok(())
    }
}

/// Sums over the minibatches of a step.
#[derive(Default)]
struct Totals {
    updates: usize,
    sequences: usize,
    tokens: usize,
    grad_norm: f64,
    violation: f64,
    balance: Option<f64>,
    stats: PreferenceStats,
}

impl Work for TrainJudgeStage {
    fn run(&self, step: u64, inbox: &Inbox, _outbox: &Outbox) -> Result<Report, Error> {
        let groups = inbox.whole_step()?;
        if groups.is_empty() {
            return Err(Error::Downstream);
        }
        let examples = groups.iter().map(|group| self.example(group)).collect::<Result<Vec<_>, _>>()?;
        let pairs = examples.iter().filter(|example| matches!(example, Example::Pair(_))).count();
        if pairs != 0 && pairs != examples.len() {
            return Err(Error::Finding(
                "some rows of the step are pairs and some are labelled: a judge learns from one of the two".into(),
            ));
        }
        let mut totals = Totals::default();
        for batch in learn::minibatches(examples.len(), self.learner.spec.minibatches, self.key, step) {
            let batch: Vec<&Example> = batch.iter().map(|&i| &examples[i]).collect();
            self.minibatch(step, &batch, &mut totals)?;
        }
        let Totals { updates, sequences, tokens, grad_norm, violation, balance, stats } = totals;
        let (updates, count) = (updates as f64, stats.count as f64);
        // The names of TRL's RewardTrainer.
        let mut metrics = vec![
            ("num_tokens".to_owned(), tokens as f64),
            ("loss".to_owned(), stats.loss / count),
            ("accuracy".to_owned(), stats.right as f64 / count),
            ("margin".to_owned(), stats.margin / count),
            ("min_reward".to_owned(), stats.lowest),
            ("mean_reward".to_owned(), stats.scores / sequences as f64),
            ("max_reward".to_owned(), stats.highest),
            ("grad_norm".to_owned(), grad_norm / updates),
            ("learning_rate".to_owned(), self.learner.learning_rate(step)),
            ("max_vio/mean".to_owned(), violation / updates),
        ];
        metrics.extend(balance.map(|sum| ("balance_loss".to_owned(), sum / updates)));
        Ok(Report { metrics, ..Report::default() })
    }

    fn save(&self, folder: &Path) -> Result<(), Error> {
        self.learner.save(folder)
    }

    fn load(&self, folder: &Path) -> Result<(), Error> {
        self.learner.load(folder)
    }
}
