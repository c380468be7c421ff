//! Stages that ask a model about completions, typed.

use super::{config, count, number, on_undecided, sampling, sources, string, template};
use crate::tree::Node;
use crate::types::{Asked, Asking, Judge, JudgeBy, JudgeInput, Pairs, Rewrite, ScoreScale};

pub(super) fn judge(node: &Node) -> Option<Judge> {
    let by = match node.get("prompt") {
        Some(_) => JudgeBy::Text { asked: Box::new(asked(node)?), samples: count(node, "samples")? },
        None => JudgeBy::Score(match node.text("scale") {
            Some("sigmoid") => ScoreScale::Sigmoid,
            _ => ScoreScale::Raw,
        }),
    };
    Some(Judge {
        model: string(node, "model")?,
        input: judge_input(node)?,
        template: template(node),
        sources: sources(node)?,
        by,
        on_undecided: on_undecided(node)?,
        max_undecided: number(node, "max_undecided")?,
    })
}

fn judge_input(node: &Node) -> Option<JudgeInput> {
    Some(if node.text("input")? == "answer" { JudgeInput::Answer } else { JudgeInput::Response })
}

fn asked(node: &Node) -> Option<Asked> {
    Some(Asked { asking: asking(node)?, plugin: string(node, "plugin")?, config: config(node) })
}

pub(super) fn rewrite(node: &Node) -> Option<Rewrite> {
    Some(Rewrite { model: string(node, "model")?, template: template(node), asking: asking(node)? })
}

fn asking(node: &Node) -> Option<Asking> {
    let prompt = node.get("prompt")?;
    Some(Asking {
        prompt: prompt.path()?,
        temperature: number(node, "temperature")?,
        sampling: sampling(node)?,
        max_tokens: count(node, "max_tokens")?,
        span: prompt.span.clone(),
    })
}

pub(super) fn pairs(node: &Node) -> Option<Pairs> {
    Some(Pairs {
        model: string(node, "model")?,
        input: judge_input(node)?,
        template: template(node),
        asked: Box::new(asked(node)?),
        pairs_per_prompt: count(node, "pairs_per_prompt")?,
        judgements: count(node, "judgements")?,
        margin: number(node, "margin")?,
        length_difference: number(node, "length_difference"),
        max_undecided: number(node, "max_undecided")?,
    })
}
