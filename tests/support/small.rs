//! A small pipeline to break.

use super::{Folder, root};

/// A pipeline of every kind of stage that reinforcement learning has, on four rows. `{...}` are places to break it.
pub fn pipeline(verifier: &str) -> String {
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

pub const NUMBER: &str = r#"builtin = "number"
limits = { fuel = 5_000_000, memory = "16 MiB" }"#;

pub const ROWS: &str = r#"{"question":"1+2=?","sum":"3"}
{"question":"4+5=?","sum":"9"}
{"question":"10+7=?","sum":"17"}
{"question":"3+3=?","sum":"6"}
"#;

/// A folder with a pipeline file and its rows.
pub fn folder(text: &str) -> Folder {
    let folder = Folder::new();
    folder.write("file.toml", text);
    folder.write("rows.jsonl", ROWS);
    folder
}
