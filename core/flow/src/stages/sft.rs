//! `sft`: supervised fine-tuning, on each row's response or on the completions that were kept.

use std::ops::Range;

use base::{Decision, Finish, Group, RngKey};
use model::Sequence;

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};
use crate::render::answered;
use crate::stages::learning::Learner;

pub(crate) struct SftStage {
    pub learner: Learner,
    pub key: RngKey,
}

/// Tokens of a conversation, and which of them are learned.
struct Text {
    tokens: Vec<u32>,
    learned: Vec<Range<usize>>,
}

impl Text {
    /// Where what is learned begins.
    fn from(&self) -> usize {
        self.learned.first().map_or(1, |range| range.start)
    }

    /// For each token from there on, whether it is learned.
    fn mask(&self) -> impl Iterator<Item = bool> {
        (self.from()..self.tokens.len()).map(|place| self.learned.iter().any(|range| range.contains(&place)))
    }

    fn targets(&self) -> usize {
        self.learned.iter().map(Range::len).sum()
    }
}

impl SftStage {
    fn texts(&self, group: &Group) -> Result<Vec<Text>, Error> {
        let prompt = &group.prompt;
        if !group.completions.is_empty() {
            // Another model may have written them: only text means the same to both.
            let tokens = self.learner.model.tokenizer.encode(&prompt.text).map_err(Error::model)?;
            let kept =
                group.completions.iter().zip(&group.decisions).filter(|(_, decision)| **decision == Decision::Keep);
            return kept
                .map(|(completion, _)| self.text(&tokens, &completion.text, completion.finish == Finish::Stop))
                .collect();
        }
        if !prompt.learned.is_empty() {
            return Ok(vec![Text { tokens: prompt.tokens.clone(), learned: prompt.learned.clone() }]);
        }
        let response = prompt.response.as_deref().ok_or_else(|| {
            Error::Finding(format!(
                "row {} of `{}` has no response to learn: name its column in `columns.response`",
                prompt.id, prompt.source
            ))
        })?;
        Ok(vec![self.text(&prompt.tokens, response, true)?])
    }

    fn text(&self, prompt: &[u32], response: &str, ended: bool) -> Result<Text, Error> {
        let tokens = answered(&self.learner.model, prompt, response, ended)?;
        let learned = prompt.len()..tokens.len();
        Ok(Text { tokens, learned: vec![learned] })
    }
}

impl Work for SftStage {
    fn run(&self, step: u64, inbox: &Inbox, _outbox: &Outbox) -> Result<Report, Error> {
        let groups = inbox.whole_step()?;
        if groups.is_empty() {
            return Err(Error::Downstream);
        }
        let mut texts = Vec::with_capacity(groups.len());
        for group in &groups {
            texts.extend(self.texts(group)?);
        }

        let (mut loss_sum, mut targets_all, mut tokens_all, mut norms, mut violations) = (0.0, 0, 0, 0.0, 0.0);
        let mut balance: Option<f64> = None;
        let batches = learn::minibatches(texts.len(), self.learner.spec.minibatches, self.key, step);
        for batch in &batches {
            let batch: Vec<&Text> = batch.iter().map(|&i| &texts[i]).collect();
            let sequences: Vec<Sequence<'_>> =
                batch.iter().map(|text| Sequence::new(&text.tokens, text.from())).collect();
            let targets: usize = batch.iter().map(|text| text.targets()).sum();
            let weight = 1.0 / targets as f64;
            let updated = self.learner.update(step, &sequences, 1.0, &mut |pass, walk| {
                let masks = batch[pass].iter().flat_map(|text| text.mask());
                let weights: Vec<f64> = masks.map(|learned| if learned { weight } else { 0.0 }).collect();
                let loss = learn::sft_loss(&walk.values, &weights).map_err(Error::model)?;
                loss_sum += f64::from(loss.to_scalar::<f32>().map_err(Error::model)?);
                Ok(loss)
            })?;
            targets_all += targets;
            tokens_all += sequences.iter().map(|sequence| sequence.tokens.len()).sum::<usize>();
            norms += updated.grad_norm;
            violations += updated.max_violation;
            balance = updated.balance_loss.map(|loss| balance.unwrap_or(0.0) + loss);
        }
        let mut metrics = vec![("num_tokens".into(), tokens_all as f64), ("num_targets".into(), targets_all as f64)];
        if !batches.is_empty() {
            let count = batches.len() as f64;
            metrics.extend([
                ("loss".into(), loss_sum / count),
                ("grad_norm".into(), norms / count),
                ("learning_rate".into(), self.learner.learning_rate(step)),
                ("max_vio/mean".into(), violations / count),
            ]);
            metrics.extend(balance.map(|sum| ("balance_loss".into(), sum / count)));
        }
        let sampled = groups.iter().any(|group| !group.completions.is_empty());
        let groups = sampled.then(|| groups.into_iter().map(|group| (group, Vec::new())).collect());
        Ok(Report { metrics, groups, ..Report::default() })
    }

    fn save(&self, folder: &std::path::Path) -> Result<(), Error> {
        self.learner.save(folder)
    }

    fn load(&self, folder: &std::path::Path) -> Result<(), Error> {
        self.learner.load(folder)
    }
}
