//! A folder to run the binary in, and what it leaves there.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

pub mod small;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// The project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

/// Data that is too large for the project, or `None` with a printed line where it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let path = root().join("../shared").join(path);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// A folder that goes away with the test.
pub struct Folder(pub tempfile::TempDir);

/// What the binary said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("the system has room for a test's folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, with the folders above it.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a test's folder can be made");
        fs::write(&path, text).expect("a test's file can be written");
        path
    }

    pub fn command<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the binary to its end.
    pub fn run<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Said {
        said(self.command(arguments).output().expect("the binary runs"))
    }

    pub fn start<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Child {
        self.command(arguments).spawn().expect("the binary starts")
    }
}

pub fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the binary prints UTF-8");
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Said {
    /// Asserts the exit code and that stderr holds each of `texts`.
    #[track_caller]
    pub fn expect(&self, code: i32, texts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "exit code of:\n{}", self.err);
        for text in texts {
            assert!(self.err.contains(text), "`{text}` is not in:\n{}", self.err);
        }
        self
    }
}

/// The quickstart, small: what it takes to run each of its parts in a second.
pub fn small_quickstart() -> Vec<String> {
    let file = root().join("pipelines/quickstart.toml");
    let mut arguments = vec!["run".to_owned(), file.to_string_lossy().into_owned()];
    let sets = [
        "run.dir=runs",
        "phases.cold-start.run.steps=5",
        "phases.cold-start.run.checkpoint.every=2",
        "phases.cold-start.stages.traces.prompts_per_step=64",
        "phases.cold-start.stages.imitate.minibatches=2",
        "phases.cold-start.evaluations.arithmetic.count=8",
        "phases.reason.run.steps=6",
        "phases.reason.run.checkpoint.every=2",
        "phases.reason.stages.problems.prompts_per_step=4",
        "phases.reason.stages.sample.group_size=4",
        "phases.reason.stages.sample.max_tokens=24",
        // An untrained model is never right: what it writes differs in length.
        "phases.reason.plugins.format.builtin=overlong",
        "phases.reason.stages.format.config={ cache = 20 }",
        "phases.reason.stages.keep.drop=[\"truncated\"]",
        "phases.reason.stages.update.kl.refresh_every=2",
        "phases.reason.evaluations.arithmetic.count=8",
        "phases.reason.evaluations.arithmetic.every=3",
    ];
    for set in sets {
        arguments.extend(["--set".to_owned(), set.to_owned()]);
    }
    arguments
}

/// Everything that exactness covers in a run's folder: each file's bytes by its path.
pub fn exact_files(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    collect(run, run, &mut files);
    let other = ["events.jsonl", "timing.jsonl", "lock.json", "pipeline.toml", ".lock"];
    files.retain(|name, _| !other.contains(&name.as_str()));
    assert!(files.contains_key("metrics.jsonl"), "{} has no metrics", run.display());
    files
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("a run's folder can be listed").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).expect("a file of the folder").to_string_lossy().into_owned();
            files.insert(name, fs::read(&path).expect("a run's file can be read"));
        }
    }
}

/// Asserts that two runs made the same files with the same bytes.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (exact_files(one), exact_files(other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "the files differ");
    for (name, bytes) in &one {
        assert!(bytes == &other[name], "{name} differs");
    }
}

/// The lines of a file of JSON objects.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}
