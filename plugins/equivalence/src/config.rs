//! Where the answer is looked for and what counts as equal, as a pipeline file says it.

use common::places::Without;

use crate::compare::Settings;
use crate::conventions::Convention;
use crate::extract::{Extraction, Target};
use crate::numeric::Domain;

/// What the pipeline file says. What is absent is as the convention has it.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The grader whose verdicts are wanted.
    pub convention: Convention,
    /// Only what stands after the last of it is read, such as `</think>`.
    pub after_mark: Option<String>,
    /// What is read of a completion that lacks the mark.
    pub without_mark: Without,
    /// Where the answer stands, in order.
    pub extract: Option<Vec<Target>>,
    /// 0: boxes before all else; 50: beside "the final answer is"; -1: none.
    pub boxed_priority: Option<i32>,
    /// What the target `choice` looks for.
    pub choices: Option<Vec<String>>,
    /// Whether only the first candidate is tried.
    pub first_match: bool,
    /// How the reference is read.
    pub reference: Reading,
    /// Decimal places to which decimals are rounded before they are compared.
    pub precision: Option<u32>,
    /// The relative difference that a decimal may have besides.
    pub tolerance: Option<f64>,
    /// Whether variables matter by name.
    pub strict: Option<bool>,
    /// Whether an inequality may answer where the reference is an interval.
    pub allow_set_relation_comp: Option<bool>,
    /// What `%` means.
    pub percent: Option<Percent>,
    /// Whether lists without brackets have an order.
    pub ordered_lists: Option<bool>,
    /// Whether a matrix with a single row or column is a list.
    pub vectors_as_lists: Option<bool>,
    /// Which values variables take.
    pub variables: Option<Variables>,
}

/// How the reference is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// As a whole if it is a formula; what follows `####`; or like a completion.
    #[default]
    Auto,
    /// Like a completion.
    Extract,
    /// As a whole.
    Whole,
}

/// What `%` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Percent {
    /// `28\%` is 28 and 0.28, `28.5\%` is 0.285.
    MathVerify,
    /// `28.5\%` is 28.5 as well.
    Any,
}

/// Which values variables take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variables {
    /// Real numbers: `\sqrt{x^2}` is not `x`.
    Real,
    /// Numbers above zero.
    Positive,
}

impl Config {
    /// Where to look for answers.
    pub fn extraction(&self) -> Extraction {
        let mut extraction = self.convention.extraction();
        if let Some(targets) = &self.extract {
            extraction.targets.clone_from(targets);
        }
        if let Some(choices) = &self.choices {
            extraction.choices.clone_from(choices);
        }
        extraction.boxed_priority = self.boxed_priority.unwrap_or(extraction.boxed_priority);
        extraction.takes_first = self.first_match;
        extraction
    }

    /// What counts as equal.
    pub fn settings(&self) -> Settings {
        let settings = self.convention.settings();
        Settings {
            precision: self.precision.unwrap_or(settings.precision),
            tolerance: self.tolerance.unwrap_or(settings.tolerance),
            is_strict: self.strict.unwrap_or(settings.is_strict),
            allows_relation_for_set: self.allow_set_relation_comp.unwrap_or(settings.allows_relation_for_set),
            ignores_percent: self.percent.map_or(settings.ignores_percent, |percent| percent == Percent::Any),
            has_ordered_lists: self.ordered_lists.unwrap_or(settings.has_ordered_lists),
            takes_vectors_as_lists: self.vectors_as_lists.unwrap_or(settings.takes_vectors_as_lists),
            domain: match self.variables {
                Some(Variables::Real) => Domain::Real,
                Some(Variables::Positive) => Domain::Positive,
                None => settings.domain,
            },
            ..settings
        }
    }

    /// Whether the convention works on texts, so that `key` would have no effect.
    pub fn is_textual(&self) -> bool {
        !matches!(
            self.convention,
            Convention::MathVerify | Convention::Mario | Convention::MarioOrdered | Convention::Brackets
        )
    }
}
