//! Whether a completion holds JSON that is valid under a schema, is the reference, or makes the reference's function calls.

mod calls;
mod schema;

use calls::{Call, Syntax};
use common::places::{Place, Without, after, read};
use pipeline_plugin::{Completion, Config, ConfigError, Context, Finding, Group, Verdict, Verifier};
use serde_json::Value;

/// What is right, beyond that the JSON is valid.
#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Want {
    #[default]
    Valid,
    Reference,
    Calls,
}

/// The plugin, as its config says it.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Json {
    after_mark: Option<String>,
    without_mark: Without,
    read: Vec<Place>,
    schema: Option<Value>,
    schema_field: Option<String>,
    want: Want,
    syntax: Syntax,
    partial: bool,
}

impl Default for Json {
    fn default() -> Self {
        Self {
            after_mark: None,
            without_mark: Without::default(),
            read: vec![
                Place::Tag("tool_call".into()),
                Place::Fence("json".into()),
                Place::Fence(String::new()),
                Place::Whole,
            ],
            schema: None,
            schema_field: None,
            want: Want::Valid,
            syntax: Syntax::Json,
            partial: false,
        }
    }
}

impl Config for Json {
    const SCHEMA: &str = concat!(
        r#"{ "type": "object", "additionalProperties": false, "properties": {
            "schema": {
                "type": ["object", "boolean"],
                "description": "The JSON Schema that the value must fit. Default: any JSON fits."
            },
            "schema_field": {
                "type": "string",
                "minLength": 1,
                "description": "Instead of `schema`: the column that holds the schema of the row."
            },
            "want": {
                "enum": ["valid", "reference", "calls"],
                "description": "valid: the value fits the schema. reference: and is the row's reference. calls: the function calls are those of the reference. Default: valid."
            },
            "syntax": {
                "enum": ["json", "xml"],
                "description": "How a call is written: {\"name\": .., \"arguments\": ..}, or <name>argument</name>. Default: json."
            },
            "partial": {
                "type": "boolean",
                "description": "Whether some right calls are worth their share. Default: false, all must be right."
            },"#,
        common::mark_schema!(),
        ",",
        common::read_schema!(),
        "} }"
    );

    fn check(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut error = |path: &str, message: String| errors.push(ConfigError { path: path.into(), message });
        if self.schema.is_some() && self.schema_field.is_some() {
            error("/schema_field", "give `schema` or `schema_field`, not both".into());
        }
        if let Some(Err((path, message))) = self.schema.as_ref().map(schema::check) {
            error(&format!("/schema{path}"), message);
        }
        if self.want != Want::Calls && (self.partial || self.syntax != Syntax::Json) {
            let key = if self.partial { "/partial" } else { "/syntax" };
            error(key, "is for calls: set `want = \"calls\"` too".into());
        }
        errors
    }
}

/// A verdict's parts: the score, the canonical value that was found, and what is to be said.
struct Found {
    score: f64,
    answer: Option<String>,
    note: Option<String>,
}

impl Found {
    fn wrong(answer: Option<String>, note: impl Into<String>) -> Self {
        Self { score: 0.0, answer, note: Some(note.into()) }
    }
}

impl Json {
    /// The schema of the row, checked.
    fn schema(&self, group: &Group) -> Result<Option<Value>, String> {
        let Some(name) = &self.schema_field else { return Ok(self.schema.clone()) };
        let column = group.fields.iter().find(|field| field.0 == *name);
        let text = &column.ok_or_else(|| format!("the row has no field `{name}`"))?.1;
        let schema = serde_json::from_str(text).map_err(|error| format!("the field `{name}` is no JSON: {error}"))?;
        match schema::check(&schema) {
            Ok(()) => Ok(Some(schema)),
            Err((path, message)) => Err(format!("the field `{name}` is no schema: at {path}: {message}")),
        }
    }

    fn reference(group: &Group) -> Result<Value, String> {
        let text = group.reference.as_deref().ok_or("the row has no reference")?;
        serde_json::from_str(text).map_err(|error| format!("the reference is no JSON: {error}"))
    }

    fn judge(&self, group: &Group, text: &str) -> Result<Found, String> {
        let schema = self.schema(group)?;
        let wanted = if self.want == Want::Valid { None } else { Some(Self::reference(group)?) };
        let Some(text) = after(text, self.after_mark.as_deref(), self.without_mark) else {
            return Ok(Found::wrong(None, "no JSON found: the mark is missing"));
        };
        if self.want == Want::Calls {
            return self.judge_calls(schema.as_ref(), &wanted.unwrap_or_default(), text);
        }
        let Some(text) = read(&self.read, text) else { return Ok(Found::wrong(None, "no JSON found")) };
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(error) => return Ok(Found::wrong(None, format!("not JSON: {error}"))),
        };
        let answer = Some(value.to_string());
        if let Some(objection) = schema.as_ref().map(|schema| schema::validate(schema, &value)).transpose()?.flatten() {
            return Ok(Found::wrong(answer, objection));
        }
        match wanted {
            Some(wanted) if !schema::is_same(&wanted, &value) => Ok(Found::wrong(answer, format!("expected {wanted}"))),
            _ => Ok(Found { score: 1.0, answer, note: None }),
        }
    }

    fn judge_calls(&self, schema: Option<&Value>, wanted: &Value, text: &str) -> Result<Found, String> {
        let wanted = calls::of_value(wanted).ok_or("the reference is no function call and no list of them")?;
        let calls = match calls::of_text(text, &self.read, self.syntax) {
            Ok(calls) => calls,
            Err(objection) => return Ok(Found::wrong(None, objection)),
        };
        let answer = Some(calls::canonical(&calls));
        for call in &calls {
            if let Some(objection) = schema.map(|schema| schema::validate(schema, &call.value())).transpose()?.flatten()
            {
                return Ok(Found::wrong(answer, format!("the call of {}: {objection}", call.name)));
            }
        }
        let right = calls::in_common(&wanted, &calls, Call::is_same);
        let named = calls::in_common(&wanted, &calls, |a, b| a.name == b.name);
        let most = wanted.len().max(calls.len());
        let score = match (most, self.partial) {
            (0, _) => 1.0,
            (_, true) => right as f64 / most as f64,
            (_, false) => f64::from(right == most),
        };
        let expected = || calls::canonical(&wanted);
        let note =
            (right < most).then(|| format!("{right} of {most} calls right, {named} in name; expected {}", expected()));
        Ok(Found { score, answer, note })
    }
}

impl Verifier for Json {
    fn verify(&self, _: &Context, group: &Group, completion: &Completion) -> Verdict {
        match self.judge(group, &completion.text) {
            Ok(Found { score, answer, note }) => Verdict::Decided(Finding { score, answer, metrics: Vec::new(), note }),
            Err(reason) => Verdict::Undecided(reason),
        }
    }
}

pipeline_plugin::verifier!(Json);
