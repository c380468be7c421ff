//! A condition on completions: one Rhai expression, in the same engine and under the same kind of budget as a script.

use base::{Decision, Finish, Group, Verdict};
use rhai::{AST, Dynamic, Engine, EvalAltResult, Map, Position, Scope};

use super::meter::{Meter, Stopped};
use super::{LOG, STACK, values};
use crate::sandbox::{Patience, exhausted};

/// Operations of one evaluation; helpers that read text add to them.
const OPERATIONS: u64 = 100_000;

/// The characters of a value that a reason quotes at most.
const QUOTED: usize = 60;

/// What an expression may name, with the value that it is tried on.
fn trial() -> Vec<(&'static str, Dynamic)> {
    let number = || Dynamic::from(0.5_f64);
    vec![
        ("reward", number()),
        ("mean", number()),
        ("deviation", number()),
        ("lowest", number()),
        ("highest", number()),
        ("tokens", 1_i64.into()),
        ("text", "text".into()),
        ("finish", "stop".into()),
        ("source", "source".into()),
        ("reference", "reference".into()),
        ("fields", Map::new().into()),
        ("scores", Map::new().into()),
        ("step", 0_i64.into()),
        ("prompt_id", 0_i64.into()),
    ]
}

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConditionError {
    /// The byte of the text at which it was noticed, where that is known.
    pub at: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// A Rhai expression that is true for the completions to keep.
///
/// It may name `reward` (`()` where there is none), `mean`, `deviation` (ddof 1), `lowest` and `highest` (of the rewards of the
/// group's completions that were not dropped before), `tokens`, `text`, `finish`, `source`, `reference`, `fields` (a map of
/// strings), `scores` (a map from the names of verify stages that decided), `step` and `prompt_id`, and the helpers of scripts.
pub struct Condition {
    engine: Engine,
    ast: AST,
    text: String,
    /// The names that stand in the text: only these are bound.
    names: Vec<&'static str>,
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

impl Condition {
    /// Parses an expression, and tries it on a completion that was made up.
    ///
    /// # Errors
    /// It is no expression, names what there is not, or gives no truth value.
    pub fn compile(text: &str) -> Result<Self, ConditionError> {
        let mut engine = super::engine();
        engine.set_strict_variables(true);
        let known = trial();
        let mut scope = Scope::new();
        for (name, value) in &known {
            scope.push_dynamic(*name, value.clone());
        }
        let ast = engine.compile_expression_with_scope(&scope, text).map_err(|error| {
            let mut message = error.err_type().to_string();
            if let rhai::ParseErrorType::VariableUndefined(name) = error.err_type() {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                message = format!("there is no `{name}` here; there are {}", names.join(", "));
            }
            ConditionError { at: offset(text, error.position()), message }
        })?;
        let names = known.iter().map(|(name, _)| *name).filter(|name| mentions(text, name)).collect();
        let condition = Self { engine, ast, text: text.into(), names };
        match condition.evaluate(&mut scope) {
            Ok(value) if value.is_bool() => Ok(condition),
            Ok(value) => {
                let message = format!("it gives {} where `true` or `false` belongs", values::kind(&value));
                Err(ConditionError { at: None, message })
            }
            Err(failure) => match failure.unknown {
                // What it says of real completions may differ, but a function that is not there will not come.
                Some((signature, at)) => {
                    let message = format!("there is no function `{signature}`");
                    Err(ConditionError { at: offset(text, at), message })
                }
                None => Ok(condition),
            },
        }
    }

    /// For each completion of the group whether it is kept, or dropped with the reason. What was dropped before is not looked at
    /// again.
    ///
    /// # Errors
    /// The completion on which the expression failed, and why.
    pub fn decide(&self, group: &Group) -> Result<Vec<Decision>, String> {
        let dropped = |i: usize| matches!(group.decisions.get(i), Some(Decision::Drop(_)));
        let live = (0..group.completions.len()).filter(|i| !dropped(*i));
        let rewards: Vec<f64> = live.filter_map(|i| group.rewards.get(i).copied().flatten()).collect();
        let statistics = Statistics::of(&rewards);
        let decide = |i: usize| {
            if dropped(i) {
                return Ok(Decision::Keep);
            }
            let mut scope = Scope::new();
            for name in &self.names {
                scope.push_dynamic(*name, value(name, group, i, &statistics));
            }
            let failed = |reason| format!("{reason}, on completion {i} of {}", crate::configured::place(group));
            let result = self.evaluate(&mut scope).map_err(|failure| failed(failure.reason))?;
            match result.as_bool() {
                Ok(true) => Ok(Decision::Keep),
                Ok(false) => Ok(Decision::Drop(self.reason(group, i, &statistics))),
                Err(_) => Err(failed(format!("it gave {} instead of `true` or `false`", values::kind(&result)))),
            }
        };
        (0..group.completions.len()).map(decide).collect()
    }

    /// What the expression says, and the values it said it of.
    fn reason(&self, group: &Group, i: usize, statistics: &Statistics) -> String {
        let quoted = |name: &&'static str| {
            let value = value(name, group, i, statistics);
            let text = if value.is_unit() { "none".to_owned() } else { value.to_string().replace('\n', " ") };
            let short: String = text.chars().take(QUOTED).collect();
            format!("{name} {short}{}", if short.len() < text.len() { ".." } else { "" })
        };
        let values: Vec<String> = self.names.iter().map(quoted).collect();
        format!("`{}` is false: {}", self.text, values.join(", "))
    }

    fn evaluate(&self, scope: &mut Scope<'_>) -> Result<Dynamic, Failure> {
        let meter = Meter::start(OPERATIONS, LOG, Patience::Alone, None);
        let evaluate = || self.engine.eval_ast_with_scope::<Dynamic>(scope, &self.ast);
        let evaluate = || stacker::maybe_grow(STACK / 2, STACK, evaluate);
        // The engine has `unreachable!` where an expression may bring it to.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(evaluate));
        let end = meter.finish();
        let reason = match (end.stopped, result) {
            (None, Ok(Ok(value))) => return Ok(value),
            (Some(Stopped::Operations), _) => exhausted("operations", OPERATIONS),
            (Some(Stopped::Time), _) => "it took too long".to_owned(),
            (None, Ok(Err(error))) => {
                let unknown = match &*error {
                    // An absent value makes every call of a function on it unknown.
                    EvalAltResult::ErrorFunctionNotFound(name, at) if !name.contains("()") => Some((name.clone(), *at)),
                    _ => None,
                };
                return Err(Failure { reason: super::reason(&error), unknown });
            }
            (None, Err(_)) => "the script engine failed on it".to_owned(),
        };
        Err(Failure { reason, unknown: None })
    }
}

struct Failure {
    reason: String,
    /// A function that is not there, and where.
    unknown: Option<(String, Position)>,
}

/// Of the rewards of a group; `None` where there are too few for it.
struct Statistics {
    mean: Option<f64>,
    deviation: Option<f64>,
    lowest: Option<f64>,
    highest: Option<f64>,
}

impl Statistics {
    fn of(rewards: &[f64]) -> Self {
        let n = rewards.len() as f64;
        let mean = (!rewards.is_empty()).then(|| rewards.iter().sum::<f64>() / n);
        let spread = |mean: f64| rewards.iter().map(|reward| (reward - mean) * (reward - mean)).sum::<f64>();
        let deviation = mean.filter(|_| rewards.len() > 1).map(|mean| (spread(mean) / (n - 1.0)).sqrt());
        let lowest = rewards.iter().copied().reduce(f64::min);
        Self { mean, deviation, lowest, highest: rewards.iter().copied().reduce(f64::max) }
    }
}

/// What a name stands for. An absent value is `()`.
fn value(name: &str, group: &Group, i: usize, statistics: &Statistics) -> Dynamic {
    let number = |number: Option<f64>| number.map_or(Dynamic::UNIT, Dynamic::from);
    let (completion, prompt) = (&group.completions[i], &group.prompt);
    match name {
        "reward" => number(group.rewards.get(i).copied().flatten()),
        "mean" => number(statistics.mean),
        "deviation" => number(statistics.deviation),
        "lowest" => number(statistics.lowest),
        "highest" => number(statistics.highest),
        "tokens" => (completion.tokens.len() as i64).into(),
        "text" => completion.text.as_str().into(),
        "finish" => match completion.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Aborted => "aborted",
        }
        .into(),
        "source" => prompt.source.as_ref().into(),
        "reference" => prompt.reference.as_deref().map_or(Dynamic::UNIT, Into::into),
        "fields" => {
            let fields = prompt.fields.iter().map(|(name, value)| (name.into(), value.as_str().into()));
            fields.collect::<Map>().into()
        }
        "scores" => {
            let score = |judgement: &std::sync::Arc<base::Judgement>| match judgement.verdicts.get(i) {
                Some(Verdict::Decided(finding)) => Some((judgement.stage.as_str().into(), finding.score.into())),
                _ => None,
            };
            group.judgements.iter().filter_map(score).collect::<Map>().into()
        }
        "step" => (group.step as i64).into(),
        "prompt_id" => (prompt.id as i64).into(),
        _ => Dynamic::UNIT,
    }
}

/// Whether `name` stands in `text` as a word.
fn mentions(text: &str, name: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}

/// The byte of `text` that a position of the engine means.
fn offset(text: &str, at: Position) -> Option<usize> {
    let line = text.split_inclusive('\n').nth(at.line()?.checked_sub(1)?)?;
    let start = line.as_ptr() as usize - text.as_ptr() as usize;
    let column = at.position().unwrap_or(1) - 1;
    Some(start + line.char_indices().nth(column).map_or(line.len(), |(i, _)| i))
}
