//! What an evaluation saw: one row a completion.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, StringBuilder, UInt64Builder};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use base::{Group, Verdict};
use serde_json::Value;

use crate::durable;
use crate::error::{Error, Result};
use crate::folder::PhaseFolder;
use crate::parquet_file;
use crate::rollouts::{finish, messages, verdicts};

/// The folder of all evaluations of a phase.
const FOLDER: &str = "evaluations";
const QUESTIONS_PER_ROW_GROUP: usize = 1 << 10;

/// A question with its completions, and what they amount to.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The question, its completions and what the verify stages found.
    pub group: Arc<Group>,
    /// For each completion whether it is right; `None` where that is undecided.
    pub right: Vec<Option<bool>>,
    /// For each completion the number of the class of equivalent answers that it is in, in the order of their first
    /// completions; `None` where it gives no answer.
    pub classes: Vec<Option<usize>>,
    /// The class that the majority chose.
    pub majority: Option<usize>,
    /// Whether these completions were sampled at temperature 0, beside the others.
    pub greedy: bool,
}

/// The evaluations of a phase, a file `evaluations/NAME/step-000050.parquet` for each and each step that it ran at.
///
/// The columns: `phase`, `evaluation`, `step`, `question` (its number), `messages` (JSON), `prompt` (the text that the
/// model was given), `reference`, `completion` (its number), `greedy` (sampled at temperature 0 beside the others), `text`,
/// `length` (tokens), `finish` (stop, length, aborted), `right` (null where undecided), `answer` (canonical, by the first
/// verify stage), `class` (equivalent answers of a question have one number), `majority` (whether most answers are in that
/// class), `verdicts` (a JSON object: stage to verdict).
pub struct Evaluations {
    phase: PhaseFolder,
}

impl Evaluations {
    pub(crate) fn new(phase: &PhaseFolder) -> Self {
        Self { phase: phase.clone() }
    }

    /// Where the results of an evaluation after `step` steps are, or will be.
    pub fn path(&self, name: &str, step: u64) -> PathBuf {
        self.phase.path().join(file(name, step))
    }

    /// Writes the file of an evaluation after `step` steps whole. `answered` is in the order of the questions.
    ///
    /// # Errors
    /// The file can't be written, `name` can't be a folder's, or the lists of a question don't have its length.
    pub fn write(&self, name: &str, step: u64, answered: &[Answered]) -> Result<PathBuf> {
        durable::check_name("evaluation", name)?;
        let path = self.path(name, step);
        let shape = |what: String| Error::Shape { path: path.clone(), what };
        for one in answered {
            let count = one.group.completions.len();
            if one.right.len() != count || one.classes.len() != count {
                let (right, classes) = (one.right.len(), one.classes.len());
                let what = format!("a question has {count} completions, {right} scores and {classes} classes");
                return Err(shape(what));
            }
        }
        durable::create_dir_all(durable::parent(&path))?;
        let phase = self.phase.name.as_str();
        let batch = |answered: &[Answered]| {
            let mut columns = Columns::default();
            for one in answered {
                (0..one.group.completions.len()).for_each(|number| columns.push(phase, name, step, one, number));
            }
            columns.finish().map_err(|error| shape(error.to_string()))
        };
        let schema = batch(&[])?.schema();
        let mark = parquet_file::write(&path, schema, answered.chunks(QUESTIONS_PER_ROW_GROUP).map(batch))?;
        self.phase.inner.ledger().files.insert(format!("{}{}", self.phase.prefix, file(name, step)), mark);
        Ok(path)
    }
}

/// The folders of the evaluations of a phase, relative to the phase's own.
pub(crate) fn folders(phase: &Path) -> Result<Vec<String>> {
    let folder = phase.join(FOLDER);
    let names = durable::names(&folder)?.into_iter().filter(|name| folder.join(name).is_dir());
    Ok(names.map(|name| format!("{FOLDER}/{name}")).collect())
}

fn file(name: &str, step: u64) -> String {
    format!("{FOLDER}/{name}/step-{step:06}.parquet")
}

#[derive(Default)]
struct Columns {
    phase: StringBuilder,
    evaluation: StringBuilder,
    step: UInt64Builder,
    question: UInt64Builder,
    messages: StringBuilder,
    prompt: StringBuilder,
    reference: StringBuilder,
    completion: UInt64Builder,
    greedy: BooleanBuilder,
    text: StringBuilder,
    length: UInt64Builder,
    finish: StringBuilder,
    right: BooleanBuilder,
    answer: StringBuilder,
    class: UInt64Builder,
    majority: BooleanBuilder,
    verdicts: StringBuilder,
}

impl Columns {
    fn push(&mut self, phase: &str, evaluation: &str, step: u64, answered: &Answered, number: usize) {
        let Answered { group, right, classes, majority, greedy } = answered;
        let (prompt, completion) = (&group.prompt, &group.completions[number]);
        let first = group.judgements.first().and_then(|judgement| judgement.verdicts.get(number));
        let answer = match first {
            Some(Verdict::Decided(finding)) => finding.answer.as_deref(),
            _ => None,
        };
        let class = classes[number];
        self.phase.append_value(phase);
        self.evaluation.append_value(evaluation);
        self.step.append_value(step);
        self.question.append_value(prompt.id);
        self.messages.append_value(messages(&prompt.messages).to_string());
        self.prompt.append_value(&prompt.text);
        self.reference.append_option(prompt.reference.as_deref());
        self.completion.append_value(number as u64);
        self.greedy.append_value(*greedy);
        self.text.append_value(&completion.text);
        self.length.append_value(completion.tokens.len() as u64);
        self.finish.append_value(finish(completion.finish));
        self.right.append_option(right[number]);
        self.answer.append_option(answer);
        self.class.append_option(class.map(|class| class as u64));
        self.majority.append_value(class.is_some() && class == *majority);
        self.verdicts.append_value(Value::Object(verdicts(group, number)).to_string());
    }

    fn finish(mut self) -> std::result::Result<RecordBatch, ArrowError> {
        let required = |name: &'static str, column: ArrayRef| (name, column, false);
        let optional = |name: &'static str, column: ArrayRef| (name, column, true);
        RecordBatch::try_from_iter_with_nullable([
            required("phase", Arc::new(self.phase.finish())),
            required("evaluation", Arc::new(self.evaluation.finish())),
            required("step", Arc::new(self.step.finish())),
            required("question", Arc::new(self.question.finish())),
            required("messages", Arc::new(self.messages.finish())),
            required("prompt", Arc::new(self.prompt.finish())),
            optional("reference", Arc::new(self.reference.finish())),
            required("completion", Arc::new(self.completion.finish())),
            required("greedy", Arc::new(self.greedy.finish())),
            required("text", Arc::new(self.text.finish())),
            required("length", Arc::new(self.length.finish())),
            required("finish", Arc::new(self.finish.finish())),
            optional("right", Arc::new(self.right.finish())),
            optional("answer", Arc::new(self.answer.finish())),
            optional("class", Arc::new(self.class.finish())),
            required("majority", Arc::new(self.majority.finish())),
            required("verdicts", Arc::new(self.verdicts.finish())),
        ])
    }
}
