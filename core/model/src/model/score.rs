//! Reward models: one number for a whole sequence, as transformers' `...ForSequenceClassification` gives it.

use candle_core::{Device, Tensor};
use kernels::ops;

use super::{Model, PASS};
use crate::config::Head;
use crate::error::{Error, Result};
use crate::transformer::{Learning, Transformer};

/// What the learning walk of a reward model gives.
pub struct Scores {
    /// `[B]` f32: the score of each sequence.
    pub values: Tensor,
    /// As in [`crate::LogProbs`].
    pub expert_load: Vec<Vec<usize>>,
    /// As in [`crate::LogProbs`].
    pub balance: f64,
}

impl Model {
    /// Whether it is a reward model: it gives scores, and no tokens.
    pub fn gives_scores(&self) -> bool {
        self.config.head == Head::Score
    }

    /// Refuses a reward model where tokens are wanted.
    pub(crate) fn require_language(&self) -> Result<()> {
        match self.gives_scores() {
            true => Err(Error::Request("the model is a reward model: it gives a score, and no tokens".into())),
            false => Ok(()),
        }
    }

    /// The score of each sequence, without a graph: the same bits whatever else is scored. It is read at the last token that is no padding
    /// (`pad_token_id`), as transformers reads it.
    ///
    /// # Errors
    /// A model without a score head, a sequence that is empty or longer than the model's context, a token beyond its
    /// vocabulary.
    pub fn scores(&self, sequences: &[&[u32]]) -> Result<Vec<f64>> {
        self.check_scored(sequences)?;
        let mut scores = Vec::with_capacity(sequences.len());
        let mut rest = sequences;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |sequence: &&&[u32]| {
                tokens += sequence.len();
                tokens <= PASS
            };
            let (pass, others) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            let values = self.score(&self.sampling, pass, Learning::default())?.values;
            scores.extend(values.to_device(&Device::Cpu)?.to_vec1::<f32>()?.into_iter().map(f64::from));
            rest = others;
        }
        Ok(scores)
    }

    /// [`Self::scores`] by the differentiable walk, in one pass: the same numbers, with a graph to the head and the body.
    ///
    /// # Errors
    /// As for [`Self::scores`]; no sequence.
    pub fn learn_scores(&self, sequences: &[&[u32]], how: Learning) -> Result<Scores> {
        self.check_scored(sequences)?;
        if sequences.is_empty() {
            return Err(Error::Request("there is no sequence to score".into()));
        }
        self.score(&self.learning, sequences, how)
    }

    fn check_scored(&self, sequences: &[&[u32]]) -> Result<()> {
        if !self.gives_scores() {
            return Err(Error::Request(
                "the model has no score head: it is a language model, and no reward model".into(),
            ));
        }
        for (i, tokens) in sequences.iter().enumerate() {
            self.check(tokens).map_err(|message| Error::Request(format!("sequence {i} {message}")))?;
            if tokens.is_empty() {
                return Err(Error::Request(format!("sequence {i} has no tokens")));
            }
        }
        Ok(())
    }

    /// One pass over sequences that were checked.
    fn score(&self, transformer: &Transformer, sequences: &[&[u32]], how: Learning) -> Result<Scores> {
        let (hidden, expert_load, balance) = self.stream(transformer, sequences, None, how)?;
        let (mut rows, mut start) = (Vec::with_capacity(sequences.len()), 0);
        for tokens in sequences {
            // Of a sequence that is all padding transformers takes the first token.
            let last = tokens.iter().rposition(|token| Some(*token) != self.config.pad).unwrap_or(0);
            rows.push((start + last) as u32);
            start += tokens.len();
        }
        let scores = transformer.logits(&ops::gather_rows(&hidden, &rows)?)?;
        Ok(Scores { values: ops::column(&scores, 0)?, expert_load, balance })
    }
}
