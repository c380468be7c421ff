//! What the validator says: a code, a place, a message and a way out.

use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file can run, but something in it deserves a look.
    Warning,
    /// The file can't run.
    Error,
}

/// A range of bytes in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Span {
    /// The file as the user named it; `--set` for a command-line override.
    pub file: PathBuf,
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The span of `range` in `file`.
    pub fn new(file: impl Into<PathBuf>, range: Range<usize>) -> Self {
        Self { file: file.into(), start: range.start, end: range.end }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// A stable name such as `unknown-stage`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One lowercase sentence without a full stop: what is wrong.
    pub message: String,
    /// Where, and the words beside the underline.
    pub place: Option<(Span, String)>,
    /// Further places that explain the first.
    pub labels: Vec<(Span, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error with no place yet.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, severity: Severity::Error, message: message.into(), place: None, labels: Vec::new(), help: None }
    }

    /// A warning with no place yet.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Says where, and what to write beside the underline.
    #[must_use]
    pub fn at(mut self, span: Span, label: impl Into<String>) -> Self {
        self.place = Some((span, label.into()));
        self
    }

    /// Adds a further place.
    #[must_use]
    pub fn label(mut self, span: Span, label: impl Into<String>) -> Self {
        self.labels.push((span, label.into()));
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether it keeps the file from running.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
