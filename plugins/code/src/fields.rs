//! What the row says: tests, and what goes with them.

use serde_json::Value;

use crate::cases::Case;
use crate::config::Code;

/// The tests of a row.
#[derive(Debug, PartialEq)]
pub enum Tests {
    /// Programs with asserts.
    Asserts(Vec<String>),
    /// What to read, and what to print.
    Cases(Vec<Case>),
}

/// The row's fields that the config names.
#[derive(Debug, PartialEq)]
pub struct Fields {
    pub tests: Tests,
    pub entry_point: Option<String>,
    pub setup: Option<String>,
    pub prepend: Option<String>,
}

impl Fields {
    /// Reads the fields; otherwise why the row can't serve as a test.
    pub fn read(config: &Code, fields: &[(String, String)]) -> Result<Self, String> {
        // An absent value of a dataset is `null`, or empty.
        let find = |name: &str| {
            let (_, value) = fields.iter().find(|(field, _)| field == name)?;
            Some(value.as_str()).filter(|value| !value.is_empty() && *value != "null")
        };
        let (inputs, outputs) = (find(&config.inputs), find(&config.outputs));
        let tests = match (find(&config.tests), inputs, outputs) {
            (Some(tests), None, None) => Tests::Asserts(asserts(tests)),
            (None, Some(inputs), Some(outputs)) => {
                Tests::Cases(cases(&list(&config.inputs, inputs)?, &list(&config.outputs, outputs)?)?)
            }
            (Some(_), _, _) => {
                let Code { tests, inputs, outputs, .. } = config;
                return Err(format!(
                    "the row has `{tests}`, and `{inputs}` or `{outputs}` too: tests are one or the other"
                ));
            }
            (None, None, None) => {
                let Code { tests, inputs, outputs, .. } = config;
                return Err(format!("the row has no tests: neither `{tests}` nor `{inputs}` and `{outputs}`"));
            }
            (None, None, _) => return Err(format!("the row has no `{}`", config.inputs)),
            (None, _, None) => return Err(format!("the row has no `{}`", config.outputs)),
        };
        let prepend = match &config.prepend {
            Some(name) => Some(find(name).ok_or_else(|| format!("the row has no `{name}`"))?.to_owned()),
            None => None,
        };
        let owned = |name: &str| find(name).map(str::to_owned);
        Ok(Self { tests, entry_point: owned(&config.entry_point), setup: owned(&config.setup), prepend })
    }
}

/// A JSON list of programs, or one program.
fn asserts(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| vec![text.to_owned()])
}

fn list(name: &str, text: &str) -> Result<Vec<String>, String> {
    let items: Vec<Value> = serde_json::from_str(text).map_err(|error| format!("`{name}` is no JSON list: {error}"))?;
    let line = |item: &Value| match item {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // A list stands for lines.
    Ok(items
        .iter()
        .map(|item| match item {
            Value::Array(lines) => lines.iter().map(line).collect::<Vec<_>>().join("\n"),
            item => line(item),
        })
        .collect())
}

fn cases(inputs: &[String], outputs: &[String]) -> Result<Vec<Case>, String> {
    if inputs.len() != outputs.len() {
        return Err(format!("the row has {} inputs and {} outputs", inputs.len(), outputs.len()));
    }
    if inputs.is_empty() {
        return Err("the row has no case".into());
    }
    let case = |(input, output): (&String, &String)| Case { input: input.clone(), output: output.clone() };
    Ok(inputs.iter().zip(outputs).map(case).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<Fields, String> {
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Fields::read(&Code { prepend: Some("start".into()), ..Code::default() }, &fields)
    }

    #[test]
    fn tests_are_one_program_or_many_or_cases() {
        let tests = |fields: &[(&str, &str)]| read(&[fields, &[("start", "x")]].concat()).unwrap().tests;
        let asserts = |texts: &[&str]| Tests::Asserts(texts.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(tests(&[("tests", "assert f()")]), asserts(&["assert f()"]));
        assert_eq!(tests(&[("tests", r#"["assert f()", "assert g()"]"#)]), asserts(&["assert f()", "assert g()"]));
        let case = |input: &str, output: &str| Case { input: input.into(), output: output.into() };
        assert_eq!(
            tests(&[("tests", "null"), ("inputs", r#"["1\n", ["2", 3]]"#), ("outputs", r#"[1, "x"]"#)]),
            Tests::Cases(vec![case("1\n", "1"), case("2\n3", "x")])
        );
    }

    #[test]
    fn a_row_that_is_no_test_says_why() {
        for (fields, reason) in [
            (&[] as &[_], "the row has no tests: neither `tests` nor `inputs` and `outputs`"),
            (&[("inputs", "[]")], "the row has no `outputs`"),
            (&[("outputs", "[]")], "the row has no `inputs`"),
            (&[("inputs", "[]"), ("outputs", "[]")], "the row has no case"),
            (&[("inputs", "[1]"), ("outputs", "[]")], "the row has 1 inputs and 0 outputs"),
            (&[("inputs", "1"), ("outputs", "[]")], "`inputs` is no JSON list: "),
            (&[("tests", "x"), ("outputs", "[]")], "the row has `tests`, and `inputs` or `outputs` too"),
            (&[("tests", "x")], "the row has no `start`"),
        ] {
            let found = read(fields).unwrap_err();
            assert!(found.starts_with(reason), "{found}");
        }
    }
}
