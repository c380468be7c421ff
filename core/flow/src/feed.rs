//! Rows become prompts: which rows a step takes, and the text and tokens that the model is given.
//!
//! Which row stands where is a function of the seed and of how many were dealt before.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use base::{Context, Message, Prompt, RngKey, Row};
use host::Configured;
use model::{ChatTemplate, Model, Tokenizer};
use record::dataset::Rows;
use spec::{Columns, Feed as FeedSpec, Order, Shape};

use crate::error::Error;
use crate::render::{CHOSEN, LABEL, REJECTED, Renderer};

/// A source stage, ready to deal out the rows of any step.
pub(crate) struct Feed {
    key: RngKey,
    name: Arc<str>,
    rows_per_step: usize,
    order: Order,
    dealer: Dealer,
    renderer: Renderer,
    tokenizer: Tokenizer,
}

/// Where rows come from.
pub(crate) enum Dealer {
    /// Rows that are all there, by source, each with its weight.
    Rows(Vec<Source>),
    /// Rows that a generator makes without end.
    Endless(Configured),
}

/// One source of rows.
pub(crate) struct Source {
    pub name: Arc<str>,
    pub weight: f64,
    pub shape: Shape,
    pub rows: Vec<Row>,
}

impl Feed {
    pub fn new(key: RngKey, name: &str, feed: &FeedSpec, dealer: Dealer, model: &Model) -> Result<Self, Error> {
        Ok(Self {
            key,
            name: name.into(),
            rows_per_step: feed.prompts_per_step,
            order: feed.order,
            dealer,
            renderer: Renderer::new(feed.template.as_deref(), feed.system.as_deref(), model)?,
            tokenizer: model.tokenizer.clone(),
        })
    }

    /// The plugin that makes rows while steps are run, if one does.
    pub fn generator(&self) -> Option<&Configured> {
        match &self.dealer {
            Dealer::Rows(_) => None,
            Dealer::Endless(generator) => Some(generator),
        }
    }

    /// The prompts after the first `first` ones, as many as a step (counted from 0) has.
    pub fn rows(&self, step: u64, first: u64) -> Result<Vec<Arc<Prompt>>, Error> {
        match &self.dealer {
            Dealer::Endless(generator) => {
                let rows = rows_between(generator, step, self.key, first..first + self.rows_per_step as u64)?;
                rows.into_iter()
                    .enumerate()
                    .map(|(i, row)| self.renderer.prompt(&self.tokenizer, first + i as u64, self.name.clone(), row))
                    .collect()
            }
            Dealer::Rows(sources) => {
                let mut orders = BTreeMap::new();
                let mut prompts = Vec::with_capacity(self.rows_per_step);
                for (source, draw) in deal(sources, first, self.rows_per_step) {
                    let Source { name, rows, shape, .. } = &sources[source];
                    let (epoch, position) = (draw / rows.len() as u64, (draw % rows.len() as u64) as usize);
                    let row = match self.order {
                        Order::Sequential => position,
                        Order::Shuffle => orders
                            .entry((source, epoch))
                            .or_insert_with(|| self.key.derive(name).permutation(epoch as u32, rows.len()))[position],
                    };
                    let before: usize = sources[..source].iter().map(|source| source.rows.len()).sum();
                    let (id, row) = ((before + row) as u64, rows[row].clone());
                    prompts.push(self.renderer.shaped(&self.tokenizer, id, name.clone(), row, *shape)?);
                }
                Ok(prompts)
            }
        }
    }
}

/// Rows that one call of a generator makes: what a call may return is bounded.
const ROWS_PER_CALL: u64 = 256;

/// A range of a generator's rows.
pub(crate) fn rows_between(plugin: &Configured, step: u64, key: RngKey, range: Range<u64>) -> Result<Vec<Row>, Error> {
    let context = Context { step, seed: key.seed(), max_tokens: 0, evaluating: false };
    let mut rows = Vec::new();
    for first in range.clone().step_by(ROWS_PER_CALL as usize) {
        rows.extend(plugin.generate(&context, first, ROWS_PER_CALL.min(range.end - first) as u32)?);
    }
    Ok(rows)
}

/// For each of `count` places from `first` on: the source and how many rows it gave before. Each place goes to the source
/// that is furthest behind its weight, so that the shares are exact and no random number is spent.
fn deal(sources: &[Source], first: u64, count: usize) -> Vec<(usize, u64)> {
    if sources.len() == 1 {
        return (first..first + count as u64).map(|draw| (0, draw)).collect();
    }
    let total: f64 = sources.iter().map(|source| source.weight).sum();
    let mut given = vec![0_u64; sources.len()];
    let mut dealt = Vec::with_capacity(count);
    for place in 0..first + count as u64 {
        let behind = |i: usize| sources[i].weight / total * (place + 1) as f64 - given[i] as f64;
        let mut most = 0;
        for i in 1..sources.len() {
            if behind(i) > behind(most) {
                most = i;
            }
        }
        if place >= first {
            dealt.push((most, given[most]));
        }
        given[most] += 1;
    }
    dealt
}

/// A part of the rows of a file, by the columns that the pipeline file names. `fits` may refuse a row.
pub(crate) fn rows_from_file(
    rows: &Rows,
    columns: &Columns,
    part: Range<usize>,
    fits: &dyn Fn(&Row) -> Result<(), Error>,
) -> Result<Vec<Row>, record::Error> {
    let optional = |row: usize, column: &str| -> Result<Option<String>, record::Error> {
        Ok(match rows.require(row, column)? {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text),
            other => Some(other.to_string()),
        })
    };
    let text = |row: usize, column: &str| -> Result<String, record::Error> {
        optional(row, column)?.ok_or_else(|| rows.row_error(row, &format!("column `{column}` is null")))
    };
    // A text, or the one message that TRL's preference data sets hold in its place.
    let answer = |row: usize, column: &str| -> Result<String, record::Error> {
        let Some(list) = rows.require(row, column)?.as_array().cloned() else { return text(row, column) };
        let content = |message: &serde_json::Value| Some(message.get("content")?.as_str()?.to_owned());
        match list.as_slice() {
            [message] => content(message),
            _ => None,
        }
        .ok_or_else(|| {
            rows.row_error(
                row,
                &format!("column `{column}` must hold a text, or a list of one message: the answer alone"),
            )
        })
    };
    let prompts = Prompts::new(columns).map_err(|what| rows.row_error(0, &what))?;
    if part.start >= rows.len() {
        return Err(rows.row_error(rows.len() - 1, "it is the last row, and `skip` leaves out more"));
    }
    (part.start..rows.len().min(part.end))
        .map(|i| {
            let prompt = prompts.read(rows, i)?;
            let reference = columns.reference.as_deref().map(|column| optional(i, column)).transpose()?.flatten();
            let mut fields = Vec::new();
            if let Some(column) = &columns.response {
                fields.push(("response".to_owned(), text(i, column)?));
            }
            for (name, column) in [(CHOSEN, &columns.chosen), (REJECTED, &columns.rejected)] {
                if let Some(column) = column {
                    fields.push((name.to_owned(), answer(i, column)?));
                }
            }
            if let Some(column) = &columns.label {
                let label = text(i, column)?;
                if truth(&label).is_none() {
                    return Err(rows
                        .row_error(i, &format!("column `{column}` holds no label: it must be 1 or 0, true or false")));
                }
                fields.push((LABEL.to_owned(), label));
            }
            for column in &columns.fields {
                fields.push((column.clone(), text(i, column)?));
            }
            let row = Row { prompt, reference, fields };
            fits(&row).map_err(|error| rows.row_error(i, &error.to_string()))?;
            Ok(row)
        })
        .collect()
}

/// Whether a label is 1.
pub(crate) fn truth(label: &str) -> Option<bool> {
    match label {
        "1" | "1.0" | "true" => Some(true),
        "0" | "0.0" | "false" => Some(false),
        _ => None,
    }
}

/// What prompts are made of, ready to be read.
enum Prompts<'a> {
    Column(&'a str),
    /// The template, and the columns that it names.
    Template(Box<ChatTemplate>, Vec<String>),
}

impl<'a> Prompts<'a> {
    fn new(columns: &'a Columns) -> Result<Self, String> {
        if columns.shape != Shape::Template {
            return Ok(Self::Column(&columns.prompt));
        }
        let wrong = |error| format!("`prompt_template` can't be used: {error}");
        let template = ChatTemplate::new(&columns.prompt).map_err(wrong)?;
        let columns = template.variables().map_err(wrong)?.into_iter().collect();
        Ok(Self::Template(Box::new(template), columns))
    }

    /// The conversation that a row begins.
    fn read(&self, rows: &Rows, row: usize) -> Result<Vec<Message>, record::Error> {
        let user = |content: String| vec![Message { role: "user".into(), content }];
        match self {
            Self::Template(template, columns) => {
                let values = columns.iter().map(|column| Ok((column.clone(), rows.require(row, column)?)));
                let values = values.collect::<Result<serde_json::Map<_, _>, record::Error>>()?;
                let failed = |error| rows.row_error(row, &format!("`prompt_template` fails: {error}"));
                template.render_with(&values).map(user).map_err(failed)
            }
            Self::Column(column) => match rows.require(row, column)? {
                serde_json::Value::String(content) => Ok(user(content)),
                list @ serde_json::Value::Array(_) => serde_json::from_value(list).map_err(|error| {
                    let what = format!("column `{column}` is no list of messages with role and content: {error}");
                    rows.row_error(row, &what)
                }),
                _ => Err(rows.row_error(row, &format!("column `{column}` must hold a string or a list of messages"))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_dealt_by_weight_and_do_not_depend_on_where_a_step_begins() {
        let source = |name: &str, weight| Source { name: name.into(), weight, shape: Shape::Prompt, rows: Vec::new() };
        let sources = [source("math", 3.0), source("code", 1.0)];
        let whole = deal(&sources, 0, 400);
        assert_eq!(whole.iter().filter(|(source, _)| *source == 0).count(), 300);
        assert_eq!(deal(&sources, 120, 40), whole[120..160]);
        let draws: Vec<u64> = whole.iter().filter(|(source, _)| *source == 1).map(|(_, draw)| *draw).collect();
        assert_eq!(draws, (0..100).collect::<Vec<_>>());
    }
}
