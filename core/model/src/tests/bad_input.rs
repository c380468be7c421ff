//! Saving and loading: nothing is lost, and what is damaged is named.

use std::path::Path;

use base::RngKey;
use candle_core::{DType, Device};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
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

/// Rewrites the weights without the tensors that `gone` names and with those that are given.
fn rewrite(folder: &Path, gone: &[&str], given: &[(&str, Dtype, &[usize], &[u8])]) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let mut tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    tensors.retain(|(name, _)| !gone.contains(&&**name) && given.iter().all(|(given, ..)| given != name));
    for &(name, dtype, shape, data) in given {
        tensors.push((name.into(), TensorView::new(dtype, shape.to_vec(), data).unwrap()));
    }
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
    let zeros = [0; 512];
    rewrite(
        folder.path(),
        &["model.layers.1.mlp.experts.3.up_proj.weight"],
        &[
            ("model.layers.0.self_attn.q_a_proj.weight", Dtype::F32, &[128], &zeros),
            ("lm_head.weight", Dtype::F32, &[128], &zeros),
            ("model.layers.1.mlp.gate.weight", Dtype::I32, &[8, 16], &zeros),
        ],
    );
    refused(
        folder.path(),
        &[
            "tensor `model.layers.1.mlp.experts.3.up_proj.weight` is missing",
            "tensor `model.layers.0.self_attn.q_a_proj.weight` is not part of this architecture",
            "tensor `lm_head.weight` has shape [128], and the config asks for [25, 128]",
            "tensor `model.layers.1.mlp.gate.weight` has shape [8, 16]",
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
    refused(
        folder.path(),
        &[
            "model.safetensors.index.json",
            "`model-00003-of-00003.safetensors` is not there, with the tensors `model.layers.2.",
            "more",
        ],
    );
    std::fs::remove_file(folder.path().join("model-00001-of-00003.safetensors")).unwrap();
    refused(
        folder.path(),
        &["`model-00001-of-00003.safetensors` is not there", "`model-00003-of-00003.safetensors` is not"],
    );
}

/// Writes the weights anew, the header as given: a list of `"name":{...}`.
fn forge(folder: &Path, header: &[(&str, &str, &[usize], [usize; 2])], data: usize) {
    let entry = |(name, dtype, shape, offsets): &(&str, &str, &[usize], [usize; 2])| {
        format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":{offsets:?}}}")
    };
    let header = format!("{{{}}}", header.iter().map(entry).collect::<Vec<_>>().join(","));
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat();
    std::fs::write(folder.join("model.safetensors"), file).unwrap();
}

#[test]
fn a_header_that_contradicts_itself_is_an_error_that_names_the_tensors() {
    let folder = saved(1);
    let forge = |header: &[(&str, &str, &[usize], [usize; 2])], data| forge(folder.path(), header, data);
    forge(&[("a", "F32", &[2], [0, 8]), ("a", "F32", &[2], [8, 16])], 16);
    refused(folder.path(), &["header is damaged", "lists the tensor `a` twice"]);
    forge(&[("a", "F32", &[2], [0, 8]), ("b", "F32", &[2], [4, 12])], 12);
    refused(folder.path(), &["the tensors `a` and `b` overlap in bytes 4..8"]);
    forge(&[("a", "F32", &[2], [0, 8]), ("b", "F32", &[2], [12, 20])], 20);
    refused(folder.path(), &["no tensor lies in bytes 8..12, before `b`"]);
    forge(&[("a", "F32", &[3], [0, 8])], 8);
    refused(folder.path(), &["tensor `a` lies at 0..8, which does not fit its shape [3] of F32"]);
    forge(&[("a", "F32", &[2], [8, 0])], 8);
    refused(folder.path(), &["tensor `a` lies at 8..0"]);
    forge(&[("a", "F32", &[usize::MAX, 16], [0, 8])], 8);
    refused(folder.path(), &["does not fit its shape"]);
    forge(&[("a", "F99", &[2], [0, 8])], 8);
    refused(folder.path(), &["header is damaged", "F99"]);
}

#[test]
fn the_same_tensor_in_two_shards_is_an_error() {
    let source = reference("deepseek_v3_bf16_sharded");
    let folder = loadable(&source, "config.json");
    let shard = |i: usize| folder.path().join(format!("model-0000{i}-of-00003.safetensors"));
    std::fs::copy(shard(1), shard(2)).unwrap();
    refused(folder.path(), &["model-00002-of-00003.safetensors", "is also in", "model-00001-of-00003.safetensors"]);
}

#[test]
fn weights_that_are_not_finite_are_named_and_counted() {
    let folder = saved(1);
    let broken: Vec<u8> = (0..128).flat_map(|i| [1.0, f32::NAN, f32::INFINITY, 2.0][i % 4].to_le_bytes()).collect();
    rewrite(folder.path(), &[], &[("model.norm.weight", Dtype::F32, &[128], &broken)]);
    refused(folder.path(), &["`model.norm.weight` holds 64 numbers that are not finite (NaN or infinite)"]);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let (folder, small) = (loadable(&reference("deepseek_v3"), "config.json"), saved(1));
    std::fs::copy(folder.path().join("tokenizer.json"), small.path().join("tokenizer.json")).unwrap();
    refused(small.path(), &["`vocab_size` is 25, and the tokenizer has ids up to 319"]);
}
