//! Chat templates against transformers' own renderings.

use model::ChatTemplate;
use serde_json::{Map, Value};

const CASES: &str = include_str!("../../../tests/parity/chat_templates.json");

#[test]
fn every_case_renders_as_transformers_does() {
    let file: Value = serde_json::from_str(CASES).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 21);
    for case in cases {
        let style = &file["templates"][case["template"].as_str().unwrap()];
        let template = ChatTemplate::new(style["chat_template"].as_str().unwrap()).unwrap();
        let mut variables: Map<String, Value> = case["kwargs"].as_object().unwrap().clone();
        for name in ["messages", "add_generation_prompt"] {
            variables.insert(name.into(), case[name].clone());
        }
        for name in ["bos_token", "eos_token"] {
            variables.insert(name.into(), style[name].clone());
        }
        match (template.render_with(&variables), case["rendered"].as_str()) {
            (Ok(text), Some(expected)) => assert_eq!(text, expected, "{}", case["name"]),
            (Err(error), None) => {
                assert!(error.to_string().contains("roles must alternate user/assistant"), "{error}");
            }
            (got, expected) => panic!("{}: {got:?} instead of {expected:?}", case["name"]),
        }
    }
}

#[test]
fn a_template_that_does_not_parse_or_end_is_an_error_with_its_line() {
    let error = ChatTemplate::new("{{ bos_token }}\n{% for m in %}").err().unwrap().to_string();
    assert!(error.contains("line 2"), "{error}");
    let endless = ChatTemplate::new("{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}");
    let error = endless.unwrap().render(&[], true, "", "").unwrap_err().to_string();
    assert!(error.contains("does not end"), "{error}");
}

#[test]
fn json_and_python_values_are_written_as_python_writes_them() {
    let template =
        ChatTemplate::new("{{ x | tojson(indent=2) }} {{ none }} {{ true }} {{ strftime_now is defined }}").unwrap();
    let variables = serde_json::json!({ "x": { "b": 1, "a": ["<é>"] } });
    let text = template.render_with(variables.as_object().unwrap()).unwrap();
    assert_eq!(text, "{\n  \"b\": 1,\n  \"a\": [\n    \"<é>\"\n  ]\n} None True False");
}
