//! Data that the tests share.
#![allow(dead_code, reason = "each test file uses a part")]

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use base::{Completion, Decision, Finding, Finish, Group, Judgement, Message, Prompt, RoutedExperts, Verdict};
use record::{Keep, RunFolder};
use serde_json::{Value, json};

pub const PIPELINE: &str = "schema = 1\nname = \"demo\"\n";

pub fn resolved() -> Value {
    json!({ "seed": 17, "run": { "steps": 5, "dir": "runs" }, "rate": 3e-6, "stages": [1, 2] })
}

pub fn create(dir: &Path) -> RunFolder {
    RunFolder::create(dir, "demo", PIPELINE, &resolved()).expect("a new run folder")
}

/// Keeps the newest checkpoints of any step.
pub fn newest(newest: usize) -> Keep {
    Keep { newest, every: 1, last: 0 }
}

/// Fills a checkpoint with two files, one in a folder.
pub fn fill(text: &str) -> impl FnOnce(&Path) -> std::io::Result<()> + '_ {
    move |dir| {
        fs::create_dir(dir.join("tokenizer"))?;
        fs::write(dir.join("tokenizer/tokenizer.json"), "{}")?;
        fs::write(dir.join("model.safetensors"), text)
    }
}

pub fn nothing(_: &Path) -> Result<(), Infallible> {
    Ok(())
}

/// The files below a folder with their bytes, but for the event log and the lock, which exactness does not cover.
pub fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut entries: Vec<_> =
        fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files.extend(tree(&path));
        } else if !path.ends_with("events.jsonl") && !path.ends_with(".lock") {
            let bytes = fs::read(&path).expect("a file");
            files.push((path, bytes));
        }
    }
    files
}

/// [`tree`] with paths relative to the folder.
pub fn relative(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    tree(dir).into_iter().map(|(path, bytes)| (path.strip_prefix(dir).expect("below").to_owned(), bytes)).collect()
}

/// A small file system of its own, gone with the value. `None`, with a line printed, where it can't be mounted.
pub struct Tmpfs(pub PathBuf);

impl Tmpfs {
    #[expect(clippy::print_stdout, reason = "a test that skips says so")]
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!("skipped: a tmpfs can't be mounted here");
        None
    }

    pub fn make_read_only(&self) {
        let output = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).output().expect("mount runs");
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

/// Two groups of two: one judged and kept, one partly dropped and without a reference.
pub fn groups() -> Vec<Arc<Group>> {
    let completion = |text: &str, tokens: &[u32], finish| {
        Arc::new(Completion {
            tokens: tokens.to_vec(),
            loss_mask: vec![true; tokens.len()],
            text: text.to_owned(),
            finish,
            logprobs: tokens.iter().map(|&token| -0.1 * token as f32).collect(),
            weights_version: 3,
            experts: RoutedExperts { layers: 1, per_token: 2, ids: vec![0, 5, 1, 2] },
        })
    };
    let prompt = |id, reference: Option<&str>| {
        Arc::new(Prompt {
            id,
            source: "math".into(),
            messages: vec![Message { role: "user".to_owned(), content: "1+1?\u{1b}[0m".to_owned() }],
            text: "<user>1+1?".to_owned(),
            tokens: vec![1, 2],
            reference: reference.map(str::to_owned),
            response: None,
            learned: Vec::new(),
            fields: vec![("level".to_owned(), "2".to_owned())],
        })
    };
    let decided = Finding { score: 1.0, answer: Some("2".to_owned()), metrics: vec![], note: None };
    let verdicts = vec![Verdict::Decided(decided), Verdict::Undecided("fuel exhausted".to_owned())];
    let judged = Group {
        step: 4,
        index: 0,
        prompt: prompt(7, Some("2")),
        completions: vec![completion("2", &[4, 0], Finish::Stop), completion("three", &[9, 9, 9], Finish::Length)],
        judgements: vec![Arc::new(Judgement { stage: "accuracy".to_owned(), verdicts })],
        rewards: vec![Some(1.0), None],
        decisions: vec![Decision::Keep, Decision::Drop("undecided".to_owned())],
    };
    let bare = Group {
        index: 1,
        prompt: prompt(u64::MAX, None),
        judgements: vec![],
        rewards: vec![],
        decisions: vec![],
        ..judged.clone()
    };
    vec![Arc::new(judged), Arc::new(bare)]
}
