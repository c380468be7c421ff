//! Finds a completion's program: its last fenced block of the language.

use std::borrow::Cow;

use crate::config::Choice;
use crate::runner::Language;

/// What ends a chain of thought: blocks before it are no answer.
const END_OF_THOUGHT: &str = "</think>";

/// A fenced block.
#[derive(Debug, PartialEq)]
struct Block<'a> {
    /// The first word after the opening fence.
    language: &'a str,
    /// Its lines, less the indentation of its fence.
    text: Cow<'a, str>,
}

/// The program of a completion, and its language.
pub fn program(text: &str, choice: Choice, unfenced: bool) -> Option<(Language, Cow<'_, str>)> {
    let answer = match text.rfind(END_OF_THOUGHT) {
        Some(at) => &text[at + END_OF_THOUGHT.len()..],
        // The thought was never ended: there is no answer.
        None if text.contains("<think>") => return None,
        None => text,
    };
    let mut blocks = blocks(answer);
    let language = match choice {
        Choice::Python => Language::Python,
        Choice::JavaScript => Language::JavaScript,
        Choice::Fence => {
            let index = blocks.iter().rposition(|block| Language::of_fence(block.language).is_some())?;
            let block = blocks.swap_remove(index);
            return Some((Language::of_fence(block.language)?, block.text));
        }
    };
    if blocks.is_empty() && unfenced {
        return Some((language, answer.into()));
    }
    let named = blocks.iter().rposition(|block| Language::of_fence(block.language) == Some(language));
    let index = named.or_else(|| blocks.iter().rposition(|block| block.language.is_empty()))?;
    Some((language, blocks.swap_remove(index).text))
}

/// The fenced blocks of a text, as CommonMark has them (<https://spec.commonmark.org/0.31.2/#fenced-code-blocks>), but for a
/// fence's indentation, which may be any: a fence is three or more backticks or tildes, a closing one is as long, and a block
/// that is not closed goes on to the end.
fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut lines = text.split_inclusive('\n');
    while let Some(line) = lines.next() {
        let Some(fence) = Fence::open(line) else { continue };
        let mut content: Vec<&str> = Vec::new();
        for line in lines.by_ref() {
            if fence.is_closed_by(line) {
                break;
            }
            content.push(dedented(line, fence.indentation));
        }
        found.push(Block { language: fence.language, text: content.concat().into() });
    }
    found
}

struct Fence<'a> {
    indentation: usize,
    mark: char,
    length: usize,
    language: &'a str,
}

impl<'a> Fence<'a> {
    fn open(line: &'a str) -> Option<Self> {
        let rest = line.trim_start_matches([' ', '\t']);
        let mark = rest.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let info = rest.trim_start_matches(mark);
        let length = rest.len() - info.len();
        if length < 3 || (mark == '`' && info.contains('`')) {
            return None;
        }
        let language = info.split(|c: char| c.is_whitespace() || "{},:".contains(c)).find(|word| !word.is_empty());
        Some(Self { indentation: line.len() - rest.len(), mark, length, language: language.unwrap_or_default() })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let line = line.trim();
        line.len() >= self.length && line.chars().all(|c| c == self.mark)
    }
}

fn dedented(line: &str, indentation: usize) -> &str {
    let blank = line.bytes().take(indentation).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &line[blank..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, choice: Choice, expected: Option<(Language, &str)>) {
        let found = program(text, choice, false);
        assert_eq!(found.as_ref().map(|(language, text)| (*language, &**text)), expected, "{text}");
    }

    #[test]
    fn the_last_block_of_the_language_is_the_program() {
        let python = |text| Some((Language::Python, text));
        let javascript = |text| Some((Language::JavaScript, text));
        for (text, expected) in [
            ("```python\nx = 1\n```", python("x = 1\n")),
            ("```python\nx = 1\n```\nor\n```py\nx = 2\n```\n", python("x = 2\n")),
            ("```python\nx = 1\n```\nIt prints\n```\n1\n```", python("x = 1\n")),
            ("```\nx = 1\n```\n```text\n1\n```", python("x = 1\n")),
            ("```Python title=\"a.py\"\nx\n```", python("x\n")),
            ("````python\n```\n````", python("```\n")),
            ("~~~python\nx\n```\n~~~", python("x\n```\n")),
            ("* first\n    ```python\n    if x:\n        y\n    ```", python("if x:\n    y\n")),
            ("```python\nx = 1", python("x = 1")),
            ("```python\nx = 1\n````\n", python("x = 1\n")),
            ("```python\r\nx\r\n```\r\n", python("x\r\n")),
            ("<think>\n```python\nx\n```\n</think>\n```python\ny\n```", python("y\n")),
            ("```js\nx\n```", None),
            ("`x = 1`", None),
            ("``` x = 1 ```", None),
            ("<think>\n```python\nx\n```", None),
            ("<think>\n```python\nx\n```\n</think> x", None),
            ("", None),
        ] {
            check(text, Choice::Python, expected);
        }
        check("```js\nx\n```\n```\ny\n```", Choice::JavaScript, javascript("x\n"));
        check("```js\nx\n```\n```python\ny\n```", Choice::Fence, python("y\n"));
        check("```python\ny\n```\n```javascript\nx\n```\n```\nz\n```", Choice::Fence, javascript("x\n"));
        check("```\nx\n```", Choice::Fence, None);
    }

    #[test]
    fn a_program_without_a_fence_is_one_where_the_config_says_so() {
        let found = |text| program(text, Choice::Python, true).map(|(_, text)| text.into_owned());
        assert_eq!(found("    return 1").as_deref(), Some("    return 1"));
        assert_eq!(found("```\nx\n```").as_deref(), Some("x\n"));
        assert_eq!(found("```js\nx\n```"), None);
    }
}
