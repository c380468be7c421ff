//! What all stages share that judge: which rows they cover, what of a response they see, what becomes of what can't be
//! decided.

use std::sync::Arc;

use base::{Completion, Decision, Finish, Group, Judgement, Prompt, Verdict};
use spec::{JudgeInput, OnUndecided};

use crate::error::Error;
use crate::executor::Report;

/// Where the thinking begins and ends, as R1 and those after it write it.
const THINKING: (&str, &str) = ("<think>", "</think>");

/// Whether a stage that names these sources covers a group.
pub(crate) fn covers(sources: &Option<Vec<String>>, group: &Group) -> bool {
    sources.as_ref().is_none_or(|sources| sources.iter().any(|name| **name == *group.prompt.source))
}

/// What of a completion is judged; why there is nothing to judge, where its thinking has no end.
pub(crate) fn judged_text<'a>(
    prompt: &Prompt,
    completion: &'a Completion,
    input: JudgeInput,
) -> Result<&'a str, &'static str> {
    let text = completion.text.as_str();
    let (begin, end) = THINKING;
    if input == JudgeInput::Response {
        return Ok(text);
    }
    if let Some((_, answer)) = text.split_once(end) {
        return Ok(answer.trim());
    }
    // A template may begin the thinking in the prompt.
    let begun = prompt.text.rsplit(end).next().is_some_and(|rest| rest.contains(begin));
    if begun || text.contains(begin) {
        return Err("the thinking has no end: there is no `</think>`, and no answer after it");
    }
    Ok(text)
}

/// Whether a completion came to its end by itself.
pub(crate) fn ended(completion: &Completion) -> bool {
    completion.finish == Finish::Stop
}

/// What the file says about what can't be decided.
pub(crate) struct Ruling<'a> {
    pub stage: &'a str,
    pub on_undecided: OnUndecided,
    /// The share of a step that may be undecided.
    pub most: f64,
}

/// What was found about the completions, or the pairs, of a step.
#[derive(Default)]
pub(crate) struct Tally {
    decided: u64,
    pub undecided: u64,
    /// The first group with an undecided completion, and why it is.
    first: Option<(usize, String)>,
}

impl Ruling<'_> {
    /// # Errors
    /// One verdict is undecided and must not be.
    pub fn require_decided(&self, group: &Group, verdicts: &[Verdict]) -> Result<(), Error> {
        let mut reasons = verdicts.iter().enumerate().filter_map(|(i, verdict)| match verdict {
            Verdict::Undecided(reason) => Some((i, reason)),
            _ => None,
        });
        match reasons.next().filter(|_| self.on_undecided == OnUndecided::Fail) {
            Some((number, reason)) => Err(Error::Finding(format!(
                "completion {number} of prompt {} (row {} of `{}`) is undecided and `on_undecided` is \"fail\": {reason}",
                group.index, group.prompt.id, group.prompt.source
            ))),
            None => Ok(()),
        }
    }

    /// The group with a judgement; what could not be decided is taken out of it, where the file says so.
    pub fn judged(&self, group: &Group, judgement: Judgement) -> Arc<Group> {
        let mut group = group.clone();
        if self.on_undecided == OnUndecided::Drop {
            for (decision, verdict) in group.decisions.iter_mut().zip(&judgement.verdicts) {
                if let (Decision::Keep, Verdict::Undecided(reason)) = (&*decision, verdict) {
                    *decision = Decision::Drop(format!("undecided by `{}`: {reason}", self.stage));
                }
            }
        }
        group.judgements.push(Arc::new(judgement));
        Arc::new(group)
    }
}

impl Tally {
    /// Counts the verdicts on a group.
    pub fn add(&mut self, group: usize, verdicts: &[Verdict]) {
        for verdict in verdicts {
            match verdict {
                Verdict::Decided(_) => self.decided += 1,
                Verdict::Undecided(reason) => {
                    self.undecided += 1;
                    // Whatever thread comes first: the first in the order of prompts is the one that is shown.
                    if self.first.as_ref().is_none_or(|(first, _)| group < *first) {
                        self.first = Some((group, reason.clone()));
                    }
                }
                Verdict::NotApplicable => {}
            }
        }
    }

    /// What there is to say of a step; `what` is what was judged.
    pub fn report(self, ruling: &Ruling<'_>, what: &str) -> Report {
        let Self { decided, undecided, first } = self;
        let (all, stage) = (decided + undecided, ruling.stage);
        let warning = first
            .map(|(_, reason)| format!("{undecided} of {all} {what} are undecided by `{stage}`, the first: {reason}"));
        let share = undecided as f64 / all.max(1) as f64;
        let finding = warning.as_ref().filter(|_| share > ruling.most);
        let finding = finding.map(|text| format!("{text}; that is more than `max_undecided = {}`", ruling.most));
        let metrics = vec![(format!("undecided/{stage}"), undecided as f64)];
        Report { metrics, finding, warning, ..Report::default() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use base::RoutedExperts;

    use super::*;

    /// A prompt of a text, and a completion of another.
    pub fn said(prompt: &str, text: &str) -> (Prompt, Completion) {
        let prompt = Prompt {
            id: 0,
            source: "rows".into(),
            messages: Vec::new(),
            text: prompt.to_owned(),
            tokens: vec![1],
            reference: None,
            response: None,
            learned: Vec::new(),
            fields: Vec::new(),
        };
        let completion = Completion {
            tokens: vec![1],
            loss_mask: vec![true],
            text: text.to_owned(),
            finish: Finish::Stop,
            logprobs: vec![0.0],
            weights_version: 0,
            experts: RoutedExperts::default(),
        };
        (prompt, completion)
    }

    #[test]
    fn the_answer_is_what_follows_the_thinking() {
        let answer = |prompt: &str, text: &str| {
            let (prompt, completion) = said(prompt, text);
            judged_text(&prompt, &completion, JudgeInput::Answer).map(str::to_owned)
        };
        assert_eq!(answer("", "<think>a</think>\n\nb"), Ok("b".to_owned()));
        assert_eq!(answer("<think>", "a</think>b</think>c"), Ok("b</think>c".to_owned()), "the first end counts");
        assert_eq!(answer("", "no thinking"), Ok("no thinking".to_owned()));
        assert_eq!(answer("<think>x</think>", "no thinking"), Ok("no thinking".to_owned()), "of a turn before");
        assert!(answer("", "<think>a").is_err() && answer("Go on: <think>\n", "a").is_err());
        let (prompt, completion) = said("", "<think>a</think>b");
        assert_eq!(judged_text(&prompt, &completion, JudgeInput::Response), Ok("<think>a</think>b"));
    }
}
