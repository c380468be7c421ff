//! What a test gives to a plugin.

use std::sync::Arc;

use base::{Completion, Finding, Finish, Group, Judgement, Message, Prompt, RoutedExperts, Verdict};

use super::{Reader, Side, columns, counted};
use crate::check::join;
use crate::fields::{COMPLETION, FINDING, GENERATED, GROUP, MESSAGE};
use crate::lower;
use crate::tree::Node;
use crate::types::Input;

impl Reader<'_> {
    pub(super) fn input(&mut self, node: &Node, side: Side, path: &str) -> Option<Input> {
        match side {
            Side::Verifier => {
                let group = self.group(node, 0, path);
                self.unused(node, "judgements", "only a rewarder is given `judgements`")?;
                self.unused(node, "rewards", "only a filter is given `rewards`")?;
                Some(Input::Verify(Box::new(group?)))
            }
            Side::Rewarder => {
                let group = self.group(node, 0, path);
                self.unused(node, "rewards", "only a filter is given `rewards`")?;
                Some(Input::Reward(Box::new(group?)))
            }
            Side::Filterer => {
                let mut index = 0;
                let groups = self.each(node, path, |reader, node, path| {
                    let group = reader.group(node, index, path);
                    index += 1;
                    reader.unused(node, "judgements", "only a rewarder is given `judgements`")?;
                    group.map(Arc::new)
                });
                Some(Input::Filter(groups?))
            }
            Side::Generator => {
                self.table(node, &GENERATED, path)?;
                let first = lower::natural(node, "first").unwrap_or(0);
                let count = u32::try_from(lower::natural(node, "count")?).ok()?;
                Some(Input::Generate { first, count })
            }
        }
    }

    fn unused(&mut self, node: &Node, key: &str, message: &str) -> Option<()> {
        let Some(entry) = node.get(key) else { return Some(()) };
        self.say(entry, "unused-input", message, "is not looked at");
        None
    }

    fn group(&mut self, node: &Node, index: usize, path: &str) -> Option<Group> {
        self.table(node, &GROUP, path)?;
        let messages = match node.get("prompt") {
            Some(prompt) => self.messages(prompt, &join(path, "prompt")),
            None => Some(Vec::new()),
        };
        let reference = match node.get("reference") {
            Some(reference) => self.text(reference, &join(path, "reference")).map(|text| Some(text.to_owned())),
            None => Some(None),
        };
        let completions = self.each(node.get("completions")?, &join(path, "completions"), Self::completion);
        let n = completions.as_ref().map_or(0, Vec::len);
        let judgements = match node.get("judgements") {
            Some(judgements) => self.judgements(judgements, n, &join(path, "judgements")),
            None => Some(Vec::new()),
        };
        let rewards = match node.get("rewards") {
            Some(rewards) => {
                let path = join(path, "rewards");
                let read = self.each(rewards, &path, Self::reward);
                self.as_many(rewards, read.as_ref().map(Vec::len), n, &path)?;
                read
            }
            None => Some(Vec::new()),
        };
        let messages = messages?;
        let prompt = Prompt {
            id: index as u64,
            source: "test".into(),
            text: messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n"),
            messages,
            tokens: Vec::new(),
            reference: reference?,
            response: None,
            learned: Vec::new(),
            fields: columns(node.get("fields")),
        };
        Some(Group {
            step: 0,
            index,
            prompt: Arc::new(prompt),
            completions: completions?,
            judgements: judgements?,
            rewards: rewards?,
            decisions: Vec::new(),
        })
    }

    /// A string, which is one message of the user, or a list of messages.
    pub(super) fn messages(&mut self, node: &Node, path: &str) -> Option<Vec<Message>> {
        if let Some(text) = node.as_text() {
            return Some(vec![Message { role: "user".into(), content: text.to_owned() }]);
        }
        if node.as_array().is_none() {
            self.check.wrong_type(node, path, "a string or a list of `{ role, content }`");
            return None;
        }
        self.each(node, path, |reader, node, path| {
            reader.table(node, &MESSAGE, path)?;
            let content = reader.text(node.get("content")?, &join(path, "content"))?;
            Some(Message { role: lower::string(node, "role")?, content: content.to_owned() })
        })
    }

    fn completion(&mut self, node: &Node, path: &str) -> Option<Arc<Completion>> {
        let (text, tokens, finish) = if let Some(text) = node.as_text() {
            (text, 0, Finish::Stop)
        } else if node.as_table().is_some() {
            self.table(node, &COMPLETION, path)?;
            let finish = match node.text("finish") {
                Some("length") => Finish::Length,
                Some("aborted") => Finish::Aborted,
                _ => Finish::Stop,
            };
            let text = self.text(node.get("text")?, &join(path, "text"))?;
            (text, lower::natural(node, "tokens").unwrap_or(0) as usize, finish)
        } else {
            self.check.wrong_type(node, path, "a string or `{ text, tokens, finish }`");
            return None;
        };
        Some(Arc::new(Completion {
            tokens: vec![0; tokens],
            loss_mask: Vec::new(),
            text: text.to_owned(),
            finish,
            logprobs: Vec::new(),
            weights_version: 0,
            experts: RoutedExperts::default(),
        }))
    }

    fn judgements(&mut self, node: &Node, n: usize, path: &str) -> Option<Vec<Arc<Judgement>>> {
        let stages = self.check.expect_table(node, path)?;
        let mut judgements = Vec::new();
        let mut complete = true;
        for (stage, entry) in stages {
            let path = join(path, stage);
            let verdicts = self.each(&entry.node, &path, Self::verdict);
            complete &= self.as_many(&entry.node, verdicts.as_ref().map(Vec::len), n, &path).is_some();
            match verdicts {
                Some(verdicts) => judgements.push(Arc::new(Judgement { stage: stage.clone(), verdicts })),
                None => complete = false,
            }
        }
        complete.then_some(judgements)
    }

    /// Holds the length of a list against the number of completions.
    fn as_many(&mut self, node: &Node, got: Option<usize>, n: usize, path: &str) -> Option<()> {
        if got == Some(n) {
            return Some(());
        }
        if let Some(got) = got {
            let (got, of) = (counted(got, "element"), counted(n, "completion"));
            self.mismatch(node, &format!("`{path}`"), got, of, "completion");
        }
        None
    }

    fn verdict(&mut self, node: &Node, path: &str) -> Option<Verdict> {
        if let Some(score) = node.as_number() {
            self.finite(node, path)?;
            return Some(Verdict::Decided(Finding { score, ..Finding::default() }));
        }
        match node.as_text() {
            Some("undecided") => return Some(Verdict::Undecided("undecided".into())),
            Some("not_applicable") => return Some(Verdict::NotApplicable),
            _ => {}
        }
        if node.as_table().is_none() {
            let words = "a score, a table, \"undecided\" or \"not_applicable\"";
            self.check.wrong_type(node, path, words);
            return None;
        }
        self.table(node, &FINDING, path)?;
        if let Some(reason) = node.get("undecided") {
            return Some(Verdict::Undecided(self.text(reason, &join(path, "undecided"))?.to_owned()));
        }
        let Some(score) = lower::number(node, "score") else {
            self.say(node, "missing-key", &format!("`{path}` has no `score`"), "needs `score` or `undecided`");
            return None;
        };
        let (answer, note) = (self.optional_text(node, "answer", path)?, self.optional_text(node, "note", path)?);
        Some(Verdict::Decided(Finding { score, answer, metrics: self.metrics(node, path)?, note }))
    }

    pub(super) fn optional_text(&mut self, node: &Node, key: &str, path: &str) -> Option<Option<String>> {
        match node.get(key) {
            Some(text) => self.text(text, &join(path, key)).map(|text| Some(text.to_owned())),
            None => Some(None),
        }
    }

    pub(super) fn metrics(&mut self, node: &Node, path: &str) -> Option<Vec<(String, f64)>> {
        let path = join(path, "metrics");
        let members = node.get("metrics").and_then(Node::as_table).into_iter().flatten();
        let metrics: Vec<Option<(String, f64)>> =
            members.map(|(name, entry)| Some((name.clone(), self.finite(&entry.node, &join(&path, name))?))).collect();
        metrics.into_iter().collect()
    }

    /// A reward as a filter is given it; "undecided" where there is none.
    pub(super) fn reward(&mut self, node: &Node, path: &str) -> Option<Option<f64>> {
        match node.as_text() {
            Some("undecided") => Some(None),
            Some(_) => {
                self.check.wrong_type(node, path, "a number or \"undecided\"");
                None
            }
            None => self.finite(node, path).map(Some),
        }
    }
}
