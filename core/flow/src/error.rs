//! What can end a run.

use base::Diagnostic;

/// Why a run ended before its last step. Whatever was committed stays.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file does not fit its surroundings: data, models, plugins.
    #[error("the pipeline file does not fit its surroundings")]
    Environment(Vec<Diagnostic>),
    /// A stage failed.
    #[error("stage `{stage}` failed at step {step}: {cause}")]
    Stage {
        /// The stage's name.
        stage: String,
        /// The step, counted from 1 as in the metrics.
        step: u64,
        /// What happened.
        cause: Box<Error>,
    },
    /// A stage panicked: a defect of this program.
    #[error("internal error: {0}")]
    Panic(String),
    /// Something that validation rules out: a defect of this program.
    #[error("internal error: {0}; please report it")]
    Defect(String),
    /// A rule of the file was broken by what was found in the run.
    #[error("{0}")]
    Finding(String),
    /// Nothing to resume, or a run that can't be resumed.
    #[error("{0}")]
    Resume(String),
    /// The run folder could not be written or read.
    #[error(transparent)]
    Record(#[from] record::Error),
    /// A model could not be loaded, saved or computed.
    #[error("{0}")]
    Model(String),
    /// A plugin broke the host's rules in a way that is not a verdict.
    #[error(transparent)]
    Host(#[from] host::HostError),
    /// The machine gave no thread.
    #[error("failed to start a thread: {0}")]
    Thread(std::io::Error),
    /// The stage after this one is gone; the root cause is its error.
    #[error("the stage downstream stopped")]
    Downstream,
}

impl Error {
    /// Whether the run's content, not the machine, is at fault: exit code 1 rather than 2.
    pub fn is_finding(&self) -> bool {
        match self {
            Self::Environment(_) | Self::Finding(_) => true,
            Self::Stage { cause, .. } => cause.is_finding(),
            _ => false,
        }
    }
}

impl Error {
    /// A model's error, by its message.
    pub(crate) fn model(error: impl std::fmt::Display) -> Self {
        Self::Model(error.to_string())
    }
}
