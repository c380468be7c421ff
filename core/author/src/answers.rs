//! What plugins answer: held against what a test expects, and in words.

use base::{Decision, Message, Row, Verdict};
use spec::{ExpectDecision, ExpectRow, ExpectVerdict};

/// The longest text that is shown whole.
const SHOWN: usize = 160;

/// A text on one line, shortened in its middle.
pub(crate) fn quoted(text: &str) -> String {
    let letters = text.chars().count();
    let text = if letters > SHOWN {
        let head: String = text.chars().take(SHOWN / 2).collect();
        let tail: String = text.chars().skip(letters - SHOWN / 2).collect();
        format!("{head} ... {tail}")
    } else {
        text.to_owned()
    };
    format!("`{}`", text.replace('\r', "\\r").replace('\n', "\\n"))
}

fn near(expected: f64, got: f64, tolerance: f64) -> bool {
    (expected - got).abs() <= tolerance
}

/// Whether a verdict is what is expected.
pub(crate) fn is_verdict(expected: &ExpectVerdict, got: &Verdict, tolerance: f64) -> bool {
    match (expected, got) {
        (ExpectVerdict::Decided { score, answer, note, metrics }, Verdict::Decided(got)) => {
            let metric = |(name, value): &(String, f64)| {
                got.metrics.iter().any(|(other, got)| name == other && near(*value, *got, tolerance))
            };
            score.is_none_or(|score| near(score, got.score, tolerance))
                && answer.as_ref().is_none_or(|answer| got.answer.as_ref() == Some(answer))
                && note.as_ref().is_none_or(|part| got.note.as_ref().is_some_and(|note| note.contains(part)))
                && metrics.iter().all(metric)
        }
        (ExpectVerdict::Undecided(part), Verdict::Undecided(reason)) => reason.contains(part),
        (ExpectVerdict::NotApplicable, Verdict::NotApplicable) => true,
        _ => false,
    }
}

pub(crate) fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Decided(finding) => {
            decided(Some(finding.score), finding.answer.as_ref(), finding.note.as_ref(), &finding.metrics)
        }
        Verdict::Undecided(reason) => format!("undecided: {}", quoted(reason)),
        Verdict::NotApplicable => "not applicable".into(),
    }
}

/// An expected verdict in words.
pub(crate) fn expected(verdict: &ExpectVerdict) -> String {
    match verdict {
        ExpectVerdict::Decided { score, answer, note, metrics } => {
            decided(*score, answer.as_ref(), note.as_ref(), metrics)
        }
        ExpectVerdict::Undecided(part) if part.is_empty() => "undecided".into(),
        ExpectVerdict::Undecided(part) => format!("undecided: {}", quoted(part)),
        ExpectVerdict::NotApplicable => "not applicable".into(),
    }
}

fn decided(score: Option<f64>, answer: Option<&String>, note: Option<&String>, metrics: &[(String, f64)]) -> String {
    let mut parts = Vec::new();
    parts.extend(score.map(|score| format!("score {score}")));
    parts.extend(answer.map(|answer| format!("answer {}", quoted(answer))));
    parts.extend(note.map(|note| format!("note {}", quoted(note))));
    parts.extend(metrics.iter().map(|(name, value)| format!("metric {name} {value}")));
    if parts.is_empty() { "any score".into() } else { parts.join(", ") }
}

/// Whether a reward is what is expected.
pub(crate) fn is_reward(expected: Option<f64>, got: &Result<Option<f64>, String>, tolerance: f64) -> bool {
    match (expected, got) {
        (Some(expected), Ok(Some(got))) => near(expected, *got, tolerance),
        (None, Ok(None) | Err(_)) => true,
        _ => false,
    }
}

pub(crate) fn reward(reward: &Result<Option<f64>, String>) -> String {
    match reward {
        Ok(reward) => expected_reward(*reward),
        Err(reason) => format!("failed: {}", quoted(reason)),
    }
}

pub(crate) fn expected_reward(reward: Option<f64>) -> String {
    reward.map_or_else(|| "undecided".into(), |reward| reward.to_string())
}

/// Whether a decision is what is expected.
pub(crate) fn is_decision(expected: &ExpectDecision, got: &Decision) -> bool {
    match (expected, got) {
        (ExpectDecision::Keep, Decision::Keep) => true,
        (ExpectDecision::Mask(part), Decision::Mask(why)) | (ExpectDecision::Drop(part), Decision::Drop(why)) => {
            why.contains(part)
        }
        _ => false,
    }
}

pub(crate) fn decision(decision: &Decision) -> String {
    match decision {
        Decision::Keep => "keep".into(),
        Decision::Mask(why) => format!("mask: {}", quoted(why)),
        Decision::Drop(why) => format!("drop: {}", quoted(why)),
    }
}

pub(crate) fn expected_decision(expected: &ExpectDecision) -> String {
    let with = |word: &str, part: &str| if part.is_empty() { word.into() } else { format!("{word}: {}", quoted(part)) };
    match expected {
        ExpectDecision::Keep => "keep".into(),
        ExpectDecision::Mask(part) => with("mask", part),
        ExpectDecision::Drop(part) => with("drop", part),
    }
}

/// Whether a row is what is expected.
pub(crate) fn is_row(expected: &ExpectRow, got: &Row) -> bool {
    expected.prompt.as_ref().is_none_or(|prompt| *prompt == got.prompt)
        && expected.reference.as_ref().is_none_or(|reference| got.reference.as_ref() == Some(reference))
        && expected.fields.iter().all(|field| got.fields.contains(field))
}

pub(crate) fn row(row: &Row) -> String {
    parts(Some(&row.prompt), row.reference.as_ref(), &row.fields)
}

pub(crate) fn expected_row(row: &ExpectRow) -> String {
    parts(row.prompt.as_ref(), row.reference.as_ref(), &row.fields)
}

fn parts(prompt: Option<&Vec<Message>>, reference: Option<&String>, fields: &[(String, String)]) -> String {
    let mut parts = Vec::new();
    for message in prompt.into_iter().flatten() {
        parts.push(format!("{} {}", message.role, quoted(&message.content)));
    }
    parts.extend(reference.map(|reference| format!("reference {}", quoted(reference))));
    parts.extend(fields.iter().map(|(name, value)| format!("{name} {}", quoted(value))));
    if parts.is_empty() { "any row".into() } else { parts.join(", ") }
}
