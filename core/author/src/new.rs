//! `plugin new`: writes a plugin's folder that builds, passes its tests and needs nothing beside it.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// The files of `sdk/`, by their paths in it.
const SDK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// A language with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Language {
    /// What it is called on the command line; its template is the folder of this name.
    pub name: &'static str,
    /// What it is called in text.
    pub title: &'static str,
    /// The file that its user edits.
    pub source: &'static str,
    /// What of the SDK a plugin needs: folders of `sdk/`.
    sdk: &'static [&'static str],
}

/// Every language that has a template.
pub const LANGUAGES: [Language; 11] = [
    language("rust", "Rust", "src/lib.rs", &["rust", "wit"]),
    language("c", "C", "verify.c", &["c"]),
    language("cpp", "C++", "verify.cpp", &["c", "cpp"]),
    language("zig", "Zig", "verify.zig", &["zig"]),
    language("go", "Go", "verify.go", &["go"]),
    language("assemblyscript", "AssemblyScript", "verify.ts", &["assemblyscript"]),
    language("typescript", "TypeScript", "verify.ts", &["typescript", "wit"]),
    language("javascript", "JavaScript", "verify.js", &["javascript", "wit"]),
    language("python", "Python", "reward.py", &["python", "wit"]),
    language("wat", "WebAssembly text", "verify.wat", &["wit"]),
    language("rhai", "Rhai", "verify.rhai", &[]),
];

const fn language(
    name: &'static str,
    title: &'static str,
    source: &'static str,
    sdk: &'static [&'static str],
) -> Language {
    Language { name, title, source, sdk }
}

/// Why no folder was made.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The last part of the path can't be a plugin's name.
    #[error("`{0}` can't be a plugin's name: lower-case letters, digits, `-` and `_`, starting with a letter")]
    Name(String),
    /// There is something there already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// A file could not be written.
    #[error("failed to write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes the folder of a new plugin, whose name is the last part of the path.
///
/// # Errors
/// It is no name for a plugin, the folder exists, or can't be written.
pub fn new(folder: &Path, language: Language) -> Result<(), NewError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut letters = name.chars();
    let is_name = letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'));
    if !is_name {
        return Err(NewError::Name(name.into_owned()));
    }
    if folder.exists() {
        return Err(NewError::Exists(folder.to_owned()));
    }
    for (path, text) in files(&name, language) {
        let path = folder.join(path);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        written.map_err(|source| NewError::Write { path, source })?;
    }
    Ok(())
}

/// The files of a new plugin's folder.
fn files(name: &str, language: Language) -> Vec<(String, String)> {
    let shared = |file: &str| embedded(&format!("templates/shared/{file}")).unwrap_or_default();
    let own = format!("templates/{}/", language.name);
    let notes = embedded(&format!("{own}{NOTES}")).unwrap_or_default();
    let filled = |text: &str| {
        text.replace("{{tests}}\n", shared("tests.toml"))
            .replace("{{notes}}\n", notes)
            .replace("{{name}}", name)
            .replace("{{title}}", language.title)
            .replace("{{source}}", language.source)
    };
    let mut files = vec![
        ("README.md".to_owned(), filled(shared("README.md"))),
        (".gitignore".to_owned(), filled(shared("gitignore"))),
    ];
    for (path, text) in SDK {
        if let Some(file) = path.strip_prefix(&own) {
            if file != NOTES {
                files.push((file.to_owned(), filled(text)));
            }
        } else if language.sdk.iter().any(|part| path.split('/').next() == Some(part)) {
            files.push((format!("sdk/{path}"), (*text).to_owned()));
        }
    }
    files
}

/// What the README says of the language.
const NOTES: &str = "notes.md";

fn embedded(path: &str) -> Option<&'static str> {
    SDK.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file that a user edits, the manifest and the README are there, whole, and nothing is left to fill in.
    #[test]
    fn every_language_has_a_whole_template() {
        for language in LANGUAGES {
            let files = files("polite", language);
            for wanted in ["plugin.toml", "README.md", ".gitignore", language.source] {
                assert!(files.iter().any(|(path, _)| path == wanted), "{}: no {wanted}", language.name);
            }
            for (path, text) in &files {
                assert!(path.starts_with("sdk/") || !text.contains("{{"), "{}: {path} is not filled in", language.name);
                assert!(!text.is_empty(), "{}: {path} is empty", language.name);
            }
            let denied = |(path, text): &(String, String)| path != "plugin.toml" || !text.contains("\n[grants");
            assert!(files.iter().all(denied), "{}: a template grants nothing", language.name);
        }
    }

    #[test]
    fn a_name_is_a_name_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["Polite", "1st", "a b", "..", ""] {
            assert!(matches!(new(&folder.path().join(name), LANGUAGES[0]), Err(NewError::Name(_))), "{name}");
        }
        let polite = folder.path().join("polite");
        new(&polite, LANGUAGES[10]).unwrap();
        assert!(matches!(new(&polite, LANGUAGES[10]), Err(NewError::Exists(_))));
    }
}
