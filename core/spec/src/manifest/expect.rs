//! What a test expects of a plugin.

use base::Diagnostic;

use super::{Reader, Side, columns};
use crate::check::join;
use crate::fields::{FINDING, ROW};
use crate::lower;
use crate::suggest::suggestion;
use crate::tree::Node;
use crate::types::{Expect, ExpectDecision, ExpectRow, ExpectVerdict};

impl Reader<'_> {
    pub(super) fn expect(&mut self, node: &Node, side: Side, path: &str) -> Option<Expect> {
        if let Some(table) = node.as_table() {
            let mut entries = table.iter();
            return match (entries.next(), entries.next()) {
                (Some((key, entry)), None) if key == "failed" || key == "refused" => {
                    let part = self.text(&entry.node, &join(path, key))?.to_owned();
                    Some(if key == "failed" { Expect::Failed(part) } else { Expect::Refused(part) })
                }
                _ => {
                    let words = "a list, `{ failed = \"...\" }` or `{ refused = \"...\" }`";
                    self.check.wrong_type(node, path, words);
                    None
                }
            };
        }
        Some(match side {
            Side::Verifier => Expect::Verdicts(self.each(node, path, Self::expect_verdict)?),
            Side::Rewarder => Expect::Rewards(self.each(node, path, Self::reward)?),
            Side::Filterer => {
                let group = |reader: &mut Self, node: &Node, path: &str| reader.each(node, path, Self::expect_decision);
                Expect::Decisions(self.each(node, path, group)?)
            }
            Side::Generator => Expect::Rows(self.each(node, path, Self::expect_row)?),
        })
    }

    fn expect_verdict(&mut self, node: &Node, path: &str) -> Option<ExpectVerdict> {
        let score = |score| ExpectVerdict::Decided { score, answer: None, note: None, metrics: Vec::new() };
        if node.as_number().is_some() {
            return self.finite(node, path).map(|number| score(Some(number)));
        }
        if let Some(word) = node.as_text() {
            return match word {
                "undecided" => Some(ExpectVerdict::Undecided(String::new())),
                "not_applicable" => Some(ExpectVerdict::NotApplicable),
                _ => self.no_word(node, word, path, &["undecided", "not_applicable"]),
            };
        }
        if node.as_table().is_none() {
            self.check.wrong_type(node, path, "a score, a table, \"undecided\" or \"not_applicable\"");
            return None;
        }
        self.table(node, &FINDING, path)?;
        if let Some(reason) = node.get("undecided") {
            if node.as_table().is_some_and(|table| table.len() > 1) {
                self.say(
                    node,
                    "conflicting-keys",
                    "what is undecided has only a reason",
                    "holds more than `undecided`",
                );
                return None;
            }
            return Some(ExpectVerdict::Undecided(self.text(reason, &join(path, "undecided"))?.to_owned()));
        }
        Some(ExpectVerdict::Decided {
            score: lower::number(node, "score"),
            answer: self.optional_text(node, "answer", path)?,
            note: self.optional_text(node, "note", path)?,
            metrics: self.metrics(node, path)?,
        })
    }

    fn expect_decision(&mut self, node: &Node, path: &str) -> Option<ExpectDecision> {
        const WORDS: [&str; 3] = ["keep", "mask", "drop"];
        let named = |word: &str, part: &str| match word {
            "keep" => Some(ExpectDecision::Keep),
            "mask" => Some(ExpectDecision::Mask(part.to_owned())),
            "drop" => Some(ExpectDecision::Drop(part.to_owned())),
            _ => None,
        };
        if let Some(word) = node.as_text() {
            return named(word, "").or_else(|| self.no_word(node, word, path, &WORDS));
        }
        let only = node.as_table().filter(|table| table.len() == 1).and_then(|table| table.iter().next());
        match only {
            Some((word, entry)) if word == "mask" || word == "drop" => {
                let part = self.text(&entry.node, &join(path, word))?;
                named(word, part)
            }
            _ => {
                let words = "\"keep\", \"mask\", \"drop\", `{ mask = \"...\" }` or `{ drop = \"...\" }`";
                self.check.wrong_type(node, path, words);
                None
            }
        }
    }

    fn expect_row(&mut self, node: &Node, path: &str) -> Option<ExpectRow> {
        self.table(node, &ROW, path)?;
        let prompt = match node.get("prompt") {
            Some(prompt) => Some(self.messages(prompt, &join(path, "prompt"))?),
            None => None,
        };
        let reference = self.optional_text(node, "reference", path)?;
        Some(ExpectRow { prompt, reference, fields: columns(node.get("fields")) })
    }

    fn no_word<T>(&mut self, node: &Node, word: &str, path: &str, words: &[&str]) -> Option<T> {
        let error = Diagnostic::error("unknown-value", format!("`{path}` can't be `{word}`"));
        let error = error.at(node.span.clone(), "no such choice");
        self.check.findings.push(Diagnostic { help: suggestion(word, words), ..error });
        None
    }
}
