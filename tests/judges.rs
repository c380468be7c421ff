//! Judges on small numbers: trained on preferences and on labels, used to reward, asked for verdicts and for pairs.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Folder, assert_same, lines, root};

/// Numbers that depend on their place alone.
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

/// Ten digits, and their sum.
fn digits(random: &mut impl FnMut(u64) -> u64) -> (String, u64) {
    let digits: Vec<u64> = (0..10).map(|_| random(10)).collect();
    (digits.iter().map(u64::to_string).collect(), digits.iter().sum())
}

fn write_rows(folder: &Folder, name: &str, rows: impl Iterator<Item = Value>) {
    folder.write(name, rows.map(|row| format!("{row}\n")).collect::<String>());
}

/// Pairs of answers, of which that with the greater sum of digits is better.
fn pairs(count: usize) -> impl Iterator<Item = Value> {
    let mut random = random(1);
    let mut pair = move || {
        loop {
            let (a, b) = (digits(&mut random), digits(&mut random));
            if a.1 != b.1 {
                let (better, worse) = if a.1 > b.1 { (a, b) } else { (b, a) };
                return json!({ "question": "1+1=?", "better": better.0, "worse": worse.0 });
            }
        }
    };
    (0..count).map(move |_| pair())
}

/// Answers that are labelled 1 where the sum of their digits is above the middle.
fn labelled(count: usize) -> impl Iterator<Item = Value> {
    let mut random = random(2);
    (0..count).map(move |_| {
        let (answer, sum) = digits(&mut random);
        json!({ "question": "1+1=?", "answer": answer, "safe": u8::from(sum > 45) })
    })
}

/// The beginning of a pipeline file with a model of the quickstart's kind.
fn head(name: &str, steps: u64, model: &str) -> String {
    format!("schema = 1\nname = \"{name}\"\nseed = 3\n\n[run]\ndir = \"runs\"\nsteps = {steps}\n\n{}", init(model))
}

fn init(model: &str) -> String {
    let folder = root().join("pipelines/quickstart");
    let file = |name: &str| folder.join(name);
    format!(
        "[models.{model}]\ndevice = \"cpu\"\ninit = {{ config = {:?}, tokenizer = {:?}, chat_template = {:?} }}\n\n",
        file("model.json"),
        file("tokenizer.json"),
        file("chat_template.jinja")
    )
}

fn training(rows: &str, columns: &str, per_step: usize, steps: u64) -> String {
    head("train", steps, "judge")
        + &format!(
            r#"
[stages.rows]
type = "dataset"
sources = [{{ name = "rows", path = "{rows}", columns = {{ prompt = "question", {columns} }} }}]
prompts_per_step = {per_step}

[stages.train]
type = "train-judge"
inputs = ["rows"]
model = "judge"
minibatches = 2
optimizer = {{ learning_rate = 2e-3, warmup = 2, weight_decay = 0.01 }}
"#
        )
}

/// A sampler, and the stages that `judging` adds.
fn sampling(name: &str, group_size: usize, models: &str, judging: &str) -> String {
    head(name, 2, "policy")
        + models
        + &format!(
            r#"
[plugins.arithmetic]
builtin = "arithmetic"
limits = {{ fuel = 20_000_000, memory = "16 MiB" }}

[stages.problems]
type = "generate"
plugin = "arithmetic"
config = {{ split = "train", digits = 3, count = 12000 }}
prompts_per_step = 4

[stages.sample]
type = "sample"
inputs = ["problems"]
model = "policy"
group_size = {group_size}
max_tokens = 12
{judging}
"#
        )
}

fn mean(lines: &[Value], key: &str) -> f64 {
    lines.iter().map(|line| line[key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"))).sum::<f64>()
        / lines.len() as f64
}

fn metrics(run: &Path) -> Vec<Value> {
    lines(&run.join("metrics.jsonl"))
}

/// Runs a file that commits each step, kills it after its first commit, and goes on: with the bytes of `whole`.
#[track_caller]
fn kill_and_resume(folder: &Folder, file: &str, run: &str, whole: &Path) {
    let checkpoints = folder.path(run).join("checkpoints");
    let mut child = folder.start(["run", file, "--set", "run.threads=3"]);
    let started = Instant::now();
    while !checkpoints.join("step-000001").exists() {
        assert!(started.elapsed() < Duration::from_secs(120), "no step is committed");
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().expect("a killed process can be waited for");
    folder.run(["resume", run]).expect(0, &["goes on from its checkpoint"]);
    assert_same(whole, &folder.path(run));
}

#[test]
fn a_judge_learns_preferences_and_rewards_what_a_policy_writes() {
    let folder = Folder::new();
    write_rows(&folder, "pairs.jsonl", pairs(1280));
    // Each row is seen once, before it is learned.
    folder.write("train.toml", training("pairs.jsonl", "chosen = \"better\", rejected = \"worse\"", 64, 20));
    folder.run(["run", "train.toml"]).expect(0, &[]);
    let steps = metrics(&folder.path("runs/train/0001"));
    let (first, last) = (mean(&steps[..1], "accuracy"), mean(&steps[16..], "accuracy"));
    assert!(first < 0.75 && last > 0.85, "accuracy {first}, then {last}: {steps:?}");
    assert!(mean(&steps[16..], "loss") < 0.45 && mean(&steps[16..], "margin") > 0.5, "{steps:?}");
    let checkpoint = folder.path("runs/train/0001/checkpoints/step-000020");
    let config = fs::read_to_string(checkpoint.join("config.json")).expect("a checkpoint is a model folder");
    assert!(config.contains("DeepseekV3ForSequenceClassification"), "{config}");
    let info = folder.run(["model", "info", &checkpoint.to_string_lossy()]);
    assert!(info.expect(0, &[]).out.contains("a score (a reward model)"), "{}", info.out);

    let judge = format!("[models.judge]\npath = {checkpoint:?}\ndevice = \"cpu\"\n");
    let stages = |kept: &str| {
        format!(
            r#"
[stages.helpful]
type = "judge"
inputs = ["sample"]
model = "judge"
on_undecided = "fail"

[stages.safe]
type = "judge"
inputs = ["sample"]
model = "judge"
input = "answer"
scale = "sigmoid"
on_undecided = "drop"
max_undecided = 1

[stages.reward]
type = "reward"
inputs = ["helpful", "safe"]
weights = {{ helpful = 1.0, safe = 0.5 }}
{kept}"#
        )
    };
    let update = "\n[stages.update]\ntype = \"grpo\"\ninputs = [\"reward\"]\nmodel = \"policy\"\noptimizer = { learning_rate = 1e-4 }\n";
    let collect = "\n[stages.collect]\ntype = \"collect\"\ninputs = [\"reward\"]\npath = \"kept.jsonl\"\n";
    folder.write("use.toml", sampling("use", 4, &judge, &stages(&(update.to_owned() + collect))));
    for threads in ["run.threads=1", "run.threads=3"] {
        folder.run(["run", "use.toml", "--set", threads]).expect(0, &[]);
    }
    let run = folder.path("runs/use/0001");
    assert_same(&run, &folder.path("runs/use/0002"));
    for line in metrics(&run) {
        assert!(line["rewards/helpful/mean"].is_number() && line["loss"].is_number(), "{line}");
        assert_eq!(
            (&line["undecided/helpful"], &line["sampling/sampling_logp_difference/max"]),
            (&json!(0.0), &json!(0.0))
        );
    }
    let rows = lines(&run.join("collected/kept.jsonl"));
    assert!(rows.len() > 16, "{} rows", rows.len());
    for row in &rows {
        let verdicts: Value = serde_json::from_str(row["verdicts"].as_str().expect("text")).expect("JSON");
        let (helpful, safe) = (verdicts["helpful"].as_f64().expect("a score"), verdicts["safe"].as_f64());
        let safe = safe.expect("what is kept is decided");
        assert!((0.0..=1.0).contains(&safe), "{row}");
        assert_eq!(row["reward"].as_f64(), Some(helpful + 0.5 * safe), "{row}");
    }

    // What gives no scores is no judge, and what gives scores writes nothing.
    let language = folder.path("runs/use/0001/checkpoints/step-000002");
    folder.write(
        "wrong.toml",
        sampling("wrong", 2, &judge.replace(&format!("{checkpoint:?}"), &format!("{language:?}")), &stages(collect)),
    );
    folder.run(["validate", "wrong.toml"]).expect(1, &["it has no score head", "`train-judge` stage"]);
    let text =
        sampling("wrong", 2, &judge, &stages(collect)).replace("model = \"policy\"\ngroup", "model = \"judge\"\ngroup");
    folder.write("mixed.toml", text);
    folder.run(["validate", "mixed.toml"]).expect(1, &["`judge` is asked for scores and for tokens"]);
    let policy = init("policy");
    let text = sampling("wrong", 2, &judge, &stages(collect))
        .replace(&policy, &format!("[models.policy]\npath = {checkpoint:?}\n"));
    folder.write("writes.toml", text);
    folder.run(["validate", "writes.toml"]).expect(1, &["it is a reward model"]);
}

#[test]
fn a_judge_learns_labels_and_goes_on_after_a_kill_with_the_same_bytes() {
    let folder = Folder::new();
    write_rows(&folder, "labelled.jsonl", labelled(1024));
    let text = training("labelled.jsonl", "response = \"answer\", label = \"safe\"", 64, 16);
    folder.write("train.toml", text.replace("steps = 16", "steps = 16\ncheckpoint = { every = 1, keep = 2 }"));
    folder.run(["run", "train.toml", "--set", "run.threads=1"]).expect(0, &[]);
    let whole = folder.path("runs/train/0001");
    let steps = metrics(&whole);
    let (first, last) = (mean(&steps[..1], "accuracy"), mean(&steps[12..], "accuracy"));
    assert!(first < 0.75 && last > 0.85, "accuracy {first}, then {last}: {steps:?}");

    kill_and_resume(&folder, "train.toml", "runs/train/0002", &whole);

    fs::write(folder.path("labelled.jsonl"), "{\"question\": \"1\", \"answer\": \"2\", \"safe\": 0.5}\n")
        .expect("it can be written");
    folder
        .run(["validate", "train.toml"])
        .expect(1, &["column `safe` holds no label: it must be 1 or 0, true or false"]);
}

/// Reads a score from what the judge writes: how many of its words are digits, which a random model can't help writing.
const READER: &str = r#"
fn verify(ctx, group) {
    let verdicts = [];
    for completion in group.completions {
        let digits = 0;
        for letter in completion.text.to_chars() { if letter >= '0' && letter <= '9' { digits += 1; } }
        verdicts.push(if completion.text == "" { undecided("it wrote nothing") } else { 1.0 * digits - 3.0 });
    }
    verdicts
}
"#;

#[test]
fn a_language_model_judges_and_makes_pairs_that_a_judge_learns_from() {
    let folder = Folder::new();
    folder.write("reader.rhai", READER);
    folder.write("ask.jinja", "{{ prompt }}={{ response }}?");
    folder.write("compare.jinja", "{{ first }}={{ second }}?");
    let models = init("judge") + "[plugins.reader]\nrhai = \"reader.rhai\"\nlimits = { operations = 50_000 }\n";
    let judging = r#"
[stages.opinion]
type = "judge"
inputs = ["sample"]
model = "judge"
prompt = "ask.jinja"
plugin = "reader"
samples = 3
temperature = 0.8
max_tokens = 8
on_undecided = "drop"

[stages.compare]
type = "pairs"
inputs = ["opinion"]
model = "judge"
prompt = "compare.jinja"
plugin = "reader"
pairs_per_prompt = 3
max_tokens = 8
margin = 0.2
length_difference = 0.3

[stages.collect]
type = "collect"
inputs = ["compare"]
path = "pairs.parquet"
"#;
    folder.write(
        "make.toml",
        sampling("make", 8, &models, judging).replace("steps = 2", "steps = 3\ncheckpoint = { every = 1, keep = 5 }"),
    );
    for threads in ["run.threads=1", "run.threads=3"] {
        folder.run(["run", "make.toml", "--set", threads]).expect(0, &[]);
    }
    let run = folder.path("runs/make/0001");
    assert_same(&run, &folder.path("runs/make/0002"));
    kill_and_resume(&folder, "make.toml", "runs/make/0003", &run);
    let steps = metrics(&run);
    assert_eq!(steps.len(), 3);
    for line in &steps {
        let of =
            |name: &str| line[format!("pairs/compare/{name}")].as_f64().unwrap_or_else(|| panic!("{name} in {line}"));
        assert!(
            of("judged") > 0.0 && of("position_bias").is_finite() && of("length_difference").abs() <= 0.3,
            "{line}"
        );
        let dropped = of("too_close") + of("unbalanced") + line["undecided/compare"].as_f64().unwrap_or(0.0);
        assert_eq!(of("kept") + dropped, of("judged"), "{line}");
        assert!(line["rewards/opinion/mean"].is_number(), "{line}");
    }

    // What was made goes on to train: from one phase of a recipe to the next.
    let train = training("none.jsonl", "chosen = \"chosen\", rejected = \"rejected\"", 8, 2);
    folder.write("train.toml", train.replace("prompt = \"question\"", "prompt = \"prompt\""));
    let phases = "schema = 1\nname = \"both\"\nseed = 3\n[run]\ndir = \"runs\"\n\
                  [[phases]]\nname = \"make\"\npipeline = \"make.toml\"\n\
                  [[phases]]\nname = \"train\"\npipeline = \"train.toml\"\ndata = { rows = \"phase:make\" }\n\
                  [[phases]]\nname = \"use\"\npipeline = \"use.toml\"\nmodels = { judge = \"phase:train\" }\n";
    let scored = "\n[stages.helpful]\ntype = \"judge\"\ninputs = [\"sample\"]\nmodel = \"judge\"\non_undecided = \"fail\"\n\
                  [stages.collect]\ntype = \"collect\"\ninputs = [\"helpful\"]\npath = \"scored.jsonl\"\n";
    folder.write("use.toml", sampling("use", 2, "[models.judge]\npath = \"nowhere\"\ndevice = \"cpu\"\n", scored));
    folder.write("both.toml", phases);
    folder.run(["run", "both.toml"]).expect(0, &[]);
    let learned = metrics(&folder.path("runs/both/0001"));
    assert!(
        learned.iter().any(|line| line["phase"] == "use" && line["rewards/helpful/mean"].is_number()),
        "{learned:?}"
    );
    let learned: Vec<&Value> = learned.iter().filter(|line| line["phase"] == "train").collect();
    assert!(learned.len() == 2 && learned.iter().all(|line| line["margin"].is_number()), "{learned:?}");

    let rows = fs::read_to_string(folder.path("both.toml")).expect("it is there");
    folder.write("both.toml", rows.replace("make.toml", "lines.toml"));
    let make = fs::read_to_string(folder.path("make.toml")).expect("it is there");
    folder.write("lines.toml", make.replace("pairs.parquet", "pairs.jsonl"));
    folder.run(["run", "both.toml"]).expect(0, &[]);
    let rows = lines(&folder.path("runs/both/0002/phases/make/collected/pairs.jsonl"));
    for row in &rows {
        assert!(
            row["margin"].as_f64() > Some(0.2) && row["response"].is_null() && row["chosen"] != row["rejected"],
            "{row}"
        );
        let verdicts: Value = serde_json::from_str(row["verdicts"].as_str().expect("text")).expect("JSON");
        assert_eq!(verdicts["compare"][0], row["margin"], "{row}");
        assert_eq!(row["completion"].as_str().map(|both| both.split(',').count()), Some(2), "{row}");
    }
    assert!(!rows.is_empty());

    // A question that leaves out what is judged, or names what there is not.
    folder.write("ask.jinja", "{{ prompt }}?");
    folder.write("compare.jinja", "{{ first }}={{ secnd }}?");
    folder
        .run(["validate", "make.toml"])
        .expect(1, &["it does not name `response`", "it names `secnd`, which there is not"]);
}
