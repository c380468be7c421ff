//! Where an answer stands in a text.

use crate::bytes::{find, find_from, rfind};

/// A place where an answer may stand.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// All of the text.
    Whole,
    /// What the last `\boxed{..}` holds, braces matched; `\fbox` serves where there is none.
    Boxed,
    /// The last line that is not blank.
    LastLine,
    /// What the last `<name>..</name>` holds, as they are met from the left: `<a>1<a>2</a>` is one block, `1<a>2`.
    Tag(String),
    /// The same of the first.
    FirstTag(String),
    /// From the first `<name>` to the last `</name>`.
    WidestTag(String),
    /// From the last `<name>`, or from the beginning where there is none, to the next `</name>` or the end.
    OpenTag(String),
    /// The last block that is fenced by three backticks and is of this language, or of any for an empty name.
    Fence(String),
    /// What stands on the line after the last such mark.
    After(String),
}

impl Place {
    /// What stands in this place of the text, `None` if the place is not there.
    pub fn read<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Whole => Some(text),
            Self::Boxed => boxed(text),
            Self::LastLine => text.lines().rev().find(|line| !line.trim().is_empty()),
            Self::Tag(name) => blocks(text, name).last(),
            Self::FirstTag(name) => blocks(text, name).next(),
            Self::WidestTag(name) => {
                let (open, close) = tags(name);
                let start = find(text, &open)? + open.len();
                let end = rfind(text, &close)?;
                text.get(start..end)
            }
            Self::OpenTag(name) => {
                let (open, close) = tags(name);
                let rest = &text[rfind(text, &open).map_or(0, |at| at + open.len())..];
                Some(&rest[..find(rest, &close).unwrap_or(rest.len())])
            }
            Self::Fence(language) => {
                fences(text).filter(|fence| language.is_empty() || fence.0 == language).last().map(|fence| fence.1)
            }
            Self::After(mark) => {
                let rest = &text[rfind(text, mark)? + mark.len()..];
                rest.split('\n').next()
            }
        }
    }

    /// What notes call the place.
    pub fn name(&self) -> String {
        match self {
            Self::Whole => "the completion".into(),
            Self::Boxed => "\\boxed".into(),
            Self::LastLine => "the last line".into(),
            Self::Tag(name) | Self::FirstTag(name) | Self::WidestTag(name) | Self::OpenTag(name) => format!("<{name}>"),
            Self::Fence(language) => format!("```{language}"),
            Self::After(mark) => format!("`{mark}`"),
        }
    }
}

/// What stands in the first of the places that is there.
pub fn read<'t>(places: &[Place], text: &'t str) -> Option<&'t str> {
    places.iter().find_map(|place| place.read(text))
}

/// The opening and the closing tag of a name.
pub fn tags(name: &str) -> (String, String) {
    (format!("<{name}>"), format!("</{name}>"))
}

/// What each `<name>..</name>` holds, as they are met from the left; none overlap.
pub fn blocks<'t>(text: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    let (open, close) = tags(name);
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = find_from(text, &open, at)? + open.len();
        let end = find_from(text, &close, start)?;
        at = end + close.len();
        Some(&text[start..end])
    })
}

/// What the last `\boxed{..}` holds, or without any the last `\fbox{..}`; `None` if its braces don't match.
pub fn boxed(text: &str) -> Option<&str> {
    let begun = |mark: &str| rfind(text, mark).map(|at| at + mark.len());
    let inside = &text[begun("\\boxed{").or_else(|| begun("\\fbox{"))?..];
    let mut depth = 1_usize;
    for (i, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&inside[..i]);
        }
    }
    None
}

/// The fenced blocks that are closed: the language that stands after the opening backticks, and what the block holds.
pub fn fences(text: &str) -> impl Iterator<Item = (&str, &str)> {
    const FENCE: &str = "```";
    let mut at = 0;
    std::iter::from_fn(move || {
        let opened = find_from(text, FENCE, at)? + FENCE.len();
        let line = text[opened..].find('\n').map(|i| opened + i)?;
        let close = find_from(text, FENCE, line)?;
        at = close + FENCE.len();
        Some((text[opened..line].trim(), &text[line + 1..close]))
    })
}

/// What a text that lacks the mark gives to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Without {
    /// Nothing: its thought never ended.
    #[default]
    Nothing,
    /// All of it: not every model thinks.
    Everything,
}

/// What stands after the last such mark; the whole text for no mark.
pub fn after<'t>(text: &'t str, mark: Option<&str>, without: Without) -> Option<&'t str> {
    let Some(mark) = mark else { return Some(text) };
    match (rfind(text, mark), without) {
        (Some(at), _) => Some(&text[at + mark.len()..]),
        (None, Without::Everything) => Some(text),
        (None, Without::Nothing) => None,
    }
}

/// The properties `after_mark` and `without_mark` of a config's JSON Schema, which are the arguments of [`after`].
#[macro_export]
macro_rules! mark_schema {
    () => {
        r#"
            "after_mark": {
              "type": "string",
              "minLength": 1,
              "description": "Only what stands after the last of it is read, such as </think>. Default: the whole completion is."
            },
            "without_mark": {
              "enum": ["nothing", "everything"],
              "description": "What is read of a completion that lacks the mark. Default: nothing."
            }"#
    };
}

/// The property `read` of a config's JSON Schema, a list of [`Place`].
#[macro_export]
macro_rules! read_schema {
    () => {
        r#"
            "read": {
              "type": "array",
              "minItems": 1,
              "description": "Where the answer stands, in order; the first place that is there counts.",
              "items": {
                "oneOf": [
                  { "enum": ["whole", "boxed", "last_line"] },
                  {
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": 1,
                    "additionalProperties": false,
                    "properties": {
                      "tag": { "type": "string", "minLength": 1, "description": "The last <name>..</name>." },
                      "first_tag": { "type": "string", "minLength": 1, "description": "The first <name>..</name>." },
                      "widest_tag": { "type": "string", "minLength": 1, "description": "From the first <name> to the last </name>." },
                      "open_tag": { "type": "string", "minLength": 1, "description": "From the last <name> to its </name> or the end; from the beginning where there is none." },
                      "fence": { "type": "string", "description": "The last block fenced by ``` of this language; empty for any." },
                      "after": { "type": "string", "minLength": 1, "description": "The line after the last such mark." }
                    }
                  }
                ]
              }
            }"#
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(place: Place, text: &str, expected: Option<&str>) {
        assert_eq!(place.read(text), expected, "{place:?} of {text}");
    }

    #[test]
    fn places_are_read() {
        let tag = || Place::Tag("a".into());
        check(tag(), "<a>1</a> <a>2</a> <a>3", Some("2"));
        check(tag(), "<a>1<a>2</a>", Some("1<a>2"));
        check(tag(), "</a><a>", None);
        check(Place::FirstTag("a".into()), "<a>1</a> <a>2</a>", Some("1"));
        check(Place::WidestTag("a".into()), "<a>1</a> <a>2</a>", Some("1</a> <a>2"));
        check(Place::WidestTag("a".into()), "</a><a>", None);
        check(Place::OpenTag("a".into()), "<a>1</a> <a>2", Some("2"));
        check(Place::OpenTag("a".into()), "1</a>", Some("1"));
        check(Place::OpenTag("a".into()), "1", Some("1"));
        check(Place::Boxed, r"\boxed{1} \boxed{\frac{1}{2}}.", Some(r"\frac{1}{2}"));
        check(Place::Boxed, r"\boxed{1} \boxed{", None);
        check(Place::Boxed, r"\boxed{}}", Some(""));
        check(Place::Boxed, r"\fbox{1}", Some("1"));
        check(Place::LastLine, "1\n2\n \n", Some("2"));
        check(Place::LastLine, "", None);
        check(Place::After("####".into()), "#### 1\n#### 2\n3", Some(" 2"));
        check(Place::After("####".into()), "2", None);
        let fence = |language: &str| Place::Fence(language.into());
        check(fence("json"), "```json\n{}\n```\n```\n1\n```", Some("{}\n"));
        check(fence(""), "```json\n{}\n```\n```\n1\n```", Some("1\n"));
        check(fence(""), "```json\n{}", None);
        check(fence(""), "``````", None);
    }

    #[test]
    fn thoughts_are_skipped() {
        let read = |text, without| after(text, Some("</think>"), without);
        assert_eq!(read("<think>1</think>2", Without::Nothing), Some("2"));
        assert_eq!(read("1</think>2</think>3", Without::Nothing), Some("3"));
        assert_eq!((read("1", Without::Nothing), read("1", Without::Everything)), (None, Some("1")));
        assert_eq!(after("1", None, Without::Nothing), Some("1"));
    }
}
