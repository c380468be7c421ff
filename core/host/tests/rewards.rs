//! The rewards and extractors of other trainers, by the first-party plugins: for each of theirs a plugin, a config and, where
//! correctness takes part, the judgements of an accuracy stage. Their public tests say what is right.
//!
//! `facts/` holds inputs and verdicts of those tests, each row with its source; the larger sets of `../shared` are taken too
//! where they are there.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests; a test that is skipped says so")]

mod common;

use std::path::Path;
use std::sync::Arc;

use base::{Completion, Finding, Grants, Group, Limits, Verdict};
use common::{Rig, ctx, group, wasm_limits};
use host::{Code, ConfigureError, Configured};
use serde_json::{Value, json};

/// What no plugin gives, and why.
const EXEMPT: [(&str, &str); 3] = [
    ("bbox_giou_reward", "boxes in pictures are judged there; no stage has pictures"),
    ("geo3k_reward", "questions about pictures are judged there; no stage has pictures"),
    ("code_stdin_stdout_reward", "runs programs: the tests of the plugin `code` have such rows"),
];

/// Extractors and normalisations of mathematics, which are conventions of the plugin `math`, and a text around their input.
const MATHEMATICS: [(&str, &str, &str); 4] = [
    ("strip_string_hendrycks", "hendrycks", "\\boxed{..}"),
    ("mathd_normalize_answer", "math_verify", "\\boxed{..}"),
    ("dapo_normalize_final_answer", "dapo", "Answer: .."),
    ("qwen25_extract_answer", "qwen25", ".."),
];

struct Bench {
    rig: Rig,
}

/// A value that is none: Python's `None`, an undecided verdict.
const NONE: Value = Value::Null;

impl Bench {
    fn plugin(&self, name: &str, config: &Value) -> Result<Configured, ConfigureError> {
        let limits = Limits { fuel: Some(100_000_000), memory: Some(64 << 20), ..wasm_limits() };
        self.rig.host.load(name, Code::Builtin(name), &limits, &Grants::default()).unwrap().configure(config)
    }

    /// The verdict on each text, by a plugin that need not know its group.
    fn verify(&self, name: &str, config: Value, reference: Option<&str>, texts: &[&str]) -> Vec<Verdict> {
        let plugin = self.plugin(name, &config).unwrap_or_else(|error| panic!("{name} {config}: {error}"));
        plugin.verify(&ctx(), &group(reference, texts)).unwrap()
    }

    fn finding(&self, name: &str, config: Value, reference: &str, text: &str) -> Finding {
        match self.verify(name, config, Some(reference), &[text]).remove(0) {
            Verdict::Decided(finding) => finding,
            other => panic!("{name} of {text}: {other:?}"),
        }
    }

    fn score(&self, name: &str, config: Value, reference: &str, text: &str) -> f64 {
        self.finding(name, config, reference, text).score
    }

    fn answer(&self, name: &str, config: Value, text: &str) -> Value {
        self.finding(name, config, "-", text).answer.map_or(NONE, Value::String)
    }

    /// The verdicts of an accuracy stage; each text has a reference of its own.
    fn accuracy(&self, texts: &[&str], references: &[&str], config: &Value) -> Vec<Verdict> {
        let judge =
            |(text, reference): (&&str, &&str)| self.verify("math", config.clone(), Some(reference), &[text]).remove(0);
        texts.iter().zip(references).map(judge).collect()
    }
}

fn scores(verdicts: &[Verdict]) -> Vec<Value> {
    let score = |verdict: &Verdict| match verdict {
        Verdict::Decided(finding) => json!(finding.score),
        _ => NONE,
    };
    verdicts.iter().map(score).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().map(|value| value.as_str().unwrap_or_default()).collect(),
        _ => Vec::new(),
    }
}

/// A group whose completions have these lengths in tokens.
fn with_lengths(texts: &[&str], lengths: &[u64]) -> Group {
    let mut it = group(None, texts);
    for (completion, length) in it.completions.iter_mut().zip(lengths) {
        let tokens = vec![0; usize::try_from(*length).unwrap()];
        *completion = Arc::new(Completion { tokens, ..(**completion).clone() });
    }
    it
}

fn pick(table: &Value, keys: &[(&str, &str)]) -> Value {
    let given = keys.iter().filter_map(|(theirs, ours)| Some(((*ours).to_owned(), table.get(*theirs)?.clone())));
    Value::Object(given.collect())
}

/// What our plugins give for a row of rewards: a list over completions, or a table for NeMo RL.
fn reward(bench: &Bench, row: &Value) -> Value {
    let (params, args) = (&row["params"], &row["args"]);
    let completions = strings(&args["completions"]);
    let solutions = strings(&args["solution"]);
    let each = |name: &str, config: Value| match bench.plugin(name, &config) {
        Ok(plugin) => Value::Array(scores(&plugin.verify(&ctx(), &group(None, &completions)).unwrap())),
        Err(ConfigureError::Config { errors }) => json!(format!("!error: {errors:?}")),
        Err(error) => panic!("{error}"),
    };
    let by_length = |config: Value, lengths: Option<Vec<u64>>, accuracy: Vec<Verdict>| {
        let mut it = match lengths {
            Some(lengths) => with_lengths(&completions, &lengths),
            None => group(None, &completions),
        };
        it = common::judged(it, "accuracy", accuracy);
        let rewards = bench.plugin("length", &config).unwrap().reward(&ctx(), &it).unwrap();
        Value::Array(rewards.into_iter().map(|reward| reward.unwrap().map_or(NONE, |reward| json!(reward))).collect())
    };
    let lengths = || args["completion_lengths"].as_array().map(|all| all.iter().map(|n| n.as_u64().unwrap()).collect());
    match (row["library"].as_str().unwrap(), row["reward_name"].as_str().unwrap()) {
        ("NVIDIA-NeMo/RL", name) => nemo_rl(bench, name, params, args),
        (_, "accuracy_reward") => Value::Array(scores(&bench.accuracy(&completions, &solutions, &latex()))),
        (_, "reasoning_accuracy_reward") => {
            let marks = match args.get("reasoning_delimiters") {
                Some(marks) => strings(marks),
                None => vec!["</think>"],
            };
            let config = json!({ "after_mark": marks[0], "reference": "extract" });
            Value::Array(scores(&bench.accuracy(&completions, &solutions, &config)))
        }
        (library, "cosine_scaled_reward") => {
            let accuracy = bench.accuracy(&completions, &solutions, &latex());
            let keys = ["min_value_wrong", "max_value_wrong", "min_value_correct", "max_value_correct"];
            let unit = if library == "huggingface/open-r1" { "characters" } else { "tokens" };
            let mut config = json!({ "rule": "cosine", "unit": unit, "max_length": 1000 });
            config["cosine"] = pick(params, &keys.map(|key| (key, key)));
            if let Some(length) = params.get("max_len") {
                config["max_length"] = length.clone();
            }
            by_length(config, lengths(), accuracy)
        }
        (_, "len_reward") => {
            let accuracy = bench.accuracy(&completions, &solutions, &latex());
            by_length(json!({ "rule": "relative", "unit": "characters", "undecided": "right" }), None, accuracy)
        }
        (_, "format_reward") => each("format", json!({ "convention": "open_r1" })),
        (_, "think_format_reward") => each("format", json!({ "convention": "trl" })),
        (_, "code_format_reward") => {
            let language = params.get("language").cloned().unwrap_or_else(|| json!("python"));
            each("format", json!({ "convention": "open_r1", "code": language }))
        }
        (_, "tag_count_reward") => each("tags", json!({})),
        (_, "reasoning_steps_reward") => each("reasoning-steps", json!({})),
        (_, "repetition_penalty_reward") => {
            let config = pick(params, &[("ngram_size", "ngram_size"), ("max_penalty", "max_penalty")]);
            match args.get("completion_ids") {
                None => each("repetition", config),
                Some(ids) => {
                    // Tokens are words here: the ids as text.
                    let text =
                        |ids: &Value| ids.as_array().unwrap().iter().map(|id| format!("{id} ")).collect::<String>();
                    let texts: Vec<String> = ids.as_array().unwrap().iter().map(text).collect();
                    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                    match bench.plugin("repetition", &config) {
                        Ok(plugin) => Value::Array(scores(&plugin.verify(&ctx(), &group(None, &texts)).unwrap())),
                        Err(error) => json!(format!("!error: {error}")),
                    }
                }
            }
        }
        (_, "soft_overlong_punishment_reward") => {
            let keys = [("max_completion_len", "max_length"), ("soft_punish_cache", "cache")];
            let plugin = bench.plugin("overlong", &pick(params, &keys)).unwrap();
            let lengths: Vec<u64> =
                lengths().unwrap_or_else(|| completions.iter().map(|text| text.len() as u64).collect());
            let texts = vec![""; lengths.len()];
            Value::Array(scores(&plugin.verify(&ctx(), &with_lengths(&texts, &lengths)).unwrap()))
        }
        (library, name) => panic!("{library} has a reward `{name}` that no plugin is named for"),
    }
}

/// NeMo RL's functions give a reward and whether the answer is right, which is nothing where a form is judged.
fn nemo_rl(bench: &Bench, name: &str, params: &Value, args: &Value) -> Value {
    let (truth, response) = (args["ground_truth"].as_str().unwrap(), args["response"].as_str().unwrap());
    let given = |key: &str, default: &str| {
        let value = args.get(key).or_else(|| params.get(key));
        value.and_then(Value::as_str).unwrap_or(default).to_owned()
    };
    let judged = |reward: f64| json!({ "reward": reward, "is_correct": reward == 1.0 });
    match name {
        "format_reward" => {
            let config = json!({
                "convention": "nemo_rl",
                "think": given("think_tag", "think"),
                "answer": given("answer_tag", "answer"),
            });
            json!({ "reward": bench.score("format", config, truth, response), "is_correct": NONE })
        }
        "exact_answer_alphanumeric_reward" => {
            let config =
                json!({ "read": [{ "widest_tag": given("answer_tag", "answer") }], "normalize": "alphanumeric" });
            judged(bench.score("exact", config, truth, response))
        }
        "math_expression_reward" => judged(bench.score("math", json!({ "extract": ["answer_tag"] }), truth, response)),
        // The weights of a reward stage, which here are made to add up to 1.
        "combine_reward_functions" => {
            let functions = params["functions"].as_array().unwrap();
            let (mut reward, mut weights, mut is_correct) = (0.0, 0.0, true);
            for function in functions {
                let weight = function[1].as_f64().unwrap();
                let part = nemo_rl(bench, function[0].as_str().unwrap(), &json!({}), args);
                reward += weight * part["reward"].as_f64().unwrap();
                weights += weight;
                is_correct &= part["is_correct"] != json!(false);
            }
            json!({ "reward": reward / weights, "is_correct": is_correct })
        }
        name => panic!("NeMo RL has a reward `{name}` that no plugin is named for"),
    }
}

/// What our plugins find for a row of extraction.
fn extraction(bench: &Bench, row: &Value) -> Value {
    let args = &row["args"];
    let input = row["input"].as_str().unwrap_or_default();
    let read = |place: Value, normalize: Value| json!({ "read": [place], "normalize": normalize });
    let boxed = || bench.answer("exact", read(json!("boxed"), json!([])), input);
    match row["function"].as_str().unwrap() {
        "last_boxed_only_string" | "dapo_last_boxed_only_string" => match boxed() {
            Value::String(inside) => {
                let command = if input.contains("\\boxed") { "boxed" } else { "fbox" };
                json!(format!("\\{command}{{{inside}}}"))
            }
            none => none,
        },
        "remove_boxed" | "extract_boxed_answer" | "extract_answer" => boxed(),
        "dapo_remove_boxed" => match boxed() {
            Value::Null => json!("!error: box error"),
            inside => inside,
        },
        "dapo_is_correct_strict_box" => {
            let finding = bench.finding("exact", json!({ "read": ["boxed"], "last": 100 }), truth(args), input);
            json!([if finding.score == 1.0 { 1 } else { -1 }, finding.answer])
        }
        "dapo_compute_score" if args["strict_box_verify"] == json!(true) => {
            let finding = bench.finding("exact", json!({ "read": ["boxed"], "last": 300 }), truth(args), input);
            let is_right = finding.score == 1.0;
            json!({ "score": if is_right { 1.0 } else { -1.0 }, "acc": is_right, "pred": finding.answer })
        }
        "extract_tag" => bench.answer("exact", read(json!({ "first_tag": args["tag"] }), json!([])), input),
        "search_r1_extract_solution" => bench.answer("exact", read(json!({ "tag": "answer" }), json!(["trim"])), input),
        "search_r1_em_check" => {
            let golds = &args["golden_answers"];
            let text = golds.as_str().map_or_else(|| golds.to_string(), Into::into);
            let config = json!({ "read": ["whole"], "normalize": "squad", "several": golds.is_array() });
            json!(bench.score("exact", config, &text, input) as i64)
        }
        "search_r1_reward_computation" => {
            let target = &args["ground_truth"]["target"];
            let text = target.as_str().map_or_else(|| target.to_string(), Into::into);
            let place = json!([{ "first_tag": "answer" }]);
            let config = json!({ "read": place, "normalize": "squad", "several": target.is_array() });
            json!(bench.score("exact", config, &text, input))
        }
        "parse_tool_call" => {
            let config = json!({ "want": "calls", "syntax": "xml", "read": [{ "tag": "tool" }] });
            let call = bench.finding("json", config, "[]", input).answer.unwrap();
            let call: Value = serde_json::from_str(&call).unwrap();
            json!([call["name"], call["arguments"]])
        }
        "think_parse" => {
            let places = if args["extract"] == json!("boxed") { json!(["boxed", "whole"]) } else { json!(["whole"]) };
            // An empty string stands for nothing there.
            match bench.answer("exact", json!({ "after_mark": "</think>", "read": places }), input) {
                Value::Null => json!(""),
                answer => answer,
            }
        }
        "maybe_think_parse" => {
            let config = json!({ "after_mark": "</think>", "without_mark": "everything", "read": ["whole"] });
            bench.answer("exact", config, input)
        }
        "think_format_reward_messages" => {
            let verdicts = bench.verify("format", json!({ "convention": "verifiers" }), None, &strings(&row["input"]));
            let scores = common::scores(&verdicts);
            json!(scores.iter().sum::<f64>() / scores.len() as f64)
        }
        "xml_parse" => {
            let names = args["fields"].as_array().unwrap().iter().flat_map(strings);
            let field = |name: &str| {
                let config = read(json!({ "first_tag": name }), json!(["trim"]));
                (name.to_owned(), bench.answer("exact", config, input))
            };
            Value::Object(names.map(field).collect())
        }
        "xml_last_answer" => bench.answer("xml", json!({ "answer": args["field"] }), input),
        "xml_format_reward" => json!(bench.score("xml", json!({ "fields": args["fields"] }), "-", input)),
        "choice_letter_extraction" => {
            let strings = args.get("strings").map_or_else(|| "ABCD".into(), |all| strings(all).concat());
            let is_lowered = args["lowercase"] != json!(false);
            let reference = strings[..1].to_owned();
            match bench.finding("choice", json!({ "letters": strings }), &reference, input).answer {
                None => json!([]),
                Some(letter) if is_lowered => json!([letter.to_lowercase(), letter]),
                Some(letter) => json!([letter, letter]),
            }
        }
        "multichoice" => json!(bench.score("choice", json!({ "extract": ["label"] }), truth(args), input)),
        "select_extracted_answer" => {
            // Of several predictions the first that is right, or the first.
            let (golds, predictions) = (row["input"][0].to_string(), strings(&row["input"][1]));
            let config = json!({ "read": ["whole"], "several": true });
            let scores = common::scores(&bench.verify("exact", config, Some(&golds), &predictions));
            json!(predictions[scores.iter().position(|score| *score == 1.0).unwrap_or(0)])
        }
        "multi_reward_correctness_integer_format" => {
            let place = json!([{ "open_tag": "answer" }]);
            let correct = bench.score("exact", json!({ "read": place }), truth(args), input);
            let integer = json!({ "pattern": "\\s*[0-9]+\\s*", "full": true, "read": place });
            let integer = bench.score("regex", integer, "-", input);
            json!([correct, integer, bench.score("format", json!({ "convention": "nemo_rl_math" }), "-", input)])
        }
        name if let Some((_, convention, around)) = MATHEMATICS.iter().find(|known| known.0 == name) => {
            let text = around.replace("..", input);
            let config = json!({ "convention": convention });
            // A reference that no text gives, where theirs find nothing.
            let reference = row["expected"].as_str().unwrap_or("nothing of the kind");
            match bench.verify("math", config, Some(reference), &[&text]).remove(0) {
                Verdict::Decided(finding) if finding.score == 1.0 => json!(reference),
                Verdict::Decided(finding) => {
                    finding.answer.filter(|answer| !answer.is_empty()).map_or(NONE, Value::String)
                }
                _ => NONE,
            }
        }
        name => panic!("there is an extractor `{name}` that no plugin is named for"),
    }
}

fn truth(args: &Value) -> &str {
    args["ground_truth"].as_str().unwrap()
}

/// Whether two values are the same, numbers within the tolerance.
fn is_near(a: &Value, b: &Value, tolerance: f64) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_near(a, b, tolerance))
        }
        // What the row says of a table; ours may say more.
        (Value::Object(a), Value::Object(b)) => {
            b.iter().all(|(key, b)| a.get(key).is_some_and(|a| is_near(a, b, tolerance)))
        }
        // That there is an error is what matters, not its words.
        (Value::String(a), Value::String(b)) if a.starts_with("!error") => b.starts_with("!error"),
        _ => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= tolerance,
            _ => a == b,
        },
    }
}

/// Whether what was found passes a check `[operator, index, value]`.
fn passes(found: &Value, check: &Value, tolerance: f64) -> bool {
    let at = |index: &Value| match index {
        Value::String(all) if all == "all" => found.clone(),
        Value::String(key) => found[key.as_str()].clone(),
        index => found[usize::try_from(index.as_u64().unwrap()).unwrap()].clone(),
    };
    let left = at(&check[1]);
    let right = check[2].get("ref").map_or_else(|| check[2].clone(), at);
    let numbers = || (left.as_f64().unwrap_or(f64::NAN), right.as_f64().unwrap_or(f64::NAN));
    match check[0].as_str().unwrap() {
        "==" => is_near(&left, &right, tolerance),
        "!=" => !is_near(&left, &right, tolerance),
        ">" => numbers().0 > numbers().1,
        "<" => numbers().0 < numbers().1,
        ">=" => numbers().0 >= numbers().1,
        "<=" => numbers().0 <= numbers().1,
        operator => panic!("there is no operator `{operator}`"),
    }
}

/// The rows of the committed facts and of the shared file of the same name, where it is there.
fn rows(name: &str) -> Vec<Value> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let shared = tests.join("../../../../shared/data/cases").join(name);
    let mut text = std::fs::read_to_string(tests.join("facts").join(name)).unwrap();
    match std::fs::read_to_string(&shared) {
        Ok(more) => text += &more,
        Err(_) => println!("skipped: there is no {}", shared.display()),
    }
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn exemption(row: &Value) -> Option<&'static str> {
    let named = |name: &str| EXEMPT.iter().find(|exempt| exempt.0 == name).map(|exempt| exempt.1);
    let name = row.get("reward_name").or_else(|| row.get("function")).and_then(Value::as_str).unwrap();
    let parts = row["params"]["functions"].as_array().map(Vec::as_slice).unwrap_or_default();
    named(name).or_else(|| parts.iter().find_map(|part| named(part[0].as_str().unwrap())))
}

/// How open-r1 and TRL read a solution: as a text that must hold a formula.
fn latex() -> Value {
    json!({ "reference": "extract" })
}

/// Takes every row, and tells all that differ at once.
fn hold(name: &str, judge: impl Fn(&Bench, &Value) -> (Value, bool)) {
    let bench = Bench { rig: Rig::new() };
    let (mut held, mut exempt, mut differing) = (0, 0, Vec::new());
    for row in rows(name) {
        if let Some(reason) = exemption(&row) {
            println!("exempt: {}: {reason}", row["source"]);
            exempt += 1;
            continue;
        }
        match judge(&bench, &row) {
            (_, true) => held += 1,
            (found, false) => differing.push(format!("{row}\n  gives {found}")),
        }
    }
    println!("{name}: {held} rows as expected, {exempt} exempt, {} differ", differing.len());
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn rewards_are_those_of_other_trainers() {
    hold("rewards.jsonl", |bench, row| {
        let found = reward(bench, row);
        let tolerance = row["tolerance"].as_f64().unwrap();
        let is_held = row["checks"].as_array().unwrap().iter().all(|check| passes(&found, check, tolerance))
            && (row["expected"].is_null() || is_near(&found, &row["expected"], tolerance));
        (found, is_held)
    });
}

#[test]
fn answers_are_found_where_other_trainers_find_them() {
    hold("extraction.jsonl", |bench, row| {
        let found = extraction(bench, row);
        let is_held = is_near(&found, &row["expected"], 1e-9);
        (found, is_held)
    });
}

/// The validator of `json` is held against the crate `jsonschema`, which knows all of the standard.
#[test]
fn json_is_valid_where_jsonschema_says_so() {
    let schemas = [
        json!(true),
        json!(false),
        json!({ "type": ["integer", "null"], "minimum": 1, "exclusiveMaximum": 10, "multipleOf": 0.5 }),
        json!({ "type": "string", "minLength": 2, "maxLength": 3, "pattern": "^[a-zé]+$" }),
        json!({ "enum": [1, "a", null, [1, { "b": 2.0 }]] }),
        json!({ "const": { "a": [1, 2] } }),
        json!({ "required": ["a"], "properties": { "a": { "type": "number" }, "b": false }, "additionalProperties": { "type": "string" } }),
        json!({ "patternProperties": { "^a": { "type": "number" } }, "additionalProperties": false, "maxProperties": 2 }),
        json!({ "propertyNames": { "maxLength": 1 }, "minProperties": 1, "dependentRequired": { "a": ["b"] } }),
        json!({ "dependentSchemas": { "a": { "required": ["b"] } } }),
        json!({ "items": { "type": "integer" }, "minItems": 1, "maxItems": 3, "uniqueItems": true }),
        json!({ "prefixItems": [{ "type": "string" }, { "type": "number" }], "items": false }),
        json!({ "contains": { "type": "number", "minimum": 2 }, "minContains": 1, "maxContains": 2 }),
        json!({ "allOf": [{ "type": "number" }, { "maximum": 3 }] }),
        json!({ "anyOf": [{ "type": "string" }, { "type": "number", "minimum": 2 }] }),
        json!({ "oneOf": [{ "type": "number" }, { "minimum": 2 }] }),
        json!({ "not": { "type": ["array", "object"] } }),
        json!({ "if": { "type": "string" }, "then": { "minLength": 2 }, "else": { "type": "number" } }),
        json!({ "$defs": { "tree": { "type": "array", "items": { "$ref": "#/$defs/tree" } } }, "$ref": "#/$defs/tree" }),
        json!({ "properties": { "a": { "$ref": "#" } }, "additionalProperties": false }),
        json!({ "type": "object", "title": "a title", "format": "date", "default": 3 }),
    ];
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(1.0),
        json!(1.5),
        json!(2),
        json!(3),
        json!(9.5),
        json!(10),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("a"),
        json!("ab"),
        json!("éé"),
        json!("abcd"),
        json!("A"),
        json!([]),
        json!([1]),
        json!([1, 1.0]),
        json!([1, 2]),
        json!([1, 2, 3, 4]),
        json!(["a", 1]),
        json!(["a", 1, 2]),
        json!([1, { "b": 2 }]),
        json!([[], [[]]]),
        json!([[1]]),
        json!({}),
        json!({ "a": 1 }),
        json!({ "a": "x" }),
        json!({ "a": 1, "b": 2 }),
        json!({ "a": 1, "c": "x" }),
        json!({ "a": 1, "c": 2 }),
        json!({ "a": [1, 2] }),
        json!({ "a": [1.0, 2] }),
        json!({ "ab": 1, "ac": 2, "ad": 3 }),
        json!({ "b": 1 }),
        json!({ "a": {} }),
        json!({ "a": { "b": 1 } }),
    ];
    let texts: Vec<String> = values.iter().map(Value::to_string).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let bench = Bench { rig: Rig::new() };
    for schema in schemas {
        let found = common::scores(&bench.verify("json", json!({ "schema": schema, "read": ["whole"] }), None, &texts));
        let validator = jsonschema::validator_for(&schema).unwrap();
        for (value, score) in values.iter().zip(found) {
            assert_eq!(score == 1.0, validator.is_valid(value), "{value} under {schema}");
        }
    }
}
