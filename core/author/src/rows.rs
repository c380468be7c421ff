//! The lines of a file of completions: `{"prompt", "reference", "completion" | "completions", ...further fields}`.

use std::borrow::Cow;
use std::fmt;
use std::io::BufRead;
use std::sync::Arc;

use base::{Completion, Finding, Finish, Group, Judgement, Message, Prompt, RoutedExperts, Verdict};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::judge::JudgeError;

/// What a line should look like.
const FORM: &str =
    r#"write {"prompt": "...", "reference": "...", "completion": "..."}, or "completions": [...] for several"#;

/// The most tokens that a completion can say it has.
const MOST_TOKENS: u32 = 1 << 24;

/// What is wrong with a line, and in which column if that is known.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    column: Option<usize>,
    message: String,
}

/// The group of a line. `index` is its number in the file, from 0.
fn group(line: &[u8], source: &Arc<str>, index: u64) -> Result<Group, Wrong> {
    let row: Row = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
        Wrong { column: (error.column() > 0).then(|| error.column()), message: format!("{message}; {FORM}") }
    })?;
    let wrong = |message: String| Wrong { column: None, message };
    let completions = match row.completions {
        Some(completions) => completions,
        None if row.fields.is_empty() => {
            return Err(wrong(format!("the line has neither `completion` nor `completions`; {FORM}")));
        }
        None => {
            let keys: Vec<String> = row.fields.iter().map(|(key, _)| format!("`{key}`")).collect();
            let keys = keys.join(", ");
            return Err(wrong(format!("the line has neither `completion` nor `completions`, but {keys}; {FORM}")));
        }
    };
    for judgement in &row.judgements {
        if judgement.verdicts.len() != completions.len() {
            let (stage, got, of) = (&judgement.stage, judgement.verdicts.len(), completions.len());
            return Err(wrong(format!("`judgements` has {got} verdicts of `{stage}` for {of} completions")));
        }
    }
    let prompt = Prompt {
        id: index,
        source: Arc::clone(source),
        messages: row.prompt,
        text: String::new(),
        tokens: Vec::new(),
        reference: row.reference,
        response: None,
        learned: Vec::new(),
        fields: row.fields,
    };
    Ok(Group {
        step: 0,
        index: index as usize,
        prompt: Arc::new(prompt),
        completions,
        judgements: row.judgements,
        rewards: Vec::new(),
        decisions: Vec::new(),
    })
}

/// The groups of the first lines of a file, at most `most` of them; blank lines are passed over.
///
/// # Errors
/// The file can't be read, or a line is not what it should be.
pub fn groups(input: impl BufRead, file: &str, most: usize) -> Result<Vec<Group>, JudgeError> {
    let source: Arc<str> = file.into();
    let mut groups = Vec::new();
    for (index, line) in input.split(b'\n').enumerate() {
        let line = line.map_err(|error| JudgeError::Read(file.into(), error))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        if groups.len() == most {
            break;
        }
        groups.push(group_at(&line, &source, index as u64)?);
    }
    Ok(groups)
}

/// The group of a line, or an error with its place.
pub(crate) fn group_at(line: &[u8], source: &Arc<str>, index: u64) -> Result<Group, JudgeError> {
    let line = if index == 0 { line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line) } else { line };
    group(line, source, index).map_err(|wrong| JudgeError::Line {
        file: source.to_string(),
        line: index + 1,
        column: wrong.column,
        message: wrong.message,
    })
}

#[derive(Default)]
struct Row {
    prompt: Vec<Message>,
    reference: Option<String>,
    completions: Option<Vec<Arc<Completion>>>,
    judgements: Vec<Arc<Judgement>>,
    fields: Vec<(String, String)>,
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RowVisitor)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut row = Row::default();
        let mut seen = [false; 5];
        let mut once = |index: usize, name: &'static str| {
            if std::mem::replace(&mut seen[index], true) { Err(A::Error::duplicate_field(name)) } else { Ok(()) }
        };
        while let Some(Key(key)) = map.next_key()? {
            match &*key {
                "prompt" => {
                    once(0, "prompt")?;
                    row.prompt = map.next_value::<Conversation>()?.0;
                }
                "reference" => {
                    once(1, "reference")?;
                    row.reference = map.next_value::<Column>()?.0;
                }
                "completion" => {
                    once(2, "completion")?;
                    row.completions = Some(vec![map.next_value::<Written>()?.0]);
                }
                "completions" => {
                    once(3, "completions")?;
                    let written: Vec<Written> = map.next_value()?;
                    row.completions = Some(written.into_iter().map(|written| written.0).collect());
                }
                "judgements" => {
                    once(4, "judgements")?;
                    row.judgements = map.next_value::<Judgements>()?.0;
                }
                _ => {
                    if let Some(text) = map.next_value::<Column>()?.0 {
                        row.fields.push((key.into_owned(), text));
                    }
                }
            }
        }
        if seen[2] && seen[3] {
            return Err(A::Error::custom("the line has both `completion` and `completions`"));
        }
        Ok(row)
    }
}

/// A key, borrowed where it has no escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// A column as plugins are given it: what is no string is compact JSON, and a null is absent.
struct Column(Option<String>);

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        }))
    }
}

/// A string, which is one message of the user, or a list of messages; nothing for null.
struct Conversation(Vec<Message>);

impl<'de> Deserialize<'de> for Conversation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ConversationVisitor;
        impl<'de> Visitor<'de> for ConversationVisitor {
            type Value = Conversation;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"a prompt: a string or a list of {"role", "content"}"#)
            }
            fn visit_unit<E>(self) -> Result<Conversation, E> {
                Ok(Conversation(Vec::new()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Conversation, E> {
                Ok(Conversation(vec![Message { role: "user".into(), content: text.to_owned() }]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Conversation, A::Error> {
                let mut messages = Vec::new();
                while let Some(message) = list.next_element()? {
                    messages.push(message);
                }
                Ok(Conversation(messages))
            }
        }
        deserializer.deserialize_any(ConversationVisitor)
    }
}

/// A completion: its text, or `{"text", "tokens", "finish"}`.
struct Written(Arc<Completion>);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WrittenVisitor;
        impl<'de> Visitor<'de> for WrittenVisitor {
            type Value = Written;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"a completion: a string or {"text", "tokens", "finish"}"#)
            }
            fn visit_str<E>(self, text: &str) -> Result<Written, E> {
                Ok(written(text.to_owned(), 0, Finish::Stop))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Written, A::Error> {
                let object = Object::deserialize(MapAccessDeserializer::new(map))?;
                if object.tokens > MOST_TOKENS {
                    return Err(A::Error::custom(format!("`tokens` is above {MOST_TOKENS}")));
                }
                Ok(written(object.text, object.tokens as usize, object.finish))
            }
        }
        deserializer.deserialize_any(WrittenVisitor)
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    text: String,
    #[serde(default)]
    tokens: u32,
    #[serde(default = "stop")]
    finish: Finish,
}

fn stop() -> Finish {
    Finish::Stop
}

fn written(text: String, tokens: usize, finish: Finish) -> Written {
    Written(Arc::new(Completion {
        tokens: vec![0; tokens],
        loss_mask: Vec::new(),
        text,
        finish,
        logprobs: Vec::new(),
        weights_version: 0,
        experts: RoutedExperts::default(),
    }))
}

/// The verdicts of each stage, by its name: as `plugin run` writes them, or scores alone.
struct Judgements(Vec<Arc<Judgement>>);

impl<'de> Deserialize<'de> for Judgements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stages: serde_json::Map<String, Value> = Deserialize::deserialize(deserializer)?;
        let judgement = |(stage, list): (String, Value)| {
            let Value::Array(list) = list else {
                return Err(D::Error::custom(format!("the verdicts of `{stage}` are no list")));
            };
            let verdicts = list
                .into_iter()
                .map(|item| verdict(item).map_err(|error| D::Error::custom(format!("`{stage}`: {error}"))));
            Ok(Arc::new(Judgement { verdicts: verdicts.collect::<Result<_, _>>()?, stage }))
        };
        Ok(Self(stages.into_iter().map(judgement).collect::<Result<_, _>>()?))
    }
}

fn verdict(value: Value) -> Result<Verdict, serde_json::Error> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Decided {
        score: f64,
        answer: Option<String>,
        #[serde(default)]
        metrics: serde_json::Map<String, Value>,
        note: Option<String>,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Undecided {
        undecided: String,
    }
    match &value {
        Value::Number(score) => {
            return Ok(Verdict::Decided(Finding { score: score.as_f64().unwrap_or(f64::NAN), ..Finding::default() }));
        }
        Value::String(word) if word == "undecided" => return Ok(Verdict::Undecided("undecided".into())),
        Value::String(word) if word == "not_applicable" => return Ok(Verdict::NotApplicable),
        Value::Object(members) if members.contains_key("undecided") => {
            return serde_json::from_value::<Undecided>(value).map(|verdict| Verdict::Undecided(verdict.undecided));
        }
        Value::Object(members) if members.contains_key("not_applicable") => return Ok(Verdict::NotApplicable),
        Value::Object(_) => {}
        _ => {
            let words = r#"a verdict is a score, {"score", "answer", "metrics", "note"}, {"undecided": "why"} or "not_applicable""#;
            return Err(serde_json::Error::custom(words));
        }
    }
    let decided: Decided = serde_json::from_value(value)?;
    let metrics = decided
        .metrics
        .into_iter()
        .map(|(name, value)| match value.as_f64() {
            Some(number) => Ok((name, number)),
            None => Err(serde_json::Error::custom(format!("the metric `{name}` is no number"))),
        })
        .collect::<Result<_, _>>()?;
    Ok(Verdict::Decided(Finding { score: decided.score, answer: decided.answer, metrics, note: decided.note }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Group, Wrong> {
        group(line.as_bytes(), &"file".into(), 3)
    }

    #[test]
    fn a_line_is_a_group() {
        let line = r#"{"prompt":"1+1?","reference":2,"completions":["2",{"text":"\u0033","tokens":7,"finish":"length"}],
            "level":{ "a": [1, 2] },"nothing":null,"topic":"sums"}"#;
        let group = read(line).unwrap();
        assert_eq!(group.prompt.messages, [Message { role: "user".into(), content: "1+1?".into() }]);
        assert_eq!(group.prompt.reference.as_deref(), Some("2"));
        let fields = [("level", r#"{"a":[1,2]}"#), ("topic", "sums")];
        assert_eq!(group.prompt.fields, fields.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(group.completions[0].text, "2");
        let other = &group.completions[1];
        assert_eq!((other.text.as_str(), other.tokens.len(), other.finish), ("3", 7, Finish::Length));

        let group = read(r#"{"completion":"x","prompt":[{"role":"system","content":"y"}],"reference":null}"#).unwrap();
        assert_eq!((group.prompt.messages[0].role.as_str(), group.prompt.reference.as_deref()), ("system", None));
    }

    #[test]
    fn judgements_are_what_run_writes() {
        let line = r#"{"completions":["a","b","c"],"judgements":{"accuracy":[1,{"undecided":"why"},"not_applicable"],
            "format":[{"score":0.5,"note":null,"metrics":{"n":2}},{"not_applicable":true},{"score":1,"answer":"4"}]}}"#;
        let group = read(line).unwrap();
        assert_eq!(group.judgements[0].stage, "accuracy");
        assert_eq!(group.judgements[0].verdicts[1..], [Verdict::Undecided("why".into()), Verdict::NotApplicable]);
        let Verdict::Decided(finding) = &group.judgements[1].verdicts[0] else { panic!() };
        assert_eq!((finding.score, finding.metrics[0].1), (0.5, 2.0));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_column() {
        for (line, column, part) in [
            (r#"{"completion" "x"}"#, Some(15), "expected `:`"),
            (r#"["x"]"#, Some(0), "expected a JSON object"),
            (r#"{"completion":3}"#, Some(15), "expected a completion: a string or"),
            (r#"{"completion":{"text":"a","token":1}}"#, Some(33), "unknown field `token`"),
            (r#"{"completion":"a","completions":[]}"#, Some(35), "has both"),
            (r#"{"completion":"a","completion":"b"}"#, Some(30), "duplicate field"),
            (
                r#"{"prompt":"a","output":"b","id":1}"#,
                None,
                "neither `completion` nor `completions`, but `output`, `id`; write {",
            ),
            (r#"{}"#, None, "neither `completion` nor `completions`; write {"),
            (r#"{"completions":["a"],"judgements":{"x":[]}}"#, None, "0 verdicts of `x` for 1 completions"),
            (r#"{"completion":"a"} {"completion":"b"}"#, Some(20), "trailing characters"),
        ] {
            let wrong = read(line).unwrap_err();
            assert!(wrong.message.contains(part), "{line}: {wrong:?}");
            assert_eq!(wrong.column.is_some(), column.is_some_and(|column| column > 0), "{line}: {wrong:?}");
        }
    }

    #[test]
    fn other_bytes_are_refused() {
        let line = b"{\"completion\":\"\xff\"}";
        assert!(group(line, &"file".into(), 0).unwrap_err().message.contains("unicode"));
    }
}
