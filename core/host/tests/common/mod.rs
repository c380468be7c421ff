//! What the tests of the host share: components from text, groups, and hosts with a cache of their own.

#![allow(dead_code, clippy::unwrap_used, reason = "helpers of tests, of which each file uses a part")]

use std::path::Path;
use std::sync::Arc;

use base::{
    Completion, Context, Finding, Finish, Grants, Group, Judgement, Limits, Message, Prompt, RoutedExperts, Verdict,
};
use host::{Code, Configured, Host, HostError, Options, Plugin};
use serde_json::json;

const PRELUDE: &str = include_str!("../components/prelude.wat");
const CONFIG: &str = include_str!("../components/config.wat");
const CONFIG_CORE: &str = include_str!("../components/config-core.wat");

/// The bytes of a component whose text may hold `{prelude}`, `{config}` and `{config-core}`.
pub fn component(text: &str) -> Vec<u8> {
    let text = text.replace("{prelude}", PRELUDE).replace("{config}", CONFIG).replace("{config-core}", CONFIG_CORE);
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// A verifier that does what its completions ask for.
pub fn obedient() -> Vec<u8> {
    component(include_str!("../components/verifier.wat"))
}

/// A host, and the folder of its files.
pub struct Rig {
    pub host: Host,
    pub folder: tempfile::TempDir,
}

impl Rig {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(Options { cache: Some(folder.path().join("compiled")), ..Options::default() }).unwrap();
        Self { host, folder }
    }

    pub fn load_wasm(&self, bytes: &[u8], limits: &Limits) -> Result<Plugin, HostError> {
        let path = self.folder.path().join("plugin.wasm");
        std::fs::write(&path, bytes).unwrap();
        self.host.load("mine", Code::Wasm(&path), limits, &Grants::default())
    }

    pub fn wasm(&self, bytes: &[u8], limits: &Limits) -> Configured {
        self.load_wasm(bytes, limits).unwrap().configure(&json!({})).unwrap()
    }

    pub fn load_rhai(&self, text: &str, limits: &Limits) -> Result<Plugin, HostError> {
        let path = self.folder.path().join("mine.rhai");
        std::fs::write(&path, text).unwrap();
        self.host.load("mine", Code::Rhai(&path), limits, &Grants::default())
    }

    pub fn rhai(&self, text: &str, limits: &Limits) -> Configured {
        self.load_rhai(text, limits).unwrap().configure(&json!({})).unwrap()
    }

    pub fn builtin(&self, name: &str, config: &serde_json::Value) -> Configured {
        let limits = Limits { operations: Some(50_000), ..wasm_limits() };
        self.host.load(name, Code::Builtin(name), &limits, &Grants::default()).unwrap().configure(config).unwrap()
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

pub fn wasm_limits() -> Limits {
    Limits { fuel: Some(20_000_000), memory: Some(16 << 20), ..Limits::default() }
}

pub fn rhai_limits() -> Limits {
    Limits { operations: Some(50_000), ..Limits::default() }
}

pub fn ctx() -> Context {
    Context { step: 3, seed: 17, max_tokens: 1024, evaluating: false }
}

pub fn group(reference: Option<&str>, texts: &[&str]) -> Group {
    let completion = |text: &&str| {
        Arc::new(Completion {
            tokens: vec![0; text.len()],
            loss_mask: vec![true; text.len()],
            text: (*text).into(),
            finish: Finish::Stop,
            logprobs: vec![0.0; text.len()],
            weights_version: 0,
            experts: RoutedExperts::default(),
        })
    };
    Group {
        step: 3,
        index: 0,
        prompt: Arc::new(Prompt {
            id: 7,
            source: "sums".into(),
            messages: vec![Message { role: "user".into(), content: "1+1=?".into() }],
            text: "1+1=?".into(),
            tokens: Vec::new(),
            reference: reference.map(Into::into),
            response: None,
            learned: Vec::new(),
            fields: vec![("level".into(), "2".into())],
        }),
        completions: texts.iter().map(completion).collect(),
        judgements: Vec::new(),
        rewards: Vec::new(),
        decisions: Vec::new(),
    }
}

pub fn judged(mut group: Group, stage: &str, verdicts: Vec<Verdict>) -> Group {
    group.judgements.push(Arc::new(Judgement { stage: stage.into(), verdicts }));
    group
}

pub fn score(score: f64) -> Verdict {
    Verdict::Decided(Finding { score, ..Finding::default() })
}

pub fn undecided(reason: &str) -> Verdict {
    Verdict::Undecided(reason.into())
}

/// The scores of verdicts that are all decided.
pub fn scores(verdicts: &[Verdict]) -> Vec<f64> {
    let score = |verdict: &Verdict| match verdict {
        Verdict::Decided(finding) => finding.score,
        other => panic!("{other:?}"),
    };
    verdicts.iter().map(score).collect()
}
