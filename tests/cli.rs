//! What users get wrong in files and on the command line: each gets a clear message and an exit code, before any work.

mod support;

use std::fs;

use support::small::{NUMBER, ROWS, folder, pipeline};
use support::{Folder, lines, root};

#[test]
fn a_sound_file_is_valid_and_runs() {
    let folder = folder(&pipeline(NUMBER));
    folder.run(["validate", "file.toml"]).expect(0, &["file.toml: valid"]);
    folder.run(["run", "file.toml"]).expect(0, &["run folder: runs/small/0001", "small"]);
    let metrics = lines(&folder.path("runs/small/0001/metrics.jsonl"));
    assert_eq!(metrics.iter().map(|line| &line["step"]).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(metrics[0]["undecided/accuracy"], 0.0);
    assert!(
        metrics.iter().all(|line| line["plugin/judge/fuel"].as_f64().is_some_and(|fuel| fuel > 0.0)),
        "{metrics:?}"
    );
}

#[test]
fn a_misspelled_key_and_a_cycle_are_shown_in_place_and_nothing_is_made() {
    let text = pipeline(NUMBER)
        .replace("group_size", "group_sise")
        .replace(r#"inputs = ["sample"]"#, r#"inputs = ["reward"]"#);
    let folder = folder(&text);
    for command in ["validate", "run"] {
        let said = folder.run([command, "file.toml"]);
        said.expect(1, &["unknown-key", "group_sise", "did you mean `group_size`?", "cycle", "file.toml:"]);
    }
    assert!(!folder.path("runs").exists());
    let said = folder.run(["validate", "--format", "json", "file.toml"]);
    let findings: Vec<serde_json::Value> = serde_json::from_str(&said.out).expect("stdout is JSON");
    assert!(findings.iter().any(|finding| finding["code"] == "unknown-key"), "{}", said.out);
}

#[test]
fn usage_and_absent_files() {
    let folder = Folder::new();
    folder.run(["run", "absent.toml"]).expect(1, &["can't read `absent.toml`: it does not exist"]);
    folder.run(["run"]).expect(2, &["<FILE>"]);
    folder.run(["frobnicate"]).expect(2, &["frobnicate"]);
}

#[test]
fn a_row_without_the_column_is_named_by_file_and_line() {
    let folder = folder(&pipeline(NUMBER));
    folder.write("rows.jsonl", "{\"question\":\"1+2=?\",\"sum\":\"3\"}\n{\"question\":\"4+5=?\"}\n");
    let said = folder.run(["run", "file.toml"]);
    said.expect(1, &["rows.jsonl:2", "`sum`", "file.toml:"]);
    folder.write("rows.jsonl", "\n");
    folder.run(["run", "file.toml"]).expect(1, &["has no rows", "rows.jsonl"]);
    folder.write("rows.jsonl", "{\"question\":");
    folder.run(["run", "file.toml"]).expect(1, &["rows.jsonl:1"]);
    fs::remove_file(folder.path("rows.jsonl")).expect("it was written above");
    folder.run(["run", "file.toml"]).expect(1, &["rows.jsonl"]);
    assert!(!folder.path("runs").exists(), "no run folder is made for a file that does not fit");
}

#[test]
fn a_script_with_a_syntax_error_is_shown_with_its_line() {
    let folder = folder(&pipeline("rhai = \"judge.rhai\"\nlimits = { operations = 10_000 }"));
    folder.write("judge.rhai", "fn verify(ctx, group) {\n    let verdicts = [;\n}\n");
    folder.run(["validate", "file.toml"]).expect(1, &["judge.rhai:2:", "plugin `judge`"]);
}

#[test]
fn models_that_can_not_be_loaded_say_why() {
    let fixture = root().join("tests/parity/deepseek_v3");
    let text = pipeline(NUMBER);
    let init = text.lines().find(|line| line.starts_with("init = ")).expect("the model has one");
    let folder = folder(&text.replace(init, "path = \"model\""));
    folder.run(["validate", "file.toml"]).expect(1, &["model `policy` can't be loaded", "model/config.json"]);

    let config = fs::read_to_string(fixture.join("config.json")).expect("the fixture is there");
    folder.write(
        "model/config.json",
        config.replace("DeepseekV3ForCausalLM", "MambaForCausalLM").replace("deepseek_v3", "mamba"),
    );
    fs::copy(root().join("pipelines/quickstart/tokenizer.json"), folder.path("model/tokenizer.json"))
        .expect("it can be copied");
    folder.run(["validate", "file.toml"]).expect(1, &["mamba", "deepseek_v3"]);

    folder.write("model/config.json", &config);
    let weights = fs::read(fixture.join("model.safetensors")).expect("the fixture is there");
    folder.write("model/model.safetensors", &weights[..weights.len() / 2]);
    folder.run(["run", "file.toml"]).expect(2, &["model.safetensors", "truncated"]);
    assert!(!folder.path("runs").exists());
}

#[test]
fn a_condition_drops_what_it_is_false_for_and_is_checked_in_its_place() {
    let (before, _) =
        pipeline(NUMBER).split_once("[stages.update]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let keep = |condition: &str| {
        let stage = "[stages.keep]\ntype = \"filter\"\ninputs = [\"reward\"]\n";
        let imitate = "[stages.imitate]\ntype = \"sft\"\ninputs = [\"keep\"]\nmodel = \"policy\"\n\
            optimizer = { learning_rate = 1e-3 }\n";
        folder(&format!("{before}{stage}where = '{condition}'\n\n{imitate}"))
    };
    let folder = keep("finish != \"length\" && reward >= 0");
    folder.run(["run", "file.toml"]).expect(0, &["loss"]);
    for line in lines(&folder.path("runs/small/0001/metrics.jsonl")) {
        let cut = line["completions/clipped_ratio"].as_f64().unwrap();
        assert_eq!(line["completions/dropped"], 8.0 * cut, "{line}");
    }
    let wrong = keep("finish != \"length\" && token < 3").run(["validate", "file.toml"]);
    wrong.expect(
        1,
        &["error[condition]: `where` of `keep` is no condition", "^^^^^ there is no `token` here; there are"],
    );
}

#[test]
fn the_committed_schema_is_what_the_binary_prints() {
    let said = Folder::new().run(["schema"]);
    assert_eq!(said.code, Some(0));
    let committed = fs::read_to_string(root().join("sdk/schema/pipeline.json")).expect("the schema is committed");
    assert!(said.out == committed, "regenerate it: pipeline schema > sdk/schema/pipeline.json");
}

#[test]
fn logs_and_traces_are_written_on_request() {
    let folder = folder(&pipeline(NUMBER));
    let said = folder.run(["run", "file.toml", "--log", "info", "--trace", "trace.json"]);
    said.expect(0, &["stage", "accuracy"]);
    let trace: Vec<serde_json::Value> =
        serde_json::from_slice(&fs::read(folder.path("trace.json")).expect("there is a trace")).expect("it is JSON");
    let stage = |name: &str| {
        trace.iter().any(|event| event["args"]["stage"].as_str().is_some_and(|stage| stage.contains(name)))
    };
    for name in ["rows", "sample", "accuracy", "reward", "update"] {
        assert!(stage(name), "no span of {name}");
    }
}

#[test]
fn the_file_that_the_guide_shows_is_valid() {
    let guide = fs::read_to_string(root().join("pipelines/README.md")).unwrap();
    let blocks: Vec<&str> = guide.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let evaluation = blocks.iter().find(|block| block.starts_with("[evaluations")).unwrap();
    let folder = Folder::new();
    folder.write("file.toml", format!("{}\n{evaluation}", blocks[0]));
    folder.run(["validate", "--no-environment", "file.toml"]).expect(0, &["file.toml: valid"]);
}

/// The file that the README of a first-party plugin shows a part of: a family of problems, or a filter.
fn completed(part: &str) -> String {
    let text = pipeline(NUMBER);
    let cut = |text: &str, from: &str, to: &str| {
        let (before, rest) = text.split_once(from).expect("the part is there");
        let (_, after) = rest.split_once(to).expect("another part follows");
        format!("{before}{to}{after}")
    };
    if part.contains("type = \"filter\"") {
        return text.replace("inputs = [\"reward\"]", "inputs = [\"keep\"]") + part;
    }
    let text = cut(
        &cut(&cut(&text, "[plugins.judge]", "[stages.rows]"), "[stages.rows]", "[stages.sample]"),
        "[stages.accuracy]",
        "[stages.reward]",
    );
    text.replace("inputs = [\"rows\"]", "inputs = [\"problems\"]") + part
}

#[test]
fn what_the_guides_of_families_and_filters_show_is_valid() {
    for name in [
        "arithmetic",
        "contamination",
        "countdown",
        "knights-and-knaves",
        "language-mixing",
        "length-window",
        "list-operations",
        "near-duplicates",
        "pass-rate",
        "pattern",
        "readability",
        "shortest-path",
        "sudoku",
        "top-k",
    ] {
        let guide = fs::read_to_string(root().join("plugins").join(name).join("README.md")).unwrap();
        let part = guide.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("it shows a part");
        let folder = folder(&completed(part));
        folder.write("data/aime.jsonl", "{\"problem\": \"What is the sum of all integers?\"}\n");
        folder.run(["validate", "file.toml"]).expect(0, &["file.toml: valid"]);
    }
}

#[test]
fn a_prompt_that_the_model_can_not_read_is_found_before_any_work() {
    let folder = folder(&pipeline(NUMBER));
    let long = format!("{{\"question\":\"{}\",\"sum\":\"3\"}}\n", "1+".repeat(200));
    folder.write("rows.jsonl", format!("{ROWS}{long}"));
    folder
        .run(["run", "file.toml"])
        .expect(1, &["rows.jsonl:5", "its prompt has 400 tokens", "at most 256", "file.toml:"]);
    folder.write("rows.jsonl", format!("{ROWS}\n{{\"question\":\"eins?\",\"sum\":\"3\"}}\n"));
    folder.run(["run", "file.toml"]).expect(1, &["rows.jsonl:6", "no token for 'e'", "file.toml:"]);
    folder.write("rows.jsonl", ROWS);
    folder.run(["run", "file.toml", "--set", "stages.sample.max_tokens=256"]).expect(1, &["no room for a prompt"]);
    let stop = "stages.sample.stop_tokens=[\"<eos>\", \"<none>\"]";
    folder.run(["run", "file.toml", "--set", stop]).expect(1, &["`<none>`, which is no token of the model"]);
    folder.run(["validate", "file.toml", "--set", "models.policy.device=cuda"]).expect(1, &["feature `cuda`"]);
    assert!(!folder.path("runs").exists());
}

#[test]
fn a_model_folder_is_described_on_stdout() {
    let fixture = root().join("tests/parity/qwen3_moe");
    let folder = Folder::new();
    for name in ["config.json", "model.safetensors"] {
        folder.write(&format!("m/{name}"), fs::read(fixture.join(name)).expect("the fixture is there"));
    }
    // Without a tokenizer it can't be talked to.
    folder.run(["model", "info", "m"]).expect(1, &["tokenizer.json"]);
    let tokenizer = root().join("pipelines/quickstart/tokenizer.json");
    folder.write("m/tokenizer.json", fs::read(tokenizer).expect("the quickstart has one"));
    let said = folder.run(["model", "info", "m", "--slots", "4", "--tokens-per-pass", "512"]);
    said.expect(0, &[]);
    for text in [
        "qwen3_moe",
        "8 experts of which a token takes 2",
        "1 file: F32",
        "256 tokens",
        "ends with",
        "to learn with 512",
    ] {
        assert!(said.out.contains(text), "`{text}` is not in:\n{}", said.out);
    }
    let said = folder.run(["model", "info", "m", "--format", "json"]);
    let info: serde_json::Value = serde_json::from_str(&said.out).expect("stdout is JSON");
    assert_eq!(info["bytes"]["F32"], 4 * info["parameters"].as_u64().expect("a number"));
    assert!(info["memory_to_learn"].as_u64() > info["memory_to_sample"].as_u64());

    let config = fs::read_to_string(fixture.join("config.json")).expect("the fixture is there");
    folder.write("m/config.json", config.replace("\"vocab_size\": 320", "\"vocab_size\": 321"));
    folder.run(["model", "info", "m"]).expect(1, &["`lm_head.weight` has shape [320, 64]", "[321, 64]"]);
    folder.run(["model", "info", "absent"]).expect(2, &["failed to read absent/config.json"]);
}

#[test]
fn a_model_is_compared_with_its_reference() {
    let folder = Folder::new();
    let fixture = root().join("tests/parity/deepseek_v3_moonlight").to_string_lossy().into_owned();
    let said = folder.run(["model", "check", &fixture]);
    said.expect(0, &["tensors agree within 1e-4"]);
    for text in ["grad.", "router.1.experts", "all equal", "greedy_tokens", "rope.inv_freq"] {
        assert!(said.out.contains(text), "`{text}` is not in:\n{}", said.out);
    }
    let said = folder.run(["model", "check", &fixture, "--tolerance", "1e-12", "--format", "json"]);
    said.expect(1, &["differ by more than 1e-12"]);
    let report: serde_json::Value = serde_json::from_str(&said.out).expect("stdout is JSON");
    assert!(report["tensors"].as_array().expect("a list").iter().any(|tensor| tensor["within"] == false));
    let part = root().join("tests/parity/deepseek_v3_bf16_sharded").to_string_lossy().into_owned();
    folder.run(["model", "check", &part]).expect(0, &["1 of 1 tensors agree", "not compared", "hidden.0", "grad.*"]);
    folder.run(["model", "check", "absent"]).expect(1, &["holds no reference.safetensors"]);
}
