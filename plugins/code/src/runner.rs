//! The languages, and the sandbox that runs their programs.

use pipeline_plugin::{Exit, Outcome};

/// A language of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Python,
    JavaScript,
}

impl Language {
    /// The name of its runtime.
    pub fn runtime(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::JavaScript => "javascript",
        }
    }

    /// The language that a fence's info string names.
    pub fn of_fence(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "python" | "py" | "python3" | "py3" | "pycon" => Some(Self::Python),
            "javascript" | "js" | "node" | "nodejs" | "mjs" | "cjs" => Some(Self::JavaScript),
            _ => None,
        }
    }
}

/// Runs programs.
pub trait Runner {
    /// How a program ended and what it wrote; an error where it could not be run.
    fn run(&self, language: Language, source: &str, stdin: &str) -> Result<Outcome, String>;
}

/// The host's sandbox.
pub struct Sandbox;

impl Runner for Sandbox {
    fn run(&self, language: Language, source: &str, stdin: &str) -> Result<Outcome, String> {
        pipeline_plugin::run(language.runtime(), source, stdin)
    }
}

/// How a program ended that did not end well, as people read it; `None` for one that did.
pub fn failure(outcome: &Outcome) -> Option<String> {
    Some(match &outcome.exit {
        Exit::Ok => return None,
        // The last line of a traceback names the error.
        Exit::Failed(status) => match outcome.stderr.trim_end().lines().next_back() {
            Some(line) if !line.is_empty() => start(line, 200),
            _ => format!("exit status {status}"),
        },
        Exit::OutOfFuel => "out of fuel".into(),
        Exit::OutOfMemory => "out of memory".into(),
        Exit::Trapped(reason) => start(reason, 200),
    })
}

/// The start of a text.
pub fn start(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.into(),
    }
}
