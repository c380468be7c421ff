//! Chat templates: a conversation to the text that the model is given, in the Jinja environment of transformers.

use std::collections::BTreeSet;
use std::io;

use base::Message;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{Environment, ErrorKind, State, Value};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};
use serde_json::{Map, json};

use crate::error::{Error, Result};

/// What a template may spend: about a million steps, which a conversation of thousands of messages does not reach.
const FUEL: u64 = 1_000_000;

/// The prompt of DeepSeek-R1-Zero (arXiv 2501.12948, table 1), for models that never saw a chat.
const R1_ZERO: &str = r#"{{- "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>." -}}
{%- for message in messages -%}
  {%- if message.role == "user" -%}
    {{- " User: " + message.content -}}
  {%- elif message.role == "assistant" -%}
    {{- " Assistant: " + message.content + eos_token -}}
  {%- else -%}
    {{- " " + message.content -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- " Assistant:" -}}{%- endif -%}
"#;

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// When it does not parse, with the line.
    pub fn new(source: &str) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(template_error)?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", tojson);
        // `strftime_now` stays undefined on purpose: templates then take their fixed date, and a run repeats tomorrow.
        environment.set_formatter(|out, _: &mut State, value| {
            match value {
                _ if value.is_none() => out.write_str("None")?,
                _ if value.kind() == ValueKind::Bool => {
                    out.write_str(if value.is_true() { "True" } else { "False" })?;
                }
                _ => write!(out, "{value}")?,
            }
            Ok(())
        });
        environment.add_template_owned("chat", source.to_string()).map_err(template_error)?;
        Ok(Self { environment, source: source.to_string() })
    }

    /// The source of a template that comes with the tool: `r1-zero`.
    pub fn named(name: &str) -> Option<&'static str> {
        match name {
            "r1-zero" => Some(R1_ZERO),
            _ => None,
        }
    }

    /// The names of the templates that come with the tool.
    pub fn names() -> &'static [&'static str] {
        &["r1-zero"]
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The names that it takes from outside, in order.
    ///
    /// # Errors
    /// None that a template that compiled gives.
    pub fn variables(&self) -> Result<BTreeSet<String>> {
        let template = self.environment.get_template("chat").map_err(template_error)?;
        let globals = ["raise_exception", "strftime_now", "range", "dict", "namespace", "debug"];
        let names = template.undeclared_variables(false).into_iter();
        Ok(names.filter(|name| !globals.contains(&name.as_str())).collect())
    }

    /// The conversation as text. With `add_generation_prompt` it ends where the assistant's answer begins.
    ///
    /// # Errors
    /// When the template refuses the messages (`raise_exception`), fails, or runs out of fuel.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool, bos: &str, eos: &str) -> Result<String> {
        let context = json!({
            "messages": messages, "add_generation_prompt": add_generation_prompt, "bos_token": bos, "eos_token": eos,
        });
        self.render_context(&context)
    }

    /// Renders with all variables given, for templates that take more than text messages (`tools`, `enable_thinking`).
    pub fn render_with(&self, variables: &Map<String, serde_json::Value>) -> Result<String> {
        self.render_context(variables)
    }

    fn render_context(&self, context: &impl Serialize) -> Result<String> {
        let template = self.environment.get_template("chat").map_err(template_error)?;
        template.render(Value::from(Serde(context))).map_err(template_error)
    }
}

/// What went wrong, with the line: a refusal by the template in its own words.
fn template_error(error: minijinja::Error) -> Error {
    let message = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("more than {FUEL} steps: the template does not end"),
        (_, Some(detail)) => detail.to_string(),
        (kind, None) => kind.to_string(),
    };
    Error::Template(match error.line() {
        Some(line) => format!("line {line}: {message}"),
        None => message,
    })
}

/// Python's `json.dumps(value, ensure_ascii=False)`: spaces after separators, no HTML escapes, keys in their order.
fn tojson(value: Serde<serde_json::Value>, options: Kwargs) -> Result<Value, minijinja::Error> {
    let failed = |error: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string());
    let indent: Option<usize> = options.get("indent")?;
    options.get::<Option<bool>>("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let spaces = vec![b' '; width.min(16)];
            let formatter = PrettyFormatter::with_indent(&spaces);
            value.0.serialize(&mut Serializer::with_formatter(&mut out, formatter)).map_err(failed)?;
        }
        None => {
            let formatter = Spaced(CompactFormatter);
            value.0.serialize(&mut Serializer::with_formatter(&mut out, formatter)).map_err(failed)?;
        }
    }
    Ok(Value::from_safe_string(String::from_utf8_lossy(&out).into_owned()))
}

/// Compact JSON with a space after `,` and `:`.
struct Spaced(CompactFormatter);

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
