//! The texts that a document was read from.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

/// The name under which command-line overrides stand in spans and in [`Files`].
pub const SET: &str = "--set";

/// The text of each file that was read, in the order of reading, so that findings can be shown in place.
#[derive(Clone, Debug, Default)]
pub struct Files {
    texts: IndexMap<PathBuf, String>,
}

impl Files {
    /// The text of a file, by the name that spans give it.
    pub fn text(&self, file: &Path) -> Option<&str> {
        self.texts.get(file).map(String::as_str)
    }

    /// The files and their texts, in the order of reading.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.texts.iter().map(|(file, text)| (file.as_path(), text.as_str()))
    }

    /// The position of a file in the order of reading.
    pub(crate) fn position(&self, file: &Path) -> Option<usize> {
        self.texts.get_index_of(file)
    }

    /// Keeps a text under the name of a file, which is then not read.
    pub fn insert(&mut self, file: PathBuf, text: String) {
        self.texts.insert(file, text);
    }

    /// Reads a file unless it was read before; the error is a fragment that says why it could not be.
    pub(crate) fn read(&mut self, file: &Path) -> Result<String, String> {
        if let Some(text) = self.text(file) {
            return Ok(text.to_owned());
        }
        let bytes = fs::read(file).map_err(|error| match error.kind() {
            ErrorKind::NotFound => "it does not exist".to_owned(),
            ErrorKind::IsADirectory => "it is a folder".to_owned(),
            _ => error.to_string(),
        })?;
        let text = String::from_utf8(bytes)
            .map_err(|error| format!("byte {} is not UTF-8", error.utf8_error().valid_up_to() + 1))?;
        self.insert(file.to_owned(), text.clone());
        Ok(text)
    }
}
