//! What can go wrong with a run's files, and what the user can do about it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("could not {doing} `{}`: {source}{}", path.display(), advice(Some(source.kind())))]
    Io {
        /// What was tried, such as `write`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The caller could not write the files of a checkpoint.
    #[error("could not write the checkpoint `{}`: {}{}", path.display(), chain(source.as_ref()), advice(os_kind(source.as_ref())))]
    Fill {
        /// The checkpoint that does not exist now.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A Parquet file could not be encoded.
    #[error("could not encode `{}`: {source}{}", path.display(), advice(os_kind(source)))]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: parquet::errors::ParquetError,
    },
    /// Another process works in the folder.
    #[error(
        "the run folder `{}` is in use by {}; wait for it or stop it, one process a run",
        path.display(),
        process.map_or("another process".to_owned(), |id| format!("process {id}"))
    )]
    Locked {
        /// The run folder.
        path: PathBuf,
        /// Who holds it, where it says so.
        process: Option<u32>,
    },
    /// The folder is no run folder.
    #[error("`{}` is no run folder: it has no readable `{missing}`; a run folder is DIR/NAME/0001 of `run.dir`", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// What it lacks.
        missing: &'static str,
    },
    /// The folder's run depends on another pipeline file, other data or plugins, or on the same ones before a change.
    #[error(
        "the run in `{}` was started from other inputs: {}; resume with the file, data and plugins it was started with \
         (its text is `{}`) and the same --set, or name the run's folder, which knows them; or start a new run",
        path.display(),
        differences.join(", "),
        path.join("pipeline.toml").display()
    )]
    OtherPipeline {
        /// The folder.
        path: PathBuf,
        /// What differs, at most a few: `run.steps is 5 there and 6 here`.
        differences: Vec<String>,
    },
    /// A name can't be that of a file.
    #[error("`{name}` can't be the name of a {what}: use letters, digits, `-`, `_` and `.`, and don't start with `.`")]
    Name {
        /// Whose name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A file that a checkpoint vouches for is shorter than it was, or its bytes changed.
    #[error(
        "`{}` is not what the checkpoint recorded: {found}; restore the file, or start a new run",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        found: String,
    },
    /// A dataset can't be read or used.
    #[error(transparent)]
    Dataset(#[from] crate::dataset::Error),
    /// The caller's data do not fit together; a defect of the caller.
    #[error("could not write `{}`: {what}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
}

impl Error {
    /// For `map_err`: `doing` is a verb phrase that fits "could not DOING `PATH`".
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

fn advice(kind: Option<ErrorKind>) -> &'static str {
    match kind {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            "; free some space there and resume, nothing that was committed is lost"
        }
        Some(ErrorKind::ReadOnlyFilesystem) => "; choose a folder that can be written with `--set run.dir=DIR`",
        Some(ErrorKind::PermissionDenied) => "; check who owns it, or choose another folder with `--set run.dir=DIR`",
        _ => "",
    }
}

/// An error and its sources on one line, without those that only repeat what is already said.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = inner.source();
    }
    text
}

/// The kind of the operating system's error behind `error`. Libraries wrap it in types of their own, transparently or as
/// text, but all of them keep the standard library's words, which end in `(os error N)`.
fn os_kind(error: &dyn std::error::Error) -> Option<ErrorKind> {
    let text = chain(error);
    let number = text.split("(os error ").nth(1)?.split(')').next()?.parse().ok()?;
    Some(std::io::Error::from_raw_os_error(number).kind())
}
