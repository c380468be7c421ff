//! What users get wrong, and what goes wrong around them: each gets a clear message and an exit code, and nothing is lost.
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Folder, exact_files, lines, root};

/// A pipeline of every kind of stage that reinforcement learning has, on four rows. `{...}` are places to break it.
fn pipeline(verifier: &str) -> String {
    let quickstart = root().join("pipelines/quickstart");
    let at = |name: &str| quickstart.join(name).to_string_lossy().into_owned();
    let (config, tokenizer) = (at("model.json"), at("tokenizer.json"));
    format!(
        r#"schema = 1
name = "small"
seed = 1

[run]
steps = 2
checkpoint = {{ every = 1, keep = 2 }}

[models.policy]
init = {{ config = "{config}", tokenizer = "{tokenizer}" }}
device = "cpu"

[plugins.judge]
{verifier}

[stages.rows]
type = "dataset"
sources = [{{ name = "sums", path = "rows.jsonl", columns = {{ prompt = "question", reference = "sum" }} }}]
prompts_per_step = 2

[stages.sample]
type = "sample"
inputs = ["rows"]
model = "policy"
group_size = 4
max_tokens = 8

[stages.accuracy]
type = "verify"
inputs = ["sample"]
plugin = "judge"
on_undecided = "drop"

[stages.reward]
type = "reward"
inputs = ["accuracy"]
weights = {{ accuracy = 1 }}

[stages.update]
type = "grpo"
inputs = ["reward"]
model = "policy"
optimizer = {{ learning_rate = 1e-4 }}
"#
    )
}

const NUMBER: &str = r#"builtin = "number"
limits = { fuel = 5_000_000, memory = "16 MiB" }"#;

const ROWS: &str = r#"{"question":"1+2=?","sum":"3"}
{"question":"4+5=?","sum":"9"}
{"question":"10+7=?","sum":"17"}
{"question":"3+3=?","sum":"6"}
"#;

/// A folder with a pipeline file and its rows.
fn folder(text: &str) -> Folder {
    let folder = Folder::new();
    folder.write("file.toml", text);
    folder.write("rows.jsonl", ROWS);
    folder
}

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

/// A component that does, for every completion, what `letter` stands for.
fn hostile(letter: char) -> Vec<u8> {
    let parts = root().join("core/host/tests/components");
    let part = |name: &str| fs::read_to_string(parts.join(name)).expect("the host's test components are there");
    let text = part("verifier.wat")
        .replace("{prelude}", &part("prelude.wat"))
        .replace("{config-core}", &part("config-core.wat"))
        .replace("{config}", &part("config.wat"))
        .replace(
            "(local.set $what (i32.load8_u (local.get $text)))",
            &format!("(local.set $what (i32.const {}))", letter as u32),
        );
    wat::parse_str(&text).expect("the text is a component")
}

#[test]
fn hostile_components_only_make_their_completions_undecided() {
    for (letter, reason) in [('L', "fuel"), ('M', "memory"), ('T', "unreachable"), ('F', "verdict")] {
        let folder = folder(&pipeline("wasm = \"judge.wasm\"\nlimits = { fuel = 100_000, memory = \"1 MiB\" }"));
        folder.write("judge.wasm", hostile(letter));
        let any = fs::read_to_string(folder.path("file.toml")).expect("it was written above");
        folder.write("file.toml", any.replace("\"drop\"", "\"drop\"\nmax_undecided = 1.0"));
        let said = folder.run(["run", "file.toml"]);
        said.expect(0, &["warning: 8 of 8 completions are undecided by `accuracy`, the first: ", reason]);
        assert_eq!(said.err.matches("warning").count(), 1, "once is enough:\n{}", said.err);
        let run = folder.path("runs/small/0001");
        for line in lines(&run.join("metrics.jsonl")) {
            assert_eq!(line["undecided/accuracy"], 8.0, "`{letter}`: {line}");
            assert_eq!(line["completions/dropped"], 8.0, "`{letter}`: {line}");
        }
        // The same file with the usual bound on what may stay undecided ends with a finding, after a commit.
        folder.write("file.toml", &any);
        let said = folder.run(["run", "file.toml"]);
        said.expect(1, &["8 of 8 completions are undecided by `accuracy`", "max_undecided = 0.5", "at step 1", reason]);
        assert!(folder.path("runs/small/0002/checkpoints/step-000001/state.json").is_file());
        folder.run(["resume", "runs/small/0002"]).expect(1, &["has ended with a finding", "max_undecided"]);
        folder.write("file.toml", any.replace("\"drop\"", "\"fail\""));
        folder.run(["run", "file.toml"]).expect(1, &["stage `accuracy` failed at step 1", reason]);
    }
}

#[test]
fn a_script_that_never_ends_is_cut_and_counted() {
    let text = pipeline("rhai = \"judge.rhai\"\nlimits = { operations = 10_000 }");
    let folder = folder(&text.replace("\"drop\"", "\"drop\"\nmax_undecided = 1.0"));
    folder.write("judge.rhai", "fn verify(ctx, group) { loop { } }");
    folder.run(["run", "file.toml"]).expect(0, &["warning: 8 of 8 completions"]);
    let metrics = lines(&folder.path("runs/small/0001/metrics.jsonl"));
    assert_eq!(metrics[1]["undecided/accuracy"], 8.0);
    folder.write("judge.rhai", "fn verify(ctx, group) { [] }");
    folder.run(["run", "file.toml"]).expect(0, &[]);
    assert_eq!(lines(&folder.path("runs/small/0002/metrics.jsonl"))[1]["undecided/accuracy"], 8.0);
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
fn a_run_that_does_not_belong_to_the_file_is_refused() {
    let folder = folder(&pipeline(NUMBER));
    let said = folder.run(["resume", "file.toml"]);
    said.expect(2, &["there is nothing to resume", "pipeline run file.toml"]);
    folder.run(["resume", "."]).expect(2, &["no run's folder"]);
    folder.run(["resume", "absent"]).expect(1, &["can't read `absent`"]);

    folder.run(["run", "file.toml"]).expect(0, &[]);
    let run = folder.path("runs/small/0001");
    let before = exact_files(&run);
    let text = fs::read_to_string(folder.path("file.toml")).expect("it was written above");
    folder.write("file.toml", text.replace("learning_rate = 1e-4", "learning_rate = 2e-4"));
    folder.run(["resume", "file.toml"]).expect(2, &["learning_rate", "0.0001", "0.0002"]);
    folder.write("file.toml", &text);
    folder.run(["resume", "file.toml"]).expect(0, &["there is nothing to resume: the run has ended"]);
    assert_eq!(before, exact_files(&run), "nothing changed on the way");
}

#[test]
fn a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used() {
    let folder = folder(&pipeline(NUMBER));
    folder.run(["run", "file.toml"]).expect(0, &[]);
    let run = folder.path("runs/small/0001");
    let before = exact_files(&run);
    let weights = run.join("checkpoints/step-000002/model.safetensors");
    let mut bytes = fs::read(&weights).expect("the checkpoint is there");
    bytes[5000] ^= 1;
    fs::write(&weights, bytes).expect("it can be written");
    folder.run(["resume", "runs/small/0001"]).expect(0, &["is damaged", "step-000002.damaged", "checkpoint of step 1"]);
    let mut after = exact_files(&run);
    after.retain(|name, _| !name.contains(".damaged"));
    assert_eq!(before, after);
}

/// Runs a test in a small or read-only file system of its own, where the system lets us mount one.
fn mounted(options: &str, at: &Path, test: impl FnOnce()) {
    fs::create_dir_all(at).expect("a test's folder can be made");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        println!("skipped: a file system can't be mounted here");
        return;
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
    let unmount = Command::new("umount").arg("-l").arg(at).status();
    assert!(unmount.is_ok_and(|status| status.success()), "{} is still mounted", at.display());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn a_full_disk_loses_nothing_that_was_committed() {
    let folder = folder(&pipeline(NUMBER).replace("steps = 2", "steps = 4").replace("keep = 2", "keep = 9"));
    let disk = folder.path("disk");
    // A checkpoint has the weights and two moments of them: there is room for one, and for a part of the second.
    mounted("size=14m", &disk, || {
        let said = folder.run(["run", "file.toml", "--set", "run.dir=disk"]);
        said.expect(2, &["No space left", "step-000002", "nothing that was committed is lost"]);
        let run = disk.join("small/0001");
        assert!(run.join("checkpoints/step-000001/state.json").is_file());
        assert_eq!(
            fs::read_dir(run.join("checkpoints")).expect("it is there").count(),
            1,
            "no half checkpoint is left"
        );
        // With room again, the run goes on.
        let more = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&disk).status();
        assert!(more.is_ok_and(|status| status.success()));
        folder.run(["resume", "disk/small/0001"]).expect(0, &["checkpoint of step 1"]);
        assert_eq!(lines(&run.join("metrics.jsonl")).len(), 4);
    });
}

#[test]
fn a_read_only_run_folder_is_an_error_before_any_work() {
    let folder = folder(&pipeline(NUMBER));
    let disk = folder.path("disk");
    mounted("ro,size=1m", &disk, || {
        let said = folder.run(["run", "file.toml", "--set", "run.dir=disk"]);
        said.expect(2, &["disk/small", "Read-only file system", "--set run.dir=DIR"]);
    });
}

#[test]
fn what_was_collected_is_learned_from_by_a_later_phase() {
    let folder = folder(&pipeline(NUMBER));
    let whole = pipeline(NUMBER);
    let (before, _) = whole.split_once("[stages.update]").expect("the pipeline ends in an update");
    folder.write(
        "select.toml",
        format!("{before}[stages.best]\ntype = \"collect\"\ninputs = [\"reward\"]\npath = \"best.parquet\"\n"),
    );
    let (models, _) = whole.split_once("[plugins.judge]").expect("the pipeline has a plugin");
    let imitate = r#"[stages.rows]
type = "dataset"
sources = [{ name = "best", path = "rows.jsonl", columns = { prompt = "prompt", response = "response" } }]
prompts_per_step = 4
[stages.imitate]
type = "sft"
inputs = ["rows"]
model = "policy"
optimizer = { learning_rate = 1e-3 }
"#;
    folder.write("imitate.toml", format!("{models}{imitate}"));
    let recipe = r#"schema = 1
name = "both"
seed = 3
[[phases]]
name = "select"
pipeline = "select.toml"
[[phases]]
name = "imitate"
pipeline = "imitate.toml"
data = { rows = "phase:select" }
"#;
    folder.write("recipe.toml", recipe);
    folder.run(["run", "recipe.toml"]).expect(0, &["select", "imitate"]);
    let run = folder.path("runs/both/0001");
    let metrics = lines(&run.join("metrics.jsonl"));
    assert_eq!(metrics[1]["collect/best/rows"], 8.0);
    assert!(metrics[3]["loss"].as_f64() < metrics[2]["loss"].as_f64());
    assert!(run.join("phases/select/collected/best.parquet").is_file());

    // Nothing to learn from: the phase is whole, and the next does not start.
    let none = "[stages.none]\ntype = \"filter\"\ninputs = [\"reward\"]\nwhere = \"false\"\n\n[stages.best]";
    let select = fs::read_to_string(folder.path("select.toml")).expect("it was written");
    let select =
        select.replace("[stages.best]", none).replace("inputs = [\"reward\"]\npath", "inputs = [\"none\"]\npath");
    folder.write("select.toml", select);
    let said = folder.run(["run", "recipe.toml"]);
    said.expect(1, &["best.parquet is empty: in 2 steps nothing was kept that could be collected"]);
    assert!(!said.err.contains("imitate:"), "{}", said.err);
    folder.run(["resume", "recipe.toml"]).expect(1, &["the run has ended with a finding", "is empty"]);
}

#[test]
fn a_model_is_tuned_on_the_completions_that_were_kept() {
    let (before, _) =
        pipeline(NUMBER).split_once("[stages.update]").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let imitate = "[stages.keep]\ntype = \"filter\"\ninputs = [\"reward\"]\ndrop = [\"truncated\"]\n\n\
        [stages.imitate]\ntype = \"sft\"\ninputs = [\"keep\"]\nmodel = \"policy\"\n\
        optimizer = { learning_rate = 1e-3 }\n";
    let folder = folder(&format!("{before}{imitate}"));
    folder.run(["run", "file.toml"]).expect(0, &["loss"]);
    let run = folder.path("runs/small/0001");
    for line in lines(&run.join("metrics.jsonl")) {
        let cut = line["completions/clipped_ratio"].as_f64().unwrap();
        assert_eq!(line["completions/dropped"], 8.0 * cut, "{line}");
        // Each of those that are left is learned with its prompt, up to the end-of-sequence token.
        assert!(line["num_targets"].as_f64().unwrap() >= 8.0 * (1.0 - cut), "{line}");
        assert_eq!(line["loss"].as_f64().unwrap() > 0.0, cut < 1.0, "{line}");
    }
    assert!(run.join("rollouts/step-000002.parquet").is_file());
}

/// A pipeline that imitates rows.jsonl, whose first column is named by `key`.
fn imitation(key: &str) -> String {
    let text = pipeline(NUMBER);
    let head = &text[..text.find("[plugins.judge]").expect("it has a plugin")];
    format!(
        r#"{head}
[stages.rows]
type = "dataset"
sources = [{{ name = "rows", path = "rows.jsonl", columns = {{ {key} = "it" }} }}]
prompts_per_step = 2

[stages.imitate]
type = "sft"
inputs = ["rows"]
model = "policy"
optimizer = {{ learning_rate = 1e-3 }}
"#
    )
}

#[test]
fn whole_conversations_and_texts_are_learned() {
    let said = |turns: &[(&str, &str)]| {
        let turns: Vec<String> =
            turns.iter().map(|(role, text)| format!(r#"{{"role":"{role}","content":"{text}"}}"#)).collect();
        format!("{{\"it\":[{}]}}\n", turns.join(","))
    };
    let conversation = &[("user", "1+2=?"), ("assistant", "3"), ("user", "10+7=?"), ("assistant", "17")];
    let folder = Folder::new();
    let template = root().join("pipelines/quickstart/chat_template.jinja");
    let template = format!("tokenizer.json\", chat_template = {template:?} }}");
    folder.write("file.toml", imitation("conversation").replace("tokenizer.json\" }", &template));
    folder.write("rows.jsonl", format!("{}{}", said(conversation), said(&conversation[..2])));
    folder.run(["run", "file.toml"]).expect(0, &["loss"]);
    // Each answer with its end: 1 + 1 and 2 + 1 tokens of the first row, 1 + 1 of the second.
    let targets = |run: &str| lines(&folder.path(run))[0]["num_targets"].as_f64();
    assert_eq!(targets("runs/small/0001/metrics.jsonl"), Some(7.0));

    for (turns, why) in [
        (&conversation[..1], "has no turn of the assistant to learn"),
        (&[("user", "1"), ("assistant", "")][..], "has an empty turn of the assistant"),
    ] {
        folder.write("rows.jsonl", format!("{}{}", said(conversation), said(turns)));
        folder.run(["run", "file.toml"]).expect(1, &["rows.jsonl:2: ", why]);
    }

    folder.write("file.toml", imitation("text"));
    folder.write("rows.jsonl", "{\"it\":\"1+2=3\"}\n{\"it\":\"9\"}\n");
    folder.run(["run", "file.toml"]).expect(0, &["loss"]);
    // All but the first token, and the end: 5 and 1.
    assert_eq!(targets("runs/small/0002/metrics.jsonl"), Some(6.0));
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
fn a_missed_gate_ends_with_exit_code_1_and_stays_missed() {
    let gates = r#"
[[gates]]
claim = "it learns at each step"
metric = "updates"
at_least = 1

[[gates]]
metric = "completions/mean_length"
over = { at = "start" }
at_least = 1000

[[gates]]
metric = "nothing/of/this/name"
at_most = 1
"#;
    let text = pipeline(NUMBER).replace("on_undecided = \"drop\"", "on_undecided = \"zero\"\nmax_undecided = 1");
    let folder = folder(&format!("{text}{gates}"));
    let passed = "gate passed: it learns at each step: updates of small: 1.0000 (at least 1)";
    let missed = "gate missed: completions/mean_length of small over completions/mean_length of small at the start: ";
    let absent = "gate missed: nothing/of/this/name of small: it was never logged (at most 1)";
    folder.run(["run", "file.toml"]).expect(1, &[passed, missed, absent, "error: 2 of 3 gates were missed"]);
    let run = folder.path("runs/small/0001");
    assert!(run.join("checkpoints/step-000002").is_dir(), "the run is whole");
    folder.run(["resume", "file.toml"]).expect(1, &["the run has ended with a finding: 2 of 3 gates were missed"]);

    let recipe = r#"schema = 1
name = "both"
seed = 1
phases = [{ name = "one", pipeline = "one.toml" }, { name = "two", pipeline = "one.toml", set = { "run.steps" = 1 } }]

[[gates]]
phase = "two"
metric = "updates"
over = { phase = "one" }
at_least = 0
at_most = 0
"#;
    folder.write("one.toml", text);
    folder.write("both.toml", recipe);
    folder.run(["run", "both.toml"]).expect(0, &["gate passed: updates of two over updates of one: 0.0000"]);
    folder.write("both.toml", recipe.replace("at_most = 0\n", "").replace("at_least = 0", "at_least = 1"));
    folder.run(["run", "both.toml"]).expect(1, &["error: 1 of 1 gate was missed"]);
    folder.run(["resume", "both.toml"]).expect(1, &["error: 1 of 1 gate was missed"]);
}

#[test]
fn a_run_whose_metric_gets_no_better_ends_early() {
    let text = pipeline(NUMBER).replace("on_undecided = \"drop\"", "on_undecided = \"zero\"\nmax_undecided = 1");
    let evaluation = r#"
[evaluations.sums]
model = "policy"
data = "rows.jsonl"
columns = { prompt = "question", reference = "sum" }
verify = "accuracy"
max_tokens = 4
"#;
    let stop = "steps = 20\nearly_stop = { metric = \"updates\", patience = 3 }";
    let folder = folder(&format!("{}{evaluation}", text.replace("steps = 2", stop)));
    // The same number at each step: the first is the best, and three are no better.
    folder.run(["run", "file.toml"]).expect(0, &["small: ends early, after 4 of 20 steps", "small: step 4: sums"]);
    folder.run(["resume", "file.toml"]).expect(0, &["there is nothing to resume: the run has ended"]);
    let metrics = lines(&folder.path("runs/small/0001/metrics.jsonl"));
    assert!(metrics.iter().all(|line| line["step"].as_u64() <= Some(4)));
    assert!(metrics.iter().any(|line| line["step"] == 4 && line["eval/sums/pass@1"].is_number()));
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
fn a_null_is_no_reference() {
    let folder = folder(&pipeline(NUMBER));
    folder.write("rows.jsonl", "{\"question\":\"1+2=?\",\"sum\":null}\n");
    folder.run(["run", "file.toml"]).expect(1, &["8 of 8 completions are undecided", "no reference"]);
}

#[test]
fn a_run_goes_on_with_the_data_it_was_started_with_or_not_at_all() {
    let folder = folder(&pipeline(NUMBER));
    folder.run(["run", "file.toml"]).expect(0, &[]);
    folder.write("rows.jsonl", ROWS.replace("17", "18"));
    folder.run(["resume", "runs/small/0001"]).expect(2, &["rows.jsonl"]);
    folder.write("rows.jsonl", ROWS);
    // However the file is called: the run knows where it was started.
    let above = folder.path("other");
    fs::create_dir(&above).unwrap();
    let absolute = folder.path("file.toml").to_string_lossy().into_owned();
    let said = folder.run(["resume", &absolute]);
    said.expect(0, &["there is nothing to resume: the run has ended"]);
    let said = folder.run(["resume", "file.toml", "--set", "seed=1"]);
    said.expect(2, &["was started with no `--set`"]);
}

#[test]
fn weights_that_are_not_finite_are_not_committed() {
    let folder = folder(&pipeline(NUMBER).replace("\"reward\"]\nmodel", "\"keep\"]\nmodel"));
    let text = fs::read_to_string(folder.path("file.toml")).unwrap();
    let keep = "[stages.keep]\ntype = \"filter\"\ninputs = [\"reward\"]\ndrop = [\"truncated\"]\n";
    folder.write("file.toml", format!("{text}\n{keep}").replace("1e-4", "1e38"));
    folder.run(["run", "file.toml"]).expect(1, &["stage `update` failed at step", "infinite", "learning_rate"]);
    let checkpoints = folder.path("runs/small/0001/checkpoints");
    let committed = fs::read_dir(&checkpoints).map(Iterator::count).unwrap_or_default();
    assert!(committed <= 1, "an infinite step was committed");
}

#[test]
fn an_evaluation_whose_verifier_fails_ends_the_run() {
    // More questions than may wait in the channel.
    let evaluation = "\n[evaluations.sums]\nmodel = \"policy\"\ndata = \"many.jsonl\"\n\
        columns = { prompt = \"question\", reference = \"sum\" }\nverify = \"accuracy\"\nmax_tokens = 2\n";
    let text = pipeline("rhai = \"judge.rhai\"\nlimits = { operations = 10_000 }").replace("\"drop\"", "\"fail\"");
    let folder = folder(&format!("{text}{evaluation}"));
    folder.write("many.jsonl", ROWS.repeat(150));
    folder.write("judge.rhai", "fn verify(ctx, group) { throw \"no\" }");
    folder.run(["run", "file.toml"]).expect(1, &["evaluation sums", "undecided", "no"]);
}

#[test]
fn a_phase_without_steps_is_not_run_again() {
    let whole = pipeline(NUMBER);
    let folder = folder(&whole);
    let (models, _) = whole.split_once("[plugins.judge]").unwrap();
    let look = "[plugins.judge]\nbuiltin = \"number\"\nlimits = { fuel = 5_000_000, memory = \"16 MiB\" }\n\
        [stages.accuracy]\ntype = \"verify\"\nplugin = \"judge\"\non_undecided = \"drop\"\n\
        [evaluations.sums]\nmodel = \"policy\"\ndata = \"rows.jsonl\"\n\
        columns = { prompt = \"question\", reference = \"sum\" }\nverify = \"accuracy\"\nmax_tokens = 2\n";
    folder.write("look.toml", format!("{}{look}", models.replace("steps = 2\n", "")));
    let recipe = "schema = 1\nname = \"both\"\nseed = 3\n[[phases]]\nname = \"look\"\npipeline = \"look.toml\"\n\
        [[phases]]\nname = \"learn\"\npipeline = \"file.toml\"\n";
    folder.write("recipe.toml", recipe);
    folder.run(["run", "recipe.toml"]).expect(0, &["look", "learn"]);
    let before = exact_files(&folder.path("runs/both/0001"));
    folder.run(["resume", "recipe.toml"]).expect(0, &["the run has ended"]);
    // Without its last commit the second phase goes on, and the first stays as it is.
    fs::remove_dir_all(folder.path("runs/both/0001/phases/learn/checkpoints/step-000002")).unwrap();
    folder
        .run(["resume", "recipe.toml"])
        .expect(0, &["look: has ended before", "learn goes on from its checkpoint of step 1"]);
    assert_eq!(before, exact_files(&folder.path("runs/both/0001")));
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_enough_does_not_end_a_run() {
    let folder = folder(&pipeline(NUMBER));
    let mut child = folder.start(["run", "file.toml"]);
    drop(child.stderr.take());
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(folder.path("runs/small/0001/checkpoints/step-000002/state.json").is_file());
    for arguments in [vec!["schema"], vec!["validate", "--format", "json", "file.toml"]] {
        let mut child = folder.start(arguments);
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
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
