//! Reward models against transformers' numbers and against themselves. `tests/parity/scores.py` made the numbers.

use std::collections::BTreeMap;
use std::path::Path;

use base::RngKey;
use candle_core::{DType, Device};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Numbers, loadable, quickstart, reference, relative, root, values};
use crate::{Learning, Model, Sequence, Walk, weights};

/// A reference model's folder with a head of transformers' in place of its own.
fn with_head(name: &str, numbers: &Numbers) -> TempDir {
    let folder = loadable(&reference(name), "config.json");
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<String, TensorView<'_>> = file.tensors().into_iter().collect();
    tensors.remove("lm_head.weight");
    let (shape, head) = numbers.get(&format!("{name}.head"));
    let head: Vec<u8> = head.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
    tensors.insert("score.weight".into(), TensorView::new(safetensors::Dtype::F32, shape, &head).unwrap());
    let bytes = safetensors::serialize(tensors, None).unwrap();
    std::fs::write(&path, bytes).unwrap();
    change(folder.path(), |config| {
        config["architectures"] = json!(["AnyForSequenceClassification"]);
        config["id2label"] = json!({ "0": "LABEL_0" });
        config["pad_token_id"] = json!(0);
    });
    folder
}

fn change(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

fn load(folder: &Path) -> Model {
    Model::load(folder, &Device::Cpu, DType::F32).unwrap()
}

#[test]
fn scores_and_their_gradients_are_those_of_transformers() {
    let numbers = Numbers::read(&root().join("tests/parity/scores.safetensors"));
    for name in ["llama", "qwen2", "qwen3_moe", "deepseek_v3"] {
        let folder = with_head(name, &numbers);
        let model = load(folder.path());
        assert!(model.gives_scores());
        let of = |what: &str| numbers.get(&format!("{name}.{what}")).1;
        // As they are: padded on the right.
        let rows: Vec<Vec<u32>> =
            of("input_ids").chunks(16).map(|row| row.iter().map(|&id| id as u32).collect()).collect();
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        let scores = model.scores(&rows).unwrap();
        for (score, expected) in scores.iter().zip(of("scores")) {
            assert!((score - expected).abs() < 1e-5, "{name}: {score} instead of {expected}");
        }

        let walk = model.learn_scores(&rows, Learning::default()).unwrap();
        let [a, b, c] = scores[..] else { panic!() };
        let pull = |difference: f64| -0.5 / (1.0 + difference.exp());
        let (first, second) = (pull(a - b), pull(c - a));
        let loss = kernels::ops::known(&walk.values, 0.0, vec![first - second, -first, second]).unwrap();
        model.params().iter().for_each(kernels::Param::zero_grad);
        let mut store = kernels::backward(&loss).unwrap();
        model.params().iter().for_each(|param| param.collect(&mut store).unwrap());
        for tensor in ["score.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight"] {
            let param = model.params().into_iter().find(|param| param.name() == tensor).unwrap();
            let error = relative(&values(&param.grad().unwrap()), &of(&format!("grad.{tensor}")));
            assert!(error < 1e-5, "{name}: the gradient of {tensor} is off by {error}");
        }
    }
}

#[test]
fn a_score_has_the_same_bits_alone_and_packed_and_in_both_walks() {
    let folder = tempfile::tempdir().unwrap();
    quickstart(5).save(folder.path()).unwrap();
    let model = Model::load_with_score(folder.path(), RngKey::new(1, "judge"), &Device::Cpu, DType::F32).unwrap();
    let rows: Vec<Vec<u32>> =
        (0..40).map(|i| (0..20 + i * 5).map(|t| 2 + ((t * 7 + i * 3) % 20) as u32).collect()).collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let together = model.scores(&rows).unwrap();
    let alone: Vec<f64> = rows.iter().flat_map(|row| model.scores(&[row]).unwrap()).collect();
    assert_eq!(together, alone);
    let learned = model.learn_scores(&rows, Learning { recompute: true, balance: None }).unwrap();
    let learned: Vec<f64> = values(&learned.values).into_iter().map(f64::from).collect();
    assert_eq!(together, learned);
    assert!(together.windows(2).any(|pair| pair[0] != pair[1]), "the head is not all zeros");
}

#[test]
fn a_language_model_gets_a_head_once_and_keeps_its_body() {
    let folder = tempfile::tempdir().unwrap();
    let language = quickstart(5);
    language.save(folder.path()).unwrap();
    let judge =
        |key| Model::load_with_score(folder.path(), RngKey::new(key, "judge"), &Device::Cpu, DType::F32).unwrap();
    let model = judge(1);
    let saved = tempfile::tempdir().unwrap();
    model.save(saved.path()).unwrap();
    let tensors = |model: &Model| -> BTreeMap<String, Vec<f32>> {
        let parts = model.weights().iter().map(|(entry, param)| Ok((entry, values(&param.value()))));
        weights::scatter(parts).unwrap().into_iter().map(|(name, (_, values))| (name.to_owned(), values)).collect()
    };
    let (of_language, of_judge) = (tensors(&language), tensors(&model));
    for (name, values) in &of_language {
        assert_eq!(of_judge.get(name), (name != "lm_head.weight").then_some(values), "{name}");
    }
    assert_eq!(of_judge.len(), of_language.len(), "score.weight for lm_head.weight");
    assert_ne!(tensors(&judge(2))["score.weight"], of_judge["score.weight"], "another key, another head");

    // What was saved is a reward model: it takes no new head.
    let config: Value =
        serde_json::from_str(&std::fs::read_to_string(saved.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!(["DeepseekV3ForSequenceClassification"]));
    assert_eq!(config["id2label"], json!({ "0": "LABEL_0" }));
    let again = Model::load_with_score(saved.path(), RngKey::new(2, "judge"), &Device::Cpu, DType::F32).unwrap();
    assert_eq!(tensors(&again), of_judge);
    assert_eq!(tensors(&load(saved.path())), of_judge);
    let copy = model.frozen_copy().unwrap();
    assert_eq!(copy.scores(&[&[3, 4, 5]]).unwrap(), model.scores(&[&[3, 4, 5]]).unwrap());
}

#[test]
fn a_head_without_a_padding_token_is_read_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    quickstart(5).save(folder.path()).unwrap();
    let load = || Model::load_with_score(folder.path(), RngKey::new(1, "judge"), &Device::Cpu, DType::F32).unwrap();
    let (with, ended) = (load(), [7, 8, 9, 1]);
    assert_eq!(with.config.pad, Some(0));
    assert_ne!(with.scores(&[&ended]).unwrap(), with.scores(&[&ended[..3]]).unwrap());
    change(folder.path(), |config| drop(config.as_object_mut().unwrap().remove("pad_token_id")));
    let without = load();
    assert_eq!(without.config.pad, Some(1), "the end of a sequence");
    assert_eq!(without.scores(&[&ended]).unwrap(), without.scores(&[&ended[..3]]).unwrap());
    without.save(folder.path()).unwrap();
    assert_eq!(Model::load(folder.path(), &Device::Cpu, DType::F32).unwrap().config.pad, Some(1));
}

#[test]
fn a_model_is_asked_only_for_what_it_gives() {
    let folder = tempfile::tempdir().unwrap();
    let language = quickstart(5);
    language.save(folder.path()).unwrap();
    let judge = Model::load_with_score(folder.path(), RngKey::new(1, "judge"), &Device::Cpu, DType::F32).unwrap();
    let refused = |result: crate::Result<()>, expected: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    refused(language.scores(&[&[1, 2]]).map(drop), "no score head");
    let sequences = [Sequence::new(&[1, 2, 3], 1)];
    refused(judge.logprobs(&sequences, 1.0, Walk::Frozen).map(drop), "a reward model");
    refused(judge.scores(&[&[1], &[]]).map(drop), "sequence 1 has no tokens");
    refused(judge.scores(&[&[99]]).map(drop), "token 99");

    judge.save(folder.path()).unwrap();
    change(folder.path(), |config| config["id2label"] = json!({ "0": "no", "1": "yes" }));
    refused(Model::load(folder.path(), &Device::Cpu, DType::F32).map(drop), "tells 2 labels apart");
}
