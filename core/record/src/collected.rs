//! Datasets that a run makes of what it kept.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, ListBuilder, StringBuilder, StructBuilder, UInt64Builder};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use base::Message;
use serde_json::{Map, Value};

use crate::durable;
use crate::error::{Error, Result};
use crate::folder::PhaseFolder;
use crate::lines::Lines;
use crate::parquet_file;
use crate::rollouts::messages;

/// Rows gather under such a name until the dataset is whole.
const ROWS: &str = ".rows-";
const ROWS_PER_ROW_GROUP: usize = 1 << 14;

/// Whether a file of the ledger grows.
pub(crate) fn is_log(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|file| file.starts_with(ROWS))
}

/// Whether a file of the ledger is a whole dataset.
pub(crate) fn is_dataset(name: &str) -> bool {
    let phase = name.strip_prefix("phases/").and_then(|rest| rest.split_once('/'));
    phase.map_or(name, |(_, rest)| rest).starts_with("collected/") && !is_log(name)
}

/// Whether `name`, one of the `names` in the folder, was made here. A dataset that is not committed still has its log.
pub(crate) fn is_ours(name: &str, names: &[String]) -> bool {
    is_log(name) || names.contains(&format!("{ROWS}{name}"))
}

/// A row of a collected dataset: a prompt with what was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectedRow {
    /// The conversation; the column `prompt`, a list of `{role, content}`.
    pub prompt: Vec<Message>,
    /// What was answered. All rows of a dataset are of one kind.
    pub answer: Answer,
    /// The right answer.
    pub reference: Option<String>,
    /// The source of the prompt.
    pub source: String,
    /// The step it was sampled in.
    pub step: u64,
    /// Further columns, all of them text.
    pub fields: Vec<(String, String)>,
}

/// What a row holds beside its prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// One answer; the columns `response` and `reward`.
    One {
        /// The answer.
        response: String,
        /// Its reward.
        reward: Option<f64>,
    },
    /// Two of which one is better; the columns `chosen`, `rejected` and `margin`.
    Pair {
        /// The better one.
        chosen: String,
        /// The other.
        rejected: String,
        /// By how much it is better.
        margin: f64,
    },
}

impl CollectedRow {
    /// The columns of rows of one answer: names that `fields` must not use.
    pub const COLUMNS: [&str; 6] = ["prompt", "response", "reference", "source", "reward", "step"];
    /// The columns of rows of pairs.
    pub const PAIR_COLUMNS: [&str; 7] = ["prompt", "chosen", "rejected", "margin", "reference", "source", "step"];

    fn columns(&self) -> &'static [&'static str] {
        match self.answer {
            Answer::One { .. } => &Self::COLUMNS,
            Answer::Pair { .. } => &Self::PAIR_COLUMNS,
        }
    }

    fn to_json(&self) -> Value {
        let mut row = Map::new();
        row.insert("prompt".to_owned(), messages(&self.prompt));
        if let Answer::Pair { chosen, rejected, margin } = &self.answer {
            row.insert("chosen".to_owned(), Value::String(chosen.clone()));
            row.insert("rejected".to_owned(), Value::String(rejected.clone()));
            row.insert("margin".to_owned(), Value::from(*margin));
        }
        if let Answer::One { response, .. } = &self.answer {
            row.insert("response".to_owned(), Value::String(response.clone()));
        }
        row.insert("reference".to_owned(), self.reference.clone().map_or(Value::Null, Value::String));
        row.insert("source".to_owned(), Value::String(self.source.clone()));
        if let Answer::One { reward, .. } = &self.answer {
            row.insert("reward".to_owned(), reward.map_or(Value::Null, Value::from));
        }
        row.insert("step".to_owned(), self.step.into());
        row.extend(self.fields.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))));
        Value::Object(row)
    }
}

/// A dataset `collected/NAME` in the making. Rows that were appended are committed with the next checkpoint.
pub struct Collected {
    phase: PhaseFolder,
    name: String,
    log: String,
    parquet: bool,
}

impl Collected {
    pub(crate) fn new(phase: &PhaseFolder, name: &str) -> Result<Self> {
        durable::check_name("collected dataset", name)?;
        let parquet = name.ends_with(".parquet");
        if !parquet && !name.ends_with(".jsonl") {
            let what = "a collected dataset's name ends in `.jsonl` or `.parquet`".to_owned();
            return Err(Error::Shape { path: phase.path().join("collected").join(name), what });
        }
        let log = format!("{}collected/{ROWS}{name}", phase.prefix);
        Ok(Self { phase: phase.clone(), name: format!("{}collected/{name}", phase.prefix), log, parquet })
    }

    /// Where the dataset will be.
    pub fn path(&self) -> PathBuf {
        self.phase.inner.path.join(&self.name)
    }

    /// Appends rows.
    pub fn append(&self, rows: &[CollectedRow]) -> Result<()> {
        let clash = |row: &CollectedRow| {
            let mut names = row.fields.iter().map(|(name, _)| name);
            names.find(|name| row.columns().contains(&name.as_str())).cloned()
        };
        if let Some(name) = rows.iter().find_map(clash) {
            let what = format!("a further column can't be called `{name}`, the dataset has one of that name");
            return Err(Error::Shape { path: self.path(), what });
        }
        let text: String = rows.iter().map(|row| format!("{}\n", row.to_json())).collect();
        let mut ledger = self.phase.inner.ledger();
        if !ledger.logs.contains_key(&self.log) {
            durable::create_dir_all(durable::parent(&self.path()))?;
            let mut lines = Lines::open(&self.phase.inner.path.join(&self.log))?;
            // What the run was not rewound to is not part of it.
            lines.rewind_to_line(0)?;
            // The next mark vouches for the file, so its name must last as long.
            durable::sync_dir(durable::parent(&self.path()))?;
            ledger.logs.insert(self.log.clone(), lines);
        }
        ledger.logs.get_mut(&self.log).map_or(Ok(()), |lines| lines.append(&text))
    }

    /// Makes the dataset of all rows that were appended, by rename, and says how many they are. It takes no more rows after
    /// that.
    pub fn finish(&self) -> Result<usize> {
        self.append(&[])?;
        let path = self.path();
        let mut ledger = self.phase.inner.ledger();
        let Some(lines) = ledger.logs.get_mut(&self.log) else { return Ok(0) };
        let rows = lines.read()?;
        let mark = if self.parquet { write_parquet(&path, &rows)? } else { durable::replace(&path, &rows)? };
        ledger.logs.remove(&self.log);
        ledger.files.insert(self.name.clone(), mark);
        ledger.superseded.push(self.phase.inner.path.join(&self.log));
        Ok(rows.iter().filter(|&&byte| byte == b'\n').count())
    }
}

fn write_parquet(path: &std::path::Path, rows: &[u8]) -> Result<crate::FileMark> {
    let shape = |what: String| Error::Shape { path: path.to_owned(), what };
    let parse = |line: &[u8]| serde_json::from_slice::<Map<String, Value>>(line);
    let lines: Vec<&[u8]> = rows.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    let mut fields = Vec::new();
    let mut known: &[&'static str] = &CollectedRow::COLUMNS;
    for line in &lines {
        let row = parse(line).map_err(|error| shape(error.to_string()))?;
        if row.contains_key("margin") && !row.contains_key("response") {
            known = &CollectedRow::PAIR_COLUMNS;
        }
        for (name, _) in row {
            if !known.contains(&name.as_str()) && !fields.contains(&name) {
                fields.push(name);
            }
        }
    }
    let batch = |lines: &[&[u8]]| {
        let parsed: std::result::Result<Vec<_>, _> = lines.iter().map(|line| parse(line)).collect();
        let parsed = parsed.map_err(|error| shape(error.to_string()))?;
        columns(&parsed, known, &fields).map_err(|error| shape(error.to_string()))
    };
    let schema = batch(&[])?.schema();
    parquet_file::write(path, schema, lines.chunks(ROWS_PER_ROW_GROUP).map(batch))
}

fn columns(
    rows: &[Map<String, Value>],
    known: &[&'static str],
    fields: &[String],
) -> std::result::Result<RecordBatch, ArrowError> {
    let text = |name: &str| -> ArrayRef {
        let mut column = StringBuilder::new();
        rows.iter().for_each(|row| column.append_option(row.get(name).and_then(Value::as_str)));
        Arc::new(column.finish())
    };
    let message = vec![Field::new("role", DataType::Utf8, false), Field::new("content", DataType::Utf8, false)];
    let mut prompts = ListBuilder::new(StructBuilder::from_fields(message, 0));
    let number = |name: &str| -> ArrayRef {
        let mut column = Float64Builder::new();
        rows.iter().for_each(|row| column.append_option(row.get(name).and_then(Value::as_f64)));
        Arc::new(column.finish())
    };
    let mut steps = UInt64Builder::new();
    for row in rows {
        for said in row.get("prompt").and_then(Value::as_array).into_iter().flatten() {
            for (i, part) in ["role", "content"].into_iter().enumerate() {
                if let Some(column) = prompts.values().field_builder::<StringBuilder>(i) {
                    column.append_value(said.get(part).and_then(Value::as_str).unwrap_or_default());
                }
            }
            prompts.values().append(true);
        }
        prompts.append(true);
        steps.append_option(row.get("step").and_then(Value::as_u64));
    }
    let (prompts, steps): (ArrayRef, ArrayRef) = (Arc::new(prompts.finish()), Arc::new(steps.finish()));
    let column = |&name: &&'static str| match name {
        "prompt" => (name, prompts.clone(), false),
        "step" => (name, steps.clone(), false),
        "reward" => (name, number(name), true),
        "margin" => (name, number(name), false),
        _ => (name, text(name), name == "reference"),
    };
    let mut columns: Vec<(&str, ArrayRef, bool)> = known.iter().map(column).collect();
    columns.extend(fields.iter().map(|name| (name.as_str(), text(name), true)));
    RecordBatch::try_from_iter_with_nullable(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunFolder;
    use crate::durable::tests::SYNCED;

    #[test]
    fn the_name_of_a_new_log_is_durable() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunFolder::create(dir.path(), "demo", "", &Value::Null).unwrap();
        let phase = run.phase(None).unwrap();
        let folder = run.path().join("collected");
        for name in ["first.jsonl", "second.jsonl"] {
            let kept = phase.collected(name).unwrap();
            SYNCED.take();
            kept.append(&[]).unwrap();
            assert!(folder.join(format!("{ROWS}{name}")).is_file());
            assert_eq!(SYNCED.take().last(), Some(&folder), "{name}");
        }
    }
}
