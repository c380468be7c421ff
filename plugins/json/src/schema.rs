//! JSON Schema (draft 2020-12), the part of it that describes structured outputs and the parameters of functions.
//!
//! Left out: references to other documents, `$dynamicRef`, `unevaluated*`, and `format`, which is an annotation there. A
//! schema that uses what is left out is refused, so that nothing is taken for valid unseen. The crate `jsonschema`, which the
//! host uses, knows all of it; see README.md for why it is not used here.

use regex_lite::RegexBuilder;
use serde_json::Value;

/// How deep schemas and values may nest, together: a schema may refer to itself.
const DEPTH: usize = 128;

/// Keywords whose value is a schema, a list of schemas, or a table of schemas.
const SCHEMA: [&str; 8] = ["additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"];
const SCHEMAS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const TABLES: [&str; 5] = ["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];

/// Keywords that hold values, and those that only describe.
const VALUES: [&str; 21] = [
    "$ref",
    "const",
    "dependentRequired",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "required",
    "type",
    "uniqueItems",
];
const NOTES: [&str; 14] = [
    "$anchor",
    "$comment",
    "$id",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "default",
    "deprecated",
    "description",
    "examples",
    "format",
    "readOnly",
    "title",
    "writeOnly",
];

/// Whether the schema can be used: its place that can't, and why.
pub fn check(schema: &Value) -> Result<(), (String, String)> {
    check_at(schema, schema, String::new(), DEPTH)
}

fn check_at(root: &Value, schema: &Value, path: String, depth: usize) -> Result<(), (String, String)> {
    let table = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(table) => table,
        _ => return Err((path, "a schema is a table or a boolean".into())),
    };
    if depth == 0 {
        return Err((path, "nests too deep".into()));
    }
    for (key, value) in table {
        let place = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
        let list = |what: &Value| what.as_array().cloned().unwrap_or_default();
        let key = key.as_str();
        if SCHEMA.contains(&key) {
            check_at(root, value, place, depth - 1)?;
        } else if SCHEMAS.contains(&key) {
            let Value::Array(schemas) = value else { return Err((place, "is a list of schemas".into())) };
            for (i, schema) in schemas.iter().enumerate() {
                check_at(root, schema, format!("{place}/{i}"), depth - 1)?;
            }
        } else if TABLES.contains(&key) {
            let Value::Object(schemas) = value else { return Err((place, "is a table of schemas".into())) };
            for (name, schema) in schemas {
                if key == "patternProperties" {
                    regex(name).map_err(|error| (place.clone(), error))?;
                }
                check_at(root, schema, format!("{place}/{}", name.replace('~', "~0").replace('/', "~1")), depth - 1)?;
            }
        } else if VALUES.contains(&key) {
            let is_right = match key {
                "$ref" => value.as_str().is_some_and(|target| resolve(root, target).is_some()),
                "pattern" => match value.as_str().map(regex) {
                    Some(Err(error)) => return Err((place, error)),
                    other => other.is_some(),
                },
                "enum" => value.is_array(),
                "const" => true,
                "dependentRequired" => value.as_object().is_some_and(|table| table.values().all(is_names)),
                "required" => is_names(value),
                "uniqueItems" => value.is_boolean(),
                "type" => {
                    value.as_str().is_some_and(is_type)
                        || (value.is_array() && list(value).iter().all(|name| name.as_str().is_some_and(is_type)))
                }
                "multipleOf" => value.as_f64().is_some_and(|number| number > 0.0),
                "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
                _ => size(value).is_some(),
            };
            if !is_right {
                return Err((place, format!("`{key}` can't be {value}")));
            }
        } else if !NOTES.contains(&key) {
            return Err((place, format!("the keyword `{key}` is not known here")));
        }
    }
    Ok(())
}

fn is_names(value: &Value) -> bool {
    value.as_array().is_some_and(|names| names.iter().all(Value::is_string))
}

fn is_type(name: &str) -> bool {
    matches!(name, "null" | "boolean" | "object" | "array" | "number" | "string" | "integer")
}

fn size(value: &Value) -> Option<usize> {
    let number = value.as_f64()?;
    (number >= 0.0 && number.fract() == 0.0 && number < 1e15).then_some(number as usize)
}

fn regex(pattern: &str) -> Result<regex_lite::Regex, String> {
    RegexBuilder::new(pattern).size_limit(64 << 10).build().map_err(|error| error.to_string())
}

/// The schema that a reference within the document names.
fn resolve<'s>(root: &'s Value, target: &str) -> Option<&'s Value> {
    root.pointer(target.strip_prefix('#')?).filter(|schema| schema.is_object() || schema.is_boolean())
}

/// What the schema objects to in the value, if it does.
///
/// # Errors
/// The two nest too deep to tell.
pub fn validate(schema: &Value, value: &Value) -> Result<Option<String>, String> {
    let mut validator = Validator { root: schema, path: Vec::new() };
    match validator.check(schema, value, DEPTH) {
        Ok(()) => Ok(None),
        Err(Stop::Invalid(message)) => {
            let path = validator.path.concat();
            Ok(Some(if path.is_empty() { message } else { format!("{path}: {message}") }))
        }
        Err(Stop::TooDeep) => Err("the schema and the JSON nest too deep".into()),
    }
}

enum Stop {
    Invalid(String),
    TooDeep,
}

struct Validator<'s> {
    root: &'s Value,
    /// The place in the value, as the parts of a JSON pointer; kept at an objection.
    path: Vec<String>,
}

impl Validator<'_> {
    /// The same for a part of the value.
    fn within(&mut self, part: String, schema: &Value, value: &Value, depth: usize) -> Result<(), Stop> {
        self.path.push(format!("/{part}"));
        self.check(schema, value, depth)?;
        self.path.pop();
        Ok(())
    }

    /// Whether the schema fits, for keywords that only ask.
    fn fits(&mut self, schema: &Value, value: &Value, depth: usize) -> Result<bool, Stop> {
        let length = self.path.len();
        match self.check(schema, value, depth) {
            Ok(()) => Ok(true),
            Err(Stop::Invalid(_)) => {
                self.path.truncate(length);
                Ok(false)
            }
            Err(Stop::TooDeep) => Err(Stop::TooDeep),
        }
    }

    fn check(&mut self, schema: &Value, value: &Value, depth: usize) -> Result<(), Stop> {
        let depth = depth.checked_sub(1).ok_or(Stop::TooDeep)?;
        let table = match schema {
            Value::Object(table) => table,
            Value::Bool(false) => return invalid("nothing is allowed here"),
            _ => return Ok(()),
        };
        if let Some(target) = table.get("$ref").and_then(Value::as_str)
            && let Some(target) = resolve(self.root, target)
        {
            self.check(target, value, depth)?;
        }
        if let Some(wanted) = table.get("type") {
            let is_of = |name: &Value| name.as_str().is_some_and(|name| has_type(value, name));
            if !(is_of(wanted) || wanted.as_array().is_some_and(|names| names.iter().any(is_of))) {
                return invalid(format!("is not of type {wanted}"));
            }
        }
        if let Some(Value::Array(values)) = table.get("enum")
            && !values.iter().any(|other| is_same(other, value))
        {
            return invalid("is none of the values of `enum`");
        }
        if let Some(wanted) = table.get("const")
            && !is_same(wanted, value)
        {
            return invalid(format!("is not {wanted}"));
        }
        self.combined(table, value, depth)?;
        match value {
            Value::Object(object) => self.object(table, object, depth),
            Value::Array(items) => self.array(table, items, depth),
            Value::String(text) => string(table, text),
            Value::Number(number) => number_fits(table, number.as_f64().unwrap_or(f64::NAN)),
            _ => Ok(()),
        }
    }

    fn combined(&mut self, table: &Table, value: &Value, depth: usize) -> Result<(), Stop> {
        for schema in list(table, "allOf") {
            self.check(schema, value, depth)?;
        }
        for (key, is_right) in [("anyOf", (|n| n > 0) as fn(usize) -> bool), ("oneOf", |n| n == 1)] {
            if table.contains_key(key) {
                let mut fitting = 0;
                for schema in list(table, key) {
                    fitting += usize::from(self.fits(schema, value, depth)?);
                }
                if !is_right(fitting) {
                    return invalid(format!("fits {fitting} of the schemas of `{key}`"));
                }
            }
        }
        if let Some(schema) = table.get("not")
            && self.fits(schema, value, depth)?
        {
            return invalid("fits the schema of `not`");
        }
        if let Some(schema) = table.get("if") {
            let branch = if self.fits(schema, value, depth)? { "then" } else { "else" };
            if let Some(schema) = table.get(branch) {
                self.check(schema, value, depth)?;
            }
        }
        Ok(())
    }

    fn object(&mut self, table: &Table, object: &Table, depth: usize) -> Result<(), Stop> {
        bounds(table, object.len(), ["minProperties", "maxProperties"], "properties")?;
        for name in list(table, "required").iter().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                return invalid(format!("`{name}` is missing"));
            }
        }
        if let Some(Value::Object(dependent)) = table.get("dependentRequired") {
            for (name, names) in dependent.iter().filter(|(name, _)| object.contains_key(*name)) {
                let missing = |other: &&Value| other.as_str().is_some_and(|other| !object.contains_key(other));
                if let Some(other) = names.as_array().and_then(|names| names.iter().find(missing)) {
                    return invalid(format!("{other} is missing beside `{name}`"));
                }
            }
        }
        if let Some(Value::Object(dependent)) = table.get("dependentSchemas") {
            for (_, schema) in dependent.iter().filter(|(name, _)| object.contains_key(*name)) {
                self.check(schema, &Value::Object(object.clone()), depth)?;
            }
        }
        let patterns = match table.get("patternProperties") {
            Some(Value::Object(patterns)) => {
                patterns.iter().filter_map(|(pattern, schema)| Some((regex(pattern).ok()?, schema))).collect()
            }
            _ => Vec::new(),
        };
        let properties = table.get("properties").and_then(Value::as_object);
        for (name, value) in object {
            if let Some(schema) = table.get("propertyNames")
                && !self.fits(schema, &Value::String(name.clone()), depth)?
            {
                return invalid(format!("`{name}` is no name of `propertyNames`"));
            }
            let mut is_known = false;
            let matching = patterns.iter().filter(|(regex, _)| regex.is_match(name)).map(|(_, schema)| *schema);
            for schema in properties.and_then(|properties| properties.get(name)).into_iter().chain(matching) {
                is_known = true;
                self.within(name.clone(), schema, value, depth)?;
            }
            match table.get("additionalProperties") {
                Some(Value::Bool(false)) if !is_known => return invalid(format!("`{name}` is not allowed")),
                Some(schema) if !is_known => self.within(name.clone(), schema, value, depth)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn array(&mut self, table: &Table, items: &[Value], depth: usize) -> Result<(), Stop> {
        bounds(table, items.len(), ["minItems", "maxItems"], "items")?;
        let first = list(table, "prefixItems");
        for (i, item) in items.iter().enumerate() {
            if let Some(schema) = first.get(i).or_else(|| table.get("items")) {
                self.within(i.to_string(), schema, item, depth)?;
            }
        }
        if let Some(schema) = table.get("contains") {
            let mut fitting = 0;
            for item in items {
                fitting += usize::from(self.fits(schema, item, depth)?);
            }
            let least = table.get("minContains").and_then(size).unwrap_or(1);
            let most = table.get("maxContains").and_then(size).unwrap_or(usize::MAX);
            if !(least..=most).contains(&fitting) {
                return invalid(format!("{fitting} items fit `contains`"));
            }
        }
        let is_twice = |(i, item)| items[..i].iter().any(|earlier| is_same(earlier, item));
        if table.get("uniqueItems") == Some(&Value::Bool(true)) && items.iter().enumerate().any(is_twice) {
            return invalid("an item is there twice");
        }
        Ok(())
    }
}

type Table = serde_json::Map<String, Value>;

fn invalid(message: impl Into<String>) -> Result<(), Stop> {
    Err(Stop::Invalid(message.into()))
}

fn list<'s>(table: &'s Table, key: &str) -> &'s [Value] {
    table.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn bounds(table: &Table, count: usize, keys: [&str; 2], what: &str) -> Result<(), Stop> {
    let [least, most] = keys.map(|key| table.get(key).and_then(size));
    if least.is_some_and(|least| count < least) || most.is_some_and(|most| count > most) {
        return invalid(format!("has {count} {what}"));
    }
    Ok(())
}

fn has_type(value: &Value, name: &str) -> bool {
    match (name, value) {
        ("null", Value::Null)
        | ("boolean", Value::Bool(_))
        | ("object", Value::Object(_))
        | ("array", Value::Array(_))
        | ("string", Value::String(_))
        | ("number", Value::Number(_)) => true,
        // 1.0 is an integer.
        ("integer", Value::Number(number)) => number.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => false,
    }
}

fn string(table: &Table, text: &str) -> Result<(), Stop> {
    if table.contains_key("minLength") || table.contains_key("maxLength") {
        bounds(table, text.chars().count(), ["minLength", "maxLength"], "characters")?;
    }
    match table.get("pattern").and_then(Value::as_str).map(|pattern| (pattern, regex(pattern))) {
        Some((pattern, Ok(regex))) if !regex.is_match(text) => invalid(format!("does not match {pattern}")),
        _ => Ok(()),
    }
}

fn number_fits(table: &Table, number: f64) -> Result<(), Stop> {
    let limit = |key: &str| table.get(key).and_then(Value::as_f64);
    let is_out = limit("minimum").is_some_and(|least| number < least)
        || limit("maximum").is_some_and(|most| number > most)
        || limit("exclusiveMinimum").is_some_and(|least| number <= least)
        || limit("exclusiveMaximum").is_some_and(|most| number >= most);
    if is_out {
        return invalid(format!("{number} is out of bounds"));
    }
    let is_multiple = |step: f64| {
        let quotient = number / step;
        // 0.3 is a multiple of 0.1, which it is not as a float.
        (quotient - quotient.round()).abs() <= 1e-9 * quotient.abs().max(1.0)
    };
    match limit("multipleOf") {
        Some(step) if !is_multiple(step) => invalid(format!("{number} is no multiple of {step}")),
        _ => Ok(()),
    }
}

/// Whether two values are the same: numbers by their value, objects whatever the order of their keys.
pub fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64() && !(x.is_u64() && y.is_u64()),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| is_same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| is_same(x, y)))
        }
        _ => a == b,
    }
}
