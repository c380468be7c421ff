//! Function calls, as models write them.

use common::places::{Place, blocks, fences};
use serde_json::Value;

use crate::schema::is_same;

/// How a call is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Syntax {
    /// `{"name": "f", "arguments": {}}`, or that under the key `function`; a list of such is several calls.
    Json,
    /// `<f>argument</f>`: the argument is a string.
    Xml,
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub name: String,
    pub arguments: Value,
}

impl Call {
    fn of_value(value: &Value) -> Option<Self> {
        let call = value.get("function").filter(|inner| inner.is_object()).unwrap_or(value);
        let name = call.get("name")?.as_str()?.to_owned();
        let arguments = call.get("arguments").or_else(|| call.get("parameters"));
        let arguments = match arguments {
            None | Some(Value::Null) => Value::Object(serde_json::Map::new()),
            // OpenAI's interface has the arguments as text.
            Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())),
            Some(value) => value.clone(),
        };
        Some(Self { name, arguments })
    }

    /// `{"arguments": .., "name": ..}`.
    pub fn value(&self) -> Value {
        let mut call = serde_json::Map::new();
        call.insert("name".into(), Value::String(self.name.clone()));
        call.insert("arguments".into(), self.arguments.clone());
        Value::Object(call)
    }

    /// Whether it calls the same function with the same arguments.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && is_same(&self.arguments, &other.arguments)
    }
}

/// The calls that a value is: one, or a list.
pub fn of_value(value: &Value) -> Option<Vec<Call>> {
    match value {
        Value::Array(values) => values.iter().map(Call::of_value).collect(),
        value => Some(vec![Call::of_value(value)?]),
    }
}

/// The calls of a text, in order: those of all tags or of all fences of the first place that is there.
///
/// # Errors
/// What is in a place is no call.
pub fn of_text(text: &str, places: &[Place], syntax: Syntax) -> Result<Vec<Call>, String> {
    let parts = places.iter().map(|place| all(place, text)).find(|parts| !parts.is_empty()).unwrap_or_default();
    let mut calls = Vec::new();
    for part in parts {
        let found = match syntax {
            Syntax::Xml => element(part).map(|call| vec![call]),
            Syntax::Json => {
                let value: Value =
                    serde_json::from_str(part).map_err(|error| format!("a call is not JSON: {error}"))?;
                of_value(&value)
            }
        };
        calls.extend(found.ok_or("what is there is no function call")?);
    }
    Ok(calls)
}

/// All that stands in places of this kind.
fn all<'t>(place: &Place, text: &'t str) -> Vec<&'t str> {
    match place {
        Place::Tag(name) => blocks(text, name).collect(),
        Place::Fence(language) => {
            fences(text).filter(|fence| language.is_empty() || fence.0 == language).map(|fence| fence.1).collect()
        }
        place => place.read(text).into_iter().collect(),
    }
}

/// The first `<name>argument</name>`.
fn element(text: &str) -> Option<Call> {
    let mut rest = text;
    loop {
        rest = &rest[rest.find('<')? + 1..];
        let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
        let name = &rest[..length];
        if name.is_empty() || !rest[length..].starts_with('>') {
            continue;
        }
        if let Some(end) = rest.find(&format!("</{name}>")) {
            let arguments = Value::String(rest[length + 1..end].trim().into());
            return Some(Call { name: name.into(), arguments });
        }
    }
}

/// The calls as one JSON text: the call itself if it is the only one.
pub fn canonical(calls: &[Call]) -> String {
    match calls {
        [call] => call.value().to_string(),
        calls => Value::Array(calls.iter().map(Call::value).collect()).to_string(),
    }
}

/// How many of the calls can be paired; the order does not matter, since calls side by side have none.
pub fn in_common(wanted: &[Call], found: &[Call], is_pair: impl Fn(&Call, &Call) -> bool) -> usize {
    let mut free: Vec<&Call> = found.iter().collect();
    let mut pairs = 0;
    for call in wanted {
        if let Some(at) = free.iter().position(|other| is_pair(call, other)) {
            free.swap_remove(at);
            pairs += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, place: Place, syntax: Syntax) -> Result<String, String> {
        of_text(text, &[place], syntax).map(|calls| canonical(&calls))
    }

    #[test]
    fn calls_are_read_in_all_their_forms() {
        let tag = || Place::Tag("tool_call".into());
        let same = r#"{"arguments":{"x":1},"name":"f"}"#;
        for text in [
            r#"<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>"#,
            r#"<tool_call>{"function": {"name": "f", "arguments": "{\"x\": 1}"}}</tool_call>"#,
            r#"so <tool_call>[{"name": "f", "parameters": {"x": 1}}]</tool_call>"#,
        ] {
            assert_eq!(read(text, tag(), Syntax::Json).as_deref(), Ok(same));
        }
        let two = r#"<tool_call>{"name": "f"}</tool_call> <tool_call>{"name": "g"}</tool_call>"#;
        let expected = r#"[{"arguments":{},"name":"f"},{"arguments":{},"name":"g"}]"#;
        assert_eq!(read(two, tag(), Syntax::Json).as_deref(), Ok(expected));
        assert_eq!(read("nothing", tag(), Syntax::Json).as_deref(), Ok("[]"));
        assert!(read("<tool_call>{</tool_call>", tag(), Syntax::Json).is_err());
        assert!(read("<tool_call>{}</tool_call>", tag(), Syntax::Json).is_err());
        let xml = |text| read(text, Place::Tag("tool".into()), Syntax::Xml);
        let search = r#"{"arguments":"a < b","name":"search"}"#;
        assert_eq!(xml("<tool><search> a < b </search></tool>").as_deref(), Ok(search));
        assert!(xml("<tool><search></tool>").is_err());
    }
}
