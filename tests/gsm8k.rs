//! `pipelines/gsm8k.toml` on the real questions and a Hugging Face folder: a tiny one with random weights, so that the
//! reward is nil and every part runs.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Folder, lines, root, shared};

#[test]
fn the_real_questions_go_through_every_part() {
    let Some(data) = shared("data/gsm8k") else { return };
    let folder = Folder::new();
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let (train, test) = (text(&data.join("train.jsonl")), text(&data.join("test.jsonl")));

    // A folder as it would be downloaded: weights and config that transformers wrote, a tokenizer that fits them.
    let fixture = root().join("tests/parity/deepseek_v3");
    fs::create_dir(folder.path("model")).unwrap();
    fs::copy(fixture.join("model.safetensors"), folder.path("model/model.safetensors")).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(fixture.join("config.json")).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(2048);
    folder.write("model/config.json", config.to_string());
    let tokenizer = ["tokenizer", "--data", &train, "--column", "question", "--column", "answer", "--kind", "bpe"];
    let more = ["--vocab-size", "320", "--special", "<pad>", "--special", "<bos>", "--special", "<eos>"];
    let out = ["--out", "model/tokenizer.json"];
    folder.run(tokenizer.iter().chain(&more).chain(&out)).expect(0, &["320 tokens"]);

    let pipeline = text(&root().join("pipelines/gsm8k.toml"));
    let mut arguments = vec!["run".to_owned(), pipeline];
    for set in [
        "run.dir=runs",
        "run.steps=2",
        "models.policy.path=model",
        &format!("stages.questions.sources.gsm8k.path={train}"),
        "stages.questions.prompts_per_step=4",
        "stages.sample.group_size=4",
        "stages.sample.max_tokens=16",
        "stages.keep.drop=[\"truncated\"]",
        "stages.update.minibatches=1",
        &format!("evaluations.test.data={test}"),
        "evaluations.test.limit=8",
        "evaluations.test.max_tokens=16",
    ] {
        arguments.extend(["--set".to_owned(), set.to_owned()]);
    }
    folder.run(&arguments).expect(0, &["gsm8k"]);
    let run = folder.path("runs/gsm8k/0001");
    let metrics = lines(&run.join("metrics.jsonl"));
    assert_eq!(metrics.len(), 3);
    assert_eq!(metrics[2]["eval/test/pass@1"], 0.0);
    for line in &metrics[1..] {
        assert_eq!(line["sampling/sampling_logp_difference/max"].as_f64().unwrap_or_default(), 0.0, "{line}");
    }
    assert!(run.join("rollouts/step-000002.parquet").is_file());
    let example = &lines(&run.join("events.jsonl")).into_iter().find(|event| event["event"] == "evaluation").unwrap()["examples"]
        [0];
    let prompt = example["prompt"].as_str().unwrap();
    assert!(prompt.contains("Janet’s ducks lay 16 eggs per day") && prompt.contains("<think>"), "{prompt}");
    assert!(example["reference"].as_str().unwrap().ends_with("#### 18"));
}
