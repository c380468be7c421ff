//! TOML text as a tree in which each key and each value knows its place.

use std::ops::Range;
use std::path::{Path, PathBuf};

use base::{Diagnostic, Span};
use indexmap::IndexMap;
use toml::de::{DeTable, DeValue};
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use crate::files::SET;

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Span,
}

/// What TOML can say.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
}

/// A table in the order of the file.
pub(crate) type Table = IndexMap<String, Entry>;

/// A key's place and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Span,
    pub(crate) node: Node,
}

impl Node {
    /// An empty table at a place.
    pub(crate) fn table_at(span: Span) -> Self {
        Self { value: Value::Table(Table::new()), span }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Boolean(_) => "a boolean",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "a string",
            Value::Datetime(_) => "a date",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    pub(crate) fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    pub(crate) fn as_table_mut(&mut self) -> Option<&mut Table> {
        match &mut self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    pub(crate) fn as_array(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_integer(&self) -> Option<i64> {
        match self.value {
            Value::Integer(integer) => Some(integer),
            _ => None,
        }
    }

    /// An integer or a float.
    pub(crate) fn as_number(&self) -> Option<f64> {
        match self.value {
            Value::Integer(integer) => Some(integer as f64),
            Value::Float(float) => Some(float),
            _ => None,
        }
    }

    pub(crate) fn as_boolean(&self) -> Option<bool> {
        match self.value {
            Value::Boolean(boolean) => Some(boolean),
            _ => None,
        }
    }

    /// The value at a key, where this is a table that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        Some(&self.as_table()?.get(key)?.node)
    }

    /// The place of a key, where this is a table that has it.
    pub(crate) fn key_span(&self, key: &str) -> Option<&Span> {
        Some(&self.as_table()?.get(key)?.key)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_text()
    }

    /// The elements at a key: of an array, or one value that stands alone.
    pub(crate) fn items(&self, key: &str) -> &[Node] {
        match self.get(key) {
            Some(Node { value: Value::Array(items), .. }) => items,
            Some(node) => std::slice::from_ref(node),
            None => &[],
        }
    }

    /// The path that this text names: relative to the folder of the file that says it, or to the working folder where
    /// the command line says it.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        Some(path_in(&self.span.file, self.as_text()?))
    }
}

fn path_in(file: &Path, text: &str) -> PathBuf {
    match file.parent() {
        Some(folder) if file != Path::new(SET) => folder.join(text),
        _ => PathBuf::from(text),
    }
}

/// How many levels dotted keys may open.
pub(crate) const MOST_LEVELS: usize = 100;

/// Where dotted keys nest too deep, if they do. The parser limits brackets, not dots, and neither dropping its tree nor
/// walking it would survive a key of 100,000 parts.
fn too_deep(text: &str) -> Option<Range<usize>> {
    // The dots around the bracket that is open, for each open bracket.
    let mut around: Vec<usize> = Vec::new();
    let mut dots = 0;
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => dots += 1,
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => around.push(dots),
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => dots = around.pop().unwrap_or(0),
            TokenKind::Comma | TokenKind::Newline => dots = around.last().copied().unwrap_or(0),
            _ => {}
        }
        if dots > MOST_LEVELS {
            return Some(token.span().start()..token.span().end());
        }
    }
    None
}

/// What reading a text gave.
pub(crate) struct Parsed {
    /// The document, as far as it could be recovered.
    pub(crate) root: Node,
    /// What is wrong with the text as TOML.
    pub(crate) errors: Vec<Diagnostic>,
    /// The parts of the text in which nothing else should be reported, because they were recovered by guessing.
    pub(crate) muted: Vec<Range<usize>>,
    /// Whether anything but a double definition is wrong: then keys may be lost, and none should be called missing.
    pub(crate) broken: bool,
}

/// Reads a TOML document.
pub(crate) fn parse(file: &Path, text: &str) -> Parsed {
    if let Some(at) = too_deep(text) {
        let error = Diagnostic::error("syntax", format!("keys nest deeper than {MOST_LEVELS} levels"));
        let errors = vec![error.at(Span::new(file, at), "one level too many")];
        return Parsed { root: Node::table_at(Span::new(file, 0..0)), errors, muted: Vec::new(), broken: true };
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut parsed =
        Parsed { root: Node::table_at(Span::new(file, 0..0)), errors: Vec::new(), muted: Vec::new(), broken: false };
    let mut entries = Table::new();
    fill(file, table.get_ref(), &mut entries, &mut parsed.errors);
    parsed.root.value = Value::Table(entries);
    for error in &errors {
        let range = clamp(text, error.span().unwrap_or(0..0));
        if parsed.muted.iter().any(|muted| muted.contains(&range.start)) {
            continue;
        }
        if error.message() == "duplicate key" {
            let (diagnostic, muted) = duplicate(file, text, &parsed.root, range);
            parsed.errors.push(diagnostic);
            parsed.muted.extend(muted);
        } else {
            parsed.broken = true;
            parsed.muted.push(line(text, range.start));
            let span = Span::new(file, range);
            parsed.errors.push(Diagnostic::error("syntax", "the file is not valid TOML").at(span, error.message()));
        }
    }
    parsed
}

/// Reads one value of the command line; `None` if it isn't TOML.
pub(crate) fn parse_value(file: &Path, text: &str, offset: usize) -> Option<Node> {
    if too_deep(text).is_some() {
        return None;
    }
    let value = DeValue::parse(text).ok()?;
    let mut errors = Vec::new();
    let mut node = node(file, value.get_ref(), value.span(), &mut errors);
    shift(&mut node, offset);
    errors.is_empty().then_some(node)
}

fn shift(node: &mut Node, offset: usize) {
    let moved = |span: &mut Span| {
        span.start += offset;
        span.end += offset;
    };
    moved(&mut node.span);
    match &mut node.value {
        Value::Array(items) => items.iter_mut().for_each(|item| shift(item, offset)),
        Value::Table(entries) => entries.values_mut().for_each(|entry| {
            moved(&mut entry.key);
            shift(&mut entry.node, offset);
        }),
        _ => {}
    }
}

fn fill(file: &Path, table: &DeTable<'_>, entries: &mut Table, errors: &mut Vec<Diagnostic>) {
    for (key, value) in table {
        let node = node(file, value.get_ref(), value.span(), errors);
        entries.insert(key.get_ref().to_string(), Entry { key: Span::new(file, key.span()), node });
    }
}

fn node(file: &Path, value: &DeValue<'_>, range: Range<usize>, errors: &mut Vec<Diagnostic>) -> Node {
    let span = Span::new(file, range);
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => {
                let error = Diagnostic::error("out-of-range", format!("`{integer}` is no 64-bit integer"));
                errors.push(error.at(span.clone(), "does not fit into 64 bits").help(format!("at most {}", i64::MAX)));
                Value::Integer(1)
            }
        },
        DeValue::Float(float) => match float.as_str().parse() {
            Ok(float) => Value::Float(float),
            Err(_) => Value::Text(float.as_str().to_owned()),
        },
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| node(file, item.get_ref(), item.span(), errors)).collect())
        }
        DeValue::Table(table) => {
            let mut entries = Table::new();
            fill(file, table, &mut entries, errors);
            Value::Table(entries)
        }
    };
    Node { value, span }
}

/// A range that lies in the text, on boundaries of characters.
fn clamp(text: &str, range: Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(range.start);
    start..text.ceil_char_boundary(range.end).max(start)
}

/// The line that a byte lies in, with its end.
fn line(text: &str, at: usize) -> Range<usize> {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    start..text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

/// What to say about a key that is defined twice, and what it spoils: the body of a table that was recovered as a
/// mixture of both definitions.
fn duplicate(file: &Path, text: &str, root: &Node, range: Range<usize>) -> (Diagnostic, Option<Range<usize>>) {
    let span = Span::new(file, range.clone());
    let on = line(text, range.start);
    let header = header_path(&text[on.clone()]);
    let Some(path) = header else {
        let name = text[range.clone()].trim_matches(['"', '\'']).to_owned();
        let error = Diagnostic::error("duplicate-key", format!("the key `{name}` is given twice"));
        let error = error.at(span, "given again");
        let first = first_key(root, &name, range.start);
        return (first.into_iter().fold(error, |error, first| error.label(first, "first given here")), None);
    };
    let (code, what) = match path.split_first() {
        Some((first, [name])) if first == "stages" => {
            ("duplicate-stage", format!("the stage `{name}` is defined twice"))
        }
        Some((first, [name])) if first == "models" => {
            ("duplicate-model", format!("the model `{name}` is defined twice"))
        }
        Some((first, [name])) if first == "plugins" => {
            ("duplicate-plugin", format!("the plugin `{name}` is defined twice"))
        }
        Some((first, [name])) if first == "evaluations" => {
            ("duplicate-evaluation", format!("the evaluation `{name}` is defined twice"))
        }
        _ => ("duplicate-key", format!("the table `{}` is defined twice", path.join("."))),
    };
    let mut error = Diagnostic::error(code, what).at(span, "defined again").help("rename one of them, or remove it");
    let mut start = 0;
    for earlier in text[..on.start].split_inclusive('\n') {
        if header_path(earlier).as_ref() == Some(&path) {
            let trimmed = earlier.trim_end();
            error = error.label(Span::new(file, start..start + trimmed.len()), "first defined here");
            break;
        }
        start += earlier.len();
    }
    let body = text[on.end.min(text.len())..].split_inclusive('\n');
    let length: usize = body.take_while(|line| !line.trim_start().starts_with('[')).map(str::len).sum();
    (error, Some(on.start..on.end + length))
}

/// The path of a `[table]` or `[[table]]` header, if the line is one.
fn header_path(line: &str) -> Option<Vec<String>> {
    let line = line.trim();
    let inner = line.strip_prefix('[')?;
    let inner = inner.strip_prefix('[').unwrap_or(inner);
    let inner = &inner[..inner.find(']')?];
    let plain = |letter: char| letter.is_alphanumeric() || "_-.\"' ".contains(letter);
    if !inner.chars().all(plain) {
        return None;
    }
    Some(inner.split('.').map(|part| part.trim().trim_matches(['"', '\'']).to_owned()).collect())
}

/// The last place before `end` at which a key of this name was given.
fn first_key(node: &Node, name: &str, end: usize) -> Option<Span> {
    let below: Vec<Span> = match &node.value {
        Value::Array(items) => items.iter().filter_map(|item| first_key(item, name, end)).collect(),
        Value::Table(entries) => {
            let here = entries.get(name).map(|entry| entry.key.clone()).filter(|key| key.start < end);
            entries.values().filter_map(|entry| first_key(&entry.node, name, end)).chain(here).collect()
        }
        _ => Vec::new(),
    };
    below.into_iter().max_by_key(|span| span.start)
}
