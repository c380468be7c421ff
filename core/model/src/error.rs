//! What can go wrong with a model, and what to do about it.

use std::path::{Path, PathBuf};

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A model that could not be read, written, run or sampled from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("failed to {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what its name promises.
    #[error("{} is not usable: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        message: String,
    },
    /// A `config.json` describes a model that can't be built.
    #[error("the model's config can't be used: {0}")]
    Config(String),
    /// Text could not be turned into tokens or back, or a tokenizer could not be made.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A chat template does not parse, or refused its messages.
    #[error("chat template: {0}")]
    Template(String),
    /// A request that can't be met, such as a prompt longer than the model's context.
    #[error("{0}")]
    Request(String),
    /// The machine has not the memory for the model.
    #[error("{0}")]
    Memory(String),
    /// The tensor library failed: no memory on the device, or a defect of ours.
    #[error("the computation failed: {0}")]
    Compute(#[from] candle_core::Error),
}

impl Error {
    /// Whether what was given is at fault, and not the machine or the file system.
    pub fn is_finding(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Config(_) | Self::Tokenizer(_) | Self::Template(_) | Self::Request(_))
    }

    /// Wraps an IO error with what was tried on which file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// An error about the content of a file.
    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), message: message.into() }
    }
}
