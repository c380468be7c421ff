//! The JSON Schema is the one in `sdk/schema`, and it agrees with the validator about structure.

use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `UPDATE=1 cargo test -p spec` writes it anew.
#[test]
fn the_schema_in_the_sdk_is_up_to_date() {
    let text = format!("{:#}\n", spec::schema());
    let path = root().join("sdk/schema/pipeline.json");
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "run `UPDATE=1 cargo test -p spec`");
}

fn json_of(path: &Path) -> Option<Value> {
    let table: toml::Table = toml::from_str(&fs::read_to_string(path).ok()?).ok()?;
    Some(json_of_value(&toml::Value::Table(table)))
}

fn json_of_value(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => json!(text),
        toml::Value::Integer(integer) => json!(integer),
        toml::Value::Float(float) => json!(float),
        toml::Value::Boolean(boolean) => json!(boolean),
        toml::Value::Datetime(datetime) => json!(datetime.to_string()),
        toml::Value::Array(items) => items.iter().map(json_of_value).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.iter().map(|(key, value)| (key.clone(), json_of_value(value))).collect())
        }
    }
}

#[test]
fn valid_files_fit_the_schema() {
    let validator = jsonschema::validator_for(&spec::schema()).unwrap();
    for file in ["full.toml", "judges.toml", "imitate.toml", "recipe.toml", "phases/sft.toml", "phases/collect.toml"] {
        let value = json_of(&root().join("core/spec/tests/valid").join(file)).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{file}: {errors:#?}");
    }
}

/// What the schema can express, it refuses as the validator does.
#[test]
fn structural_errors_do_not_fit_the_schema() {
    const STRUCTURE: [&str; 9] = [
        "unknown-key",
        "unknown-type",
        "unknown-value",
        "missing-key",
        "conflicting-keys",
        "wrong-type",
        "out-of-range",
        "schema-version",
        "bad-size",
    ];
    let validator = jsonschema::validator_for(&spec::schema()).unwrap();
    let mut compared = 0;
    for entry in fs::read_dir(root().join("tests/ui")).unwrap() {
        let path = entry.unwrap().path();
        let Some(value) = json_of(&path) else { continue };
        // What a phase's `set` says is said about another file.
        if value.get("phases").is_some() {
            continue;
        }
        let (_, findings) = spec::load(&path, &[], &mut spec::Files::default());
        let own = findings.iter().filter(|it| it.place.as_ref().is_some_and(|(span, _)| span.file == path));
        // Whether steps are needed depends on stages, whether rows can be shuffled on another key: no schema says so.
        let own = own.filter(|it| it.message != "`run` has no `steps`" && !it.message.contains("shuffles"));
        let structure = own.filter(|it| STRUCTURE.contains(&it.code)).count();
        if structure > 0 {
            assert!(!validator.is_valid(&value), "{} fits the schema", path.display());
            compared += 1;
        }
    }
    assert!(compared > 15, "{compared} files compared");
}
