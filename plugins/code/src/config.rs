//! The config, as the pipeline file says it.

use pipeline_plugin::{Config, ConfigError};

use crate::Openings;
use crate::cases::{Comparison, Whitespace};

/// Which blocks of a completion hold its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// Those in Python, and those that name no language.
    #[default]
    Python,
    /// Those in JavaScript, and those that name no language.
    JavaScript,
    /// Those that name either language.
    Fence,
}

impl Choice {
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::JavaScript => "JavaScript",
            Self::Fence => "Python or JavaScript",
        }
    }
}

/// What the score is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Score {
    /// 1 if all tests pass, else 0.
    #[default]
    All,
    /// The share of tests that pass.
    Share,
}

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Code {
    pub language: Choice,
    pub score: Score,
    pub unfenced: bool,
    pub whitespace: Whitespace,
    pub tolerance: Option<f64>,
    pub prepend: Option<String>,
    pub tests: String,
    pub inputs: String,
    pub outputs: String,
    pub entry_point: String,
    pub setup: String,
    #[serde(skip)]
    pub(crate) openings: Openings,
}

impl Default for Code {
    fn default() -> Self {
        Self {
            language: Choice::default(),
            score: Score::default(),
            unfenced: false,
            whitespace: Whitespace::default(),
            tolerance: None,
            prepend: None,
            tests: "tests".into(),
            inputs: "inputs".into(),
            outputs: "outputs".into(),
            entry_point: "entry_point".into(),
            setup: "setup".into(),
            openings: Openings::default(),
        }
    }
}

impl Code {
    pub fn comparison(&self) -> Comparison {
        Comparison { whitespace: self.whitespace, tolerance: self.tolerance }
    }
}

impl Config for Code {
    const SCHEMA: &str = include_str!("schema.json");

    fn check(&self) -> Vec<ConfigError> {
        if self.tolerance.is_some() && self.whitespace == Whitespace::Exact {
            let message = "numbers are compared word by word: `whitespace` can't be `exact`".into();
            return vec![ConfigError { path: "/tolerance".into(), message }];
        }
        Vec::new()
    }
}
