//! `judge`: a model's verdict on each completion: the score of a reward model, or the mean of what a language model says.

use std::sync::Arc;

use base::{Completion, Finding, Group, Judgement, Prompt, Row, Verdict};
use model::Model;
use spec::ScoreScale;

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};
use crate::render::{Renderer, answered};
use crate::stages::ask::{Asker, Question, mean};
use crate::stages::judged::{Ruling, Tally, covers, ended, judged_text};

pub(crate) struct JudgeStage {
    pub name: String,
    pub spec: spec::Judge,
    pub by: By,
}

/// How verdicts are made.
pub(crate) enum By {
    Score { model: Arc<Model>, renderer: Box<Renderer>, scale: ScoreScale },
    Text { asker: Box<Asker>, samples: usize },
}

impl JudgeStage {
    fn ruling(&self) -> Ruling<'_> {
        Ruling { stage: &self.name, on_undecided: self.spec.on_undecided, most: self.spec.max_undecided }
    }

    /// Hands a group on with its verdicts.
    fn hand_on(&self, group: &Group, verdicts: Vec<Verdict>, tally: &mut Tally, outbox: &Outbox) -> Result<(), Error> {
        self.ruling().require_decided(group, &verdicts)?;
        tally.add(group.index, &verdicts);
        outbox.send(&self.ruling().judged(group, Judgement { stage: self.name.clone(), verdicts }))
    }

    /// The scores of a group's completions.
    fn scored(
        &self,
        group: &Group,
        model: &Model,
        renderer: &Renderer,
        scale: ScoreScale,
    ) -> Result<Vec<Verdict>, Error> {
        let _span = tracing::debug_span!("judge", stage = self.name, group = group.index).entered();
        let prompt = in_words_of(&group.prompt, model, renderer)?;
        let input = |completion: &Arc<Completion>| -> Result<Result<Vec<u32>, String>, Error> {
            let text = match judged_text(&group.prompt, completion, self.spec.input) {
                Ok(text) => text,
                Err(reason) => return Ok(Err(reason.to_owned())),
            };
            let tokens = answered(model, &prompt.tokens, text, ended(completion))?;
            let (length, context) = (tokens.len(), model.context());
            Ok(match length <= context {
                true => Ok(tokens),
                false => {
                    Err(format!("prompt and response have {length} tokens, and the judge reads at most {context}"))
                }
            })
        };
        let inputs = group.completions.iter().map(input).collect::<Result<Vec<_>, Error>>()?;
        let sequences: Vec<&[u32]> = inputs.iter().flatten().map(Vec::as_slice).collect();
        let mut scores = model.scores(&sequences).map_err(Error::model)?.into_iter();
        let verdict = |input| match input {
            Ok(_) => scores.next().map_or(Verdict::NotApplicable, |score| of_score(score, scale)),
            Err(reason) => Verdict::Undecided(reason),
        };
        Ok(inputs.into_iter().map(verdict).collect())
    }

    /// What a language model says about all completions of a step.
    fn asked(
        &self,
        step: u64,
        groups: &[Arc<Group>],
        asker: &Asker,
        samples: usize,
    ) -> Result<Vec<Vec<Verdict>>, Error> {
        let covered = |group: &&Arc<Group>| covers(&self.spec.sources, group);
        let mut questions = Vec::new();
        for group in groups.iter().filter(covered) {
            for (i, completion) in group.completions.iter().enumerate() {
                if let Ok(text) = judged_text(&group.prompt, completion, self.spec.input) {
                    let index = (group.index * group.completions.len() + i) as u64;
                    let about = vec![("response", text.to_owned())];
                    questions.push(Question { about, prompt: group.prompt.clone(), index, texts: samples });
                }
            }
        }
        let mut found = asker.ask(step, &questions)?.into_iter();
        let mut verdict =
            |group: &Group, completion: &Completion| match judged_text(&group.prompt, completion, self.spec.input) {
                Ok(_) => found.next().map_or(Verdict::NotApplicable, |found| mean(&found)),
                Err(reason) => Verdict::Undecided(reason.to_owned()),
            };
        let verdicts = groups.iter().map(|group| match covered(&group) {
            true => group.completions.iter().map(|completion| verdict(group, completion)).collect(),
            false => vec![Verdict::NotApplicable; group.completions.len()],
        });
        Ok(verdicts.collect())
    }
}

/// The verdict of a reward model.
fn of_score(score: f64, scale: ScoreScale) -> Verdict {
    let score = match scale {
        ScoreScale::Raw => score,
        ScoreScale::Sigmoid => learn::sigmoid(score),
    };
    match score.is_finite() {
        true => Verdict::Decided(Finding { score, ..Finding::default() }),
        false => Verdict::Undecided(format!("the judge's score is {score}")),
    }
}

/// A prompt as another model reads it.
fn in_words_of(prompt: &Prompt, model: &Model, renderer: &Renderer) -> Result<Arc<Prompt>, Error> {
    let row = Row { prompt: prompt.messages.clone(), reference: None, fields: Vec::new() };
    renderer.prompt(&model.tokenizer, prompt.id, prompt.source.clone(), row)
}

impl Work for JudgeStage {
    fn run(&self, step: u64, inbox: &Inbox, outbox: &Outbox) -> Result<Report, Error> {
        let mut tally = Tally::default();
        let mut spent = None;
        match &self.by {
            By::Score { model, renderer, scale } => {
                for (_, group) in inbox.iter() {
                    let verdicts = match covers(&self.spec.sources, &group) {
                        true => self.scored(&group, model, renderer, *scale)?,
                        false => vec![Verdict::NotApplicable; group.completions.len()],
                    };
                    self.hand_on(&group, verdicts, &mut tally, outbox)?;
                }
            }
            By::Text { asker, samples } => {
                let before = asker.plugin.spent();
                let groups = inbox.whole_step()?;
                let verdicts = self.asked(step, &groups, asker, *samples)?;
                for (group, verdicts) in groups.iter().zip(verdicts) {
                    self.hand_on(group, verdicts, &mut tally, outbox)?;
                }
                spent = Some((asker.plugin.name().to_owned(), asker.plugin.spent().since(before)));
            }
        }
        Ok(Report { spent, ..tally.report(&self.ruling(), "completions") })
    }
}
