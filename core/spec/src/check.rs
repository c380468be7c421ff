//! Structure: each key is known, present where it must be, of its type and in its range.

use base::{Diagnostic, Span};

use crate::fields::{Bounds, Choice, Field, Fields, Kind, NATURAL, Need, Rule, STAGES, stage_type};
use crate::suggest::{list, nearest, one_of, suggestion};
use crate::tree::{Entry, Node, Table, Value};

/// Checks a document against its field table.
pub(crate) struct Check<'a> {
    /// Whether keys may have been lost with text that isn't TOML: then none is called missing.
    pub(crate) broken: bool,
    /// Where findings go.
    pub(crate) findings: &'a mut Vec<Diagnostic>,
}

impl Check<'_> {
    /// Checks a table; `path` is its dotted path, empty for the whole document.
    pub(crate) fn table(&mut self, node: &Node, fields: &'static Fields, path: &str) {
        let Some(table) = self.expect_table(node, path) else { return };
        for (key, entry) in table {
            match fields.field(key) {
                Some(field) => self.value(&entry.node, &field.kind, &join(path, key)),
                None => self.unknown_key(key, entry, fields, path),
            }
        }
        if self.broken {
            return;
        }
        let unknown: Vec<&str> = table.keys().map(String::as_str).filter(|key| fields.field(key).is_none()).collect();
        let names = || fields.fields.iter().map(|field| field.name);
        for field in fields.fields.iter().filter(|field| field.need == Need::Required) {
            // A misspelt key is not missing, too.
            let misspelt = unknown.iter().any(|key| nearest(key, names()) == Some(field.name));
            if !table.contains_key(field.name) && !misspelt {
                let error = Diagnostic::error("missing-key", format!("{} has no `{}`", the(path), field.name));
                let error = error.at(node.span.clone(), format!("`{}` is missing", field.name));
                self.findings.push(error.help(format!("`{}`: {}", field.name, sentence(field))));
            }
        }
        for rule in fields.rules {
            self.rule(rule, node, table, path);
        }
    }

    pub(crate) fn expect_table<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n Table> {
        if node.as_table().is_none() {
            self.wrong_type(node, path, "a table");
        }
        node.as_table()
    }

    fn unknown_key(&mut self, key: &str, entry: &Entry, fields: &Fields, path: &str) {
        let names: Vec<&str> = fields.fields.iter().map(|field| field.name).collect();
        let error = Diagnostic::error("unknown-key", format!("{} takes no key `{key}`", the(path)));
        let error = error.at(entry.key.clone(), "no such key");
        let elsewhere = STAGES.iter().filter(|stage| stage.fields.field(key).is_some()).map(|stage| stage.name);
        let elsewhere: Vec<&str> = elsewhere.collect();
        let is_stage = STAGES.iter().any(|stage| std::ptr::eq(stage.fields, fields));
        let help = match nearest(key, names.iter().copied()) {
            None if is_stage && !elsewhere.is_empty() => {
                Some(format!("`{key}` is a key of {} stages; expected {}", list(&elsewhere), one_of(&names)))
            }
            None if fields.name == "recipe-run" => {
                Some(format!("a phase's own is said in its `set`, or by `--set phases.NAME.run.{key}=...`"))
            }
            _ => suggestion(key, &names),
        };
        self.findings.push(Diagnostic { help, ..error });
    }

    fn rule(&mut self, rule: &Rule, node: &Node, table: &Table, path: &str) {
        match *rule {
            Rule::ExactlyOne(keys) => {
                let given: Vec<&str> = keys.iter().copied().filter(|key| table.contains_key(*key)).collect();
                match given.as_slice() {
                    [_] => {}
                    [] => self.neither(node, keys, "exactly one of", path),
                    [first, others @ ..] => {
                        let message = format!("{} takes only one of {}", the(path), list(keys));
                        let mut error = Diagnostic::error("conflicting-keys", message).help("keep one of them");
                        for other in others {
                            if let Some(entry) = table.get(*other) {
                                error = match error.place {
                                    None => error.at(entry.key.clone(), "given too"),
                                    Some(_) => error.label(entry.key.clone(), "given too"),
                                };
                            }
                        }
                        let first = table.get(*first).map(|entry| entry.key.clone());
                        self.findings
                            .push(first.into_iter().fold(error, |error, span| error.label(span, "given here")));
                    }
                }
            }
            Rule::AtLeastOne(keys) => {
                if !keys.iter().any(|key| table.contains_key(*key)) {
                    self.neither(node, keys, "at least one of", path);
                }
            }
            Rule::Needs(key, other) => {
                if let Some(entry) = table.get(key)
                    && !table.contains_key(other)
                {
                    let error = Diagnostic::error("missing-key", format!("`{key}` of {} needs `{other}`", the(path)));
                    self.findings.push(error.at(entry.key.clone(), format!("stands without `{other}`")));
                }
            }
        }
    }

    fn neither(&mut self, node: &Node, keys: &[&str], how_many: &str, path: &str) {
        let error = Diagnostic::error("missing-key", format!("{} needs {how_many} {}", the(path), list(keys)));
        self.findings.push(error.at(node.span.clone(), "none is given"));
    }

    fn value(&mut self, node: &Node, kind: &'static Kind, path: &str) {
        match kind {
            Kind::Version => self.version(node, path),
            Kind::Boolean => {
                if node.as_boolean().is_none() {
                    self.wrong_type(node, path, "true or false");
                }
            }
            Kind::Text | Kind::Reference(_) => {
                self.text(node, path);
            }
            Kind::Name(what) => {
                if let Some(name) = self.text(node, path) {
                    self.name(name, &node.span, what);
                }
            }
            Kind::Exact => self.exact(node, path, "a string"),
            Kind::Token => match node.as_integer() {
                Some(id) if id < 0 => self.range(node, path, "at least 0"),
                Some(id) if id > i64::from(u32::MAX) => self.range(node, path, &format!("at most {}", u32::MAX)),
                Some(_) => {}
                None => self.exact(node, path, "the text or the id of a token"),
            },
            Kind::Path(endings) => {
                if let Some(text) = self.text(node, path) {
                    self.ending(text, endings, &node.span);
                }
            }
            Kind::Output(endings) => {
                if let Some(text) = self.text(node, path) {
                    self.output(text, endings, &node.span);
                }
            }
            Kind::Origin => {
                if let Some(text) = self.text(node, path)
                    && let Some(phase) = text.strip_prefix("phase:")
                {
                    self.name(phase, &node.span, "a phase");
                }
            }
            Kind::Integer(least, most) => match node.as_integer() {
                Some(integer) if integer < *least => self.range(node, path, &format!("at least {least}")),
                Some(integer) if integer > *most => self.range(node, path, &format!("at most {most}")),
                Some(_) => {}
                None => self.wrong_type(node, path, "an integer"),
            },
            Kind::Number(bounds) => match node.as_number() {
                Some(number) => self.bounds(node, number, bounds, path),
                None => self.wrong_type(node, path, "a number"),
            },
            Kind::NumberOr(bounds, word) => match node.as_number() {
                Some(number) => self.bounds(node, number, bounds, path),
                None if node.as_text() == Some(word) => {}
                None => self.wrong_type(node, path, &format!("a number or \"{word}\"")),
            },
            Kind::Pair(bounds) => match node.as_array() {
                Some(items) if items.len() == 2 => {
                    for item in items {
                        match item.as_number() {
                            Some(number) => self.bounds(item, number, bounds, path),
                            None => self.wrong_type(item, path, "a number"),
                        }
                    }
                }
                _ => self.wrong_type(node, path, "a list of two numbers"),
            },
            Kind::Size(least, most) => self.size(node, *least, *most, path),
            Kind::Choice(choices) => self.choice(node, choices, path),
            Kind::Schedule(kind) => self.schedule(node, kind, path),
            Kind::List(kind, least) => match node.as_array() {
                Some(items) if items.len() < *least => {
                    let error = Diagnostic::error("empty-list", format!("{} is empty", the(path)));
                    self.findings.push(error.at(node.span.clone(), format!("needs at least {least} element")));
                }
                Some(items) => self.items(items, kind, path),
                None => self.wrong_type(node, path, "a list"),
            },
            Kind::OneOrMore(kind) => match node.as_array() {
                Some([]) => {
                    let error = Diagnostic::error("empty-list", format!("{} is empty", the(path)));
                    self.findings.push(error.at(node.span.clone(), "needs at least 1 element"));
                }
                Some(items) => self.items(items, kind, path),
                None => self.value(node, kind, path),
            },
            Kind::Table(fields) => self.table(node, fields, path),
            Kind::Map(what, kind) => {
                for (name, entry) in self.expect_table(node, path).into_iter().flatten() {
                    self.name(name, &entry.key, what);
                    self.value(&entry.node, kind, &join(path, name));
                }
            }
            Kind::RowOrigins => {
                for (name, entry) in self.expect_table(node, path).into_iter().flatten() {
                    match name.split_once('.') {
                        None => self.name(name, &entry.key, "a dataset stage"),
                        Some((stage, source)) => {
                            self.name(stage, &entry.key, "a dataset stage");
                            self.name(source, &entry.key, "a source");
                        }
                    }
                    self.value(&entry.node, &Kind::Origin, &join(path, name));
                }
            }
            Kind::Stage => self.stage(node, path),
            Kind::Config => {
                if self.expect_table(node, path).is_some() {
                    self.config(node, path);
                }
            }
            Kind::Overrides => {
                self.expect_table(node, path);
            }
            Kind::Any => {}
        }
    }

    /// Elements are of one type; strings among them stand once.
    fn items(&mut self, items: &[Node], kind: &'static Kind, path: &str) {
        for (index, item) in items.iter().enumerate() {
            let path = match item.text("name") {
                Some(name) => join(path, name),
                None if item.as_table().is_some() => join(path, &index.to_string()),
                None => path.to_owned(),
            };
            self.value(item, kind, &path);
            let name = |node: &Node| node.as_text().or(node.text("name")).map(str::to_owned);
            if let Some(text) = name(item)
                && let Some(first) = items[..index].iter().find(|other| name(other).as_ref() == Some(&text))
            {
                let error = Diagnostic::error("duplicate-name", format!("`{text}` stands twice in one list"));
                let place = |node: &Node| node.get("name").map_or(node.span.clone(), |name| name.span.clone());
                self.findings.push(error.at(place(item), "given again").label(place(first), "first given here"));
            }
        }
    }

    fn stage(&mut self, node: &Node, path: &str) {
        let Some(table) = self.expect_table(node, path) else { return };
        let names: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
        let Some(entry) = table.get("type") else {
            if !self.broken {
                let error = Diagnostic::error("missing-key", format!("{} has no `type`", the(path)));
                let error = error.at(node.span.clone(), "`type` is missing");
                self.findings.push(error.help(format!("what the stage does: {}", one_of(&names))));
            }
            return;
        };
        let Some(text) = self.text(&entry.node, &join(path, "type")) else { return };
        match stage_type(text) {
            Some(stage) => self.table(node, stage.fields, path),
            None => {
                let error = Diagnostic::error("unknown-type", format!("there is no stage type `{text}`"));
                let error = error.at(entry.node.span.clone(), "no such type");
                self.findings.push(Diagnostic { help: suggestion(text, &names), ..error });
            }
        }
    }

    fn version(&mut self, node: &Node, path: &str) {
        match node.as_integer() {
            Some(1) => {}
            Some(version) => {
                let message = format!("the file is written in version {version} of the language");
                let error = Diagnostic::error("schema-version", message).at(node.span.clone(), "unknown version");
                self.findings.push(error.help("this tool reads version 1"));
            }
            None => self.wrong_type(node, path, "an integer"),
        }
    }

    /// A string of at least one character, whatever it is.
    fn exact(&mut self, node: &Node, path: &str, expected: &str) {
        match node.as_text() {
            Some("") => {
                let error = Diagnostic::error("empty-text", format!("{} is empty", the(path)));
                self.findings.push(error.at(node.span.clone(), "says nothing"));
            }
            Some(_) => {}
            None => self.wrong_type(node, path, expected),
        }
    }

    fn text<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n str> {
        match node.as_text() {
            Some(text) if text.trim().is_empty() => {
                let error = Diagnostic::error("empty-text", format!("{} is empty", the(path)));
                self.findings.push(error.at(node.span.clone(), "says nothing"));
                None
            }
            Some(text) => Some(text),
            None => {
                self.wrong_type(node, path, "a string");
                None
            }
        }
    }

    fn name(&mut self, name: &str, span: &Span, what: &str) {
        if is_name(name) {
            return;
        }
        let error = Diagnostic::error("bad-name", format!("`{name}` can't be the name of {what}"));
        let rule = "a name has at most 64 lower-case letters, digits, `-` and `_`, and starts with a letter";
        let fixed: String = name.to_lowercase().replace([' ', '.', '/'], "-");
        let help = if is_name(&fixed) { format!("{rule}, such as `{fixed}`") } else { rule.to_owned() };
        self.findings.push(error.at(span.clone(), "not a name").help(help));
    }

    fn ending(&mut self, text: &str, endings: &[&str], span: &Span) {
        let ending = std::path::Path::new(text).extension().and_then(|ending| ending.to_str());
        if endings.is_empty() || ending.is_some_and(|ending| endings.contains(&ending)) {
            return;
        }
        let expected: Vec<String> = endings.iter().map(|ending| format!(".{ending}")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        let message = format!("`{text}` does not end in {}", one_of(&expected));
        self.findings.push(Diagnostic::error("unknown-format", message).at(span.clone(), "a file of another format"));
    }

    fn output(&mut self, text: &str, endings: &[&str], span: &Span) {
        let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
        if std::path::Path::new(text).components().all(plain) {
            return self.ending(text, endings, span);
        }
        let error = Diagnostic::error("bad-path", format!("`{text}` leaves the run's folder"));
        let error = error.at(span.clone(), "must be a plain relative path");
        self.findings.push(error.help("the file is made below `collected/` in the run's folder"));
    }

    fn size(&mut self, node: &Node, least: i64, most: i64, path: &str) {
        let bytes = match &node.value {
            Value::Integer(bytes) => Some(*bytes),
            Value::Text(text) => match bytes_from_text(text) {
                Some(bytes) => Some(bytes),
                None => {
                    let error = Diagnostic::error("bad-size", format!("`{text}` is no size"));
                    let error = error.at(node.span.clone(), "not a number of bytes");
                    self.findings
                        .push(error.help("write an integer and a unit: B, KiB, MiB or GiB, such as \"64 MiB\""));
                    return;
                }
            },
            _ => None,
        };
        match bytes {
            Some(bytes) if bytes < least => self.range(node, path, &format!("at least {least} bytes")),
            Some(bytes) if bytes > most => self.range(node, path, &format!("at most {most} bytes")),
            Some(_) => {}
            None => self.wrong_type(node, path, "a size such as \"64 MiB\""),
        }
    }

    fn choice(&mut self, node: &Node, choices: &[Choice], path: &str) {
        let words: Vec<&str> = choices.iter().map(|choice| choice.word).collect();
        match node.as_text() {
            Some(text) if words.contains(&text) => {}
            Some(text) => {
                let error = Diagnostic::error("unknown-value", format!("{} can't be `{text}`", the(path)));
                let error = error.at(node.span.clone(), "no such choice");
                self.findings.push(Diagnostic { help: suggestion(text, &words), ..error });
            }
            None => self.wrong_type(node, path, &one_of(&words)),
        }
    }

    fn schedule(&mut self, node: &Node, kind: &'static Kind, path: &str) {
        let Some(points) = node.as_array() else { return self.value(node, kind, path) };
        let mut last = None;
        for point in points {
            let Some(table) = self.expect_table(point, path) else { continue };
            for (key, entry) in table {
                match key.as_str() {
                    "from" => self.value(&entry.node, &NATURAL, &join(path, "from")),
                    "value" => self.value(&entry.node, kind, &join(path, "value")),
                    _ => {
                        let error = Diagnostic::error("unknown-key", format!("{} takes no key `{key}`", the(path)));
                        let error = error.at(entry.key.clone(), "no such key");
                        self.findings.push(error.help("a point of a schedule is `{ from = STEP, value = NUMBER }`"));
                    }
                }
            }
            for key in ["from", "value"].into_iter().filter(|key| !table.contains_key(*key)) {
                let error = Diagnostic::error("missing-key", format!("a point of {} has no `{key}`", the(path)));
                self.findings.push(error.at(point.span.clone(), format!("`{key}` is missing")));
            }
            let Some((at, from)) = point.get("from").and_then(|node| Some((node, node.as_integer()?))) else {
                continue;
            };
            let problem = match last {
                None if from != 0 => "the first point is from step 0",
                Some(last) if from <= last => "points ascend",
                _ => "",
            };
            if !problem.is_empty() {
                let error = Diagnostic::error("bad-schedule", format!("the schedule of {} is out of order", the(path)));
                self.findings.push(error.at(at.span.clone(), problem));
            }
            last = Some(from);
        }
        if points.is_empty() {
            let error = Diagnostic::error("bad-schedule", format!("the schedule of {} is empty", the(path)));
            self.findings.push(error.at(node.span.clone(), "needs a point from step 0"));
        }
    }

    /// A plugin gets its configuration as JSON, which has no infinities.
    pub(crate) fn config(&mut self, node: &Node, path: &str) {
        match &node.value {
            Value::Float(number) if !number.is_finite() => self.range(node, path, "finite"),
            Value::Array(items) => items.iter().for_each(|item| self.config(item, path)),
            Value::Table(table) => {
                table.iter().for_each(|(key, entry)| self.config(&entry.node, &join(path, key)));
            }
            _ => {}
        }
    }

    pub(crate) fn wrong_type(&mut self, node: &Node, path: &str, expected: &str) {
        let error = Diagnostic::error("wrong-type", format!("{} must be {expected}", the(path)));
        self.findings.push(error.at(node.span.clone(), format!("is {}", node.kind())));
    }

    fn bounds(&mut self, node: &Node, number: f64, bounds: &Bounds, path: &str) {
        if !number.is_finite() {
            self.range(node, path, "finite");
        } else if !bounds.contain(number) {
            self.range(node, path, &bounds.words());
        }
    }

    pub(crate) fn range(&mut self, node: &Node, path: &str, expected: &str) {
        let error = Diagnostic::error("out-of-range", format!("{} must be {expected}", the(path)));
        self.findings.push(error.at(node.span.clone(), "out of range"));
    }
}

/// Bytes from "64 MiB"; the space may be left out, the number may have underscores.
pub fn bytes_from_text(text: &str) -> Option<i64> {
    let split = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let number: i64 = number.trim_end().replace('_', "").parse().ok()?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_')
}

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// How messages name the thing at a path.
pub(crate) fn the(path: &str) -> String {
    if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") }
}

/// A field's description, to stand after a colon.
fn sentence(field: &Field) -> String {
    let mut letters = field.doc.trim_end_matches('.').chars();
    letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect()
}
