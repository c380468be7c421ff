//! Folders in other forms than our own: dtypes, FP8 blocks, shards, layers that are not ours.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device};
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{quickstart, values};
use crate::Model;
use crate::weights::scatter;

/// A tensor as a file holds it.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

fn read(path: &Path) -> BTreeMap<String, Stored> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let stored =
        |(name, view): (String, TensorView<'_>)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
    tensors.into_iter().map(stored).collect()
}

fn write(path: &Path, tensors: &BTreeMap<String, Stored>) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn numbers((dtype, _, data): &Stored) -> Vec<f32> {
    assert_eq!(*dtype, Dtype::F32);
    data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// The quickstart's model saved, its tensors and its config changed.
fn changed(change: impl FnOnce(&mut BTreeMap<String, Stored>, &mut Value)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    quickstart(3).save(folder.path()).unwrap();
    let (weights, config) = (folder.path().join("model.safetensors"), folder.path().join("config.json"));
    let mut tensors = read(&weights);
    let mut json = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    change(&mut tensors, &mut json);
    write(&weights, &tensors);
    std::fs::write(&config, format!("{json:#}\n")).unwrap();
    folder
}

fn load(folder: &TempDir) -> Model {
    Model::load(folder.path(), &Device::Cpu, DType::F32).unwrap()
}

fn refusal(folder: &TempDir) -> String {
    Model::load(folder.path(), &Device::Cpu, DType::F32).err().expect("the folder can't be used").to_string()
}

/// Saves the model and reads its tensors back.
fn saved(model: &Model) -> (TempDir, BTreeMap<String, Stored>) {
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path()).unwrap();
    let tensors = read(&folder.path().join("model.safetensors"));
    (folder, tensors)
}

#[test]
fn each_dtype_is_read_to_the_f32_that_it_stands_for() {
    let dtypes = [Dtype::F32, Dtype::BF16, Dtype::F16];
    let mut expected: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let folder = changed(|tensors, _| {
        // All three in one file, so that a parameter is made of tensors of several dtypes.
        for (i, (name, stored)) in tensors.iter_mut().enumerate() {
            let all = numbers(stored);
            let dtype = dtypes[i % 3];
            let (bytes, rounded): (Vec<u8>, Vec<f32>) = match dtype {
                Dtype::BF16 => {
                    let all: Vec<bf16> = all.iter().map(|&x| bf16::from_f32(x)).collect();
                    (all.iter().flat_map(|x| x.to_le_bytes()).collect(), all.iter().map(|x| x.to_f32()).collect())
                }
                Dtype::F16 => {
                    let all: Vec<f16> = all.iter().map(|&x| f16::from_f32(x)).collect();
                    (all.iter().flat_map(|x| x.to_le_bytes()).collect(), all.iter().map(|x| x.to_f32()).collect())
                }
                _ => (stored.2.clone(), all),
            };
            (stored.0, stored.2) = (dtype, bytes);
            expected.insert(name.clone(), rounded);
        }
    });
    let (_, got) = saved(&load(&folder));
    assert_eq!(got.len(), expected.len());
    for (name, stored) in &got {
        assert!(numbers(stored) == expected[name], "{name}");
    }
}

#[test]
fn shards_are_written_within_their_limit_and_read_to_the_same_model() {
    let model = quickstart(5);
    let (single, tensors) = saved(&model);
    let sharded = tempfile::tempdir().unwrap();
    // What is there from before must not be read instead.
    model.save(sharded.path()).unwrap();
    model.save_in_shards(sharded.path(), 1_000_000).unwrap();
    let text = std::fs::read_to_string(sharded.path().join("model.safetensors.index.json")).unwrap();
    let index: Value = serde_json::from_str(&text).unwrap();
    let total: usize = tensors.values().map(|(_, _, data)| data.len()).sum();
    assert_eq!(index["metadata"]["total_size"], total);
    assert_eq!(index["metadata"]["total_parameters"], total / 4);
    let map = index["weight_map"].as_object().unwrap();
    assert!(map.keys().eq(tensors.keys()), "the index names each tensor, in order");
    let mut shards: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, shard) in map {
        let shard = shard.as_str().unwrap();
        let stored = read(&sharded.path().join(shard));
        assert!(stored[name] == tensors[name], "{name}");
        shards.insert(shard, stored.values().map(|(_, _, data)| data.len()).sum());
    }
    let count = shards.len();
    assert!(count > 2 && shards.values().all(|&bytes| bytes <= 1_000_000), "{shards:?}");
    for (i, shard) in shards.keys().enumerate() {
        assert_eq!(*shard, format!("model-{:05}-of-{count:05}.safetensors", i + 1));
    }
    let again = load(&sharded);
    // Back to one file, over the shards.
    again.save(sharded.path()).unwrap();
    let whole = |folder: &TempDir| std::fs::read(folder.path().join("model.safetensors")).unwrap();
    assert!(whole(&single) == whole(&sharded));
    assert!(!sharded.path().join("model.safetensors.index.json").exists());
}

#[test]
fn a_tensor_beyond_the_limit_has_a_shard_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    quickstart(5).save_in_shards(folder.path(), 1).unwrap();
    let files = std::fs::read_dir(folder.path()).unwrap();
    let shards = files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "safetensors"));
    let tensors = quickstart(5).weights().iter().flat_map(|(entry, _)| entry.tensors()).count();
    let shared = quickstart(5).weights().iter().filter(|(entry, _)| entry.name.ends_with("kv_b_proj.value")).count();
    assert_eq!(shards.count(), tensors - shared);
    load(&folder);
}

/// Quantises a matrix in blocks of 128 x 128 as a plain loop does, to codes that stand for themselves.
fn fp8(rows: usize, columns: usize, seed: usize) -> (Vec<u8>, Vec<f32>, Vec<f32>) {
    let across = columns.div_ceil(128);
    let scales: Vec<f32> =
        (0..rows.div_ceil(128) * across).map(|i| 2f32.powi(-(i as i32 % 5) - 6) * (1.0 + i as f32 / 64.0)).collect();
    let code = |i: usize| match (i * 37 + seed) % 256 {
        0x7f | 0xff => 0x3b,
        code => code as u8,
    };
    let codes: Vec<u8> = (0..rows * columns).map(code).collect();
    let value = |code: u8| {
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
        let magnitude = match exponent {
            0 => mantissa / 8.0 * 2f32.powi(-6),
            _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
        };
        if code >> 7 == 1 { -magnitude } else { magnitude }
    };
    let expected =
        (0..rows * columns).map(|i| value(codes[i]) * scales[i / columns / 128 * across + i % columns / 128]).collect();
    (codes, scales, expected)
}

/// Turns the matrices that a name's end picks into FP8.
fn quantise(tensors: &mut BTreeMap<String, Stored>, ends: &[&str]) -> BTreeMap<String, Vec<f32>> {
    let names: Vec<String> =
        tensors.keys().filter(|name| ends.iter().any(|end| name.ends_with(end))).cloned().collect();
    let mut expected = BTreeMap::new();
    for (i, name) in names.iter().enumerate() {
        let shape = tensors[name].1.clone();
        let (codes, scales, numbers) = fp8(shape[0], shape[1], i);
        let blocks = shape.iter().map(|size| size.div_ceil(128)).collect();
        tensors.insert(name.clone(), (Dtype::F8_E4M3, shape, codes));
        let bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        tensors.insert(format!("{name}_scale_inv"), (Dtype::F32, blocks, bytes));
        expected.insert(name.clone(), numbers);
    }
    expected
}

fn published() -> Value {
    json!({"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]})
}

#[test]
fn fp8_blocks_are_dequantised_and_saved_as_float32() {
    let mut expected = BTreeMap::new();
    let folder = changed(|tensors, config| {
        let ends =
            ["kv_b_proj.weight", "q_proj.weight", "o_proj.weight", "mlp.down_proj.weight", "experts.3.up_proj.weight"];
        expected = quantise(tensors, &ends);
        config["quantization_config"] = published();
    });
    let ragged = |shape: &[usize]| shape.len() == 2 && shape.iter().any(|size| size % 128 != 0 && *size > 128);
    let before = read(&folder.path().join("model.safetensors"));
    assert!(expected.keys().any(|name| ragged(&before[name].1)), "a last block is cut");
    let model = load(&folder);
    assert!(model.notes()[0].contains("FP8 in blocks of 128 x 128"), "{:?}", model.notes());
    let (out, got) = saved(&model);
    assert!(expected.len() > 4 && got.keys().all(|name| !name.ends_with("_scale_inv")));
    for (name, numbers_expected) in &expected {
        assert!(numbers(&got[name]) == *numbers_expected, "{name}");
    }
    let config = std::fs::read_to_string(out.path().join("config.json")).unwrap();
    assert!(!config.contains("quantization_config") && config.contains("\"float32\""), "{config}");
    assert!(load(&out).notes().is_empty());
}

#[test]
fn fp8_that_is_incomplete_or_not_a_number_is_refused() {
    let name = "model.layers.0.self_attn.o_proj.weight";
    let with = |change: &dyn Fn(&mut BTreeMap<String, Stored>, &mut Value)| {
        refusal(&changed(|tensors, config| {
            quantise(tensors, &[name]);
            config["quantization_config"] = published();
            change(tensors, config);
        }))
    };
    let error = with(&|tensors, _| drop(tensors.remove(&format!("{name}_scale_inv"))));
    assert!(error.contains(&format!("`{name}_scale_inv` is missing: the factors of F8_E4M3 `{name}`")), "{error}");
    let error = with(&|tensors, _| {
        tensors.insert(format!("{name}_scale_inv"), (Dtype::F32, vec![1, 3], vec![0; 12]));
    });
    assert!(error.contains("has shape [1, 3], and the blocks of"), "{error}");
    let error = with(&|_, config| config["quantization_config"] = Value::Null);
    assert!(error.contains(&format!("`{name}` is F8_E4M3; F32, BF16 and F16 are read")), "{error}");
    let error = with(&|_, config| config["quantization_config"]["quant_method"] = "gptq".into());
    assert!(error.contains("`quant_method` \"gptq\""), "{error}");
    let error = with(&|tensors, _| {
        let codes = &mut tensors.get_mut(name).unwrap().2;
        (codes[1], codes[700]) = (0x7f, 0xff);
    });
    assert!(error.contains(&format!("`{name}` holds 2 numbers that are not finite")), "{error}");
}

/// A folder with one more layer, for multi-token prediction, in dtypes of its own.
fn with_prediction() -> (TempDir, BTreeMap<String, Stored>) {
    let mut further = BTreeMap::new();
    let folder = changed(|tensors, config| {
        let layers = config["num_hidden_layers"].as_u64().unwrap();
        config["num_nextn_predict_layers"] = 1.into();
        let stored =
            |dtype, size: usize| (dtype, vec![size], (0..size * 2).map(|i| (i * 7) as u8).collect::<Vec<u8>>());
        for (name, dtype) in [("eh_proj.weight", Dtype::BF16), ("embed_tokens.weight", Dtype::F16)] {
            further.insert(format!("model.layers.{layers}.{name}"), stored(dtype, 700_001));
        }
        let codes = (Dtype::F8_E4M3, vec![2, 3], vec![1, 2, 0x7f, 4, 5, 6]);
        further.insert(format!("model.layers.{layers}.mlp.down_proj.weight"), codes);
        tensors.extend(further.clone());
    });
    (folder, further)
}

#[test]
fn layers_for_multi_token_prediction_are_saved_as_they_were() {
    let (folder, further) = with_prediction();
    let model = load(&folder);
    let notes = model.notes().join("\n");
    assert!(notes.contains("3 tensors of multi-token prediction") && notes.contains("neither trained"), "{notes}");
    assert_eq!(model.parameter_count(), quickstart(3).parameter_count());
    // The folder may be pruned while the model lives, as a run's checkpoints are, or be the one that is saved to.
    model.save(folder.path()).unwrap();
    let moved = tempfile::tempdir().unwrap();
    std::fs::rename(folder.path().join("model.safetensors"), moved.path().join("x")).unwrap();
    std::fs::remove_file(moved.path().join("x")).unwrap();
    let (out, got) = saved(&model.frozen_copy().unwrap());
    for (name, stored) in &further {
        assert!(got[name] == *stored, "{name}");
    }
    let (_, again) = saved(&load(&out));
    assert!(got == again);
}

#[test]
fn kept_tensors_whose_file_was_written_to_are_not_saved() {
    let (folder, _) = with_prediction();
    let model = load(&folder);
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.push(0);
    std::fs::write(&path, bytes).unwrap();
    let out = tempfile::tempdir().unwrap();
    let error = model.save(out.path()).unwrap_err().to_string();
    assert!(error.contains("changed after the model was loaded from it"), "{error}");
    assert!(!out.path().join("model.safetensors").exists());
}

#[test]
fn a_further_layer_that_the_config_does_not_name_is_refused() {
    let (folder, _) = with_prediction();
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"num_nextn_predict_layers\": 1", "\"num_nextn_predict_layers\": 0")).unwrap();
    let error = refusal(&folder);
    assert!(error.contains("eh_proj.weight` is not part of this architecture"), "{error}");
}

#[test]
fn the_file_is_the_one_that_the_format_s_own_library_writes() {
    let model = quickstart(3);
    let (folder, _) = saved(&model);
    let parts = model.weights().iter().map(|(entry, param)| Ok((entry, values(&param.value()))));
    let tensors = scatter(parts).unwrap();
    let bytes = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let stored: BTreeMap<_, _> = tensors.into_iter().map(|(name, (shape, x))| (name, (shape, bytes(&x)))).collect();
    let views =
        stored.iter().map(|(name, (shape, data))| (name, TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap()));
    let expected = safetensors::serialize(views, Some([("format".into(), "pt".into())].into())).unwrap();
    assert!(std::fs::read(folder.path().join("model.safetensors")).unwrap() == expected);
}
