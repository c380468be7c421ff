//! The records of the plugin interface as values of a script, and back.
//!
//! Names are those of the WIT package in snake_case. Where WIT has a list of pairs, a script has a map; an absent option is
//! `()`. A verdict may be written as a number, `#{ score: .. }`, `undecided(..)` or `not_applicable()`.

use std::ops::Range;
use std::sync::Arc;

use base::{Context, Decision, Finding, Finish, Group, Judgement, Message, Row, Verdict};
use rhai::{Array, Dynamic, Map};
use serde_json::Value;

fn map<const N: usize>(fields: [(&str, Dynamic); N]) -> Dynamic {
    fields.into_iter().map(|(name, value)| (name.into(), value)).collect::<Map>().into()
}

fn option(text: Option<&str>) -> Dynamic {
    text.map_or(Dynamic::UNIT, Into::into)
}

pub(super) fn context(ctx: &Context) -> Dynamic {
    map([
        ("step", (ctx.step as i64).into()),
        ("seed", (ctx.seed as i64).into()),
        ("max_tokens", i64::from(ctx.max_tokens).into()),
        ("evaluating", ctx.evaluating.into()),
    ])
}

pub(super) fn group(group: &Group, which: Range<usize>) -> Dynamic {
    let prompt = &group.prompt;
    let message = |m: &Message| map([("role", m.role.as_str().into()), ("content", m.content.as_str().into())]);
    let completion = |id: usize| {
        let completion = &group.completions[id];
        let finish = match completion.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Aborted => "aborted",
        };
        map([
            ("id", (id as i64).into()),
            ("text", completion.text.as_str().into()),
            ("tokens", (completion.tokens.len() as i64).into()),
            ("finish", finish.into()),
        ])
    };
    let fields: Map = prompt.fields.iter().map(|(name, value)| (name.into(), value.as_str().into())).collect();
    map([
        ("prompt_id", (prompt.id as i64).into()),
        ("source", prompt.source.as_ref().into()),
        ("prompt", prompt.messages.iter().map(message).collect::<Array>().into()),
        ("reference", option(prompt.reference.as_deref())),
        ("fields", fields.into()),
        ("completions", which.map(completion).collect::<Array>().into()),
    ])
}

fn verdict_out(verdict: &Verdict) -> Dynamic {
    match verdict {
        Verdict::Decided(Finding { score, answer, metrics, note }) => {
            let metrics: Map = metrics.iter().map(|(name, value)| (name.into(), (*value).into())).collect();
            map([
                ("score", (*score).into()),
                ("answer", option(answer.as_deref())),
                ("metrics", metrics.into()),
                ("note", option(note.as_deref())),
            ])
        }
        Verdict::Undecided(reason) => map([("undecided", reason.as_str().into())]),
        Verdict::NotApplicable => map([("not_applicable", true.into())]),
    }
}

pub(super) fn judgements(judgements: &[Arc<Judgement>]) -> Dynamic {
    let judgement = |judgement: &Arc<Judgement>| {
        let verdicts: Array = judgement.verdicts.iter().map(verdict_out).collect();
        map([("stage", judgement.stage.as_str().into()), ("verdicts", verdicts.into())])
    };
    judgements.iter().map(judgement).collect::<Array>().into()
}

/// The groups of a step and the rewards of their completions, `()` where there is none.
pub(super) fn step(groups: &[Arc<Group>]) -> (Dynamic, Dynamic) {
    let shapes: Array = groups.iter().map(|g| group(g, 0..g.completions.len())).collect();
    let rewards = groups.iter().map(|group| {
        let reward = |i: usize| group.rewards.get(i).copied().flatten().map_or(Dynamic::UNIT, Dynamic::from);
        Dynamic::from((0..group.completions.len()).map(reward).collect::<Array>())
    });
    (shapes.into(), rewards.collect::<Array>().into())
}

pub(super) fn kind(value: &Dynamic) -> &str {
    match value.type_name() {
        "()" => "nothing",
        "string" => "a string",
        "i64" | "f64" => "a number",
        "bool" => "a boolean",
        "array" => "a list",
        "map" => "a map",
        other => other,
    }
}

fn list(value: Dynamic, what: &str) -> Result<Array, String> {
    let found = format!("returned {} where {what} belongs", kind(&value));
    value.into_array().map_err(|_| found)
}

fn number(value: &Dynamic) -> Option<f64> {
    value.as_float().ok().or_else(|| value.as_int().ok().map(|n| n as f64))
}

fn text(value: Option<&Dynamic>) -> Option<String> {
    value.filter(|value| value.is_string()).map(ToString::to_string)
}

pub(super) fn verdicts(value: Dynamic) -> Result<Vec<Verdict>, String> {
    list(value, "a list of verdicts")?.iter().map(verdict).collect()
}

fn verdict(value: &Dynamic) -> Result<Verdict, String> {
    if let Some(score) = number(value) {
        return Ok(Verdict::Decided(Finding { score, ..Finding::default() }));
    }
    let malformed = || format!("returned {} where a verdict belongs", kind(value));
    let fields = value.as_map_ref().map_err(|_| malformed())?;
    if let Some(reason) = text(fields.get("undecided")) {
        return Ok(Verdict::Undecided(reason));
    }
    if fields.contains_key("not_applicable") {
        return Ok(Verdict::NotApplicable);
    }
    let score = fields.get("score").and_then(number).ok_or("returned a verdict without a `score`")?;
    let mut metrics = Vec::new();
    if let Some(found) = fields.get("metrics").filter(|found| !found.is_unit()) {
        let found = found.as_map_ref().map_err(|_| "returned `metrics` that are no map")?;
        for (name, value) in found.iter() {
            let value = number(value).ok_or_else(|| format!("returned a metric `{name}` that is no number"))?;
            metrics.push((name.to_string(), value));
        }
    }
    Ok(Verdict::Decided(Finding { score, answer: text(fields.get("answer")), metrics, note: text(fields.get("note")) }))
}

pub(super) fn rewards(value: Dynamic) -> Result<Vec<Option<f64>>, String> {
    let reward = |value: &Dynamic| match number(value) {
        Some(reward) => Ok(Some(reward)),
        None if value.is_unit() => Ok(None),
        None => Err(format!("returned {} where a reward belongs", kind(value))),
    };
    list(value, "a list of rewards")?.iter().map(reward).collect()
}

pub(super) fn decisions(value: Dynamic) -> Result<Vec<Vec<Decision>>, String> {
    let decision = |value: &Dynamic| {
        if value.is_string() && *value.as_immutable_string_ref().map_err(str::to_owned)? == "keep" {
            return Ok(Decision::Keep);
        }
        let malformed = || format!("returned {} where `\"keep\"`, `mask(..)` or `drop(..)` belongs", kind(value));
        let fields = value.as_map_ref().map_err(|_| malformed())?;
        match (text(fields.get("mask")), text(fields.get("drop"))) {
            (Some(reason), None) => Ok(Decision::Mask(reason)),
            (None, Some(reason)) => Ok(Decision::Drop(reason)),
            _ => Err(malformed()),
        }
    };
    let of_group = |value: Dynamic| list(value, "a list of decisions")?.iter().map(decision).collect();
    list(value, "a list of lists of decisions")?.into_iter().map(of_group).collect()
}

pub(super) fn rows(value: Dynamic) -> Result<Vec<Row>, String> {
    list(value, "a list of rows")?.into_iter().map(row).collect()
}

fn row(value: Dynamic) -> Result<Row, String> {
    let found = value.as_map_ref().map_err(|_| "returned a row that is no map")?;
    let prompt = match found.get("prompt") {
        Some(prompt) if prompt.is_string() => vec![Message { role: "user".into(), content: prompt.to_string() }],
        Some(prompt) => {
            let message = |value: &Dynamic| {
                let fields = value.as_map_ref().ok()?;
                Some(Message { role: text(fields.get("role"))?, content: text(fields.get("content"))? })
            };
            let messages: Option<Vec<_>> = list(prompt.clone(), "a prompt")?.iter().map(message).collect();
            messages.ok_or("returned a message without `role` or `content`")?
        }
        None => return Err("returned a row without a `prompt`".into()),
    };
    let mut fields = Vec::new();
    if let Some(map) = found.get("fields").filter(|map| !map.is_unit()) {
        for (name, value) in map.as_map_ref().map_err(|_| "returned `fields` that are no map")?.iter() {
            let value = if value.is_string() { value.to_string() } else { json(value)?.to_string() };
            fields.push((name.to_string(), value));
        }
    }
    Ok(Row { prompt, reference: text(found.get("reference")), fields })
}

pub(super) fn config_errors(value: Dynamic) -> Result<Vec<(String, String)>, String> {
    if value.is_unit() {
        return Ok(Vec::new());
    }
    let error = |value: &Dynamic| {
        let fields = value.as_map_ref().map_err(|_| "`configure` returned an error that is no map")?;
        let message = text(fields.get("message")).ok_or("`configure` returned an error without a `message`")?;
        Ok((text(fields.get("path")).unwrap_or_default(), message))
    };
    list(value, "a list of #{ path, message }")?.iter().map(error).collect()
}

/// JSON as a script's value.
pub(super) fn dynamic(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(dynamic).collect::<Array>().into(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.into(), dynamic(value))).collect::<Map>().into()
        }
    }
}

/// A script's value as JSON.
pub(super) fn json(value: &Dynamic) -> Result<Value, String> {
    if value.is_unit() {
        return Ok(Value::Null);
    }
    if let Ok(flag) = value.as_bool() {
        return Ok(flag.into());
    }
    if let Ok(number) = value.as_int() {
        return Ok(number.into());
    }
    if let Ok(number) = value.as_float() {
        return Ok(number.into());
    }
    if value.is_string() {
        return Ok(value.to_string().into());
    }
    if let Ok(items) = value.as_array_ref() {
        return items.iter().map(json).collect();
    }
    if let Ok(fields) = value.as_map_ref() {
        let pairs: Result<serde_json::Map<_, _>, String> =
            fields.iter().map(|(name, value)| Ok((name.to_string(), json(value)?))).collect();
        return Ok(Value::Object(pairs?));
    }
    Err(format!("returned {} where JSON belongs", value.type_name()))
}

/// What it takes to copy a value, in items of a list; an entry of a map takes about four times as long, and so does a list or
/// a map itself.
pub(super) fn held(value: &Dynamic) -> usize {
    const CONTAINER: usize = 4;
    if let Ok(items) = value.as_array_ref() {
        return items.iter().map(held).sum::<usize>() + items.len() + CONTAINER;
    }
    if let Ok(fields) = value.as_map_ref() {
        return fields.values().map(held).sum::<usize>() + CONTAINER * (fields.len() + 1);
    }
    0
}

/// About the bytes of a value.
pub(super) fn size(value: &Dynamic) -> u64 {
    if value.is_string() {
        return value.as_immutable_string_ref().map_or(0, |text| text.len() as u64);
    }
    if let Ok(items) = value.as_array_ref() {
        return items.iter().map(size).sum::<u64>() + 8;
    }
    if let Ok(fields) = value.as_map_ref() {
        return fields.iter().map(|(name, value)| name.len() as u64 + size(value)).sum::<u64>() + 8;
    }
    8
}
