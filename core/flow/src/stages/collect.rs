//! `collect`: what was kept, as rows of a dataset that a later phase learns from.

use std::sync::{Mutex, PoisonError};

use base::{Decision, Verdict};
use record::CollectedRow;
use serde_json::{Value, json};

use crate::error::Error;
use crate::executor::{Inbox, Outbox, Report, Work};

/// Columns that a collected row has beyond those of every dataset: where it came from.
pub(crate) const PROVENANCE: [&str; 6] = ["prompt_id", "completion", "model", "weights_version", "seed", "verdicts"];

pub(crate) struct CollectStage {
    pub name: String,
    /// The model that wrote what is collected.
    pub model: String,
    /// The seed of the run.
    pub seed: u64,
    /// Rows of the step that was last run, until the run writes them.
    pub rows: Mutex<Vec<CollectedRow>>,
}

impl Work for CollectStage {
    fn run(&self, step: u64, inbox: &Inbox, _outbox: &Outbox) -> Result<Report, Error> {
        let groups = inbox.whole_step()?;
        let mut rows = Vec::new();
        for group in &groups {
            let reserved = |name: &str| CollectedRow::COLUMNS.iter().chain(&PROVENANCE).any(|column| *column == name);
            if let Some((name, _)) = group.prompt.fields.iter().find(|(name, _)| reserved(name)) {
                return Err(Error::Finding(format!(
                    "rows of `{}` have a field `{name}`, which is a column of its own in what `{}` collects: rename the field",
                    group.prompt.source, self.name
                )));
            }
            for (i, completion) in group.completions.iter().enumerate() {
                if group.decisions.get(i).is_some_and(|decision| *decision != Decision::Keep) {
                    continue;
                }
                let verdicts: serde_json::Map<String, Value> = group
                    .judgements
                    .iter()
                    .map(|judgement| {
                        let verdict = match &judgement.verdicts[i] {
                            Verdict::Decided(finding) => json!(finding.score),
                            Verdict::Undecided(reason) => json!({ "undecided": reason }),
                            Verdict::NotApplicable => Value::Null,
                        };
                        (judgement.stage.clone(), verdict)
                    })
                    .collect();
                let mut fields = group.prompt.fields.clone();
                let provenance = [
                    group.prompt.id.to_string(),
                    i.to_string(),
                    self.model.clone(),
                    completion.weights_version.to_string(),
                    self.seed.to_string(),
                    Value::Object(verdicts).to_string(),
                ];
                fields.extend(PROVENANCE.map(str::to_owned).into_iter().zip(provenance));
                rows.push(CollectedRow {
                    prompt: group.prompt.messages.clone(),
                    response: completion.text.clone(),
                    reference: group.prompt.reference.clone(),
                    source: group.prompt.source.to_string(),
                    reward: group.rewards.get(i).copied().flatten(),
                    step: step + 1,
                    fields,
                });
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
