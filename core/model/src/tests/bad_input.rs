//! Saving and loading: nothing is lost, and what is damaged is named.

use std::path::Path;

use base::RngKey;
use candle_core::{DType, Device};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

use super::{load, loadable, quickstart, reference, values};
use crate::Model;

fn saved(seed: u64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    quickstart(seed).save(folder.path()).unwrap();
    folder
}

#[track_caller]
fn refused(folder: &Path, expected: &[&str]) {
    let error = Model::load(folder, &Device::Cpu, DType::F32).err().expect("the folder is damaged").to_string();
    for part in expected {
        assert!(error.contains(part), "{error}");
    }
}

/// Rewrites the weights with a change to the list of tensors.
fn rewrite(folder: &Path, change: impl for<'a> FnOnce(&mut Vec<(String, TensorView<'a>)>)) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let mut tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    change(&mut tensors);
    let file = safetensors::serialize(tensors, None).unwrap();
    std::fs::write(&path, file).unwrap();
}

#[test]
fn what_is_saved_loads_to_the_same_model_and_the_same_files() {
    let model = quickstart(9);
    model.balance(&[vec![1, 0, 0, 0, 0, 0, 0, 0], vec![0, 0, 0, 0, 0, 0, 0, 1]], 0.01).unwrap();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    model.save(first.path()).unwrap();
    let again = Model::load(first.path(), &Device::Cpu, DType::F32).unwrap();
    for ((entry, own), (_, loaded)) in model.weights().iter().zip(again.weights()) {
        assert_eq!(values(&own.value()), values(&loaded.value()), "{}", entry.name);
    }
    assert_eq!(again.chat_template(), model.chat_template());
    assert_eq!(again.special_texts(), (String::new(), "<eos>".to_string()));
    assert_eq!(again.tokenizer.eos_ids(), [1]);
    again.save(second.path()).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(first.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let expected = [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, expected);
    for name in names {
        let read = |folder: &TempDir| std::fs::read(folder.path().join(&name)).unwrap();
        assert!(read(&first) == read(&second), "{name:?} differs");
    }
}

#[test]
fn a_hub_checkpoint_is_saved_with_its_own_tensors() {
    for name in super::ARCHITECTURES {
        let (folder, model) = (reference(name), load(name));
        let out = tempfile::tempdir().unwrap();
        model.save(out.path()).unwrap();
        let read = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
        let (theirs, ours) = (read(&folder), read(out.path()));
        let (theirs, ours) = (SafeTensors::deserialize(&theirs).unwrap(), SafeTensors::deserialize(&ours).unwrap());
        assert_eq!(theirs.len(), ours.len());
        for (name, tensor) in theirs.tensors() {
            let own = ours.tensor(&name).unwrap();
            assert!(own.shape() == tensor.shape() && own.data() == tensor.data(), "{name}");
        }
    }
}

#[test]
fn every_architecture_starts_from_random_weights() {
    for name in super::ARCHITECTURES {
        let (source, saved) = (loadable(&reference(name), "config.json"), tempfile::tempdir().unwrap());
        let [config, tokenizer] = ["config.json", "tokenizer.json"].map(|file| source.path().join(file));
        let model = Model::init(&config, &tokenizer, None, RngKey::new(1, "init"), &Device::Cpu, DType::F32).unwrap();
        assert_eq!(model.parameter_count(), load(name).parameter_count());
        for (entry, param) in model.weights() {
            let found = values(&param.value());
            let root = (found.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / found.len() as f64).sqrt();
            let expected = match &entry.name {
                name if name.ends_with("bias") => 0.0..=0.0,
                name if name.contains("norm") => 1.0..=1.0,
                // Four standard errors of a root of 0.02; the smallest matrix, a router, has 512 elements.
                _ => 0.0175..=0.0225,
            };
            assert!(expected.contains(&root), "{name}: {} has the root mean square {root}", entry.name);
        }
        model.save(saved.path()).unwrap();
        let again = Model::load(saved.path(), &Device::Cpu, DType::F32).unwrap();
        for ((entry, own), (_, loaded)) in model.weights().iter().zip(again.weights()) {
            assert_eq!(values(&own.value()), values(&loaded.value()), "{name}: {}", entry.name);
        }
    }
}

#[test]
fn initial_weights_depend_on_the_seed_alone() {
    let (a, b, c) = (saved(1), saved(1), saved(2));
    let read = |folder: &TempDir| std::fs::read(folder.path().join("model.safetensors")).unwrap();
    assert!(read(&a) == read(&b));
    assert!(read(&a) != read(&c));
}

#[test]
fn tensors_that_do_not_fit_are_named_all_at_once() {
    let folder = saved(1);
    rewrite(folder.path(), |tensors| {
        tensors.retain(|(name, _)| name != "model.layers.1.mlp.experts.3.up_proj.weight");
        let norm = tensors.iter().find(|(name, _)| name == "model.norm.weight").unwrap().1.clone();
        tensors.push(("model.layers.0.self_attn.q_a_proj.weight".into(), norm.clone()));
        tensors.iter_mut().find(|(name, _)| name == "lm_head.weight").unwrap().1 = norm;
    });
    refused(
        folder.path(),
        &[
            "tensor `model.layers.1.mlp.experts.3.up_proj.weight` is missing",
            "tensor `model.layers.0.self_attn.q_a_proj.weight` is not part of this architecture",
            "tensor `lm_head.weight` has shape [128], and the config asks for [25, 128]",
        ],
    );
}

#[test]
fn a_truncated_or_forged_file_is_an_error() {
    let folder = saved(1);
    let path = folder.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for keep in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        refused(folder.path(), &["model.safetensors", "truncated"]);
    }
    std::fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
    refused(folder.path(), &["4 bytes after its tensors"]);
    let mut forged = whole.clone();
    forged[..8].copy_from_slice(&(1u64 << 60).to_le_bytes());
    std::fs::write(&path, &forged).unwrap();
    refused(folder.path(), &["its header claims 1152921504606846976 bytes"]);
    let mut garbled = whole.clone();
    garbled[8..16].copy_from_slice(b"garbage!");
    std::fs::write(&path, &garbled).unwrap();
    refused(folder.path(), &["header is damaged"]);
}

#[test]
fn an_incomplete_folder_is_an_error_that_names_the_file() {
    for name in ["config.json", "tokenizer.json"] {
        let folder = saved(1);
        std::fs::remove_file(folder.path().join(name)).unwrap();
        refused(folder.path(), &["failed to read", name]);
    }
    let folder = saved(1);
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    refused(folder.path(), &["neither model.safetensors nor model.safetensors.index.json"]);
    std::fs::write(folder.path().join("config.json"), "{\"model_type\": \"rwkv\"}").unwrap();
    refused(folder.path(), &["config.json", "\"rwkv\", which is not known; known are: deepseek_v2, deepseek_v3, "]);
    let folder = saved(1);
    std::fs::write(folder.path().join("generation_config.json"), "{\"eos_token_id\": \"</s>\"}").unwrap();
    refused(folder.path(), &["neither a token id nor a list"]);
    std::fs::write(folder.path().join("generation_config.json"), "{\"eos_token_id\": [1, 25]}").unwrap();
    refused(folder.path(), &["special token 25 lies beyond the vocabulary of 25"]);
}

#[test]
fn a_shard_that_is_missing_or_elsewhere_is_an_error() {
    let source = reference("deepseek_v3_bf16_sharded");
    let folder = loadable(&source, "config.json");
    let index = folder.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replacen("model-00002-of-00003.safetensors", "../elsewhere.safetensors", 1)).unwrap();
    refused(folder.path(), &["`../elsewhere.safetensors` is no plain file name"]);
    std::fs::write(&index, text.replacen("model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors", 1))
        .unwrap();
    refused(folder.path(), &["where the index says it is"]);
    std::fs::write(&index, &text).unwrap();
    std::fs::remove_file(folder.path().join("model-00003-of-00003.safetensors")).unwrap();
    refused(folder.path(), &["failed to read", "model-00003-of-00003.safetensors"]);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let (folder, small) = (loadable(&reference("deepseek_v3"), "config.json"), saved(1));
    std::fs::copy(folder.path().join("tokenizer.json"), small.path().join("tokenizer.json")).unwrap();
    refused(small.path(), &["`vocab_size` is 25, and the tokenizer has ids up to 319"]);
}
