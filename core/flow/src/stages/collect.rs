//! `collect`: what was kept, as rows of a dataset that a later phase learns from.

use std::sync::{Mutex, PoisonError};

use base::{Decision, Group, Judgement, Verdict};
use record::{Answer, CollectedRow};
use serde_json::{Value, json};
use spec::JudgeInput;

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};
use crate::stages::judged::judged_text;

/// Columns that a collected row has beyond those of every dataset: where it came from.
pub(crate) const PROVENANCE: [&str; 6] = ["prompt_id", "completion", "model", "weights_version", "seed", "verdicts"];

pub(crate) struct CollectStage {
    pub name: String,
    /// The model that wrote what is collected.
    pub model: String,
    /// The seed of the run.
    pub seed: u64,
    /// The stage that made pairs of what comes, if one did, and what of a response they compare.
    pub pairs: Option<(String, JudgeInput)>,
    /// Rows of the step that was last run, until the run writes them.
    pub rows: Mutex<Vec<CollectedRow>>,
}

impl CollectStage {
    /// The row of a pair that was kept.
    fn pair(&self, group: &Group, stage: &str, input: JudgeInput, step: u64) -> Option<CollectedRow> {
        let [chosen, rejected] = group.completions.as_slice() else { return None };
        if group.decisions.iter().any(|decision| *decision != Decision::Keep) {
            return None;
        }
        let judgement = group.judgements.iter().find(|judgement| judgement.stage == stage)?;
        let [Verdict::Decided(better), Verdict::Decided(worse)] = judgement.verdicts.as_slice() else { return None };
        let text = |completion| judged_text(&group.prompt, completion, input).ok().map(str::to_owned);
        let answer = Answer::Pair { chosen: text(chosen)?, rejected: text(rejected)?, margin: better.score };
        let numbers: Vec<&str> = [better, worse].iter().filter_map(|finding| finding.answer.as_deref()).collect();
        let both = |judgement: &Judgement| judgement.verdicts.iter().map(verdict).collect();
        let version = chosen.weights_version.max(rejected.weights_version);
        Some(self.row(group, answer, numbers.join(","), version, verdicts(group, both), step))
    }

    /// A row with where it came from; `completion` is the number in its group, of a pair both.
    fn row(
        &self,
        group: &Group,
        answer: Answer,
        completion: String,
        version: u64,
        verdicts: Value,
        step: u64,
    ) -> CollectedRow {
        let provenance = [
            group.prompt.id.to_string(),
            completion,
            self.model.clone(),
            version.to_string(),
            self.seed.to_string(),
            verdicts.to_string(),
        ];
        let mut fields = group.prompt.fields.clone();
        fields.extend(PROVENANCE.map(str::to_owned).into_iter().zip(provenance));
        CollectedRow {
            prompt: group.prompt.messages.clone(),
            answer,
            reference: group.prompt.reference.clone(),
            source: group.prompt.source.to_string(),
            step: step + 1,
            fields,
        }
    }
}

impl Work for CollectStage {
    fn run(&self, step: u64, inbox: &Inbox, _outbox: &Outbox) -> Result<Report, Error> {
        let groups = inbox.whole_step()?;
        let mut rows = Vec::new();
        for group in &groups {
            let columns = columns(self.pairs.is_some());
            let reserved = |name: &str| columns.iter().chain(&PROVENANCE).any(|column| *column == name);
            if let Some((name, _)) = group.prompt.fields.iter().find(|(name, _)| reserved(name)) {
                return Err(Error::Finding(format!(
                    "rows of `{}` have a field `{name}`, which is a column of its own in what `{}` collects: rename the field",
                    group.prompt.source, self.name
                )));
            }
            if let Some((stage, input)) = &self.pairs {
                rows.extend(self.pair(group, stage, *input, step));
                continue;
            }
            for (i, completion) in group.completions.iter().enumerate() {
                if group.decisions.get(i).is_some_and(|decision| *decision != Decision::Keep) {
                    continue;
                }
                let verdicts = verdicts(group, |judgement| verdict(&judgement.verdicts[i]));
                let answer =
                    Answer::One { response: completion.text.clone(), reward: group.rewards.get(i).copied().flatten() };
                rows.push(self.row(group, answer, i.to_string(), completion.weights_version, verdicts, step));
            }
        }
        let metrics = vec![(format!("collect/{}/rows", self.name), rows.len() as f64)];
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = rows;
        let groups = groups.into_iter().map(|group| (group, Vec::new()));
        Ok(Report { metrics, groups: Some(groups.collect()), ..Report::default() })
    }

    fn collected(&self) -> Vec<CollectedRow> {
        std::mem::take(&mut *self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The columns of its own that a data set has: of pairs, or of single answers.
pub(crate) fn columns(pairs: bool) -> &'static [&'static str] {
    if pairs { &CollectedRow::PAIR_COLUMNS } else { &CollectedRow::COLUMNS }
}

/// What each stage found, by its name.
fn verdicts(group: &Group, found: impl Fn(&Judgement) -> Value) -> Value {
    let found = |judgement: &std::sync::Arc<Judgement>| (judgement.stage.clone(), found(judgement));
    Value::Object(group.judgements.iter().map(found).collect())
}

fn verdict(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Decided(finding) => json!(finding.score),
        Verdict::Undecided(reason) => json!({ "undecided": reason }),
        Verdict::NotApplicable => Value::Null,
    }
}
