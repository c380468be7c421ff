//! The language as a JSON Schema, for editors and for checks elsewhere.

use serde_json::{Map, Value, json};

use crate::fields::{Bounds, Choice, Fields, Kind, NATURAL, Need, PHASE, PIPELINE, RECIPE, Rule, STAGES};
use crate::lower;
use crate::tree::parse_value;

/// The JSON Schema (draft 2020-12) of pipeline files and recipes.
pub fn schema() -> Value {
    let mut definitions = Map::new();
    for fields in [&PIPELINE, &RECIPE, &PHASE].into_iter().chain(STAGES.iter().map(|stage| stage.fields)) {
        define(fields, &mut definitions);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pipeline file",
        "description": "A pipeline, or a recipe: a file with `[[phases]]`.",
        "type": "object",
        "if": { "required": ["phases"] },
        "then": { "$ref": "#/$defs/recipe" },
        "else": { "$ref": "#/$defs/pipeline" },
        "$defs": definitions,
    })
}

/// Adds the definition of a table and of those below it.
fn define(fields: &'static Fields, definitions: &mut Map<String, Value>) {
    if definitions.contains_key(fields.name) {
        return;
    }
    // Its place is kept first, so that definitions stand in the order in which a reader meets them.
    definitions.insert(fields.name.to_owned(), Value::Null);
    let mut properties = Map::new();
    for field in fields.fields {
        let mut value = of_kind(&field.kind, definitions);
        if let Value::Object(members) = &mut value {
            members.insert("description".to_owned(), field.doc.into());
            if let Need::Default(toml) = field.need
                && let Some(node) = parse_value("".as_ref(), toml, 0)
            {
                members.insert("default".to_owned(), lower::json(&node));
            }
        }
        properties.insert(field.name.to_owned(), value);
    }
    if let Some(stage) = STAGES.iter().find(|stage| std::ptr::eq(stage.fields, fields)) {
        properties.insert("type".to_owned(), json!({ "const": stage.name, "description": fields.doc }));
    }
    let required: Vec<&str> =
        fields.fields.iter().filter(|field| field.need == Need::Required).map(|field| field.name).collect();
    let mut definition = json!({
        "description": fields.doc,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if let Value::Object(members) = &mut definition {
        if !required.is_empty() {
            members.insert("required".to_owned(), json!(required));
        }
        rules(fields.rules, members);
    }
    definitions.insert(fields.name.to_owned(), definition);
}

fn rules(rules: &[Rule], members: &mut Map<String, Value>) {
    let mut dependent = Map::new();
    for rule in rules {
        match rule {
            Rule::ExactlyOne(keys) => {
                members.insert("oneOf".to_owned(), keys.iter().map(|key| json!({ "required": [key] })).collect());
            }
            Rule::AtLeastOne(keys) => {
                members.insert("anyOf".to_owned(), keys.iter().map(|key| json!({ "required": [key] })).collect());
            }
            Rule::Needs(key, other) => {
                let others = dependent.entry(*key).or_insert_with(|| json!([]));
                others.as_array_mut().into_iter().for_each(|others| others.push((*other).into()));
            }
        }
    }
    if !dependent.is_empty() {
        members.insert("dependentRequired".to_owned(), Value::Object(dependent));
    }
}

const NAME: &str = "^[a-z][a-z0-9_-]{0,63}$";

fn of_kind(kind: &'static Kind, definitions: &mut Map<String, Value>) -> Value {
    match kind {
        Kind::Version => json!({ "const": 1 }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Text | Kind::Exact | Kind::Reference(_) | Kind::Origin => json!({ "type": "string", "minLength": 1 }),
        Kind::Token => json!({
            "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "integer", "minimum": 0, "maximum": u32::MAX }],
        }),
        Kind::Name(_) => json!({ "type": "string", "pattern": NAME }),
        Kind::Path([]) => json!({ "type": "string", "minLength": 1 }),
        Kind::Path(endings) | Kind::Output(endings) => {
            json!({ "type": "string", "pattern": format!("\\.({})$", endings.join("|")) })
        }
        Kind::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Number(bounds) => number(*bounds),
        Kind::NumberOr(bounds, word) => json!({ "anyOf": [number(*bounds), { "const": word }] }),
        Kind::Pair(bounds) => json!({ "type": "array", "items": number(*bounds), "minItems": 2, "maxItems": 2 }),
        Kind::Size(least, most) => json!({
            "anyOf": [
                { "type": "integer", "minimum": least, "maximum": most },
                { "type": "string", "pattern": "^[0-9_]+ *(B|KiB|MiB|GiB)$" },
            ],
        }),
        Kind::Choice(choices) => choice(choices),
        Kind::Schedule(kind) => {
            let value = of_kind(kind, definitions);
            let from = of_kind(&NATURAL, definitions);
            json!({
                "anyOf": [
                    value,
                    {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "properties": { "from": from, "value": value },
                            "required": ["from", "value"],
                            "additionalProperties": false,
                        },
                    },
                ],
            })
        }
        Kind::List(kind, least) => json!({ "type": "array", "items": of_kind(kind, definitions), "minItems": least }),
        Kind::OneOrMore(kind) => {
            let one = of_kind(kind, definitions);
            json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
        }
        Kind::Table(fields) => {
            define(fields, definitions);
            json!({ "$ref": format!("#/$defs/{}", fields.name) })
        }
        Kind::RowOrigins => json!({ "type": "object", "additionalProperties": of_kind(&Kind::Origin, definitions) }),
        Kind::Map(_, kind) => json!({
            "type": "object",
            "propertyNames": { "pattern": NAME },
            "additionalProperties": of_kind(kind, definitions),
        }),
        Kind::Stage => {
            let stages = STAGES.iter().map(|stage| json!({ "$ref": format!("#/$defs/{}", stage.fields.name) }));
            json!({ "type": "object", "oneOf": stages.collect::<Value>() })
        }
        Kind::Config | Kind::Overrides => json!({ "type": "object" }),
        Kind::Any => json!({}),
    }
}

fn number(bounds: Bounds) -> Value {
    let mut members = Map::new();
    members.insert("type".to_owned(), "number".into());
    if let Some(least) = bounds.least {
        members.insert(if bounds.above { "exclusiveMinimum" } else { "minimum" }.to_owned(), least.into());
    }
    if let Some(most) = bounds.most {
        members.insert(if bounds.below { "exclusiveMaximum" } else { "maximum" }.to_owned(), most.into());
    }
    Value::Object(members)
}

fn choice(choices: &[Choice]) -> Value {
    let one = |choice: &Choice| json!({ "const": choice.word, "description": choice.doc });
    json!({ "oneOf": choices.iter().map(one).collect::<Value>() })
}
