//! What goes wrong around a run, and what it refuses: nothing is lost, and each gets a clear message and an exit code.
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::small::{NUMBER, ROWS, folder, pipeline};
use support::{Folder, exact_files, lines, root};

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

#[test]
fn what_was_kept_is_written_anew_verified_again_and_collected() {
    let text = pipeline(NUMBER).replace("on_undecided = \"drop\"", "on_undecided = \"zero\"\nmax_undecided = 1");
    let (before, _) = text.split_once("[stages.update]").expect("it ends in an update");
    let model = before[before.find("init = {").expect("it has a model")..].lines().next().expect("a line").to_owned();
    let anew = format!(
        r#"
[models.editor]
{model}
device = "cpu"

[stages.keep]
type = "filter"
inputs = ["reward"]
where = "tokens % 2 == 0"

[stages.rewrite]
type = "rewrite"
inputs = ["keep"]
model = "editor"
prompt = "rewrite.jinja"
max_tokens = 5

[stages.again]
type = "verify"
inputs = ["rewrite"]
plugin = "judge"
on_undecided = "zero"
max_undecided = 1

[stages.rewritten]
type = "collect"
inputs = ["again"]
path = "rewritten.jsonl"
"#
    );
    let folder = folder(&format!("{before}{anew}"));
    folder.write("rewrite.jinja", "{{ prompt }}{{ response }}");
    for threads in ["run.threads=1", "run.threads=3"] {
        folder.run(["run", "file.toml", "--set", threads]).expect(0, &["small"]);
    }
    let run = folder.path("runs/small/0001");
    support::assert_same(&run, &folder.path("runs/small/0002"));
    let metrics = lines(&run.join("metrics.jsonl"));
    let sum = |name: &str| metrics.iter().map(|line| line[name].as_f64().expect("it is logged")).sum::<f64>();
    let rows = lines(&run.join("collected/rewritten.jsonl"));
    assert!(sum("filter/keep/dropped") > 0.0 && !rows.is_empty(), "{metrics:?}");
    assert_eq!(sum("filter/keep/dropped") + rows.len() as f64, 16.0, "what was dropped is not written anew");
    assert_eq!(sum("rewrite/rewrite/completions"), rows.len() as f64);
    for row in &rows {
        assert_eq!(row["model"], "editor", "{row}");
        assert!(row["verdicts"].as_str().is_some_and(|verdicts| verdicts.contains("again")), "{row}");
    }

    folder.write("rewrite.jinja", "{{ prompt }}");
    folder
        .run(["run", "file.toml"])
        .expect(1, &["the question of `rewrite` can't be asked", "does not name `response`"]);
}

#[test]
fn a_student_comes_nearer_to_its_teacher_on_its_own_samples() {
    let quickstart = root().join("pipelines/quickstart");
    let folder = folder("");
    let text = pipeline(NUMBER);
    let head = &text[..text.find("[plugins.judge]").expect("it has a plugin")];
    let (_, init) = head.split_once("[models.policy]").expect("it has a model");
    let sampled =
        &text[text.find("[stages.rows]").expect("it has rows")..text.find("[stages.accuracy]").expect("it judges")];
    let distil = r#"[stages.learn]
type = "distil"
inputs = ["sample"]
model = "policy"
teacher = "teacher"
optimizer = { learning_rate = 3e-3 }
"#;
    let file = format!("{head}[models.teacher]{init}{sampled}{distil}").replace("steps = 2", "steps = 30");
    folder.write("file.toml", &file);
    folder.run(["run", "file.toml"]).expect(0, &["loss"]);
    let metrics = lines(&folder.path("runs/small/0001/metrics.jsonl"));
    let divergence: Vec<f64> = metrics.iter().map(|line| line["reverse_kl"].as_f64().expect("it is logged")).collect();
    let (first, last) = (divergence[..5].iter().sum::<f64>(), divergence[25..].iter().sum::<f64>());
    assert!(last < 0.7 * first, "{divergence:?}");

    let other = fs::read_to_string(quickstart.join("tokenizer.json")).expect("it is there").replace("\"+\"", "\"#\"");
    let other = folder.write("other.json", other);
    let tokenizer = format!("tokenizer = {:?}", quickstart.join("tokenizer.json"));
    let (own, teacher) = file.split_once("[models.teacher]").expect("it has a teacher");
    let teacher = teacher.replacen(&tokenizer, &format!("tokenizer = {other:?}"), 1);
    folder.write("file.toml", format!("{own}[models.teacher]{teacher}"));
    let why = ["have different vocabularies", "is \"#\", and \"+\" to its student"];
    folder.run(["run", "file.toml"]).expect(1, &why);
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
metric = "undecided/accuracy"
over = { phase = "one" }
at_least = 0
at_most = 0
"#;
    folder.write("one.toml", text);
    folder.write("both.toml", recipe);
    folder
        .run(["run", "both.toml"])
        .expect(0, &["gate passed: undecided/accuracy of two over undecided/accuracy of one: 0.0000"]);
    folder.write("both.toml", recipe.replace("at_most = 0\n", "").replace("at_least = 0", "at_least = 1"));
    folder.run(["run", "both.toml"]).expect(1, &["error: 1 of 1 gate was missed"]);
    folder.run(["resume", "both.toml"]).expect(1, &["error: 1 of 1 gate was missed"]);
}

#[test]
fn the_evaluations_of_a_file_run_alone() {
    let quickstart = root().join("pipelines/quickstart");
    let file = |name: &str| quickstart.join(name).to_string_lossy().into_owned();
    let folder = Folder::new();
    let few = ["--set", "run.dir=runs", "--set", "evaluations.arithmetic.count=8"];
    let reason = file("reason.toml");
    folder.run(["evaluate", &reason].into_iter().chain(few)).expect(0, &["reason: 0 steps", "pass@1"]);
    let metrics = lines(&folder.path("runs/reason/0001/metrics.jsonl"));
    assert_eq!(metrics.len(), 1, "nothing is learned: {metrics:?}");
    assert!(metrics[0]["eval/arithmetic/pass@1"].is_number(), "{metrics:?}");
    folder.run(["resume", "runs/reason/0001"]).expect(0, &["there is nothing to resume"]);
    folder
        .run(["evaluate", &file("../quickstart.toml")])
        .expect(2, &["is a recipe: evaluate the file of one of its phases"]);
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
